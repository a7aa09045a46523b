//! Images, layers and volumes on disk.
//!
//! ```text
//! images/ID/{manifest.json,config.json,image.json}   ID is the digest of config.json
//! images/ID/{refers,copies}-KEY/                      its files with other owners (shifted.rs)
//! images/.names/NAME -> ../ID                        NAME with its slashes as %2F
//! layers/DIFF-ID/diff/                               a layer as overlayfs has it
//! layers/DIFF-ID/{layer.json,blobs}
//! layers/DIFF-ID/tar                                 what makes its tar again, bit for bit (recipe.rs)
//! lease                                              locked together while images are made, alone to collect
//! mount-points/                                      below the layers of a container
//! volumes/NAME/{volume.json,state.json,_data/}
//! unsettled/                                         what need not be on the disk yet (unsettled.rs)
//! tmp/                                               what is being made; flocked by its maker
//! ```
//! Layers are named by their diff ID, so images share them whatever is below, and all of an image can be made at
//! once. All is published by one rename: what has its name is whole. A killed process leaves a directory in `tmp`
//! whose lock is free, which [`Store::collect`] removes.

mod archive;
mod check;
mod encode;
mod extract;
pub mod foreign;
mod image;
mod layer;
mod lease;
mod list;
pub mod merged;
mod mount_points;
mod pipe;
mod recipe;
mod removal;
mod save;
mod shifted;
mod tar_split;
pub mod tree_tar;
mod unsettled;
mod volume;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

pub use archive::{Load, Loaded, manifest_of};
pub use check::Damage;
pub use encode::{Encoded, Encoding};
pub use image::{Config, Healthcheck, History, Image, ImageConfig};
pub use layer::{Blob, Compression, IdCheck, Layer};
pub use lease::{Aside, Lease};
pub use list::{List, Source};
pub use mount_points::MOUNTED_FILES;
pub use recipe::LayerTar;
pub use removal::remove_tree;
pub use save::{Archive, Directory, Kind, Layout, Sealed, remade};
pub use shifted::{LayerDirs, Shift, Wanted};
pub use volume::{Volume, VolumeState, Volumes, is_name as is_volume_name};

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filesystem.
    #[error("{call}: {error}")]
    Io {
        /// What was tried.
        call: String,
        /// Why it failed.
        error: io::Error,
    },
    /// Data that are not what they should be.
    #[error("{0}")]
    Invalid(String),
    /// An id that the user has not (identity rule 4).
    #[error("{0}")]
    Ids(String),
    /// In use, or there already.
    #[error("{0}")]
    InUse(String),
}

/// Results of the store.
pub type Result<T> = std::result::Result<T, Error>;

pub(crate) trait Call<T> {
    fn call(self, call: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Call<T> for io::Result<T> {
    fn call(self, call: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Io { call: call(), error })
    }
}

impl<T> Call<T> for std::result::Result<T, rustix::io::Errno> {
    fn call(self, call: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::Io { call: call(), error: errno.into() })
    }
}

pub(crate) fn invalid<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::Invalid(text.into()))
}

/// Is told how a transfer goes; from several threads at once.
pub trait Progress: Sync {
    /// Something to say on a line of its own.
    fn say(&self, line: &str);
    /// A layer begins: its number among all, its digest, its bytes; 0 if they are not known.
    fn begin(&self, layer: usize, digest: &str, size: u64);
    /// So many more bytes of it are here.
    fn advance(&self, layer: usize, bytes: u64);
    /// It is done; `already` if it was before.
    fn end(&self, layer: usize, already: bool);
}

/// The store of one engine. Nothing is read or made before it is needed.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    volume_dir: Option<PathBuf>,
    max_layer: u64,
}

/// A directory in `tmp` that is being made; removed when dropped.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
    _lock: File,
}

impl Temporary {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = remove_tree(&self.path);
    }
}

/// A directory in `tmp` that is being made, and stays for the next one if it is not finished.
pub(crate) struct Resumable {
    path: PathBuf,
    _lock: File,
}

