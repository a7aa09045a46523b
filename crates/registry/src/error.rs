//! What the client reports: one opaque error whose kind drives exit codes, retries and hints.

use std::fmt;
use std::time::Duration;

/// What went wrong, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The registry wants other (or any) credentials.
    Unauthorized,
    /// No such manifest, blob or repository.
    NotFound,
    /// The credentials are good but do not allow this.
    Denied,
    /// The registry asks to come back later (429) and did so until the retries ran out.
    RateLimited,
    /// No connection, a broken one, a stalled one, or a server error (5xx).
    Network,
    /// No trusted connection: certificate, handshake, or an HTTP answer to a TLS hello.
    Tls,
    /// The bytes are not those that the digest or the size names.
    Digest,
    /// A body is larger than its limit or than the size that was announced.
    TooLarge,
    /// registries.conf blocks this registry.
    Blocked,
    /// A short name has no resolution, or too many.
    ShortName,
    /// The image has no variant for the platform.
    Platform,
    /// A manifest or a content type that is not supported (such as schema 1).
    Unsupported,
    /// The server's answer breaks the protocol.
    Protocol,
    /// A configuration file, certificate or credential helper of this host is broken.
    Config,
}

/// A failed registry operation: what was tried, against which address, why it failed, and the cure where one is known.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    retry: Retry,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Whether trying the same again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    Never,
    Backoff,
    After(Duration),
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, retry: Retry::Never, source: None }
    }

    pub(crate) fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn retrying(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    pub(crate) fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Puts a verb phrase in front of the message: `what: message`.
    pub(crate) fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Replaces the message; kind, hint and cause stay.
    pub(crate) fn reworded(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Whoever asks knows what to do.
    pub(crate) fn without_hint(mut self) -> Self {
        self.hint = None;
        self
    }

    pub(crate) fn retry(&self) -> Retry {
        self.retry
    }

    /// What went wrong, as far as a caller can act on it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The file, flag or command that cures it, where one is known.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The registry error inside an I/O error, as [`BlobReader`](crate::BlobReader) returns them.
    pub fn of_io(error: &std::io::Error) -> Option<&Error> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        std::io::Error::other(error)
    }
}
