//! What is shown of identity is what the kernel has: in `ps`, `inspect`, events and `top`, whatever an image, a runtime or a
//! process does against it. docs/comparison.md has what Podman says of the same.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{Host, IMAGE, binary, first_subid, host_name_of, is_root, uid};

fn outside(inside: u32) -> u32 {
    match (is_root(), inside) {
        (true, id) => id,
        (false, 0) => uid(),
        (false, id) => first_subid("/etc/subuid") + id - 1,
    }
}

fn shown(id: u32) -> String {
    host_name_of(id).unwrap_or_else(|| id.to_string())
}

#[test]
fn ps_inspect_and_events_say_who_it_is() {
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "a", "--network=none", "-u", "sync", IMAGE, "sleep", "100"]).ok();
    let map = if is_root() { "--uidmap=0:3000000000:700" } else { "--userns=auto:size=700" };
    host.unroot(["run", "-d", "--name", "b", "--network=none", map, IMAGE, "sleep", "100"]).ok();
    let first = if is_root() { 3_000_000_000 } else { first_subid("/etc/subuid") };
    let lines =
        host.unroot(["ps", "--format", "{{.Names}} {{.User}} {{.HostUser}} {{.HostUid}} {{.IDMap}}"]).ok();
    let own_map = if is_root() {
        format!("0:0:{}", u32::MAX)
    } else {
        format!("0:{}:1,1:{}:65536", uid(), first_subid("/etc/subuid"))
    };
    assert!(lines.contains(&format!("a 5 {} {} {own_map}", shown(outside(5)), outside(5))), "{lines}");
    assert!(lines.contains(&format!("b 0 {} {first} 0:{first}:700", shown(first))), "{lines}");
    let table = host.unroot(["ps", "--format", "table {{.Names}} {{.HostUser}} {{.IDMap}}"]).ok();
    assert!(table.starts_with("NAMES") && table.contains("HOST USER") && table.contains("ID MAP"), "{table}");
    let json: Value = serde_json::from_str(&host.unroot(["ps", "--format", "json"]).ok()).unwrap();
    assert!(json.as_array().unwrap().iter().all(|row| row["HostUid"].is_u64()), "{json}");
    let inspected: Value = serde_json::from_str(&host.unroot(["inspect", "b"]).ok()).unwrap();
    let b = &inspected[0];
    assert_eq!(b["HostUid"], first);
    assert_eq!(b["IDMap"]["Observed"], true);
    assert_eq!(b["IDMap"]["UidMap"][0], format!("0:{first}:700"));
    assert_eq!(b["IDMap"]["Owner"], uid());
    assert_eq!(b["HostConfig"]["UsernsMode"], "private");
    let events =
        host.unroot(["events", "--stream=false", "--filter", "event=start", "--format", "json"]).ok();
    let of_b =
        events.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).find(|e| e["Name"] == "b").unwrap();
    assert_eq!(of_b["IDMap"], format!("0:{first}:700"));
    assert_eq!(of_b["HostUser"], shown(first));
    let group = host.unroot(["inspect", "--format", "{{.State.CgroupPath}}", "b"]).ok();
    if !group.is_empty() {
        let stats =
            host.unroot(["stats", "--no-stream", "--format", "{{.Name}} {{.HostUser}} {{.IDMap}}", "b"]).ok();
        assert_eq!(stats, format!("b {} 0:{first}:700", shown(first)));
        let json: Value =
            serde_json::from_str(&host.unroot(["stats", "--no-stream", "--format", "json", "b"]).ok())
                .unwrap();
        assert_eq!(json[0]["host_user"], shown(first));
    }
    // (an ordinary user's container is never in the host's own namespace)
    let mode = host.unroot(["inspect", "--format", "{{.HostConfig.UsernsMode}}", "a"]).ok();
    assert_eq!(mode, if is_root() { "" } else { "private" });
    // what has ended has no identity any more
    host.unroot(["stop", "-t", "0", "b"]).ok();
    let gone =
        host.unroot(["ps", "-a", "--filter", "name=^b$", "--format", "[{{.HostUser}}{{.IDMap}}]"]).ok();
    assert_eq!(gone, "[]");
}

#[test]
fn another_map_than_asked_for_fails_the_start() {
    let host = Host::new();
    // (a runtime that makes no user namespace)
    let runtime = host.path("runtime");
    let script = "#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in --bundle) shift; cd $1;; --pid-file) shift; p=$1;; create|start|delete) v=$1;; esac; shift; done\n[ $v = create ] || exit 0\nsleep 30 </dev/null >/dev/null 2>&1 &\necho $! >$p\n";
    fs::write(&runtime, script).unwrap();
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).unwrap();
    let path = runtime.display().to_string();
    let done = host.unroot([
        "--runtime",
        &path,
        "run",
        "--network=none",
        "--uidmap=0:1:500",
        "--gidmap=0:1:500",
        IMAGE,
        "sleep",
        "3",
    ]);
    done.fails(125, "is not in the user namespace that was asked for: its id map is uid 0 ");
}

