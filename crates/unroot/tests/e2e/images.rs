//! What users do with images: archives, registries, lists, trust.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use unroot_registry::{Client, Descriptor, Digest, Options, Reference};

use crate::host::{Host, IMAGE, is_root};
use crate::registry::Registry;

fn id_of(host: &Host, name: &str) -> String {
    host.unroot(["image", "inspect", "--format", "{{.Id}}", name]).ok()
}

fn digest_of(host: &Host, name: &str) -> String {
    host.unroot(["image", "inspect", "--format", "{{.Digest}}", name]).ok()
}

fn runs(host: &Host, name: &str) {
    let seen =
        host.unroot(["run", "--rm", "--network=none", name, "sh", "-c", "id -un; stat -c %a /tmp"]).ok();
    assert_eq!(seen, "root\n1777", "{name}");
}

/// An image of two layers: something is removed, and something is the user's own.
fn two_layers(host: &Host) -> String {
    let script = "rm /etc/group && echo x >/new && chown 1000:1234 /new && chmod 4711 /new && ln /new /hard";
    host.unroot(["run", "--name", "maker", "--network=none", IMAGE, "sh", "-c", script]).ok();
    host.unroot(["commit", "-q", "maker", "localhost/two:1"]).ok();
    host.unroot(["rm", "maker"]).ok();
    id_of(host, "localhost/two:1")
}

#[test]
fn archives_of_all_formats() {
    let host = Host::new();
    let id = two_layers(&host);
    let path = |name: &str| host.path(name).to_str().unwrap().to_string();
    for format in ["docker-archive", "oci-archive", "oci-dir", "docker-dir"] {
        let place = path(format);
        host.unroot(["save", "-q", "--format", format, "-o", &place, "localhost/two:1"]).ok();
        host.unroot(["rmi", "localhost/two:1"]).ok();
        host.unroot(["load", "-q", "-i", &place]).ok();
        assert_eq!(host.unroot(["images", "-q", "--no-trunc"]).ok().matches(&id).count(), 1, "{format}");
        // (skopeo's directories have no names)
        if format == "docker-dir" {
            host.unroot(["tag", &id, "localhost/two:1"]).ok();
        }
        runs(&host, "localhost/two:1");
        let seen = host.unroot([
            "run",
            "--rm",
            "--network=none",
            "two:1",
            "sh",
            "-c",
            "stat -c '%a %u:%g %h' /hard; ls /etc/group",
        ]);
        assert!(seen.out.starts_with("4711 1000:1234 2") && seen.code == 1, "{seen:?}");
    }
    // as a stream, packed and not; what is said to be the same is the same
    for format in ["docker-archive", "oci-archive"] {
        let plain = fs::read(path(format)).unwrap();
        let packed = Command::new("gzip").args(["-c", &path(format)]).output().unwrap().stdout;
        for stream in [&plain, &packed] {
            host.unroot(["rmi", "localhost/two:1"]).ok();
            assert_eq!(host.unroot_with_input(["load"], stream).ok(), "Loaded image: localhost/two:1");
            assert_eq!(id_of(&host, "two:1"), id);
        }
        let again = path("again");
        host.unroot(["save", "-q", "--format", format, "-o", &again, "two:1"]).ok();
        assert!(fs::read(again).unwrap() == plain, "{format}: the same image makes the same archive");
    }
    host.unroot(["system", "check"]).ok();
    host.unroot(["save", "-q", "--format", "nosuch", "two:1"]).fails(125, "unsupported format");
    host.unroot(["save", "-q", "--compress", "two:1"]).fails(125, "docker-dir");
    host.unroot(["save", "-q", "nosuch"]).fails(125, "nosuch: image not known");
    host.unroot_with_input(["load"], b"no archive at all").fails(125, "payload does not match any");
}

