//! What a container's mounts are when it starts: volumes become what they stand for, and get what they lack.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};
use unroot_idmap::IdMaps;
use unroot_store::{Volume, VolumeState};

use super::{idmap, options, owners, users_of};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::plan::reason;
use crate::record::{Record, VolumeUse};
use crate::spec::{Mount, MountKind};
use crate::state::State;
use crate::users::{ResolvedUser, RootView};

/// The mounts of a container that is about to start.
pub(crate) struct Settled {
    /// All of them, with names resolved.
    pub mounts: Vec<Mount>,
    /// Locks on volumes that get their first files; to be held until the container has started.
    pub locks: Vec<File>,
    /// Volumes that will have got them.
    pub filled: Vec<String>,
}

/// Whether a live container has a volume.
pub fn is_in_use(engine: &Engine, name: &str) -> Result<usize> {
    let live = |r: &Record| State::observe(&engine.dirs, &r.id).is_ok_and(|s| s.is_live());
    Ok(users_of(&engine.dirs, name)?.iter().filter(|r| live(r)).count())
}

impl Engine {
    /// Settles the mounts of a container.
    pub(crate) fn settle_mounts(
        &self,
        record: &Record,
        view: &RootView,
        user: &ResolvedUser,
    ) -> Result<Settled> {
        let mut settled = Settled { mounts: Vec::new(), locks: Vec::new(), filled: Vec::new() };
        for mount in &record.spec.files.mounts {
            let shifted = mount.options.iter().find(|o| idmap::is_idmap(o));
            // (on disk its files have the container's own ids)
            let owner = Owner { maps: record.maps.as_ref().filter(|_| shifted.is_none()), user };
            let used =
                record.volumes.iter().find(|v| v.target == mount.target && mount.kind == MountKind::Volume);
            let mount = match used {
                Some(used) => self.settle_volume(record, mount, used, view, &owner, &mut settled)?,
                None if mount.kind == MountKind::Image => self.settle_image(record, mount)?,
                None => mount.clone(),
            };
            if mount.options.iter().any(|o| o == "U") && is_path(&mount) {
                let (uid, gid) = owner.outside(user.uid, user.gid)?;
                owners::give(Path::new(&mount.source), &self.user.home, uid, gid)?;
            }
            let mut mount = mount;
            own_memory(&mut mount, user);
            if let Some(option) = shifted {
                let maps = idmap::maps_of(option, record.maps.as_ref())?;
                mount.options.retain(|o| !idmap::is_idmap(o));
                mount.options.push(idmap::settled(&maps));
            }
            settled.mounts.push(mount);
        }
        Ok(settled)
    }

    /// An image that a container mounts is here.
    pub(crate) fn check_image_mount(&self, mount: &mut Mount) -> Result<()> {
        let named = self.local_image(&mount.source)?.ok_or_else(|| {
            Error::not_found(format_args!(
                "creating image volume {:?}:{:?}: {}: image not known",
                mount.source, mount.target, mount.source
            ))
        })?;
        mount.options.push(format!("image-id={}", named.image.id));
        Ok(())
    }

    fn settle_image(&self, record: &Record, mount: &Mount) -> Result<Mount> {
        let gone = || {
            Error::not_found(format_args!(
                "image {} of container {} is gone: image not known",
                mount.source, record.name
            ))
        };
        let id = mount.options.iter().find_map(|o| o.strip_prefix("image-id=")).ok_or_else(gone)?;
        let image = self.store.image_by_id(id).map_err(Error::engine)?.ok_or_else(gone)?;
        let named = crate::images::Named { image, name: mount.source.clone() };
        let layers = self.layer_dirs(&named, record.maps.as_ref())?;
        let mut mount = mount.clone();
        mount.options.extend(layers.lower.iter().map(|dir| format!("lowerdir+={}", dir.display())));
        mount.options.extend(layers.data.iter().map(|dir| format!("datadir+={}", dir.display())));
        Ok(mount)
    }

