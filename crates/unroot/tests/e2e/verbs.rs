//! pause, rename, init, clone, prune, cleanup, wait, filters, logs of several containers.

use std::fs;
use std::time::{Duration, Instant};

use crate::host::{Done, Host, IMAGE};

fn run(host: &Host, name: &str, flags: &[&str], script: &str) -> String {
    let args = ["run", "-d", "--name", name, "--network=none"];
    host.unroot(args.iter().chain(flags).chain(&[IMAGE, "sh", "-c", script])).ok()
}

fn status(host: &Host, name: &str) -> String {
    host.unroot(["inspect", "--format", "{{.State.Status}}", name]).ok()
}

/// It is so within some seconds.
#[track_caller]
fn soon(what: &str, test: impl Fn() -> bool) {
    let begun = Instant::now();
    while !test() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not so after 20 seconds: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const COUNT: &str = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done";

#[test]
fn what_is_paused_stands_still() {
    let host = Host::new();
    run(&host, "c", &[], COUNT);
    let done: Done = host.unroot(["pause", "c"]);
    if done.code != 0 {
        // (no place for a control group: said so, and how to get one)
        done.fails(125, "hint:");
        return;
    }
    assert_eq!(status(&host, "c"), "paused");
    let before = host.unroot(["logs", "--tail", "1", "c"]).ok();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(host.unroot(["logs", "--tail", "1", "c"]).ok(), before);
    host.unroot(["pause", "c"]).fails(125, "is already paused");
    host.unroot(["stop", "c"]).fails(125, "is in state paused");
    host.unroot(["exec", "c", "true"]).fails(125, "paused");
    host.unroot(["unpause", "c"]).ok();
    host.unroot(["unpause", "c"]).fails(125, "is not paused");
    soon("it goes on", || host.unroot(["logs", "--tail", "1", "c"]).ok() != before);
    host.unroot(["pause", "c"]).ok();
    host.unroot(["rm", "-f", "-t", "0", "c"]).ok();
}

#[test]
fn a_name_is_changed_while_it_runs() {
    let host = Host::new();
    let id = run(&host, "old", &["--rm"], "sleep 1000");
    run(&host, "other", &[], "sleep 1000");
    host.unroot(["rename", "old", "other"]).fails(125, "already in use");
    host.unroot(["rename", "old", "new"]).ok();
    host.unroot(["inspect", "old"]).fails(125, "no such object");
    assert_eq!(host.unroot(["inspect", "--format", "{{.Id}} {{.Name}}", "new"]).ok(), format!("{id} new"));
    run(&host, "old", &[], "true");
    // its monitor knows: with --rm the new name goes
    host.unroot(["stop", "-t", "0", "new"]).ok();
    soon("it is gone", || host.unroot(["container", "exists", "new"]).code == 1);
    assert!(!host.path("root/names/new").exists());
}

/// Killed between the new name and the record that says it: the link is nobody's.
#[test]
fn a_half_done_rename_holds_no_name() {
    let host = Host::new();
    let id = run(&host, "c", &[], "true");
    std::os::unix::fs::symlink(&id, host.path("root/names/half")).unwrap();
    host.unroot(["inspect", "half"]).fails(125, "no such object");
    run(&host, "half", &[], "true");
    assert_ne!(host.unroot(["inspect", "--format", "{{.Id}}", "half"]).ok(), id);
}

#[test]
fn init_makes_and_start_lets_go() {
    let host = Host::new();
    host.unroot(["create", "--name", "c", "--network=none", IMAGE, "sh", "-c", "echo ran; exit 7"]).ok();
    assert_eq!(host.unroot(["init", "c"]).ok(), "c");
    assert_eq!(status(&host, "c"), "initialized");
    host.unroot(["init", "c"]).fails(125, "already been created");
    host.unroot(["exec", "c", "true"]).fails(125, "running containers");
    assert_eq!(host.unroot(["ps", "-q"]).ok(), "");
    assert_eq!(host.unroot(["logs", "c"]).ok(), "");
    let done = host.unroot(["start", "-a", "c"]);
    assert_eq!((done.code, done.out.as_str()), (7, "ran\n"));
    assert_eq!(status(&host, "c"), "exited");
    // what cannot be run is said by the start, with its code
    host.unroot(["create", "--name", "bad", "--network=none", IMAGE, "/no/such"]).ok();
    host.unroot(["init", "bad"]).ok();
    host.unroot(["start", "-a", "bad"]).fails(127, "/no/such");
    soon("it has ended", || status(&host, "bad") == "exited");
    // and one that nobody starts can be stopped and removed
    for end in ["stop", "rm"] {
        host.unroot(["create", "--name", end, "--network=none", IMAGE, "sleep", "1000"]).ok();
        host.unroot(["init", end]).ok();
        host.unroot([end, end]).ok();
    }
    assert_eq!(status(&host, "stop"), "exited");
}

#[test]
fn a_clone_is_like_the_other() {
    let host = Host::new();
    host.unroot([
        "create",
        "--name",
        "c",
        "--network=none",
        "-e",
        "A=b",
        "-v",
        "vol:/v",
        "-v",
        "/anon",
        "--label",
        "x=y",
        IMAGE,
        "sh",
        "-c",
        "echo $A",
    ])
    .ok();
    host.unroot(["container", "clone", "c"]).ok();
    host.unroot(["container", "clone", "c"]).ok();
    assert_eq!(host.unroot(["start", "-a", "c-clone"]).ok(), "b");
    let shown = |name: &str| {
        let format = "{{range .Mounts}}{{.Destination}}={{.Name}} {{end}}{{.Config.Labels.x}}";
        host.unroot(["inspect", "--format", format, name]).ok()
    };
    assert!(
        shown("c-clone1").contains("/v=vol ") && shown("c-clone1").ends_with('y'),
        "{}",
        shown("c-clone1")
    );
    // an anonymous volume is nobody else's
    assert_ne!(shown("c"), shown("c-clone1"));
    host.unroot(["container", "clone", "--force", "c", "x"]).fails(125, "without --destroy");
    host.unroot(["container", "clone", "--destroy", "--run", "c", "c"]).ok();
    soon("it ran", || host.unroot(["logs", "c"]).out == "b\n");
}

#[test]
fn prune_takes_what_does_not_run() {
    let host = Host::new();
    run(&host, "live", &[], "sleep 1000");
    run(&host, "done", &["--label", "keep=no"], "true");
    host.unroot(["wait", "done"]).ok();
    host.unroot(["create", "--name", "made", "--network=none", IMAGE]).ok();
    host.unroot(["container", "prune", "-f", "--filter", "nosuch=1"])
        .fails(125, "nosuch is an invalid filter");
    host.unroot_with_input(["container", "prune"], b"n\n").ok();
    assert_eq!(host.unroot(["ps", "-aq"]).ok().lines().count(), 3);
    host.unroot(["container", "prune", "-f", "--filter", "label=keep=no"]).ok();
    assert_eq!(host.unroot(["ps", "-a", "--format", "{{.Names}}", "--sort", "names"]).ok(), "live\nmade");
    host.unroot(["container", "prune", "-f"]).ok();
    assert_eq!(host.unroot(["ps", "-a", "--format", "{{.Names}}"]).ok(), "live");
}

#[test]
fn what_others_need_goes_after_them() {
    let host = Host::new();
    let first = run(&host, "first", &[], "sleep 1000");
    let args = ["run", "-d", "--name", "second", "--network=container:first", IMAGE, "sleep", "1000"];
    let second = host.unroot(args).ok();
    let said = host.unroot(["rm", "-f", "-t", "0", "first"]).fails(125, "has dependent containers");
    assert!(said.contains(&second) && said.contains("--depend"), "{said}");
    let removed = host.unroot(["rm", "-f", "-t", "0", "--depend", "first"]).ok();
    assert_eq!(removed, format!("{second}\nfirst"));
    assert!(!host.path("root/containers").join(first).exists());
}

#[test]
fn cleanup_frees_what_a_killed_monitor_left() {
    let host = Host::new();
    run(&host, "c", &[], "sleep 1000");
    host.unroot(["container", "cleanup", "c"]).fails(125, "refusing to clean up");
    let monitor = host.unroot(["inspect", "--format", "{{.State.ConmonPid}}", "c"]).ok();
    assert!(host.inside(&format!("kill -9 {monitor}")).code == 0);
    soon("it is seen", || status(&host, "c") == "exited");
    host.unroot(["container", "cleanup", "c"]).ok();
    let exit = host.unroot(["inspect", "--format", "{{.State.ExitCode}} {{.State.Lost}}", "c"]).ok();
    assert_eq!(exit, "137 true");
    assert!(!host.path("run/containers").join("x").exists());
    host.unroot(["container", "cleanup", "--rm", "c"]).ok();
    assert_eq!(host.unroot(["ps", "-aq"]).ok(), "");
}

#[test]
fn wait_for_what_was_asked() {
    let host = Host::new();
    run(&host, "c", &[], "sleep 0.3; exit 4");
    assert_eq!(host.unroot(["wait", "--condition=running,exited", "c"]).ok(), "-1");
    assert_eq!(host.unroot(["wait", "--condition=stopped", "-i", "10ms", "c"]).ok(), "4");
    run(&host, "gone", &["--rm"], "sleep 0.2");
    host.unroot(["wait", "--condition=removing", "gone"]).ok();
    host.unroot(["wait", "--condition=nonsense", "c"]).fails(125, "unknown container state: nonsense");
    assert_eq!(host.unroot(["wait", "--ignore", "nobody"]).ok(), "-1");
}

#[test]
fn filters_choose() {
    let host = Host::new();
    let live = run(&host, "live", &["--label", "a=1"], "sleep 1000");
    run(&host, "bad", &["--label", "a=2", "--restart", "on-failure:1"], "exit 3");
    soon("it has ended", || status(&host, "bad") == "exited");
    let names = |filters: &[&str]| {
        let flags = filters.iter().flat_map(|f| ["--filter", f]);
        let args = ["ps", "-a", "--format", "{{.Names}}", "--sort", "names"].into_iter().chain(flags);
        host.unroot(args).ok()
    };
    assert_eq!(names(&["label=a"]), "bad\nlive");
    assert_eq!(names(&["label!=a=1"]), "bad");
    assert_eq!(names(&["label=a=1", "label=a=2"]), "");
    assert_eq!(names(&["status=exited", "exited=3"]), "bad");
    assert_eq!(names(&["restart-policy=on-failure"]), "bad");
    assert_eq!(names(&["name=^l.*e$"]), "live");
    assert_eq!(names(&[&format!("id={}", &live[..8])]), "live");
    assert_eq!(names(&["since=live"]), "bad");
    assert_eq!(names(&["before=bad"]), "live");
    assert_eq!(names(&["until=1h"]), "");
    assert_eq!(names(&["ancestor=testimage"]), "bad\nlive");
    host.unroot(["ps", "--filter", "nosuch=x"]).fails(125, "nosuch is an invalid filter");
    host.unroot(["ps", "--filter", "status=x"]).fails(125, "unknown container state: x");
    assert_eq!(host.unroot(["stop", "-t", "0", "--filter", "label=a"]).ok(), live);
    host.unroot(["start", "--all", "live"]).fails(125, "either start all containers");
}

#[test]
fn logs_of_several_containers() {
    let host = Host::new();
    let one = run(&host, "one", &[], "echo a; echo b >&2; printf c");
    let two = run(&host, "two", &[], "sleep 0.4; echo d");
    let done = host.unroot(["logs", "-f", "one", "two"]);
    let (one, two) = (&one[..12], &two[..12]);
    assert_eq!(done.out, format!("{one} a\n{one} c{two} d\n"));
    assert_eq!(done.err, format!("{one} b\n"));
    assert_eq!(host.unroot(["logs", "--names", "one", "two"]).ok(), "one a\none ctwo d");
    assert_eq!(host.unroot(["logs", "--color", "--tail", "1", "two"]).ok(), "\u{1b}[37md\u{1b}[0m");
    let begun = Instant::now();
    run(&host, "three", &[], COUNT);
    host.unroot(["logs", "-f", "--until", "1s", "three"]).ok();
    assert!(begun.elapsed() > Duration::from_millis(900) && begun.elapsed() < Duration::from_secs(8));
    host.unroot(["logs", "--since", "yesterday", "one"]).fails(125, "parsing --since \"yesterday\"");
}

#[test]
fn logs_are_rotated_and_compressed() {
    let host = Host::new();
    let flags = ["--log-opt", "max-size=20k", "--log-opt", "max-file=3", "--log-opt", "compress=true"];
    let script = "n=0; while [ $n -lt 2000 ]; do n=$((n+1)); echo \"this is line number $n\"; done";
    let id = run(&host, "c", &flags, script);
    host.unroot(["wait", "c"]).ok();
    let dir = host.path("root/containers").join(id);
    let log = |name: &str| fs::metadata(dir.join(name)).map(|m| m.len()).ok();
    soon("the last part is compressed", || log("ctr.log.1.gz").is_some());
    assert!(log("ctr.log").unwrap() <= 20_000 && log("ctr.log.1.gz").unwrap() < 10_000);
    assert!(log("ctr.log.2.gz").is_some() && log("ctr.log.3.gz").is_none() && log("ctr.log.1").is_none());
    let text = host.unroot(["logs", "c"]).ok();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[lines.len() - 1], "this is line number 2000");
    let first: usize = lines[0].rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(lines.len(), 2000 - first + 1, "no line is missing in between");
    assert_eq!(host.unroot(["logs", "--tail", "500", "c"]).ok(), lines[lines.len() - 500..].join("\n"));
    for wrong in ["max-files=2", "max-file=0", "compress=yes"] {
        host.unroot(["create", "--log-opt", wrong, IMAGE])
            .fails(125, &format!("invalid --log-opt {wrong:?}"));
    }
    let journald = host.unroot(["run", "--rm", "--network=none", "--log-driver=journald", IMAGE, "true"]);
    assert!(journald.code == 0 || journald.err.contains("there is no journal"), "{journald:?}");
}

