//! What a container may not do, and how it cannot get out.

use std::fs;

use crate::host::{Host, IMAGE, is_root};

fn status_of_a_process(host: &Host, flags: &[&str], field: &str) -> String {
    let shown = host.sh(flags, &format!("grep '^{field}:' /proc/self/status")).ok();
    shown.split_whitespace().nth(1).unwrap_or_default().to_string()
}

#[test]
fn capabilities_are_the_default_ones() {
    let host = Host::new();
    let default = u64::from_str_radix(&status_of_a_process(&host, &[], "CapEff"), 16).unwrap();
    assert_eq!(default, 0x0000_0000_8004_25fb & 0x8004_05fb, "{default:x}");
    assert_eq!(status_of_a_process(&host, &["--cap-drop=all"], "CapBnd"), "0000000000000000");
    assert_eq!(status_of_a_process(&host, &["-u", "app"], "CapEff"), "0000000000000000");
    assert_eq!(status_of_a_process(&host, &["-u", "app", "--cap-add=net_raw"], "CapEff"), "0000000000002000");
    assert_eq!(
        status_of_a_process(&host, &["--cap-drop=all", "--cap-add=chown"], "CapEff"),
        "0000000000000001"
    );
    host.sh(&["--cap-add=nosuch"], "true").fails(125, "nosuch");
}

#[test]
fn seccomp_and_no_new_privileges() {
    let host = Host::new();
    assert_eq!(status_of_a_process(&host, &[], "Seccomp"), "2");
    assert_eq!(status_of_a_process(&host, &["--security-opt=seccomp=unconfined"], "Seccomp"), "0");
    assert_eq!(status_of_a_process(&host, &["--security-opt=no-new-privileges"], "NoNewPrivs"), "1");
    assert_ne!(host.sh(&[], "unshare -U true").code, 0, "a new user namespace needs CAP_SYS_ADMIN");
    assert_ne!(host.sh(&["--cap-add=sys_admin", "--security-opt", "seccomp=/nosuch"], "true").code, 0);
}

#[test]
fn proc_and_sys_are_masked() {
    let host = Host::new();
    assert_eq!(host.sh(&[], "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c").ok(), "0");
    assert_ne!(host.sh(&[], "echo 1 >/proc/sys/kernel/panic").code, 0);
    assert_ne!(host.sh(&[], "echo x >/sys/kernel/uevent_helper").code, 0);
    assert_ne!(host.sh(&["--read-only"], "touch /file").code, 0);
    assert_eq!(host.sh(&["--read-only"], "touch /tmp/file && echo ok").ok(), "ok");
    assert_ne!(host.sh(&["--read-only", "--read-only-tmpfs=false"], "touch /tmp/file").code, 0);
    assert_ne!(host.sh(&["--security-opt=mask=/etc"], "test -e /etc/passwd").code, 0);
}

#[test]
fn namespaces_are_its_own() {
    let host = Host::new();
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let ours = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
        let theirs = host.sh(&[], &format!("readlink /proc/self/ns/{kind}")).ok();
        assert_ne!(ours, theirs, "{kind}");
    }
    let user = fs::read_link("/proc/self/ns/user").unwrap().display().to_string();
    assert_eq!(host.sh(&[], "readlink /proc/self/ns/user").ok() == user, is_root());
    assert_eq!(host.sh(&[], "echo $$").ok(), "1");
    let net = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    assert_eq!(
        host.unroot(["run", "--rm", "--network=host", IMAGE, "readlink", "/proc/self/ns/net"]).ok(),
        net
    );
}

/// An image whose directories are links out of its root: a mount on them must stay inside.
#[test]
fn links_in_an_image_do_not_lead_out() {
    let host = Host::new();
    let victim = host.path("victim");
    fs::create_dir(&victim).unwrap();
    let root = host.path("rootfs");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy(
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| fs::metadata(p).is_ok()).unwrap(),
        root.join("bin/sh"),
    )
    .unwrap();
    for name in ["etc", "run", "mnt", "data"] {
        std::os::unix::fs::symlink(format!("../../../../../../../../{}", victim.display()), root.join(name))
            .unwrap();
    }
    let rootfs = format!("{}:O", root.display());
    let volume = format!("{}:/mnt/inner", host.path("root").display());
    let done = host.unroot([
        "run",
        "--rm",
        "--network=none",
        "-v",
        &volume,
        "--tmpfs",
        "/data/x",
        "--rootfs",
        &rootfs,
        "/bin/sh",
        "-c",
        "true",
    ]);
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "something was made outside: {done:?}");
    // what they point to was made inside
    done.ok();
    std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
    let done =
        host.unroot(["run", "--rm", "--network=none", "--tmpfs", "/loop/x", "--rootfs", &rootfs, "/bin/sh"]);
    assert!(done.fails(125, "/loop").contains("symbolic links"));
}

