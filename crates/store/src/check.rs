//! Is what is on disk what it was? Each layer's tar is put together and hashed, and its entries are compared with the
//! files; what no entry has made is found, too.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use tar::EntryType;

use crate::layer::{dir_name, is_digest};
use crate::{Call as _, Image, Result, Store, entries};

/// What is wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A layer is not what it was.
    Layer {
        /// Which.
        diff_id: String,
        /// What is wrong with it.
        why: String,
    },
    /// An image has a layer that is not here.
    MissingLayer {
        /// Id of the image.
        image: String,
        /// Which.
        diff_id: String,
    },
    /// An image's records cannot be read, or say another id.
    Image {
        /// Its id.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// A layer that no image has.
    UnusedLayer {
        /// Which.
        diff_id: String,
    },
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Layer { diff_id, why } => write!(f, "layer {diff_id}: {why}"),
            Self::MissingLayer { image, diff_id } => {
                write!(f, "image {image}: layer {diff_id}: image layer is missing")
            }
            Self::Image { id, why } => write!(f, "image {id}: {why}"),
            Self::UnusedLayer { diff_id } => write!(f, "layer {diff_id}: layer not referenced by any images"),
        }
    }
}

/// What an entry of a tar says of a file.
struct Expected {
    kind: EntryType,
    mode: u32,
    owner: (u64, u64),
    size: u64,
    target: Option<PathBuf>,
}

impl Store {
    /// All that is wrong; with `quick` contents of layers are not read. Layers that no image has count if nothing has
    /// changed in them for `unused_for`.
    pub fn check(&self, quick: bool, unused_for: std::time::Duration) -> Result<Vec<Damage>> {
        let (images, broken) = self.all_images();
        let mut all: Vec<Damage> = broken.into_iter().map(|(id, why)| Damage::Image { id, why }).collect();
        let mut used = HashSet::new();
        for image in images.iter().filter(|i| !i.is_list) {
            for why in self.check_records(image) {
                all.push(Damage::Image { id: image.id.clone(), why });
            }
            for diff_id in &image.layers {
                used.insert(dir_name(diff_id));
                if !self.layer_dir(diff_id).exists() {
                    let (image, diff_id) = (image.id.clone(), diff_id.clone());
                    all.push(Damage::MissingLayer { image, diff_id });
                }
            }
        }
        for entry in entries(&self.layers_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let diff_id = format!("sha256:{name}");
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
            if !used.contains(&name) {
                if age.is_none_or(|age| age >= unused_for) {
                    all.push(Damage::UnusedLayer { diff_id });
                }
            } else if let Some(why) = self.check_layer(&diff_id, quick)? {
                all.push(Damage::Layer { diff_id, why });
            }
        }
        Ok(all)
    }

    /// What is wrong with an image, but for its layers; one that is not there is.
    pub(crate) fn check_image(&self, id: &str) -> Option<String> {
        match self.image_by_id(id) {
            Ok(Some(image)) if image.is_list => None,
            Ok(Some(image)) => self.check_records(&image).into_iter().next(),
            Ok(None) => Some("its config.json or image.json is not there".into()),
            Err(e) => Some(e.to_string()),
        }
    }

    fn check_records(&self, image: &Image) -> Vec<String> {
        let mut all = Vec::new();
        if self.config(&image.id).is_ok_and(|config| dir_name(&crate::digest(&config)) != image.id) {
            all.push("image data item has incorrect digest: its configuration is another one".into());
        }
        match self.manifest(&image.id) {
            Ok(manifest) if crate::digest(&manifest) != image.digest => {
                all.push("image data item has incorrect digest: its manifest is another one".into());
            }
            Ok(_) => {}
            Err(e) => all.push(format!("image data item is missing: {e}")),
        }
        all
    }

    /// What is wrong with a layer.
    pub fn check_layer(&self, diff_id: &str, quick: bool) -> Result<Option<String>> {
        if !is_digest(diff_id) {
            return Ok(Some("its name is no digest".into()));
        }
        if self.layer(diff_id).is_none_or(|layer| layer.diff_id != diff_id) {
            return Ok(Some("layer data item is missing: layer.json".into()));
        }
        let diff = self.layer_dir(diff_id).join("diff");
        if !diff.is_dir() {
            return Ok(Some("layer data item is missing: diff".into()));
        }
        if quick {
            return Ok(None);
        }
        let expected = match self.expected(diff_id) {
            Ok(expected) => expected,
            Err(e) => return Ok(Some(format!("checksum failed: {e}"))),
        };
        let made = Made::of(expected);
        for (path, entry) in &made.entries {
            if let Some(why) = differs(&diff, path, entry) {
                return Ok(Some(format!("content modified: {}: {why}", path.display())));
            }
        }
        let extra = extra(&diff, Path::new(""), &made)?;
        Ok(extra.map(|path| format!("content modified: {}: no entry of the layer made it", path.display())))
    }

