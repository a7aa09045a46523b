//! Images on their way to a registry: what it has already is not sent, what another of its repositories has is taken
//! over there, and only the rest is compressed and uploaded; all layers at once.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use unroot_registry::{Client, Descriptor, Digest, Reference};
use unroot_store::{Blob, Compression, Encoding, Image, Kind, Progress, remade};

use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::images::{PullOptions, registry_error};

/// Layers that are compressed and uploaded at once.
const AT_ONCE: usize = 3;

/// How an image is pushed.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    /// How the registry is asked.
    pub registry: PullOptions,
    /// `--format`; none is what the image is.
    pub kind: Option<Kind>,
    /// `--compression-format`.
    pub compression: Option<Compression>,
    /// `--compression-level`.
    pub level: Option<i32>,
    /// `--force-compression`: blobs of another compression that are there already are not used.
    pub force: bool,
}

/// One push.
pub(crate) struct Push<'a> {
    pub engine: &'a Engine,
    pub client: &'a Client,
    pub reference: &'a Reference,
    pub options: &'a PushOptions,
    pub progress: &'a dyn Progress,
}

impl Engine {
    /// Pushes an image; the digest of its manifest there.
    pub fn push(
        &self,
        image: &Image,
        destination: &str,
        options: &PushOptions,
        progress: &dyn Progress,
    ) -> Result<Digest> {
        self.enter()?;
        let text = destination.strip_prefix("docker://").unwrap_or(destination);
        let reference = Reference::parse_normalized(text).map_err(Error::engine)?.or_latest();
        let client = self.client(&options.registry)?;
        progress.say("Getting image source signatures");
        let push = Push { engine: self, client: &client, reference: &reference, options, progress };
        let (digest, _) = push.image(image, reference.tag().is_some())?;
        progress.say("Writing manifest to image destination");
        self.dirs.events.image("push", &image.id, destination);
        Ok(digest)
    }
}

