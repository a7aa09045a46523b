//! Images as archives and directories: what `docker load`, `podman load`, skopeo and buildah take.
//!
//! ```text
//! docker-archive   DIFF-ID.tar ... ID.json manifest.json                     plain tars, as they came
//! oci-archive      blobs/sha256/DIGEST ... oci-layout index.json manifest.json   compressed, or plain
//! oci-dir          the same as a directory
//! docker-dir       DIGEST ... ID manifest.json version                       skopeo's dir:
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::encode::{Encoded, Encoding};
use crate::layer::{Blob, Compression};
use crate::{Call as _, Error, Image, Progress, Result, Store, digest, make_dir};

/// What of a manifest is whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// OCI image spec.
    Oci,
    /// Docker, schema 2.
    Docker,
}

impl Kind {
    /// As a manifest says of itself.
    pub fn of(manifest: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(manifest).unwrap_or_default();
        match value["mediaType"].as_str() {
            Some(t) if t.contains("docker") => Self::Docker,
            _ => Self::Oci,
        }
    }

    /// Media type of a manifest.
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
            (Self::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Self::Oci, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Self::Docker, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
            (Self::Docker, Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Self::Docker, Compression::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        }
    }
}

/// An image's manifest with its layers as they leave. One that says the same already stays as it is, bit for bit.
pub fn remade(manifest: &[u8], config: &[u8], blobs: &[Blob], kind: Kind) -> Result<Vec<u8>> {
    let mut value: Value =
        serde_json::from_slice(manifest).map_err(|e| Error::Invalid(format!("manifest: {e}")))?;
    let old = value["layers"].as_array().cloned().unwrap_or_default();
    let layers: Vec<Value> = blobs
        .iter()
        .enumerate()
        .map(|(n, blob)| {
            let mut layer =
                json!({"mediaType": kind.layer(blob.compression), "digest": blob.digest, "size": blob.size});
            let before = old.get(n).unwrap_or(&Value::Null);
            // (annotations of a blob are not those of another one of the same layer)
            let is_same = before["digest"] == layer["digest"];
            if let (true, Kind::Oci, Some(notes)) = (is_same, kind, before.get("annotations")) {
                layer["annotations"] = notes.clone();
            }
            if is_same && media_is_same(before, &layer) { before.clone() } else { layer }
        })
        .collect();
    if Kind::of(manifest) == kind && layers == old {
        return Ok(manifest.to_vec());
    }
    value["schemaVersion"] = 2.into();
    value["mediaType"] = kind.manifest().into();
    value["config"] = json!({"mediaType": kind.config(), "digest": digest(config), "size": config.len()});
    value["layers"] = layers.into();
    if kind == Kind::Docker
        && let Some(map) = value.as_object_mut()
    {
        map.remove("annotations");
    }
    Ok(value.to_string().into_bytes())
}

/// A layer without a media type of its own (foreign ones have) is what it is.
fn media_is_same(before: &Value, now: &Value) -> bool {
    before["mediaType"] == now["mediaType"] && before["size"] == now["size"]
}

/// An image that is ready to leave.
pub struct Sealed {
    /// Its manifest.
    pub manifest: Vec<u8>,
    /// Its configuration.
    pub config: Vec<u8>,
    /// Its layers.
    pub layers: Vec<Encoded>,
}

impl Store {
    /// Makes an image ready to leave.
    pub fn seal(
        &self,
        image: &Image,
        kind: Kind,
        encoding: Encoding,
        progress: &dyn Progress,
    ) -> Result<Sealed> {
        let (manifest, config) = (self.manifest(&image.id)?, self.config(&image.id)?);
        let mut layers = Vec::new();
        for (n, diff_id) in image.layers.iter().enumerate() {
            let size = self.layer(diff_id).map_or(0, |l| l.size);
            progress.begin(n, diff_id, size);
            layers.push(self.encode(diff_id, encoding, n, progress)?);
            progress.end(n, false);
        }
        let blobs: Vec<Blob> = layers.iter().map(|l| l.blob.clone()).collect();
        Ok(Sealed { manifest: remade(&manifest, &config, &blobs, kind)?, config, layers })
    }

    /// Writes images with their names as Docker's archive.
    pub fn save_docker(
        &self,
        images: &[(Image, Vec<String>)],
        out: impl Write,
        progress: &dyn Progress,
    ) -> Result<()> {
        let mut tar = tar::Builder::new(out);
        let mut written = std::collections::HashSet::new();
        let mut list = Vec::new();
        for (image, names) in images {
            let config = self.config(&image.id)?;
            for (n, diff_id) in image.layers.iter().enumerate() {
                let size = self.layer(diff_id).map_or(0, |l| l.size);
                progress.begin(n, diff_id, size);
                if written.insert(diff_id.clone()) {
                    let name = format!("{}.tar", crate::layer::dir_name(diff_id));
                    let source = self.layer_tar(diff_id)?;
                    append(&mut tar, &name, size, source)?;
                }
                progress.end(n, false);
            }
            let name = format!("{}.json", image.id);
            if written.insert(image.id.clone()) {
                append(&mut tar, &name, config.len() as u64, &config[..])?;
            }
            progress.say(&format!("Copying config sha256:{}", image.id));
            let layers: Vec<String> =
                image.layers.iter().map(|d| format!("{}.tar", crate::layer::dir_name(d))).collect();
            list.push(json!({"Config": name, "RepoTags": names, "Layers": layers}));
        }
        let list = Value::from(list).to_string();
        append(&mut tar, "manifest.json", list.len() as u64, list.as_bytes())?;
        progress.say("Writing manifest to image destination");
        tar.into_inner().and_then(|mut out| out.flush()).call(|| "write archive".into())
    }

