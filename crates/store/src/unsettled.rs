//! What was stored lately need not be on the disk yet. Nobody waits for the disk: what was not known to be there when
//! the system stopped is looked at once before it is used again, and what a power cut took is thrown away.
//!
//! ```text
//! unsettled/BOOT/layer-HEX     a layer that was stored in this boot (/proc/sys/kernel/random/boot_id)
//! unsettled/BOOT/image-ID      an image, or its files with other owners
//! unsettled/BOOT~N/            the same while the disk is waited for
//! ```
//! A mark is made before what it stands for gets its name. It is a name alone, and filesystems keep the order of names
//! over a power cut, though not that of contents. Marks go when the filesystem was synced after them
//! ([`Store::settle`], by whom nobody waits for), or when all was found to be right in another boot
//! ([`Store::recover`]). Without a boot's id the filesystem is synced for each image instead.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::fs::{Access, FlockOperation, access, flock};

use crate::{Call as _, Result, Store, entries, make_dir, remove_tree};

/// The kernel has written by itself what is older (dirty_expire_centisecs is 30 seconds).
const WRITTEN_AFTER: Duration = Duration::from_secs(60);

/// Of this boot; none where it is not to be had.
fn boot() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = text.trim();
    (!id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')).then(|| id.to_string())
}

impl Store {
    fn unsettled(&self) -> PathBuf {
        self.root.join("unsettled")
    }

    /// A layer is about to get its name.
    pub(crate) fn unsettled_layer(&self, diff_id: &str) -> Result<()> {
        self.mark(&format!("layer-{}", crate::layer::dir_name(diff_id)))
    }

    /// An image, or something of it, is about to get its name.
    pub(crate) fn unsettled_image(&self, id: &str) -> Result<()> {
        self.mark(&format!("image-{id}"))
    }

    fn mark(&self, name: &str) -> Result<()> {
        let Some(boot) = boot() else {
            let root = File::open(&self.root).call(|| format!("open {}", self.root.display()))?;
            return rustix::fs::syncfs(&root).call(|| format!("syncfs {}", self.root.display()));
        };
        let path = self.unsettled().join(boot).join(name);
        loop {
            match File::options().create(true).append(true).open(&path) {
                // (the directory is not there yet, or is being settled)
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    make_dir(path.parent().unwrap_or(&self.root))?;
                }
                other => return other.map(drop).call(|| format!("create {}", path.display())),
            }
        }
    }

    /// Marks that have waited long enough for the kernel to have written what they stand for go, after a sync.
    pub fn settle(&self) -> Result<()> {
        self.settle_after(WRITTEN_AFTER)
    }

    fn settle_after(&self, age: Duration) -> Result<()> {
        let Some(boot) = boot() else { return Ok(()) };
        let marks = self.unsettled().join(&boot);
        let modified = fs::metadata(&marks).and_then(|m| m.modified());
        if modified.ok().and_then(|t| t.elapsed().ok()).is_none_or(|passed| passed < age) {
            return Ok(());
        }
        let waiting = self.unsettled().join(format!("{boot}~{}", crate::random_name()?));
        if fs::rename(&marks, &waiting).is_err() {
            return Ok(()); // (somebody else does it)
        }
        let root = File::open(&self.root).call(|| format!("open {}", self.root.display()))?;
        rustix::fs::syncfs(&root).call(|| format!("syncfs {}", self.root.display()))?;
        self.forget(&waiting);
        Ok(())
    }

    fn forget(&self, marks: &Path) {
        let _ = remove_tree(marks);
        let _ = fs::remove_dir(self.unsettled());
    }

    /// Looks at what was stored before the system stopped and is not known to have reached the disk, and removes what
    /// is not as it was; a line for each. `say` is told before it takes time.
    pub fn recover(&self, say: &dyn Fn(&str)) -> Result<Vec<String>> {
        let Ok(found) = fs::read_dir(self.unsettled()) else { return Ok(Vec::new()) };
        let now = boot();
        let mut lost = Vec::new();
        for entry in found.flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|n| n.split('~').next() == now.as_deref()) {
                continue;
            }
            // (what cannot be written to cannot be cured)
            if access(entry.path(), Access::WRITE_OK).is_ok() {
                lost.extend(self.recover_boot(&entry.path(), say)?);
            }
        }
        Ok(lost)
    }

    fn recover_boot(&self, marks: &Path, say: &dyn Fn(&str)) -> Result<Vec<String>> {
        let Ok(lock) = File::open(marks) else { return Ok(Vec::new()) };
        rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
            .call(|| format!("flock {}", marks.display()))?;
        let (mut layers, mut images) = (Vec::new(), Vec::new());
        for entry in entries(marks) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(hex) = name.strip_prefix("layer-") {
                layers.push(format!("sha256:{hex}"));
            } else if let Some(id) = name.strip_prefix("image-").filter(|id| crate::image::is_id(id)) {
                images.push(id.to_string());
            }
        }
        layers.retain(|diff_id| crate::layer::is_digest(diff_id) && self.layer_dir(diff_id).exists());
        if !layers.is_empty() {
            say(&format!(
                "looking at {} layers that were stored shortly before the system stopped",
                layers.len()
            ));
        }
        let mut lost = Vec::new();
        for (diff_id, why) in self.damaged(&layers)? {
            drop(self.set_layer_aside(&diff_id)?);
            lost.push(format!("layer {diff_id} did not reach the disk before the system stopped: {why}"));
        }
        for id in images {
            lost.extend(self.recover_image(&id)?);
        }
        self.forget(marks);
        Ok(lost)
    }

    /// Those that are not what they were, looked at by all processors.
    fn damaged(&self, layers: &[String]) -> Result<Vec<(String, String)>> {
        let (next, found) = (AtomicUsize::new(0), Mutex::new(Ok(Vec::new())));
        let work = || {
            while let Some(diff_id) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                let checked = self.check_layer(diff_id, false);
                let Ok(mut found) = found.lock() else { return };
                match (checked, found.as_mut()) {
                    (Ok(Some(why)), Ok(all)) => all.push((diff_id.clone(), why)),
                    (Ok(None), _) | (_, Err(_)) => {}
                    (Err(e), Ok(_)) => *found = Err(e),
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
        std::thread::scope(|scope| (0..layers.len().min(threads)).for_each(|_| drop(scope.spawn(work))));
        found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn recover_image(&self, id: &str) -> Result<Option<String>> {
        let place = self.image_dir(id);
        for entry in entries(&place) {
            let name = entry.file_name().to_string_lossy().into_owned();
            // (files with other owners are made again when they are needed)
            if name.starts_with("copies-") || name.starts_with("refers-") {
                remove_tree(&entry.path()).call(|| format!("remove {}", entry.path().display()))?;
            }
        }
        let Some(why) = self.check_image(id).filter(|_| place.exists()) else { return Ok(None) };
        self.remove_image(id)?;
        Ok(Some(format!("image {id} did not reach the disk before the system stopped: {why}")))
    }
}
