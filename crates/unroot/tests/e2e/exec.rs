//! A second process in a container.

use std::io::Write as _;

use crate::host::{Host, IMAGE};

fn running() -> Host {
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "c", "--network=none", "-e", "COLOUR=blue", IMAGE, "sleep", "1000"])
        .ok();
    host
}

#[test]
fn it_is_in_the_container() {
    let host = running();
    assert_eq!(host.unroot(["exec", "c", "cat", "/proc/1/comm"]).ok(), "sleep");
    assert_eq!(host.unroot(["exec", "c", "sh", "-c", "echo $COLOUR"]).ok(), "blue");
    assert_eq!(
        host.unroot(["exec", "-e", "COLOUR=red", "-w", "/etc", "c", "sh", "-c", "echo $COLOUR; pwd"]).ok(),
        "red\n/etc"
    );
    assert_eq!(host.unroot(["exec", "-u", "app", "c", "id", "-un"]).ok(), "app");
    let hostname = host.unroot(["exec", "c", "hostname"]).ok();
    assert!(host.unroot(["inspect", "--format", "{{.Id}}", "c"]).ok().starts_with(&hostname));
}

#[test]
fn exit_codes() {
    let host = running();
    assert_eq!(host.unroot(["exec", "c", "sh", "-c", "exit 7"]).code, 7);
    host.unroot(["exec", "c", "/nothing-here"]).fails(127, "/nothing-here");
    host.unroot(["exec", "c", "/etc/not-executable"]).fails(126, "/etc/not-executable");
    host.unroot(["exec", "c", "/etc"]).fails(126, "/etc");
    host.unroot(["exec", "nosuch", "true"]).fails(125, "no such container");
    host.unroot(["exec", "-u", "nosuch", "c", "true"]).fails(126, "unable to find user nosuch");
}

