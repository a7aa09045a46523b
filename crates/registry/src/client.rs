//! A blocking registry client, shared by threads.
//!
//! ```text
//! Client (Arc)
//!   Server per registry and trust   connections, scheme, challenge, tokens          server, token, tls
//!     exchange                      one request: scheme, credentials, redirects     exchange, body, challenge, failure
//!     backoff                       tries it again where that may help              backoff
//!   pull, blob, list, push, upload  what the requests are for
//! ```

mod address;
mod backoff;
mod blob;
mod body;
mod challenge;
mod exchange;
mod failure;
mod list;
mod pull;
mod push;
mod server;
mod tls;
mod token;
mod trust;
mod upload;

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::auth::{Auth, Credentials};
use crate::conf::{RegistriesConf, Source};
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{Descriptor, Manifest, Resolved};
use crate::platform::Platform;
use crate::reference::Reference;

pub use blob::BlobReader;
pub use list::SearchResult;
use server::{Server, lock};
use tls::SystemRoots;

/// Bounds on waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connection and TLS handshake. Name look-ups have the bounds of resolv.conf(5).
    pub connect: Duration,
    /// The longest silence of a server, before its answer or inside it.
    pub stall: Duration,
    /// A small answer (manifest, token, list) in all.
    pub small: Duration,
    /// The longest silence after the last byte of an upload, while the registry checks it.
    pub commit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(30), stall: seconds(60), small: seconds(120), commit: seconds(600) }
    }
}

/// How a [`Client`] behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--tls-verify`: `Some(false)` allows unverified TLS and plain HTTP, `Some(true)` overrides `insecure` of
    /// registries.conf, `None` leaves it to registries.conf and allows plain HTTP on this machine's loopback.
    pub tls_verify: Option<bool>,
    /// `--cert-dir`: used instead of the certs.d directories.
    pub cert_dir: Option<PathBuf>,
    /// Directories with one folder per `host[:port]`, as containers-certs.d(5); the first that has it is used.
    /// [`UserEnvironment::certs_d`](crate::UserEnvironment::certs_d) lists them.
    pub certs_d: Vec<PathBuf>,
    /// `--creds`: used instead of `auth`, but never for mirrors.
    pub credentials: Option<Credentials>,
    /// Where credentials are looked for, once per repository.
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

/// A registry client. Cheap to clone; all clones share connections and tokens, and any number of threads may use it.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// What all clones share.
struct Inner {
    options: Options,
    roots: SystemRoots,
    servers: Mutex<HashMap<(String, bool), Arc<Server>>>,
    /// The source that served a repository's manifest is asked first for its blobs.
    preferred: Mutex<HashMap<String, Source>>,
}

impl Inner {
    /// The server of a registry; `--tls-verify` beats what registries.conf says.
    fn server(&self, registry: &str, insecure: bool) -> Result<Arc<Server>, Error> {
        let insecure = self.options.tls_verify.map_or(insecure, |verify| !verify);
        let mut servers = lock(&self.servers);
        if let Some(server) = servers.get(&(registry.to_owned(), insecure)) {
            return Ok(server.clone());
        }
        let server = Arc::new(Server::new(registry, insecure, &self.options, &self.roots)?);
        servers.insert((registry.to_owned(), insecure), server.clone());
        Ok(server)
    }
}

impl Client {
    /// A client; nothing is read or connected yet.
    pub fn new(options: Options) -> Result<Self, Error> {
        let (roots, servers, preferred) = Default::default();
        Ok(Self { inner: Arc::new(Inner { options, roots, servers, preferred }) })
    }

    /// Finds the image manifest for `platform`: mirrors in order, then the registry itself; index entries by fitness.
    ///
    /// A reference without tag and digest means `latest`; one with both means the digest.
    pub fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<Resolved, Error> {
        pull::resolve(&self.inner, reference, platform)
    }

    /// The manifest or index that the reference names, as it is.
    pub fn manifest(&self, reference: &Reference) -> Result<Manifest, Error> {
        pull::manifest(&self.inner, reference)
    }

    /// A small blob (the image configuration) as a whole, verified; at most 8 MiB.
    pub fn config(&self, reference: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        blob::read_config(self.clone(), reference, descriptor)
    }

    /// A blob as a stream, verified before its last byte; see [`BlobReader`]. Returns once a server has the blob.
    pub fn blob(&self, reference: &Reference, descriptor: &Descriptor) -> Result<BlobReader, Error> {
        BlobReader::open(self.clone(), reference, descriptor)
    }

    /// The tags of a repository, in the registry's order.
    pub fn tags(&self, repository: &Reference) -> Result<Vec<String>, Error> {
        list::tags(&self.inner, repository)
    }

    /// At most `limit` repositories of a registry that has a catalogue.
    pub fn catalog(&self, registry: &str, limit: usize) -> Result<Vec<String>, Error> {
        list::catalog(&self.inner, registry, limit)
    }

    /// Searches a registry by its v1 API, else by filtering its catalogue.
    pub fn search(&self, registry: &str, term: &str, limit: usize) -> Result<Vec<SearchResult>, Error> {
        list::search(&self.inner, registry, term, limit)
    }

    /// Checks credentials against a registry, as `login` does before it stores them.
    pub fn login(&self, registry: &str, credentials: &Credentials) -> Result<(), Error> {
        list::login(&self.inner, registry, credentials)
    }

    /// Whether the repository has the blob.
    pub fn has_blob(&self, repository: &Reference, digest: &Digest) -> Result<bool, Error> {
        push::has_blob(&self.inner, repository, digest)
    }

    /// Makes a blob of `from` (a repository path on the same registry) appear in `repository`; false if the registry
    /// would rather have an upload.
    pub fn mount_blob(&self, repository: &Reference, from: &str, digest: &Digest) -> Result<bool, Error> {
        push::mount_blob(&self.inner, repository, from, digest)
    }

    /// Uploads a blob unless the repository has it. `open` is called again for each retry.
    pub fn push_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read>>,
    ) -> Result<(), Error> {
        upload::push_blob(&self.inner, repository, descriptor, open)
    }

    /// Stores a manifest under the reference's tag, or under its digest where it has no tag.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, Error> {
        push::push_manifest(&self.inner, reference, media_type, bytes)
    }
}

/// The most that a download may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// A file of a web server as it comes.
pub fn download(url: &str) -> Result<impl Read + use<>, Error> {
    let failed = |e: ureq::Error| Error::new(crate::error::ErrorKind::Network, format!("GET {url}: {e}"));
    let agent = ureq::Agent::config_builder()
        .timeout_connect(Some(Timeouts::default().connect))
        .timeout_recv_response(Some(SILENCE))
        .build()
        .new_agent();
    let answer = agent.get(url).call().map_err(failed)?;
    Ok(answer.into_body().into_with_config().limit(u64::MAX).reader())
}