    /// What the layer's tar makes.
    fn expected(&self, diff_id: &str) -> Result<HashMap<PathBuf, Expected>> {
        let read = || "read layer".to_string();
        let mut archive = tar::Archive::new(self.layer_tar(diff_id)?);
        let mut all: HashMap<PathBuf, Expected> = HashMap::new();
        for entry in archive.entries().call(read)? {
            let mut entry = entry.call(read)?;
            let mut path = crate::extract::clean(&entry.path_bytes())?;
            let header = entry.header();
            let mut made = Expected {
                kind: header.entry_type(),
                mode: header.mode().call(read)? & 0o7777,
                owner: (header.uid().call(read)?, header.gid().call(read)?),
                size: entry.size(),
                target: entry.link_name().call(read)?.map(|t| t.into_owned()),
            };
            long_ids(&mut entry, &mut made.owner).call(read)?;
            if made.kind == EntryType::XGlobalHeader || path.as_os_str().is_empty() {
                continue;
            }
            let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
            if let Some(rest) = name.strip_prefix(b".wh.") {
                if rest.starts_with(b".wh.") {
                    continue;
                }
                path.set_file_name(std::ffi::OsStr::from_bytes(rest));
                made.kind = EntryType::Char;
            }
            if made.kind != EntryType::Directory
                && all.get(&path).is_some_and(|old| old.kind == EntryType::Directory)
            {
                all.retain(|known, _| !known.starts_with(&path));
            }
            all.insert(path, made);
        }
        // (what follows the end counts for the digest)
        std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).call(read)?;
        Ok(all)
    }
}

/// How a file is not what its entry made.
fn differs(diff: &Path, path: &Path, expected: &Expected) -> Option<String> {
    // (through a link a file has another name)
    let is_linked = path.ancestors().skip(1).any(|above| diff.join(above).is_symlink());
    if is_linked {
        return None;
    }
    let is_device = matches!(expected.kind, EntryType::Char | EntryType::Block);
    let Ok(meta) = fs::symlink_metadata(diff.join(path)) else {
        // (devices cannot be made in a user namespace)
        return (!is_device).then(|| "it is not there".into());
    };
    let kind = meta.file_type();
    let is_kind = match expected.kind {
        EntryType::Directory => kind.is_dir(),
        EntryType::Symlink => kind.is_symlink(),
        EntryType::Fifo => kind.is_fifo(),
        EntryType::Char => kind.is_char_device(),
        EntryType::Block => kind.is_block_device(),
        // (a hard link is whatever it leads to)
        EntryType::Link => return None,
        _ => kind.is_file(),
    };
    if !is_kind {
        return Some("it is of another kind".into());
    }
    if kind.is_symlink() && fs::read_link(diff.join(path)).ok() != expected.target {
        return Some("it leads elsewhere".into());
    }
    if kind.is_file() && expected.kind != EntryType::GNUSparse && meta.size() != expected.size {
        return Some(format!("it has {} bytes instead of {}", meta.size(), expected.size));
    }
    if !kind.is_symlink() && !is_device && meta.mode() & 0o7777 != expected.mode {
        return Some(format!("its mode is {:o} instead of {:o}", meta.mode() & 0o7777, expected.mode));
    }
    let owner = (u64::from(meta.uid()), u64::from(meta.gid()));
    if !is_device && owner != expected.owner {
        let (is, was) = (owner, expected.owner);
        return Some(format!("it belongs to {}:{} instead of {}:{}", is.0, is.1, was.0, was.1));
    }
    None
}

/// What a layer's tar makes, and what is on the way to it.
struct Made {
    entries: HashMap<PathBuf, Expected>,
    ways: HashSet<PathBuf>,
    /// Entries were made through links, under other names than their own.
    has_links: bool,
}

impl Made {
    fn of(entries: HashMap<PathBuf, Expected>) -> Self {
        let is_link = |path: &Path| entries.get(path).is_some_and(|e| e.kind == EntryType::Symlink);
        let has_links = entries.keys().any(|path| path.ancestors().skip(1).any(is_link));
        let ways = entries.keys().flat_map(|path| path.ancestors().skip(1)).map(Path::to_path_buf).collect();
        Self { entries, ways, has_links }
    }
}

/// The first file that no entry made, nor is on the way to one.
fn extra(diff: &Path, below: &Path, made: &Made) -> Result<Option<PathBuf>> {
    let dir = diff.join(below);
    let read = fs::read_dir(&dir).call(|| format!("read {}", dir.display()))?;
    for entry in read {
        let entry = entry.call(|| format!("read {}", dir.display()))?;
        let path = below.join(entry.file_name());
        if !made.entries.contains_key(&path) && !made.ways.contains(&path) && !made.has_links {
            return Ok(Some(path));
        }
        if entry.file_type().is_ok_and(|t| t.is_dir())
            && let Some(found) = extra(diff, &path, made)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The ids that an extended header says instead of the usual one, which has no room for large ones.
fn long_ids<R: std::io::Read>(entry: &mut tar::Entry<'_, R>, owner: &mut (u64, u64)) -> std::io::Result<()> {
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let number = || extension.value().ok().and_then(|v| v.parse().ok());
        match extension.key() {
            Ok("uid") => owner.0 = number().unwrap_or(owner.0),
            Ok("gid") => owner.1 = number().unwrap_or(owner.1),
            _ => {}
        }
    }
    Ok(())
}
