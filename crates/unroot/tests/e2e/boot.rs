//! What runs again after a boot.

use std::fs;
use std::process::Command;

use crate::host::Host;

use crate::host::IMAGE;

/// The machine loses power: every process is gone, and what was in the run directory.
fn power_cut(host: &Host, names: &[&str]) {
    for name in names {
        let pids = host.unroot(["inspect", "--format", "{{.State.ConmonPid}} {{.State.Pid}}", name]).ok();
        for pid in pids.split(' ').filter(|p| *p != "0") {
            let _ = Command::new("kill").args(["-9", pid]).output();
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    host.inside(&format!("rm -rf {}", host.path("run/containers").display())).ok();
}

#[test]
fn only_what_should_run() {
    let host = Host::new();
    let run = |name: &str, policy: &str| {
        let policy = format!("--restart={policy}");
        host.unroot([
            "run",
            "-d",
            "--name",
            name,
            &policy,
            "--stop-timeout=1",
            "--network=none",
            IMAGE,
            "sleep",
            "1000",
        ])
        .ok();
    };
    for (name, policy) in [
        ("always", "always"),
        ("stopped-always", "always"),
        ("unless", "unless-stopped"),
        ("stopped-unless", "unless-stopped"),
        ("no", "no"),
    ] {
        run(name, policy);
    }
    host.unroot(["create", "--name", "never-ran", "--restart=always", IMAGE]).ok();
    host.unroot(["stop", "-t0", "stopped-always", "stopped-unless"]).ok();
    run("updated", "no");
    host.unroot(["update", "--restart=unless-stopped", "updated"]).ok();
    power_cut(&host, &["always", "unless", "no", "updated"]);
    assert_eq!(host.unroot(["ps", "-q"]).ok(), "");
    // what ran has ended, which nobody could record; what never ran has not
    let state = |name: &str| {
        let format = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}";
        host.unroot(["inspect", "--format", format, name]).ok()
    };
    assert!(state("no").starts_with("exited 137 the host went down"), "{}", state("no"));
    assert_eq!((&*state("never-ran"), &*state("stopped-unless")), ("created 0 ", "exited 137 "));
    let mut names: Vec<String> = host
        .unroot(["ps", "-a", "--filter=should-start-on-boot=true", "--format={{.Names}}"])
        .ok()
        .lines()
        .map(str::to_string)
        .collect();
    names.sort();
    assert_eq!(names, ["always", "stopped-always", "unless", "updated"]);
    let started = host.unroot(["system", "boot", "start"]).ok();
    assert_eq!(started.lines().count(), 4, "{started}");
    assert_eq!(host.unroot(["ps", "-q"]).ok().lines().count(), 4);
    assert_eq!(host.unroot(["system", "boot", "start"]).ok(), "", "they run");
    // what is stopped for the shutdown runs again after it
    host.unroot(["kill", "stopped-always"]).ok();
    assert_eq!(host.unroot(["system", "boot", "stop"]).ok().lines().count(), 3);
    assert_eq!(host.unroot(["ps", "-q"]).ok(), "");
    assert_eq!(host.unroot(["system", "boot", "start"]).ok().lines().count(), 4);
}

/// One that needs another is started after it; one that cannot be started stops nobody.
#[test]
fn order_and_failure() {
    let host = Host::new();
    let create = |name: &str, network: &str| {
        host.unroot(["run", "-d", "--name", name, "--restart=always", network, IMAGE, "sleep", "1000"]).ok();
    };
    let dir = host.path("mounted");
    fs::create_dir(&dir).unwrap();
    let bind = format!("-v={}:/x", dir.display());
    host.unroot([
        "run",
        "-d",
        "--name",
        "broken",
        "--restart=always",
        &bind,
        "--network=none",
        IMAGE,
        "sleep",
        "1000",
    ])
    .ok();
    create("base", "--network=none");
    create("above", "--network=container:base");
    power_cut(&host, &["broken", "base", "above"]);
    fs::remove_dir(&dir).unwrap();
    let done = host.unroot(["system", "boot", "start"]);
    assert_eq!((done.code, done.out.as_str()), (125, "base\nabove\n"), "{}", done.err);
    assert!(done.err.contains("starting container broken: "), "{}", done.err);
}

#[test]
fn the_unit() {
    let host = Host::new();
    let home = host.path("config");
    let unit =
        host.run(host.command(["system", "boot", "enable", "--print"]).env("XDG_CONFIG_HOME", &home)).ok();
    assert!(unit.contains(&format!("--root {} ", host.path("root").display())), "{unit}");
    assert!(unit.contains(" system boot start\n") && unit.contains("[Install]"), "{unit}");
    if crate::host::is_root() {
        return; // (it would be in /etc)
    }
    let path = home.join("systemd/user/unroot-boot.service");
    let link = home.join("systemd/user/default.target.wants/unroot-boot.service");
    for _ in 0..2 {
        let done = host.run(host.command(["system", "boot", "enable"]).env("XDG_CONFIG_HOME", &home)).ok();
        assert_eq!(done, path.to_str().unwrap());
        assert_eq!(fs::read_to_string(&link).unwrap().trim(), unit.trim());
    }
    if Command::new("systemd-analyze").arg("--version").output().is_ok() {
        let checked = Command::new("systemd-analyze").args(["verify", "--user"]).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(!said.contains("unroot-boot.service"), "{said}");
    }
    host.run(host.command(["system", "boot", "disable"]).env("XDG_CONFIG_HOME", &home)).ok();
    assert!(!path.exists() && fs::symlink_metadata(&link).is_err());
}
