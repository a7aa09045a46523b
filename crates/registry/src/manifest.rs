//! Manifests and indexes: OCI and Docker schema 2, checked before anything in them is believed.
//!
//! A body counts as what its `Content-Type` says, if the body does not contradict it: a text that could be read as both
//! a manifest and an index is refused, since two readers of it would see two images under one digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::error::{Error, ErrorKind};
use crate::platform::Platform;
use crate::reference::Reference;

/// The largest manifest or index, in bytes.
pub const MANIFEST_MAX: u64 = 4 << 20;
/// The largest image configuration, in bytes.
pub const CONFIG_MAX: u64 = 8 << 20;

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What is asked for, in one Accept header.
pub(crate) const ACCEPT: &str = concat!(
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, ",
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"
);

/// A piece of content: type, digest, size in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type.
    #[serde(default)]
    pub media_type: String,
    /// The digest of the content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Where else the content is (foreign layers). Not used for downloads.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// In an index: the platform of the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor of given content.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::sha256(bytes),
            size: bytes.len() as u64,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
        }
    }
}

/// A manifest or index as the registry serves it, its digest verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The exact bytes.
    pub bytes: Vec<u8>,
    /// The media type: of the answer where it is a known one, else of the body.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
}

/// An image of one platform, ready to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The name that was asked for, with the digest of what it points at (the index's, where there is one).
    pub reference: Reference,
    /// The exact bytes of the image manifest.
    pub manifest: Vec<u8>,
    /// Its digest.
    pub manifest_digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// The digest of the index that the manifest was chosen from.
    pub index_digest: Option<Digest>,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, base first.
    pub layers: Vec<Descriptor>,
}

/// What a manifest's text says.
#[derive(Debug)]
pub(crate) enum Content {
    Image { config: Descriptor, layers: Vec<Descriptor> },
    Index(Vec<Descriptor>),
}

/// The fields that tell the kinds apart, and those of both.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// Takes a body with its `Content-Type`; says what it is, or why it cannot be used.
    pub(crate) fn new(bytes: Vec<u8>, content_type: &str, digest: Digest) -> Result<Self, Error> {
        let document = Document::parse(&bytes)?;
        let announced = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let media_type = document.kind(&announced)?.to_owned();
        Ok(Self { bytes, media_type, digest })
    }

    /// Whether it lists manifests rather than layers.
    pub fn is_index(&self) -> bool {
        is_index(&self.media_type)
    }

    /// The entries of an index; empty for an image manifest.
    pub fn entries(&self) -> Result<Vec<Descriptor>, Error> {
        match self.content()? {
            Content::Index(entries) => Ok(entries),
            Content::Image { .. } => Ok(Vec::new()),
        }
    }

    pub(crate) fn content(&self) -> Result<Content, Error> {
        let document = Document::parse(&self.bytes)?;
        if self.is_index() {
            return Ok(Content::Index(document.manifests.unwrap_or_default()));
        }
        match (document.config, document.layers) {
            (Some(config), Some(layers)) => Ok(Content::Image { config, layers }),
            _ => Err(protocol("the manifest has no config or no layers")),
        }
    }
}

impl Document {
    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let document: Self = serde_json::from_slice(bytes)
            .map_err(|error| protocol(format!("parsing the manifest: {error}")))?;
        if document.schema_version == Some(1) || document.fs_layers.is_some() {
            return Err(schema_1());
        }
        if document.manifests.is_some() && (document.layers.is_some() || document.config.is_some()) {
            return Err(protocol(
                "the manifest is ambiguous: it has both `manifests` and `layers` or `config`",
            ));
        }
        Ok(document)
    }

    /// The media type that holds, given the one announced in the answer's head.
    fn kind<'a>(&'a self, announced: &'a str) -> Result<&'a str, Error> {
        let inner = self.media_type.as_deref().unwrap_or_default();
        let chosen = match (announced, inner) {
            (announced, _) if announced.starts_with("application/vnd.docker.distribution.manifest.v1") => {
                return Err(schema_1());
            }
            (announced, inner) if is_known(announced) && is_known(inner) && announced != inner => {
                return Err(protocol(format!("the manifest says {inner:?}, the registry {announced:?}")));
            }
            (announced, _) if is_known(announced) => announced,
            (_, inner) if is_known(inner) => inner,
            ("" | "application/json" | "text/plain" | "application/octet-stream", "") => self.guess(),
            (announced, inner) => {
                let name = if inner.is_empty() { announced } else { inner };
                let message = format!("unsupported manifest media type {:?}", printable(name));
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        };
        match is_index(chosen) == self.manifests.is_some() {
            true => Ok(chosen),
            false => Err(protocol(format!("the manifest is not what its media type {chosen:?} says"))),
        }
    }

    fn guess(&self) -> &'static str {
        if self.manifests.is_some() { OCI_INDEX } else { OCI_MANIFEST }
    }
}

/// The entries that run on `platform`, the best first; nested indexes without a platform last.
pub(crate) fn fitting<'a>(entries: &'a [Descriptor], platform: &Platform) -> Vec<&'a Descriptor> {
    let mut fits: Vec<(u32, &Descriptor)> = entries
        .iter()
        .filter_map(|entry| match &entry.platform {
            Some(offered) => platform.fitness(offered).map(|fitness| (fitness, entry)),
            None => is_index(&entry.media_type).then_some((u32::MAX, entry)),
        })
        .collect();
    fits.sort_by_key(|(fitness, _)| *fitness);
    fits.into_iter().map(|(_, entry)| entry).collect()
}

