//! Whoever manages the control group that a monitor is in (systemd stops a scope, or the host goes down) asks all
//! processes in it to end, by a signal, and kills those that are left after a time. The container has been asked like the
//! monitor; the monitor sees to it that it has ended before that, and records it.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use unroot_sys::signal::{SignalSet, read_signal, signal_fd};

/// SIGTERM, which it may be as well.
const TERM: i32 = 15;

/// Hears that.
#[derive(Debug)]
pub struct Asked {
    signals: OwnedFd,
    /// How long the container has then.
    pub grace: Duration,
    heard: bool,
}

impl Asked {
    /// From now on; it is asked by this signal, which is blocked. None without memory for it.
    pub fn listen(signal: i32, grace: Duration) -> Option<Self> {
        let signals = signal_fd(SignalSet::of(&[TERM, signal])).ok()?;
        // (what came earlier was for the command)
        while read_signal(signals.as_fd()).is_some() {}
        Some(Self { signals, grace, heard: false })
    }

    /// Is readable when it is asked.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    /// Whether it was asked.
    pub fn is_heard(&mut self) -> bool {
        self.heard |= read_signal(self.signals.as_fd()).is_some();
        self.heard
    }

    /// Waits so long at most; whether it was asked.
    pub fn wait(&mut self, time: Duration) -> bool {
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let _ = poll(&mut [PollFd::new(&self.signals, PollFlags::IN)], Some(&time));
        self.is_heard()
    }
}
