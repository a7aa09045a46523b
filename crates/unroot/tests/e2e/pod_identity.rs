//! Who is root in a pod: its containers are in one user namespace, and none has more than the pod.

use std::fs;

use crate::host::{Host, IMAGE, is_root, uid};
use crate::pods::{infra, namespace, run};

fn own_map() -> &'static str {
    if is_root() { "--uidmap=0:100000:5000" } else { "--userns=keep-id" }
}

#[test]
fn all_are_in_the_user_namespace_of_the_pod() {
    let host = Host::new();
    host.unroot(["pod", "create", "--network=none", own_map(), "--name", "p"]).ok();
    run(&host, "p", "a");
    let map = |command: &[&str]| host.unroot(command.iter().chain(&["cat", "/proc/self/uid_map"])).ok();
    let expected = map(&["exec", "a"]);
    assert_eq!(map(&["run", "--rm", "--pod", "p", IMAGE]), expected);
    assert_eq!(
        namespace(&host, "a", "user"),
        host.unroot(["run", "--rm", "--pod", "p", IMAGE, "readlink", "/proc/self/ns/user"]).ok()
    );
    let who = host.unroot(["run", "--rm", "--pod", "p", IMAGE, "id", "-u"]).ok();
    assert_eq!(who, if is_root() { "0".into() } else { uid().to_string() });
    // what is told is what is
    let shared = host.unroot(["pod", "inspect", "-f", "{{.SharedNamespaces}}", "p"]).ok();
    assert_eq!(shared, "[ipc net user uts]");
    let pid = host.unroot(["inspect", "-f", "{{.State.Pid}}", "a"]).ok();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let host_uid =
        status.lines().find_map(|l| l.strip_prefix("Uid:")).unwrap().split_whitespace().next().unwrap();
    assert_eq!(host.unroot(["inspect", "-f", "{{.HostUid}}", "a"]).ok(), host_uid);
    assert_eq!(host_uid, if is_root() { "100000".into() } else { uid().to_string() });
    for flags in [
        &["--userns=host"][..],
        &["--userns=nomap"],
        &["--uidmap=0:1:10"],
        &["--privileged", "--userns=auto"],
    ] {
        let done = host.unroot(["run", "--rm", "--pod", "p"].iter().chain(flags).chain(&[IMAGE, "true"]));
        done.fails(125, "cannot set user namespace mode when joining pod with infra container");
    }
}

#[test]
fn a_shared_pid_namespace_has_no_strangers() {
    let host = Host::new();
    host.unroot(["pod", "create", "--network=none", "--share=+pid", own_map(), "--name", "p"]).ok();
    run(&host, "p", "a");
    run(&host, "p", "b");
    // each is known by the number that the host has for it
    for name in ["a", "b"] {
        let pid = host.unroot(["inspect", "-f", "{{.State.Pid}}", name]).ok();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let inside = status.lines().find_map(|l| l.strip_prefix("NSpid:")).unwrap();
        assert_eq!(inside.split_whitespace().next(), Some(pid.as_str()), "{inside}");
        assert!(inside.split_whitespace().count() > 1, "{inside}");
    }
    let seen = host.unroot(["exec", "a", "sh", "-c", "cat /proc/[0-9]*/comm | sort -u"]).ok();
    assert!(seen.lines().all(|l| ["unroot-init", "sh", "sleep", "cat", "sort"].contains(&l)), "{seen}");
    // `top` shows each process once, and who it is by its own container's names
    let top = host.unroot(["pod", "top", "p", "hpid", "user", "comm"]).ok();
    let pids: Vec<&str> = top.lines().skip(1).filter_map(|l| l.split_whitespace().next()).collect();
    let mut unique = pids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), pids.len(), "{top}");
    assert!(pids.len() >= 3 && pids.len() < 12, "{top}");
    // the infra container reaps what the others leave
    host.unroot(["exec", "a", "sh", "-c", "(sleep 0.1 &) & exit 0"]).ok();
    std::thread::sleep(std::time::Duration::from_millis(400));
    let zombies =
        host.unroot(["exec", "a", "sh", "-c", "grep -l 'State:.Z' /proc/[0-9]*/status | wc -l"]).ok();
    assert_eq!(zombies, "0");
    host.unroot(["pod", "rm", "-f", "-t", "1", "p"]).ok();
}

/// Also without a pod: a network helper of a container is not seen in the pid namespace that it joins.
#[test]
fn a_helper_is_in_no_containers_pid_namespace() {
    let host = Host::new();
    host.unroot(["run", "-d", "--network=none", "--name", "a", IMAGE, "sleep", "100"]).ok();
    let ps = ["run", "--rm", "--pid=container:a", IMAGE, "sh", "-c", "cat /proc/[0-9]*/comm | sort -u"];
    let seen = host.unroot(ps).ok();
    assert!(!seen.contains("pas"), "{seen}");
    assert!(seen.contains("sleep"), "{seen}");
}

#[test]
fn the_infra_container_can_do_nothing() {
    let host = Host::new();
    host.unroot(["pod", "create", "--network=none", "--security-opt=no-new-privileges", "--name", "p"]).ok();
    run(&host, "p", "a");
    let pid = host.unroot(["inspect", "-f", "{{.State.Pid}}", &infra(&host, "p")]).ok();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.lines().any(|l| l == format!("{set}:\t0000000000000000")), "{set}: {status}");
    }
    // a member cannot loosen what the pod has tightened
    for flags in
        [&[][..], &["--security-opt=no-new-privileges:false"], &["--security-opt=seccomp=unconfined"]]
    {
        let done = host.unroot(["run", "--rm", "--pod", "p"].iter().chain(flags).chain(&[
            IMAGE,
            "grep",
            "NoNewPrivs",
            "/proc/self/status",
        ]));
        assert_eq!(done.ok(), "NoNewPrivs:\t1");
    }
    // it is told as what it is
    let shown = host.unroot(["inspect", "-f", "{{.IsInfra}} {{.Image}} {{.Pod}}", &infra(&host, "p")]).ok();
    let id = host.unroot(["pod", "inspect", "-f", "{{.Id}}", "p"]).ok();
    assert_eq!(shown, format!("true  {id}"));
    let whois = host.unroot(["whois", "a"]).ok();
    assert!(whois.contains("pod p"), "{whois}");
    let explained = host.unroot(["explain", "a"]).ok();
    assert!(explained.contains("pod p"), "{explained}");
}

/// Where the store's filesystem is shared with other mount namespaces, what is mounted in a container is not seen there.
#[test]
fn nothing_is_mounted_on_the_host() {
    let host = Host::new();
    host.unroot(["pod", "create", "--network=none", own_map(), "--name", "p"]).ok();
    let script = r#"
        mount --bind "$0" "$0" && mount --make-shared "$0" && mount --bind "$0/run" "$0/run" || exit 9
        "$@" run --rm --network=none --pod p localhost/testimage:latest true || exit 8
        grep -c /containers/ /proc/self/mountinfo
        "$@" pod rm -f p"#;
    let base = host.path("root").parent().unwrap().to_path_buf();
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(&base);
    let unroot = host.command([""; 0]);
    command.arg(unroot.get_program()).args(unroot.get_args()).env("CONTAINERS_CONF", "/dev/null");
    if !is_root() {
        // (an ordinary user has no mount of its own to share)
        host.unroot(["pod", "rm", "p"]).ok();
        return;
    }
    let done = host.run(&mut command);
    assert!(done.out.starts_with("0\n"), "{} {} {}", done.code, done.out, done.err);
    assert_eq!(done.code, 0, "{}", done.err);
}