#[test]
fn several_images_in_an_archive() {
    let host = Host::new();
    two_layers(&host);
    let archive = host.path("all.tar");
    let archive = archive.to_str().unwrap();
    host.unroot(["save", "-q", "-m", "-o", archive, "localhost/two:1", IMAGE]).ok();
    host.unroot(["rmi", "-f", "localhost/two:1", IMAGE]).ok();
    let loaded = host.unroot(["load", "-q", "-i", archive]).ok();
    assert_eq!(loaded.lines().count(), 2, "{loaded}");
    runs(&host, "localhost/two:1");
    // what follows the first one is a name for it
    host.unroot(["save", "-q", "-o", archive, "localhost/two:1", "other:2"]).ok();
    host.unroot(["rmi", "localhost/two:1"]).ok();
    let loaded = host.unroot(["load", "-q", "-i", archive]).ok();
    assert!(loaded.contains("localhost/two:1") && loaded.contains("localhost/other:2"), "{loaded}");
    let by_name = host.unroot(["pull", "-q", &format!("docker-archive:{archive}:localhost/nosuch:1")]);
    by_name.fails(125, "archive has no image localhost/nosuch:1");
    // a container's image may be an archive's
    host.unroot(["rmi", "-a", "-f"]).ok();
    let from = format!("docker-archive:{archive}:localhost/other:2");
    assert_eq!(host.unroot(["run", "--rm", "--network=none", &from, "echo", "ran"]).ok(), "ran");
    host.unroot(["create", "--name", "c", &from, "true"]).ok();
    assert_eq!(host.unroot(["inspect", "-f", "{{.ImageName}}", "c"]).ok(), "localhost/other:2");
}

#[test]
fn pushed_and_pulled() {
    let host = Host::new();
    two_layers(&host);
    let registry = Registry::start(&host);
    let name = |repository: &str| format!("127.0.0.1:{}/{repository}", registry.port);
    let digests = host.path("digest");
    let push = |more: &[&str], to: &str| {
        let flags =
            [&["push", "-q", "--digestfile", digests.to_str().unwrap()], more, &["two:1", to]].concat();
        host.unroot(flags).ok();
        fs::read_to_string(&digests).unwrap()
    };
    let first = push(&[], &name("a/two:1"));
    assert!(first.starts_with("sha256:"), "{first}");
    // to another repository of the registry: the same bytes, whether they are taken over or made again
    assert_eq!(push(&[], &name("b/two:1")), first);
    let docker = push(&["--format", "v2s2"], &name("a/two:docker"));
    let packed = push(&["--compression-format", "zstd", "--compression-level", "9"], &name("a/two:zstd"));
    assert!(docker != first && packed != first && packed != docker);
    let id = id_of(&host, "two:1");
    for (tag, digest) in [("1", &first), ("docker", &docker), ("zstd", &packed)] {
        host.unroot(["rmi", "-f", &id]).ok();
        let there = name(&format!("a/two:{tag}"));
        assert_eq!(host.unroot(["pull", "-q", &there]).ok(), id);
        assert_eq!(digest_of(&host, &there), *digest);
        runs(&host, &there);
        // what came from a registry goes back as it came
        host.unroot(["tag", &there, "two:1"]).ok();
        assert_eq!(push(&[], &name("c/two:1")), *digest, "{tag}");
        assert_eq!(host.unroot(["pull", "-q", &name(&format!("a/two@{digest}"))]).ok(), id);
    }
    let listed = host.unroot(["search", "--format", "{{.Name}}", &name("two")]).ok();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let tags = host.unroot(["search", "--list-tags", "--format", "{{.Tag}}", &name("a/two")]).ok();
    let mut tags: Vec<&str> = tags.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["1", "docker", "zstd"]);
    let missing = "docker://127.0.0.1:1/two:1";
    host.unroot(["push", "-q", "--retry", "0", "two:1", missing]).fails(125, "connection refused");
    host.unroot(["push", "-q", "--compression-format", "lz4", "two:1", &name("x")]).fails(125, "lz4");
    host.unroot(["push", "-q", "--compression-level", "99", "two:1", &name("x")]).fails(125, "levels 1 to 9");
    host.unroot(["rmi", "-f", &id]).ok();
    let all = host.unroot(["pull", "-q", "--all-tags", &name("a/two")]).ok();
    assert_eq!(all.lines().filter(|line| *line == id).count(), 3, "{all}");
    let newer = host.unroot(["pull", "--policy", "newer", &name("a/two:zstd")]);
    assert_eq!((newer.code, newer.out.trim_end(), newer.err.as_str()), (0, id.as_str(), ""));
}

