//! Other machines, by ssh: here a program of that name which runs what it is told on this one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::host::{Done, Host, IMAGE, binary};

/// With an ssh in the path that notes its words, and a configuration of the test's own.
fn run(host: &Host, args: &[&str]) -> Done {
    let bin = host.path("bin");
    fs::create_dir_all(&bin).unwrap();
    let ssh = bin.join("ssh");
    let script = "#!/bin/sh\necho \"$*\" >> \"$LOG\"\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\nexec sh -c \"$*\"\n";
    fs::write(&ssh, script).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = host.command(args);
    command.env("PATH", path).env("LOG", host.path("log")).env("XDG_CONFIG_HOME", host.path("config"));
    host.run(&mut command)
}

#[test]
fn the_command_runs_there() {
    let host = Host::new();
    let (root, run_dir) = (host.path("root"), host.path("run"));
    let there = format!("ssh://me@host:2222{}", binary().display());
    let flags = ["--root", root.to_str().unwrap(), "--runroot", run_dir.to_str().unwrap()];
    // (global flags before the verb are ours, those after it are its)
    let mut args = vec!["--url", &there, "run"];
    args.extend(flags);
    args.extend(["--rm", "--network=none", IMAGE, "echo", "two words", "it's"]);
    let done = run(&host, &args);
    assert_eq!(done.ok(), "two words it's");
    let log = fs::read_to_string(host.path("log")).unwrap();
    assert!(log.starts_with("-T -p 2222 -- me@host '"), "{log}");
}

#[test]
fn names_for_machines() {
    let host = Host::empty();
    run(&host, &["--remote", "ps"]).fails(125, "no machine is named");
    run(
        &host,
        &[
            "system",
            "connection",
            "add",
            "m",
            "--identity",
            "/key",
            &format!("me@host{}", binary().display()),
        ],
    )
    .ok();
    run(&host, &["system", "connection", "add", "m", "ssh://other"]).fails(125, "is there already");
    run(&host, &["system", "connection", "add", "n", "unix:///run/x.sock"]).fails(125, "only ssh");
    assert_eq!(run(&host, &["system", "connection", "ls", "-q"]).ok(), "m");
    assert!(run(&host, &["--remote", "version"]).ok().starts_with("Client:"));
    assert!(fs::read_to_string(host.path("log")).unwrap().starts_with("-T -i /key -- me@host '"));
    run(&host, &["--connection", "nosuch", "ps"]).fails(125, "connection \"nosuch\" not found");
    run(&host, &["system", "connection", "rename", "m", "k"]).ok();
    run(&host, &["system", "connection", "rm", "k"]).ok();
    assert_eq!(run(&host, &["system", "connection", "ls", "-q"]).ok(), "");
}
