//! `commit`, `diff`, `export`: what a container has changed, as an image, as a list, as a tar.

use std::collections::BTreeSet;

use crate::host::{Host, IMAGE};

const CHANGES: &str = "echo hi >/new && mkdir -p /d/e && echo x >/d/e/f && ln -s new /link && ln /new /hard && \
    chown 5:6 /d/e/f && chmod 4755 /new && rm /bin/cat && echo more >>/etc/passwd";

#[test]
fn a_container_becomes_an_image() {
    let host = Host::new();
    host.unroot(["run", "--name", "c", "--network=none", IMAGE, "sh", "-c", CHANGES]).ok();
    let changes: Vec<&str> =
        vec!["--change", "ENV=A=b", "-c", "CMD [\"sh\",\"-c\",\"echo $A\"]", "--author", "me"];
    host.unroot([&["commit", "-q"], &changes[..], &["c", "made"]].concat()).ok();
    assert_eq!(host.unroot(["run", "--rm", "--network=none", "made"]).ok(), "b");
    let script = "stat -c '%a %u:%g %h %n' /new /d/e/f /hard; readlink /link; ls /bin/cat 2>/dev/null; tail -n1 /etc/passwd";
    let seen = host.unroot(["run", "--rm", "--network=none", "made", "sh", "-c", script]).ok();
    assert_eq!(seen, "4755 0:0 2 /new\n644 5:6 1 /d/e/f\n4755 0:0 2 /hard\nnew\nmore");
    assert_eq!(host.unroot(["inspect", "--type", "image", "--format", "{{.Author}}", "made"]).ok(), "me");
    // the same changes make the same layer
    host.unroot([&["commit", "-q"], &changes[..], &["c", "again"]].concat()).ok();
    let layers =
        |name| host.unroot(["inspect", "--type", "image", "--format", "{{.RootFS.Layers}}", name]).ok();
    assert_eq!(layers("made"), layers("again"));
    host.unroot(["commit", "-q", "nosuch", "x"]).fails(125, "no such container");
    host.unroot(["commit", "-q", "--change", "NOSUCH=1", "c", "x"]).fails(125, "NOSUCH");
}

/// What a name stood for before stays below the image that was made of it, and goes with it.
#[test]
fn nameless_images_go_with_what_was_made_of_them() {
    let host = Host::new();
    let ids = || host.unroot(["images", "-aq"]).ok().lines().count();
    let chain = || {
        for n in 0..3 {
            let from = if n == 0 { IMAGE } else { "chain" };
            let script = format!("echo {n} >/f");
            host.unroot(["run", "--name", "c", "--network=none", from, "sh", "-c", &script]).ok();
            host.unroot(["commit", "-q", "c", "chain"]).ok();
            host.unroot(["rm", "c"]).ok();
        }
    };
    chain();
    assert_eq!(ids(), 4, "three of the chain, and what it is based on");
    let said = host.unroot(["rmi", "chain"]).ok();
    assert_eq!(said.lines().filter(|line| line.starts_with("Deleted: ")).count(), 3, "{said}");
    assert_eq!(ids(), 1);
    chain();
    assert_eq!(host.unroot(["rmi", "--no-prune", "chain"]).ok().lines().count(), 2);
    assert_eq!(ids(), 3);
    // an image that something else was made of stays, and so do those below it
    let top = host.unroot(["images", "-aq", "--filter", "dangling=true"]).ok();
    let top = top.lines().next().unwrap();
    host.unroot(["run", "--name", "c", "--network=none", top, "true"]).ok();
    host.unroot(["commit", "-q", "c", "one"]).ok();
    host.unroot(["commit", "-q", "-a", "another", "c", "two"]).ok();
    host.unroot(["rm", "c"]).ok();
    host.unroot(["rmi", "one"]).ok();
    assert_eq!(ids(), 4);
    host.unroot(["rmi", "two"]).ok();
    assert_eq!(ids(), 1);
}