#[test]
fn logged_in() {
    let host = Host::new();
    // (the password is "secret")
    let users = host.path("htpasswd");
    fs::write(&users, "tester:$2y$05$C.X0zTE8fLvXR4r8MPC4TuhXU1KUc4ydeGYgwOctvgdOEVh4/NWWC\n").unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}", users.display());
    let registry = Registry::start_with(&host, &auth);
    let place = format!("127.0.0.1:{}", registry.port);
    let file = host.path("auth/auth.json");
    let authfile = file.to_str().unwrap();
    let to = format!("{place}/image:1");
    host.unroot(["push", "-q", IMAGE, &to]).fails(125, "authentication required");
    host.unroot_with_input(
        ["login", "-u", "tester", "--password-stdin", "--authfile", authfile, &place],
        b"wrong\n",
    )
    .fails(125, "invalid username/password");
    assert!(!file.exists());
    let login = ["login", "-u", "tester", "--password-stdin", "--authfile", authfile, &place];
    assert_eq!(host.unroot_with_input(login, b"secret\n").ok(), "Login Succeeded!");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(host.unroot(["login", "--get-login", "--authfile", authfile, &place]).ok(), "tester");
    host.unroot(["push", "-q", "--authfile", authfile, IMAGE, &to]).ok();
    host.unroot(["pull", "-q", "--creds", "tester:secret", &to]).ok();
    host.unroot(["logout", "--authfile", authfile, &place]).ok();
    host.unroot(["logout", "--authfile", authfile, &place]).fails(125, "not logged into");
    host.unroot(["pull", "-q", "--authfile", authfile, &to]).fails(125, "authentication required");
}

#[test]
fn lists_of_images() {
    let host = Host::new();
    let archive = host.path("image.tar");
    let archive = archive.to_str().unwrap();
    host.unroot(["import", "-q", "--arch", "arm64", archive, "localhost/arm:1"]).ok();
    let registry = Registry::start(&host);
    let place = format!("127.0.0.1:{}/list:1", registry.port);
    let id = host.unroot(["manifest", "create", "list:1", IMAGE]).ok();
    host.unroot(["manifest", "create", "list:1"]).fails(125, "already in use");
    assert_eq!(host.unroot(["manifest", "add", "--variant", "v8", "list:1", "localhost/arm:1"]).ok(), id);
    host.unroot(["manifest", "exists", "list:1"]).ok();
    assert_eq!(host.unroot(["manifest", "exists", IMAGE]).code, 1);
    let arm = digest_of(&host, "localhost/arm:1");
    host.unroot(["manifest", "annotate", "--annotation", "a=b", "list:1", &arm]).ok();
    host.unroot(["manifest", "annotate", "--index", "--annotation", "c=d", "list:1"]).ok();
    let shown = |name: &str| -> Value {
        serde_json::from_str(&host.unroot(["manifest", "inspect", "--tls-verify=false", name]).ok()).unwrap()
    };
    let local = shown("list:1");
    assert_eq!(local["annotations"]["c"], "d");
    assert_eq!(local["manifests"][1]["platform"]["variant"], "v8");
    assert_eq!(local["manifests"][1]["annotations"]["a"], "b");
    runs(&host, "list:1");
    host.unroot(["manifest", "push", "-q", "--add-compression", "zstd", "list:1", &place]).ok();
    let pushed = shown(&format!("docker://{place}"));
    assert_eq!(pushed["manifests"].as_array().unwrap().len(), 4, "{pushed}");
    assert_eq!(pushed["manifests"][2]["annotations"]["io.github.containers.compression.zstd"], "true");
    // (a list of a registry in a list: its images are copied)
    host.unroot([
        "manifest",
        "create",
        "--all",
        "--tls-verify=false",
        "copy:1",
        &format!("docker://{place}"),
    ])
    .ok();
    let other = format!("127.0.0.1:{}/copy:1", registry.port);
    host.unroot(["manifest", "push", "-q", "copy:1", &other]).ok();
    assert_eq!(shown(&format!("docker://{other}"))["manifests"].as_array().unwrap().len(), 4);
    host.unroot(["rmi", "-f", IMAGE]).ok();
    host.unroot(["pull", "-q", &other]).ok();
    runs(&host, &other);
    host.unroot(["manifest", "remove", "list:1", &arm]).ok();
    assert_eq!(shown("list:1")["manifests"].as_array().unwrap().len(), 1);
    let file = host.path("note.txt");
    fs::write(&file, "a note").unwrap();
    host.unroot(["manifest", "add", "--artifact", "list:1", file.to_str().unwrap()]).ok();
    let third = format!("127.0.0.1:{}/note:1", registry.port);
    let only = shown("list:1")["manifests"][1]["digest"].as_str().unwrap().to_string();
    host.unroot([
        "manifest",
        "remove",
        "list:1",
        shown("list:1")["manifests"][0]["digest"].as_str().unwrap(),
    ])
    .ok();
    host.unroot(["manifest", "push", "-q", "list:1", &third]).ok();
    assert_eq!(shown(&format!("docker://{third}"))["manifests"][0]["digest"], only);
    host.unroot(["manifest", "rm", "list:1", "copy:1"]).ok();
    host.unroot(["manifest", "rm", "list:1"]).fails(1, "image not known");
}

