//! kill -9 at any moment: the next command says what happened and cleans.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::host::{Host, IMAGE};

fn kill9(pid: &str) {
    kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
}

fn wait_until(what: &str, mut test: impl FnMut() -> bool) {
    for _ in 0..500 {
        if test() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("after five seconds: not {what}");
}

#[test]
fn the_monitor_is_killed() {
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sleep", "1000"]).ok();
    let pid = host.unroot(["inspect", "--format", "{{.State.Pid}}", "c"]).ok();
    let monitor = host.unroot(["inspect", "--format", "{{.State.ConmonPid}}", "c"]).ok();
    kill9(&monitor);
    wait_until("gone", || !fs::exists(format!("/proc/{pid}")).unwrap());
    let shown = host
        .unroot(["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}", "c"])
        .ok();
    assert!(shown.starts_with("exited 137") && shown.contains("monitor"), "{shown}");
    assert_eq!(host.unroot(["start", "c"]).ok(), "c", "it can be started again");
    host.unroot(["rm", "-f", "-t0", "c"]).ok();
}

#[test]
fn the_container_is_killed() {
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sleep", "1000"]).ok();
    kill9(&host.unroot(["inspect", "--format", "{{.State.Pid}}", "c"]).ok());
    assert_eq!(host.unroot(["wait", "c"]).ok(), "137");
}

#[test]
fn the_command_is_killed() {
    let host = Host::new();
    for delay in (0..40).step_by(2) {
        let mut child =
            host.spawn(["run", "--rm", "--network=none", IMAGE, "sh", "-c", "sleep 0.01"], Stdio::null());
        std::thread::sleep(Duration::from_millis(delay));
        let _ = child.kill();
        child.wait().unwrap();
    }
    wait_until("ended", || host.unroot(["ps", "-q"]).ok().is_empty());
    host.unroot(["rm", "-fa", "-t0"]).ok();
    for dir in ["root/containers", "root/names", "run/containers"] {
        let left: Vec<_> = fs::read_dir(host.path(dir)).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{dir}: {left:?}");
    }
}

/// The monitor is killed before it could write down what it holds.
#[test]
fn the_monitor_is_killed_early() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = Host::new();
    let pasta = host.path("bin/pasta");
    fs::create_dir(host.path("bin")).unwrap();
    fs::write(&pasta, "#!/bin/sh\nkill -9 $PPID\n").unwrap();
    fs::set_permissions(&pasta, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", host.path("bin").display(), std::env::var("PATH").unwrap());
    for start_again in [false, true] {
        let mut killed =
            host.command(["run", "-d", "--name", "c", "--network=pasta", IMAGE, "sleep", "1000"]);
        host.run(killed.env("PATH", &path)).fails(125, "monitor");
        let id = host.unroot(["inspect", "--format", "{{.Id}}", "c"]).ok();
        if start_again {
            host.unroot(["start", "c"]).ok();
            assert_eq!(host.unroot(["exec", "c", "echo", "runs"]).ok(), "runs");
        }
        host.unroot(["rm", "-f", "-t0", "c"]).ok();
        let name = format!("unroot-{id}");
        let mut find = std::process::Command::new("find");
        assert_eq!(
            host.run(find.args(["/sys/fs/cgroup", "-name", &name])).out,
            "",
            "a control group is left"
        );
    }
}

/// A full disk keeps nobody from removing, and output that cannot be written is told.
#[test]
fn what_cannot_be_written() {
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sleep", "1000"]).ok();
    for verb in ["run --rm --network=none localhost/testimage:latest", "exec c"] {
        let mut told = host.command(verb.split(' ').chain(["echo", "text"]));
        let done = host.run(told.stdout(fs::File::create("/dev/full").unwrap()));
        done.fails(125, "write(output): No space left on device");
    }
    kill9(&host.unroot(["inspect", "--format", "{{.State.ConmonPid}}", "c"]).ok());
    wait_until("gone", || host.unroot(["ps", "-q"]).ok().is_empty());
    // (as a full disk has it: nothing can be written down any more)
    let mut full = std::process::Command::new("sh");
    full.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""]).arg(crate::host::binary());
    full.arg("--root").arg(host.path("root")).arg("--runroot").arg(host.path("run")).args(["rm", "-f", "c"]);
    host.run(full.env("CONTAINERS_CONF", "/dev/null")).ok();
    assert_eq!(host.unroot(["ps", "-aq"]).ok(), "");
}

/// A container makes a tree that nobody with a few descriptors gets to the end of.
#[test]
fn a_tree_without_end() {
    let host = Host::new();
    let script =
        "mkdir /x && cd /x && i=0; while [ $i -lt 700 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done";
    host.unroot(["run", "--name", "c", "--network=none", "-v", "v:/v", IMAGE, "sh", "-c", script]).ok();
    let in_volume = script.replace("/x", "/v/x");
    host.unroot(["run", "--rm", "--network=none", "-v", "v:/v", IMAGE, "sh", "-c", &in_volume]).ok();
    let few = |words: &[&str]| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -n 300; exec \"$0\" \"$@\""]).arg(crate::host::binary());
        command.arg("--root").arg(host.path("root")).arg("--runroot").arg(host.path("run")).args(words);
        host.run(command.env("CONTAINERS_CONF", "/dev/null"))
    };
    let copy = host.path("copy").display().to_string();
    for words in [&["diff", "c"][..], &["export", "-o", &copy, "c"], &["cp", "c:/x", &copy]] {
        assert_eq!(host.unroot(words).code, 125, "{words:?}");
    }
    few(&["ps", "-as"]).ok();
    few(&["rm", "c"]).ok();
    few(&["volume", "rm", "v"]).ok();
    assert_eq!(fs::read_dir(host.path("root/containers")).unwrap().count(), 0);
}
