//! Who is who: subordinate ids (subuid(5), subgid(5)), id maps (user_namespaces(7)), the engine's own user
//! namespace and those of containers, and the names that the host gives to ids.

mod auto;
pub mod engine;
pub mod kept;
mod lines;
pub mod map;
pub mod mode;
pub mod names;
pub mod observe;
pub mod ranges;
pub mod space;
pub mod subids;

pub use auto::{Holder, IdNeed};
pub use engine::{EngineNamespace, EngineUser, enter, prepare};
pub use map::{Extent, IdMap, IdMaps};
pub use mode::{ContainerUserns, MapRequest, UsernsMode, container_userns};
pub use ranges::Ranges;
pub use subids::SubIds;

/// What went wrong with ids.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel would not.
    #[error("{0}")]
    Syscall(#[from] unroot_sys::SyscallError),
    /// With the command that cures it.
    #[error("{text}")]
    Cured {
        /// What failed.
        text: String,
        /// What cures it.
        hint: String,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// The command or file that cures it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Cured { hint, .. } => Some(hint),
            _ => None,
        }
    }
}

pub(crate) fn invalid<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Invalid(text.into()))
}