/// Signs as cosign does, with a key of openssl's.
fn sign(host: &Host, reference: &Reference, digest: &str, key: &Path) {
    sign_as(host, reference, &reference.name(), digest, key);
}

/// The same with another name signed.
fn sign_as(host: &Host, reference: &Reference, name: &str, digest: &str, key: &Path) {
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{name}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
    );
    let file = host.path("payload");
    fs::write(&file, &payload).unwrap();
    let signed = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(key)
        .arg(&file)
        .output()
        .expect("openssl: apt-get install openssl");
    let base64 = {
        use std::io::Write as _;
        let mut child = Command::new("base64")
            .arg("-w0")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&signed.stdout).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    let client = Client::new(Options::default()).unwrap();
    let tag = format!("{}.sig", digest.replace(':', "-"));
    let place = reference.without_tag_and_digest().with_tag(&tag).unwrap();
    let push = |bytes: &[u8], media_type: &str| {
        let descriptor = Descriptor::of(media_type, bytes);
        let mut open = || Ok(Box::new(std::io::Cursor::new(bytes.to_vec())) as Box<dyn std::io::Read>);
        client.push_blob(&place, &descriptor, &mut open).unwrap();
        descriptor
    };
    let layer = push(payload.as_bytes(), "application/vnd.dev.cosign.simplesigning.v1+json");
    let config = push(b"{}", "application/vnd.oci.image.config.v1+json");
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
        "layers": [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size,
            "annotations": {"dev.cosignproject.cosign/signature": base64}}],
    });
    client
        .push_manifest(&place, "application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes())
        .unwrap();
}

#[test]
fn trusted() {
    let host = Host::new();
    let registry = Registry::start(&host);
    let scope = format!("127.0.0.1:{}", registry.port);
    let name = format!("{scope}/image:1");
    host.unroot(["push", "-q", IMAGE, &name]).ok();
    let config = host.path("config");
    let policy = config.join("containers/policy.json");
    fs::create_dir_all(policy.parent().unwrap()).unwrap();
    fs::write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).unwrap();
    let unroot = |args: &[&str]| host.run(host.command(args).env("XDG_CONFIG_HOME", &config));
    unroot(&["pull", "-q", &name]).ok();
    unroot(&["image", "trust", "set", "-t", "reject", &scope]).ok();
    let shown = unroot(&["image", "trust", "show", "-n"]).ok();
    assert!(shown.contains("accept") && shown.contains("reject"), "{shown}");
    unroot(&["pull", "-q", &name]).fails(125, "rejected by policy");
    let key = host.path("key.pem");
    let public = host.path("key.pub");
    let openssl =
        |args: &[&str]| assert!(Command::new("openssl").args(args).output().unwrap().status.success());
    let (key_text, public_text) = (key.to_str().unwrap(), public.to_str().unwrap());
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key_text]);
    openssl(&["ec", "-in", key_text, "-pubout", "-out", public_text]);
    unroot(&["image", "trust", "set", "-t", "sigstoreSigned", "-f", public_text, &scope]).ok();
    unroot(&["pull", "-q", &name]).fails(125, "no signature exists");
    let reference = Reference::parse_normalized(&name).unwrap();
    let client = Client::new(Options::default()).unwrap();
    let digest = client.manifest(&reference).unwrap().digest;
    sign(&host, &reference, Digest::sha256(b"another").as_str(), &key);
    unroot(&["pull", "-q", &name]).fails(125, "no signature exists");
    let other = host.path("other.pem");
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", other.to_str().unwrap()]);
    sign(&host, &reference, digest.as_str(), &other);
    unroot(&["pull", "-q", &name]).fails(125, "none of the keys");
    sign_as(&host, &reference, "quay.io/other/image", digest.as_str(), &key);
    unroot(&["pull", "-q", &name]).fails(125, "identity");
    sign(&host, &reference, digest.as_str(), &key);
    unroot(&["pull", "-q", &name]).ok();
    fs::write(&policy, r#"{"default": [{"type": "reject"}]}"#).unwrap();
    let archive = host.path("archive.tar");
    unroot(&["save", "-q", "-o", archive.to_str().unwrap(), IMAGE]).ok();
    unroot(&["load", "-q", "-i", archive.to_str().unwrap()]).fails(125, "rejected by policy");
}

