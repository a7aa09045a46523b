//! A container comes to be: its image, user, user namespace, volumes and name are settled, then one rename makes
//! it exist. Killed before that, it leaves a directory whose name begins with a dot and whose lock is free.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use unroot_idmap::IdMaps;
use unroot_network::PortMap;
use unroot_store::Config;

use crate::dirs::{Dirs, make_dir, make_file};
use crate::engine::Engine;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::images::{Named, Progress, PullOptions};
use crate::lock::Lock;
use crate::names;
use crate::plan::reason;
use crate::record::{ImageRef, Record, VolumeUse, claim_name, is_id, release_name};
use crate::spec::{ContainerSpec, FORMAT, Mount, MountKind, Namespace, Root};
use crate::state::State;
use crate::users::{self, RootView};
use crate::volumes::NewVolume;

/// A directory whose name begins with a dot: a container or a pod that is being made, or that goes.
enum HalfMade {
    /// Whoever does that lives, and holds its lock.
    InHand,
    /// A killed process has left it; its lock is ours now.
    LeftOver { _lock: File },
}

impl HalfMade {
    /// None if it is not there, or not any more.
    fn look(dir: &Path) -> Option<Self> {
        let lock = File::open(dir).ok()?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(_) => Some(Self::InHand),
            Ok(()) => dir.exists().then_some(Self::LeftOver { _lock: lock }),
        }
    }
}

/// The maker of a container or a pod lives and holds its lock.
pub fn is_being_made(dirs: &Dirs, id: &str) -> bool {
    let places = [dirs.containers(), dirs.pods()].map(|place| place.join(format!(".{id}")));
    places.iter().any(|dir| matches!(HalfMade::look(dir), Some(HalfMade::InHand)))
}

/// A container that was just made, with what was read for it.
#[derive(Debug)]
pub struct Created {
    /// Its record.
    pub record: Record,
    /// Its image.
    pub image: Option<Named>,
}

/// What is decided about a container before anything of it is made.
struct Settled<'a> {
    id: &'a str,
    maps: Option<IdMaps>,
    default_user: Option<(u32, u32)>,
    ports: Vec<String>,
    config: &'a Config,
}