#[test]
fn stats_are_what_the_kernel_counts() {
    let host = Host::new();
    run(&host, "busy", &[], "while :; do :; done");
    run(&host, "idle", &[], "sleep 1000");
    let done = host.unroot(["stats", "--no-stream", "--format", "json", "busy", "idle"]);
    if done.code != 0 {
        done.fails(125, "hint:");
        return;
    }
    std::thread::sleep(Duration::from_millis(500));
    let format = "{{.Name}} {{.CPUNano}} {{.PIDs}} {{.MemLimit}}";
    let out = host.unroot(["stats", "--no-stream", "--format", format, "busy", "idle"]).ok();
    let numbers = |name: &str| -> Vec<u64> {
        let line = out.lines().find(|l| l.starts_with(name)).unwrap();
        line.split(' ').skip(1).map(|n| n.parse().unwrap()).collect()
    };
    let (busy, idle) = (numbers("busy"), numbers("idle"));
    assert!(busy[0] > 100_000_000 && idle[0] < 100_000_000, "{out}");
    assert!(busy[1] == 1 && idle[1] == 1 && busy[2] > 1 << 20, "{out}");
    let table = host.unroot(["stats", "--no-stream"]).ok();
    assert!(table.starts_with("ID ") && table.lines().count() == 3, "{table}");
    host.unroot(["stop", "-t", "0", "idle"]).ok();
    host.unroot(["stats", "--no-stream", "idle"]).fails(125, "is not running");
    assert_eq!(host.unroot(["stats", "--no-stream", "-a"]).ok().lines().count(), 3);
    host.unroot(["stats", "-i", "0"]).fails(125, "invalid interval");
}

