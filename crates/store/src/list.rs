//! Lists of images for several platforms (manifest lists, image indexes) that are being put together here.
//!
//! ```text
//! images/ID/index.json      the list, as it is pushed
//! images/ID/sources.json    where each manifest in it is: digest -> Source
//! images/ID/blobs/HEX       manifests and files of artifacts that were added
//! ```
//! A list has names like an image, and is listed and removed like one.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::image::ImageConfig;
use crate::{Call as _, Error, Image, Result, Store, digest, hex, invalid, make_dir, write_new};

/// Where a manifest of a list is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// An image of the store, by its id.
    Image(String),
    /// In a registry, by this reference without a digest.
    Registry(String),
    /// Beside the list, with all that it names.
    Artifact,
}

/// A list.
#[derive(Clone, Debug)]
pub struct List {
    /// Its id.
    pub id: String,
    /// What is pushed.
    pub index: Value,
    /// Where its manifests are.
    pub sources: BTreeMap<String, Source>,
}

impl Store {
    pub(crate) fn list_by_id(&self, id: &str) -> Result<Option<Image>> {
        let path = self.image_dir(id).join("index.json");
        let data = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.call(|| format!("read {}", path.display()))?,
        };
        let stored = fs::metadata(&path).and_then(|m| m.modified()).ok();
        let stored = stored.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        let stored = stored.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(0));
        Ok(Some(Image {
            id: id.into(),
            digest: digest(&data),
            config: ImageConfig::default(),
            layers: Vec::new(),
            size: data.len() as u64,
            stored,
            digests: Vec::new(),
            is_list: true,
            max_ids: (0, 0),
            ids: None,
        }))
    }

    /// A list of the store.
    pub fn list(&self, id: &str) -> Result<List> {
        let dir = self.image_dir(id);
        let read =
            |name: &str| fs::read(dir.join(name)).call(|| format!("read {}", dir.join(name).display()));
        let broken = |e| Error::Invalid(format!("manifest list {id}: {e}"));
        let index = serde_json::from_slice(&read("index.json")?).map_err(broken)?;
        let sources = serde_json::from_slice(&read("sources.json")?).map_err(broken)?;
        Ok(List { id: id.into(), index, sources })
    }

    /// Makes a list; the caller holds a lease.
    pub fn make_list(&self, index: &Value, names: &[String]) -> Result<List> {
        let mut bytes = [0u8; 32];
        rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
            .call(|| "getrandom".into())?;
        let id = hex(&bytes);
        let files = [("index.json", index.to_string()), ("sources.json", "{}".into())];
        self.publish(&id, &files.each_ref().map(|(name, text)| (*name, text.as_bytes())), names)?;
        for name in names {
            self.tag(&id, name)?;
        }
        Ok(List { id, index: index.clone(), sources: BTreeMap::new() })
    }

    /// Replaces what a list has.
    pub fn write_list(&self, list: &List) -> Result<()> {
        let dir = self.image_dir(&list.id);
        let temporary = self.temporary()?;
        let sources = serde_json::to_string(&list.sources).map_err(|e| Error::Invalid(e.to_string()))?;
        // (a source that no entry has does no harm; an entry without a source would)
        for (name, text) in [("sources.json", sources), ("index.json", list.index.to_string())] {
            let new = temporary.path().join(name);
            write_new(&new, text.as_bytes())?;
            fs::rename(&new, dir.join(name)).call(|| format!("write {}", dir.join(name).display()))?;
        }
        Ok(())
    }

    /// Keeps a file beside a list; its digest and size.
    pub fn put_list_blob(&self, id: &str, source: &mut dyn io::Read) -> Result<(String, u64)> {
        use sha2::Digest as _;
        let dir = self.image_dir(id).join("blobs");
        make_dir(&dir)?;
        let temporary = self.temporary()?;
        let path = temporary.path().join("blob");
        let call = || format!("write {}", path.display());
        let mut file = fs::File::create(&path).call(call)?;
        let (mut hash, mut size, mut chunk) = (sha2::Sha256::new(), 0, vec![0; 64 << 10]);
        loop {
            let n = source.read(&mut chunk).call(|| "read".into())?;
            if n == 0 {
                break;
            }
            hash.update(&chunk[..n]);
            io::Write::write_all(&mut file, &chunk[..n]).call(call)?;
            size += n as u64;
        }
        let name = hex(&hash.finalize());
        fs::rename(&path, dir.join(&name)).call(|| format!("rename blob {name}"))?;
        Ok((format!("sha256:{name}"), size))
    }

    /// Such a file.
    pub fn list_blob(&self, id: &str, digest: &str) -> Result<fs::File> {
        if !crate::layer::is_digest(digest) {
            return invalid(format!("{digest:?} is not sha256: and 64 hex digits"));
        }
        let path = self.image_dir(id).join("blobs").join(crate::layer::dir_name(digest));
        fs::File::open(&path).call(|| format!("open {}", path.display()))
    }
}
