//! Volumes: directories with a name that outlive containers.
//!
//! ```text
//! volumes/NAME/volume.json    what it is: written once
//! volumes/NAME/state.json     what has been done to it
//! volumes/NAME/_data/         its files; or nothing, where they are somewhere else (type=bind, tmpfs, a device)
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Call as _, Error, Result, Store, entries, invalid, make_dir, write_new};

/// A volume's record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// How to read it.
    pub format: u32,
    /// Its name.
    pub name: String,
    /// When it was made, nanoseconds since the epoch.
    pub created: i64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// It was made for a container and goes with it.
    pub anonymous: bool,
    /// Options of the driver: `type`, `device`, `o`, `copy`, `nocopy`.
    pub options: BTreeMap<String, String>,
    /// Its owner, if one was asked for.
    pub uid: Option<u32>,
    /// Its group, if one was asked for.
    pub gid: Option<u32>,
}

/// What still has to be done to a volume when a container uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeState {
    /// It has got no files of an image yet.
    pub needs_copy_up: bool,
    /// Its owner is whoever the next container's process is.
    pub needs_chown: bool,
}

impl Volume {
    /// `type`: where its files are if they are not in `_data`: bind, tmpfs, or a filesystem's name.
    pub fn kind(&self) -> Option<&str> {
        let options = self.mount_options();
        if options.iter().any(|o| o == "bind" || o == "rbind") {
            return Some("bind");
        }
        self.options.get("type").map(String::as_str).filter(|kind| !kind.is_empty() && *kind != "none")
    }

    /// `device`
    pub fn device(&self) -> &str {
        self.options.get("device").map_or("", String::as_str)
    }

    /// `o`, split.
    pub fn mount_options(&self) -> Vec<String> {
        let text = self.options.get("o").map_or("", String::as_str);
        text.split(',').filter(|o| !o.is_empty()).map(str::to_string).collect()
    }
}

/// All volumes of a store.
#[derive(Clone, Debug)]
pub struct Volumes {
    store: Store,
    dir: PathBuf,
}

impl Store {
    /// Its volumes.
    pub fn volumes(&self) -> Volumes {
        let dir = self.volume_dir.clone().unwrap_or_else(|| self.root.join("volumes"));
        Volumes { store: self.clone(), dir }
    }
}

/// Letters, digits, `_`, `.`, `-`; the first a letter or digit.
pub fn is_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && name.len() <= 255
}

impl Volumes {
    /// Where a volume's files are, as far as they are the store's.
    pub fn data(&self, name: &str) -> PathBuf {
        self.dir.join(name).join("_data")
    }

    /// Makes one; there must be none of the name.
    pub fn create(&self, volume: &Volume) -> Result<()> {
        let name = &volume.name;
        if !is_name(name) {
            return invalid("names must match [a-zA-Z0-9][a-zA-Z0-9_.-]*: invalid argument");
        }
        // (made beside the others: they may be on a filesystem of their own)
        make_dir(&self.dir)?;
        let temporary = self.store.temporary_in(&self.dir)?;
        let data = temporary.path().join("_data");
        make_dir(&data)?;
        fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .call(|| "chmod".into())?;
        if volume.uid.is_some() || volume.gid.is_some() {
            std::os::unix::fs::chown(&data, volume.uid, volume.gid)
                .call(|| format!("chown volume {name} to {:?}:{:?}", volume.uid, volume.gid))?;
        }
        let record = serde_json::to_vec(volume).map_err(|e| Error::Invalid(e.to_string()))?;
        write_new(&temporary.path().join("volume.json"), &record)?;
        match fs::rename(temporary.path(), self.dir.join(name)) {
            Ok(()) => Ok(()),
            Err(_) if self.get(name)?.is_some() => {
                Err(Error::InUse(format!("volume with name {name} already exists: volume already exists")))
            }
            Err(e) => Err(e).call(|| format!("rename volume {name}")),
        }
    }

    /// One by name.
    pub fn get(&self, name: &str) -> Result<Option<Volume>> {
        if !is_name(name) {
            return Ok(None);
        }
        read(&self.dir.join(name).join("volume.json"))
    }

    /// All, by name.
    pub fn list(&self) -> Result<Vec<Volume>> {
        let mut all = Vec::new();
        for entry in entries(&self.dir) {
            all.extend(self.get(&entry.file_name().to_string_lossy())?);
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// What has to be done to one.
    pub fn state(&self, volume: &Volume) -> VolumeState {
        let fresh = VolumeState {
            needs_copy_up: volume.kind().is_none() && !volume.options.contains_key("nocopy"),
            needs_chown: volume.kind().is_none() && volume.uid.is_none() && volume.gid.is_none(),
        };
        read(&self.dir.join(&volume.name).join("state.json")).ok().flatten().unwrap_or(fresh)
    }

    /// Says what has been done.
    pub fn set_state(&self, name: &str, state: VolumeState) -> Result<()> {
        let data = serde_json::to_vec(&state).map_err(|e| Error::Invalid(e.to_string()))?;
        let (path, new) =
            (self.dir.join(name).join("state.json"), self.dir.join(name).join(".state.json.new"));
        write_new(&new, &data)?;
        fs::rename(&new, &path).call(|| format!("rename {}", path.display()))
    }

    /// Waits for the lock of a volume, which is held while its first files are made.
    pub fn lock(&self, name: &str) -> Result<File> {
        let path = self.dir.join(name);
        let file = File::open(&path).call(|| format!("open volume {name}"))?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive))
            .call(|| format!("flock volume {name}"))?;
        Ok(file)
    }

    /// Removes one with its files. Whether it is in use is the caller's to know.
    pub fn remove(&self, name: &str) -> Result<()> {
        let doomed = self.store.temporary_in(&self.dir)?;
        let from: &Path = &self.dir.join(name);
        fs::rename(from, doomed.path().join("volume")).call(|| format!("remove volume {name}"))?;
        crate::remove_tree(doomed.path()).call(|| format!("remove files of volume {name}"))
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(data) => serde_json::from_slice(&data)
            .map(Some)
            .map_err(|e| Error::Invalid(format!("read {}: {e}", path.display()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).call(|| format!("read {}", path.display())),
    }
}