#[test]
fn reset_leaves_what_is_not_its_own() {
    let host = Host::new();
    run(&host, "c", &["-v", "vol:/v"], "sleep 1000");
    fs::write(host.path("root/mine"), "x").unwrap();
    host.unroot_with_input(["system", "reset"], b"n\n").ok();
    assert_eq!(host.unroot(["ps", "-q"]).ok().len(), 12);
    host.unroot(["system", "reset", "--force"]).ok();
    let left: Vec<_> = fs::read_dir(host.path("root")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["mine"]);
    assert!(!host.path("run").exists());
    assert_eq!(host.unroot(["images", "-q"]).ok(), "");
}

/// Fields that Podman's users look for: as they are where it runs.
#[test]
fn inspect_tells_what_is() {
    let host = Host::new();
    let flags =
        ["--cap-drop", "all", "--cap-add", "net_raw", "-e", "A=b", "--tmpfs", "/scratch", "--expose", "90"];
    run(&host, "c", &flags, "sleep 1000");
    let get = |format: &str| host.unroot(["inspect", "--size", "--format", format, "c"]).ok();
    assert_eq!(get("{{.EffectiveCaps}} {{.BoundingCaps}}"), "[CAP_NET_RAW] [CAP_NET_RAW]");
    let env = get("{{json .Config.Env}}");
    for variable in ["A=b", "HOME=/root", "container=", "HOSTNAME="] {
        assert!(env.contains(variable), "{variable} in {env}");
    }
    assert_eq!(
        get("{{json .Config.ExposedPorts}} {{json .NetworkSettings.Ports}}"),
        "{\"90/tcp\":{}} {\"90/tcp\":null}"
    );
    assert!(get("{{json .HostConfig.Tmpfs}}").contains("/scratch"));
    assert_eq!(get("{{.State.StoppedByUser}}"), "false");
    assert!(get("{{.SizeRootFs}}").parse::<u64>().unwrap() > 100_000);
    host.unroot(["stop", "-t", "0", "c"]).ok();
    assert_eq!(get("{{.State.StoppedByUser}} {{.EffectiveCaps}}"), "true [CAP_NET_RAW]");
    host.unroot(["container", "inspect", "nobody"]).fails(125, "no such container \"nobody\"");
}

