//! Signals by number: masks, signalfd, names.

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::process::Signal;

use crate::SyscallError;

/// A signal of any number from 1 to 64, those included that the C library keeps for itself.
pub fn signal_from_raw(number: i32) -> Option<Signal> {
    if !(1..=64).contains(&number) {
        return None;
    }
    // SAFETY: the kernel knows these numbers; they are only handed to system calls that send a signal.
    Some(unsafe { Signal::from_raw_unchecked(number) })
}

const NAMES: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// `SIGTERM` for 15, `SIGRTMIN+3` for 37.
pub fn name(number: i32) -> String {
    match NAMES.iter().find(|(_, n)| *n == number) {
        Some((name, _)) => format!("SIG{name}"),
        None if (34..=64).contains(&number) => format!("SIGRTMIN+{}", number - 34).replace("+0", ""),
        None => format!("signal {number}"),
    }
}

/// The number of `TERM`, `sigterm`, `SIGRTMIN+3`, `15`.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(n, _)| *n == name) {
        return Some(*number);
    }
    match name {
        "RTMIN" => return Some(34),
        "RTMAX" => return Some(64),
        "POLL" => return Some(29),
        "IOT" => return Some(6),
        "CLD" => return Some(17),
        _ => {}
    }
    if let Some(plus) = name.strip_prefix("RTMIN+") {
        return plus.parse::<i32>().ok().map(|n| 34 + n).filter(|n| (34..=64).contains(n));
    }
    name.strip_prefix("RTMAX-")?.parse::<i32>().ok().map(|n| 64 - n).filter(|n| (34..=64).contains(n))
}

/// Signals as a bit set: bit `n - 1` is signal `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(u64);

impl SignalSet {
    /// Every signal.
    pub const ALL: Self = Self(u64::MAX);

    /// These.
    pub fn of(numbers: &[i32]) -> Self {
        Self(numbers.iter().fold(0, |set, n| set | 1 << (n - 1)))
    }

    /// All but these.
    pub fn without(self, numbers: &[i32]) -> Self {
        Self(self.0 & !Self::of(numbers).0)
    }
}

/// Sets the calling thread's mask of blocked signals; returns the old one.
pub fn set_mask(set: SignalSet) -> SignalSet {
    let mut old = 0u64;
    // SAFETY: the kernel's sigset is eight bytes; both live through the call.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const set.0, &raw mut old, 8usize)
    };
    SignalSet(old)
}

/// Every signal back to what it does by default, none blocked: as a program expects to be started.
pub fn reset() {
    for number in (1..=64).filter(|n| ![9, 19].contains(n)) {
        // SAFETY: an all-zero kernel sigaction is SIG_DFL without flags; its size is at most 32 bytes.
        unsafe {
            let action = [0u64; 4];
            libc::syscall(libc::SYS_rt_sigaction, number, action.as_ptr(), std::ptr::null::<u64>(), 8usize);
        }
    }
    set_mask(SignalSet::default());
}

/// A signal back to its default; for SIGPIPE and the stop signals of a terminal.
pub fn set_default(number: i32) {
    // SAFETY: SIG_DFL is no function.
    unsafe { libc::signal(number, libc::SIG_DFL) };
}

/// A signal is not to be heard.
pub fn ignore(number: i32) {
    // SAFETY: SIG_IGN is no function.
    unsafe { libc::signal(number, libc::SIG_IGN) };
}

/// signalfd(2): these signals, which must be blocked, are read from it.
pub fn signal_fd(set: SignalSet) -> Result<OwnedFd, SyscallError> {
    // SAFETY: -1 asks for a new descriptor; the set is eight bytes.
    unsafe {
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        match libc::syscall(libc::SYS_signalfd4, -1, &raw const set.0, 8usize, flags) {
            -1 => Err(SyscallError::last("signalfd")),
            fd => Ok(OwnedFd::from_raw_fd(fd as i32)),
        }
    }
}

/// The next signal of a [`signal_fd`]; none if none is pending.
pub fn read_signal(fd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = [0u8; 128];
    // SAFETY: a signalfd writes whole records of 128 bytes.
    let got = unsafe { libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), info.len()) };
    (got == 128).then(|| i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in
            [("TERM", 15), ("sigterm", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("rtmin", 34)]
        {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "SIGNOSUCH", "RTMIN+99", "-1"] {
            assert_eq!(parse(text), None, "{text}");
        }
        for number in 1..=64 {
            assert!(name(number).starts_with("SIG") != (32..=33).contains(&number), "{number}");
        }
        assert_eq!(name(37), "SIGRTMIN+3");
    }
}