impl Engine {
    /// Makes a container.
    pub fn create(
        &self,
        mut spec: ContainerSpec,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Created> {
        let pod = self.join_pod(&mut spec)?;
        let joined = self.joined(&mut spec)?;
        let namespace = self.enter_beside(joined.as_ref(), crate::userns::path_of_mode(&spec))?.clone();
        if let Some(name) = &spec.name {
            names::check(name)?;
        }
        let image = match &spec.root {
            Root::Image(name) => Some(self.image_or_pull(name, spec.pull, options, progress)?),
            Root::Directory { path, .. } => {
                check_root(path)?;
                None
            }
            Root::Empty => None,
        };
        self.take_volumes(&mut spec)?;
        let id = names::new_id()?;
        let config = image.as_ref().map(|i| i.image.config.config.clone()).unwrap_or_default();
        // the image's labels are the container's
        spec.health.settle(config.healthcheck.as_ref()).map_err(Error::engine)?;
        crate::sdnotify::check(spec.process.sdnotify.as_deref(), spec.health.check.is_some())?;
        let own = std::mem::replace(&mut spec.labels, config.labels.clone());
        spec.labels.extend(own);
        check(&spec, self)?;
        // what cannot work is refused before anything is made
        let view = self.root_view(&spec, image.as_ref(), None)?;
        let wanted_user = spec.process.user.clone().unwrap_or_else(|| config.user.clone());
        let chosen = self.choose_userns(&spec, &namespace, image.as_ref(), &view)?;
        if spec.process.user.is_some() || chosen.default_user.is_none() {
            users::resolve(&view, &wanted_user, &spec.process.groups)?;
        }
        let ports = settle_ports(&spec, &config)?;
        if spec.replace
            && let Some(name) = &spec.name
            && let Ok(old) = self.find(name)
        {
            self.remove(&old, true, Some(0), true)?;
        }
        let _pod = self.hold_pod(pod.as_ref())?;
        let temporary = self.dirs.containers().join(format!(".{id}"));
        let (maps, default_user) = (chosen.maps.clone(), chosen.default_user);
        let settled = Settled { id: &id, maps, default_user, ports, config: &config };
        let made = self.make(&mut spec, image.as_ref(), &temporary, settled);
        drop(chosen);
        let record = made.inspect_err(|_| drop(crate::remove::remove_tree(&temporary)))?;
        self.check_image_is_there(&record)?;
        self.tell_of_creation(&record);
        if let Some(file) = &record.spec.life.cidfile {
            fs::write(file, &record.id).map_err(|e| {
                let _ = self.remove(&record, true, Some(0), true);
                Error::engine(format_args!("write --cidfile {}: {}", file.display(), reason(&e)))
            })?;
        }
        Ok(Created { record, image })
    }

    /// Whoever removes an image looks for containers after it, as this looks for the image after the container.
    fn check_image_is_there(&self, record: &Record) -> Result<()> {
        let Some(image) = record.image.as_ref().filter(|i| !self.store.has_image(&i.id)) else {
            return Ok(());
        };
        let _ = self.remove(record, true, Some(0), true);
        Err(Error::not_found(format_args!("{}: image not known: it was removed just now", image.name)))
    }

    fn tell_of_creation(&self, record: &Record) {
        let mut event = crate::events::Event::of_container("create", record);
        if let Some(inspect) = self.inspect.filter(|_| self.dirs.events.with_inspect_data) {
            event.inspect_data = inspect(self, record);
        }
        self.dirs.events.emit(event);
    }

    /// `--volumes-from`: the mounts of other containers.
    fn take_volumes(&self, spec: &mut ContainerSpec) -> Result<()> {
        for text in spec.files.volumes_from.clone() {
            let (name, options) = text.split_once(':').unwrap_or((&text, ""));
            let given: Vec<&str> = options.split(',').filter(|o| !o.is_empty()).collect();
            if let Some(other) = given.iter().find(|o| !matches!(**o, "z" | "ro" | "rw")) {
                return Err(Error::engine(format_args!(
                    "invalid option {other:?} specified - volumes from another container can only use z,ro,rw options"
                )));
            }
            if given.iter().filter(|o| **o != "z").count() > 1 {
                return Err(Error::engine("cannot set ro or rw options more than once"));
            }
            let other = self.find(name).map_err(|e| {
                Error::new(e.kind(), format_args!("looking up container {name:?} for volumes-from: {e}"))
            })?;
            for mount in other.spec.files.mounts.iter().filter(|m| m.kind != MountKind::Tmpfs) {
                if spec.files.mounts.iter().any(|m| m.target == mount.target) {
                    continue;
                }
                let mut mount = mount.clone();
                if let Some(volume) = other.volumes.iter().find(|v| v.target == mount.target) {
                    mount.source = volume.name.clone();
                }
                mount.options.extend(options.split(',').filter(|o| !o.is_empty()).map(str::to_string));
                spec.files.mounts.push(mount);
            }
        }
        Ok(())
    }

    /// The container whose namespaces this one joins.
    fn joined(&self, spec: &mut ContainerSpec) -> Result<Option<Record>> {
        let mut found = None;
        // (names may change hands: a container is meant)
        let mut settle = |name: &mut String| {
            let record = self.find(name)?;
            name.clone_from(&record.id);
            found.get_or_insert(record);
            Ok::<_, Error>(())
        };
        if let Some(name) = spec.network.mode.as_deref().and_then(|m| m.strip_prefix("container:")) {
            let mut name = name.to_string();
            settle(&mut name)?;
            spec.network.mode = Some(format!("container:{name}"));
        }
        if let Some(name) = spec.namespaces.user.as_deref().and_then(|m| m.strip_prefix("container:")) {
            let mut name = name.to_string();
            settle(&mut name)?;
            spec.namespaces.user = Some(format!("container:{name}"));
        }
        let kinds = &mut spec.namespaces;
        if let Namespace::Container(name) = &kinds.ipc {
            let other = self.find(name)?;
            if matches!(other.spec.namespaces.ipc, Namespace::Private | Namespace::None) {
                return Err(Error::engine(format_args!(
                    "joining the ipc namespace of container {} is not allowed: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                    other.id
                )));
            }
        }
        for kind in [&mut kinds.pid, &mut kinds.ipc, &mut kinds.uts, &mut kinds.cgroup] {
            if let Namespace::Container(name) = kind {
                settle(name)?;
            }
        }
        Ok(found)
    }

    /// Removes what killed makers left.
    pub fn sweep(&self) -> Result<()> {
        let entries = fs::read_dir(self.dirs.run.join("containers")).into_iter().flatten().flatten();
        let running: Vec<String> =
            entries.filter_map(|e| e.file_name().into_string().ok()).filter(|id| is_id(id)).collect();
        for entry in fs::read_dir(self.dirs.containers()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // (held until it is gone: what was published meanwhile is no longer by this name, and is somebody's)
            if let Some(id) = name.strip_prefix('.')
                && let Some(HalfMade::LeftOver { _lock }) = HalfMade::look(&entry.path())
            {
                self.enter()?;
                crate::remove::remove_run(&self.dirs.run_container(id))?;
                crate::remove::remove_tree(&entry.path())?;
            }
        }
        for entry in fs::read_dir(self.dirs.pods()).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".")
                && let Some(HalfMade::LeftOver { _lock }) = HalfMade::look(&entry.path())
            {
                crate::remove::remove_tree(&entry.path())?;
            }
        }
        for entry in fs::read_dir(self.dirs.names()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(id) = crate::record::id_of_name(&self.dirs, &name) else { continue };
            // (nearly all are right: only what is not is worth a lock)
            if !Record::read(&self.dirs, &id).is_ok_and(|r| r.is_some_and(|r| r.name == name)) {
                crate::record::release_stale(&self.dirs, &name, &id);
            }
        }
        // (what is in memory was looked at first: a container is there before it has something in it)
        for id in running {
            if !self.dirs.container(&id).exists() && !is_being_made(&self.dirs, &id) {
                crate::remove::remove_run(&self.dirs.run_container(&id))?;
            }
        }
        Ok(())
    }

    fn make(
        &self,
        spec: &mut ContainerSpec,
        image: Option<&Named>,
        temporary: &Path,
        settled: Settled<'_>,
    ) -> Result<Record> {
        let Settled { id, maps, default_user, ports, config } = settled;
        // (whoever sweeps may look at it before it is locked)
        let _lock = loop {
            make_dir(temporary)?;
            let Ok(lock) = File::open(temporary) else { continue };
            flock(&lock, FlockOperation::LockExclusive)
                .context(|| format!("flock {}", temporary.display()))?;
            if temporary.exists() {
                break lock;
            }
        };
        for dir in ["upper", "work"] {
            make_dir(&temporary.join(dir))?;
        }
        let root_of = |map: &IdMaps| (map.uid.to_outside(0).unwrap_or(0), map.gid.to_outside(0).unwrap_or(0));
        let (uid, gid) = maps.as_ref().map_or((0, 0), root_of);
        use std::os::unix::fs::PermissionsExt as _;
        let upper = temporary.join("upper");
        // the merged root has the mode of the upper layer's
        let lower = image.and_then(|i| self.store.lower_dirs(&i.image).into_iter().next());
        let mode =
            lower.and_then(|dir| fs::metadata(dir).ok()).map_or(0o755, |m| m.permissions().mode() & 0o7777);
        fs::set_permissions(&upper, fs::Permissions::from_mode(mode)).context(|| "chmod upper".into())?;
        if (uid, gid) != (0, 0) {
            std::os::unix::fs::chown(&upper, Some(uid), Some(gid)).context(|| "chown upper".into())?;
        }
        let given = spec.name.is_some();
        let mut record = Record {
            format: FORMAT,
            id: id.into(),
            name: String::new(),
            created: unroot_monitor::log::now(),
            spec: spec.clone(),
            image: image.map(|i| ImageRef {
                id: i.image.id.clone(),
                name: i.name.clone(),
                digest: i.image.digest.clone(),
            }),
            maps,
            userns: spec.namespaces.user.clone().unwrap_or_default(),
            default_user,
            volumes: Vec::new(),
            ports,
        };
        self.take_secrets(&mut record, temporary)?;
        record.volumes = self.volumes_for(&mut record, config, temporary)?;
        for _ in 0..20 {
            record.name = spec.name.clone().unwrap_or_else(names::random);
            match claim_name(&self.dirs, &record.name, id) {
                Ok(()) => break,
                Err(e) if given || e.kind() != ErrorKind::InUse => {
                    self.drop_volumes(&record.volumes);
                    return Err(e);
                }
                Err(_) => record.name.clear(),
            }
        }
        let text = serde_json::to_vec(&record).context(|| "write container.json".into())?;
        make_file(&temporary.join("container.json"), &text, 0o600)?;
        fs::rename(temporary, self.dirs.container(id))
            .context(|| format!("publish container {id}"))
            .inspect_err(|_| {
                release_name(&self.dirs, &record.name, id);
            })?;
        Ok(record)
    }

    /// The container's files as they would be merged, without mounting them.
    pub fn root_view(
        &self,
        spec: &ContainerSpec,
        image: Option<&Named>,
        id: Option<&str>,
    ) -> Result<RootView> {
        let upper = id.map(|id| self.dirs.container(id).join("upper"));
        let lower = match (&spec.root, image) {
            (_, Some(named)) => self.store.lower_dirs(&named.image),
            (Root::Directory { path, .. }, _) => vec![path.clone()],
            _ => Vec::new(),
        };
        RootView::new(&upper.into_iter().chain(lower).collect::<Vec<_>>())
            .with_host_users(&spec.process.host_users)
    }

    /// Makes the volumes that a container needs, and points its mounts at them.
    fn volumes_for(&self, record: &mut Record, config: &Config, temporary: &Path) -> Result<Vec<VolumeUse>> {
        let volumes = self.store.volumes();
        let mut used = Vec::new();
        let image_volume = record.spec.files.image_volume.clone().unwrap_or_else(|| "anonymous".into());
        for path in config.volumes.keys() {
            let path = format!("/{}", path.trim_matches('/'));
            if record.spec.files.mounts.iter().any(|m| m.target == path) {
                continue;
            }
            match image_volume.as_str() {
                "anonymous" | "bind" => record.spec.files.mounts.push(Mount {
                    kind: MountKind::Volume,
                    target: path,
                    ..Mount::default()
                }),
                "tmpfs" => record.spec.files.mounts.push(Mount {
                    kind: MountKind::Tmpfs,
                    target: path,
                    ..Mount::default()
                }),
                _ => {}
            }
        }
        let mut mounts = record.spec.files.mounts.clone();
        for (n, mount) in mounts.iter_mut().enumerate() {
            if mount.kind == MountKind::Image {
                self.check_image_mount(mount)?;
            }
            let writes = mount.kind == MountKind::Image && mount.options.iter().any(|o| o == "rw");
            if writes || mount.options.iter().any(|o| o == "O") {
                self.overlay_dirs(mount, temporary, &record.id, n)?;
            }
            if mount.kind != MountKind::Volume {
                continue;
            }
            let anonymous = mount.source.is_empty();
            let name = if anonymous { names::new_id()? } else { mount.source.clone() };
            if volumes.get(&name).map_err(Error::engine)?.is_none() {
                let options = mount.options.iter().filter_map(|o| o.strip_prefix("volume-opt="));
                let options = options.map(str::to_string).collect();
                let new = NewVolume { name: name.clone(), anonymous, options, ..NewVolume::default() };
                match self.create_volume(new) {
                    Err(e) if e.kind() != ErrorKind::InUse => return Err(e),
                    _ => {}
                }
            }
            let path = volumes.data(&name);
            mount.source = path.to_string_lossy().into_owned();
            used.push(VolumeUse { name, target: mount.target.clone(), anonymous, path });
        }
        record.spec.files.mounts = mounts;
        Ok(used)
    }

    /// `:O` writes into the container's own directories, unless it was told where to.
    fn overlay_dirs(&self, mount: &mut Mount, temporary: &Path, id: &str, n: usize) -> Result<()> {
        if mount.options.iter().any(|o| o.starts_with("upperdir=")) {
            return Ok(());
        }
        for kind in ["upper", "work"] {
            let name = format!("overlay-{n}-{kind}");
            make_dir(&temporary.join(&name))?;
            mount.options.push(format!("{kind}dir={}", self.dirs.container(id).join(&name).display()));
        }
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        // the merged directory has the mode and owner of the upper one
        if let Ok(meta) = fs::metadata(&mount.source) {
            let upper = temporary.join(format!("overlay-{n}-upper"));
            let _ = fs::set_permissions(&upper, fs::Permissions::from_mode(meta.mode() & 0o7777));
            let _ = std::os::unix::fs::chown(&upper, Some(meta.uid()), Some(meta.gid()));
        } else {
            // (the files of an image)
            let upper = temporary.join(format!("overlay-{n}-upper"));
            let _ = fs::set_permissions(&upper, fs::Permissions::from_mode(0o755));
        }
        Ok(())
    }

    /// Removes a container's anonymous volumes.
    pub fn drop_volumes(&self, volumes: &[VolumeUse]) {
        crate::volumes::drop_anonymous(&self.dirs, &self.store, volumes);
    }

    /// Removes a container; with `force` also one that runs. Anonymous volumes go too if asked.
    pub fn remove(&self, record: &Record, force: bool, timeout: Option<u32>, volumes: bool) -> Result<()> {
        let mut ran = false;
        loop {
            let state = State::observe(&self.dirs, &record.id)?;
            if state.is_live() {
                ran = true;
                refuse_live(record, &state, force)?;
                // from outside of any user namespace: the container's may be another one than ours would be
                for result in crate::stop::stop(&self.dirs, &[record], timeout, &|r| self.stop_signal(r)) {
                    // (what was lost is gone as well)
                    result.or_else(|e| if e.kind() == ErrorKind::Lost { Ok(()) } else { Err(e) })?;
                }
            }
            self.enter()?;
            let lock = match Lock::take(&self.dirs, &record.id) {
                Ok(lock) => lock,
                // (with --rm its monitor has removed it as it ended)
                Err(e) if e.kind() == ErrorKind::NotFound && ran => return Ok(()),
                Err(e) => return Err(e),
            };
            // (somebody else may have started it meanwhile)
            if !State::observe(&self.dirs, &record.id)?.is_live() {
                return self.remove_stopped(record, lock, volumes);
            }
        }
    }

    /// Frees what a container holds that has no process any more.
    pub fn clean_up(&self, record: &Record) -> Result<()> {
        self.enter_beside(Some(record), None)?;
        let lock = Lock::take(&self.dirs, &record.id)?;
        let state = State::observe(&self.dirs, &record.id)?;
        if state.is_live() {
            return Err(Error::state(format_args!(
                "container {} is running or paused, refusing to clean up: container state improper",
                record.id
            )));
        }
        crate::remove::settle(&self.dirs, record, &lock)
    }

    fn remove_stopped(&self, record: &Record, lock: Lock, volumes: bool) -> Result<()> {
        crate::remove::settle(&self.dirs, record, &lock)?;
        // (it may have been renamed since it was looked up)
        let now = Record::read(&self.dirs, &record.id)?;
        crate::remove::remove(&self.dirs, now.as_ref().unwrap_or(record), lock)?;
        if volumes {
            self.drop_volumes(&record.volumes);
        }
        Ok(())
    }

    /// How a container is asked to stop: as was said, as its image says, SIGTERM.
    pub fn stop_signal(&self, record: &Record) -> i32 {
        let asks_image = record.image.as_ref().filter(|_| record.spec.life.stop_signal.is_none());
        let image = asks_image.and_then(|i| self.store.image_by_id(&i.id).ok()?);
        self.stop_signal_with(record, &image.map(|i| i.config.config).unwrap_or_default())
    }

    /// The same, with its image's configuration.
    pub(crate) fn stop_signal_with(&self, record: &Record, config: &Config) -> i32 {
        if let Some(given) = record.spec.life.stop_signal {
            return given as i32;
        }
        let usual = if crate::plan::is_systemd(&record.spec, config) { "SIGRTMIN+3" } else { "SIGTERM" };
        unroot_sys::signal::parse(&config.stop_signal)
            .or_else(|| unroot_sys::signal::parse(usual))
            .unwrap_or(15)
    }
}

