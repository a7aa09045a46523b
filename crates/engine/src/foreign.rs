//! Images of Podman's and Docker's stores on this machine, brought over without downloading.

use std::path::{Path, PathBuf};

use unroot_registry::{Name, Reference};
use unroot_store::foreign::{self, Foreign};
use unroot_store::{ImageConfig, manifest_of};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::images::Progress;
use crate::trust::Policy;

/// What came of an image there.
#[derive(Debug)]
pub struct Imported {
    /// Its id.
    pub id: String,
    /// Its names here.
    pub names: Vec<String>,
    /// Bytes of the layers that were not here yet, uncompressed.
    pub bytes: u64,
    /// It was here already.
    pub known: bool,
}

impl Engine {
    /// Where Podman and Docker keep their images for this user.
    pub fn foreign_stores(&self) -> Vec<PathBuf> {
        let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|d| d.is_absolute());
        let data = data.unwrap_or_else(|| self.user.home.join(".local/share"));
        let places = match self.user.is_rootless() {
            true => vec![data.join("containers/storage"), data.join("docker")],
            false => vec!["/var/lib/containers/storage".into(), "/var/lib/docker".into()],
        };
        places.into_iter().filter(|place| foreign::kind_of(place).is_some()).collect()
    }

    /// The images there; those that cannot be read are told of.
    pub fn foreign_images(&self, root: &Path) -> Result<Vec<Foreign>> {
        // (files of a rootless store are subordinate ids')
        self.enter()?;
        if let Err(error) = std::fs::read_dir(root) {
            let text = format!("read {}: {}", root.display(), crate::plan::reason(&error));
            let told = Error::engine(text);
            return Err(match error.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    told.with_hint("of another user's store: podman save or docker save, and load")
                }
                _ => told,
            });
        }
        // (policy.json knows these stores by the transports that read them)
        let transport = match foreign::kind_of(root) {
            Some(foreign::Kind::Docker) => "docker-daemon",
            _ => "containers-storage",
        };
        Policy::load(&self.policy_path())?.check_transport(transport)?;
        let (found, failed) = foreign::images(root).map_err(Error::engine)?;
        for error in failed {
            crate::warn(format_args!("{}: {error}", root.display()));
        }
        Ok(found)
    }

    /// Takes one of them in, with all its names.
    pub fn import_foreign(&self, image: &Foreign, progress: &dyn Progress) -> Result<Imported> {
        let config: ImageConfig = serde_json::from_slice(&image.config)
            .map_err(|e| Error::engine(format_args!("image {}: {e}", image.id)))?;
        let diff_ids: Vec<&String> = image.layers.iter().map(|l| &l.diff_id).collect();
        if !diff_ids.iter().copied().eq(&config.rootfs.diff_ids) {
            return Err(Error::engine(format_args!(
                "image {}: the layers of the store are not those of the image's configuration",
                image.id
            )));
        }
        let known = self.store.image_by_id(&image.id).map_err(Error::engine)?.is_some();
        let _lease = self.store.lease().map_err(Error::engine)?;
        let ids = self.id_check()?;
        let check = |path: &str, uid: u64, gid: u64| ids.check(path, uid, gid);
        let mut bytes = 0;
        for (n, layer) in image.layers.iter().enumerate() {
            let here = self.store.layer(&layer.diff_id).is_some();
            progress.begin(n, &layer.diff_id, 0);
            if !here {
                let tar = layer.open().map_err(Error::engine)?;
                let made = self.store.ingest_layer(tar, Some(&layer.diff_id), &check).map_err(|e| {
                    Error::engine(format_args!("image {}: layer {}: {e}", image.id, layer.diff_id))
                })?;
                bytes += made.size;
            }
            progress.end(n, here);
        }
        let size = |diff_id: &str| self.store.layer(diff_id).map_or(0, |l| l.size);
        let made = || manifest_of(&image.config, &config.rootfs.diff_ids, size);
        let manifest = image.manifest.clone().filter(|m| names_config(m, &image.id)).unwrap_or_else(made);
        let names = image.names.iter().map(|name| full_name(name)).collect::<Result<Vec<_>>>()?;
        let now = unroot_monitor::log::now();
        let put = self.store.put_image(&manifest, &image.config, &names, now).map_err(Error::engine)?;
        self.dirs.events.image("import", &put.id, names.first().map_or("", String::as_str));
        Ok(Imported { id: put.id, names, bytes, known })
    }
}

/// Docker keeps names as they were typed: those without a registry are Docker Hub's.
fn full_name(name: &str) -> Result<String> {
    let reference = match Name::parse(name).map_err(Error::engine)? {
        Name::Full(reference) => reference,
        Name::Short(short) => short.on_registry("docker.io").map_err(Error::engine)?,
    };
    Ok(Reference::or_latest(reference).to_string())
}

/// The manifest is one of this image, not of something else (a list, an older schema).
fn names_config(manifest: &[u8], id: &str) -> bool {
    let value: serde_json::Value = serde_json::from_slice(manifest).unwrap_or_default();
    value["config"]["digest"].as_str() == Some(&format!("sha256:{id}"))
}
