//! `--runtime`: crun makes the same container of the same spec.

use std::path::Path;

use crate::host::{Host, IMAGE};

fn crun() -> &'static str {
    let found = ["/usr/bin/crun", "/usr/local/bin/crun", "/usr/sbin/crun"]
        .into_iter()
        .find(|p| Path::new(p).exists());
    found.expect("crun is there: scripts/dependencies test installs it")
}

/// What a container sees of itself.
const SEEN: &str = "id; grep -E '^(Cap|NoNew|Seccomp:|Groups)' /proc/self/status; umask; pwd; ulimit -n; \
    cat /proc/self/uid_map /proc/self/gid_map; ls /dev | grep -vE '^(ptmx|console)$'; cat /etc/hosts | wc -l; env | sort | grep -v HOSTNAME; \
    (echo x > /proc/sys/kernel/panic) 2>/dev/null || echo sealed; cat /proc/kcore 2>/dev/null | wc -c; \
    awk '{print $5}' /proc/self/mountinfo | grep -vE '^/(proc|sys|dev)/' | sort -u";

#[test]
fn the_same_container() {
    let host = Host::new();
    let flags: [&[&str]; 4] = [
        &[],
        &["-u", "app", "-w", "/tmp", "--umask=077"],
        &["--cap-drop=all", "--security-opt=no-new-privileges", "--read-only"],
        &["--tmpfs=/scratch", "--ulimit=nofile=50:60", "--init", "--group-add=5"],
    ];
    for flags in flags {
        let external = ["--runtime", crun()].iter().chain(flags).copied().collect::<Vec<_>>();
        assert_eq!(host.sh(&external, SEEN).ok(), host.sh(flags, SEEN).ok(), "{flags:?}");
    }
}

#[test]
fn its_life_is_ours() {
    let host = Host::new();
    let run = |args: &[&str]| {
        let all = ["--runtime", crun(), "run", "--network=none"];
        host.unroot(all.iter().chain(args))
    };
    assert_eq!(run(&["--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7"]).code, 7);
    run(&["--rm", IMAGE, "/nosuch"]).fails(127, "/nosuch");
    run(&["--rm", IMAGE, "/etc"]).fails(126, "crun");
    assert!(run(&["--rm", "-t", IMAGE, "tty"]).ok().starts_with("/dev/"));
    run(&["-d", "--name", "c", IMAGE, "sh", "-c", "echo said; sleep 1000; exit"]).ok();
    assert_eq!(host.unroot(["inspect", "--format", "{{.OCIRuntime}}", "c"]).ok(), crun());
    assert_eq!(host.unroot(["exec", "c", "cat", "/proc/1/comm"]).ok(), "sh");
    assert_eq!(host.unroot(["logs", "c"]).ok(), "said");
    assert_eq!(host.unroot(["--runtime", crun(), "info", "-f", "{{.Host.OCIRuntime.Path}}"]).ok(), crun());
    let line = format!(
        "exec {} --root {} --runroot {} --runtime {} run --rm --network=none --preserve-fds=1 {IMAGE} true 3</dev/null",
        crate::host::binary().display(),
        host.path("root").display(),
        host.path("run").display(),
        crun()
    );
    let mut shell = std::process::Command::new("sh");
    host.run(shell.args(["-c", &line])).fails(125, "descriptors are not handed on");
    host.unroot(["stop", "-t", "0", "c"]).ok();
    host.unroot(["start", "c"]).ok();
    host.unroot(["rm", "-f", "-t", "0", "c"]).ok();
    host.unroot(["--runtime", "nosuchruntime", "run", IMAGE]).fails(125, "nosuchruntime");
    host.unroot(["--runtime", crun(), "--runtime-flag", "nosuchflag", "run", IMAGE]).fails(126, "nosuchflag");
    host.unroot(["--runtime-flag", "nosuchflag", "run", IMAGE]).fails(126, "nosuchflag");
}
