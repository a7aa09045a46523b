//! Limits hold, and what is told of them is what the kernel counts. As in [`crate::systemd`], only where systemd manages
//! control groups for the user.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::host::{Host, IMAGE, is_root};
use crate::systemd::{group_of, managed, until};

const EATER: &str = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo survived";
const BUSY: &str = "while :; do :; done";

fn read(group: &Path, file: &str) -> String {
    fs::read_to_string(group.join(file)).unwrap().trim().to_string()
}

/// `NAME value`
fn value(group: &Path, file: &str, name: &str) -> f64 {
    let text = read(group, file);
    text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0.0)
}

/// The share of one processor that a group has had meanwhile.
fn share_of(group: &Path, time: Duration) -> f64 {
    let used = || value(group, "cpu.stat", "usage_usec");
    let (begin, before) = (Instant::now(), used());
    std::thread::sleep(time);
    (used() - before) / begin.elapsed().as_micros() as f64
}

/// The disk that the tests' files are on: its path and its numbers.
fn disk(host: &Host) -> (String, String) {
    let device = fs::metadata(host.path("root")).unwrap().dev();
    let numbers = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let facts = fs::read_to_string(format!("/sys/dev/block/{numbers}/uevent")).unwrap();
    let name = facts.lines().find_map(|l| l.strip_prefix("DEVNAME=")).unwrap().to_string();
    (format!("/dev/{name}"), numbers)
}

fn near(one: f64, other: f64) -> bool {
    (one / other - 1.0).abs() < 0.05
}