    fn settle_volume(
        &self,
        record: &Record,
        wanted: &Mount,
        used: &VolumeUse,
        view: &RootView,
        owner: &Owner<'_>,
        settled: &mut Settled,
    ) -> Result<Mount> {
        let volumes = self.store.volumes();
        let volume = volumes.get(&used.name).map_err(Error::engine)?.ok_or_else(|| {
            Error::not_found(format_args!(
                "volume {} of container {} is gone: no such volume",
                used.name, record.name
            ))
        })?;
        let mut mount = wanted.clone();
        mount.source = volumes.data(&volume.name).to_string_lossy().into_owned();
        // (an older record may say so for good)
        mount.options.retain(|o| o != "tmpcopyup");
        if volume.kind().is_some() && !is_mount_point(Path::new(&mount.source)) {
            return self.settle_driver(record, mount, &volume, used);
        }
        let state = volumes.state(&volume);
        if !state.needs_chown && !state.needs_copy_up {
            return Ok(mount);
        }
        let lock = volumes.lock(&volume.name).map_err(Error::engine)?;
        let state = volumes.state(&volume);
        let fills = self.prepare_volume(&mut mount, &volume, state, view, owner)?;
        if fills {
            settled.locks.push(lock);
            settled.filled.push(volume.name.clone());
        }
        Ok(mount)
    }

    /// Owner, mode and files of a new volume; whether the container's start fills it.
    fn prepare_volume(
        &self,
        mount: &mut Mount,
        volume: &Volume,
        state: VolumeState,
        view: &RootView,
        owner: &Owner<'_>,
    ) -> Result<bool> {
        let data = PathBuf::from(&mount.source);
        let is_empty = fs::read_dir(&data).is_ok_and(|mut entries| entries.next().is_none());
        let place = view.directory(&mount.target);
        let call = || format!("volume {}", volume.name);
        if state.needs_chown && is_empty {
            let (uid, gid) = match &place {
                Some(place) => owner.outside(place.uid, place.gid)?,
                None => owner.outside(owner.user.uid, owner.user.gid)?,
            };
            let now = fs::metadata(&data).context(call)?;
            if (now.uid(), now.gid()) != (uid, gid) {
                chown(&data, Some(uid), Some(gid)).context(call)?;
            }
            if let Some(place) = &place {
                fs::set_permissions(&data, fs::Permissions::from_mode(place.mode)).context(call)?;
            }
        }
        let copies = !mount.options.iter().any(|o| o == "nocopy") && place.is_some_and(|p| p.has_files);
        let fills = state.needs_copy_up && is_empty && copies;
        if fills {
            mount.options.push("tmpcopyup".into());
        }
        Ok(fills)
    }

    /// A volume whose files are not in the store.
    fn settle_driver(
        &self,
        record: &Record,
        mut mount: Mount,
        volume: &Volume,
        used: &VolumeUse,
    ) -> Result<Mount> {
        mount.options.extend(options::of_mount(volume));
        match volume.kind() {
            Some("bind") => {
                mount.source = volume.device().into();
                fs::metadata(&mount.source).map_err(|e| {
                    Error::engine(format_args!(
                        "volume {}: stat {}: {}",
                        volume.name,
                        mount.source,
                        reason(&e)
                    ))
                })?;
            }
            Some(kind) => match self.mounted_elsewhere(record, used)? {
                // one filesystem for all who have it now
                Some(path) => {
                    mount.options.retain(|o| !o.contains('='));
                    mount.options.push("bind".into());
                    mount.source = path;
                }
                None if kind == "tmpfs" => (mount.kind, mount.source) = (MountKind::Tmpfs, String::new()),
                None => {
                    mount.kind = MountKind::Filesystem;
                    mount.source = volume.device().into();
                    mount.options.push(format!("fstype={kind}"));
                }
            },
            None => {}
        }
        Ok(mount)
    }

    /// Where a live container has the volume mounted.
    fn mounted_elsewhere(&self, record: &Record, used: &VolumeUse) -> Result<Option<String>> {
        for other in users_of(&self.dirs, &used.name)?.iter().filter(|r| r.id != record.id) {
            let Some(process) = State::observe(&self.dirs, &other.id)?.process() else { continue };
            let there = other.volumes.iter().find(|v| v.name == used.name);
            return Ok(there.map(|v| format!("/proc/{}/root{}", process.pid, v.target)));
        }
        Ok(None)
    }