    /// Writes images with their names in the OCI layout.
    pub fn save_oci(
        &self,
        images: &[(Image, Vec<String>)],
        encoding: Encoding,
        out: &mut dyn Layout,
        progress: &dyn Progress,
    ) -> Result<()> {
        let (mut entries, mut docker) = (Vec::new(), Vec::new());
        for (image, names) in images {
            let sealed = self.seal(image, Kind::Oci, encoding, progress)?;
            for layer in &sealed.layers {
                out.put(&blob_place(&layer.blob.digest), layer.blob.size, &mut layer.open(self)?)?;
            }
            for data in [&sealed.config, &sealed.manifest] {
                out.put(&blob_place(&digest(data)), data.len() as u64, &mut &data[..])?;
            }
            progress.say(&format!("Copying config sha256:{}", image.id));
            let entry = |name: Option<&String>| {
                let mut entry = json!({"mediaType": Kind::Oci.manifest(), "digest": digest(&sealed.manifest), "size": sealed.manifest.len()});
                if let Some(name) = name {
                    entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
                }
                entry
            };
            let layers: Vec<String> = sealed.layers.iter().map(|l| blob_place(&l.blob.digest)).collect();
            docker.push(
                json!({"Config": blob_place(&digest(&sealed.config)), "RepoTags": names, "Layers": layers}),
            );
            match names.is_empty() {
                true => entries.push(entry(None)),
                false => entries.extend(names.iter().map(|n| entry(Some(n)))),
            }
        }
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        out.put("oci-layout", layout.len() as u64, &mut &layout[..])?;
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}).to_string();
        // (for Docker, which has its own list even for this layout)
        let docker = Value::from(docker).to_string();
        out.put("manifest.json", docker.len() as u64, &mut docker.as_bytes())?;
        progress.say("Writing manifest to image destination");
        out.put("index.json", index.len() as u64, &mut index.as_bytes())
    }

    /// Writes an image as skopeo's `dir:`.
    pub fn save_dir(
        &self,
        image: &Image,
        kind: Kind,
        encoding: Encoding,
        dir: &Path,
        progress: &dyn Progress,
    ) -> Result<()> {
        let sealed = self.seal(image, kind, encoding, progress)?;
        let mut out = Directory::new(dir)?;
        for layer in &sealed.layers {
            let name = crate::layer::dir_name(&layer.blob.digest);
            out.put(&name, layer.blob.size, &mut layer.open(self)?)?;
        }
        progress.say(&format!("Copying config sha256:{}", image.id));
        out.put(&image.id, sealed.config.len() as u64, &mut &sealed.config[..])?;
        let version = b"Directory Transport Version: 1.1\n";
        out.put("version", version.len() as u64, &mut &version[..])?;
        progress.say("Writing manifest to image destination");
        out.put("manifest.json", sealed.manifest.len() as u64, &mut &sealed.manifest[..])
    }
}

fn blob_place(digest: &str) -> String {
    digest.replacen("sha256:", "blobs/sha256/", 1)
}

/// Where files of a layout go. A file that is there already stays.
pub trait Layout {
    /// Writes a file.
    fn put(&mut self, name: &str, size: u64, source: &mut dyn Read) -> Result<()>;
}

/// A tar.
pub struct Archive<W: Write> {
    tar: tar::Builder<W>,
    written: std::collections::HashSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty one.
    pub fn new(out: W) -> Self {
        Self { tar: tar::Builder::new(out), written: std::collections::HashSet::new() }
    }

    /// Ends it.
    pub fn finish(self) -> Result<()> {
        self.tar.into_inner().and_then(|mut out| out.flush()).call(|| "write archive".into())
    }
}

impl<W: Write> Layout for Archive<W> {
    fn put(&mut self, name: &str, size: u64, source: &mut dyn Read) -> Result<()> {
        // (skopeo gives directories that are not in the archive to root, and an ordinary user cannot)
        for (end, _) in name.match_indices('/') {
            if self.written.insert(name[..=end].into()) {
                append_directory(&mut self.tar, &name[..=end])?;
            }
        }
        match self.written.insert(name.into()) {
            true => append(&mut self.tar, name, size, source),
            false => Ok(()),
        }
    }
}

/// A directory, which may have other images already.
pub struct Directory(PathBuf);

impl Directory {
    /// Made if it is not there.
    pub fn new(dir: &Path) -> Result<Self> {
        make_dir(dir)?;
        Ok(Self(dir.into()))
    }
}

impl Layout for Directory {
    fn put(&mut self, name: &str, _size: u64, source: &mut dyn Read) -> Result<()> {
        let path = self.0.join(name);
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        let call = || format!("write {}", path.display());
        let new = path.with_extension("new");
        let mut file = File::create(&new).call(call)?;
        io::copy(source, &mut file).call(call)?;
        fs::rename(&new, &path).call(call)
    }
}

fn append_directory<W: Write>(tar: &mut tar::Builder<W>, name: &str) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    tar.append_data(&mut header, name, io::empty()).call(|| format!("write archive: {name}"))
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, size: u64, source: impl Read) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o444);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    let mut counted = Exact { source, left: size };
    tar.append_data(&mut header, name, &mut counted).call(|| format!("write archive: {name}"))?;
    match counted.left {
        0 => Ok(()),
        left => Err(Error::Invalid(format!("write archive: {name} is {left} bytes too short"))),
    }
}

/// So many bytes, read to the end of what is behind them.
struct Exact<R> {
    source: R,
    left: u64,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.left = self
            .left
            .checked_sub(length as u64)
            .ok_or_else(|| io::Error::other("it has more bytes than it said"))?;
        Ok(length)
    }
}
