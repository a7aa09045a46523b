//! Layers: extracted in one pass while they come, published when their digest is right.

use std::fs;
use std::io::{Read, Write as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::extract::{Contents, Extractor};
use crate::recipe::Recorder;
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

/// A layer as a registry or an archive has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its digest there.
    pub digest: String,
    /// Its bytes there.
    pub size: u64,
    /// How it is compressed there.
    pub compression: Compression,
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip of a level.
    Gzip,
    /// zstd of a level.
    Zstd,
}

impl Compression {
    /// As media types say it.
    pub fn of_media_type(media_type: &str) -> Self {
        match media_type {
            t if t.ends_with("gzip") => Self::Gzip,
            t if t.ends_with("zstd") => Self::Zstd,
            _ => Self::None,
        }
    }

    /// `gzip`, `zstd`, `none`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Refuses ids that the user has not: given path, uid and gid of an entry, says why not.
pub type IdCheck<'a> = &'a (dyn Fn(&str, u64, u64) -> std::result::Result<(), String> + Sync);

/// Uncompressed, a layer may have as many bytes if nothing else was set.
pub(crate) const MAX_SIZE: u64 = 256 << 30;

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
    pub fn ingest_layer(&self, source: impl Read, expected: Option<&str>, ids: IdCheck<'_>) -> Result<Layer> {
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
        let (summary, extracted) = std::thread::scope(|scope| {
            let (feed, chunks) = pipe::channel();
            let dir = temporary.path();
            let thread = scope.spawn(move || extract(chunks, dir, &diff, ids));
            let summary = feed.run(source, self.max_layer);
            (summary, thread.join().unwrap_or_else(|_| invalid("the layer's thread ended")))
        });
        let Contents { entries, max_uid, max_gid, ids } = extracted?;
        let summary = summary.ok_or_else(|| Error::Invalid("the layer's stream broke off".into()))?;
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

    /// Blobs that are known to be this layer.
    pub fn blobs(&self, diff_id: &str) -> Vec<Blob> {
        let text = fs::read_to_string(self.layer_dir(diff_id).join("blobs")).unwrap_or_default();
        let blob = |line: &str| {
            let mut words = line.split(' ');
            let digest = words.next().filter(|d| is_digest(d))?.to_string();
            let size = words.next()?.parse().ok()?;
            let name = words.next()?;
            let all = [Compression::None, Compression::Gzip, Compression::Zstd];
            Some(Blob { digest, size, compression: all.into_iter().find(|c| c.name() == name)? })
        };
        text.lines().filter_map(blob).collect()
    }

    /// Remembers that a blob is this layer: both digests were seen to be right.
    pub fn note_blob(&self, diff_id: &str, blob: &Blob) -> Result<()> {
        if self.blobs(diff_id).contains(blob) {
            return Ok(());
        }
        let path = self.layer_dir(diff_id).join("blobs");
        let line = format!("{} {} {}\n", blob.digest, blob.size, blob.compression.name());
        fs::File::options()
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .call(|| format!("write {}", path.display()))
    }

    fn publish_layer(&self, temporary: crate::Temporary, layer: &Layer) -> Result<()> {
        make_dir(&self.layers_dir())?;
        self.unsettled_layer(&layer.diff_id)?;
        let place = self.layer_dir(&layer.diff_id);
        if fs::rename(temporary.path(), &place).is_ok() || self.layer(&layer.diff_id).is_some() {
            return Ok(()); // (or somebody else was faster with the same)
        }
        // what is there is broken
        let _broken = self.set_layer_aside(&layer.diff_id)?;
        fs::rename(temporary.path(), &place).call(|| format!("rename layer to {}", place.display()))
    }
}

/// What was in it.
fn extract(
    mut chunks: pipe::Chunks,
    dir: &std::path::Path,
    diff: &std::path::Path,
    ids: IdCheck<'_>,
) -> Result<Contents> {
    let recorder = Recorder::new(dir)?;
    let mut extractor = Extractor::new(diff, recorder.clone(), ids)?;
    extractor.extract(&mut chunks)?;
    let found = extractor.finish()?;
    recorder.finish()?;
    Ok(found)
}
