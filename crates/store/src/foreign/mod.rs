//! Images in the stores of Podman and Docker on the same machine: found, and read, never changed.
//!
//! ```text
//! Podman (containers-storage)   overlay-images/images.json  overlay-images/ID/{manifest,=BASE64 of the config's key}
//!                               overlay-layers/layers.json  overlay-layers/LAYER.tar-split.gz  overlay/LAYER/diff/
//! Docker (overlay2)             image/overlay2/repositories.json  image/overlay2/imagedb/content/sha256/ID
//!                               image/overlay2/layerdb/sha256/CHAIN/{cache-id,tar-split.json.gz}  overlay2/CACHE-ID/diff/
//! ```

mod docker;
mod podman;

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::tar_split::TarSplit;
use crate::{Call as _, Error, Result};

/// Whose store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Podman's, which is CRI-O's and Buildah's, too.
    Podman,
    /// Docker's with its own images (not containerd's).
    Docker,
}

/// An image there.
#[derive(Debug)]
pub struct Foreign {
    /// Digest of its configuration, without `sha256:`.
    pub id: String,
    /// Its names, as they are there.
    pub names: Vec<String>,
    /// Its manifest, where the store keeps it.
    pub manifest: Option<Vec<u8>>,
    /// Its configuration.
    pub config: Vec<u8>,
    /// Its layers, the base first.
    pub layers: Vec<ForeignLayer>,
}

/// A layer there.
#[derive(Debug)]
pub struct ForeignLayer {
    /// Digest of its tar.
    pub diff_id: String,
    list: PathBuf,
    tree: PathBuf,
}

impl ForeignLayer {
    /// Its tar.
    pub fn open(&self) -> Result<TarSplit> {
        TarSplit::open(&self.list, &self.tree)
    }
}

/// Whose store a directory is; none if it is neither's.
pub fn kind_of(root: &Path) -> Option<Kind> {
    if root.join("overlay-images/images.json").exists() {
        return Some(Kind::Podman);
    }
    root.join("image/overlay2/repositories.json").exists().then_some(Kind::Docker)
}

/// The images of a store. What is said of single ones that cannot be read comes beside them.
pub fn images(root: &Path) -> Result<(Vec<Foreign>, Vec<Error>)> {
    match kind_of(root) {
        Some(Kind::Podman) => podman::images(root),
        Some(Kind::Docker) => docker::images(root),
        None => Err(Error::Invalid(format!(
            "{}: neither overlay-images/images.json (Podman) nor image/overlay2/repositories.json (Docker) is in it",
            root.display()
        ))),
    }
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&read(path)?).map_err(|e| Error::Invalid(format!("{}: {e}", path.display())))
}

/// A file of records; they are bounded, as they may be anybody's.
fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    const MOST: u64 = 256 << 20;
    let file = fs::File::open(path).call(|| format!("open {}", path.display()))?;
    let mut data = Vec::new();
    file.take(MOST + 1).read_to_end(&mut data).call(|| format!("read {}", path.display()))?;
    match data.len() as u64 > MOST {
        true => Err(Error::Invalid(format!("{}: larger than {MOST} bytes", path.display()))),
        false => Ok(data),
    }
}

/// A name of a directory of theirs: it must not lead out of the store.
fn part(text: &str) -> Result<&str> {
    let plain =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    match plain {
        true => Ok(text),
        false => Err(Error::Invalid(format!("{text:?} is no identifier of a layer or image"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_neither() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(kind_of(dir.path()), None);
        assert!(images(dir.path()).unwrap_err().to_string().contains("Docker"));
    }

    #[test]
    fn identifiers_stay_inside() {
        assert!(part("ab12-X_").is_ok());
        for bad in ["", "../x", "a/b", "a.b", "a\0"] {
            assert!(part(bad).is_err(), "{bad:?}");
        }
    }
}
