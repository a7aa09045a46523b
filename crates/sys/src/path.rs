//! openat2(2) as it has to be called.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// Opens a path below a directory. The kernel gives up with EAGAIN where something is renamed or mounted anywhere while
/// it goes through `..`, for it cannot be sure then that it has not left the directory: it is asked again.
pub fn openat2<P: Arg + Copy>(
    directory: impl AsFd,
    path: P,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let directory = directory.as_fd();
    for _ in 0..1000 {
        match rustix::fs::openat2(directory, path, flags, mode, resolve) {
            Err(Errno::AGAIN) => std::thread::yield_now(),
            other => return other,
        }
    }
    rustix::fs::openat2(directory, path, flags, mode, resolve)
}
