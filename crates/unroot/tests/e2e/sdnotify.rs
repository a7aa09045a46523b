//! The service manager around a container: readiness, main process, sockets that it hands over.

use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use crate::host::{Host, IMAGE};

struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn new(host: &Host) -> Self {
        let path = host.path("manager.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { socket, path: path.to_str().unwrap().into() }
    }

    #[track_caller]
    fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn hears_nothing(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let nothing = self.socket.recv(&mut [0; 10]).is_err();
        self.socket.set_nonblocking(false).unwrap();
        nothing
    }

    fn run(&self, host: &Host, flags: &[&str], script: &str) {
        let begin = ["run", "-d", "--name", "c", "--network=none"];
        let args = [&begin[..], flags, &[IMAGE, "sh", "-c", script]].concat();
        host.run(host.command(args).env("NOTIFY_SOCKET", &self.path)).ok();
    }
}

fn monitor(host: &Host) -> String {
    host.unroot(["inspect", "--format", "{{.State.ConmonPid}}", "c"]).ok()
}

#[test]
fn the_command_says_that_it_is_ready() {
    let host = Host::new();
    let manager = Manager::new(&host);
    manager.run(&host, &["--sdnotify=conmon"], "echo ${NOTIFY_SOCKET-none}; sleep 1000");
    assert_eq!(manager.hears(), format!("MAINPID={}\nREADY=1", monitor(&host)));
    let mode = ["inspect", "--format", "{{.Config.SdNotifyMode}} {{.Config.SdNotifySocket}}", "c"];
    assert_eq!(host.unroot(mode).ok(), format!("conmon {}", manager.path));
    for _ in 0..100 {
        if !host.unroot(["logs", "c"]).ok().is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(host.unroot(["logs", "c"]).ok(), "none");
}

#[test]
fn the_container_says_that_it_is_ready() {
    let host = Host::new();
    let manager = Manager::new(&host);
    manager.run(
        &host,
        &["--user=7"],
        "test -w $NOTIFY_SOCKET && test -S /run/notify/notify.sock && sleep 1000",
    );
    assert_eq!(manager.hears(), format!("MAINPID={}", monitor(&host)));
    let id = host.unroot(["inspect", "--format", "{{.Id}}", "c"]).ok();
    let inside = UnixDatagram::unbound().unwrap();
    // (a short name: an address holds few letters)
    std::os::unix::fs::symlink(host.path("run/containers").join(id).join("notify"), host.path("n")).unwrap();
    let path = host.path("n/notify.sock");
    inside.send_to(b"MAINPID=1", &path).unwrap();
    inside.send_to(b"READY=1\nFDSTORE=1\nSTATUS=well", &path).unwrap();
    assert_eq!(manager.hears(), "READY=1\nSTATUS=well", "and not what is not its to say");
    assert_eq!(host.unroot(["inspect", "--format", "{{.State.Running}}", "c"]).ok(), "true");
}

#[test]
fn ready_is_healthy() {
    let host = Host::new();
    let manager = Manager::new(&host);
    let check = ["--sdnotify=healthy", "--health-cmd=test -e /well", "--health-interval=50ms"];
    manager.run(&host, &check, "sleep 0.5; touch /well; sleep 1000");
    assert_eq!(manager.hears(), format!("MAINPID={}", monitor(&host)));
    assert_eq!(
        host.unroot(["inspect", "--format", "{{.State.Health.Status}}", "c"]).ok(),
        "healthy",
        "it was waited for"
    );
    assert_eq!(manager.hears(), "READY=1");
    host.unroot(["create", "--sdnotify=healthy", IMAGE])
        .fails(125, "invalid argument: sdnotify policy \"healthy\" requires a healthcheck to be set");
    host.unroot(["create", "--sdnotify=bogus", IMAGE]).fails(125, "invalid sdnotify value");
}

#[test]
fn nobody_says_anything() {
    let host = Host::new();
    let manager = Manager::new(&host);
    manager.run(&host, &["--sdnotify=ignore"], "test -z \"$NOTIFY_SOCKET\"");
    assert_eq!(host.unroot(["wait", "c"]).ok(), "0");
    assert!(manager.hears_nothing());
    // a manager that is gone harms nobody
    let gone = host.path("gone.sock");
    let args = ["run", "--rm", "--network=none", "--sdnotify=conmon", IMAGE, "true"];
    host.run(host.command(args).env("NOTIFY_SOCKET", &gone)).ok();
}

/// Sockets of the service manager are the container's, also after its policy has started it again.
#[test]
fn socket_activation() {
    let host = Host::new();
    let path = host.path("web.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // (a shell, so that the process id is known before; not all of them know numbers above 9)
    let script =
        "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec \"$0\" \"$@\"";
    let inner = host.command([
        "run",
        "-d",
        "--name",
        "c",
        "--restart=on-failure:1",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "echo $LISTEN_PID $LISTEN_FDS $LISTEN_FDNAMES; readlink /proc/self/fd/3; exit 1",
    ]);
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg(script).arg(inner.get_program()).args(inner.get_args());
    shell.env("CONTAINERS_CONF", "/dev/null").stdin(std::os::fd::OwnedFd::from(listener));
    host.run(&mut shell).ok();
    host.unroot(["wait", "c"]).ok();
    for _ in 0..200 {
        if host.unroot(["inspect", "--format", "{{.State.Status}} {{.RestartCount}}", "c"]).ok() == "exited 1"
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let shown = host.unroot(["logs", "c"]).ok();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 4, "{shown}");
    assert!(lines[0] == "1 1 web" && lines[2] == lines[0], "{shown}");
    assert!(lines[1].starts_with("socket:[") && lines[1] == lines[3], "{shown}");
    drop(shell);
    let gone = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        UnixStream::connect(&path).is_err()
    });
    assert!(gone, "nobody has it any more");
}
