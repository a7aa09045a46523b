//! Under systemd: containers in scopes of their own, whose limits hold. `make test-vm` runs these in a VM; elsewhere,
//! where no manager of systemd answers, they say that they were left out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::host::{Host, IMAGE, is_root, uid};

/// A manager of systemd is there for this user.
pub(crate) fn managed() -> bool {
    let socket = match uid() {
        0 => PathBuf::from("/run/systemd/private"),
        uid => format!("/run/user/{uid}/systemd/private").into(),
    };
    let there = socket.exists() && Path::new("/run/systemd/system").exists();
    assert!(there || std::env::var_os("UNROOT_TEST_SYSTEMD").is_none(), "{} is missing", socket.display());
    if !there {
        println!("left out: systemd manages nothing of this user here");
    }
    there
}

fn systemctl(args: &[&str]) -> String {
    let mut command = Command::new("systemctl");
    command.args((!is_root()).then_some("--user")).args(args);
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

pub(crate) fn until(what: &str, mut check: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !check() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn group_of(host: &Host, container: &str) -> PathBuf {
    host.unroot(["inspect", "--format", "{{.State.CgroupPath}}", container]).ok().into()
}

#[test]
fn a_scope_for_a_container() {
    if !managed() {
        return;
    }
    let host = Host::new();
    let id = host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sleep", "1000"]).ok();
    let scope = format!("unroot-{id}.scope");
    assert_eq!(systemctl(&["is-active", &scope]), "active\n");
    let group = group_of(&host, "c");
    assert!(group.to_string_lossy().contains(&scope), "{}", group.display());
    // what joins it is in its group as well
    let count = || fs::read_to_string(group.join("cgroup.procs")).unwrap().lines().count();
    assert_eq!(count(), 1);
    host.unroot(["exec", "-d", "c", "sleep", "999"]).ok();
    until("the second process is in the group", || count() == 2);
    host.unroot(["rm", "-f", "-t", "0", "c"]).ok();
    until("the scope is gone", || systemctl(&["is-active", &scope]) != "active\n");
    assert!(!group.exists());
}

/// What systemd stops has ended, its exit is recorded, and no policy starts it again before it is started.
#[test]
fn systemd_stops_a_scope() {
    if !managed() {
        return;
    }
    let host = Host::new();
    let run = |name: &str, policy: &str, script: &str| {
        let flags = ["--stop-timeout=3", "--network=none", policy];
        let all = ["run", "-d", "--name", name].into_iter().chain(flags);
        host.unroot(all.chain([IMAGE, "sh", "-c", script])).ok().lines().last().unwrap().to_string()
    };
    // (the first process of a container ignores SIGTERM: after the container's own time it is killed)
    let deaf = run("deaf", "--restart=no", "exec sleep 1000");
    let polite = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let polite = run("polite", "--restart=always", polite);
    until("it listens", || host.unroot(["logs", "polite"]).ok() == "ready");
    let begin = Instant::now();
    let scopes = [deaf, polite].map(|id| format!("unroot-{id}.scope"));
    systemctl(&["stop", "--no-block", &scopes[0], &scopes[1]]);
    let state = |name: &str| {
        let format = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}} {{.RestartCount}}";
        host.unroot(["inspect", "--format", format, name]).ok()
    };
    until("it has ended", || state("deaf") == "exited 137  0");
    assert!((2..13).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    until("the scopes are gone", || !scopes.iter().any(|s| systemctl(&["is-active", s]) == "active\n"));
    assert_eq!(state("polite"), "exited 7  0");
    host.unroot(["start", "deaf", "polite"]).ok();
    host.unroot(["rm", "-f", "-t", "0", "deaf", "polite"]).ok();
}

/// The unit for boot, as systemd runs it: stopped with the machine, the container runs again with it.
#[test]
fn a_unit_starts_what_should_run() {
    if std::env::var_os("UNROOT_TEST_SYSTEMD").is_none() || !managed() {
        return; // (the unit is written where this user's own ones are)
    }
    let host = Host::new();
    let flags =
        ["run", "-d", "--name", "c", "--restart=unless-stopped", "--stop-timeout=1", "--network=none"];
    let done = host.unroot(flags.iter().chain(&[IMAGE, "sleep", "1000"]));
    assert!(done.err.contains("system boot enable"), "{}", done.err);
    let name = crate::host::host_name_of(uid()).unwrap();
    let ends = !is_root() && !Path::new("/var/lib/systemd/linger").join(name).exists();
    assert_eq!(done.err.contains("loginctl enable-linger"), ends, "{}", done.err);
    let again = host.unroot(["start", "c"]);
    assert_eq!(again.err, "", "once is enough");
    host.unroot(["system", "boot", "enable"]).ok();
    let running = || host.unroot(["inspect", "--format", "{{.State.Running}}", "c"]).ok();
    for _ in 0..2 {
        systemctl(&["start", "unroot-boot.service"]);
        assert_eq!(systemctl(&["is-active", "unroot-boot.service"]), "active\n");
        assert_eq!(running(), "true");
        systemctl(&["stop", "unroot-boot.service"]);
        assert_eq!(running(), "false");
    }
    host.unroot(["system", "boot", "disable"]).ok();
    assert_ne!(systemctl(&["is-enabled", "unroot-boot.service"]), "enabled\n");
}

#[test]
fn the_journal_has_the_log() {
    if !managed() {
        return;
    }
    let host = Host::new();
    let script = "echo out; echo err >&2; printf 'no end'";
    let args = ["run", "--name", "c", "--network=none", "--log-driver=journald", IMAGE, "sh", "-c", script];
    host.unroot(args).ok();
    // (the journal takes its time)
    until("the lines are in the journal", || {
        let done = host.unroot(["logs", "c"]);
        done.code == 0 && done.out == "out\nno end" && done.err == "err\n"
    });
    // (whichever stream was read last)
    let last = host.unroot(["logs", "--tail", "1", "c"]);
    assert!(["no end", "err\n"].contains(&format!("{}{}", last.out, last.err).as_str()), "{last:?}");
    assert_eq!(host.unroot(["logs", "-f", "c"]).out, "out\nno end");
}
