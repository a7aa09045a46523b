//! Archives of images: what `docker save`, `podman save` and skopeo write, in a tar or a directory; and a plain tar
//! of a root filesystem.

mod files;

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::image::{History, ImageConfig, RootfsConfig};
use crate::layer::{Blob, Compression, IdCheck};
use crate::{Error, Image, Progress, Result, Store, digest, hex, invalid};
use files::{Files, blob_name};

const MAX_IMAGES: usize = 1000;
/// Layers that are taken in at once.
const AT_ONCE: usize = 4;

/// An image of an archive, and the names that the archive gives it.
#[derive(Debug)]
pub struct Loaded {
    /// The image.
    pub image: Image,
    /// As found.
    pub names: Vec<String>,
}

/// How an archive is taken in.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    /// Which ids its files may have.
    pub ids: IdCheck<'a>,
    /// When it is, nanoseconds since the epoch.
    pub now: i64,
    /// Is told how it goes.
    pub progress: &'a dyn Progress,
    /// Of several images only the one of this name or number (`PATH:NAME`, `PATH:@N`).
    pub only: Option<&'a str>,
    /// Whether images of a transport (`docker-archive`, `oci-archive`, `dir`) are taken at all.
    pub allows: &'a dyn Fn(&str) -> std::result::Result<(), String>,
    /// Full names for those that the archive has.
    pub full_name: &'a dyn Fn(&str) -> std::result::Result<String, String>,
}

