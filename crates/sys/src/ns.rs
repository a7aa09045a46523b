//! Namespaces: unshare, setns, and whose they are (ioctl_nsfs(2)).

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::io::Errno;

use crate::SyscallError;
use crate::process::NamespaceFlags;

/// unshare(2) of namespaces; for [`crate::process::Namespace::User`] the process must have one thread.
pub fn unshare(namespaces: NamespaceFlags) -> Result<(), SyscallError> {
    // SAFETY: namespaces only; no memory or descriptor table is unshared.
    let done = unsafe { libc::unshare(namespaces.bits() as libc::c_int) };
    if done == 0 { Ok(()) } else { Err(SyscallError::last(format!("unshare({:#x})", namespaces.bits()))) }
}

/// setns(2): a namespace file, or a pidfd with several kinds at once.
pub fn setns(target: BorrowedFd<'_>, namespaces: NamespaceFlags) -> Result<(), SyscallError> {
    // SAFETY: a descriptor and a number.
    let done = unsafe { libc::setns(target.as_raw_fd(), namespaces.bits() as libc::c_int) };
    if done == 0 { Ok(()) } else { Err(SyscallError::last(format!("setns({:#x})", namespaces.bits()))) }
}

const NS_GET_USERNS: libc::c_ulong = 0xb701;
const NS_GET_PARENT: libc::c_ulong = 0xb702;
const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;

/// The user namespace that owns this namespace.
pub fn owning_user_namespace(namespace: impl AsFd) -> Result<OwnedFd, SyscallError> {
    new_descriptor(namespace.as_fd(), NS_GET_USERNS, "ioctl(NS_GET_USERNS)")
}

/// The parent of a user or pid namespace.
pub fn parent(namespace: impl AsFd) -> Result<OwnedFd, SyscallError> {
    new_descriptor(namespace.as_fd(), NS_GET_PARENT, "ioctl(NS_GET_PARENT)")
}

fn new_descriptor(
    namespace: BorrowedFd<'_>,
    request: libc::c_ulong,
    call: &str,
) -> Result<OwnedFd, SyscallError> {
    // SAFETY: these requests take no argument and return a new descriptor, which is ours.
    unsafe {
        match libc::ioctl(namespace.as_raw_fd(), request as _) {
            -1 => Err(SyscallError::last(call)),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// The host uid that owns a user namespace: whoever is it holds all capabilities over it.
pub fn owner_uid(namespace: impl AsFd) -> Result<u32, SyscallError> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: this request writes one uid_t.
    let done = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_OWNER_UID as _, &raw mut uid) };
    if done == 0 { Ok(uid) } else { Err(SyscallError::last("ioctl(NS_GET_OWNER_UID)")) }
}

/// Brings the loopback interface of the calling thread's network namespace up.
pub fn loopback_up() -> Result<(), SyscallError> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
        .map_err(|e| SyscallError::new("socket(AF_INET)", e))?;
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives through the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if done == 0 { Ok(()) } else { Err(SyscallError::last("ioctl(SIOCSIFFLAGS, \"lo\")")) }
}

/// Number of the filesystem object behind a namespace file: equal for equal namespaces.
pub fn identity(namespace: impl AsFd) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(namespace)?;
    Ok((stat.st_dev, stat.st_ino))
}
