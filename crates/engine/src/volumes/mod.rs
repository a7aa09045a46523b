//! Volumes as life cycles: made, used by containers, removed when nobody uses them.

pub mod idmap;
mod mounts;
mod options;
pub(crate) mod owners;

use std::collections::BTreeMap;

use unroot_store::Volume;

pub use mounts::is_in_use;

use crate::dirs::Dirs;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Record, VolumeUse};

/// A volume as it is asked for.
#[derive(Clone, Debug, Default)]
pub struct NewVolume {
    /// Its name; a new one where it is empty.
    pub name: String,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--driver`: there is local.
    pub driver: String,
    /// `--opt`, as typed.
    pub options: Vec<String>,
    /// `--uid`.
    pub uid: Option<u32>,
    /// `--gid`.
    pub gid: Option<u32>,
    /// It goes with its container.
    pub anonymous: bool,
}

/// Containers that have a volume.
pub fn users_of(dirs: &Dirs, name: &str) -> Result<Vec<Record>> {
    let mut all = crate::record::all(dirs)?;
    all.retain(|r| r.volumes.iter().any(|v| v.name == name));
    Ok(all)
}

/// Removes the anonymous ones of a container that is gone, but for those that another container has.
pub(crate) fn drop_anonymous(dirs: &Dirs, store: &unroot_store::Store, volumes: &[VolumeUse]) {
    for volume in volumes.iter().filter(|v| v.anonymous) {
        let used = users_of(dirs, &volume.name).is_ok_and(|users| !users.is_empty());
        if !used && store.volumes().remove(&volume.name).is_ok() {
            dirs.events.volume("remove", &volume.name);
        }
    }
}

impl Engine {
    /// Makes a volume.
    pub fn create_volume(&self, wanted: NewVolume) -> Result<Volume> {
        self.enter()?;
        let name = if wanted.name.is_empty() { crate::names::new_id()? } else { wanted.name };
        if !matches!(wanted.driver.as_str(), "" | "local") {
            return Err(Error::engine(format_args!(
                "volume {name} uses volume plugin {0} but it could not be retrieved: no volume plugin with name {0} available: required plugin missing",
                wanted.driver
            )));
        }
        let mut volume = Volume {
            format: 1,
            name,
            created: unroot_monitor::log::now(),
            labels: wanted.labels,
            anonymous: wanted.anonymous,
            uid: wanted.uid,
            gid: wanted.gid,
            ..Volume::default()
        };
        options::parse(&mut volume, &wanted.options)?;
        self.store.volumes().create(&volume).map_err(|e| match e {
            unroot_store::Error::InUse(text) => Error::new(ErrorKind::InUse, text),
            unroot_store::Error::Invalid(text) => {
                Error::engine(format_args!("running volume create option: {text}"))
            }
            other => Error::engine(other),
        })?;
        self.dirs.events.volume("create", &volume.name);
        Ok(volume)
    }

    /// A volume by name, or by the beginning of its name if no other one begins so.
    pub fn find_volume(&self, wanted: &str) -> Result<Volume> {
        let volumes = self.store.volumes();
        if let Some(volume) = volumes.get(wanted).map_err(Error::engine)? {
            return Ok(volume);
        }
        let mut found = volumes.list().map_err(Error::engine)?;
        found.retain(|v| !wanted.is_empty() && v.name.starts_with(wanted));
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => {
                Err(Error::not_found(format_args!("no volume with name \"{wanted}\" found: no such volume")))
            }
            _ => Err(Error::engine(format_args!(
                "more than one result for volume name {wanted}: volume already exists"
            ))),
        }
    }

    /// Removes a volume; with `force` with the containers that have it.
    pub fn remove_volume(&self, volume: &Volume, force: bool, timeout: Option<u32>) -> Result<()> {
        let users = users_of(&self.dirs, &volume.name)?;
        if !users.is_empty() && !force {
            let ids: Vec<&str> = users.iter().map(|r| r.id.as_str()).collect();
            return Err(Error::new(
                ErrorKind::InUse,
                format_args!(
                    "volume {} is being used by the following container(s): {}: volume is being used",
                    volume.name,
                    ids.join(", ")
                ),
            ));
        }
        for record in &users {
            self.remove(record, true, timeout, false)?;
        }
        self.enter()?;
        mounts::unmount(self, volume)?;
        self.store.volumes().remove(&volume.name).map_err(Error::engine)?;
        self.dirs.events.volume("remove", &volume.name);
        Ok(())
    }

    /// Mounts a volume that is a filesystem of its own; where its files are.
    pub fn mount_volume(&self, volume: &Volume) -> Result<std::path::PathBuf> {
        mounts::mount(self, volume)?;
        self.dirs.events.volume("mount", &volume.name);
        Ok(self.store.volumes().data(&volume.name))
    }

    /// The reverse.
    pub fn unmount_volume(&self, volume: &Volume) -> Result<()> {
        mounts::unmount(self, volume)?;
        self.dirs.events.volume("unmount", &volume.name);
        Ok(())
    }
}