/// No entry fits: says what there is.
pub(crate) fn no_platform(entries: &[Descriptor], platform: &Platform) -> Error {
    let mut offered: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .map(|platform| printable(&platform.to_string()))
        .filter(|platform| !platform.starts_with("unknown"))
        .take(30)
        .collect();
    offered.dedup();
    let hint = match offered.is_empty() {
        true => "the image index names no platforms".to_owned(),
        false => format!("the image is for {}; choose one with --platform", offered.join(", ")),
    };
    let message = format!(
        "no image found in image index for architecture {:?}, variant {:?}, OS {:?}",
        platform.architecture,
        platform.variant.as_deref().unwrap_or_default(),
        platform.os
    );
    Error::new(ErrorKind::Platform, message).hinted(hint)
}

/// Refuses artifacts and layer types that no container can be made of.
pub(crate) fn check_image(config: &Descriptor, layers: &[Descriptor]) -> Result<(), Error> {
    if ![OCI_CONFIG, DOCKER_CONFIG].contains(&config.media_type.as_str()) {
        let message = format!(
            "this is no container image but an artifact with a config of type {:?}",
            printable(&config.media_type)
        );
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    if config.size > CONFIG_MAX {
        let message = format!("the image configuration has {} bytes, more than {CONFIG_MAX}", config.size);
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    match layers.iter().find(|layer| !is_layer(&layer.media_type)) {
        None => Ok(()),
        Some(layer) => {
            let message = format!(
                "unsupported layer media type {:?} of {}",
                printable(&layer.media_type),
                layer.digest
            );
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

fn is_layer(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    )
}

fn is_index(media_type: &str) -> bool {
    media_type == OCI_INDEX || media_type == DOCKER_LIST
}

fn is_known(media_type: &str) -> bool {
    is_index(media_type) || media_type == OCI_MANIFEST || media_type == DOCKER_MANIFEST
}

fn schema_1() -> Error {
    let message = "the image has a Docker schema 1 manifest, a format that was withdrawn in 2019 and cannot be verified by digest";
    Error::new(ErrorKind::Unsupported, message).hinted("push the image again with a current tool")
}

fn protocol(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Protocol, message)
}

/// A server's words without control characters and bounded.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// `null` counts as missing: Go writes its empty maps and lists so.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn read(text: &str, content_type: &str) -> Result<Manifest, String> {
        let digest = Digest::sha256(text.as_bytes());
        Manifest::new(text.as_bytes().to_vec(), content_type, digest).map_err(|error| error.to_string())
    }

    fn image(media_type: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{{"mediaType":"{OCI_CONFIG}","digest":"{D}","size":2,"annotations":null}},"layers":[]}}"#
        )
    }

    #[test]
    fn kinds() {
        assert_eq!(read(&image(OCI_MANIFEST), OCI_MANIFEST).unwrap().media_type, OCI_MANIFEST);
        assert_eq!(
            read(&image(DOCKER_MANIFEST), "application/json; charset=utf-8").unwrap().media_type,
            DOCKER_MANIFEST
        );
        assert_eq!(read(r#"{"manifests":[]}"#, "").unwrap().media_type, OCI_INDEX);
        assert!(read(&image(OCI_MANIFEST), DOCKER_MANIFEST).unwrap_err().contains("the registry"));
        assert!(read(&image(OCI_INDEX), "").unwrap_err().contains("not what its media type"));
        assert!(read(r#"{"manifests":[],"layers":[]}"#, OCI_INDEX).unwrap_err().contains("ambiguous"));
        assert!(read(r#"{"schemaVersion":1,"fsLayers":[]}"#, "").unwrap_err().contains("schema 1"));
        assert!(
            read("{}", "application/vnd.docker.distribution.manifest.v1+prettyjws")
                .unwrap_err()
                .contains("schema 1")
        );
        assert!(read("{}", "text/html").unwrap_err().contains("unsupported manifest media type"));
        assert!(read("<html>", "").unwrap_err().contains("parsing the manifest"));
        let negative = image(OCI_MANIFEST).replace("\"size\":2", "\"size\":-2");
        assert!(read(&negative, OCI_MANIFEST).unwrap_err().contains("parsing the manifest"));
    }

    #[test]
    fn artifacts_are_no_images() {
        let config = Descriptor::of("application/vnd.oci.empty.v1+json", b"{}");
        assert_eq!(check_image(&config, &[]).unwrap_err().kind(), ErrorKind::Unsupported);
        let config = Descriptor::of(OCI_CONFIG, b"{}");
        let layer = Descriptor::of("application/x-evil\u{1b}[2J", b"");
        assert_eq!(
            check_image(&config, &[layer]).unwrap_err().to_string(),
            format!("unsupported layer media type \"application/x-evil[2J\" of {D}")
        );
    }

    #[test]
    fn best_platform_first() {
        let entry = |platform: &str| Descriptor {
            platform: Some(platform.parse().unwrap()),
            ..Descriptor::of(OCI_MANIFEST, platform.as_bytes())
        };
        let entries = ["linux/arm/v5", "linux/arm/v7", "linux/amd64", "linux/arm/v6"].map(entry);
        let order: Vec<_> = fitting(&entries, &"linux/arm/v6".parse().unwrap())
            .iter()
            .map(|entry| entry.platform.as_ref().unwrap().to_string())
            .collect();
        assert_eq!(order, ["linux/arm/v6", "linux/arm/v5"]);
        let error = no_platform(&entries, &"linux/s390x".parse().unwrap());
        assert_eq!(
            error.to_string(),
            r#"no image found in image index for architecture "s390x", variant "", OS "linux""#
        );
    }
}
