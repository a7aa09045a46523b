//! Archives of images: what `docker save`, `podman save` and skopeo write, in a tar or a directory; and a plain tar
//! of a root filesystem.
//!
//! Files of an archive are looked up by the names that they have in it, never on disk: a tar is spooled into
//! numbered files of our own.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::image::{History, ImageConfig, RootfsConfig};
use crate::layer::{IdCheck, is_digest};
use crate::{Call as _, Error, Image, Result, Store, Temporary, digest, invalid, pipe};

const MAX_JSON: u64 = 8 << 20;
const MAX_FILES: usize = 100_000;
const MAX_IMAGES: usize = 1000;

/// An image of an archive, and the names that the archive gives it.
#[derive(Debug)]
pub struct Loaded {
    /// The image.
    pub image: Image,
    /// As found.
    pub names: Vec<String>,
}

/// The files of an archive.
enum Files {
    Directory(PathBuf),
    Spooled { files: HashMap<String, PathBuf>, links: HashMap<String, String>, _dir: Temporary },
}

impl Files {
    fn open(&self, name: &str) -> Result<File> {
        let missing = || Error::Invalid(format!("archive has no {name}"));
        match self {
            Files::Directory(dir) => {
                use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat};
                use unroot_sys::path::openat2;
                let root = openat(CWD, dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                    .call(|| format!("open {}", dir.display()))?;
                openat2(&root, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
                    .map(File::from)
                    .map_err(|_| missing())
            }
            Files::Spooled { files, links, .. } => {
                let mut name = name.to_string();
                for _ in 0..8 {
                    match (files.get(&name), links.get(&name)) {
                        (Some(path), _) => {
                            return File::open(path).call(|| format!("open {}", path.display()));
                        }
                        (None, Some(target)) => name = target.clone(),
                        (None, None) => break,
                    }
                }
                Err(missing())
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.open(name).is_ok()
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        self.open(name)?.take(MAX_JSON + 1).read_to_end(&mut data).call(|| format!("read {name}"))?;
        if data.len() as u64 > MAX_JSON {
            return invalid(format!("archive: {name} has more than {MAX_JSON} bytes"));
        }
        Ok(data)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        serde_json::from_slice(&self.read(name)?).map_err(|e| Error::Invalid(format!("archive: {name}: {e}")))
    }

    /// A file named by its digest, which it has to have.
    fn blob(&self, wanted: &str) -> Result<Vec<u8>> {
        let data = self.read(&blob_name(wanted)?)?;
        if digest(&data) != wanted {
            return invalid(format!("archive: {wanted} has the digest {}", digest(&data)));
        }
        Ok(data)
    }
}

fn blob_name(digest: &str) -> Result<String> {
    if !is_digest(digest) {
        return invalid(format!("archive: {digest:?} is not sha256: and 64 hex digits"));
    }
    Ok(digest.replacen("sha256:", "blobs/sha256/", 1))
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
    pub fn load(&self, path: &Path, ids: IdCheck<'_>, now: i64) -> Result<Vec<Loaded>> {
        let meta = fs::metadata(path).call(|| format!("open {}", path.display()))?;
        if meta.is_dir() {
            return self.load_files(&Files::Directory(path.into()), ids, now);
        }
        let file = File::open(path).call(|| format!("open {}", path.display()))?;
        self.load_stream(file, ids, now)
    }

    /// Takes the images of an archive that comes.
    pub fn load_stream(&self, source: impl Read, ids: IdCheck<'_>, now: i64) -> Result<Vec<Loaded>> {
        let files = self.spool(source)?;
        self.load_files(&files, ids, now)
    }

    fn spool(&self, source: impl Read) -> Result<Files> {
        let dir = self.temporary()?;
        let (mut files, mut links) = (HashMap::new(), HashMap::new());
        let source = pipe::decompressed(source).call(|| "read archive".into())?;
        let mut archive = tar::Archive::new(source);
        for entry in archive.entries().call(|| "read archive".into())? {
            let mut entry = entry.call(|| "read archive".into())?;
            let name = entry
                .path()
                .call(|| "read archive".into())?
                .to_string_lossy()
                .trim_start_matches("./")
                .to_string();
            if files.len() >= MAX_FILES {
                return invalid(format!("archive has more than {MAX_FILES} files"));
            }
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    let path = dir.path().join(files.len().to_string());
                    let mut file = File::create(&path).call(|| format!("create {}", path.display()))?;
                    io::copy(&mut entry, &mut file).call(|| format!("write {}", path.display()))?;
                    files.insert(name, path);
                }
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let target = entry.link_name().ok().flatten().unwrap_or_default();
                    let near = Path::new(&name).parent().unwrap_or(Path::new("")).join(&target);
                    links.insert(name.clone(), flat(&near));
                }
                _ => {}
            }
        }
        Ok(Files::Spooled { files, links, _dir: dir })
    }

    fn load_files(&self, files: &Files, ids: IdCheck<'_>, now: i64) -> Result<Vec<Loaded>> {
        if files.has("manifest.json") && !files.has("oci-layout")
            || files.has("manifest.json") && files.has("repositories")
        {
            return self.load_docker(files, ids, now);
        }
        if files.has("index.json") {
            return self.load_oci(files, ids, now);
        }
        invalid(
            "payload does not match any of the supported image formats: neither manifest.json (docker-archive) nor index.json (oci-archive) is in it",
        )
    }

