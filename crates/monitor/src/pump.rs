//! Standard input on its way into a process: buffered, never blocking, its end told.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;

/// Bytes read at once.
pub const READ_SIZE: usize = 64 << 10;

const FULL: usize = 256 << 10;

/// The write end of a process's standard input.
pub struct Input {
    fd: Option<OwnedFd>,
    buffer: Vec<u8>,
    sent: usize,
    ended: bool,
    is_terminal: bool,
}

impl Input {
    /// A pipe, or none.
    pub fn pipe(fd: Option<OwnedFd>) -> Self {
        if let Some(fd) = &fd {
            let _ = rustix::io::ioctl_fionbio(fd, true);
        }
        Self { fd, buffer: Vec::new(), sent: 0, ended: false, is_terminal: false }
    }

    /// The master of a terminal: it has no end.
    pub fn terminal(fd: Option<OwnedFd>) -> Self {
        Self { is_terminal: true, ..Self::pipe(fd) }
    }

    /// What it holds open.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(|fd| fd.as_fd())
    }

    /// No more is wanted now.
    pub fn is_full(&self) -> bool {
        self.buffer.len() - self.sent > FULL
    }

    /// What to wait for before more can be written.
    pub fn blocked(&self) -> Option<BorrowedFd<'_>> {
        self.descriptor().filter(|_| self.sent < self.buffer.len())
    }

    /// Bytes for it.
    pub fn push(&mut self, data: &[u8]) {
        if self.fd.is_some() && !self.ended {
            self.buffer.extend(data);
            self.flush();
        }
    }

    /// No more will come.
    pub fn end(&mut self) {
        self.ended = !self.is_terminal;
        self.flush();
    }

    /// Writes what can be written.
    pub fn flush(&mut self) {
        while let Some(fd) = &self.fd {
            if self.sent == self.buffer.len() {
                self.buffer.clear();
                self.sent = 0;
                if self.ended {
                    self.fd = None;
                }
                return;
            }
            match rustix::io::write(fd, &self.buffer[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // nobody reads it any more
                Err(_) => {
                    self.fd = None;
                    self.buffer.clear();
                    self.sent = 0;
                }
            }
        }
    }
}