    /// A container has started: what its volumes needed, they have.
    pub(crate) fn note_filled(store: &unroot_store::Store, names: &[String]) {
        for name in names {
            let _ = store.volumes().set_state(name, VolumeState { needs_copy_up: false, needs_chown: false });
        }
    }
}

/// Its source is a path of the host.
fn is_path(mount: &Mount) -> bool {
    matches!(mount.kind, MountKind::Bind | MountKind::Volume) && !mount.source.starts_with("/proc/")
}

/// Ids of a container as the engine sees them.
struct Owner<'a> {
    maps: Option<&'a IdMaps>,
    user: &'a ResolvedUser,
}

impl Owner<'_> {
    fn outside(&self, uid: u32, gid: u32) -> Result<(u32, u32)> {
        let Some(maps) = self.maps else { return Ok((uid, gid)) };
        let missing = |what: &str, id: u32, map: &unroot_idmap::IdMap| {
            Error::engine(format_args!(
                "{what} {id} has no id on the host: the container's user namespace has {}",
                map.ranges()
            ))
        };
        Ok((
            maps.uid.to_outside(uid).ok_or_else(|| missing("uid", uid, &maps.uid))?,
            maps.gid.to_outside(gid).ok_or_else(|| missing("gid", gid, &maps.gid))?,
        ))
    }
}

fn is_mount_point(path: &Path) -> bool {
    let device = |p: &Path| fs::symlink_metadata(p).map(|m| m.dev());
    match (device(path), path.parent().map(device)) {
        (Ok(own), Some(Ok(parent))) => own != parent,
        _ => false,
    }
}

/// Mounts what a volume stands for on its directory, in this mount namespace.
pub(super) fn mount(engine: &Engine, volume: &Volume) -> Result<()> {
    let data = engine.store.volumes().data(&volume.name);
    let Some(kind) = volume.kind().filter(|_| !is_mount_point(&data)) else { return Ok(()) };
    let (flags, words): (Vec<String>, Vec<String>) =
        options::of_mount(volume).into_iter().partition(|o| flag_of(o).is_some());
    let mut all = flags.iter().filter_map(|o| flag_of(o)).fold(MountFlags::empty(), |a, b| a | b);
    all.set(MountFlags::BIND, kind == "bind");
    let call = || {
        format!("mounting volume {}: mount({:?}, {}, {kind:?})", volume.name, volume.device(), data.display())
    };
    let words = std::ffi::CString::new(words.join(",")).context(call)?;
    rustix::mount::mount(volume.device(), &data, kind, all, Some(words.as_c_str())).context(call)
}

fn flag_of(option: &str) -> Option<MountFlags> {
    Some(match option {
        "ro" => MountFlags::RDONLY,
        "nodev" => MountFlags::NODEV,
        "nosuid" => MountFlags::NOSUID,
        "noexec" => MountFlags::NOEXEC,
        "noatime" => MountFlags::NOATIME,
        "rw" | "dev" | "suid" | "exec" => MountFlags::empty(),
        _ => return None,
    })
}

/// The reverse, if it is mounted here.
pub(super) fn unmount(engine: &Engine, volume: &Volume) -> Result<()> {
    let data = engine.store.volumes().data(&volume.name);
    match volume.kind().is_some() && is_mount_point(&data) {
        true => rustix::mount::unmount(&data, UnmountFlags::empty())
            .context(|| format!("unmounting volume {}: umount({})", volume.name, data.display())),
        false => Ok(()),
    }
}

/// `U` of a tmpfs: it is the process's user's.
fn own_memory(mount: &mut Mount, user: &ResolvedUser) {
    if mount.kind != MountKind::Tmpfs || !mount.options.iter().any(|o| o == "U") {
        return;
    }
    mount.options.retain(|o| o != "U");
    for (name, id) in [("uid", user.uid), ("gid", user.gid)] {
        if !mount.options.iter().any(|o| o.starts_with(&format!("{name}="))) {
            mount.options.push(format!("{name}={id}"));
        }
    }
}