/// The protocol of completion scripts: what is alive is offered where it fits.
#[test]
fn completion_offers_what_is_there() {
    let host = Host::new();
    run(&host, "alive", &[], "sleep 1000");
    host.unroot(["create", "--name", "asleep", "--network=none", IMAGE]).ok();
    let offers = |words: &[&str]| {
        let done = host.unroot(["__complete"].iter().chain(words));
        assert!(done.err.contains("ShellCompDirective"), "{done:?}");
        done.ok()
    };
    assert_eq!(offers(&["stop", "a"]), "alive\nasleep\n:4");
    assert_eq!(offers(&["exec", "a"]), "alive\n:4");
    assert!(offers(&["ru"]).starts_with("run\n"));
    assert!(offers(&["container", "clo"]).starts_with("clone\n"));
    assert!(offers(&["run", "--netw"]).starts_with("--network\n"));
    assert!(
        offers(&["run", "--sysctl", "net.ipv4.ip_unpriv"]).contains("net.ipv4.ip_unprivileged_port_start")
    );
    assert!(offers(&["cp", "asleep:/etc/pass"]).starts_with("asleep:/etc/passwd\n"));
    assert!(offers(&["run", IMAGE, "/home/"]).starts_with("/home/app/\n"));
    assert!(offers(&["rmi", "test"]).contains("testimage:latest"));
    assert!(!host.unroot(["--help"]).ok().contains("__complete"));
}
