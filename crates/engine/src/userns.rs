//! The user namespace of a container: which one it gets, what its files' owners are there, and how it is entered.
//!
//! Ids that no other container has are given out under a lock (`ids.lock`) that is held until the container's record,
//! which is the ledger, is published; removing the container gives them back.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use unroot_idmap::{
    ContainerUserns, EngineNamespace, Holder, IdMaps, IdNeed, MapRequest, UsernsMode, observe,
};
use unroot_runtime::{Rootfs, Shift, Userns, can_refer, can_shift};
use unroot_store::{LayerDirs, Wanted};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::images::Named;
use crate::record::Record;
use crate::spec::{ContainerSpec, Root};
use crate::users::RootView;

/// Lower layers that overlayfs takes (OVL_MAX_STACK).
const MOST_LAYERS: usize = 500;

/// What a container that is being made gets.
pub(crate) struct Chosen {
    /// Its own maps, inside -> engine's; none if its namespace is the engine's.
    pub maps: Option<IdMaps>,
    /// Who the process is if nobody is named.
    pub default_user: Option<(u32, u32)>,
    /// Held until its record is there.
    pub _ledger: Option<File>,
}

/// The namespace that `--userns=ns:PATH` names.
pub(crate) fn path_of_mode(spec: &ContainerSpec) -> Option<&Path> {
    spec.namespaces.user.as_deref()?.strip_prefix("ns:").map(Path::new)
}

fn idmap_error(e: unroot_idmap::Error) -> Error {
    let hint = e.hint().map(str::to_string);
    hint.into_iter().fold(Error::engine(e), |error, hint| error.with_hint(hint))
}

impl Engine {
    /// Chooses.
    pub(crate) fn choose_userns(
        &self,
        spec: &ContainerSpec,
        namespace: &EngineNamespace,
        image: Option<&Named>,
        view: &RootView,
    ) -> Result<Chosen> {
        let mode: UsernsMode =
            spec.namespaces.user.as_deref().unwrap_or("").parse().map_err(Error::engine)?;
        let request = MapRequest {
            mode,
            uidmap: spec.namespaces.uidmap.clone(),
            gidmap: spec.namespaces.gidmap.clone(),
            subuidname: spec.namespaces.subuidname.clone(),
            subgidname: spec.namespaces.subgidname.clone(),
        };
        let automatic = matches!(request.mode, UsernsMode::Auto { .. });
        let ledger = automatic.then(|| self.lock_ledger()).transpose()?;
        let (need, holders) = match automatic {
            true => (need_of(image, view), self.all_holders(namespace)?),
            false => (IdNeed::default(), Vec::new()),
        };
        let (userns, default_user) =
            unroot_idmap::container_userns(&request, namespace, &need, &holders).map_err(idmap_error)?;
        let mut default_user = default_user;
        let maps = match userns {
            ContainerUserns::Engine => None,
            ContainerUserns::New(maps) => Some(maps),
            ContainerUserns::JoinContainer(name) => {
                let other = self.find(&name)?;
                // (a pod with keep-id keeps it for all of its containers)
                default_user = default_user.or(other.default_user.filter(|_| other.spec.infra));
                other.maps
            }
            ContainerUserns::Join(path) => observe::maps_of_namespace(&path).map_err(idmap_error)?,
        };
        Ok(Chosen { maps, default_user, _ledger: ledger })
    }

    fn lock_ledger(&self) -> Result<File> {
        crate::lock::lock_file(&self.dirs.root.join("ids.lock"))
    }

    /// Containers that have ids of their own.
    pub fn holders(&self) -> Result<Vec<Holder>> {
        let all = self.containers()?.into_iter();
        Ok(all.filter_map(|r| Some(Holder { name: r.name, maps: r.maps? })).collect())
    }

