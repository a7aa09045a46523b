//! Safe calls for what rustix lacks: clone3, execve, the nsfs ioctls, signal masks, seccomp. The only unsafe code
//! of unroot is in this crate; each block says why it is sound.

pub mod beside;
pub mod bpf;
pub mod capability;
pub mod error;
pub mod keep;
pub mod memory;
pub mod mount;
pub mod mountinfo;
pub mod ns;
pub mod path;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod socket;

pub use error::SyscallError;
