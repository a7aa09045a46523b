//! What stays when a process ends: shared memory, which holds the user namespace that it was made in, and a handle
//! by which that namespace is found again (Linux 6.18, name_to_handle_at(2) of nsfs).

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use crate::SyscallError;

/// A System V shared memory segment of one byte that nobody is to attach (shmget(2)). It keeps the credentials that it
/// was made with, and so their user namespace, until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment(pub i32);

impl Segment {
    /// A new one, of the calling process's user namespace.
    pub fn new() -> Result<Self, SyscallError> {
        // SAFETY: takes numbers.
        match unsafe { libc::shmget(libc::IPC_PRIVATE, 1, 0o600) } {
            -1 => Err(SyscallError::last("shmget")),
            id => Ok(Self(id)),
        }
    }

    /// It is there: this user's, one byte that nobody has attached.
    pub fn is_there(self) -> bool {
        // SAFETY: all zero is a valid shmid_ds, which this request fills in.
        unsafe {
            let mut about: libc::shmid_ds = std::mem::zeroed();
            libc::shmctl(self.0, libc::IPC_STAT, &raw mut about) == 0
                && about.shm_segsz == 1
                && about.shm_nattch == 0
                && about.shm_perm.cuid == libc::geteuid()
        }
    }

    /// Removes it.
    pub fn remove(self) {
        if self.is_there() {
            // SAFETY: this request takes no memory.
            unsafe { libc::shmctl(self.0, libc::IPC_RMID, std::ptr::null_mut()) };
        }
    }
}

const LONGEST: usize = libc::MAX_HANDLE_SZ as usize;

#[repr(C)]
struct FileHandle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    data: [u8; LONGEST],
}

/// What finds a namespace again as long as it is there: a kind and bytes, which no other one has until the next boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Kind.
    pub kind: i32,
    /// Bytes.
    pub data: Vec<u8>,
}

impl Handle {
    /// Of a namespace's file.
    pub fn of(namespace: BorrowedFd<'_>) -> Result<Self, SyscallError> {
        let mut handle = FileHandle { bytes: LONGEST as u32, kind: 0, data: [0; LONGEST] };
        let mut mount = 0;
        // SAFETY: the handle has room for as many bytes as it says; both live through the call.
        let done = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                namespace.as_raw_fd(),
                c"".as_ptr(),
                &raw mut handle,
                &raw mut mount,
                libc::AT_EMPTY_PATH,
            )
        };
        if done == -1 {
            return Err(SyscallError::last("name_to_handle_at"));
        }
        Ok(Self { kind: handle.kind, data: handle.data[..handle.bytes as usize].to_vec() })
    }

    /// Opens it; `beside` is any namespace's file.
    pub fn open(&self, beside: BorrowedFd<'_>) -> Result<OwnedFd, SyscallError> {
        let mut handle = FileHandle { bytes: 0, kind: self.kind, data: [0; LONGEST] };
        let length = self.data.len().min(LONGEST);
        handle.bytes = length as u32;
        handle.data[..length].copy_from_slice(&self.data[..length]);
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: the handle holds as many bytes as it says, and lives through the call; a descriptor that it returns is
        // ours.
        unsafe {
            match libc::syscall(libc::SYS_open_by_handle_at, beside.as_raw_fd(), &raw const handle, flags) {
                -1 => Err(SyscallError::last("open_by_handle_at")),
                fd => Ok(OwnedFd::from_raw_fd(fd as i32)),
            }
        }
    }
}
