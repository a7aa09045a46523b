//! mount_setattr(2), which rustix lacks.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use crate::SyscallError;

/// Attributes of a mount, `MOUNT_ATTR_*`.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// No setuid.
    pub const NOSUID: u64 = 0x2;
    /// No devices.
    pub const NODEV: u64 = 0x4;
    /// No programs.
    pub const NOEXEC: u64 = 0x8;
    /// All atime bits.
    pub const ATIME: u64 = 0x70;
    /// No access times.
    pub const NOATIME: u64 = 0x10;
    /// Access times always.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times of directories.
    pub const NODIRATIME: u64 = 0x80;
    /// Ids shifted by a user namespace.
    pub const IDMAP: u64 = 0x0010_0000;
    /// Links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// Changes a mount that a descriptor stands for: these attributes cleared, those set; with the mounts below if
/// `recursive`; ids shifted by the user namespace if one is given.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    recursive: bool,
    user_namespace: Option<BorrowedFd<'_>>,
) -> Result<(), SyscallError> {
    let attr = MountAttr {
        set: set | if user_namespace.is_some() { attr::IDMAP } else { 0 },
        clear,
        propagation: 0,
        user_namespace: user_namespace.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    change(mount, &attr, recursive)
        .map_err(|errno| SyscallError::new(format!("mount_setattr(set {set:#x}, clear {clear:#x})"), errno))
}

/// What is mounted on this mount and on those below it is not seen elsewhere from now on.
pub fn stop_propagation(mount: BorrowedFd<'_>) -> Result<(), SyscallError> {
    let attr = MountAttr { propagation: libc::MS_SLAVE, ..MountAttr::default() };
    change(mount, &attr, true).map_err(|errno| SyscallError::new("mount_setattr(MS_SLAVE)", errno))
}

/// `struct mount_attr`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

fn change(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> Result<(), rustix::io::Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an empty path, and a struct of the kernel's layout with its size; both live through the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(rustix::io::Errno::from_raw_os_error(
            std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO),
        )),
    }
}
