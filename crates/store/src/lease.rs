//! Layers that no image has are removed, but not those of an image that is being made.
//!
//! Whoever makes an image holds a lease, a shared lock of the file `lease`, from before it looks which layers are here
//! until the image has its name. Whoever collects needs the lock alone, does not wait for it, and holds it only while
//! layers are renamed into `tmp`; what it could not collect, the last lease that ends does.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

use crate::{Call as _, Result, Store, Temporary, entries, invalid, layer, make_dir};

/// While it is held no layer is removed.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    file: Option<File>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.file = None;
        if self.store.wanted().exists() {
            let _ = self.store.collect(&[]);
        }
    }
}

/// A layer that was taken out of its place; it goes when this is dropped.
#[derive(Debug)]
pub struct Aside {
    store: Store,
    diff_id: String,
    temporary: Temporary,
}

impl Aside {
    /// Puts it back, unless there is another one now.
    pub fn restore(self) -> Result<()> {
        let (from, to) = (self.temporary.path().join("layer"), self.store.layer_dir(&self.diff_id));
        match to.exists() || !from.exists() {
            true => Ok(()),
            false => fs::rename(&from, &to).call(|| format!("rename layer to {}", to.display())),
        }
    }
}

impl Store {
    /// Takes a layer out of its place.
    pub fn set_layer_aside(&self, diff_id: &str) -> Result<Aside> {
        let temporary = self.temporary()?;
        let place = self.layer_dir(diff_id);
        match fs::rename(&place, temporary.path().join("layer")) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => other.call(|| format!("rename {}", place.display()))?,
        }
        Ok(Aside { store: self.clone(), diff_id: diff_id.into(), temporary })
    }

    fn lock_file(&self) -> Result<File> {
        make_dir(&self.root)?;
        let path = self.root.join("lease");
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        file.call(|| format!("open {}", path.display()))
    }

    /// That somebody could not collect.
    fn wanted(&self) -> PathBuf {
        self.root.join("collect")
    }

    /// No layer is removed until it is dropped.
    pub fn lease(&self) -> Result<Lease> {
        let file = self.lock_file()?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockShared))
            .call(|| "flock of the store's lease".into())?;
        // (whoever makes something goes on with what is here)
        self.recover(&|_| ())?;
        Ok(Lease { store: self.clone(), file: Some(file) })
    }

    /// Removes layers that no image has, and what killed processes left; those that are being made for images stay.
    /// `used` are diff IDs of layers in use besides. Returns the bytes of their tars.
    pub fn collect(&self, used: &[String]) -> Result<u64> {
        self.sweep_temporary();
        let file = self.lock_file()?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let wanted = self.wanted();
            fs::write(&wanted, "").call(|| format!("write {}", wanted.display()))?;
            return Ok(0);
        }
        let _ = fs::remove_file(self.wanted());
        let (doomed, bytes) = self.unused_layers(used)?;
        drop(file);
        // (files are removed while nobody waits for the lock)
        for layer in &doomed {
            let _ = crate::removal::remove_large_tree(&layer.path().join("layer"));
        }
        drop(doomed);
        Ok(bytes)
    }

    /// Takes the layers of no image out of their places.
    fn unused_layers(&self, used: &[String]) -> Result<(Vec<Temporary>, u64)> {
        let mut kept: HashSet<String> = used.iter().map(|d| layer::dir_name(d)).collect();
        let (images, broken) = self.all_images();
        if let Some((id, why)) = broken.first() {
            return invalid(format!(
                "image {id} is damaged ({why}): which layers it has is not known, so none is removed"
            ));
        }
        self.sweep_names();
        for image in images {
            kept.extend(image.layers.iter().map(|d| layer::dir_name(d)));
        }
        let (mut doomed, mut bytes) = (Vec::new(), 0);
        for entry in entries(&self.layers_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !kept.contains(&name) {
                bytes += self.layer(&format!("sha256:{name}")).map_or(0, |l| l.size);
                let temporary = self.temporary()?;
                if fs::rename(entry.path(), temporary.path().join("layer")).is_ok() {
                    doomed.push(temporary);
                }
            }
        }
        Ok((doomed, bytes))
    }
}
