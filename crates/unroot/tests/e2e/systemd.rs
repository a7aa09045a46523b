//! Under systemd: containers in scopes of their own, whose limits hold. `make test-vm` runs these in a VM; elsewhere,
//! where no manager of systemd answers, they say that they were left out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::host::{Host, IMAGE, is_root, uid};

/// A manager of systemd is there for this user.
fn managed() -> bool {
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

fn until(what: &str, mut check: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !check() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn group_of(host: &Host, container: &str) -> PathBuf {
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

#[test]
fn memory_is_limited() {
    if !managed() {
        return;
    }
    let host = Host::new();
    let eater = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo survived";
    let done = host.unroot(["run", "--name", "c", "--network=none", "-m", "32m", IMAGE, "sh", "-c", eater]);
    assert_eq!(done.code, 137, "{done:?}");
    assert_eq!(
        host.unroot(["inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}}", "c"]).ok(),
        "true 137"
    );
    let seen = host.sh(
        &["--memory=64m", "--memory-reservation=32m"],
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.low",
    );
    assert_eq!(seen.ok(), "67108864\n33554432");
}

#[test]
fn processes_are_limited() {
    if !managed() {
        return;
    }
    let host = Host::new();
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 2 & done";
    host.sh(&["--pids-limit=5"], script).fails(2, "fork");
    host.sh(&["--pids-limit=15"], script).ok();
    assert_eq!(host.sh(&["--pids-limit=5"], "cat /sys/fs/cgroup/pids.max").ok(), "5");
}

#[test]
fn processor_time_is_limited() {
    if !managed() {
        return;
    }
    let host = Host::new();
    let busy = "i=0; while :; do i=$((i+1)); done";
    host.unroot(["run", "-d", "--name", "c", "--cpus=0.2", "--network=none", IMAGE, "sh", "-c", busy]).ok();
    let used = || {
        let text = fs::read_to_string(group_of(&host, "c").join("cpu.stat")).unwrap();
        text.lines().find_map(|l| l.strip_prefix("usage_usec ")).unwrap().parse::<u64>().unwrap()
    };
    let (begin, before) = (Instant::now(), used());
    std::thread::sleep(Duration::from_secs(3));
    let share = (used() - before) as f64 / begin.elapsed().as_micros() as f64;
    assert!((0.05..0.3).contains(&share), "{share}");
    host.unroot(["rm", "-f", "-t", "0", "c"]).ok();
}

/// Controllers that systemd does not give to users are an error that says how they are given.
#[test]
fn a_controller_that_is_not_delegated() {
    if !managed() || is_root() {
        return;
    }
    let host = Host::new();
    let done = host.sh(&["--cpuset-cpus=0"], "true");
    let error = done.fails(125, "cpuset");
    assert!(error.contains("Delegate=") && error.contains("hint:"), "{error}");
}

/// What systemd stops has ended, and the engine knows.
#[test]
fn systemd_stops_a_scope() {
    if !managed() {
        return;
    }
    let host = Host::new();
    let id = host
        .unroot(["run", "-d", "--name", "c", "--stop-timeout=3", "--network=none", IMAGE, "sleep", "1000"])
        .ok();
    let begin = Instant::now();
    systemctl(&["stop", &format!("unroot-{id}.scope")]);
    until("the container has ended", || {
        host.unroot(["inspect", "--format", "{{.State.Running}}", "c"]).ok() == "false"
    });
    // (the first process of a container ignores SIGTERM: after the container's own time it is killed)
    assert!((2..30).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    host.unroot(["start", "c"]).ok();
    host.unroot(["rm", "-f", "-t", "0", "c"]).ok();
}

/// The container started again by its monitor has the same limits.
#[test]
fn a_restart_keeps_the_limits() {
    if !managed() {
        return;
    }
    let host = Host::new();
    let flags =
        ["run", "-d", "--name", "c", "--restart=on-failure:2", "--pids-limit=7", "--network=none", IMAGE];
    host.unroot(flags.iter().chain(&["sh", "-c", "cat /sys/fs/cgroup/pids.max; exit 1"])).ok();
    until("the last try is over", || host.unroot(["logs", "c"]).ok() == "7\n7\n7");
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
fn what_is_paused_is_frozen() {
    if !managed() {
        return;
    }
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sh", "-c", "while :; do :; done"])
        .ok();
    let group = group_of(&host, "c");
    let usage = || {
        let text = fs::read_to_string(group.join("cpu.stat")).unwrap();
        text.lines().find_map(|l| l.strip_prefix("usage_usec ")?.parse::<u64>().ok()).unwrap()
    };
    host.unroot(["pause", "c"]).ok();
    assert!(fs::read_to_string(group.join("cgroup.events")).unwrap().contains("frozen 1"));
    let before = usage();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(usage(), before);
    host.unroot(["unpause", "c"]).ok();
    until("it goes on", || usage() > before);
}

/// What stats tells is what the kernel counts, to five percent.
#[test]
fn stats_are_the_kernels() {
    if !managed() {
        return;
    }
    let host = Host::new();
    let script = "x=$(head -c 30000000 /dev/zero | tr '\\0' x); sleep 1000 & wait";
    host.unroot(["run", "-d", "--name", "c", "--network=none", "-m", "200m", IMAGE, "sh", "-c", script]).ok();
    let group = group_of(&host, "c");
    let number =
        |file: &str| -> f64 { fs::read_to_string(group.join(file)).unwrap().trim().parse().unwrap() };
    until("it has filled its memory", || number("memory.current") > 29e6 && number("pids.current") == 2.0);
    std::thread::sleep(Duration::from_secs(1));
    let format = "{{.MemUsage}} {{.MemLimit}} {{.MemPerc}} {{.PIDs}} {{.CPUNano}}";
    let out = host.unroot(["stats", "--no-stream", "--format", format, "c"]).ok();
    let words: Vec<&str> = out.split(' ').collect();
    let memory: f64 = words[0].trim_end_matches("MB").parse().unwrap();
    assert!((memory * 1e6 / number("memory.current") - 1.0).abs() < 0.05, "{out}");
    assert_eq!((words[3], words[5]), ("209715200", "2"), "{out}");
    let text = fs::read_to_string(group.join("cpu.stat")).unwrap();
    let usage: f64 = text.lines().find_map(|l| l.strip_prefix("usage_usec ")?.parse().ok()).unwrap();
    assert!((words[6].parse::<f64>().unwrap() / 1000.0 / usage - 1.0).abs() < 0.05, "{out} {usage}");
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