impl Push<'_> {
    /// All of an image; its manifest under the tag or by its digest alone.
    pub fn image(&self, image: &Image, by_tag: bool) -> Result<(Digest, Vec<u8>)> {
        let store = &self.engine.store;
        let manifest = store.manifest(&image.id).map_err(Error::engine)?;
        let config = store.config(&image.id).map_err(Error::engine)?;
        let kind = self.options.kind.unwrap_or_else(|| self.usual_kind(&manifest));
        let blobs = self.layers(image, &manifest, kind)?;
        self.progress.say(&format!("Copying config sha256:{}", image.id));
        self.bytes(&config)?;
        let made = remade(&manifest, &config, &blobs, kind).map_err(Error::engine)?;
        let mut reference = self.reference.clone();
        if !by_tag {
            reference = reference.without_tag_and_digest().with_digest(Digest::sha256(&made));
        }
        let digest = self.client.push_manifest(&reference, kind.manifest(), &made).map_err(registry_error)?;
        Ok((digest, made))
    }

    /// What the image is; zstd is only known to OCI.
    fn usual_kind(&self, manifest: &[u8]) -> Kind {
        match self.options.compression {
            Some(Compression::Zstd) => Kind::Oci,
            _ => Kind::of(manifest),
        }
    }

    /// A small blob.
    pub fn bytes(&self, data: &[u8]) -> Result<()> {
        let descriptor = Descriptor::of("application/octet-stream", data);
        let mut open = || Ok(Box::new(io::Cursor::new(data.to_vec())) as Box<dyn io::Read>);
        self.client.push_blob(self.reference, &descriptor, &mut open).map_err(registry_error)
    }

    fn layers(&self, image: &Image, manifest: &[u8], kind: Kind) -> Result<Vec<Blob>> {
        let own: Value = serde_json::from_slice(manifest).context(|| format!("image {}", image.id))?;
        let blobs: Vec<Mutex<Option<Blob>>> = image.layers.iter().map(|_| Mutex::new(None)).collect();
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        let others = self.other_repositories();
        let work = || {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some(diff_id) = image.layers.get(n) else { return };
                match self.layer(n, diff_id, blob_of(&own["layers"][n]), kind, &others) {
                    Ok(blob) => drop(blobs[n].lock().map(|mut place| *place = Some(blob))),
                    Err(error) => {
                        next.store(usize::MAX / 2, Ordering::Relaxed);
                        drop(failure.lock().map(|mut f: std::sync::MutexGuard<'_, Option<Error>>| {
                            f.get_or_insert(error);
                        }));
                        return;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            (0..image.layers.len().min(AT_ONCE)).for_each(|_| drop(scope.spawn(work)));
        });
        if let Some(error) = failure.into_inner().unwrap_or(None) {
            return Err(error);
        }
        let done = blobs.into_iter().map(|blob| blob.into_inner().unwrap_or(None));
        done.collect::<Option<_>>().ok_or_else(|| Error::engine("push: a thread ended"))
    }

    /// Repositories of the same registry that images of the store came from or went to.
    fn other_repositories(&self) -> Vec<String> {
        let registry = format!("{}/", self.reference.registry());
        let own = self.reference.repository();
        let mut all: Vec<String> = self
            .engine
            .store
            .names()
            .iter()
            .filter(|(name, _)| name.starts_with(&registry))
            .filter_map(|(name, _)| Some(Reference::parse_normalized(name).ok()?.repository().to_string()))
            .filter(|repository| repository != own)
            .collect();
        all.dedup();
        all.truncate(8);
        all
    }

    /// Sees to it that the registry has a layer.
    fn layer(
        &self,
        n: usize,
        diff_id: &str,
        own: Option<Blob>,
        kind: Kind,
        others: &[String],
    ) -> Result<Blob> {
        let store = &self.engine.store;
        let size = store.layer(diff_id).map_or(0, |l| l.size);
        self.progress.begin(n, diff_id, size);
        // (the image's own blob before others that are the same layer: then its manifest stays as it came)
        let known = own.into_iter().chain(store.blobs(diff_id)).filter(|blob| self.is_wanted(blob, kind));
        for blob in known {
            if self.is_there(&blob, others)? {
                self.progress.end(n, true);
                return Ok(blob);
            }
        }
        let compression = self.options.compression.unwrap_or(Compression::Gzip);
        let encoding = Encoding::new(compression, self.options.level).map_err(Error::engine)?;
        let encoded = store.encode(diff_id, encoding, n, self.progress).map_err(Error::engine)?;
        let descriptor = Descriptor {
            digest: encoded.blob.digest.parse().map_err(Error::engine)?,
            size: encoded.blob.size,
            ..Descriptor::of("application/octet-stream", b"")
        };
        let mut open = || encoded.open(store).map_err(io::Error::other);
        self.client.push_blob(self.reference, &descriptor, &mut open).map_err(registry_error)?;
        self.progress.end(n, false);
        Ok(encoded.blob.clone())
    }

    fn is_wanted(&self, blob: &Blob, kind: Kind) -> bool {
        let as_asked = match self.options.compression {
            Some(compression) if self.options.force => blob.compression == compression,
            _ => blob.compression != Compression::None,
        };
        as_asked && !(kind == Kind::Docker && blob.compression == Compression::Zstd)
    }

    fn is_there(&self, blob: &Blob, others: &[String]) -> Result<bool> {
        let digest: Digest = blob.digest.parse().map_err(Error::engine)?;
        if self.client.has_blob(self.reference, &digest).map_err(registry_error)? {
            return Ok(true);
        }
        // (a registry that will not is no failure: then it is uploaded)
        let mounted = |from: &String| self.client.mount_blob(self.reference, from, &digest).unwrap_or(false);
        Ok(others.iter().any(mounted))
    }
}

/// A layer as a manifest has it.
fn blob_of(layer: &Value) -> Option<Blob> {
    Some(Blob {
        digest: layer["digest"].as_str()?.into(),
        size: layer["size"].as_u64()?,
        compression: Compression::of_media_type(layer["mediaType"].as_str()?),
    })
}
