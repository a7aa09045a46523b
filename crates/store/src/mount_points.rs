//! The layer below all others of a container: empty directories and files for what every container mounts.
//!
//! An image need not have /proc or /etc/hosts. Without this layer each start would make them in the container's own
//! layer, and each removal delete them there; with it a container that writes nothing has an empty layer. It belongs
//! to no image: what is seen of an image's files without a container does not have it.

use std::fs;
use std::path::PathBuf;

use crate::{Call as _, Result, Store, write_new};

/// Directories of the layer.
const DIRECTORIES: [&str; 5] = ["dev", "etc", "proc", "run", "sys"];
/// Files of the layer. A container that does not mount all of them must not have it.
pub const MOUNTED_FILES: [&str; 4] =
    ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv"];

impl Store {
    /// The layer, made when it is first asked for, of the engine's root.
    pub fn mount_points(&self) -> Result<PathBuf> {
        let place = self.root.join("mount-points");
        if place.join("dev").exists() {
            return Ok(place);
        }
        let temporary = self.temporary()?;
        let made = temporary.path().join("mount-points");
        for dir in std::iter::once("").chain(DIRECTORIES) {
            let dir = made.join(dir);
            fs::create_dir(&dir).call(|| format!("mkdir {}", dir.display()))?;
            set_mode(&dir, 0o755)?;
        }
        for file in MOUNTED_FILES {
            let file = made.join(file.trim_start_matches('/'));
            write_new(&file, b"")?;
            set_mode(&file, 0o644)?;
        }
        match fs::rename(&made, &place) {
            // somebody else was faster
            Err(_) if place.join("dev").exists() => {}
            other => other.call(|| format!("rename {} to {}", made.display(), place.display()))?,
        }
        Ok(place)
    }
}

fn set_mode(path: &std::path::Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).call(|| format!("chmod {}", path.display()))
}
