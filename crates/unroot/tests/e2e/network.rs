//! Networks through pasta, and none.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::host::{Host, IMAGE};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn ask(port: u16) -> Option<String> {
    for _ in 0..100 {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            stream.write_all(b"hello\n").ok()?;
            let mut answer = String::new();
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.read_to_string(&mut answer);
            if !answer.is_empty() {
                return Some(answer);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

#[test]
fn none_has_loopback_alone() {
    let host = Host::new();
    assert_eq!(host.sh(&[], "ls /sys/class/net; cat /sys/class/net/lo/operstate").ok(), "lo\nunknown");
}

#[test]
fn a_published_port_answers() {
    let host = Host::new();
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:8080");
    host.unroot([
        "run",
        "-d",
        "--name",
        "c",
        "-p",
        &publish,
        IMAGE,
        "sh",
        "-c",
        "while :; do echo answer | nc -l -p 8080; done",
    ])
    .ok();
    assert_eq!(ask(port).as_deref(), Some("answer\n"));
    assert_eq!(host.unroot(["port", "c"]).ok(), format!("8080/tcp -> 127.0.0.1:{port}"));
    host.unroot(["stop", "-t0", "c"]).ok();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the port is still open");
}

#[test]
fn a_port_in_use_is_named() {
    let host = Host::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    host.unroot(["run", "--rm", "-p", &format!("127.0.0.1:{port}:80"), IMAGE, "true"]).fails(126, &port);
    assert_eq!(host.unroot(["ps", "-aq"]).ok(), "");
}

#[test]
fn another_containers_network() {
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "a", "--network=none", IMAGE, "sleep", "1000"]).ok();
    let theirs = host.unroot(["exec", "a", "readlink", "/proc/self/ns/net"]).ok();
    let ours =
        host.unroot(["run", "--rm", "--network=container:a", IMAGE, "readlink", "/proc/self/ns/net"]).ok();
    assert_eq!(ours, theirs);
    host.unroot(["run", "--rm", "--network=container:nosuch", IMAGE, "true"]).fails(125, "no such container");
}

/// Namespaces of a container that shares the host's, and one that keeps its own for itself.
#[test]
fn other_namespaces_of_another_container() {
    let host = Host::new();
    host.unroot([
        "run",
        "-d",
        "--name",
        "a",
        "--network=none",
        "--pid=host",
        "--ipc=private",
        IMAGE,
        "sleep",
        "1000",
    ])
    .ok();
    let id = host.unroot(["inspect", "--format", "{{.ID}}", "a"]).ok();
    let join = |flag: &str| {
        host.unroot(["run", "--name", "b", "--network=none", flag, IMAGE, "readlink", "/proc/self/ns/pid"])
    };
    let hosts = std::fs::read_link("/proc/self/ns/pid").unwrap();
    assert_eq!(join("--pid=container:a").ok(), hosts.to_str().unwrap());
    assert_eq!(
        host.unroot(["inspect", "--format", "{{.HostConfig.PidMode}}", "b"]).ok(),
        format!("container:{id}")
    );
    host.unroot(["rm", "b"]).ok();
    join("--ipc=container:a").fails(125, "non-shareable IPC");
}

/// Options of pasta: the container's own, and where they change what the engine says of the network.
#[test]
fn options_of_pasta() {
    let host = Host::new();
    let pid = host.path("pasta.pid");
    std::fs::write(&pid, "").unwrap();
    let network =
        format!("--network=pasta:--ns-ifname,mine,--dns-forward,192.0.2.53,--pid,{}", pid.display());
    let script = "cat /etc/resolv.conf; ls /sys/class/net";
    let seen = host.unroot(["run", "--rm", &network, IMAGE, "sh", "-c", script]).ok();
    assert!(
        seen.starts_with("nameserver 192.0.2.53\n") || seen.contains("\nnameserver 192.0.2.53\n"),
        "{seen}"
    );
    assert!(seen.ends_with("lo\nmine"), "{seen}");
    let pid = std::fs::read_to_string(&pid).unwrap();
    let begin = std::time::Instant::now();
    while std::path::Path::new("/proc").join(pid.trim()).exists() {
        assert!(begin.elapsed() < Duration::from_secs(5), "pasta {pid} is left");
    }
}
