//! Restart policies: the monitor starts the container again, until somebody decides otherwise.

use std::time::{Duration, Instant};

use crate::host::{Host, IMAGE};

/// Waits until inspect shows this.
#[track_caller]
fn until(host: &Host, container: &str, format: &str, wanted: &str) {
    let begun = Instant::now();
    loop {
        let shown = host.unroot(["inspect", "--format", format, container]).ok();
        if shown == wanted {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{container}: {shown}, not {wanted}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const STATE: &str = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}";

#[test]
fn on_failure_is_bounded() {
    let host = Host::new();
    let script = "echo x >> /count; exit 4";
    host.unroot([
        "run",
        "-d",
        "--name",
        "c",
        "--network=none",
        "--restart=on-failure:2",
        IMAGE,
        "sh",
        "-c",
        script,
    ])
    .ok();
    until(&host, "c", STATE, "exited 4 2");
    assert_eq!(host.unroot(["logs", "c"]).ok(), "");
    // started by the user it begins anew, with the files that it had
    host.unroot(["start", "c"]).ok();
    until(&host, "c", STATE, "exited 4 2");
    let upper = host.unroot(["inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", "c"]).ok();
    assert_eq!(host.inside(&format!("wc -l < {upper}/count")).ok(), "6");
    host.unroot(["run", "--rm", "--restart=always", IMAGE]).fails(125, "conflicts with --restart");
    host.unroot(["run", "--restart=sometimes", IMAGE]).fails(125, "not a valid restart policy");
}

#[test]
fn success_is_no_failure() {
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "c", "--network=none", "--restart=on-failure", IMAGE, "true"]).ok();
    until(&host, "c", STATE, "exited 0 0");
}

#[test]
fn always_until_stopped() {
    let host = Host::new();
    let run = |name: &str, policy: &str, script: &str| {
        let policy = format!("--restart={policy}");
        host.unroot(["run", "-d", "--name", name, "--network=none", &policy, IMAGE, "sh", "-c", script]).ok();
    };
    run("often", "always", "sleep 0.05");
    run("lives", "unless-stopped", "trap 'exit 0' TERM; while :; do sleep 0.02; done");
    assert_eq!(host.unroot(["wait", "often"]).ok(), "0");
    let begun = Instant::now();
    loop {
        let count: u32 =
            host.unroot(["inspect", "--format", "{{.RestartCount}}", "often"]).ok().parse().unwrap();
        if count >= 2 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    let begun = Instant::now();
    host.unroot(["stop", "often", "lives"]).ok();
    assert!(begun.elapsed() < Duration::from_secs(8));
    std::thread::sleep(Duration::from_millis(500));
    for name in ["often", "lives"] {
        assert_eq!(host.unroot(["inspect", "--format", "{{.State.Status}}", name]).ok(), "exited");
    }
    // killed on purpose is stopped, killed by chance is not
    host.unroot(["start", "lives"]).ok();
    host.unroot(["kill", "lives"]).ok();
    until(&host, "lives", "{{.State.Status}}", "exited");
    host.unroot(["start", "lives"]).ok();
    let pid = host.unroot(["inspect", "--format", "{{.State.Pid}}", "lives"]).ok();
    host.inside(&format!("kill -9 {pid}")).ok();
    until(&host, "lives", "{{.State.Status}} {{.RestartCount}}", "running 1");
}

#[test]
fn restart_is_stop_and_start() {
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sleep", "1000"]).ok();
    let pid = || host.unroot(["inspect", "--format", "{{.State.Pid}}", "c"]).ok();
    let first = pid();
    assert_eq!(host.unroot(["restart", "-t", "0", "c"]).ok(), "c");
    assert_ne!(pid(), first);
    assert_ne!(pid(), "0");
    host.unroot(["stop", "-t", "0", "c"]).ok();
    assert_eq!(host.unroot(["restart", "--running"]).ok(), "");
    host.unroot(["restart", "c"]).ok();
    assert_ne!(pid(), "0");
    host.unroot(["restart", "nosuch"]).fails(125, "no such container");
}
