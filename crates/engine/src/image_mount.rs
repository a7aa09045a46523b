//! Images mounted for reading: an ordinary user's are seen in their user namespace alone (`unshare`).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use rustix::mount::{UnmountFlags, unmount};
use unroot_runtime::Rootfs;
use unroot_store::Image;

use crate::dirs::make_dir;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};

impl Engine {
    /// From here on mounts are this process's own, and those that it starts.
    pub fn unshare_mounts(&self) -> Result<()> {
        let mounts = [unroot_sys::process::Namespace::Mount].into_iter().collect();
        // (one of another user namespace gets what is mounted outside, and gives nothing back)
        unroot_sys::ns::unshare(mounts).map_err(Error::engine)
    }

    fn image_mounts(&self) -> PathBuf {
        self.dirs.root.join("mounts")
    }

    /// Where an image is mounted.
    pub fn image_mount(&self, id: &str) -> Option<PathBuf> {
        let (place, above) = (self.image_mounts().join(id), self.image_mounts());
        let device = |path: &PathBuf| fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()));
        // (a mount of one layer has its device: then it is another directory than the one that was made)
        let own = fs::read_to_string(above.join(format!("{id}.made"))).ok();
        let is_mounted = device(&place)?.0 != device(&above)?.0
            || own.is_some_and(|inode| device(&place).is_some_and(|d| d.1.to_string() != inode));
        is_mounted.then_some(place)
    }

    /// Mounts all that an image has, for reading.
    pub fn mount_image(&self, image: &Image) -> Result<PathBuf> {
        self.enter()?;
        if let Some(place) = self.image_mount(&image.id) {
            return Ok(place);
        }
        if let Some(layer) = self.store.missing_layer(image) {
            return Err(Error::engine(format_args!(
                "image {}: layer {layer} is missing in the store",
                image.id
            )));
        }
        let place = self.image_mounts().join(&image.id);
        make_dir(&place)?;
        let inode = fs::symlink_metadata(&place).context(|| format!("stat {}", place.display()))?.ino();
        let made = self.image_mounts().join(format!("{}.made", image.id));
        fs::write(&made, inode.to_string()).context(|| format!("write {}", made.display()))?;
        let lower = self.store.lower_dirs(image);
        if lower.is_empty() {
            return Err(Error::engine(format_args!("image {}: it has no layer to mount", image.id)));
        }
        unroot_runtime::mount_read_only(
            &Rootfs::Overlay { lower, data: Vec::new(), upper: None, shift: None },
            &place,
        )
        .map_err(Error::engine)?;
        self.dirs.events.image("mount", &image.id, &image.id);
        Ok(place)
    }

    /// Unmounts it; false if it is not mounted. With `force` also while it is used.
    pub fn unmount_image(&self, id: &str, force: bool) -> Result<bool> {
        self.enter()?;
        let Some(place) = self.image_mount(id) else { return Ok(false) };
        let flags = if force { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        unmount(&place, flags).context(|| format!("umount {}", place.display()))?;
        let _ = fs::remove_dir(&place);
        let _ = fs::remove_file(self.image_mounts().join(format!("{id}.made")));
        self.dirs.events.image("unmount", id, id);
        Ok(true)
    }
}
