//! Layers: extracted in one pass while they come, published when their digest is right.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::extract::{Contents, Extractor};
use crate::{Call as _, Error, Result, Store, invalid, make_dir, pipe, write_new};

/// A layer in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Layer {
    /// How to read it.
    pub format: u32,
    /// Digest of its tar.
    pub diff_id: String,
    /// Bytes of its tar.
    pub size: u64,
    /// Entries of its tar.
    pub entries: u64,
    /// The highest user id in it.
    pub max_uid: u32,
    /// The highest group id in it.
    pub max_gid: u32,
    /// All user and group ids in it, if they are few.
    #[serde(default)]
    pub ids: Option<(Vec<u32>, Vec<u32>)>,
}

/// Refuses ids that the user has not: given path, uid and gid of an entry, says why not.
pub type IdCheck<'a> = &'a (dyn Fn(&str, u64, u64) -> std::result::Result<(), String> + Sync);

/// Uncompressed, a layer may have as many bytes.
const MAX_SIZE: u64 = 256 << 30;

/// A digest as a directory's name: only its hex digits.
pub fn dir_name(diff_id: &str) -> String {
    diff_id.trim_start_matches("sha256:").to_string()
}

/// `sha256:` and 64 hex digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

impl Store {
    /// Where a layer is.
    pub fn layer_dir(&self, diff_id: &str) -> PathBuf {
        self.layers_dir().join(dir_name(diff_id))
    }

    /// A layer's record; none if it is not here.
    pub fn layer(&self, diff_id: &str) -> Option<Layer> {
        let data = fs::read(self.layer_dir(diff_id).join("layer.json")).ok()?;
        serde_json::from_slice(&data).ok()
    }

    /// Takes a layer's tar, compressed or not. With `expected` a tar of another digest is refused, and one that is
    /// here already is not read. Until all of it was read and is right, there is nothing in the store.
    pub fn ingest_layer(
        &self,
        source: impl Read + Send,
        expected: Option<&str>,
        ids: IdCheck<'_>,
    ) -> Result<Layer> {
        if let Some(diff_id) = expected {
            if !is_digest(diff_id) {
                return invalid(format!("diff ID {diff_id:?} is not sha256: and 64 hex digits"));
            }
            if let Some(layer) = self.layer(diff_id) {
                return Ok(layer);
            }
        }
        let temporary = self.temporary()?;
        let diff = temporary.path().join("diff");
        make_dir(&diff)?;
        let mut extractor = Extractor::new(&diff, ids)?;
        let summary = std::thread::scope(|scope| {
            let (mut chunks, thread) = pipe::decompress(scope, source, MAX_SIZE);
            let extracted = extractor.extract(&mut chunks);
            // what follows the end of the archive counts for its digest
            let rest = extracted
                .and_then(|()| std::io::copy(&mut chunks, &mut std::io::sink()).call(|| "read layer".into()));
            drop(chunks);
            let summary = thread.join().unwrap_or(None);
            rest.and_then(|_| summary.ok_or_else(|| Error::Invalid("the layer's stream broke off".into())))
        })?;
        let Contents { entries, max_uid, max_gid, ids } = extractor.finish()?;
        if let Some(expected) = expected.filter(|e| *e != summary.diff_id) {
            return invalid(format!(
                "layer has digest {} uncompressed, its image says {expected}: it was damaged or forged on its way",
                summary.diff_id
            ));
        }
        let layer =
            Layer { format: 1, diff_id: summary.diff_id, size: summary.size, entries, max_uid, max_gid, ids };
        let record = serde_json::to_vec(&layer).map_err(|e| Error::Invalid(e.to_string()))?;
        write_new(&temporary.path().join("layer.json"), &record)?;
        self.publish_layer(temporary, &layer)?;
        Ok(layer)
    }

    fn publish_layer(&self, temporary: crate::Temporary, layer: &Layer) -> Result<()> {
        make_dir(&self.layers_dir())?;
        let place = self.layer_dir(&layer.diff_id);
        match fs::rename(temporary.path(), &place) {
            // somebody else was faster with the same
            Err(_) if self.layer(&layer.diff_id).is_some() => Ok(()),
            other => other.call(|| format!("rename layer to {}", place.display())),
        }
    }
}
