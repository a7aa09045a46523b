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
