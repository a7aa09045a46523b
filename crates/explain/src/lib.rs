//! Who is root, and what of it: facts that are read of a process, whatever engine made it ([`Facts`]); what they mean
//! ([`judge()`]); and how that is told, to people and to programs ([`text`], [`html`]).

pub mod access;
pub mod doors;
pub mod facts;
pub mod host;
pub mod html;
pub mod judge;
mod layers;
pub mod mounts;
pub mod say;
pub mod text;

pub use facts::Facts;
pub use host::Host;
pub use judge::{Report, judge};
