//! openat2(2) as it has to be called, and files of /proc.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

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

/// Reads a file of /proc. Those say that they are empty, and who does not know better reads them in many small pieces.
pub fn read_proc(path: &str) -> io::Result<String> {
    let mut data = Vec::with_capacity(4096);
    File::open(path)?.read_to_end(&mut data)?;
    Ok(String::from_utf8(data).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// Where a program is; only its name is asked for, in the directories that hold such helpers too.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|dir| dir.join(name))
        .find(|p| p.is_absolute() && p.is_file())
}