#[test]
fn processes_in_the_hosts_pid_namespace() {
    let host = Host::new();
    host.unroot([
        "run",
        "-d",
        "--name",
        "c",
        "--network=none",
        "--pid=host",
        "-u",
        "sync",
        IMAGE,
        "sleep",
        "100",
    ])
    .ok();
    let pid = host.unroot(["inspect", "--format", "{{.State.Pid}}", "c"]).ok();
    let top = host.unroot(["top", "c", "user", "huser", "hpid", "args"]).ok();
    let row: Vec<&str> = top.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..3], ["sync", &shown(outside(5)), &pid], "{top}");
    assert_eq!(top.lines().count(), 2, "{top}");
    // another user's, by exec
    host.unroot(["exec", "-d", "-u", "app", "c", "sleep", "97"]).ok();
    let top = host.unroot(["top", "c", "user", "huser", "args"]).ok();
    let row: Vec<&str> = top.lines().find(|l| l.ends_with("sleep 97")).unwrap().split_whitespace().collect();
    assert_eq!(row[..2], ["app", &shown(outside(1000))], "{top}");
    assert_eq!(top.lines().count(), 3, "{top}");
}

#[test]
fn capabilities_over_a_nested_namespace_are_told_apart() {
    let host = Host::new();
    let script = "unshare -U -r sleep 99 & sleep 100";
    host.unroot([
        "run",
        "-d",
        "--name",
        "c",
        "--network=none",
        "--security-opt=seccomp=unconfined",
        "-u",
        "sync",
        IMAGE,
        "sh",
        "-c",
        script,
    ])
    .ok();
    let begun = Instant::now();
    let top = loop {
        let top = host.unroot(["top", "c", "user", "huser", "capeff", "args"]).ok();
        if top.contains("[nested]") || begun.elapsed() > Duration::from_secs(5) {
            break top;
        }
    };
    let nested = top.lines().find(|l| l.contains("sleep 99")).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(nested[..3], ["root", &shown(outside(5)), "full[nested]"], "{top}");
    let outer = top.lines().find(|l| l.contains("sleep 100")).unwrap();
    assert!(outer.contains("none") && !outer.contains("[nested]"), "{top}");
}

/// A pid namespace below the container's: numbers are the container's, in which its own ps and kill have them.
#[test]
fn numbers_of_processes_in_a_nested_namespace() {
    let host = Host::new();
    let script = "unshare -U -r -p -f sleep 98 & sleep 100";
    let flags = ["run", "-d", "--name", "c", "--network=none", "--security-opt=seccomp=unconfined", IMAGE];
    host.unroot(flags.iter().chain(&["sh", "-c", script])).ok();
    let begun = Instant::now();
    let number = |columns: &[&str]| {
        let top = host.unroot(["top", "c"].iter().chain(columns)).ok();
        let line = top.lines().find(|l| l.ends_with("sleep 98") && !l.contains("unshare"))?;
        Some(line.split_whitespace().take(2).map(str::to_string).collect::<Vec<_>>())
    };
    let shown = loop {
        match number(&["pid", "ppid", "args"]) {
            Some(shown) => break shown,
            None => assert!(begun.elapsed() < Duration::from_secs(5), "{}", host.unroot(["top", "c"]).out),
        }
    };
    let ps = "for p in /proc/[0-9]*; do [ \"$(tr '\\0' ' ' <$p/cmdline)\" = 'sleep 98 ' ] && awk '/^NSpid/ {print $2} /^PPid/ {print $2}' $p/status; done; true";
    let seen = host.unroot(["exec", "c", "sh", "-c", ps]).ok();
    let seen: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(seen, [&shown[1], &shown[0]], "{shown:?}");
    let huser = number(&["user", "huser", "args"]).unwrap();
    assert_eq!(huser, ["root", &self::shown(outside(0))]);
}

#[test]
fn processes_of_groups_below_the_containers() {
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sh", "-c", "sleep 99 & sleep 100"])
        .ok();
    let group = host.unroot(["inspect", "--format", "{{.State.CgroupPath}}", "c"]).ok();
    if is_root() && !group.is_empty() {
        let pids = fs::read_to_string(format!("{group}/cgroup.procs")).unwrap();
        fs::create_dir(format!("{group}/below")).unwrap();
        fs::write(format!("{group}/below/cgroup.procs"), pids.lines().last().unwrap()).unwrap();
    }
    let begun = std::time::Instant::now();
    loop {
        let top = host.unroot(["top", "c", "user", "huser", "args"]).ok();
        let all = top.lines().filter(|l| l.starts_with("root") && l.contains(&shown(outside(0)))).count();
        if all == 2 {
            break;
        }
        // (the shell may not have started both yet)
        assert!(all < 2 && begun.elapsed().as_secs() < 10, "{top}");
    }
}