#[test]
fn input_and_output() {
    let host = running();
    assert_eq!(host.unroot_with_input(["exec", "-i", "c", "cat"], b"through\n").ok(), "through");
    let done = host.unroot(["exec", "c", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("out\n", "err\n"));
}

#[test]
fn detached() {
    let host = running();
    host.unroot(["exec", "-d", "c", "sh", "-c", "sleep 0.1; echo done >/tmp/mark"]).ok();
    for _ in 0..100 {
        if host.unroot(["exec", "c", "cat", "/tmp/mark"]).out == "done\n" {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("the detached command left no mark");
}

#[test]
fn it_has_no_more_rights_than_the_container() {
    let host = running();
    let facts = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status";
    let init = host
        .unroot(["exec", "c", "sh", "-c", "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/1/status"])
        .ok();
    assert_eq!(host.unroot(["exec", "c", "sh", "-c", facts]).ok(), init);
}

#[test]
fn it_has_the_containers_resource_limits() {
    let host = Host::new();
    let run =
        ["run", "-d", "--name", "c", "--network=none", "--ulimit=fsize=4096:8192", IMAGE, "sleep", "1000"];
    host.unroot(run).ok();
    let of = |process: &str| {
        let mut exec = std::process::Command::new("sh");
        exec.args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\""]).arg(crate::host::binary());
        exec.arg("--root").arg(host.path("root")).arg("--runroot").arg(host.path("run"));
        exec.args(["exec", "c", "cat", &format!("/proc/{process}/limits")])
            .env("CONTAINERS_CONF", "/dev/null");
        host.run(&mut exec).ok()
    };
    assert_eq!(of("self"), of("1"));
}

/// To the kernel the id -1 says "as it is", which would be root.
#[test]
fn ids_that_are_none() {
    let host = running();
    for user in ["4294967295", "0:4294967295", "5:4294967295"] {
        host.unroot(["exec", "-u", user, "c", "id"])
            .fails(126, "4294967295 of the container has no id on the host");
        host.sh(&["-u", user], "id").fails(126, "4294967295 of the container has no id on the host");
    }
    if !crate::host::is_root() {
        host.unroot(["exec", "-u", "99999999", "c", "id"]).fails(126, "usermod --add-subuids");
    }
}

#[test]
fn not_in_a_stopped_container() {
    let host = running();
    host.unroot(["stop", "-t", "0", "c"]).ok();
    host.unroot(["exec", "c", "true"]).fails(125, "container state improper");
}

/// A command on a terminal, which is typed into.
fn on_terminal(host: &Host, command: &str) -> std::process::Child {
    let line = format!(
        "{} --root {} --runroot {} {command}",
        crate::host::binary().display(),
        host.path("root").display(),
        host.path("run").display()
    );
    let mut script = std::process::Command::new("script");
    let pipe = std::process::Stdio::piped;
    script.args(["-qec", &line, "/dev/null"]).stdin(pipe()).stdout(pipe()).spawn().unwrap()
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    for _ in 0..200 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("waited in vain: {what}");
}

#[test]
fn a_session_goes_on_when_its_user_detaches() {
    let host = running();
    let marked = |mark: &str| host.unroot(["exec", "c", "test", "-e", &format!("/tmp/{mark}")]).code == 0;
    let mut session = on_terminal(&host, "exec -it c sh");
    let typed = session.stdin.as_mut().unwrap();
    writeln!(typed, "tty >/tmp/first; sleep 2; echo after >&2; touch /tmp/second; sleep 1000").unwrap();
    wait_for("the first mark", || marked("first"));
    assert_eq!(host.unroot(["inspect", "-f", "{{len .ExecIDs}}", "c"]).ok(), "1");
    session.stdin.as_mut().unwrap().write_all(b"\x10\x11").unwrap();
    let status = session.wait().unwrap();
    assert_eq!(status.code(), Some(0), "detached");
    assert!(!marked("second"), "it detached at once");
    wait_for("the second mark", || marked("second"));
    assert!(host.unroot(["exec", "c", "cat", "/tmp/first"]).ok().starts_with("/dev/pts/"));
    host.unroot(["rm", "-f", "-t", "0", "c"]).ok();
}

#[test]
fn a_session_on_a_terminal_outlives_its_command() {
    let host = running();
    let marked = |mark: &str| host.unroot(["exec", "c", "test", "-e", &format!("/tmp/{mark}")]).code == 0;
    let mut session = on_terminal(&host, "exec -it c sh");
    let typed = session.stdin.as_mut().unwrap();
    writeln!(typed, "touch /tmp/first; sleep 2; touch /tmp/second; exit 5").unwrap();
    wait_for("the first mark", || marked("first"));
    session.kill().unwrap();
    session.wait().unwrap();
    wait_for("the second mark", || marked("second"));
    wait_for("the session's end", || host.unroot(["inspect", "-f", "{{len .ExecIDs}}", "c"]).ok() == "0");
    // one that ends as its user sees it has its exit code
    let mut session = on_terminal(&host, "exec -it c sh");
    writeln!(session.stdin.as_mut().unwrap(), "stty size; exit 7").unwrap();
    assert_eq!(session.wait().unwrap().code(), Some(7));
}

/// The container's variables are those of its commands, too, whatever they came of.
#[test]
fn the_environment_of_the_container() {
    let host = Host::new();
    let mut run =
        host.command(["run", "-d", "--name", "c", "--network=none", "--env-host", "-e", "HOME=/own"]);
    run.args(["-e", "GIVEN=yes", "--unsetenv", "GONE", IMAGE, "sleep", "1000"]);
    host.run(run.env("FROM_HOST", "x").env("GONE", "y")).ok();
    let own = host.unroot(["exec", "c", "sh", "-c", "tr '\\0' '\\n' </proc/1/environ"]).ok();
    let inside = host.unroot(["exec", "c", "env"]).ok();
    let shown = host.unroot(["inspect", "--format", "{{range .Config.Env}}{{println .}}{{end}}", "c"]).ok();
    for all in [own, inside, shown] {
        for line in ["FROM_HOST=x", "HOME=/own", "GIVEN=yes"] {
            assert!(all.lines().any(|l| l == line), "{line} is not in: {all}");
        }
        assert!(!all.contains("GONE="), "{all}");
    }
    assert_eq!(host.unroot(["exec", "-e", "HOME=/other", "c", "sh", "-c", "echo $HOME"]).ok(), "/other");
}
