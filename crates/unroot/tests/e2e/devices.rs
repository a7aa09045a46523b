//! Devices of a rootful container: those that it was given, whatever nodes it finds or makes.

use crate::host::{Host, is_root};

const MAKE_AND_OPEN: &str =
    "mknod /dev/it c 10 200 && (: < /dev/it) 2>&1; mknod /it c 10 200 && (: < /it) 2>&1";

#[test]
fn nodes_that_it_makes_are_restricted() {
    if !is_root() {
        let host = Host::new();
        host.sh(&["--device-cgroup-rule=c 10:200 rwm"], "true").fails(125, "not supported in rootless mode");
        assert_ne!(host.sh(&["--cap-add=mknod"], "mknod /dev/it c 10 200").code, 0);
        return;
    }
    let host = Host::new();
    let refused = host.sh(&["--cap-add=mknod"], MAKE_AND_OPEN).out;
    assert_eq!(refused.matches("Operation not permitted").count(), 2, "{refused}");
    let allowed = host.sh(&["--cap-add=mknod", "--device-cgroup-rule=c 10:200 rwm"], MAKE_AND_OPEN).out;
    assert_eq!(allowed, "");
    let usual = "mknod /zero c 1 5 && head -c 3 /zero | wc -c; head -c 3 /dev/zero | wc -c; (: > /dev/tty) 2>&1 | grep -c permitted";
    assert_eq!(host.sh(&["--cap-add=mknod"], usual).out, "3\n3\n0\n");
    host.sh(&["--device-cgroup-rule=c 10:200 x"], "true").fails(125, "invalid device access");
}

#[test]
fn nodes_of_the_image_are_none() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    // made by one who may, opened by one who may not make any
    host.unroot([
        "run",
        "--name",
        "c",
        "--network=none",
        "--cap-add=mknod",
        crate::host::IMAGE,
        "mknod",
        "/zero",
        "c",
        "1",
        "5",
    ])
    .ok();
    let root = host.unroot(["inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", "c"]).ok();
    let node = std::path::Path::new(&root).join("zero");
    assert!(node.exists());
    let tree = host.path("tree");
    std::fs::create_dir_all(tree.join("bin")).unwrap();
    std::fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
    let status =
        std::process::Command::new("cp").arg("-a").arg(&node).arg(tree.join("zero")).status().unwrap();
    assert!(status.success());
    let run = |flags: &[&str]| {
        let tree = tree.to_str().unwrap();
        let args = ["run", "--rm", "--network=none"].iter().chain(flags).copied();
        host.unroot(args.chain(["--rootfs", tree, "/bin/busybox", "head", "-c1", "/zero"]))
    };
    assert_eq!(run(&["--privileged"]).code, 0);
    assert_ne!(run(&[]).code, 0);
    drop(host.unroot(["rm", "c"]));
}

#[test]
fn words_of_a_device() {
    let host = Host::new();
    for (device, wrong) in [
        ("/dev/null:relative", "invalid device mode \"relative\""),
        ("/dev/null:/dev/x:q", "invalid device mode \"q\""),
        ("/dev/null:/dev/x:rw:m", "invalid device specification"),
        ("/etc/passwd", "not a valid device"),
    ] {
        host.sh(&["--device", device], "true").fails(125, wrong);
    }
    for device in ["/dev/null:/dev/x", "/dev/null:/dev/x:r"] {
        assert_eq!(host.sh(&["--device", device], "test -c /dev/x && echo there").ok(), "there");
    }
}

/// Without a control group there is no filter of devices: a directory of the host's has none, then.
#[test]
fn nodes_of_the_host_are_restricted() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let dir = host.path("dev");
    std::fs::create_dir(&dir).unwrap();
    let node = dir.join("it").display().to_string();
    assert!(std::process::Command::new("mknod").args([&node, "c", "10", "200"]).status().unwrap().success());
    let script = "(: < /d/it) 2>&1";
    for options in ["", ":rbind", ":ro", ":O"] {
        let bind = format!("{}:/d{options}", dir.display());
        let filtered = host.sh(&["-v", &bind], script).out;
        assert!(filtered.contains("Operation not permitted"), "{options}: {filtered}");
        let unfiltered = host.sh(&["--cgroups=disabled", "-v", &bind], script).out;
        assert!(unfiltered.contains("Permission denied"), "{options}: {unfiltered}");
    }
    let given = host.sh(&["--cgroups=disabled", "-v", &format!("{}:/d:dev", dir.display())], script).out;
    assert!(!given.contains("denied") && !given.contains("permitted"), "{given}");
}
