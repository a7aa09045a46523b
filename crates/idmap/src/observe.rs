//! What the kernel says of a process's ids: never what was asked for.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use unroot_sys::ns::setns;
use unroot_sys::path::read_proc;
use unroot_sys::process::{Fork, Namespace, exit_now, fork};

use crate::{Error, IdMap, IdMaps};

/// The maps of a process (`self` too), inside -> the reader's own user namespace.
pub fn maps_of(pid: &str) -> Result<IdMaps, Error> {
    Ok(IdMaps { uid: read(pid, "uid_map")?, gid: read(pid, "gid_map")? })
}

fn read(pid: &str, file: &str) -> Result<IdMap, Error> {
    let path = format!("/proc/{pid}/{file}");
    let text = read_proc(&path).map_err(|e| Error::Invalid(format!("read {path}: {e}")))?;
    IdMap::parse(&text)
}

/// The maps of a user namespace that nobody needs to be in, inside -> ours; none if it is ours.
pub fn maps_of_namespace(path: &Path) -> Result<Option<IdMaps>, Error> {
    use std::os::unix::fs::MetadataExt as _;
    let missing = |e| Error::Invalid(format!("open user namespace {}: {e}", path.display()));
    let file = fs::File::open(path).map_err(missing)?;
    let inode = |meta: std::io::Result<fs::Metadata>| meta.map(|m| (m.dev(), m.ino())).ok();
    if inode(file.metadata()) == inode(fs::metadata("/proc/self/ns/user")) {
        return Ok(None);
    }
    let (ready, told) = pipe()?;
    let (wait, go) = pipe()?;
    match fork()? {
        Fork::Child => {
            drop((ready, go));
            let word: &[u8] = match setns(file.as_fd(), [Namespace::User].into_iter().collect()) {
                Ok(()) => b"r",
                Err(_) => b"",
            };
            let _ = rustix::io::write(&told, word);
            drop(told);
            let _ = rustix::io::read(&wait, &mut [0]);
            exit_now(0)
        }
        Fork::Parent(child) => {
            drop((told, wait));
            let joined = rustix::io::read(&ready, &mut [0]) == Ok(1);
            let maps = if joined { maps_of(&child.pid.to_string()) } else { Err(not_ours(path)) };
            drop(go);
            let _ = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
            maps.map(Some)
        }
    }
}

fn not_ours(path: &Path) -> Error {
    Error::Cured {
        text: format!("join user namespace {}: it is not one, or not this user's", path.display()),
        hint: "it has to be a user namespace that a process of this user's made; for a container's: --userns=container:NAME".into(),
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::Syscall(unroot_sys::SyscallError::new("pipe2", e)))
}