#[test]
fn shown() {
    let host = Host::new();
    two_layers(&host);
    let steps: Value =
        serde_json::from_str(&host.unroot(["history", "--format", "json", "two:1"]).ok()).unwrap();
    assert_eq!(steps.as_array().unwrap().len(), 2, "{steps}");
    let tree = host.unroot(["image", "tree", "two:1"]).ok();
    assert!(
        tree.contains("├── ID: ") && tree.contains("└── ID: ") && tree.contains("[localhost/two:1]"),
        "{tree}"
    );
    let needs = host.unroot(["image", "tree", "--whatrequires", IMAGE]).ok();
    assert!(needs.contains("Top Layer of: [localhost/two:1]"), "{needs}");
    let df = host.unroot(["system", "df", "--format", "{{.Type}} {{.Total}} {{.Active}}"]).ok();
    assert_eq!(df, "Images 2 0\nContainers 0 0\nLocal Volumes 0 0");
    host.unroot(["tag", "two:1", "other:1"]).ok();
    let filtered =
        |filter: &str| host.unroot(["images", "-n", "--format", "{{.Repository}}", "--filter", filter]).ok();
    assert_eq!(filtered("reference=two"), "localhost/two");
    assert_eq!(filtered("reference=*/t*").lines().count(), 2);
    assert_eq!(filtered("dangling=true"), "");
    assert_eq!(filtered(&format!("since={IMAGE}")).lines().count(), 2);
    host.unroot(["images", "--filter", "nosuch=1"]).fails(125, "unsupported image filter");
    host.unroot(["untag", "two:1"]).ok();
    let id = host.unroot(["images", "-q", "--no-trunc", "--filter", "dangling=true"]).ok();
    assert_eq!(host.unroot(["image", "prune", "-f"]).ok(), id.trim_start_matches("sha256:"));
    host.unroot(["create", "--name", "c", IMAGE]).ok();
    assert_eq!(host.unroot(["image", "prune", "-af"]).ok(), "", "an image that a container has stays");
    let pruned = host.unroot(["system", "prune", "-af"]).ok();
    assert!(pruned.contains("Deleted Containers") && pruned.contains("Total reclaimed space: "), "{pruned}");
    assert_eq!(host.unroot(["images", "-q"]).ok(), "");
    assert_eq!(fs::read_dir(host.path("root/layers")).unwrap().count(), 0);
}

#[test]
fn mounted_for_reading() {
    let host = Host::new();
    two_layers(&host);
    let program = crate::host::binary();
    let [root, run] = ["root", "run"].map(|d| host.path(d).display().to_string());
    let unroot = format!("{} --root {root} --runroot {run}", program.display());
    if !is_root() {
        host.unroot(["image", "mount", "two:1"]).fails(125, "unshare");
    }
    let script = format!(
        "set -e; for i in two:1 {IMAGE}; do m=$({unroot} image mount $i); test -x $m/bin/sh; ! touch $m/x 2>/dev/null; done
         {unroot} image mount | wc -l; test ! -e $({unroot} image mount two:1)/etc/group
         {unroot} image unmount -a >/dev/null; {unroot} image mount | wc -l"
    );
    assert_eq!(host.inside(&script).ok(), "2\n0");
}

/// On a terminal each layer has a bar with its speed and the time that is left; elsewhere lines.
#[test]
fn bars_on_a_terminal() {
    let host = Host::new();
    let archive = host.path("saved.tar");
    let archive = archive.to_str().unwrap();
    let on_terminal = |words: &[&str]| {
        let command = host.command(words);
        let line: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let mut script = std::process::Command::new("script");
        script.args(["-qec", &format!("stty cols 120; {}", line.join(" ")), "/dev/null"]);
        host.run(script.env("TERM", "xterm").env("CONTAINERS_CONF", "/dev/null")).ok()
    };
    for words in [&["save", "-o", archive, IMAGE][..], &["load", "-i", archive]] {
        let shown = on_terminal(words);
        assert!(shown.contains("===") && shown.contains("B | done"), "{words:?}: {shown}");
        assert!(shown.contains("B/s, ") && shown.contains("s left"), "{words:?}: {shown}");
        if words[0] == "save" {
            host.unroot(["rmi", IMAGE]).ok();
        }
    }
    let lines = host.unroot(["save", "-o", host.path("again.tar").to_str().unwrap(), IMAGE]);
    assert!(lines.code == 0 && lines.err.contains("Copying blob sha256:") && !lines.err.contains('['));
}
