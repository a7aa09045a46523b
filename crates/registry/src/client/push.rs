//! Uploads: blobs first, then the manifest that names them.
//!
//! ```text
//! HEAD  blobs/DIGEST                     200: nothing to do
//! POST  blobs/uploads/?mount=&from=      201: taken over from another repository
//! POST  blobs/uploads/                   202: Location
//! PATCH Location   (the bytes)           202: Location
//! PUT   Location?digest=DIGEST           201
//! PUT   manifests/TAG                    201
//! ```

use std::io::{self, Read};

use ureq::http::{Method, StatusCode, Uri, header};

use super::Inner;
use super::address::{resolve, with_query};
use super::backoff::Backoff;
use super::exchange::{Access, At, Call, Payload, Reply};
use super::pull::announced_digest;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, ErrorKind};
use crate::manifest::{Descriptor, MANIFEST_MAX};
use crate::reference::Reference;

fn access<'a>(inner: &'a Inner, repository: &Reference) -> Result<Access<'a>, Error> {
    Access::repository(inner, &inner.options.conf.destination(repository)?, "pull,push")
}

/// Whether the repository has the blob.
pub(super) fn has_blob(inner: &Inner, repository: &Reference, digest: &Digest) -> Result<bool, Error> {
    let access = access(inner, repository)?;
    Backoff::new(&inner.options).run(|| exists(&access, repository, digest))
}

fn exists(access: &Access, repository: &Reference, digest: &Digest) -> Result<bool, Error> {
    let path = format!("/v2/{}/blobs/{digest}", repository.repository());
    let reply = access.send(&Call::new(Method::HEAD, At::Path(path)), &mut Payload::Empty)?;
    match reply.status() {
        StatusCode::NOT_FOUND => Ok(false),
        status if status.is_success() => Ok(true),
        _ => {
            let refused = access.refused(reply);
            // (a HEAD has no body that says more)
            let refused = match refused.kind() {
                ErrorKind::Unauthorized => refused.reworded("authentication required"),
                _ => refused,
            };
            Err(refused
                .context(format_args!("checking whether a blob {digest} exists in {}", repository.name())))
        }
    }
}

/// Takes a blob over from another repository of the registry.
pub(super) fn mount_blob(
    inner: &Inner,
    repository: &Reference,
    from: &str,
    digest: &Digest,
) -> Result<bool, Error> {
    let access = access(inner, repository)?.also_pull(from);
    let path = format!("/v2/{}/blobs/uploads/", repository.repository());
    let path = with_query(&path, &[("mount", digest.as_str()), ("from", from)]);
    let post = Call::new(Method::POST, At::Path(path));
    Backoff::new(&inner.options).run(|| {
        let reply = access.expect(&post, &mut Payload::Empty)?;
        if reply.status() == StatusCode::CREATED {
            return Ok(true);
        }
        // The registry has begun an upload that nobody will finish; a refusal to end it does no harm.
        if let Ok(upload) = location(&reply) {
            let _ = access.send(&Call::new(Method::DELETE, At::Url(upload)), &mut Payload::Empty);
        }
        Ok(false)
    })
}

/// Uploads a blob.
pub(super) fn push_blob(
    inner: &Inner,
    repository: &Reference,
    descriptor: &Descriptor,
    open: &mut dyn FnMut() -> io::Result<Box<dyn Read>>,
) -> Result<(), Error> {
    let access = access(inner, repository)?;
    let pushed = Backoff::new(&inner.options).run(|| {
        if exists(&access, repository, &descriptor.digest)? {
            return Ok(());
        }
        let stream = open().map_err(|error| local(descriptor, &error.to_string()))?;
        upload(&access, repository, descriptor, stream)
    });
    pushed.map_err(|error| {
        error.context(format_args!("writing blob {} to {}", descriptor.digest, repository.name()))
    })
}

