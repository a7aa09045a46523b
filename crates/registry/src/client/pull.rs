//! From a name to the manifest of one platform.

use ureq::http::{HeaderName, header};

use super::Inner;
use super::backoff::Backoff;
use super::exchange::{Access, Call, Payload, Reply};
use super::server::lock;
use crate::conf::Source;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind};
use crate::manifest::{ACCEPT, Content, MANIFEST_MAX, Manifest, Resolved, check_image, fitting, no_platform};
use crate::platform::Platform;
use crate::reference::Reference;

/// An index may list indexes, which may not.
const INDEX_DEPTH_MAX: usize = 2;
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Finds the image manifest for a platform.
pub(super) fn resolve(inner: &Inner, reference: &Reference, platform: &Platform) -> Result<Resolved, Error> {
    from_any_source(inner, reference, |source, backoff| resolve_at(inner, source, platform, backoff)).map(
        |(_, mut resolved)| {
            let top = resolved.index_digest.as_ref().unwrap_or(&resolved.manifest_digest).clone();
            resolved.reference = reference.clone().or_latest().with_digest(top);
            resolved
        },
    )
}

/// The manifest or index that a reference names.
pub(super) fn manifest(inner: &Inner, reference: &Reference) -> Result<Manifest, Error> {
    let fetch = |source: &Source, backoff: Backoff| {
        let access = Access::repository(inner, source, "pull")?;
        backoff.run(|| fetch(&access, &source.reference, None))
    };
    from_any_source(inner, reference, fetch).map(|(_, manifest)| manifest)
}

/// Tries the mirrors in order, then the registry. The error of the last one leads; those before it are listed.
fn from_any_source<T>(
    inner: &Inner,
    reference: &Reference,
    mut attempt: impl FnMut(&Source, Backoff) -> Result<T, Error>,
) -> Result<(Source, T), Error> {
    let sources = inner.options.conf.sources(&reference.clone().or_latest())?;
    let mut failed: Vec<String> = Vec::new();
    let last = sources.len() - 1;
    for (index, source) in sources.into_iter().enumerate() {
        let backoff =
            if index == last { Backoff::new(&inner.options) } else { Backoff::brief(&inner.options) };
        let what = format!("initializing source docker://{}: ", source.reference.clone().or_latest());
        match attempt(&source, backoff.of(what)) {
            Ok(value) => {
                lock(&inner.preferred).insert(reference.name(), source.clone());
                return Ok((source, value));
            }
            Err(error) if index == last => return Err(explain(reference, &source, error, &failed)),
            Err(error) => failed.push(format!("[{}: {error}]", source.reference)),
        }
    }
    // `sources` always ends with the registry itself.
    Err(Error::new(ErrorKind::Config, format!("{reference}: no source")))
}

fn explain(reference: &Reference, last: &Source, error: Error, mirrors: &[String]) -> Error {
    let error = match mirrors.is_empty() {
        true => error,
        false => {
            error.context(format_args!("(Mirrors also failed: {}): {}", mirrors.join(" "), last.reference))
        }
    };
    error.context(format_args!("initializing source docker://{}", reference.clone().or_latest()))
}

fn resolve_at(
    inner: &Inner,
    source: &Source,
    platform: &Platform,
    backoff: Backoff,
) -> Result<Resolved, Error> {
    let access = Access::repository(inner, source, "pull")?;
    backoff.run(|| {
        let mut current = fetch(&access, &source.reference, None)?;
        let mut index_digest = None;
        for _ in 0..=INDEX_DEPTH_MAX {
            let entries = match current.content()? {
                Content::Image { config, layers } => {
                    check_image(&config, &layers)?;
                    return Ok(Resolved {
                        reference: source.reference.clone(),
                        manifest: current.bytes,
                        manifest_digest: current.digest,
                        media_type: current.media_type,
                        index_digest,
                        config,
                        layers,
                    });
                }
                Content::Index(entries) => entries,
            };
            index_digest.get_or_insert(current.digest);
            let chosen =
                *fitting(&entries, platform).first().ok_or_else(|| no_platform(&entries, platform))?;
            let name = source.reference.without_tag_and_digest().with_digest(chosen.digest.clone());
            current = fetch(&access, &name, Some(chosen.size))?;
        }
        let message =
            format!("{}: image indexes are nested more than {INDEX_DEPTH_MAX} deep", source.reference);
        Err(Error::new(ErrorKind::Unsupported, message))
    })
}

/// Gets one manifest and verifies it against the digest and size that are known of it.
fn fetch(access: &Access, reference: &Reference, size: Option<u64>) -> Result<Manifest, Error> {
    let tag = reference.tag().unwrap_or("latest");
    let wanted = reference.digest().map_or(tag, Digest::as_str);
    let in_context = |error: Error| match error.kind() {
        // (nothing was read, and nobody was asked)
        ErrorKind::Tls | ErrorKind::Network => {
            error.context(format_args!("pinging container registry {}", reference.registry()))
        }
        _ => error.context(format_args!("reading manifest {wanted} in {}", reference.name())),
    };
    if size.is_some_and(|size| size > MANIFEST_MAX) {
        let message = format!("it has {} bytes, more than {MANIFEST_MAX}", size.unwrap_or_default());
        return Err(in_context(Error::new(ErrorKind::TooLarge, message)));
    }
    let call = Call::get(format!("/v2/{}/manifests/{wanted}", reference.repository()))
        .header(header::ACCEPT, ACCEPT);
    let read = || {
        let reply = access.expect(&call, &mut Payload::Empty).map_err(unknown_manifest)?;
        let content_type = reply.header(header::CONTENT_TYPE).unwrap_or_default().to_owned();
        let announced = announced_digest(&reply);
        let bytes = access.read_small(reply, MANIFEST_MAX)?;
        let digest = verify(&bytes, reference.digest().or(announced.as_ref()), size)?;
        Manifest::new(bytes, &content_type, digest)
    };
    read().map_err(in_context)
}

/// The digest that the registry gives with an answer, where it is one.
pub(super) fn announced_digest(reply: &Reply) -> Option<Digest> {
    reply.header(CONTENT_DIGEST)?.parse().ok()
}

fn verify(bytes: &[u8], expected: Option<&Digest>, size: Option<u64>) -> Result<Digest, Error> {
    let actual = expected.map_or_else(|| Digest::sha256(bytes), |expected| expected.of_same_kind(bytes));
    if expected.is_some_and(|expected| *expected != actual) {
        let message = format!("the content has digest {actual}, not {}", expected.map_or("", Digest::as_str));
        return Err(Error::new(ErrorKind::Digest, message));
    }
    match size.filter(|size| *size != bytes.len() as u64) {
        None => Ok(actual),
        Some(size) => {
            let message = format!("the content has {} bytes, not {size}", bytes.len());
            Err(Error::new(ErrorKind::Digest, message))
        }
    }
}

/// Registries word a missing manifest in many ways; users know one.
fn unknown_manifest(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => error.reworded("manifest unknown"),
        _ => error,
    }
}
