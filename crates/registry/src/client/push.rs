//! Uploads: blobs first, then the manifest that names them.
//!
//! ```text
//! HEAD  blobs/DIGEST                     200: nothing to do
//! POST  blobs/uploads/?mount=&from=      201: taken over from another repository
//! POST  blobs/uploads/                   202: Location
//! PATCH, PUT ...                         see upload
//! PUT   manifests/TAG                    201
//! ```

use ureq::http::{Method, StatusCode, header};

use super::Inner;
use super::address::with_query;
use super::backoff::Backoff;
use super::exchange::{Access, At, Call, Payload};
use super::pull::announced_digest;
use super::upload::location;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind};
use crate::manifest::MANIFEST_MAX;
use crate::reference::Reference;

pub(super) fn access<'a>(inner: &'a Inner, repository: &Reference) -> Result<Access<'a>, Error> {
    Access::repository(inner, &inner.options.conf.destination(repository)?, "pull,push")
}

/// Whether the repository has the blob.
pub(super) fn has_blob(inner: &Inner, repository: &Reference, digest: &Digest) -> Result<bool, Error> {
    let access = access(inner, repository)?;
    Backoff::new(&inner.options).run(|| exists(&access, repository, digest))
}

pub(super) fn exists(access: &Access, repository: &Reference, digest: &Digest) -> Result<bool, Error> {
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