    /// As root also what containers of other engines hold, which take from the same pool.
    fn all_holders(&self, namespace: &EngineNamespace) -> Result<Vec<Holder>> {
        let mut holders = self.holders()?;
        if !namespace.rootless {
            let known = |maps: &IdMaps| holders.iter().any(|h| h.maps == *maps);
            let others: Vec<Holder> = unroot_idmap::space::live_maps()
                .into_iter()
                .filter(|(_, maps)| !known(maps))
                .map(|(name, maps)| Holder { name, maps })
                .collect();
            holders.extend(others);
        }
        Ok(holders)
    }

    /// The layers of an image as a container with these maps needs them.
    pub(crate) fn layer_dirs(&self, named: &Named, maps: Option<&IdMaps>) -> Result<LayerDirs> {
        let Some(maps) = maps else {
            return Ok(LayerDirs { lower: self.store.lower_dirs(&named.image), data: Vec::new() });
        };
        let shown = Shown::new(&named.name);
        let wanted = Wanted {
            shift: &|uid, gid| Some((maps.uid.to_outside(uid)?, maps.gid.to_outside(gid)?)),
            map: format!("{}{}", maps.uid, maps.gid),
            refers: can_refer(),
            progress: &|done| shown.tell(done),
        };
        self.store.shifted(&named.image, &wanted).map_err(|e| match e {
            unroot_store::Error::Ids(text) => Error::engine(format_args!("{}: {text}", named.name))
                .with_hint(
                    "a map that has it: a larger size, --userns=keep-id, or one more --uidmap and --gidmap",
                ),
            e => Error::engine(e),
        })
    }

    /// Makes ready what a container of an image with this user namespace would need.
    pub fn prepare_userns(&self, named: &Named, spec: &ContainerSpec) -> Result<()> {
        let namespace = self.enter()?.clone();
        let view = self.root_view(spec, Some(named), None)?;
        let maps = self.choose_userns(spec, &namespace, Some(named), &view)?.maps;
        match maps.is_some() && self.shifts_at_mount(&namespace) {
            true => Ok(()),
            false => self.layer_dirs(named, maps.as_ref()).map(drop),
        }
    }

    /// The kernel shifts owners when layers are mounted, so that nothing is to be made.
    fn shifts_at_mount(&self, namespace: &EngineNamespace) -> bool {
        !namespace.rootless && namespace.maps == IdMaps::identity() && can_shift(&self.dirs.root)
    }

    /// A container's root filesystem. `mounts_all` is whether all files are mounted for which there are mount points
    /// in a layer below the image's.
    pub(crate) fn rootfs_of(
        &self,
        record: &Record,
        image: Option<&Named>,
        mounts_all: bool,
        skeleton: Option<PathBuf>,
    ) -> Result<Rootfs> {
        let dir = self.dirs.container(&record.id);
        let upper = Some((dir.join("upper"), dir.join("work")));
        let overlay =
            |dirs: LayerDirs, shift| Rootfs::Overlay { lower: dirs.lower, data: dirs.data, shift, upper };
        // (who has one id has all files with it, whatever it is called inside)
        let single = self.enter()?.single_id.is_some();
        let maps = record.maps.as_ref().filter(|_| !single);
        let lacks_root = |maps: &IdMaps| maps.uid.to_outside(0).is_none() || maps.gid.to_outside(0).is_none();
        if image.is_some() && maps.is_some_and(lacks_root) {
            let text = "the container's id map has no id 0, whose most files of an image are";
            return Err(Error::engine(text).with_hint("one more --uidmap and --gidmap for it: 0:FROM:1"));
        }
        Ok(match (&record.spec.root, image, maps) {
            (Root::Image(_), Some(named), Some(maps)) if self.shifts_at_mount(self.enter()?) => {
                let stage = self.dirs.run_container(&record.id).join("layers");
                overlay(self.layer_dirs(named, None)?, Some(Shift { maps: maps.clone(), stage }))
            }
            (Root::Image(_), Some(named), None) if mounts_all && named.image.layers.len() < MOST_LAYERS => {
                let mut dirs = self.layer_dirs(named, None)?;
                dirs.lower.push(self.store.mount_points().map_err(Error::engine)?);
                overlay(dirs, None)
            }
            (Root::Image(_), Some(named), maps) => overlay(self.layer_dirs(named, maps)?, None),
            (Root::Image(_), None, _) => overlay(LayerDirs::default(), None),
            (Root::Empty, ..) => Rootfs::Directory(dir.join("upper")),
            (Root::Directory { path, overlay: true, .. }, ..) => {
                let lower = skeleton.unwrap_or_else(|| path.clone());
                overlay(LayerDirs { lower: vec![lower], data: Vec::new() }, None)
            }
            (Root::Directory { path, shift: Some(option), .. }, ..) => {
                Rootfs::Shifted(path.clone(), crate::volumes::idmap::maps_of(option, record.maps.as_ref())?)
            }
            (Root::Directory { path, .. }, ..) => Rootfs::Directory(path.clone()),
        })
    }

