//! sd_notify(3): what a container says of itself to the service manager goes through its monitor, which hands on
//! only what a service may say of its own state: not its main process, descriptors or the like.

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, recv, sendto,
    socket_with,
};

use crate::{Error, failed};

/// Messages are this long at most.
const MAX: usize = 4096;

/// What is handed on.
const KNOWN: [&str; 8] = [
    "READY=",
    "RELOADING=",
    "STOPPING=",
    "STATUS=",
    "ERRNO=",
    "WATCHDOG=1",
    "EXTEND_TIMEOUT_USEC=",
    "MONOTONIC_USEC=",
];

/// The container's socket.
pub(crate) struct Proxy {
    socket: OwnedFd,
    target: PathBuf,
}

impl Proxy {
    /// Makes `notify/notify.sock` in a directory.
    pub fn listen(directory: &Path, target: &Path) -> Result<Self, Error> {
        let directory = directory.join("notify");
        let handle =
            rustix::fs::open(&directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(failed(format!("open({directory:?})")))?;
        let _ = rustix::fs::unlinkat(&handle, "notify.sock", rustix::fs::AtFlags::empty());
        let path = format!("/proc/self/fd/{}/notify.sock", handle.as_raw_fd());
        let address = SocketAddrUnix::new(path).map_err(failed("sockaddr_un"))?;
        let socket = datagram()?;
        bind(&socket, &address).map_err(failed(format!("bind({directory:?}/notify.sock)")))?;
        // whoever the container's process is may write to it; what is above it is closed to others
        rustix::fs::chmodat(&handle, "notify.sock", Mode::from_raw_mode(0o777), rustix::fs::AtFlags::empty())
            .map_err(failed("chmod(notify.sock)"))?;
        Ok(Self { socket, target: target.into() })
    }

    /// To be polled.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.socket)
    }

    /// Hands on what there is.
    pub fn forward(&self) {
        let mut buffer = [0; MAX];
        for _ in 0..64 {
            let Ok((length, _)) = recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) else { return };
            let known = filtered(&String::from_utf8_lossy(&buffer[..length]));
            if !known.is_empty() {
                let _ = send(&self.target, &known);
            }
        }
    }
}

/// The lines that may be handed on.
fn filtered(message: &str) -> String {
    let known = message.lines().filter(|line| KNOWN.iter().any(|k| line.starts_with(k)));
    known.collect::<Vec<_>>().join("\n")
}

fn datagram() -> Result<OwnedFd, Error> {
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(failed("socket(AF_UNIX)"))
}

/// Tells a service manager something; `socket` is a path, or begins with a `@` for an abstract name.
pub fn send(socket: &Path, message: &str) -> Result<(), Error> {
    let bytes = socket.as_os_str().as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name),
        None => SocketAddrUnix::new(socket),
    }
    .map_err(failed(format!("NOTIFY_SOCKET={}", socket.display())))?;
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendto(datagram()?, message.as_bytes(), flags, &address)
        .map(drop)
        .map_err(failed(format!("sendto(NOTIFY_SOCKET={})", socket.display())))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_handed_on() {
        let message = "READY=1\nMAINPID=1\nSTATUS=all well\nFDSTORE=1\nNOTIFYACCESS=all\nSTOPPING=1";
        assert_eq!(super::filtered(message), "READY=1\nSTATUS=all well\nSTOPPING=1");
        assert_eq!(super::filtered("MAINPID=1"), "");
    }
}
