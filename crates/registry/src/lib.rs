//! The distribution protocol: image names, registries.conf, credentials, and a blocking client that pulls and pushes.
//!
//! A pull reads from top to bottom as
//!
//! ```text
//! Name::parse("alpine")  -> short name  -> RegistriesConf::resolve_short -> candidates (Reference)
//! Client::resolve(&Reference, &Platform) -> Resolved { manifest, config, layers }   one source of the mirrors answered
//! Client::blob(&resolved.reference, &layer) -> BlobReader                            one per thread, as many as wanted
//! ```
//!
//! Everything that comes from a server is hostile: each body has a size limit, each blob and manifest is compared with
//! its digest before its last byte is handed on, redirects never carry credentials to another host, and each wait has
//! an end. The crate writes nothing to disk and knows no storage; the engine joins it to the store.

pub mod auth;
pub mod client;
pub mod conf;
pub mod digest;
pub mod environment;
pub mod error;
pub mod manifest;
pub mod platform;
pub mod reference;
pub mod signature;

pub use auth::{Auth, Credentials};
pub use client::{BlobReader, Client, Options, SearchResult, Timeouts, download};
pub use conf::{RegistriesConf, Resolution, ShortNameMode};
pub use digest::Digest;
pub use environment::UserEnvironment;
pub use error::{Error, ErrorKind};
pub use manifest::{Descriptor, Manifest, Resolved};
pub use platform::Platform;
pub use reference::{Name, ParseError, Reference, ShortName};