/// The engine's own program cannot be overwritten through /proc (CVE-2019-5736).
#[test]
fn the_engine_cannot_be_overwritten() {
    let host = Host::new();
    let before = fs::read(crate::host::binary()).unwrap();
    let script = "for p in /proc/[0-9]*/exe /proc/self/exe; do (echo broken >$p) 2>/dev/null; done; true";
    host.sh(&[], script).ok();
    host.unroot([
        "run",
        "-d",
        "--name",
        "c",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "while :; do for p in /proc/[0-9]*/exe; do (: >>$p) 2>/dev/null && echo wrote $p; done; done",
    ])
    .ok();
    for _ in 0..20 {
        host.unroot(["exec", "c", "true"]).ok();
        let _ = host.unroot(["exec", "c", "/proc/self/exe", "version"]);
    }
    assert!(fs::read(crate::host::binary()).unwrap() == before, "the engine's program was changed");
}

/// No descriptor of the engine's reaches the container.
#[test]
fn no_descriptor_leaks() {
    let host = Host::new();
    // (3 is the directory that ls reads)
    assert_eq!(
        host.sh(&[], "ls /proc/self/fd").ok().split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sleep", "100"]).ok();
    assert_eq!(
        host.unroot(["exec", "c", "ls", "/proc/self/fd"]).ok().split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
    assert_eq!(
        host.unroot(["exec", "c", "ls", "/proc/1/fd"]).ok().split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2"]
    );
}

/// Nor is one a way out while the process is made (CVE-2024-21626).
#[test]
fn no_descriptor_leads_out() {
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sleep", "100"]).ok();
    let said = [
        "does not exist on container",
        "Not a directory",
        "outside of the container",
        // (of the image, made if it is missing)
        "File exists",
    ];
    let check = |done: crate::host::Done, what: String| {
        assert_eq!((done.code, done.out.as_str()), (126, ""), "{what}: {}", done.err);
        assert!(said.iter().any(|text| done.err.contains(text)), "{what}: {}", done.err);
    };
    for n in 0..24 {
        let dir = format!("/proc/self/fd/{n}");
        check(host.sh(&["-w", &dir], "ls -a"), format!("run {dir}"));
        check(host.unroot(["exec", "-w", &dir, "c", "ls", "-a"]), format!("exec {dir}"));
    }
    let archive = host.path("image.tar");
    for n in 3..16 {
        let change = format!("WORKDIR=/proc/self/fd/{n}");
        host.unroot(["import", "-q", "--change", &change, archive.to_str().unwrap(), "localhost/hostile"])
            .ok();
        let done = host.unroot(["run", "--rm", "--network=none", "localhost/hostile", "ls", "-a"]);
        check(done, change);
    }
    // a directory that is handed on is the user's to give; but the process does not start there
    let script = "exec 3</; exec \"$0\" \"$@\"";
    let mut outside = std::process::Command::new("sh");
    outside.args(["-c", script]).arg(crate::host::binary()).arg("--root").arg(host.path("root"));
    outside.arg("--runroot").arg(host.path("run")).args(["exec", "--preserve-fds=1"]);
    outside.args(["-w", "/proc/self/fd/3", "c", "ls"]);
    check(host.run(&mut outside), "a directory that was handed on".into());
}

/// What the container has at /dev/null is not opened by the engine.
#[test]
fn dev_null_is_the_hosts() {
    let host = Host::new();
    let dev = host.path("dev");
    fs::create_dir(&dev).unwrap();
    fs::write(dev.join("null"), "not what it seems\n").unwrap();
    let volume = format!("{}:/dev", dev.display());
    assert_eq!(host.sh(&["-v", &volume], "cat; echo written >&0; cat /dev/null").ok(), "not what it seems");
    host.unroot(["run", "-d", "--name", "c", "--network=none", "-v", &volume, IMAGE, "sleep", "100"]).ok();
    assert_eq!(host.unroot(["exec", "c", "sh", "-c", "cat; echo end"]).ok(), "end");
}

/// Whoever has the user's terminal could write commands to it (TIOCSTI).
#[test]
fn the_users_terminal_is_not_handed_over() {
    let host = Host::new();
    let run = |driver: &str| {
        let words =
            ["run", "--rm", "--network=none", "--log-driver", driver, IMAGE, "echo", "in the container"];
        let place = [host.path("root"), host.path("run")].map(|p| p.display().to_string());
        let line = format!(
            "{} --root {} --runroot {} {}",
            crate::host::binary().display(),
            place[0],
            place[1],
            words.map(|w| format!("'{w}'")).join(" ")
        );
        let mut script = std::process::Command::new("script");
        host.run(script.args(["-qec", &line, "/dev/null"]).stdin(std::process::Stdio::null()))
    };
    let done = run("passthrough");
    assert_eq!(done.code, 125, "{}", done.out);
    assert!(done.out.contains("cannot be used on a TTY"), "{}", done.out);
    assert!(run("passthrough-tty").ok().contains("in the container"));
}

/// Names, labels and commands are an image's to choose: a terminal does not get them as commands to it.
#[test]
fn images_do_not_command_the_terminal() {
    let host = Host::new();
    let label = "a=\u{1b}]0;title\u{7}\u{9b}31m";
    host.unroot(["create", "--name", "c", "--label", label, IMAGE, "echo", "\u{1b}[31mred\nline"]).ok();
    let table = host.unroot(["ps", "-a", "--format", "table {{.Command}}\t{{.Names}}"]).ok();
    let row = "echo \\u{1b}[31mred lin...";
    assert!(table.lines().count() == 2 && table.contains(row), "{table:?}");
    let labels = ["ps", "-a", "--format", "{{.Label \"a\"}}"];
    assert_eq!(host.unroot(labels).ok(), &label[2..], "a program gets it as it is");
    let place = [host.path("root"), host.path("run")].map(|p| p.display().to_string());
    let program = crate::host::binary();
    let start = format!("{} --root {} --runroot {}", program.display(), place[0], place[1]);
    for line in [
        "ps -a --format '{{.Label \"a\"}}'",
        "ps -a --format '{{.Labels}}'",
        "inspect c",
        "inspect -f '{{.Config.Labels}}' c",
        "inspect -f '{{.Config.Cmd}}' c",
        "start -a c",
        "run --network=none localhost/testimage:latest $(printf '\\033[31mred')",
    ] {
        let mut script = std::process::Command::new("script");
        script.args(["-qc", &format!("{start} {line}"), "/dev/null"]).stdin(std::process::Stdio::null());
        let done = host.run(&mut script);
        let is_output = line.starts_with("start");
        assert_eq!(done.out.contains(['\u{1b}', '\u{9b}', '\u{7}']), is_output, "{line}: {:?}", done.out);
    }
}

/// Kernel settings are written to the kernel, whatever is at /proc.
#[test]
fn settings_go_to_the_kernel() {
    let host = Host::new();
    let fake = host.path("proc/sys/net/ipv4");
    fs::create_dir_all(&fake).unwrap();
    fs::write(fake.join("ip_forward"), "0").unwrap();
    let volume = format!("{}:/proc", host.path("proc").display());
    let flags = ["-v", &volume, "--sysctl", "net.ipv4.ip_forward=1"];
    assert_eq!(host.sh(&flags, "cat /proc/sys/net/ipv4/ip_forward").ok(), "0");
    host.unroot(["run", "--rm", "--network=none", "-v", &format!("{}:/", fake.display()), IMAGE, "true"])
        .fails(125, "invalid container path \"/\"");
}

#[test]
fn privileged_says_what_it_is() {
    let host = Host::new();
    let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own =
        own.lines().find(|l| l.starts_with("CapBnd")).unwrap().split_whitespace().nth(1).unwrap().to_string();
    let all = if is_root() { own } else { format!("{:016x}", (1u64 << (last + 1)) - 1) };
    assert_eq!(status_of_a_process(&host, &["--privileged"], "CapEff"), all);
    assert_eq!(status_of_a_process(&host, &["--privileged"], "Seccomp"), "0");
}
