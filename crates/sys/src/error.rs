//! A failed system call, which prints as the call.

use std::fmt;

use rustix::io::Errno;

/// A system call that failed, with its arguments.
#[derive(Clone, Debug)]
pub struct SyscallError {
    /// The call as it would be written: `mount("proc", "/proc")`.
    pub call: String,
    /// Why.
    pub errno: Errno,
}

impl SyscallError {
    /// A failed call.
    pub fn new(call: impl Into<String>, errno: Errno) -> Self {
        Self { call: call.into(), errno }
    }

    /// The error of the last call of the C library.
    pub(crate) fn last(call: impl Into<String>) -> Self {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        Self::new(call, Errno::from_raw_os_error(errno))
    }
}

impl fmt::Display for SyscallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, describe(self.errno))
    }
}

impl std::error::Error for SyscallError {}

/// `Invalid argument`, without the number.
pub fn describe(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}
