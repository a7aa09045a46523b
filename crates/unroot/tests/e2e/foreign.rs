//! `image import-store`: images of Podman's and Docker's stores, of which small ones are made here by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::Host;

fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}

/// A layer with one file, taken apart as those engines do: its tree, the list of its parts, its digest.
struct Layer {
    dir: PathBuf,
    digest: String,
}

fn layer(host: &Host) -> Layer {
    let dir = host.path("layer");
    fs::create_dir_all(dir.join("diff/etc")).unwrap();
    fs::write(dir.join("diff/etc/motd"), "hello\n").unwrap();
    let at = dir.display();
    // (etc/: one block; etc/motd: one block, six bytes of contents, and what follows)
    let digest = shell(&format!(
        "cd {at}; tar --format=ustar --owner=0 --group=0 -C diff -cf tar etc
         part() {{ dd if=tar bs=1 skip=$1 count=$2 2>/dev/null | base64 -w0; }}
         {{ printf '{{\"type\":1,\"name\":\"etc/\",\"position\":0}}\\n'
            printf '{{\"type\":2,\"payload\":\"%s\",\"position\":1}}\\n' $(part 0 1024)
            printf '{{\"type\":1,\"name\":\"etc/motd\",\"size\":6,\"payload\":\"AAAAAAAAAAA=\",\"position\":2}}\\n'
            printf '{{\"type\":2,\"payload\":\"%s\",\"position\":3}}\\n' $(part 1030 100000)
         }} | gzip >list.gz
         sha256sum tar | cut -d' ' -f1"
    ));
    Layer { dir, digest: format!("sha256:{digest}") }
}

fn config(layer: &Layer) -> (String, String) {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let text = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}},"history":[]}}"#,
        layer.digest
    );
    let id = shell(&format!("printf %s '{text}' | sha256sum | cut -d' ' -f1"));
    (text, id)
}

fn write(path: PathBuf, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn copy_layer(layer: &Layer, list: &Path, tree: &Path) {
    for path in [list, tree] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    fs::copy(layer.dir.join("list.gz"), list).unwrap();
    shell(&format!("cp -a {}/diff {}", layer.dir.display(), tree.display()));
}

fn podman_store(host: &Host, layer: &Layer) -> PathBuf {
    let store = host.path("podman");
    let (config, id) = config(layer);
    let key = shell(&format!("printf sha256:{id} | base64 -w0"));
    write(store.join(format!("overlay-images/{id}/={key}")), &config);
    let images =
        format!(r#"[{{"id":"{id}","names":["example.org/one:1","example.org/two:2"],"layer":"l1"}}]"#);
    write(store.join("overlay-images/images.json"), &images);
    let layers = format!(r#"[{{"id":"l1","diff-digest":"{}"}}]"#, layer.digest);
    write(store.join("overlay-layers/layers.json"), &layers);
    copy_layer(layer, &store.join("overlay-layers/l1.tar-split.gz"), &store.join("overlay/l1/diff"));
    store
}

fn docker_store(host: &Host, layer: &Layer) -> PathBuf {
    let store = host.path("docker");
    let (config, id) = config(layer);
    let base = store.join("image/overlay2");
    let names =
        format!(r#"{{"Repositories":{{"one":{{"one:1":"sha256:{id}","one@sha256:00":"sha256:{id}"}}}}}}"#);
    write(base.join("repositories.json"), &names);
    write(base.join(format!("imagedb/content/sha256/{id}")), &config);
    let record = base.join("layerdb/sha256").join(layer.digest.trim_start_matches("sha256:"));
    write(record.join("cache-id"), "cache1");
    copy_layer(layer, &record.join("tar-split.json.gz"), &store.join("overlay2/cache1/diff"));
    store
}

#[test]
fn podmans_images_are_brought_over() {
    let host = Host::empty();
    let layer = layer(&host);
    let store = podman_store(&host, &layer);
    let import = |more: &[&str]| {
        let words = ["image", "import-store", store.to_str().unwrap()];
        host.unroot(words.iter().chain(more))
    };
    let (_, id) = config(&layer);
    assert_eq!(import(&["--dry-run"]).ok(), format!("{}  example.org/one:1, example.org/two:2", &id[..12]));
    assert_eq!(host.unroot(["images", "-q"]).ok(), "");
    import(&["--image", "nosuch"]).fails(125, "no such image");
    assert_eq!(import(&["--quiet", "--image", "example.org/two:2"]).ok(), id);
    for name in ["example.org/one:1", "example.org/two:2"] {
        assert_eq!(host.unroot(["image", "inspect", "-f", "{{.Id}}", name]).ok(), id);
    }
    assert!(import(&[]).ok().ends_with("was here already"));
    host.unroot(["system", "check"]).ok();
}

#[test]
fn dockers_images_are_brought_over() {
    let host = Host::empty();
    let layer = layer(&host);
    let store = docker_store(&host, &layer);
    host.unroot(["image", "import-store", store.to_str().unwrap()]).ok();
    let saved = host.path("saved.tar");
    host.unroot(["save", "-q", "-o", saved.to_str().unwrap(), "docker.io/library/one:1"]).ok();
    // its layer's tar is the one that it was, byte for byte
    let sums = shell(&format!(
        "mkdir {0}; tar -C {0} -xf {1}; sha256sum {0}/*.tar | cut -d' ' -f1",
        host.path("saved").display(),
        saved.display()
    ));
    assert!(sums.lines().any(|sum| format!("sha256:{sum}") == layer.digest), "{sums}");
}

#[test]
fn a_damaged_layer_is_refused() {
    let host = Host::empty();
    let layer = layer(&host);
    let store = podman_store(&host, &layer);
    let file = store.join("overlay/l1/diff/etc/motd");
    fs::write(&file, "jello\n").unwrap();
    let import = || host.unroot(["image", "import-store", store.to_str().unwrap()]);
    import().fails(125, "digest");
    // a link out of the tree is not followed
    fs::remove_file(&file).unwrap();
    fs::write(host.path("outside"), "hello\n").unwrap();
    std::os::unix::fs::symlink(host.path("outside"), &file).unwrap();
    import().fails(125, "etc/motd");
    assert_eq!(host.unroot(["images", "-q"]).ok(), "");
    let nothing = host.path("nothing");
    fs::create_dir(&nothing).unwrap();
    host.unroot(["image", "import-store", nothing.to_str().unwrap()]).fails(125, "neither");
}