/// A layer as an archive has it.
struct Part {
    name: String,
    diff_id: String,
    /// Its digest and compression there, where it says them.
    blob: Option<(String, Compression)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Store {
    /// Takes the images of an archive or a directory.
    pub fn load(&self, path: &Path, how: &Load<'_>) -> Result<Vec<Loaded>> {
        let _lease = self.lease()?;
        let file = files::open(path)?;
        let files = match file.metadata().is_ok_and(|m| m.is_dir()) {
            true => Files::of_directory(path),
            false => Files::of_file(self, file, how.ids)?,
        };
        self.load_files(&files, how)
    }

    /// Takes the images of an archive that comes.
    pub fn load_stream(&self, source: impl Read, how: &Load<'_>) -> Result<Vec<Loaded>> {
        let _lease = self.lease()?;
        let loaded = Files::of_stream(self, source, how.ids).and_then(|files| self.load_files(&files, how));
        if loaded.is_err() {
            // (layers of an image that did not come to be)
            let _ = self.collect(&[]);
        }
        loaded
    }

    fn load_files(&self, files: &Files, how: &Load<'_>) -> Result<Vec<Loaded>> {
        how.progress.say("Getting image source signatures");
        let has_docker = files.has("manifest.json");
        if has_docker && (!files.has("oci-layout") || files.has("repositories")) {
            return self.load_docker(files, how);
        }
        if files.has("index.json") {
            return self.load_oci(files, how);
        }
        invalid("neither manifest.json (docker-archive, dir) nor index.json (oci-archive, oci) is in it")
    }

    fn load_docker(&self, files: &Files, how: &Load<'_>) -> Result<Vec<Loaded>> {
        if let Ok(manifest) = files.parse::<Manifest>("manifest.json") {
            return self.load_dir_transport(files, &manifest, how);
        }
        (how.allows)("docker-archive").map_err(Error::Invalid)?;
        let images: Vec<DockerImage> = files.parse("manifest.json")?;
        check_images(images.len())?;
        let mut loaded = Vec::new();
        for (n, image) in images.into_iter().enumerate() {
            let names = image.repo_tags.unwrap_or_default();
            if !is_wanted(how.only, n, &names) {
                continue;
            }
            let config = files.read(&image.config)?;
            let parsed = parse_config(&config)?;
            let diff_ids = &parsed.rootfs.diff_ids;
            check_layers(image.layers.len(), diff_ids.len())?;
            let part =
                |(name, diff_id): (String, &String)| Part { name, diff_id: diff_id.clone(), blob: None };
            let parts: Vec<Part> = image.layers.into_iter().zip(diff_ids).map(part).collect();
            self.ingest_all(files, &parts, how)?;
            let manifest = manifest_of(&config, diff_ids, |d| self.layer(d).map_or(0, |l| l.size));
            loaded.push(self.loaded(&manifest, &config, names, how)?);
        }
        found(loaded, how)
    }

    /// skopeo's `dir:`: files named by their digests beside manifest.json.
    fn load_dir_transport(&self, files: &Files, manifest: &Manifest, how: &Load<'_>) -> Result<Vec<Loaded>> {
        (how.allows)("dir").map_err(Error::Invalid)?;
        let plain = |digest: &str| Ok(digest.trim_start_matches("sha256:").to_string());
        let config = files.read(&plain(&manifest.config.digest)?)?;
        let data = files.read("manifest.json")?;
        let loaded = self.load_manifest(files, &data, manifest, &config, &plain, Vec::new(), how)?;
        Ok(vec![loaded])
    }

    fn load_oci(&self, files: &Files, how: &Load<'_>) -> Result<Vec<Loaded>> {
        (how.allows)("oci-archive").map_err(Error::Invalid)?;
        let index: Index = files.parse("index.json")?;
        check_images(index.manifests.len())?;
        let mut loaded = Vec::new();
        for (n, descriptor) in index.manifests.iter().enumerate() {
            let name = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
                .iter()
                .find_map(|k| descriptor.annotations.get(*k));
            let names: Vec<String> = name.cloned().into_iter().collect();
            if !is_wanted(how.only, n, &names) {
                continue;
            }
            let manifest_digest = match descriptor.media_type.as_str() {
                t if t.contains("index") || t.contains("manifest.list") => {
                    platform_of(&files.blob(&descriptor.digest)?)?
                }
                _ => descriptor.digest.clone(),
            };
            let data = files.blob(&manifest_digest)?;
            let manifest: Manifest = serde_json::from_slice(&data)
                .map_err(|e| Error::Invalid(format!("archive: {manifest_digest}: {e}")))?;
            let config = files.blob(&manifest.config.digest)?;
            loaded.push(self.load_manifest(files, &data, &manifest, &config, &blob_name, names, how)?);
        }
        found(loaded, how)
    }

    fn load_manifest(
        &self,
        files: &Files,
        data: &[u8],
        manifest: &Manifest,
        config: &[u8],
        place: &dyn Fn(&str) -> Result<String>,
        names: Vec<String>,
        how: &Load<'_>,
    ) -> Result<Loaded> {
        let diff_ids = parse_config(config)?.rootfs.diff_ids;
        check_layers(manifest.layers.len(), diff_ids.len())?;
        let part = |(layer, diff_id): (&Descriptor, String)| {
            let compression = Compression::of_media_type(&layer.media_type);
            Ok(Part { name: place(&layer.digest)?, diff_id, blob: Some((layer.digest.clone(), compression)) })
        };
        let parts: Vec<Part> = manifest.layers.iter().zip(diff_ids).map(part).collect::<Result<_>>()?;
        self.ingest_all(files, &parts, how)?;
        self.loaded(data, config, names, how)
    }

    fn loaded(&self, manifest: &[u8], config: &[u8], names: Vec<String>, how: &Load<'_>) -> Result<Loaded> {
        let full: std::result::Result<Vec<String>, String> =
            names.iter().map(|n| (how.full_name)(n)).collect();
        let names = full.map_err(Error::Invalid)?;
        let image = self.put_image(manifest, config, &names, how.now)?;
        how.progress.say(&format!("Copying config sha256:{}", image.id));
        how.progress.say("Writing manifest to image destination");
        Ok(Loaded { image, names })
    }

    /// Takes the layers in, several at once.
    fn ingest_all(&self, files: &Files, parts: &[Part], how: &Load<'_>) -> Result<()> {
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        // (a closure that is shared by threads cannot hold `how`, whose names are nobody else's)
        let (ids, progress) = (how.ids, how.progress);
        let work = || {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some(part) = parts.get(n) else { return };
                if failure.lock().is_ok_and(|f: std::sync::MutexGuard<'_, Option<Error>>| f.is_some()) {
                    return;
                }
                if let Err(e) = self.ingest_part(files, n, part, ids, progress)
                    && let Ok(mut first) = failure.lock()
                {
                    first.get_or_insert(e);
                }
            }
        };
        std::thread::scope(|scope| (0..parts.len().min(AT_ONCE)).for_each(|_| drop(scope.spawn(work))));
        failure.into_inner().unwrap_or(None).map_or(Ok(()), Err)
    }

