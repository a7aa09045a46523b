//! `ids`: the picture of the id space, its check, and ids for users who lack them.

use std::fs;
use std::process::Command;

use crate::host::{Host, IMAGE, binary, first_subid, is_root, uid};

#[test]
fn the_picture_has_ranges_and_what_is_in_them() {
    let host = Host::new();
    let map = if is_root() { "--uidmap=0:3000000000:777" } else { "--userns=auto:size=777" };
    host.unroot(["run", "-d", "--name", "holder", "--network=none", map, IMAGE, "sleep", "100"]).ok();
    let json: serde_json::Value =
        serde_json::from_str(&host.unroot(["ids", "--format", "json"]).ok()).unwrap();
    let held = json["held"].as_array().unwrap();
    let own = held.iter().find(|h| h["by"] == "holder").unwrap();
    assert_eq!(own["count"], 777);
    let first = if is_root() { 3_000_000_000 } else { first_subid("/etc/subuid") };
    assert_eq!(own["first"], first);
    let text = host.unroot(["ids"]).ok();
    assert!(text.contains("4294967296 ids in all") && text.contains("room for "), "{text}");
    if !is_root() {
        assert!(text.contains(&format!("now: holder {first}-{}", first + 776)), "{text}");
    }
    let svg = host.unroot(["ids", "--format", "svg"]).ok();
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>"), "{svg}");
}

/// Runs a command where /etc/subuid and /etc/subgid are other files: a mount namespace of root's.
fn with_files(subuid: &str, subgid: &str, args: &str) -> (i32, String) {
    let host = Host::empty();
    fs::write(host.path("subuid"), subuid).unwrap();
    fs::write(host.path("subgid"), subgid).unwrap();
    let dir = host.path("");
    let script = format!(
        "mount --bind {0}/subuid /etc/subuid && mount --bind {0}/subgid /etc/subgid && {1} --root {0}/root --runroot {0}/run {args}",
        dir.display(),
        binary().display()
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

#[test]
fn check_is_for_scripts() {
    if !is_root() {
        assert_eq!(Host::empty().unroot(["ids", "check"]).code, 0);
        return;
    }
    let (code, text) =
        with_files("a:100000:65536\nb:165000:65536\n", "a:100000:65536\nb:165536:65536\n", "ids check");
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("/etc/subuid:1 and /etc/subuid:2: a and b both have the ids 165000-165535"),
        "{text}"
    );
    let good = "root:100000:65536\n";
    assert_eq!(with_files(good, good, "ids check").0, 0);
    let short = "root:100000:1000\n";
    assert_eq!(with_files(short, short, "ids check").0, 0);
    let (code, text) = with_files(short, short, "ids check --strict");
    assert!(code == 1 && text.contains("root has 1000 user and 1000 group ids"), "{text}");
}

#[test]
fn a_user_gets_ids_that_nobody_has() {
    if !is_root() {
        let host = Host::empty();
        let name = crate::host::host_name_of(uid()).unwrap();
        host.unroot(["ids", "allocate", &name]).fails(125, "has 65536 subordinate ids already");
        let more = host.unroot(["ids", "allocate", "-n", "131072", &name]);
        assert!(more.out.starts_with("usermod --add-subuids ") && more.err.contains("as root"), "{more:?}");
        host.unroot(["ids", "allocate", "nobody-of-this-name"]).fails(125, "no such user");
        return;
    }
    let files = "root:100000:65536\n";
    let (code, text) = with_files(files, "", "ids allocate --print root");
    assert!(code == 0 && text.contains("usermod --add-subgids "), "{text}");
    let (code, text) = with_files(files, files, "ids allocate containers && cat /etc/subuid /etc/subgid");
    assert_eq!(code, 0, "{text}");
    assert_eq!(text.matches("\ncontainers:").count(), 2, "{text}");
    assert!(!text.contains("containers:100000:"), "{text}");
}
