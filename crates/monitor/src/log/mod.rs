//! Log drivers: what the monitor writes, and how it is read again.

pub mod journal;
mod read;
mod time;
mod write;

pub use read::{Line, ReadOptions, Reader, read};
pub use time::{format_nanos, now, parse_time};
pub use write::{Driver, Options, Writer};

/// Which of a process's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// 1
    Stdout,
    /// 2
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}