    fn ingest_part(
        &self,
        files: &Files,
        n: usize,
        part: &Part,
        ids: IdCheck<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        if let Some(passed) = files.passed(&part.name) {
            progress.begin(n, &part.diff_id, 0);
            progress.end(n, true);
            return match passed == part.diff_id {
                true => Ok(()),
                false => invalid(format!(
                    "archive: {} has digest {passed} uncompressed, its image says {}: it was damaged or forged on its way",
                    part.name, part.diff_id
                )),
            };
        }
        if self.layer(&part.diff_id).is_some() {
            progress.begin(n, &part.diff_id, 0);
            progress.end(n, true);
            return Ok(());
        }
        let (source, size) = files.open(&part.name)?;
        progress.begin(n, &part.diff_id, size);
        let mut hashed = Hashed { source, n, progress, hash: part.blob.as_ref().map(|_| Sha256::new()) };
        self.ingest_layer(&mut hashed, Some(&part.diff_id), ids)?;
        if let (Some((expected, compression)), Some(digest)) = (&part.blob, hashed.finish()) {
            if digest != *expected {
                return invalid(format!("archive: blob {expected} has digest {digest}"));
            }
            self.note_blob(&part.diff_id, &Blob { digest, size, compression: *compression })?;
        }
        progress.end(n, false);
        Ok(())
    }

    /// A tar of a root filesystem becomes an image of one layer.
    pub fn import(
        &self,
        source: impl Read,
        mut config: ImageConfig,
        history: History,
        names: &[String],
        ids: IdCheck<'_>,
        now: i64,
    ) -> Result<Image> {
        let _lease = self.lease()?;
        let layer = self.ingest_layer(source, None, ids)?;
        config.rootfs = RootfsConfig { kind: "layers".into(), diff_ids: vec![layer.diff_id.clone()] };
        config.history = vec![history];
        let config = serde_json::to_vec(&config).map_err(|e| Error::Invalid(e.to_string()))?;
        let manifest = manifest_of(&config, &[layer.diff_id], |_| layer.size);
        self.put_image(&manifest, &config, names, now)
    }
}

/// Bytes on their way, told and hashed.
struct Hashed<'a> {
    source: Box<dyn Read + Send>,
    n: usize,
    progress: &'a dyn Progress,
    hash: Option<Sha256>,
}

impl Hashed<'_> {
    fn finish(self) -> Option<String> {
        Some(format!("sha256:{}", hex(&self.hash?.finalize())))
    }
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..length]);
        }
        self.progress.advance(self.n, length as u64);
        Ok(length)
    }
}

fn parse_config(config: &[u8]) -> Result<ImageConfig> {
    serde_json::from_slice(config).map_err(|e| Error::Invalid(format!("image configuration: {e}")))
}

fn check_images(count: usize) -> Result<()> {
    match count > MAX_IMAGES {
        true => invalid(format!("archive has {count} images, more than {MAX_IMAGES}")),
        false => Ok(()),
    }
}

fn check_layers(layers: usize, diff_ids: usize) -> Result<()> {
    match layers == diff_ids {
        true => Ok(()),
        false => invalid(format!("archive: {layers} layers, but {diff_ids} diff IDs")),
    }
}

fn is_wanted(only: Option<&str>, n: usize, names: &[String]) -> bool {
    only.is_none_or(|only| {
        only.strip_prefix('@').is_some_and(|number| number == n.to_string())
            || names.iter().any(|name| name == only || name.ends_with(&format!("/{only}")))
    })
}

fn found(loaded: Vec<Loaded>, how: &Load<'_>) -> Result<Vec<Loaded>> {
    match (loaded.is_empty(), how.only) {
        (true, Some(only)) => invalid(format!("archive has no image {only}")),
        (true, None) => invalid("archive has no image"),
        (false, _) => Ok(loaded),
    }
}

fn platform_of(index: &[u8]) -> Result<String> {
    let index: Index =
        serde_json::from_slice(index).map_err(|e| Error::Invalid(format!("archive: index: {e}")))?;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let ours = |d: &&Descriptor| {
        d.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture)
    };
    let found = index.manifests.iter().find(ours);
    found
        .map(|d| d.digest.clone())
        .ok_or_else(|| Error::Invalid(format!("archive has no image for linux/{architecture}")))
}

/// A manifest for an image that came without one, with its layers as plain tars.
pub fn manifest_of(config: &[u8], diff_ids: &[String], size: impl Fn(&str) -> u64) -> Vec<u8> {
    let layers: Vec<serde_json::Value> = diff_ids
        .iter()
        .map(|d| serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": d, "size": size(d)}))
        .collect();
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": config.len()},
        "layers": layers,
    })
    .to_string()
    .into_bytes()
}
