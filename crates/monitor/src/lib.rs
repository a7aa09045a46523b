//! What outlives the command that started a container: its standard streams, its log, those who attach, its exit.
//!
//! The monitor is forked, not executed, from the command ([`fork`]); it then has one thread, all signals blocked,
//! no descriptor but its own, and one loop over poll(2). Its memory is that of the command, shared until written.
//!
//! # Frames
//! Everybody who attaches speaks over a stream socket in frames of a type (one byte), a length (u32, little
//! endian) and as many bytes. The command that started the container has such a socket from birth, others connect
//! to `attach.sock`.
//!
//! | to the monitor | | from the monitor | |
//! |---|---|---|---|
//! | `h` | first: one byte: 1 wants output, 2 is lossless | `S` | it started; its pid as u32 |
//! | `i` | standard input | `X` | it did not; exit code (one byte) and text |
//! | `z` | end of standard input | `o`, `e` | standard output, standard error |
//! | `w` | rows and columns, u16 each | `q` | exit code, i32: all is recorded and cleaned |
//! | `u` | what the monitor was told at the start has changed | | |
//! | `g` | let the process go that waits: `S` or `X` is the answer | | |

mod asked;
pub mod attach;
mod checks;
mod client;
mod frame;
pub mod log;
pub mod notify;
mod pump;
pub mod session;
mod supervise;
pub mod terminal;

pub use asked::Asked;
pub use checks::Checks;
pub use supervise::{Config, Exit, Held, Started, Stdin, StdioEnds, fork};

/// What went wrong with streams.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call.
    #[error("{0}")]
    Syscall(#[from] unroot_sys::SyscallError),
    /// The log.
    #[error("{0}")]
    Log(String),
    /// The container did not start.
    #[error("{text}")]
    Start {
        /// 125, 126 or 127.
        exit_code: u8,
        /// Why.
        text: String,
    },
    /// The monitor went away without a word.
    #[error("the monitor ended without a word: it was killed, or the kernel ran out of memory")]
    Lost,
}

pub(crate) fn failed(call: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Error {
    move |errno| Error::Syscall(unroot_sys::SyscallError::new(call, errno))
}
