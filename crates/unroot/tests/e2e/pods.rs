//! Pods: containers that share a network and more, through the life of both.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::host::{Host, IMAGE, is_root};

/// A namespace of a container's first process.
pub fn namespace(host: &Host, container: &str, kind: &str) -> String {
    host.unroot(["exec", container, "readlink", &format!("/proc/self/ns/{kind}")]).ok()
}

/// What a pod is doing.
pub fn status(host: &Host, pod: &str) -> String {
    host.unroot(["pod", "inspect", "-f", "{{.State}}", pod]).ok()
}

/// Waits until it does this.
pub fn becomes(host: &Host, pod: &str, wanted: &str) {
    let begun = Instant::now();
    while status(host, pod) != wanted {
        assert!(begun.elapsed() < Duration::from_secs(10), "{pod} is {}, not {wanted}", status(host, pod));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A pod's infra container.
pub fn infra(host: &Host, pod: &str) -> String {
    host.unroot(["pod", "inspect", "-f", "{{.InfraContainerID}}", pod]).ok()
}

/// Starts a container that waits and can be asked to end.
pub fn run(host: &Host, pod: &str, name: &str) -> String {
    let waits = "trap exit TERM; while :; do sleep 0.05; done";
    host.unroot(["run", "-d", "--pod", pod, "--name", name, IMAGE, "sh", "-c", waits]).ok()
}

#[test]
fn a_sidecar_shares_network_ipc_and_host_name() {
    let host = Host::new();
    host.unroot(["pod", "create", "--network=none", "-v", "files:/files", "--add-host", "db:10.0.0.7", "p"])
        .ok();
    assert_eq!(status(&host, "p"), "Created");
    run(&host, "p", "app");
    run(&host, "p", "sidecar");
    for kind in ["net", "ipc", "uts", "user"] {
        assert_eq!(namespace(&host, "app", kind), namespace(&host, "sidecar", kind), "{kind}");
    }
    for kind in ["pid", "mnt"] {
        assert_ne!(namespace(&host, "app", kind), namespace(&host, "sidecar", kind), "{kind}");
    }
    let sh = |name: &str, script: &str| host.unroot(["exec", name, "sh", "-c", script]).ok();
    // they talk by the loopback, shared memory, a volume of the pod's
    sh("app", "nc -l -p 80 > /tmp/heard & sleep 0.2; echo $! >/dev/null");
    sh("sidecar", "echo by loopback | nc 127.0.0.1 80; echo in memory > /dev/shm/f; echo on disk > /files/f");
    assert_eq!(sh("app", "cat /tmp/heard /dev/shm/f /files/f"), "by loopback\nin memory\non disk");
    assert_eq!(
        sh("sidecar", "hostname; cat /etc/hostname; echo $HOSTNAME; grep -c 10.0.0.7 /etc/hosts"),
        "p\np\np\n1"
    );
    // an exec of a third, and of one with a host name of its own
    let own = ["run", "--rm", "--pod", "p", "--uts=private", "--hostname=own", IMAGE, "hostname"];
    assert_eq!(host.unroot(own).ok(), "own");
    assert_eq!(status(&host, "p"), "Running");
    host.unroot(["pod", "rm", "p"]).fails(125, "not all containers could be removed from pod");
    host.unroot(["pod", "rm", "-f", "p"]).ok();
    assert_eq!(host.unroot(["ps", "-aq"]).ok() + &host.unroot(["pod", "ps", "-q"]).ok(), "");
    assert_eq!(host.unroot(["volume", "ls", "-q"]).ok(), "files");
}

#[test]
fn the_life_of_a_pod() {
    let host = Host::new();
    let id = host.unroot(["pod", "create", "--network=none", "--name", "p", "--label", "k=v"]).ok();
    for name in ["a", "b"] {
        host.unroot([
            "create",
            "--pod",
            "p",
            "--name",
            name,
            IMAGE,
            "sh",
            "-c",
            "trap exit TERM; while :; do sleep 0.05; done",
        ])
        .ok();
    }
    assert_eq!(host.unroot(["pod", "start", "p"]).ok(), "p");
    assert_eq!(status(&host, "p"), "Running");
    let before = namespace(&host, "a", "net");
    assert_eq!(host.unroot(["pod", "restart", "p"]).ok(), id);
    assert_eq!(namespace(&host, "a", "net"), namespace(&host, "b", "net"));
    assert_ne!(namespace(&host, "a", "net"), before);
    assert_eq!(host.unroot(["pod", "kill", "-s", "0", "p"]).code, 125);
    assert_eq!(host.unroot(["stop", "-t", "5", "a"]).ok(), "a");
    assert_eq!(status(&host, "p"), "Degraded");
    assert_eq!(host.unroot(["pod", "stop", &id[..8]]).ok(), "p");
    assert_eq!(status(&host, "p"), "Exited");
    // a container brings along what it needs, and what was up stays up
    host.unroot(["start", "a"]).ok();
    assert_eq!(
        host.unroot(["pod", "ps", "--ctr-status", "--noheading", "--format", "{{.ContainerStatuses}}"]).ok(),
        "running,running,exited"
    );
    assert_eq!(host.unroot(["pod", "kill", "p"]).ok(), id);
    becomes(&host, "p", "Exited");
    assert_eq!(host.unroot(["pod", "prune", "-f"]).ok(), id);
    host.unroot(["pod", "exists", "p"]).fails(1, "");
    host.unroot(["pod", "rm", "p"]).fails(1, "no such pod");
    host.unroot(["pod", "rm", "-f", "p"]).ok();
    host.unroot(["pod", "start", "p"]).fails(125, "no such pod");
    let events =
        host.unroot(["events", "--stream=false", "--filter", "type=pod", "--format", "{{.Status}}"]).ok();
    assert_eq!(
        events.lines().collect::<Vec<_>>(),
        ["create", "start", "start", "restart", "stop", "kill", "remove"]
    );
    let of_containers = host
        .unroot([
            "events",
            "--stream=false",
            "--filter",
            "event=start",
            "--filter",
            &format!("pod={id}"),
            "--format",
            "{{.PodID}}",
        ])
        .ok();
    assert!(of_containers.lines().filter(|l| *l == id).count() >= 8, "{of_containers}");
}

#[test]
fn pause_freezes_all() {
    let host = Host::new();
    host.unroot(["pod", "create", "--network=none", "p"]).ok();
    run(&host, "p", "a");
    if !is_root() {
        host.unroot(["pod", "pause", "p"]).fails(125, "has no control group of its own");
        return;
    }
    host.unroot(["pod", "pause", "p"]).ok();
    assert_eq!(status(&host, "p"), "Paused");
    host.unroot(["unpause", "a"]).ok();
    assert_eq!(status(&host, "p"), "Degraded");
    host.unroot(["pod", "unpause", "p"]).ok();
    assert_eq!(status(&host, "p"), "Running");
    assert_eq!(host.unroot(["pod", "unpause", "p"]).ok(), "");
}

#[test]
fn the_control_group_is_the_pods() {
    let host = Host::new();
    host.unroot(["pod", "create", "--network=none", "--memory=64m", "limited"]).ok();
    host.unroot(["run", "--rm", "--pod", "limited", IMAGE, "true"])
        .fails(125, "memory.max=67108864 cannot be applied");
    assert_eq!(status(&host, "limited"), "Created");
    host.unroot(["pod", "create", "--network=none", "p"]).ok();
    run(&host, "p", "a");
    let path = host.unroot(["pod", "inspect", "-f", "{{.CgroupPath}}", "p"]).ok();
    if !is_root() {
        assert_eq!(path, "");
        return;
    }
    let group = std::path::PathBuf::from(format!("/sys/fs/cgroup{path}"));
    let own = host.unroot(["inspect", "-f", "{{.State.CgroupPath}}", "a"]).ok();
    assert_eq!(std::path::Path::new(&own).parent(), Some(&*group));
    host.unroot(["run", "--pod", "p", "--cgroup-parent=/x", IMAGE, "true"])
        .fails(125, "--cgroup-parent cannot be used in pod p");
    host.unroot(["run", "--pod", "p", "--cgroups=disabled", IMAGE, "true"])
        .fails(125, "--cgroups=disabled cannot be used in pod p");
    host.unroot(["stop", "-t0", "a"]).ok();
    assert!(group.exists());
    host.unroot(["pod", "stop", "p"]).ok();
    assert!(!group.exists(), "{} is left", group.display());
    host.unroot(["pod", "start", "p"]).ok();
    assert!(group.exists());
}

#[test]
fn published_ports_are_the_pods() {
    let host = Host::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let publish = format!("127.0.0.1:{port}:8080");
    host.unroot(["pod", "create", "-p", &publish, "--dns=192.0.2.53", "p"]).ok();
    host.unroot([
        "run",
        "-d",
        "--pod",
        "p",
        "--name",
        "a",
        IMAGE,
        "sh",
        "-c",
        "while :; do echo answer | nc -l -p 8080; done",
    ])
    .ok();
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(b"hello\n").ok()?;
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        (!text.is_empty()).then_some(text)
    };
    let answer = (0..100).find_map(|_| {
        std::thread::sleep(Duration::from_millis(30));
        ask()
    });
    assert_eq!(answer.as_deref(), Some("answer\n"));
    assert_eq!(host.unroot(["exec", "a", "cat", "/etc/resolv.conf"]).ok(), "nameserver 192.0.2.53");
    // and are shown with each of its containers
    let shown = host.unroot(["ps", "--format", "{{.Ports}}"]).ok();
    let port_of_both = format!("127.0.0.1:{port}->8080/tcp\n127.0.0.1:{port}->8080/tcp");
    assert_eq!(shown, port_of_both);
    host.unroot(["run", "--pod", "p", "-p", "1:1", IMAGE, "true"])
        .fails(125, "ports must be defined when the pod is created");
    host.unroot(["run", "--pod", "p", "--add-host", "x:1.1.1.1", IMAGE, "true"])
        .fails(125, "network cannot be configured when it is shared with a pod");
    host.unroot(["pod", "stop", "-t0", "p"]).ok();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the port is still open");
}

#[test]
fn what_a_pod_cannot_do_is_refused() {
    let host = Host::new();
    let create = |flags: &[&str]| host.unroot(["pod", "create"].iter().chain(flags));
    create(&["--infra=false", "-p", "80:80"]).fails(125, "you must have an infra container");
    create(&["--infra=false", "--dns", "1.1.1.1"]).fails(125, "cannot set --dns without an infra container");
    create(&["--share=none", "--userns=keep-id"])
        .fails(125, "cannot set --userns without an infra container");
    create(&["--share=bogus"]).fails(125, "invalid kernel namespace to share: bogus");
    create(&["--share=+cgroup"]).fails(125, "--share-parent=false");
    create(&["--infra-command=/x"]).fails(125, "--infra-image names an image");
    create(&["--exit-policy=x"]).fails(125, "invalid pod exit policy: \"x\"");
    create(&["--network=nosuch"]).fails(125, "network not found");
    create(&["--mac-address=92:d0:c6:0a:29:33"]).fails(125, "unknown flag: --mac-address");
    create(&["--infra-image=localhost/nosuch:1"]).fails(125, "localhost/nosuch:1");
    assert_eq!(host.unroot(["pod", "ps", "-q"]).ok() + &host.unroot(["ps", "-aq"]).ok(), "");
    // a name is a pod's or a container's
    create(&["--network=none", "p"]).ok();
    create(&["p"]).fails(125, "is in use: pod already exists");
    host.unroot(["create", "--name", "p", IMAGE]).fails(125, "already in use");
    host.unroot(["create", "--name", "c", IMAGE]).ok();
    create(&["c"]).fails(125, "is in use");
    let other = infra(&host, "p");
    create(&["--infra-name", &other[..12], "--network=none", "q"]).ok();
    host.unroot(["run", "--pod", "nosuch", IMAGE, "true"]).fails(125, "no such pod");
    host.unroot(["run", "--pod", "p", "--hostname=x", IMAGE, "true"])
        .fails(125, "cannot set hostname when joining the pod UTS namespace");
    // the infra container goes with its pod alone
    for flags in [&["rm"][..], &["rm", "-f"]] {
        host.unroot(flags.iter().chain(&[other.as_str()]))
            .fails(125, "cannot be removed without removing the pod");
    }
    host.unroot(["container", "prune", "-f"]).ok();
    assert_eq!(host.unroot(["pod", "ps", "--format", "{{.NumberOfContainers}}"]).ok(), "1\n1");
    host.unroot(["rm", "--depend", &other]).ok();
    host.unroot(["pod", "exists", "p"]).fails(1, "");
}

#[test]
fn a_pod_of_ones_own() {
    let host = Host::new();
    host.unroot(["run", "-d", "--network=none", "--pod", "new:fresh", "--name", "a", IMAGE, "sleep", "100"])
        .ok();
    assert_eq!(host.unroot(["exec", "a", "hostname"]).ok(), "fresh");
    assert_eq!(
        host.unroot([
            "ps",
            "--pod",
            "--filter",
            "pod=fresh",
            "--filter",
            "name=^a$",
            "--format",
            "{{.Names}} {{.PodName}}"
        ])
        .ok(),
        "a fresh"
    );
    host.unroot(["run", "--rm", "--pod", "new:fresh", IMAGE, "true"]).fails(125, "is in use");
    host.unroot(["create", "--pod", "new:other", "localhost/nosuch:1"]).fails(125, "nosuch");
    host.unroot(["pod", "exists", "other"]).fails(1, "");
    // by a file
    let file = host.path("id");
    let file = file.to_str().unwrap();
    let id =
        host.unroot(["pod", "create", "--network=none", "--pod-id-file", file, "--infra-name", "i"]).ok();
    assert_eq!(std::fs::read_to_string(file).unwrap(), id);
    host.unroot(["create", "--pod-id-file", file, "--name", "c", IMAGE, "true"]).ok();
    assert_eq!(host.unroot(["inspect", "-f", "{{.Pod}}", "c"]).ok(), id);
    host.unroot(["pod", "start", "--pod-id-file", file]).ok();
    host.unroot(["pod", "rm", "-f", "--pod-id-file", file]).ok();
    assert!(!std::path::Path::new(file).exists());
}

#[test]
fn exit_and_restart_policies() {
    let host = Host::new();
    for (policy, status) in [("continue", "Degraded"), ("stop", "Exited")] {
        host.unroot(["pod", "create", "--network=none", "--exit-policy", policy, policy]).ok();
        host.unroot(["run", "--pod", policy, IMAGE, "true"]).ok();
        becomes(&host, policy, status);
    }
    host.unroot(["pod", "create", "--network=none", "--restart=on-failure:2", "r"]).ok();
    host.unroot(["run", "-d", "--pod", "r", "--name", "fails", IMAGE, "sh", "-c", "exit 3"]).ok();
    host.unroot(["create", "--pod", "r", "--restart=no", "--name", "own", IMAGE, "true"]).ok();
    let policy = |name: &str| host.unroot(["inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", name]).ok();
    assert_eq!((policy("fails"), policy("own")), ("on-failure".into(), "no".into()));
    host.unroot(["wait", "--condition=exited", "fails"]).ok();
    let begun = Instant::now();
    while host.unroot(["inspect", "-f", "{{.RestartCount}}", "fails"]).ok() != "2" {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_pod_like_another() {
    let host = Host::new();
    host.unroot(["pod", "create", "--network=none", "--label", "a=1", "-v", "/etc:/host:ro", "p"]).ok();
    run(&host, "p", "c");
    host.unroot(["pod", "clone", "--start", "p"]).ok();
    assert_eq!(status(&host, "p-clone"), "Running");
    assert_eq!(
        host.unroot(["exec", "c-clone", "sh", "-c", "hostname; ls /host/passwd"]).ok(),
        "p-clone\n/host/passwd"
    );
    assert_ne!(namespace(&host, "c", "net"), namespace(&host, "c-clone", "net"));
    assert_eq!(
        host.unroot(["pod", "ps", "--filter", "label=a=1", "--sort=name", "--format", "{{.Name}}"]).ok(),
        "p\np-clone"
    );
    host.unroot(["pod", "clone", "--destroy", "--label", "b=2", "p", "q"]).ok();
    assert_eq!(
        host.unroot([
            "pod",
            "ps",
            "--filter",
            "label=b=2",
            "--format",
            "{{.Name}} {{.Status}} {{.NumberOfContainers}}"
        ])
        .ok(),
        "q Created 2"
    );
    host.unroot(["pod", "exists", "p"]).fails(1, "");
}

#[test]
fn logs_tops_and_filters() {
    let host = Host::new();
    host.unroot(["pod", "create", "--network=none", "p"]).ok();
    host.unroot(["run", "--pod", "p", "--name", "a", IMAGE, "echo", "from a"]).ok();
    host.unroot(["run", "--pod", "p", "--name", "b", IMAGE, "echo", "from b"]).ok();
    let logs = host.unroot(["pod", "logs", "-n", "p"]).ok();
    assert_eq!(logs, "a from a\nb from b");
    assert_eq!(host.unroot(["pod", "logs", "-c", "b", "p"]).ok(), "from b");
    host.unroot(["pod", "logs", "-c", "x", "p"]).fails(125, "is not in pod p");
    run(&host, "p", "c");
    let top = host.unroot(["pod", "top", "p", "comm"]).ok();
    assert!(top.lines().any(|l| l == "unroot-init") && top.lines().any(|l| l == "sh"), "{top}");
    let names = |filter: &str| host.unroot(["pod", "ps", "--filter", filter, "--format", "{{.Name}}"]).ok();
    let id = infra(&host, "p");
    for filter in [
        "name=p",
        "status=degraded",
        "ctr-names=^c$",
        "ctr-number=4",
        "ctr-status=exited",
        &format!("ctr-ids={}", &id[..6]),
    ] {
        assert_eq!(names(filter), "p", "{filter}");
    }
    for filter in
        ["name=x", "status=running", "ctr-names=zzz", "ctr-number=3", "ctr-status=paused", "label=x"]
    {
        assert_eq!(names(filter), "", "{filter}");
    }
    host.unroot(["pod", "ps", "--filter", "status=x"]).fails(125, "x is not a valid pod status");
    host.unroot(["pod", "ps", "--filter", "x=y"]).fails(125, "x is an invalid filter");
    assert_eq!(host.unroot(["ps", "-a", "--filter", "pod=p", "-q"]).ok().lines().count(), 4);
    assert_eq!(
        host.unroot(["inspect", "--type=pod", "-f", "{{.SharedNamespaces}}", "p"]).ok(),
        "[ipc net uts]"
    );
}
