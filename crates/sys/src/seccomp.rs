//! Loading a classic BPF program as a seccomp filter (seccomp(2)).

use crate::SyscallError;

/// One instruction: `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Puts a filter on the calling thread. Needs no_new_privs or CAP_SYS_ADMIN in its user namespace.
pub fn load(program: &[Instruction], log: bool) -> Result<(), SyscallError> {
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const Instruction,
    }
    let Ok(len) = u16::try_from(program.len()) else {
        return Err(SyscallError::new(
            format!("seccomp: {} instructions", program.len()),
            rustix::io::Errno::TOOBIG,
        ));
    };
    let filter = Program { len, filter: program.as_ptr() };
    let flags: libc::c_ulong = if log { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 };
    // SAFETY: a sock_fprog whose pointer and length are of a slice that lives through the call.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    if done == 0 { Ok(()) } else { Err(SyscallError::last("seccomp(SECCOMP_SET_MODE_FILTER)")) }
}