    fn load_docker(&self, files: &Files, ids: IdCheck<'_>, now: i64) -> Result<Vec<Loaded>> {
        if let Ok(manifest) = files.parse::<Manifest>("manifest.json") {
            return self.load_dir_transport(files, &manifest, ids, now);
        }
        let images: Vec<DockerImage> = files.parse("manifest.json")?;
        if images.len() > MAX_IMAGES {
            return invalid(format!("archive has {} images, more than {MAX_IMAGES}", images.len()));
        }
        let mut loaded = Vec::new();
        for image in images {
            let config = files.read(&image.config)?;
            let parsed: ImageConfig = serde_json::from_slice(&config)
                .map_err(|e| Error::Invalid(format!("archive: {}: {e}", image.config)))?;
            let diff_ids = &parsed.rootfs.diff_ids;
            if diff_ids.len() != image.layers.len() {
                return invalid(format!(
                    "archive: {} layers, but {} diff IDs in {}",
                    image.layers.len(),
                    diff_ids.len(),
                    image.config
                ));
            }
            let layers: Vec<(String, String)> =
                image.layers.into_iter().zip(diff_ids.iter().cloned()).collect();
            self.ingest_all(files, &layers, ids)?;
            let manifest = manifest_of(&config, diff_ids, |d| self.layer(d).map_or(0, |l| l.size));
            loaded.push(Loaded {
                image: self.put_image(&manifest, &config, now)?,
                names: image.repo_tags.unwrap_or_default(),
            });
        }
        Ok(loaded)
    }

    /// skopeo's `dir:`: files named by their digests beside manifest.json.
    fn load_dir_transport(
        &self,
        files: &Files,
        manifest: &Manifest,
        ids: IdCheck<'_>,
        now: i64,
    ) -> Result<Vec<Loaded>> {
        let plain = |digest: &str| digest.trim_start_matches("sha256:").to_string();
        let config = files.read(&plain(&manifest.config.digest))?;
        let parsed: ImageConfig = serde_json::from_slice(&config)
            .map_err(|e| Error::Invalid(format!("image configuration: {e}")))?;
        let layers: Vec<(String, String)> =
            manifest.layers.iter().map(|l| plain(&l.digest)).zip(parsed.rootfs.diff_ids).collect();
        self.ingest_all(files, &layers, ids)?;
        let image = self.put_image(&files.read("manifest.json")?, &config, now)?;
        Ok(vec![Loaded { image, names: Vec::new() }])
    }

    fn load_oci(&self, files: &Files, ids: IdCheck<'_>, now: i64) -> Result<Vec<Loaded>> {
        let index: Index = files.parse("index.json")?;
        if index.manifests.len() > MAX_IMAGES {
            return invalid(format!("archive has {} images, more than {MAX_IMAGES}", index.manifests.len()));
        }
        let mut loaded = Vec::new();
        for descriptor in &index.manifests {
            let name = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
                .iter()
                .find_map(|k| descriptor.annotations.get(*k));
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
            let parsed: ImageConfig = serde_json::from_slice(&config)
                .map_err(|e| Error::Invalid(format!("image configuration: {e}")))?;
            if parsed.rootfs.diff_ids.len() != manifest.layers.len() {
                return invalid(format!(
                    "archive: {} layers, but {} diff IDs",
                    manifest.layers.len(),
                    parsed.rootfs.diff_ids.len()
                ));
            }
            let blobs = manifest.layers.iter().map(|l| blob_name(&l.digest)).collect::<Result<Vec<_>>>()?;
            let layers: Vec<(String, String)> = blobs.into_iter().zip(parsed.rootfs.diff_ids).collect();
            self.ingest_all(files, &layers, ids)?;
            loaded.push(Loaded {
                image: self.put_image(&data, &config, now)?,
                names: name.cloned().into_iter().collect(),
            });
        }
        Ok(loaded)
    }

    fn ingest_all(&self, files: &Files, layers: &[(String, String)], ids: IdCheck<'_>) -> Result<()> {
        for (name, diff_id) in layers {
            if self.layer(diff_id).is_none() {
                self.ingest_layer(files.open(name)?, Some(diff_id), ids)?;
            }
        }
        Ok(())
    }

    /// A tar of a root filesystem becomes an image of one layer.
    pub fn import(
        &self,
        source: impl Read + Send,
        mut config: ImageConfig,
        history: History,
        ids: IdCheck<'_>,
        now: i64,
    ) -> Result<Image> {
        let layer = self.ingest_layer(source, None, ids)?;
        config.rootfs = RootfsConfig { kind: "layers".into(), diff_ids: vec![layer.diff_id.clone()] };
        config.history = vec![history];
        let config = serde_json::to_vec(&config).map_err(|e| Error::Invalid(e.to_string()))?;
        let manifest = manifest_of(&config, &[layer.diff_id], |_| layer.size);
        self.put_image(&manifest, &config, now)
    }
}

/// A path without `.` and `..`.
fn flat(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.to_str().unwrap_or_default().split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
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