fn upload(
    access: &Access,
    repository: &Reference,
    descriptor: &Descriptor,
    stream: Box<dyn Read>,
) -> Result<(), Error> {
    let start = format!("/v2/{}/blobs/uploads/", repository.repository());
    let begun = access.expect(&Call::new(Method::POST, At::Path(start)), &mut Payload::Empty)?;
    let mut upload = location(&begun)?;
    let mut checked = Checked::new(stream, descriptor);
    if descriptor.size > 0 {
        let patch = Call::new(Method::PATCH, At::Url(upload))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .patient(access.options().timeouts.commit);
        let sent = access.expect(&patch, &mut Payload::Stream(&mut checked, descriptor.size));
        if let Some(fault) = checked.fault.take() {
            return Err(local(descriptor, &fault));
        }
        upload = location(&sent?)?;
    }
    checked.verify()?;
    let digest = descriptor.digest.as_str();
    let commit = with_query(&upload.to_string(), &[("digest", digest)]);
    let commit: Uri = commit
        .parse()
        .map_err(|_| Error::new(ErrorKind::Protocol, format!("{upload}: bad upload address")))?;
    let put = Call::new(Method::PUT, At::Url(commit)).patient(access.options().timeouts.commit);
    access.expect(&put, &mut Payload::Bytes(&[])).map(drop)
}

fn location(reply: &Reply) -> Result<Uri, Error> {
    let missing = || Error::new(ErrorKind::Protocol, format!("{}: the answer has no Location", reply.call));
    resolve(&reply.uri, reply.header(header::LOCATION).ok_or_else(missing)?)
}

/// Stores a manifest.
pub(super) fn push_manifest(
    inner: &Inner,
    reference: &Reference,
    media_type: &str,
    bytes: &[u8],
) -> Result<Digest, Error> {
    let digest =
        reference.digest().map_or_else(|| Digest::sha256(bytes), |digest| digest.of_same_kind(bytes));
    let name = reference.tag().unwrap_or(digest.as_str());
    let in_context =
        |error: Error| error.context(format_args!("writing manifest {name} to {}", reference.name()));
    if reference.digest().is_some_and(|expected| *expected != digest) {
        return Err(in_context(Error::new(ErrorKind::Digest, format!("the manifest has digest {digest}"))));
    }
    if bytes.len() as u64 > MANIFEST_MAX {
        return Err(in_context(Error::new(
            ErrorKind::TooLarge,
            format!("it is larger than {MANIFEST_MAX} bytes"),
        )));
    }
    let access = access(inner, reference)?;
    let path = format!("/v2/{}/manifests/{name}", reference.repository());
    let put = Call::new(Method::PUT, At::Path(path))
        .header(header::CONTENT_TYPE, media_type)
        .patient(inner.options.timeouts.commit);
    let reply = Backoff::new(&inner.options)
        .run(|| access.expect(&put, &mut Payload::Bytes(bytes)))
        .map_err(in_context)?;
    match announced_digest(&reply)
        .filter(|stored| stored.algorithm() == digest.algorithm() && *stored != digest)
    {
        None => Ok(digest),
        Some(stored) => {
            let message = format!("the registry stored {stored} instead of {digest}");
            Err(in_context(Error::new(ErrorKind::Digest, message)))
        }
    }
}

fn local(descriptor: &Descriptor, reason: &str) -> Error {
    Error::new(ErrorKind::Digest, format!("reading the local blob {}: {reason}", descriptor.digest))
}

/// The local bytes on their way out, counted and hashed.
struct Checked<'a> {
    stream: Box<dyn Read>,
    descriptor: &'a Descriptor,
    hasher: Hasher,
    sent: u64,
    fault: Option<String>,
}

impl<'a> Checked<'a> {
    fn new(stream: Box<dyn Read>, descriptor: &'a Descriptor) -> Self {
        Self { stream, descriptor, hasher: Hasher::new(descriptor.digest.algorithm()), sent: 0, fault: None }
    }

    /// All bytes, no more, and the right ones.
    fn verify(mut self) -> Result<(), Error> {
        let more =
            self.stream.read(&mut [0; 1]).map_err(|error| local(self.descriptor, &error.to_string()))?;
        if more > 0 || self.sent != self.descriptor.size {
            return Err(local(self.descriptor, &format!("it does not have {} bytes", self.descriptor.size)));
        }
        let actual = self.hasher.finish();
        match actual == self.descriptor.digest {
            true => Ok(()),
            false => Err(local(self.descriptor, &format!("the content has digest {actual}"))),
        }
    }

    fn read_checked(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.descriptor.size - self.sent).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let count = self.stream.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::Error::other(format!(
                "it ends after {} of {} bytes",
                self.sent, self.descriptor.size
            )));
        }
        self.hasher.update(&buffer[..count]);
        self.sent += count as u64;
        Ok(count)
    }
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.read_checked(buffer);
        if let Err(error) = &result {
            self.fault = Some(error.to_string());
        }
        result
    }
}
