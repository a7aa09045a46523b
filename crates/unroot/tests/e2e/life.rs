//! create, start, stop, kill, wait, rm, ps, inspect.

use crate::host::{Host, IMAGE};

#[test]
fn from_create_to_rm() {
    let host = Host::new();
    let id =
        host.unroot(["create", "--name", "c", "--network=none", IMAGE, "sh", "-c", "echo ran; exit 5"]).ok();
    assert_eq!(id.len(), 64);
    let status = || host.unroot(["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "c"]).ok();
    assert_eq!(status(), "created 0");
    assert_eq!(host.unroot(["ps", "-q"]).ok(), "");
    assert_eq!(host.unroot(["ps", "-aq", "--no-trunc"]).ok(), id);
    let done = host.unroot(["start", "-a", "c"]);
    assert_eq!((done.code, done.out.as_str()), (5, "ran\n"));
    assert_eq!(status(), "exited 5");
    assert_eq!(host.unroot(["wait", "c"]).ok(), "5");
    assert_eq!(host.unroot(["start", "c"]).ok(), "c");
    host.unroot(["wait", "c"]).ok();
    assert_eq!(host.unroot(["rm", "c"]).ok(), "c");
    host.unroot(["inspect", "c"]).fails(125, "no such object");
}

#[test]
fn a_name_is_taken_once() {
    let host = Host::new();
    host.unroot(["create", "--name", "c", IMAGE]).ok();
    host.unroot(["create", "--name", "c", IMAGE]).fails(125, "the container name \"c\" is already in use");
    host.unroot(["create", "--name", "c", "--replace", IMAGE]).ok();
    host.unroot(["create", "--name", "a/b", IMAGE]).fails(125, "names must match");
}

#[test]
fn stop_asks_then_kills() {
    let host = Host::new();
    let polite = "trap 'exit 9' TERM; while :; do sleep 0.05; done";
    host.unroot(["run", "-d", "--name", "polite", "--network=none", IMAGE, "sh", "-c", polite]).ok();
    host.unroot(["run", "-d", "--name", "deaf", "--network=none", IMAGE, "sleep", "1000"]).ok();
    assert_eq!(host.unroot(["stop", "polite"]).ok(), "polite");
    host.unroot(["stop", "-t", "1", "deaf"]).ok();
    let codes = host.unroot(["inspect", "--format", "{{.State.ExitCode}}", "polite", "deaf"]).ok();
    assert_eq!(codes, "9\n137");
}

#[test]
fn rm_of_what_runs_needs_force() {
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sleep", "1000"]).ok();
    host.unroot(["rm", "c"]).fails(2, "without force");
    host.unroot(["rm", "-f", "-t", "0", "c"]).ok();
    assert_eq!(host.unroot(["ps", "-aq"]).ok(), "");
    host.unroot(["rm", "c"]).fails(1, "no such container");
    host.unroot(["rm", "-f", "c"]).ok();
}

#[test]
fn kill_sends_the_signal() {
    let host = Host::new();
    let script = "trap 'echo caught; exit 3' USR1; while :; do sleep 0.02; done";
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sh", "-c", script]).ok();
    std::thread::sleep(std::time::Duration::from_millis(200));
    host.unroot(["kill", "-s", "USR1", "c"]).ok();
    assert_eq!(host.unroot(["wait", "c"]).ok(), "3");
    assert_eq!(host.unroot(["logs", "c"]).ok(), "caught");
    host.unroot(["kill", "c"]).fails(125, "can only kill running containers");
}

#[test]
fn run_removes_with_rm() {
    let host = Host::new();
    let id = host.unroot(["run", "-d", "--rm", "--network=none", IMAGE, "true"]).ok();
    for _ in 0..200 {
        if host.unroot(["ps", "-aq"]).ok().is_empty() {
            assert!(!host.path("root/containers").join(&id).exists());
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{id} is still there");
}

#[test]
fn a_command_that_is_not_there() {
    let host = Host::new();
    host.unroot(["run", "--rm", "--network=none", IMAGE, "/nothing-here"]).fails(127, "/nothing-here");
    host.unroot(["run", "--rm", "--network=none", IMAGE, "nothing-here"])
        .fails(127, "executable file not found in $PATH");
    host.unroot(["run", "--rm", "--network=none", IMAGE, "/etc/not-executable"])
        .fails(126, "ermission denied");
    host.unroot(["run", "--rm", "--pull=never", "localhost/nosuch", "true"]).fails(125, "localhost/nosuch");
    assert_eq!(host.unroot(["ps", "-aq"]).ok(), "", "nothing is left of a container that could not start");
}

#[test]
fn timeout_ends_it() {
    let host = Host::new();
    let done = host.unroot(["run", "--rm", "--network=none", "--timeout", "1", IMAGE, "sleep", "100"]);
    assert_eq!(done.code, 255);
}

#[test]
fn names_ids_and_prefixes_find_it() {
    let host = Host::new();
    let id = host.unroot(["create", "--name", "web", IMAGE]).ok();
    for name in ["web", &id, &id[..12], &id[..5]] {
        assert_eq!(host.unroot(["inspect", "--format", "{{.Id}}", name]).ok(), id);
    }
    assert_eq!(
        host.unroot(["ps", "-a", "--format", "{{.ID}} {{.Names}} {{.Image}}"]).ok(),
        format!("{} web {IMAGE}", &id[..12])
    );
}

/// A process whose command line says this.
fn process_of(text: &str) -> Option<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|p| std::fs::read_to_string(p.path().join("cmdline")).ok())
        .find(|line| line.contains(text))
}

/// Two hundred at once, and nothing is left: no process, no mount, no directory.
#[test]
fn many_at_once() {
    let host = Host::new();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..200)
            .map(|n| {
                let host = &host;
                scope.spawn(move || {
                    host.unroot([
                        "run",
                        "-d",
                        "--name",
                        &format!("c{n}"),
                        "--network=none",
                        IMAGE,
                        "sleep",
                        "1000",
                    ])
                    .ok()
                })
            })
            .collect();
        for started in all {
            started.join().unwrap();
        }
    });
    assert_eq!(host.unroot(["ps", "-q"]).ok().lines().count(), 200);
    host.unroot(["rm", "-fa", "-t", "0"]).ok();
    assert_eq!(host.unroot(["ps", "-aq"]).ok(), "");
    for dir in ["root/containers", "root/names", "run/containers"] {
        assert_eq!(std::fs::read_dir(host.path(dir)).unwrap().count(), 0, "{dir} is not empty");
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = host.path("root").to_str().unwrap().to_string();
    assert!(!mounts.contains(&place), "a mount is left");
    let begin = std::time::Instant::now();
    while let Some(process) = process_of(&place) {
        assert!(begin.elapsed() < std::time::Duration::from_secs(5), "left: {process}");
    }
}
