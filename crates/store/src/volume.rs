//! Volumes: directories with a name that outlive containers.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Call as _, Error, Result, Store, entries, invalid, make_dir, write_new};

/// A volume's record.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
        Volumes { store: self.clone(), dir: self.root.join("volumes") }
    }
}

/// Letters, digits, `_`, `.`, `-`; the first a letter or digit.
pub fn is_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && name.len() <= 255
}

impl Volumes {
    /// Where a volume's files are.
    pub fn data(&self, name: &str) -> PathBuf {
        self.dir.join(name).join("_data")
    }

    /// Makes one; there must be none of the name.
    pub fn create(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
        anonymous: bool,
        created: i64,
    ) -> Result<Volume> {
        if !is_name(name) {
            return invalid(format!(
                "volume name {name:?}: names must match [a-zA-Z0-9][a-zA-Z0-9_.-]*: invalid argument"
            ));
        }
        let volume = Volume { format: 1, name: name.into(), created, labels, anonymous };
        let temporary = self.store.temporary()?;
        let data = temporary.path().join("_data");
        make_dir(&data)?;
        fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .call(|| "chmod".into())?;
        let record = serde_json::to_vec(&volume).map_err(|e| Error::Invalid(e.to_string()))?;
        write_new(&temporary.path().join("volume.json"), &record)?;
        make_dir(&self.dir)?;
        match fs::rename(temporary.path(), self.dir.join(name)) {
            Ok(()) => Ok(volume),
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
        let path = self.dir.join(name).join("volume.json");
        match fs::read(&path) {
            Ok(data) => serde_json::from_slice(&data)
                .map(Some)
                .map_err(|e| Error::Invalid(format!("read {}: {e}", path.display()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).call(|| format!("read {}", path.display())),
        }
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

    /// Removes one with its files. Whether it is in use is the caller's to know.
    pub fn remove(&self, name: &str) -> Result<()> {
        let doomed = self.store.temporary()?;
        let from: &Path = &self.dir.join(name);
        fs::rename(from, doomed.path().join("volume")).call(|| format!("remove volume {name}"))?;
        fs::remove_dir_all(doomed.path()).call(|| format!("remove files of volume {name}"))
    }
}