impl Resumable {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Store {
    /// The store below a directory.
    pub fn new(root: &Path) -> Self {
        Self { root: root.into(), volume_dir: None, max_layer: layer::MAX_SIZE }
    }

    /// Uncompressed, a layer may have as many bytes, and no more.
    pub fn set_max_layer(&mut self, bytes: u64) {
        self.max_layer = bytes;
    }

    /// Volumes are in another directory.
    pub fn set_volume_dir(&mut self, dir: PathBuf) {
        self.volume_dir = Some(dir);
    }

    pub(crate) fn images_dir(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn names_dir(&self) -> PathBuf {
        self.root.join("images/.names")
    }

    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// A new directory, locked while it is used.
    pub fn temporary(&self) -> Result<Temporary> {
        self.temporary_in(&self.root)
    }

    /// The same for what will be in this directory: on its filesystem, which may be the volumes' own.
    pub(crate) fn temporary_in(&self, dir: &Path) -> Result<Temporary> {
        let inside = if self.volume_dir.as_deref() == Some(dir) { dir } else { &self.root };
        let parent = inside.join(if inside == self.root { "tmp" } else { ".tmp" });
        make_dir(&parent)?;
        for _ in 0..100 {
            let path = parent.join(random_name()?);
            fs::create_dir(&path).call(|| format!("mkdir {}", path.display()))?;
            // (between these two whoever collects may take it for a dead one's)
            let Ok(lock) = File::open(&path) else { continue };
            if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
                && path.exists()
            {
                return Ok(Temporary { path, _lock: lock });
            }
        }
        invalid(format!("{}: no directory could be kept in it", parent.display()))
    }

    /// A directory in `tmp` under a name that others who make the same have, too: whoever comes second waits until the
    /// first one has gone, and goes on with what it left.
    pub(crate) fn resumable(&self, name: &str) -> Result<Resumable> {
        use std::os::unix::fs::MetadataExt as _;
        let path = self.root.join("tmp").join(name);
        loop {
            make_dir(&path)?;
            let lock = File::open(&path).call(|| format!("open {}", path.display()))?;
            rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive))
                .call(|| format!("flock {}", path.display()))?;
            let inode = |meta: io::Result<fs::Metadata>| meta.map(|m| (m.dev(), m.ino())).ok();
            // (it may have been published or swept away meanwhile)
            if inode(lock.metadata()) == inode(fs::metadata(&path)) {
                return Ok(Resumable { path, _lock: lock });
            }
            if !path.exists() {
                return Ok(Resumable { path, _lock: lock });
            }
        }
    }

    fn sweep_temporary(&self) {
        let of_volumes = self.volume_dir.iter().flat_map(|dir| entries(&dir.join(".tmp")));
        for entry in entries(&self.root.join("tmp")).into_iter().chain(of_volumes) {
            if is_idle(&entry.path()) {
                let _ = remove_tree(&entry.path());
            }
        }
    }
}

/// Nobody works on this directory.
fn is_idle(path: &Path) -> bool {
    let Ok(dir) = File::open(path) else { return false };
    rustix::fs::flock(&dir, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
}

fn random_name() -> Result<String> {
    let mut bytes = [0u8; 12];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .call(|| "getrandom".into())?;
    Ok(hex(&bytes))
}

/// Entries of a directory; none if it is not there.
pub(crate) fn entries(dir: &Path) -> Vec<fs::DirEntry> {
    fs::read_dir(dir).map(|entries| entries.flatten().collect()).unwrap_or_default()
}

pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).call(|| format!("mkdir {}", dir.display()))
}

pub(crate) fn write_new(path: &Path, data: &[u8]) -> Result<()> {
    fs::write(path, data).call(|| format!("write {}", path.display()))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `sha256:...` of bytes.
pub fn digest(data: &[u8]) -> String {
    use sha2::Digest as _;
    format!("sha256:{}", hex(&sha2::Sha256::digest(data)))
}
