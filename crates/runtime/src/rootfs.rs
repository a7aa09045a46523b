//! The root filesystem: an overlay of layers, or a directory.

use std::fmt::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use unroot_idmap::IdMaps;
use unroot_sys::SyscallError;
use unroot_sys::mount::{attr, set_attributes};
use unroot_sys::process::{Fork, Namespace, clone, exit_now};

/// Where the root filesystem comes from.
#[derive(Clone, Debug)]
pub enum Rootfs {
    /// Layers, the top-most first, and the container's own above them.
    Overlay {
        /// Read-only layers.
        lower: Vec<PathBuf>,
        /// Where contents are that files of the layers refer to.
        data: Vec<PathBuf>,
        /// Owners of the read-only layers are shifted by their mounts.
        shift: Option<Shift>,
        /// The container's own layer and overlayfs' work directory, on one filesystem.
        upper: Option<(PathBuf, PathBuf)>,
    },
    /// A directory as it is.
    Directory(PathBuf),
    /// A directory whose files have other owners: on disk -> the caller's.
    Shifted(PathBuf, IdMaps),
}

/// Idmapped mounts of layers (mount_setattr(2), Linux 5.19 for those below an overlay).
#[derive(Clone, Debug)]
pub struct Shift {
    /// What ids become: on disk -> the caller's.
    pub maps: IdMaps,
    /// A directory of the caller's on which the layers are mounted, in a mount namespace that is its own.
    pub stage: PathBuf,
}

impl Rootfs {
    /// As a mount that is not attached anywhere yet.
    pub fn detached(&self) -> Result<OwnedFd, SyscallError> {
        match self {
            Rootfs::Directory(path) => {
                let tree = clone_tree(path, true)?;
                // (else what is mounted in the container is mounted on the host's directory as well, where that is shared)
                unroot_sys::mount::stop_propagation(tree.as_fd())?;
                Ok(tree)
            }
            Rootfs::Shifted(path, maps) => {
                let tree = clone_tree(path, false)?;
                shift_owners(&tree, maps, path)?;
                Ok(tree)
            }
            Rootfs::Overlay { lower, upper: None, shift: None, .. } if lower.len() == 1 => {
                clone_tree(&lower[0], false)
            }
            Rootfs::Overlay { lower, data, upper, shift: None } => overlay(lower, data, upper.as_ref()),
            Rootfs::Overlay { lower, data, upper, shift: Some(shift) } => {
                let staged = shift.mount(lower)?;
                overlay(&staged.0, data, upper.as_ref())
            }
        }
    }
}

/// Layers that are mounted until the overlay of them is.
struct Staged(Vec<PathBuf>);

impl Drop for Staged {
    fn drop(&mut self) {
        for dir in &self.0 {
            let _ = rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH);
            let _ = std::fs::remove_dir(dir);
        }
    }
}

impl Shift {
    fn mount(&self, layers: &[PathBuf]) -> Result<Staged, SyscallError> {
        let namespace = user_namespace(&self.maps)?;
        let mut staged = Staged(Vec::new());
        for (n, layer) in layers.iter().enumerate() {
            let tree = clone_tree(layer, false)?;
            set_attributes(tree.as_fd(), 0, 0, false, Some(namespace.as_fd()))
                .map_err(|e| refused_shift(&e, layer))?;
            let place = self.stage.join(n.to_string());
            std::fs::create_dir_all(&place)
                .map_err(|e| SyscallError::new(format!("mkdir({place:?})"), errno_of(&e)))?;
            staged.0.push(place.clone());
            attach(&tree, &open_path(&place)?, &format!("layer on {}", place.display()))?;
        }
        Ok(staged)
    }
}

/// Gives the files of a mount other owners: on disk -> the caller's.
pub fn shift_owners(tree: &OwnedFd, maps: &IdMaps, what: &Path) -> Result<(), SyscallError> {
    let namespace = user_namespace(maps)?;
    set_attributes(tree.as_fd(), 0, 0, false, Some(namespace.as_fd())).map_err(|e| refused_shift(&e, what))
}

