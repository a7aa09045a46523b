//! One container process, from an OCI runtime spec (<https://github.com/opencontainers/runtime-spec>).
//!
//! [`spawn`] makes the process P2 with all its namespaces at once. P2 builds its root filesystem, then waits; the
//! caller meanwhile sets the network up, then lets it go. Between them is one socket:
//!
//! ```text
//!   caller (P1)                         container (P2)
//!     clone3 ──────────────────────────▶ born in all its namespaces
//!     writes the id maps ──── 'm' ─────▶ (only with a user namespace of its own)
//!     sets up the network    ║           mounts, devices, pivot_root, masks
//!                        ◀── 'R' (+pty)  ready
//!              start ─────── 'g' ──────▶ limits, capabilities, user, seccomp, execve
//!                        ◀── end of file: it runs;  or 'E' code text: it failed, and how
//! ```
//! The socket is close-on-exec, so that a successful execve is seen as its end.

mod dev;
pub mod exec;
pub mod external;
mod mounts;
mod process;
mod rootfs;
pub mod seccomp;
mod spawn;
pub mod spec;

pub use mounts::{stop_propagation, stop_propagation_at};
pub use process::{StartError, Stdio};
pub use rootfs::{
    Rootfs, Shift, bind_namespace, can_refer, can_shift, mount_on, mount_read_only, mount_root_of,
};
pub use spawn::{Init, Request, Userns, spawn};

/// What went wrong before the process could be told anything.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call.
    #[error("{0}")]
    Syscall(#[from] unroot_sys::SyscallError),
    /// Something about ids.
    #[error("{0}")]
    Ids(#[from] unroot_idmap::Error),
    /// The spec makes no sense.
    #[error("{0}")]
    Spec(String),
    /// The process could not be made ready or started.
    #[error("{0}")]
    Start(#[from] StartError),
}
