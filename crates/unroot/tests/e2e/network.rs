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