#[test]
fn memory_is_limited() {
    if !managed() {
        return;
    }
    let host = Host::new();
    let done = host.unroot(["run", "--name", "c", "--network=none", "-m", "32m", IMAGE, "sh", "-c", EATER]);
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
    host.unroot(["run", "-d", "--name", "c", "--cpus=0.2", "--network=none", IMAGE, "sh", "-c", BUSY]).ok();
    let share = share_of(&group_of(&host, "c"), Duration::from_secs(3));
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

#[test]
fn what_is_paused_is_frozen() {
    if !managed() {
        return;
    }
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sh", "-c", BUSY]).ok();
    let group = group_of(&host, "c");
    let usage = || value(&group, "cpu.stat", "usage_usec");
    host.unroot(["pause", "c"]).ok();
    assert!(read(&group, "cgroup.events").contains("frozen 1"));
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
    let number = |file: &str| -> f64 { read(&group, file).parse().unwrap() };
    until("it has filled its memory", || number("memory.current") > 29e6 && number("pids.current") == 2.0);
    std::thread::sleep(Duration::from_secs(1));
    let format = "{{.MemUsage}} {{.MemLimit}} {{.MemPerc}} {{.PIDs}} {{.CPUNano}}";
    let out = host.unroot(["stats", "--no-stream", "--format", format, "c"]).ok();
    let words: Vec<&str> = out.split(' ').collect();
    let memory: f64 = words[0].trim_end_matches("MB").parse().unwrap();
    assert!(near(memory * 1e6, number("memory.current")), "{out}");
    assert_eq!((words[3], words[5]), ("209715200", "2"), "{out}");
    let usage = value(&group, "cpu.stat", "usage_usec");
    assert!(near(words[6].parse::<f64>().unwrap() / 1000.0, usage), "{out} {usage}");
}

/// A megabyte a second is no more, written and read, and `update` changes it while the container runs.
#[test]
fn block_io_is_limited() {
    if !managed() {
        return;
    }
    let host = Host::new();
    let (path, numbers) = disk(&host);
    let write = format!("--device-write-bps={path}:1mb");
    let flags = ["run", "-d", "--name", "c", "--network=none", &write, IMAGE, "sleep", "1000"];
    host.unroot(flags).ok();
    let dd = |words: &str| {
        let begin = Instant::now();
        host.unroot(["exec", "c", "sh", "-c", &format!("dd bs=256k count=16 {words} 2>/dev/null")]).ok();
        begin.elapsed().as_secs_f64()
    };
    let group = group_of(&host, "c");
    assert!(read(&group, "io.max").contains(&format!("{numbers} rbps=max wbps=1048576")));
    let written = dd("if=/dev/zero of=/file oflag=direct");
    assert!((3.0..20.0).contains(&written), "4 MB took {written} s");
    host.unroot(["update", "c", &format!("--device-write-bps={path}:100mb")]).ok();
    host.unroot(["update", "c", &format!("--device-read-bps={path}:1mb")]).ok();
    assert!(read(&group, "io.max").contains(&format!("{numbers} rbps=1048576 wbps=104857600")));
    let written = dd("if=/dev/zero of=/file oflag=direct");
    assert!(written < 3.0, "4 MB took {written} s");
    let taken = dd("if=/file of=/dev/null iflag=direct");
    assert!((3.0..20.0).contains(&taken), "4 MB took {taken} s");
    host.unroot(["rm", "-f", "-t", "0", "c"]).ok();
}

/// Whoever was killed for want of memory is told apart from whoever was killed.
#[test]
fn want_of_memory_is_told() {
    if !managed() {
        return;
    }
    let host = Host::new();
    let run = |name: &str, script: &str| {
        let flags = ["run", "--name", name, "--network=none", "-m", "32m", IMAGE, "sh", "-c", script];
        host.unroot(flags).code
    };
    assert_eq!((run("hungry", EATER), run("killed", "kill -9 $$; exit 5")), (137, 5));
    let told = |name: &str| {
        let filter = format!("--filter=container={name}");
        let events = ["events", "--stream=false", &filter, "--format={{.Status}} {{.ContainerExitCode}}"];
        let all = host.unroot(events).ok();
        all.lines().any(|line| line == "oom <nil>")
    };
    assert!(told("hungry") && !told("killed"));
    let state = "{{.State.OOMKilled}} {{.State.ExitCode}}";
    assert_eq!(host.unroot(["inspect", "--format", state, "hungry", "killed"]).ok(), "true 137\nfalse 5");
    // one that lives on after one of its processes was killed has run out of memory as well
    let survivor = format!("sh -c '{}'; exit 3", EATER.replace('\'', "'\\''"));
    assert_eq!(run("survivor", &survivor), 3);
    assert!(told("survivor"));
}

/// What is changed holds at once, and from the next start on.
#[test]
fn update_changes_what_runs() {
    if !managed() {
        return;
    }
    let host = Host::new();
    let flags = ["-m=100m", "--pids-limit=20", "--cpus=0.5", "--cpu-shares=100"];
    let run = ["run", "-d", "--name", "c", "--network=none"].into_iter().chain(flags);
    host.unroot(run.chain([IMAGE, "sh", "-c", BUSY])).ok();
    let files = || {
        let group = group_of(&host, "c");
        ["memory.max", "pids.max", "cpu.max", "cpu.weight"].map(|file| read(&group, file)).join(", ")
    };
    assert_eq!(files(), "104857600, 20, 50000 100000, 4");
    let changed = ["-m=50m", "--pids-limit=8", "--cpus=0.2", "--cpu-shares=1024"];
    host.unroot(["update", "c"].iter().chain(&changed)).ok();
    let expected = "52428800, 8, 20000 100000, 39";
    assert_eq!(files(), expected);
    let share = share_of(&group_of(&host, "c"), Duration::from_secs(3));
    assert!((0.1..0.25).contains(&share), "{share}");
    host.unroot(["exec", "c", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait"])
        .fails(2, "fork");
    host.unroot(["exec", "c", "true"]).fails(125, "for more than 8: unroot update --pids-limit=NUMBER c");
    until("its processes have ended", || read(&group_of(&host, "c"), "pids.current") == "1");
    host.unroot(["exec", "c", "sh", "-c", EATER]).fails(137, "");
    host.unroot(["restart", "-t", "0", "c"]).ok();
    assert_eq!(files(), expected);
    host.unroot(["rm", "-f", "-t", "0", "c"]).ok();
}

/// The share of a processor over an interval, as it is told, is what the kernel counts in it.
#[test]
fn stats_of_what_is_busy() {
    if !managed() {
        return;
    }
    let host = Host::new();
    let flags = ["run", "-d", "--name", "c", "--cpus=0.3", "--network=none", IMAGE, "sh", "-c", BUSY];
    host.unroot(flags).ok();
    let group = group_of(&host, "c");
    let mut stats = host
        .command(["stats", "--no-reset", "-i", "4", "--format", "{{.CPU}}", "c"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(stats.stdout.take().unwrap()).lines();
    let mut next = || {
        let told: f64 = lines.next().unwrap().unwrap().parse().unwrap();
        (told, Instant::now(), value(&group, "cpu.stat", "usage_usec"))
    };
    let before = next();
    let after = next();
    stats.kill().unwrap();
    stats.wait().unwrap();
    let counted = (after.2 - before.2) / (after.1 - before.1).as_micros() as f64 * 100.0;
    assert!(near(after.0, counted) && (15.0..35.0).contains(&counted), "{} {counted}", after.0);
    host.unroot(["rm", "-f", "-t", "0", "c"]).ok();
}

#[test]
fn stats_of_block_io() {
    if !managed() {
        return;
    }
    let host = Host::new();
    let (path, numbers) = disk(&host);
    let script = "dd if=/dev/zero of=/f bs=1M count=8 oflag=direct; dd if=/f of=/dev/null bs=1M count=5 iflag=direct; \
                  touch /done; exec sleep 1000";
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sh", "-c", script]).ok();
    until("it has written", || host.unroot(["exec", "c", "test", "-e", "/done"]).code == 0);
    let text = read(&group_of(&host, "c"), "io.stat");
    let line = text.lines().find(|l| l.starts_with(&format!("{numbers} "))).unwrap();
    let counted = |name: &str| -> f64 {
        line.split(' ').find_map(|word| word.strip_prefix(name)?.parse().ok()).unwrap()
    };
    let told = host
        .unroot(["stats", "--no-stream", "--format", "{{.BlockInput}} {{.BlockOutput}} {{.BlockIO}}", "c"])
        .ok();
    let words: Vec<&str> = told.split(' ').collect();
    let number = |n: usize| words[n].parse::<f64>().unwrap();
    assert!(number(0) > 5e6 && near(number(0), counted("rbytes=")), "{told}; {path} {line}");
    assert!(number(1) > 8e6 && near(number(1), counted("wbytes=")), "{told}; {path} {line}");
    assert!(words[2].ends_with("MB") && words[4].ends_with("MB"), "{told}");
    host.unroot(["rm", "-f", "-t", "0", "c"]).ok();
}

/// A pod's limits are those of all its containers together.
#[test]
fn a_pods_limits() {
    if !managed() {
        return;
    }
    let host = Host::new();
    host.unroot(["pod", "create", "--name", "p", "--network=none", "--memory=64m", "--cpus=0.3"]).ok();
    let run = |flags: &[&str], script: &str| {
        host.unroot(["run", "--pod", "p"].iter().chain(flags).chain(&[IMAGE, "sh", "-c", script]))
    };
    run(&["-d", "--name", "one"], BUSY).ok();
    run(&["-d", "--name", "two"], BUSY).ok();
    let pod: PathBuf = group_of(&host, "one").parent().unwrap().into();
    assert_eq!(group_of(&host, "two").parent(), Some(&*pod));
    assert_eq!((read(&pod, "memory.max"), read(&pod, "cpu.max")), ("67108864".into(), "30000 100000".into()));
    let share = share_of(&pod, Duration::from_secs(3));
    assert!((0.15..0.35).contains(&share), "{share}");
    let format = "{{.Name}} {{.CPU}} {{.MemUsage}} {{.PIDS}}";
    let told = host.unroot(["pod", "stats", "--no-stream", "--format", format, "p"]).ok();
    for name in ["one", "two"] {
        let words: Vec<&str> =
            told.lines().find_map(|l| l.strip_prefix(&format!("{name} "))).unwrap().split(' ').collect();
        let cpu: f64 = words[0].trim_end_matches('%').parse().unwrap();
        assert!((2.0..30.0).contains(&cpu), "{told}");
        assert_eq!(words.last(), Some(&"1"), "{told}");
        assert!(told.contains("67.11MB"), "the limit is the pod's: {told}");
    }
    host.unroot(["stop", "-t", "0", "one", "two"]).ok();
    // two that have enough room each have not together
    let half = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); sleep 100";
    run(&["-d", "--name", "first"], half).ok();
    let first = group_of(&host, "first");
    until("the first has its memory", || read(&first, "memory.current").parse::<f64>().unwrap() > 2e7);
    assert_eq!(run(&["--name", "second"], EATER).code, 137);
    assert_eq!(host.unroot(["inspect", "--format", "{{.State.OOMKilled}}", "second"]).ok(), "true");
    host.unroot(["pod", "rm", "-f", "-t", "0", "p"]).ok();
    until("its group is gone", || !pod.exists());
}
