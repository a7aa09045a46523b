//! The command line itself: any name, help, unknown flags.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::host::{Host, IMAGE, binary};

#[test]
fn it_answers_to_any_name() {
    let host = Host::empty();
    for name in ["podman", "docker"] {
        symlink(binary(), host.path(name)).unwrap();
        let done = Command::new(host.path(name)).args(["run", "--nosuch"]).output().unwrap();
        assert_eq!(done.status.code(), Some(125));
        let text = String::from_utf8(done.stderr).unwrap();
        assert!(
            text.contains("unknown flag: --nosuch") && text.contains(&format!("{name} run --help")),
            "{text}"
        );
    }
}

#[test]
fn unknown_verbs_and_flags_are_refused() {
    let host = Host::empty();
    host.unroot(["nosuch"]).fails(125, "nosuch");
    host.unroot(["ps", "--nosuch"]).fails(125, "unknown flag: --nosuch");
    host.unroot(["run", "--tls", IMAGE]).fails(125, "unknown flag: --tls");
    host.unroot(["run"]).fails(125, "requires at least 1 arg");
}

#[test]
fn every_verb_has_help() {
    let host = Host::empty();
    let help = host.unroot(["--help"]).ok();
    let verbs: Vec<&str> = help
        .lines()
        .skip_while(|l| !l.starts_with("Available Commands"))
        .filter_map(|l| l.strip_prefix("  "))
        .filter(|l| l.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert!(verbs.len() > 20, "{help}");
    for verb in verbs {
        let shown = host.unroot([verb, "--help"]).ok();
        assert!(shown.to_lowercase().contains("usage"), "{verb}: {shown}");
    }
}

#[test]
fn version_and_info() {
    let host = Host::empty();
    assert_eq!(host.unroot(["version", "--format", "{{.Client.Version}}"]).ok(), env!("CARGO_PKG_VERSION"));
    let rootless = !crate::host::is_root();
    assert_eq!(host.unroot(["info", "--format", "{{.Host.Security.Rootless}}"]).ok(), rootless.to_string());
    let info = host.unroot(["info", "--format", "json"]).ok();
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["host"]["security"]["rootless"], rootless);
    assert_eq!(info["store"]["containerStore"]["number"], 0);
    assert_eq!(info["host"]["idMappings"]["uidmap"][0]["container_id"], 0);
    assert_eq!(host.unroot(["info", "-f", "{{.Host.IDMappings.UIDMap}}"]).code, 0);
    assert!(host.unroot(["system", "info"]).ok().contains("\n  cgroupVersion: v"));
}

/// Whom the image does not know is at home where it starts, and has lines in passwd and group.
#[test]
fn a_user_that_the_image_does_not_know() {
    let host = Host::new();
    let facts = "echo $HOME; tail -n1 /etc/passwd; tail -n1 /etc/group";
    assert_eq!(
        host.sh(&["-u", "1234:5678", "-w", "/var"], facts).ok(),
        "/var\n1234:*:1234:5678:container user:/var:/bin/sh\n5678:x:5678:1234"
    );
    assert_eq!(
        host.sh(&["-u", "root:5678"], "echo $HOME; tail -n1 /etc/group").ok(),
        "/root\n5678:x:5678:root"
    );
    let entries = ["-u", "7:8", "--passwd-entry=me:x:$UID:$GID::$HOME:/x", "--group-entry=us:x:$GID:"];
    assert_eq!(host.sh(&entries, facts).ok(), "/\nme:x:7:8::/:/x\nus:x:8:");
    let last = host.sh(&["--passwd=false", "-u", "1234:5678"], facts).ok();
    assert!(!last.contains("1234") && !last.contains("5678") && last.starts_with("/\n"), "{last}");
    let known = host.sh(&["--group-entry=us:x:$GID:"], "tail -n1 /etc/group").ok();
    assert_eq!(known, "nogroup:x:65534:");
}

#[test]
fn words_that_make_no_sense() {
    let host = Host::new();
    host.sh(&["--attach=bogus"], "true").fails(125, "invalid stream \"bogus\" for --attach");
    host.sh(&["--init", "--pid=host"], "true").fails(125, "PID namespace isn't private");
    host.sh(&["--hostname", &"a".repeat(65)], "true").fails(125, "64 is the most");
    host.sh(&["--oom-score-adj=1001"], "true").fails(125, "from -1000 to 1000");
    host.sh(&["--init", "--init-path=/nosuch"], "true")
        .fails(125, "container-init binary not found on the host");
}