fn refused_shift(error: &SyscallError, what: &Path) -> SyscallError {
    let why = match error.errno {
        rustix::io::Errno::INVAL => "failed to create idmapped mount, which its filesystem does not take: ",
        rustix::io::Errno::PERM => "failed to create idmapped mount, which takes root: ",
        _ => "failed to create idmapped mount: ",
    };
    SyscallError::new(format!("{why}{} of {what:?}", error.call), error.errno)
}

fn errno_of(error: &std::io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::IO)
}

/// A user namespace with these maps, which nobody is in.
fn user_namespace(maps: &IdMaps) -> Result<OwnedFd, SyscallError> {
    let (ready, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| SyscallError::new("pipe2", e))?;
    match clone([Namespace::User].into_iter().collect(), None)? {
        Fork::Child => {
            drop(go);
            let _ = rustix::io::read(&ready, &mut [0]);
            exit_now(0)
        }
        Fork::Parent(child) => {
            let open = || -> std::io::Result<OwnedFd> {
                let proc = PathBuf::from(format!("/proc/{}", child.pid));
                std::fs::write(proc.join("uid_map"), maps.uid.to_string())?;
                std::fs::write(proc.join("gid_map"), maps.gid.to_string())?;
                Ok(std::fs::File::open(proc.join("ns/user"))?.into())
            };
            let opened = open().map_err(|e| {
                SyscallError::new(
                    format!("user namespace of the map {:?}", maps.uid.to_string()),
                    errno_of(&e),
                )
            });
            drop(go);
            let _ = rustix::process::waitid(
                rustix::process::WaitId::PidFd(child.pidfd.as_fd()),
                rustix::process::WaitIdOptions::EXITED,
            );
            opened
        }
    }
}

/// The kernel shifts ids at mounts of layers in this directory, so that overlayfs takes them.
pub fn can_shift(dir: &Path) -> bool {
    // (others can too, but not all of them as a layer)
    const KNOWN: [u64; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010];
    let known = rustix::fs::statfs(dir).is_ok_and(|s| KNOWN.contains(&(s.f_type as u64)));
    known && kernel() >= (5, 19)
}

/// An overlay of an ordinary user's can be told in which layer a file's content is.
pub fn can_refer() -> bool {
    kernel() >= (6, 16)
}

/// The version of the kernel that runs.
fn kernel() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Mounts a root filesystem on a directory of this mount namespace, for reading alone.
pub fn mount_read_only(root: &Rootfs, place: &Path) -> Result<(), SyscallError> {
    let mount = root.detached()?;
    set_attributes(mount.as_fd(), attr::RDONLY, 0, false, None)?;
    attach(&mount, &open_path(place)?, &place.display().to_string())
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
fn overlay(
    lower: &[PathBuf],
    data: &[PathBuf],
    upper: Option<&(PathBuf, PathBuf)>,
) -> Result<OwnedFd, SyscallError> {
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
    for dir in data {
        set("datadir+", dir)?;
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

/// The root filesystem with mounts below it, on a directory of the caller's mount namespace; a handle on the root.
/// What a mount needs is made, as at the start of a container.
pub fn mount_on(
    rootfs: &Rootfs,
    mounts: &[crate::spec::Mount],
    place: &Path,
) -> Result<OwnedFd, SyscallError> {
    // (`volatile` leaves a mark that forbids the next mount of the same work directory)
    if let Rootfs::Overlay { upper: Some((_, work)), .. } = rootfs {
        let _ = std::fs::remove_dir_all(work.join("work/incompat"));
    }
    let prepared = mounts.iter().map(crate::mounts::prepare).collect::<Result<Vec<_>, _>>()?;
    let root = rootfs.detached()?;
    attach(&root, &open_path(place)?, &format!("rootfs on {}", place.display()))?;
    for mount in &prepared {
        crate::mounts::make(&root, mount)?;
    }
    Ok(root)
}

/// A copy of what another process has as its root, on a directory of the caller's mount namespace.
pub fn mount_root_of(pid: u32, place: &Path) -> Result<(), SyscallError> {
    let (tree, _) = crate::mounts::clone_elsewhere(&pid.to_string(), "")?;
    attach(&tree, &open_path(place)?, &format!("root of process {pid} on {}", place.display()))
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
