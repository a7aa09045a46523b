//! The root filesystem: an overlay of layers, or a directory.

use std::fmt::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use unroot_sys::SyscallError;

/// Where the root filesystem comes from.
#[derive(Clone, Debug)]
pub enum Rootfs {
    /// Layers, the top-most first, and the container's own above them.
    Overlay {
        /// Read-only layers.
        lower: Vec<PathBuf>,
        /// The container's own layer and overlayfs' work directory, on one filesystem.
        upper: Option<(PathBuf, PathBuf)>,
    },
    /// A directory as it is.
    Directory(PathBuf),
}

impl Rootfs {
    /// As a mount that is not attached anywhere yet.
    pub fn detached(&self) -> Result<OwnedFd, SyscallError> {
        match self {
            Rootfs::Directory(path) => clone_tree(path, true),
            Rootfs::Overlay { lower, upper: None } if lower.len() == 1 => clone_tree(&lower[0], false),
            Rootfs::Overlay { lower, upper } => overlay(lower, upper.as_ref()),
        }
    }
}

/// A detached copy of the mount at a path, with the mounts below it if asked.
pub fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd, SyscallError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags)
        .map_err(|e| SyscallError::new(format!("open_tree({path:?}, OPEN_TREE_CLONE)"), e))
}

/// An overlay. `userxattr` is what an unprivileged mount needs, and layers are written for it; `volatile`: the
/// upper layer of a container is not synced at its end, as it would be lost with the container's processes anyway.
fn overlay(lower: &[PathBuf], upper: Option<&(PathBuf, PathBuf)>) -> Result<OwnedFd, SyscallError> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|e| SyscallError::new("fsopen(\"overlay\")", e))?;
    let set = |key: &str, value: &Path| {
        fsconfig_set_string(context.as_fd(), key, value).map_err(|e| {
            SyscallError::new(format!("fsconfig(overlay, {key:?}, {value:?}){}", log_of(&context)), e)
        })
    };
    for dir in lower {
        set("lowerdir+", dir)?;
    }
    if let Some((upper, work)) = upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    let flag = |key: &str| {
        fsconfig_set_flag(context.as_fd(), key)
            .map_err(|e| SyscallError::new(format!("fsconfig(overlay, {key:?})"), e))
    };
    flag("userxattr")?;
    if upper.is_some() {
        flag("volatile")?;
    }
    fsconfig_create(context.as_fd()).map_err(|e| {
        let what = lower.iter().fold(String::new(), |mut text, dir| {
            let _ = write!(text, "{}{}", if text.is_empty() { "" } else { ":" }, dir.display());
            text
        });
        let above = upper.map_or(String::new(), |(upper, _)| format!(", upperdir={}", upper.display()));
        SyscallError::new(format!("mount(\"overlay\", lowerdir={what}{above}){}", log_of(&context)), e)
    })?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(|e| SyscallError::new("fsmount(overlay)", e))
}

/// What the kernel says about a filesystem context: it is read from it.
pub fn log_of(context: &OwnedFd) -> String {
    let mut text = [0; 512];
    match rustix::io::read(context, &mut text) {
        Ok(n) if n > 0 => format!(" [{}]", String::from_utf8_lossy(&text[..n]).trim()),
        _ => String::new(),
    }
}

/// Attaches a detached mount on a directory or file that a handle stands for.
pub fn attach(mount: &OwnedFd, target: &OwnedFd, what: &str) -> Result<(), SyscallError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount.as_fd(), "", target.as_fd(), "", flags)
        .map_err(|e| SyscallError::new(format!("move_mount({what})"), e))
}

/// A handle on a path of the host.
pub fn open_path(path: &Path) -> Result<OwnedFd, SyscallError> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| SyscallError::new(format!("open({path:?}, O_PATH)"), e))
}

/// Mounts a namespace on a file of this mount namespace, in the place of what an earlier call mounted there.
pub fn bind_namespace(source: std::os::fd::BorrowedFd<'_>, target: &Path) -> Result<(), SyscallError> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree =
        open_tree(source, "", flags).map_err(|e| SyscallError::new("open_tree(network namespace)", e))?;
    let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(target, flags, Mode::from_raw_mode(0o600))
        .map_err(|e| SyscallError::new(format!("creat({target:?})"), e))?;
    attach(&tree, &open_path(target)?, &format!("network namespace on {}", target.display()))
}
