//! A further process in a running container.
//!
//! The caller is outside: the user who owns the container's user namespace, or root. A first child joins all the
//! container's namespaces with one setns(pidfd); a pid namespace counts for children only, so it makes a sibling
//! there (whose parent is the caller, who can wait for it) and ends.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{WaitIdOptions, waitid};

use unroot_idmap::observe;
use unroot_sys::SyscallError;
use unroot_sys::ns::setns;
use unroot_sys::process::{
    Fork, Namespace, NamespaceFlags, Prctl, clone, clone_sibling, exit_now, prctl, set_gid, set_uid,
};
use unroot_sys::socket::{receive_fd, send_fd};

use crate::process::{Ready, Stdio, set_stdio, set_terminal};
use crate::spawn::check_user;
use crate::spec::Process;
use crate::{Error, StartError, dev, seccomp};

/// What to start, and where.
#[derive(Debug)]
pub struct Request<'a> {
    /// The container's first process.
    pub init: u32,
    /// A handle on it: its number may be used again meanwhile.
    pub handle: BorrowedFd<'a>,
    /// The new one.
    pub process: &'a Process,
    /// System calls that are allowed.
    pub seccomp: &'a seccomp::Profile,
    /// The container's cgroup.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Descriptors that are handed on.
    pub preserved_fds: &'a [u32],
    /// It goes on when the caller ends.
    pub survives: bool,
}

/// A process in a container.
#[derive(Debug)]
pub struct Running {
    /// A handle on it; it is a child of the caller.
    pub pidfd: OwnedFd,
    /// The master of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

/// Starts it, and waits until it is the program that was asked for.
pub fn spawn(request: &Request<'_>, stdio: Stdio) -> Result<Running, Error> {
    check_user(&request.process.user, &observe::maps_of(&request.init.to_string())?)?;
    let join = differing(request.init);
    let setgroups = unroot_sys::path::read_proc(&format!("/proc/{}/setgroups", request.init))
        .is_ok_and(|t| t.trim() == "allow");
    let filter = seccomp::compile(request.seccomp, &request.process.capabilities)?;
    let mut ready = Ready::new(request.process, filter, request.preserved_fds, setgroups)?;
    if request.survives {
        ready = ready.surviving_parent();
    }
    let last_cap = unroot_sys::path::read_proc("/proc/sys/kernel/cap_last_cap")
        .ok()
        .and_then(|t| t.trim().parse().ok())
        .unwrap_or(40);
    let stdio = stdio.complete()?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| SyscallError::new("socketpair", e))?;
    // born in the container's control group here, where we may: inside of its user namespace we might not
    match clone(NamespaceFlags::default(), request.cgroup)? {
        Fork::Child => {
            drop(ours);
            let error = enter(request, join, &theirs, &stdio, &ready, last_cap);
            let mut message = vec![b'E', error.exit_code];
            message.extend(error.text.as_bytes());
            let _ = rustix::net::send(&theirs, &message, rustix::net::SendFlags::NOSIGNAL);
            exit_now(1)
        }
        Fork::Parent(first) => {
            drop((theirs, stdio));
            let result = follow(&ours, request.process.terminal);
            let _ = waitid(rustix::process::WaitId::PidFd(first.pidfd.as_fd()), WaitIdOptions::EXITED);
            result
        }
    }
}

/// Namespaces of a process that are not ours.
fn differing(pid: u32) -> NamespaceFlags {
    let link =
        |who: &str, kind: Namespace| std::fs::read_link(format!("/proc/{who}/ns/{}", kind.file())).ok();
    Namespace::ALL.into_iter().filter(|kind| link(&pid.to_string(), *kind) != link("self", *kind)).collect()
}

fn enter(
    request: &Request<'_>,
    join: NamespaceFlags,
    socket: &OwnedFd,
    stdio: &[OwnedFd; 3],
    ready: &Ready,
    last_cap: u32,
) -> StartError {
    let joined = || -> Result<Fork, SyscallError> {
        // the container's processes must not look into this one (it is our program, until execve)
        prctl(Prctl::Dumpable(false))?;
        setns(request.handle, join)?;
        if join.contains(Namespace::User) {
            set_gid(0)?;
            set_uid(0)?;
            prctl(Prctl::Dumpable(false))?;
        }
        clone_sibling(NamespaceFlags::default())
    };
    match joined() {
        Err(error) => error.into(),
        Ok(Fork::Parent(second)) => {
            let _ = send_fd(socket.as_fd(), second.pidfd.as_fd());
            exit_now(0)
        }
        Ok(Fork::Child) => match prepare(request, socket, stdio) {
            Ok(()) => ready.become_program(last_cap, socket.as_fd()),
            Err(error) => error,
        },
    }
}

fn prepare(request: &Request<'_>, socket: &OwnedFd, stdio: &[OwnedFd; 3]) -> Result<(), StartError> {
    rustix::process::setsid().map_err(|e| SyscallError::new("setsid", e))?;
    if !request.process.terminal {
        return Ok(set_stdio(stdio.each_ref())?);
    }
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| SyscallError::new("open(\"/\")", e))?;
    let (master, slave) = dev::open_terminal(&root)?;
    send_fd(socket.as_fd(), master.as_fd())?;
    Ok(set_terminal(&slave, request.process.user.uid)?)
}

/// Two descriptors may come, in any order, of which only one is a terminal; then the end, or an error.
fn follow(socket: &OwnedFd, terminal: bool) -> Result<Running, Error> {
    let (mut pidfd, mut master) = (None, None);
    let expected = 1 + usize::from(terminal);
    for _ in 0..expected {
        let mut first = [0];
        let peeked =
            rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut first, rustix::net::RecvFlags::PEEK));
        if !matches!(peeked, Ok((1, _))) || first[0] != b'f' {
            break;
        }
        match receive_fd(socket.as_fd())? {
            Some(fd) if rustix::termios::isatty(&fd) => master = Some(fd),
            Some(fd) => pidfd = Some(fd),
            None => break,
        }
    }
    let mut message = [0; 4096];
    let got = rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut message))
        .map_err(|e| SyscallError::new("read(container)", e))?;
    // (an error may have come before the first child had sent its descriptor)
    if let [b'E', code, text @ ..] = &message[..got] {
        let text = String::from_utf8_lossy(text).trim_end_matches('f').to_string();
        return Err(Error::Start(StartError { exit_code: *code, text }));
    }
    match pidfd {
        Some(pidfd) => Ok(Running { pidfd, terminal: master }),
        None => Err(Error::Start(StartError {
            exit_code: 125,
            text: "the process ended before it was started".into(),
        })),
    }
}