#[test]
fn kept_groups() {
    let host = Host::new();
    let refused = host.sh(&["--group-add=keep-groups", "--group-add=10"], "true");
    refused
        .fails(125, "the '--group-add keep-groups' option is not allowed with any other --group-add options");
    if !is_root() {
        return;
    }
    let run = |flags: &str| {
        let command = format!(
            "exec setpriv --groups 1234,5678 {} --root {}/root --runroot {1}/run run --rm --network=none --group-add keep-groups {flags} {IMAGE} id -G",
            binary().display(),
            host.path("").display()
        );
        let output =
            Command::new("sh").args(["-c", &command]).env("CONTAINERS_CONF", "/dev/null").output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    assert_eq!(run("").trim(), "0 1234 5678");
    // (in a map that lacks them they are there, and nobody's)
    assert_eq!(run("--uidmap 0:200000:5000").trim(), "0 65534 65534");
    // which they are is told from outside
    let start = format!(
        "exec setpriv --groups 6 {} --root {1}/root --runroot {1}/run run -d --name kept --network=none --group-add keep-groups --uidmap 0:200000:5000 {IMAGE} sleep 100",
        binary().display(),
        host.path("").display()
    );
    assert!(
        Command::new("sh")
            .args(["-c", &start])
            .env("CONTAINERS_CONF", "/dev/null")
            .status()
            .unwrap()
            .success()
    );
    let said = host.unroot(["explain", "kept"]).ok();
    assert!(said.contains("it is still in groups of the host") && said.contains("disk (6)"), "{said}");
}

#[test]
fn root_under_another_name_is_root() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "c", "--network=none", "--uidmap=0:0:65536", IMAGE, "sleep", "100"])
        .ok();
    let report: Value =
        serde_json::from_str(&host.unroot(["explain", "--format", "json", "c"]).ok()).unwrap();
    let level =
        report[0]["report"]["level"].as_str().or(report[0]["level"].as_str()).unwrap_or_default().to_string();
    assert_eq!(level, "root-id", "{report}");
}

#[test]
fn a_process_that_took_a_number_over() {
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sleep", "100"]).ok();
    let id = host.unroot(["inspect", "--format", "{{.Id}}", "c"]).ok();
    let file = host.path("run").join("containers").join(&id).join("state.json");
    let good = fs::read_to_string(&file).unwrap();
    let mut state: Value = serde_json::from_str(&good).unwrap();
    // (as if monitor and process had ended and their numbers were other processes' now)
    for who in ["monitor", "process"] {
        let start = state[who]["start_time"].as_u64().unwrap();
        state[who]["start_time"] = (start - 1).into();
    }
    fs::write(&file, state.to_string()).unwrap();
    assert_eq!(host.unroot(["ps", "--format", "{{.Names}}{{.HostUser}}"]).ok(), "");
    host.unroot(["top", "c"]).fails(125, "running");
    fs::write(&file, good).unwrap();
    assert_eq!(host.unroot(["ps", "--format", "{{.Names}}"]).ok(), "c");
}

#[test]
fn hostile_files_of_users() {
    let host = Host::new();
    let write = r"printf '\033[31mred\033[2J\nx:x:0:0::/:/bin/sh\n\033]0;t\007evil:x:5:0::/:/bin/sh\n' >/etc/passwd; sleep 100";
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sh", "-c", write]).ok();
    host.unroot(["exec", "-d", "-u", "5", "c", "sleep", "98"]).ok();
    for args in [
        &["top", "c", "user", "group", "args"][..],
        &["whois", "c"],
        &["explain", "c"],
        &["ps", "--format", "{{.HostUser}}"],
    ] {
        let said = host.unroot(args).ok();
        assert!(!said.contains('\x1b') && !said.contains('\x07'), "{args:?}: {said:?}");
    }
    // a file of a gigabyte is not read to its end
    host.unroot([
        "exec",
        "c",
        "sh",
        "-c",
        "dd if=/dev/zero of=/etc/passwd bs=1 count=1 seek=1073741823 2>/dev/null",
    ])
    .ok();
    let begun = Instant::now();
    let top = host.unroot(["top", "c", "user", "huser"]).ok();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(top.lines().count() >= 3 && !top.contains('\x1b'), "{top}");
}
