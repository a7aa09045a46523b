//! Secrets: who gets them, and who does not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::host::{Host, IMAGE};

fn create(host: &Host, flags: &[&str], name: &str, data: &str) -> String {
    let args = [&["secret", "create"], flags, &[name, "-"]].concat();
    host.unroot_with_input(args, data.as_bytes()).ok()
}

#[test]
fn from_create_to_rm() {
    let host = Host::new();
    let id = create(&host, &["--label", "a=b"], "s", "topsecret");
    assert_eq!(id.len(), 25);
    host.unroot_with_input(["secret", "create", "s", "-"], b"x").fails(125, "s: secret name in use");
    assert_eq!(create(&host, &["--ignore"], "s", "other"), id);
    let shown = host.unroot(["secret", "inspect", "s"]).ok();
    assert!(shown.contains("\"a\": \"b\"") && !shown.contains("topsecret"), "{shown}");
    let data = ["secret", "inspect", "--showsecret", "--format", "{{.SecretData}}", &id[..6]];
    assert_eq!(host.unroot(data).ok(), "topsecret");
    assert_eq!(host.unroot(["secret", "ls", "--format", "{{.Name}} {{.Driver}}"]).ok(), "s file");
    assert_eq!(host.unroot(["secret", "ls", "-q", "--filter", "name=^x"]).ok(), "");
    let new = create(&host, &["--replace"], "s", "newer");
    assert_ne!(new, id);
    assert_eq!(host.unroot(data_of("s")).ok(), "newer");
    assert_eq!(fs::read_dir(host.path("root/secrets")).unwrap().count(), 2, "nothing is left of the old one");
    let file = host.path("root/secrets").join(&new).join("data");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    host.unroot(["secret", "exists", "s"]).ok();
    assert_eq!(host.unroot(["secret", "rm", "s"]).ok(), new);
    assert_eq!(host.unroot(["secret", "exists", "s"]).code, 1);
    host.unroot(["secret", "rm", "s"]).fails(125, "no secret with name or id \"s\": no such secret");
    host.unroot(["secret", "rm", "--ignore", "s"]).ok();
    for name in ["a/b", "a=b", "a,b", ""] {
        host.unroot_with_input(["secret", "create", name, "-"], b"x").fails(125, "invalid secret name");
    }
    host.unroot_with_input(["secret", "create", "s", "-"], b"").fails(125, "larger than 0");
    host.unroot_with_input(["secret", "create", "s", "-"], &[b'x'; 600_000]).fails(125, "less than 512000");
    create(&host, &[], "..", "dots");
    assert_eq!(host.unroot(data_of("..")).ok(), "dots");
}

fn data_of(name: &str) -> [&str; 6] {
    ["secret", "inspect", "--showsecret", "--format", "{{.SecretData}}", name]
}

#[test]
fn in_containers() {
    let host = Host::new();
    create(&host, &[], "s", "topsecret");
    assert_eq!(
        host.sh(&["--secret=s"], "stat -c '%u:%g:%a' /run/secrets/s; cat /run/secrets/s").ok(),
        "0:0:444\ntopsecret"
    );
    let flag = "--secret=s,uid=1000,gid=1001,mode=0400,target=/opt/x/y";
    assert_eq!(host.sh(&[flag], "stat -c '%u:%g:%a' /opt/x/y").ok(), "1000:1001:400");
    assert_eq!(host.sh(&["--secret=s,target=t", "--read-only"], "cat /run/secrets/t").ok(), "topsecret");
    assert_eq!(
        host.sh(&["--secret=s,type=env,target=T", "--secret=s,type=env"], "echo $T $s").ok(),
        "topsecret topsecret"
    );
    // a container keeps what it was given
    host.unroot([
        "run",
        "-d",
        "--name",
        "c",
        "--network=none",
        "--secret=s",
        "--secret=s,type=env",
        IMAGE,
        "sleep",
        "1000",
    ])
    .ok();
    host.unroot(["secret", "rm", "s"]).ok();
    host.unroot(["restart", "-t0", "c"]).ok();
    assert_eq!(
        host.unroot(["exec", "c", "sh", "-c", "cat /run/secrets/s; echo $s"]).ok(),
        "topsecrettopsecret"
    );
    let shown = host.unroot(["inspect", "c"]).ok();
    assert!(!shown.contains("topsecret") && shown.contains("\"Mode\": 292"), "{shown}");
    host.sh(&["--secret=s"], "true").fails(125, "no secret with name or id \"s\": no such secret");
    host.sh(&["--secret=s,foo=bar"], "true").fails(125, "option foo=bar invalid: parsing secret");
    host.sh(&["--secret=s,type=env,mode=0400"], "true").fails(125, "cannot be set with secret type env");
    assert_eq!(host.unroot(["ps", "-aq"]).ok().lines().count(), 1);
}

#[test]
fn kept_by_a_command() {
    let host = Host::new();
    let dir = host.path("shell");
    fs::create_dir(&dir).unwrap();
    let dir = dir.display();
    let opts = format!(
        "list=ls {dir},lookup=cat {dir}/$SECRET_ID,store=cat >{dir}/$SECRET_ID,delete=rm {dir}/$SECRET_ID"
    );
    let id = create(&host, &["-d", "shell", "--driver-opts", &opts], "s", "topsecret");
    assert_eq!(fs::read_to_string(host.path("shell").join(&id)).unwrap(), "topsecret");
    assert_eq!(host.sh(&["--secret=s"], "cat /run/secrets/s").ok(), "topsecret");
    host.unroot(["secret", "rm", "s"]).ok();
    assert_eq!(fs::read_dir(host.path("shell")).unwrap().count(), 0);
    host.unroot_with_input(["secret", "create", "-d", "shell", "s", "-"], b"x")
        .fails(125, "missing config value");
    host.unroot_with_input(["secret", "create", "-d", "nosuch", "s", "-"], b"x").fails(125, "invalid driver");
    let broken = "list=true,lookup=true,store=exit 3,delete=true";
    host.unroot_with_input(["secret", "create", "-d", "shell", "--driver-opts", broken, "s", "-"], b"x")
        .fails(125, "exit status: 3");
    assert_eq!(host.unroot(["secret", "ls", "-q"]).ok(), "");
    host.run(host.command(["secret", "create", "--env", "e", "VALUE"]).env("VALUE", "v")).ok();
    assert_eq!(host.unroot(data_of("e")).ok(), "v");
}
