//! Health checks: run by the monitor alone, recorded, told, acted on.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::host::{Host, IMAGE, write_image};

fn run(host: &Host, flags: &[&str], command: &str) {
    let begin = ["run", "-d", "--name", "c", "--network=none"];
    host.unroot(begin.iter().chain(flags).chain(&[IMAGE, "sh", "-c", command])).ok();
}

#[track_caller]
fn until(host: &Host, template: &str, wanted: &str) {
    let begun = Instant::now();
    loop {
        let done = host.unroot(["inspect", "--format", template, "c"]);
        let seen = done.out.trim_end().to_string();
        if done.code == 0 && seen == wanted {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "{template} is {seen:?}, not {wanted:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const STATUS: &str = "{{.State.Health.Status}}";

#[test]
fn the_monitor_checks_by_itself() {
    let host = Host::new();
    let flags = ["--health-cmd=echo seen; test -e /tmp/well", "--health-interval=50ms", "--health-retries=2"];
    run(&host, &flags, "sleep 1000");
    until(&host, STATUS, "unhealthy");
    host.unroot(["exec", "c", "touch", "/tmp/well"]).ok();
    host.unroot(["wait", "--condition=healthy", "c"]).ok();
    until(&host, "{{.State.Health.Status}} {{.State.Health.FailingStreak}}", "healthy 0");
    until(&host, "{{len .State.Health.Log}} {{(index .State.Health.Log 4).Output}}", "5 seen");
    let shown = host.unroot(["ps", "--format", "{{.Status}}"]).ok();
    assert!(shown.ends_with("(healthy)"), "{shown}");
    assert_eq!(host.unroot(["ps", "--filter", "health=healthy", "--format", "{{.Names}}"]).ok(), "c");
    assert_eq!(host.unroot(["ps", "--filter", "health=unhealthy", "-q"]).ok(), "");
    let told = ["events", "--stream=false", "--filter=event=health_status", "--format={{.HealthStatus}}"];
    let told = host.unroot(told).ok();
    assert!(told.lines().any(|l| l == "unhealthy") && told.ends_with("\nhealthy"), "{told}");
    host.unroot(["stop", "-t", "0", "c"]).ok();
    until(&host, STATUS, "stopped");
    host.unroot(["healthcheck", "run", "c"]).fails(125, "is not running");
}

#[test]
fn a_check_by_hand() {
    let host = Host::new();
    run(&host, &["--health-cmd=test -e /tmp/well", "--health-interval=disable"], "sleep 1000");
    until(&host, STATUS, "starting");
    let done = host.unroot(["healthcheck", "run", "c"]);
    assert_eq!((done.code, done.out.trim()), (1, "unhealthy"));
    host.unroot(["healthcheck", "run", "--ignore-result", "c"]).ok();
    host.unroot(["exec", "c", "touch", "/tmp/well"]).ok();
    assert_eq!(host.unroot(["healthcheck", "run", "c"]).ok(), "");
    until(&host, STATUS, "healthy");
    host.unroot(["restart", "-t", "0", "c"]).ok();
    until(&host, "{{.State.Health.Status}} {{len .State.Health.Log}}", "starting 0");
    host.unroot(["run", "-d", "--name", "none", "--network=none", IMAGE, "sleep", "1000"]).ok();
    host.unroot(["healthcheck", "run", "none"]).fails(125, "has no defined healthcheck");
}

#[test]
fn what_follows_from_failure() {
    let host = Host::new();
    let flags = |action: &'static str| {
        ["--health-cmd=test ! -e /ill", "--health-interval=50ms", "--health-retries=1", action]
    };
    for (action, code) in [("--health-on-failure=kill", "137"), ("--health-on-failure=stop", "3")] {
        run(&host, &flags(action), "trap 'exit 3' TERM; while :; do sleep 0.05; done");
        until(&host, STATUS, "healthy");
        host.unroot(["exec", "c", "touch", "/ill"]).ok();
        assert_eq!(host.unroot(["wait", "c"]).ok(), code);
        host.unroot(["rm", "c"]).ok();
    }
    run(
        &host,
        &flags("--health-on-failure=restart"),
        "rm -f /ill; trap 'exit 3' TERM; while :; do sleep 0.05; done",
    );
    let pid = host.unroot(["inspect", "--format", "{{.State.Pid}}", "c"]).ok();
    host.unroot(["exec", "c", "touch", "/ill"]).ok();
    let begun = Instant::now();
    while host
        .unroot(["inspect", "--format", "{{.State.Pid}} {{.State.Health.Status}}", "c"])
        .ok()
        .split(' ')
        .next()
        == Some(&pid)
    {
        assert!(begun.elapsed() < Duration::from_secs(10), "it was not restarted");
        std::thread::sleep(Duration::from_millis(20));
    }
    until(&host, "{{.State.Running}} {{.State.Health.Status}}", "true healthy");
    host.unroot(["create", "--health-on-failure=kill", IMAGE])
        .fails(125, "cannot set on-failure action to kill without a health check");
}

#[test]
fn one_that_takes_too_long() {
    let host = Host::new();
    let flags = ["--health-cmd=sleep 100", "--health-interval=disable", "--health-timeout=1s"];
    run(&host, &flags, "sleep 1000");
    let begun = Instant::now();
    assert_eq!(host.unroot(["healthcheck", "run", "c"]).code, 1);
    assert!(begun.elapsed() < Duration::from_secs(5));
    until(&host, "{{(index .State.Health.Log 0).ExitCode}}", "-1");
    assert_eq!(host.unroot(["exec", "c", "pidof", "sleep"]).ok().split(' ').count(), 1, "it is killed");
    host.unroot(["create", "--health-cmd=x", "--health-timeout=-1s", IMAGE])
        .fails(125, "must be 0 seconds or greater");
}

#[test]
fn a_startup_check_comes_first() {
    let host = Host::new();
    let flags = [
        "--health-cmd=echo regular",
        "--health-interval=50ms",
        "--health-startup-cmd=echo startup; test -e /up",
        "--health-startup-interval=50ms",
    ];
    run(&host, &flags, "sleep 1000");
    until(&host, "{{(index .State.Health.Log 2).Output}}", "startup");
    until(&host, STATUS, "starting");
    host.unroot(["exec", "c", "touch", "/up"]).ok();
    until(&host, STATUS, "healthy");
    until(&host, "{{(index .State.Health.Log 4).Output}}", "regular");
}

#[test]
fn records_elsewhere() {
    let host = Host::new();
    let dir = host.path("checks");
    fs::create_dir(&dir).unwrap();
    let flag = format!("--health-log-destination={}", dir.display());
    run(&host, &["--health-cmd=echo seen", "--health-interval=disable", &flag], "sleep 1000");
    host.unroot(["healthcheck", "run", "c"]).ok();
    let id = host.unroot(["inspect", "--format", "{{.Id}}", "c"]).ok();
    assert!(fs::read_to_string(dir.join(format!("{id}-healthcheck.log"))).unwrap().contains("seen"));
    host.unroot(["create", "--health-cmd=x", "--health-log-destination=/nowhere", IMAGE])
        .fails(125, "/nowhere");
}

/// A user namespace of the container's own is entered from the monitor as well.
#[test]
fn in_a_user_namespace_of_its_own() {
    let host = Host::new();
    let (map, inside) = match crate::host::is_root() {
        true => (vec!["--uidmap=0:100000:1000", "--gidmap=0:100000:1000"], 0),
        false => (vec!["--userns=keep-id"], crate::host::uid()),
    };
    run(&host, &[&map[..], &["--health-cmd=id -u", "--health-interval=50ms"]].concat(), "sleep 1000");
    until(&host, STATUS, "healthy");
    until(&host, "{{(index .State.Health.Log 0).Output}}", &inside.to_string());
}

#[test]
fn the_check_of_the_image() {
    let host = Host::empty();
    let dir = host.path("archive");
    fs::create_dir(&dir).unwrap();
    write_image(&dir.join("layer.tar"));
    let sum = Command::new("sha256sum").arg(dir.join("layer.tar")).output().unwrap();
    let digest = String::from_utf8(sum.stdout).unwrap()[..64].to_string();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        "config": {"Cmd": ["sleep", "1000"], "Env": ["PATH=/bin"],
            "Healthcheck": {"Test": ["CMD-SHELL", "echo of the image"], "Interval": 50_000_000, "Retries": 7}},
    });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = host.path("archive.tar");
    let made = Command::new("tar").arg("-C").arg(&dir).arg("-cf").arg(&archive).arg(".").status().unwrap();
    assert!(made.success());
    host.unroot(["load", "-i", archive.to_str().unwrap()]).ok();
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE]).ok();
    until(&host, STATUS, "healthy");
    until(&host, "{{.Config.Healthcheck.Interval}} {{.Config.Healthcheck.Retries}}", "50ms 7");
    host.unroot(["rm", "-f", "-t0", "c"]).ok();
    host.unroot(["create", "--name", "c", "--health-retries=2", IMAGE]).ok();
    until(
        &host,
        "{{.Config.Healthcheck.Test}} {{.Config.Healthcheck.Retries}}",
        "[CMD-SHELL echo of the image] 2",
    );
    host.unroot(["rm", "c"]).ok();
    host.unroot(["run", "-d", "--name", "c", "--no-healthcheck", "--network=none", IMAGE]).ok();
    until(&host, "{{.Config.Healthcheck.Test}}", "[NONE]");
    host.unroot(["healthcheck", "run", "c"]).fails(125, "has no defined healthcheck");
}
