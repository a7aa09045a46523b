//! [`Record`]: what is kept about a container, and the index of names.

use std::fs;
use std::io;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use unroot_idmap::IdMaps;
use unroot_network::PortMap;

use crate::dirs::{Dirs, read_json};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Lock;
use crate::spec::ContainerSpec;

/// A container as it is kept: written once, at creation; replaced by rename and update.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// How to read it: [`crate::spec::FORMAT`].
    pub format: u32,
    /// 64 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made, nanoseconds since the epoch.
    pub created: i64,
    /// What was asked for.
    pub spec: ContainerSpec,
    /// The image that it was made from; none with `--rootfs`.
    pub image: Option<ImageRef>,
    /// Its own user namespace's maps (inside -> engine's namespace); none if it is the engine's or another's.
    pub maps: Option<IdMaps>,
    /// The user namespace was chosen so: `host`, `keep-id`, ...
    pub userns: String,
    /// keep-id: the user that the process is, where none was asked for.
    pub default_user: Option<(u32, u32)>,
    /// Volumes in use: name, and where they are mounted.
    pub volumes: Vec<VolumeUse>,
    /// Published ports, settled: one text a port as in `-p`.
    pub ports: Vec<String>,
}

/// The image of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageRef {
    /// Its id.
    pub id: String,
    /// The name it was asked by, in full.
    pub name: String,
    /// Its manifest's digest.
    pub digest: String,
}

/// A volume in a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VolumeUse {
    /// The volume's name.
    pub name: String,
    /// Path in the container.
    pub target: String,
    /// It was made for this container and goes with it.
    pub anonymous: bool,
    /// Where its files are.
    pub path: PathBuf,
}

impl Record {
    /// `id`'s first twelve digits.
    pub fn short_id(&self) -> &str {
        &self.id[..12]
    }

    /// Its published ports, one by one.
    pub fn published(&self) -> impl Iterator<Item = PortMap> {
        self.ports.iter().filter_map(|text| PortMap::parse(text).ok()).flatten()
    }

    /// Reads one; none if it is gone.
    pub fn read(dirs: &Dirs, id: &str) -> Result<Option<Self>> {
        read_json(&dirs.container(id).join("container.json"))
    }
}

/// Ids of all containers, in no order.
pub fn ids(dirs: &Dirs) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dirs.containers()) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::engine(format_args!("read {}: {e}", dirs.containers().display()))),
    };
    Ok(entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(|name| is_id(name)).collect())
}

/// All containers, oldest first; one that vanishes while we look is left out.
pub fn all(dirs: &Dirs) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for id in ids(dirs)? {
        records.extend(Record::read(dirs, &id)?);
    }
    records.sort_by_key(|r| r.created);
    Ok(records)
}

/// 64 lower-case hex digits.
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Finds a container by name, id or the beginning of an id.
pub fn find(dirs: &Dirs, wanted: &str) -> Result<Record> {
    let missing = || {
        let text = format!("no container with name or ID \"{wanted}\" found: no such container");
        Error::not_found(text)
    };
    let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
    if wanted.is_empty() || wanted.contains('/') {
        return Err(missing());
    }
    if let Some(id) = id_of_name(dirs, wanted)
        && let Some(record) = Record::read(dirs, &id)?
        && record.name == wanted
    {
        return Ok(record);
    }
    if is_id(wanted) {
        return Record::read(dirs, wanted)?.ok_or_else(missing);
    }
    if !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(missing());
    }
    let found: Vec<_> = ids(dirs)?.into_iter().filter(|id| id.starts_with(wanted)).collect();
    match &found[..] {
        [] => Err(missing()),
        [id] => Record::read(dirs, id)?.ok_or_else(missing),
        _ => Err(Error::new(
            ErrorKind::Engine,
            format_args!(
                "more than one result for container name or ID {wanted}: container ID prefix is ambiguous"
            ),
        )),
    }
}

/// The container that was made last.
pub fn latest(dirs: &Dirs) -> Result<Record> {
    all(dirs)?.pop().ok_or_else(|| Error::not_found("no containers were found: no such container"))
}

/// Whose name it is.
pub fn id_of_name(dirs: &Dirs, name: &str) -> Option<String> {
    let id = fs::read_link(dirs.names().join(name)).ok()?.into_os_string().into_string().ok()?;
    is_id(&id).then_some(id)
}

/// Takes a name for a container, or says who has it. A name whose container is neither there nor being made is
/// free: its maker was killed.
pub fn claim_name(dirs: &Dirs, name: &str, id: &str) -> Result<()> {
    let link = dirs.names().join(name);
    for _ in 0..10 {
        match std::os::unix::fs::symlink(id, &link) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::engine(format_args!("symlink {} -> {id}: {e}", link.display()))),
        }
        let Some(owner) = id_of_name(dirs, name) else { continue };
        // (a rename that was killed has taken it already)
        if owner == id {
            return Ok(());
        }
        if !release_stale(dirs, name, &owner) {
            return Err(Error::new(
                ErrorKind::InUse,
                format_args!(
                    "creating container storage: the container name \"{name}\" is already in use by {owner}. You have to remove that container to be able to reuse that name: that name is already in use, or use --replace to instruct Podman to do so."
                ),
            )
            .with_hint(format_args!("{} rm {name}, or --replace", crate::program())));
        }
    }
    Err(Error::engine(format_args!("the container name \"{name}\" changes hands too fast")))
}

/// Frees a name whose link is nobody's: its container is neither there nor being made, or it has another name and
/// nobody is just giving it this one. False if it is somebody's.
pub fn release_stale(dirs: &Dirs, name: &str, id: &str) -> bool {
    let _names = lock_names(dirs);
    // (in this order: it may be published in between)
    let is_there = || dirs.container(id).exists() || dirs.pod(id).exists();
    if !is_there() && !crate::create::is_being_made(dirs, id) && !is_there() {
        remove_link(dirs, name, id);
        return true;
    }
    let otherwise = || Record::read(dirs, id).is_ok_and(|r| r.is_some_and(|r| r.name != name));
    if !otherwise() {
        return false;
    }
    match Lock::try_take(dirs, id) {
        Ok(Some(_lock)) if otherwise() => {
            remove_link(dirs, name, id);
            true
        }
        _ => false,
    }
}

/// Gives a name back, if it is still this container's.
pub fn release_name(dirs: &Dirs, name: &str, id: &str) {
    let _names = lock_names(dirs);
    remove_link(dirs, name, id);
}

/// Whoever removes links holds this: what a link was seen to be, it still is when it is removed.
fn lock_names(dirs: &Dirs) -> Option<fs::File> {
    let names = fs::File::open(dirs.names()).ok()?;
    rustix::io::retry_on_intr(|| flock(&names, FlockOperation::LockExclusive)).ok()?;
    Some(names)
}

fn remove_link(dirs: &Dirs, name: &str, id: &str) {
    if id_of_name(dirs, name).as_deref() == Some(id) {
        let _ = fs::remove_file(dirs.names().join(name));
    }
}
