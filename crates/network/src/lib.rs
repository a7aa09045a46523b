//! Networks of containers: which one was asked for, published ports, pasta(1), and the files that name hosts.

pub mod files;
mod mode;
mod pasta;
mod port;

pub use mode::Mode;
pub use pasta::{DNS_FORWARD, HOST_ADDRESS, PASTA_PID, Pasta, value_of};
pub use port::{PortMap, Protocol, wait_free};

/// What went wrong with a network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for makes no sense, or cannot be had.
    #[error("{0}")]
    Invalid(String),
    /// With the command that cures it.
    #[error("{text}")]
    Cured {
        /// What failed.
        text: String,
        /// What cures it.
        hint: String,
    },
}

impl Error {
    /// The command that cures it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Cured { hint, .. } => Some(hint),
            Error::Invalid(_) => None,
        }
    }
}

pub(crate) fn invalid<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Invalid(text.into()))
}
