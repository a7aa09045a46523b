//! A blocking registry client, shared by threads.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::{Auth, Credentials};
use crate::conf::RegistriesConf;
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{Descriptor, Manifest, Resolved};
use crate::platform::Platform;
use crate::reference::Reference;

/// Bounds on waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name look-up, TCP connection and TLS handshake.
    pub connect: Duration,
    /// From the request's last byte to the answer's head.
    pub response: Duration,
    /// The longest silence inside a body.
    pub stall: Duration,
    /// A small answer (manifest, config, token, list) in all.
    pub small: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(30), response: seconds(60), stall: seconds(30), small: seconds(120) }
    }
}

/// How a [`Client`] behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--tls-verify`: `Some(false)` allows unverified TLS and plain HTTP, `Some(true)` overrides `insecure` of
    /// registries.conf, `None` leaves it to registries.conf.
    pub tls_verify: Option<bool>,
    /// `--cert-dir`: used instead of the certs.d directories.
    pub cert_dir: Option<PathBuf>,
    /// Directories with one folder per `host[:port]`, as containers-certs.d(5); the first that has it is used.
    pub certs_d: Vec<PathBuf>,
    /// `--creds`: used instead of `auth`.
    pub credentials: Option<Credentials>,
    /// Where credentials are looked for.
    pub auth: Auth,
    /// Mirrors, insecure and blocked registries.
    pub conf: RegistriesConf,
    /// `--retry`: how often a failed request is tried again.
    pub retry: u32,
    /// `--retry-delay`: a fixed pause between tries; `None` doubles from one second, with jitter.
    pub retry_delay: Option<Duration>,
    /// The User-Agent header.
    pub user_agent: String,
    /// Bounds on waiting.
    pub timeouts: Timeouts,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls_verify: None,
            cert_dir: None,
            certs_d: vec!["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()],
            credentials: None,
            auth: Auth::none(),
            conf: RegistriesConf::default(),
            retry: 3,
            retry_delay: None,
            user_agent: concat!("unroot/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeouts: Timeouts::default(),
        }
    }
}

/// One line of `search`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchResult {
    /// The registry that was asked.
    pub index: String,
    /// `registry/repository`.
    pub name: String,
    /// The description, empty if unknown.
    pub description: String,
    /// Stars; 0 if unknown.
    pub stars: u64,
    /// Official image.
    pub official: bool,
    /// Automated build.
    pub automated: bool,
}

/// A registry client. Cheap to clone; all clones share connections and tokens, and any number of threads may use it.
#[derive(Clone)]
pub struct Client {}

impl Client {
    /// A client; nothing is read or connected yet but the system's certificate store at the first TLS connection.
    pub fn new(options: Options) -> Result<Self, Error> {
        let _ = options;
        unimplemented!()
    }

    /// Finds the image manifest for `platform`: mirrors in order, then the registry itself; index entries by fitness.
    pub fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<Resolved, Error> {
        let _ = (reference, platform);
        unimplemented!()
    }

    /// The manifest or index that the reference names, as it is.
    pub fn manifest(&self, reference: &Reference) -> Result<Manifest, Error> {
        let _ = reference;
        unimplemented!()
    }

    /// A small blob (the image configuration) as a whole, verified; at most 8 MiB.
    pub fn config(&self, reference: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let _ = (reference, descriptor);
        unimplemented!()
    }

    /// A blob as a stream, verified at its end; see [`BlobReader`].
    pub fn blob(&self, reference: &Reference, descriptor: &Descriptor) -> Result<BlobReader, Error> {
        let _ = (reference, descriptor);
        unimplemented!()
    }

    /// The tags of a repository, in the registry's order.
    pub fn tags(&self, repository: &Reference) -> Result<Vec<String>, Error> {
        let _ = repository;
        unimplemented!()
    }

    /// Searches a registry by its v1 API, else by filtering its catalogue.
    pub fn search(&self, registry: &str, term: &str, limit: usize) -> Result<Vec<SearchResult>, Error> {
        let _ = (registry, term, limit);
        unimplemented!()
    }

    /// Checks credentials against a registry, as `login` does before it stores them.
    pub fn login(&self, registry: &str, credentials: &Credentials) -> Result<(), Error> {
        let _ = (registry, credentials);
        unimplemented!()
    }

    /// Whether the repository has the blob.
    pub fn has_blob(&self, repository: &Reference, digest: &Digest) -> Result<bool, Error> {
        let _ = (repository, digest);
        unimplemented!()
    }

    /// Makes a blob of `from` (a repository path on the same registry) appear in `repository`; false if the registry would rather have an upload.
    pub fn mount_blob(&self, repository: &Reference, from: &str, digest: &Digest) -> Result<bool, Error> {
        let _ = (repository, from, digest);
        unimplemented!()
    }

    /// Uploads a blob unless the repository has it. `open` is called again for each retry.
    pub fn push_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read>>,
    ) -> Result<(), Error> {
        let _ = (repository, descriptor, open);
        unimplemented!()
    }

    /// Stores a manifest under the reference's tag, or under its digest where it has no tag.
    pub fn push_manifest(&self, reference: &Reference, media_type: &str, bytes: &[u8]) -> Result<Digest, Error> {
        let _ = (reference, media_type, bytes);
        unimplemented!()
    }
}

/// A blob as it arrives. It reconnects with `Range` after a broken or stalled connection, and its last `read`
/// fails unless size and digest are right: what was read is not to be trusted before `Ok(0)`.
///
/// Errors are [`io::Error`]s that hold an [`Error`]; [`Error::of_io`] gets it back. For progress wrap the reader.
pub struct BlobReader {}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let _ = buffer;
        unimplemented!()
    }
}
