//! Somebody who is attached.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::frame;

/// Wants what the container prints.
pub const WANTS_OUTPUT: u8 = 1;
/// Must lose nothing: while it does not read, the container waits.
pub const LOSSLESS: u8 = 2;

/// Above this the container's output is not read until the client has.
const FULL: usize = 256 << 10;

/// One connection.
pub struct Client {
    /// Its socket, not blocking.
    pub socket: OwnedFd,
    /// What it asked for.
    pub flags: u8,
    /// Frames that it has not taken yet.
    pub out: Vec<u8>,
    sent: usize,
    incoming: Vec<u8>,
    progress: Instant,
    /// What is sent arrives.
    hears: bool,
    /// It is gone.
    pub gone: bool,
}

/// What a client says.
pub enum Said {
    /// Bytes for standard input.
    Input(Vec<u8>),
    /// The end of standard input.
    EndOfInput,
    /// What the container is to be like has changed.
    Update,
    /// The process that waits is to be let go.
    Go,
    /// The size of its window: rows, columns.
    Size(u16, u16),
}

impl Client {
    /// A new one.
    pub fn new(socket: OwnedFd, flags: u8) -> Self {
        let _ = rustix::io::ioctl_fionbio(&socket, true);
        Self {
            socket,
            flags,
            out: Vec::new(),
            sent: 0,
            incoming: Vec::new(),
            progress: Instant::now(),
            hears: true,
            gone: false,
        }
    }

    /// It cannot take more now.
    pub fn is_full(&self) -> bool {
        self.out.len() - self.sent > FULL
    }

    /// It has not read for so long that the container does not wait for it any longer.
    pub fn is_stuck(&self, now: Instant) -> bool {
        self.flags & LOSSLESS == 0 && self.is_full() && now.duration_since(self.progress).as_secs() >= 10
    }

    /// There is something to send.
    pub fn has_output(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Queues a frame.
    pub fn queue(&mut self, kind: u8, data: &[u8]) {
        if !self.has_output() {
            self.progress = Instant::now();
        }
        if self.hears {
            frame::push(&mut self.out, kind, data);
        }
    }

    /// Sends as much as it takes.
    pub fn flush(&mut self) {
        while self.has_output() {
            match rustix::net::send(&self.socket, &self.out[self.sent..], SendFlags::NOSIGNAL) {
                Ok(n) => {
                    self.sent += n;
                    self.progress = Instant::now();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // (what it said before it went is there to be read)
                Err(_) => {
                    self.hears = false;
                    break;
                }
            }
        }
        self.out.clear();
        self.sent = 0;
    }

    /// Reads what it says.
    pub fn read(&mut self, said: &mut Vec<Said>) {
        let mut chunk = [0; 32 << 10];
        match rustix::net::recv(&self.socket, &mut chunk[..], RecvFlags::empty()) {
            Ok((0, _)) => self.gone = true,
            Ok((n, _)) => self.incoming.extend(&chunk[..n]),
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => self.gone = true,
        }
        let mut used = 0;
        loop {
            match frame::next(&self.incoming[used..]) {
                Ok(Some((kind, data, length))) => {
                    match (kind, data) {
                        (b'h', [flags]) => self.flags = *flags,
                        (b'i', data) => said.push(Said::Input(data.to_vec())),
                        (b'z', _) => said.push(Said::EndOfInput),
                        (b'u', _) => said.push(Said::Update),
                        (b'g', _) => said.push(Said::Go),
                        (b'w', &[a, b, c, d]) => {
                            said.push(Said::Size(u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])))
                        }
                        _ => self.gone = true,
                    }
                    used += length;
                }
                Ok(None) => break,
                Err(frame::TooLong) => {
                    self.gone = true;
                    break;
                }
            }
        }
        self.incoming.drain(..used);
    }
}