    /// How a container's process gets into its user namespace.
    pub(crate) fn userns_of(&self, record: &Record) -> Result<Userns> {
        let Some(maps) = record.maps.clone() else { return Ok(Userns::Inherit) };
        let mode = record.spec.namespaces.user.as_deref().unwrap_or("");
        if let Some(name) = mode.strip_prefix("container:") {
            return Ok(Userns::Join(self.namespace_of(name, "user")?, maps));
        }
        Ok(match path_of_mode(&record.spec) {
            Some(path) => Userns::Join(path.into(), maps),
            None => Userns::New(maps),
        })
    }
}

/// Numbers of a namespace's file and of the one around it: where an engine has to be to join it.
pub(crate) fn near(path: &Path) -> Vec<u64> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let parent = unroot_sys::ns::parent(&file).ok().map(File::from);
    let inode = |file: &File| file.metadata().map(|m| m.ino()).ok();
    [inode(&file), parent.as_ref().and_then(inode)].into_iter().flatten().collect()
}

/// The user namespace that a process is in.
pub(crate) fn namespace_of_process(pid: u32) -> Option<u64> {
    std::fs::metadata(PathBuf::from(format!("/proc/{pid}/ns/user"))).map(|m| m.ino()).ok()
}

/// Ids that an image's files have, and its users and groups.
fn need_of(image: Option<&Named>, view: &RootView) -> IdNeed {
    let named = |text: Option<String>, field: usize| -> BTreeSet<u32> {
        let text = text.unwrap_or_default();
        text.lines().filter_map(|l| l.split(':').nth(field)?.parse().ok()).collect()
    };
    let group = view.read("/etc/group").map(|data| String::from_utf8_lossy(&data).into_owned());
    let mut need = IdNeed { uids: named(view.passwd(), 2), gids: named(group, 2) };
    need.gids.extend(named(view.passwd(), 3));
    match image.map(|i| (&i.image.ids, i.image.max_ids)) {
        Some((Some((uids, gids)), _)) => {
            need.uids.extend(uids);
            need.gids.extend(gids);
        }
        Some((None, (uid, gid))) => {
            need.uids.insert(uid);
            need.gids.insert(gid);
        }
        None => {}
    }
    need
}

/// A line that says how far it is, where somebody sees it, once it has taken a while.
struct Shown {
    name: String,
    begun: Instant,
    last: Mutex<Instant>,
    terminal: bool,
}

impl Shown {
    fn new(name: &str) -> Self {
        use std::io::IsTerminal as _;
        let now = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        Self { name: name.into(), begun: now, last: Mutex::new(now), terminal }
    }

    fn tell(&self, done: u64) {
        let Ok(mut last) = self.last.lock() else { return };
        if self.terminal && last.elapsed() > Duration::from_millis(200) {
            *last = Instant::now();
            eprint_line(&format!("\rGiving files of {} the container's ids, once: {done}", self.name));
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let told = self.last.get_mut().is_ok_and(|last| *last != self.begun);
        if told {
            eprint_line("\r\x1b[K");
        }
    }
}

fn eprint_line(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stderr().write_all(text.as_bytes());
}
