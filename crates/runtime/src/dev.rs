//! /dev of a container: the devices that every program expects, links, and the console.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, makedev, mknodat, symlinkat};
use rustix::io::Errno;

use unroot_sys::SyscallError;

use crate::mounts::{ensure, open_in};
use crate::rootfs::{attach, clone_tree};
use crate::spec::Device;

const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// Makes the usual devices and links. In a user namespace devices cannot be made, so the host's are bound.
pub fn populate(root: &OwnedFd, in_user_namespace: bool) -> Result<(), SyscallError> {
    let dev = open_in(root, "/dev")?;
    for (name, major, minor) in DEVICES {
        let host = format!("/dev/{name}");
        if in_user_namespace {
            bind(root, Path::new(&host), &host)?;
        } else {
            node(&dev, name, FileType::CharacterDevice, makedev(major, minor), 0o666)?;
        }
    }
    let pts = (rustix::fs::statat(&dev, "pts/ptmx", rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok())
        .then_some(("ptmx", "pts/ptmx"));
    for (name, target) in LINKS.into_iter().chain(pts) {
        match symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(SyscallError::new(format!("symlink({target:?}, \"/dev/{name}\")"), e)),
        }
    }
    Ok(())
}

/// Devices that were asked for.
pub fn add(root: &OwnedFd, devices: &[Device], in_user_namespace: bool) -> Result<(), SyscallError> {
    for device in devices {
        if in_user_namespace {
            bind(root, &device.source, &device.path)?;
            continue;
        }
        let path = Path::new(&device.path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let parent = ensure(root, &parent.to_string_lossy(), true)?;
        let kind = match device.kind.as_str() {
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            _ => FileType::CharacterDevice,
        };
        let number = makedev(device.major, device.minor);
        node(&parent, &name.to_string_lossy(), kind, number, device.file_mode.unwrap_or(0o666))?;
    }
    Ok(())
}

fn node(dir: &OwnedFd, name: &str, kind: FileType, number: u64, mode: u32) -> Result<(), SyscallError> {
    let failed = |e| SyscallError::new(format!("mknod({name:?}, {kind:?}, {number:#x})"), e);
    match mknodat(dir, name, kind, Mode::from_raw_mode(mode), number) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(e) => return Err(failed(e)),
    }
    // (the mode above passes through the umask)
    rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), rustix::fs::AtFlags::empty()).map_err(failed)
}

fn bind(root: &OwnedFd, source: &Path, target: &str) -> Result<(), SyscallError> {
    let tree = clone_tree(source, false)?;
    attach(&tree, &ensure(root, target, false)?, &format!("{} on {target}", source.display()))
}

/// Opens a new terminal of the container's own devpts: its master and its slave.
pub fn open_terminal(root: &OwnedFd) -> Result<(OwnedFd, OwnedFd), SyscallError> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = unroot_sys::path::openat2(
        root,
        "dev/pts/ptmx",
        flags,
        Mode::empty(),
        rustix::fs::ResolveFlags::IN_ROOT,
    )
    .map_err(|e| SyscallError::new("open(\"/dev/pts/ptmx\")", e))?;
    rustix::pty::unlockpt(&master).map_err(|e| SyscallError::new("ioctl(TIOCSPTLCK)", e))?;
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY,
    )
    .map_err(|e| SyscallError::new("ioctl(TIOCGPTPEER)", e))?;
    Ok((master, slave))
}

/// The terminal is /dev/console, too.
pub fn bind_console(root: &OwnedFd, slave: &OwnedFd) -> Result<(), SyscallError> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    use std::os::fd::AsFd as _;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree =
        open_tree(slave.as_fd(), "", flags).map_err(|e| SyscallError::new("open_tree(terminal)", e))?;
    attach(&tree, &ensure(root, "/dev/console", false)?, "terminal on /dev/console")
}
