//! Work that is done beside the container from time to time, one piece after the other, each in a child of the monitor.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{WaitId, WaitIdOptions, waitid};
use unroot_sys::process::{Fork, close_all_but, exit_now, fork};

/// What is done, and when.
pub struct Checks<'a> {
    /// How long until the next piece, seen from the start of the container or the end of the last; none if there is
    /// none. Asked again when somebody says that it may have changed.
    pub next: &'a mut dyn FnMut() -> Option<Duration>,
    /// Does one, in the child; the monitor knows nothing of it but that it ends.
    pub act: &'a dyn Fn(),
}

/// How far it is.
pub(crate) struct Schedule<'a> {
    checks: Checks<'a>,
    /// What `due` counts from.
    since: Instant,
    due: Option<Instant>,
    running: Option<OwnedFd>,
}

impl<'a> Schedule<'a> {
    /// At the start of the container.
    pub fn new(checks: Checks<'a>) -> Self {
        Self { checks, since: Instant::now(), due: None, running: None }
    }

    /// The container has been started.
    pub fn begin(&mut self) {
        self.since = Instant::now();
        self.ask();
    }

    /// When may have changed.
    pub fn ask(&mut self) {
        self.due = (self.checks.next)().and_then(|pause| self.since.checked_add(pause));
    }

    /// When there is something to do.
    pub fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.running.is_none())
    }

    /// The child, which can be polled for its end.
    pub fn child(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().map(|fd| fd.as_fd())
    }

    /// The child has ended.
    pub fn reap(&mut self) {
        if let Some(child) = self.running.take() {
            let _ = waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED);
            self.begin();
        }
    }

    /// Does what is due.
    pub fn mind(&mut self, now: Instant) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        match fork() {
            Ok(Fork::Child) => {
                close_all_but(&[rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]);
                (self.checks.act)();
                exit_now(0)
            }
            Ok(Fork::Parent(child)) => self.running = Some(child.pidfd),
            // (no process to be had: at the next time, then)
            Err(_) => self.begin(),
        }
    }
}
