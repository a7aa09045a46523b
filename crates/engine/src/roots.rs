//! The files of a container as it sees them: through its process while it has one, else mounted for as long as
//! somebody looks. `mount` keeps that for longer, at `run/containers/ID/merged`.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use unroot_runtime::{Rootfs, mount_on, mount_root_of};

use crate::dirs::{Dirs, make_dir};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::images::Named;
use crate::lock::Lock;
use crate::plan;
use crate::record::Record;
use crate::spec::MountKind;
use crate::state::State;

/// A container's root, for as long as this is held.
pub struct OpenRoot {
    /// A handle on it. Whoever opens something below it has to say RESOLVE_IN_ROOT.
    pub root: OwnedFd,
    /// It does not start meanwhile.
    _lock: Option<Lock>,
}

/// What the directory is called on which `mount` mounts a container.
pub(crate) const MERGED: &str = "merged";

/// Where `mount` mounts a container.
pub fn merged(dirs: &Dirs, id: &str) -> PathBuf {
    dirs.run_container(id).join(MERGED)
}

/// It is mounted there, in this mount namespace.
pub fn is_mounted(dirs: &Dirs, id: &str) -> bool {
    let place = merged(dirs, id);
    let device = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let below = device(&dirs.run_container(id)).map(|(device, _)| device);
    device(&place).is_some_and(|(device, _)| Some(device) != below)
}

/// Enters a mount namespace of this process's own, once.
fn own_mounts() -> Result<()> {
    static ENTERED: OnceLock<()> = OnceLock::new();
    if ENTERED.get().is_none() {
        unroot_sys::ns::unshare([unroot_sys::process::Namespace::Mount].into_iter().collect())
            .map_err(Error::engine)?;
        unroot_runtime::stop_propagation().map_err(Error::engine)?;
        let _ = ENTERED.set(());
    }
    Ok(())
}

impl Engine {
    /// The image that a container was made from; none if it has a directory as its root.
    pub fn image_of(&self, record: &Record) -> Result<Option<Named>> {
        let Some(wanted) = &record.image else { return Ok(None) };
        let image = self.store.image_by_id(&wanted.id).map_err(Error::engine)?.ok_or_else(|| {
            Error::not_found(format_args!(
                "image {} of container {} is gone: image not known",
                wanted.name, record.name
            ))
        })?;
        Ok(Some(Named { image, name: wanted.name.clone() }))
    }

    /// What is mounted as a container's root; `mounts_all` and `skeleton` as of [`Engine::rootfs_of`].
    pub(crate) fn rootfs(
        &self,
        record: &Record,
        image: Option<&Named>,
        mounts_all: bool,
        skeleton: Option<PathBuf>,
    ) -> Result<Rootfs> {
        match is_mounted(&self.dirs, &record.id) {
            true => Ok(Rootfs::Directory(merged(&self.dirs, &record.id))),
            false => self.rootfs_of(record, image, mounts_all, skeleton),
        }
    }

    /// Opens a container's root: as its process sees it, or with its volumes and binds in a mount namespace of this
    /// process's own. The engine enters its namespace.
    pub fn open_root(&self, record: &Record) -> Result<OpenRoot> {
        self.enter_beside(Some(record), None)?;
        if let Some(root) = self.live_root(record)? {
            return Ok(OpenRoot { root, _lock: None });
        }
        let lock = Lock::take(&self.dirs, &record.id)?;
        // (somebody may have started it meanwhile)
        if let Some(root) = self.live_root(record)? {
            return Ok(OpenRoot { root, _lock: None });
        }
        crate::remove::settle(&self.dirs, record, &lock)?;
        own_mounts()?;
        let image = self.image_of(record)?;
        let view = self.root_view(&record.spec, image.as_ref(), Some(&record.id))?;
        let config = image.as_ref().map(|i| i.image.config.config.clone()).unwrap_or_default();
        let user = self.process_user(record, &view, &config)?;
        let settled = self.settle_mounts(record, &view, &user)?;
        let mut mounts = Vec::new();
        for mount in settled.mounts.iter().filter(|m| !matches!(m.kind, MountKind::Tmpfs | MountKind::Ramfs))
        {
            mounts.push(plan::user_mount(mount)?);
        }
        mounts.sort_by_key(|m| m.destination.trim_end_matches('/').matches('/').count());
        let place = self.dirs.run_container(&record.id);
        make_dir(&place)?;
        let rootfs = self.rootfs(record, image.as_ref(), false, None)?;
        let root = mount_on(&rootfs, &mounts, &place).map_err(Error::engine)?;
        Self::note_filled(&self.store, &settled.filled);
        Ok(OpenRoot { root, _lock: Some(lock) })
    }

    /// Paths in an image that begin like this one.
    pub fn complete_in_image(&self, image: &str, begun: &str) -> Result<Vec<String>> {
        self.enter()?;
        let Some(named) = self.local_image(image)? else { return Ok(Vec::new()) };
        own_mounts()?;
        let lower = self.store.lower_dirs(&named.image);
        let place = self.dirs.run.join("containers");
        let rootfs = Rootfs::Overlay { lower, data: Vec::new(), shift: None, upper: None };
        let root = mount_on(&rootfs, &[], &place).map_err(Error::engine)?;
        Ok(crate::copy::list(&root, begun))
    }

    fn live_root(&self, record: &Record) -> Result<Option<OwnedFd>> {
        let state = State::observe(&self.dirs, &record.id)?;
        let Some(process) = state.process() else { return Ok(None) };
        let path = format!("/proc/{}/root", process.pid);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty()).context(|| format!("open {path}"))?;
        // (the number may be another process's by now)
        Ok(process.is_alive().then_some(root))
    }

    /// Mounts a container's files where this mount namespace sees them: its path.
    pub fn mount(&self, record: &Record) -> Result<PathBuf> {
        self.enter()?;
        let _lock = Lock::take(&self.dirs, &record.id)?;
        let place = merged(&self.dirs, &record.id);
        if is_mounted(&self.dirs, &record.id) {
            return Ok(place);
        }
        make_dir(&place)?;
        match State::observe(&self.dirs, &record.id)?.process() {
            Some(process) => mount_root_of(process.pid, &place).map_err(Error::engine)?,
            None => {
                let image = self.image_of(record)?;
                let rootfs = self.rootfs(record, image.as_ref(), false, None)?;
                mount_on(&rootfs, &[], &place).map_err(Error::engine)?;
            }
        }
        self.dirs.events.container("mount", record);
        Ok(place)
    }

    /// The reverse; false if it was not mounted.
    pub fn unmount(&self, record: &Record, force: bool) -> Result<bool> {
        if !is_mounted(&self.dirs, &record.id) {
            return Ok(false);
        }
        let place = merged(&self.dirs, &record.id);
        let flags = if force { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        rustix::mount::unmount(&place, flags).map_err(|e| {
            let hint = format!("{} unmount --force {}", crate::program(), record.name);
            Error::engine(format_args!("unmount {}: {e}", place.display())).with_hint(hint)
        })?;
        let _ = fs::remove_dir(&place);
        self.dirs.events.container("unmount", record);
        Ok(true)
    }
}