/// Refuses to remove what runs without being told so.
pub(crate) fn refuse_live(record: &Record, state: &State, force: bool) -> Result<()> {
    match force || !state.is_live() || state.status == crate::Status::Initialized {
        true => Ok(()),
        false => Err(Error::state(format_args!(
            "cannot remove container {} as it is {} - running or paused containers cannot be removed without force: container state improper",
            record.id,
            state.status.as_str()
        ))),
    }
}

fn check_root(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Error::engine(format_args!("--rootfs {}: not a directory", path.display()))),
        Err(e) => Err(Error::engine(format_args!("--rootfs {}: {}", path.display(), reason(&e)))),
    }
}

/// What has to be there, is.
fn check(spec: &ContainerSpec, engine: &Engine) -> Result<()> {
    crate::start::check_log(spec)?;
    for mount in &spec.files.mounts {
        if mount.kind == MountKind::Bind {
            fs::symlink_metadata(&mount.source)
                .map_err(|e| Error::engine(format_args!("statfs {}: {}", mount.source, reason(&e))))?;
        }
    }
    if !spec.files.device_cgroup_rules.is_empty() && engine.user.is_rootless() {
        return Err(Error::engine(
            "device cgroup rules are not supported in rootless mode or in a user namespace",
        ));
    }
    for rule in &spec.files.device_cgroup_rules {
        crate::devices::parse_rule(rule)?;
    }
    for device in &spec.files.devices {
        crate::plan::device_of(&device.source, &device.target)?;
    }
    let joins = [&spec.namespaces.pid, &spec.namespaces.ipc, &spec.namespaces.uts, &spec.namespaces.cgroup];
    for name in
        joins.into_iter().filter_map(|n| if let Namespace::Container(name) = n { Some(name) } else { None })
    {
        engine.find(name)?;
    }
    let mode: unroot_network::Mode =
        spec.network.mode.as_deref().unwrap_or("").parse().map_err(Error::engine)?;
    if let unroot_network::Mode::Container(name) = &mode {
        engine.find(name)?;
    }
    Ok(())
}

/// Published ports with free ones found, each as a text.
fn settle_ports(spec: &ContainerSpec, config: &Config) -> Result<Vec<String>> {
    let mut wanted: Vec<String> = spec.network.publish.clone();
    if spec.network.publish_all {
        wanted.extend(config.exposed_ports.keys().cloned());
        wanted.extend(spec.network.expose.iter().cloned());
    }
    let mut ports = Vec::new();
    for text in &wanted {
        ports.extend(PortMap::parse(text).map_err(Error::engine)?);
    }
    PortMap::settle(&mut ports).map_err(Error::engine)?;
    Ok(ports.iter().map(|p| p.to_string()).collect())
}