#[test]
fn what_has_changed() {
    let host = Host::new();
    host.unroot(["run", "--name", "c", "--network=none", IMAGE, "sh", "-c", CHANGES]).ok();
    let seen = host.unroot(["diff", "c"]).ok();
    let lines: BTreeSet<&str> = seen.lines().collect();
    for line in ["A /new", "A /d/e/f", "A /link", "A /hard", "D /bin/cat", "C /bin", "C /etc/passwd"] {
        assert!(lines.contains(line), "{line} in {seen}");
    }
    assert!(!seen.contains("/proc") && !seen.contains("/bin/busybox"), "{seen}");
    let json = host.unroot(["diff", "--format", "json", "c"]).ok();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(value["deleted"].as_array().unwrap().contains(&"/bin/cat".into()), "{json}");
}

#[test]
fn a_tar_of_it_all() {
    let host = Host::new();
    host.unroot(["run", "--name", "c", "--network=none", IMAGE, "sh", "-c", CHANGES]).ok();
    let tar = host.path("c.tar");
    host.unroot(["export", "-o", tar.to_str().unwrap(), "c"]).ok();
    host.unroot(["import", "-q", tar.to_str().unwrap(), "back"]).ok();
    let seen = host
        .unroot([
            "run",
            "--rm",
            "--network=none",
            "back",
            "sh",
            "-c",
            "cat() { :; }; stat -c '%a %u:%g' /new /d/e/f; ls /bin/cat 2>/dev/null || echo gone",
        ])
        .ok();
    assert_eq!(seen, "4755 0:0\n644 5:6\ngone");
}

/// `useradd -u 99999000` makes a lastlog of gigabytes that has no blocks: neither has the layer.
#[test]
fn a_file_with_a_hole() {
    use std::os::unix::fs::MetadataExt as _;
    let host = Host::new();
    let make = "dd if=/dev/zero of=/var/lib/lastlog bs=1 count=1 seek=300000000; echo end >>/var/lib/lastlog";
    host.unroot(["run", "--name", "c", "--network=none", IMAGE, "sh", "-c", make]).ok();
    host.unroot(["commit", "-q", "c", "localhost/sparse"]).ok();
    let look = ["run", "--rm", "--network=none", "localhost/sparse", "sh", "-c"];
    let said = host.unroot(look.iter().chain(&["stat -c %s /var/lib/lastlog; tail -c 4 /var/lib/lastlog"]));
    assert_eq!(said.ok(), "300000005\nend");
    let layers = std::fs::read_dir(host.path("root/layers")).unwrap().flatten();
    let file = layers.map(|l| l.path().join("diff/var/lib/lastlog")).find(|p| p.exists()).unwrap();
    assert!(std::fs::metadata(file).unwrap().blocks() * 512 < 1 << 20);
}

/// A label says how the image is to be run; but not which programs of the host.
#[test]
fn a_label_that_is_run() {
    let host = Host::new();
    host.unroot(["create", "--name", "c", "--network=none", IMAGE, "true"]).ok();
    let run =
        "LABEL RUN=\"podman run --rm \\${OPT1} --network=none --name NAME -e IMAGE=\\$IMAGE IMAGE env\"";
    let other = "LABEL OTHER=\"/bin/touch /tmp/owned\"";
    host.unroot(["commit", "-q", "--change", run, "--change", other, "c", "localhost/labelled"]).ok();
    let shown = host.unroot(["container", "runlabel", "--display", "-n", "n", "run", "labelled", "a"]).ok();
    let wanted =
        "run --rm --network=none --name n -e IMAGE=localhost/labelled:latest localhost/labelled:latest env a";
    assert!(shown.starts_with("command: ") && shown.ends_with(wanted), "{shown}");
    let said = host.unroot(["container", "runlabel", "--opt1", "-e A=b -e C=d", "RUN", "labelled"]).ok();
    for line in ["A=b", "C=d", "IMAGE=localhost/labelled:latest"] {
        assert!(said.lines().any(|l| l == line), "{said}");
    }
    host.unroot(["create", "--name", "labelled", "--network=none", IMAGE, "true"]).ok();
    host.unroot(["container", "runlabel", "run", "labelled"]).fails(125, "already in use");
    host.unroot(["container", "runlabel", "--replace", "--quiet", "run", "labelled"]).ok();
    host.unroot(["container", "runlabel", "other", "labelled"]).fails(125, "does not choose programs");
    host.unroot(["container", "runlabel", "none", "labelled"])
        .fails(125, "cannot find the value of label: none in image: labelled");
    host.unroot(["container", "runlabel", "run", "localhost:1/nosuch"]).fails(125, "image not known");
}
