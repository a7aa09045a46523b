//! A container starts: its spec is planned, the monitor is forked, and in it the process is made, its network set
//! up, its state written, and let go. When it ends the monitor records that and cleans.

use std::fs;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use unroot_cgroup::systemd::Scope;
use unroot_cgroup::{Cgroup, DELEGATION_HINT};
use unroot_idmap::{IdMaps, observe};
use unroot_monitor::log::{Driver, Writer};
use unroot_monitor::{Checks, Config as MonitorConfig, Started, Stdin, StdioEnds};
use unroot_network::{Mode, Pasta, PortMap};
use unroot_runtime::spec::Spec;
use unroot_runtime::{Request, Rootfs, Userns, external, seccomp};
use unroot_store::Config;

use crate::dirs::{Dirs, make_dir};
use crate::engine::Engine;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::events::Event;
use crate::health::{Clock, Report};
use crate::hooks::{Hooks, Stage};
use crate::images::Named;
use crate::lock::Lock;
use crate::plan::{self, Facts, reason};
use crate::record::Record;
use crate::remove::Leftover;
use crate::spec::{FORMAT, Namespace, Restart, Root};
use crate::state::{Exit, ProcessRef, Restarting, RunState, State, write_exit, write_run};
use crate::users::{self, ResolvedUser};
use crate::{limits, netfiles};

/// Lower layers that overlayfs takes (OVL_MAX_STACK).
const MOST_LAYERS: usize = 500;

/// Everything that the monitor needs to make the process.
struct Launch {
    record: Record,
    dirs: Dirs,
    spec: Spec,
    rootfs: Rootfs,
    network: Mode,
    ports: Vec<PortMap>,
    engine_maps: IdMaps,
    engine_is_host: bool,
    /// Who the engine is on the host.
    uid: u32,
    stop_signal: i32,
    setgroups: bool,
    seccomp: seccomp::Profile,
    store: unroot_store::Store,
    hooks: Hooks,
    /// Descriptors that the container gets.
    preserved_fds: Vec<u32>,
    /// Volumes that get their first files by this start.
    filled: Vec<String>,
}

/// How often a container was started again, and how long its monitor waits before the next time: twice as long each
/// time, from a tenth of a second up to a minute; after ten good seconds from the beginning (as Docker does).
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: u32,
    pause: Duration,
}

impl Restarts {
    /// What follows an end; none if nothing does.
    fn after(self, launch: &Launch, exit: unroot_monitor::Exit) -> Option<Self> {
        // (it may have been changed since the start)
        let now = Record::read(&launch.dirs, &launch.record.id).ok().flatten();
        let wanted = match now.as_ref().unwrap_or(&launch.record).spec.life.restart {
            Restart::No => false,
            Restart::OnFailure(most) => exit.code != 0 && (most == 0 || self.count < most),
            Restart::Always | Restart::UnlessStopped => true,
        };
        if !wanted || crate::state::is_unwanted(&launch.dirs, &launch.record.id) {
            return None;
        }
        let run = State::observe(&launch.dirs, &launch.record.id).ok().and_then(|s| s.run);
        let ran = run.map_or(0, |r| exit.finished - r.started);
        let least = Duration::from_millis(100);
        let pause = match ran > 10_000_000_000 {
            true => least,
            false => (self.pause * 2).clamp(least, Duration::from_secs(60)),
        };
        Some(Self { count: self.count + 1, pause })
    }
}

impl Engine {
    /// Starts a container; the socket to its monitor, on which its output comes if `attached`.
    pub fn start(&self, record: &Record, image: Option<Named>, attached: bool) -> Result<UnixStream> {
        self.enter()?;
        let lock = Lock::take(&self.dirs, &record.id)?;
        let state = State::observe(&self.dirs, &record.id)?;
        if state.is_live() {
            return Err(Error::state(format_args!("container {} is already running", record.id)));
        }
        crate::remove::settle(&self.dirs, record, &lock)?;
        let image = match (&record.image, image) {
            (Some(wanted), None) => {
                let image = self.store.image_by_id(&wanted.id).map_err(Error::engine)?;
                let image = image.ok_or_else(|| {
                    Error::not_found(format_args!(
                        "image {} of container {} is gone: image not known",
                        wanted.name, record.name
                    ))
                })?;
                Some(Named { image, name: wanted.name.clone() })
            }
            (_, image) => image,
        };
        make_dir(&self.dirs.run_container(&record.id))?;
        crate::state::forget_unwanted(&self.dirs, &record.id);
        crate::boot::want(&self.dirs, record);
        let (launch, volume_locks) = self.plan_launch(record, image.as_ref())?;
        let log = self.open_log(record)?;
        let config = MonitorConfig {
            directory: self.dirs.run_container(&record.id),
            log,
            stdin: if record.spec.process.interactive { Stdin::Attached } else { Stdin::Null },
            terminal: record.spec.process.terminal,
            passthrough: matches!(record.spec.log.driver.as_deref(), Some("passthrough" | "passthrough-tty")),
            timeout: Some(record.spec.life.timeout)
                .filter(|t| *t != 0)
                .map(|t| Duration::from_secs(t.into())),
            attached,
            notify: crate::sdnotify::proxied(record),
            kept: match record.spec.life.restart {
                Restart::No => Vec::new(),
                _ => crate::sdnotify::kept(&launch.preserved_fds),
            },
        };
        let (id, checker_id) = (record.id.clone(), record.id.clone());
        let first_locks = std::cell::Cell::new(Some((lock, volume_locks)));
        let restarts = std::cell::Cell::new(Restarts::default());
        let clock = std::cell::RefCell::new(Clock::default());
        let leftover = std::cell::Cell::new(None);
        let mut checker = self.clone();
        checker.dirs = launch.dirs.clone();
        let mut socket = unroot_monitor::fork(
            config,
            |ends| {
                let failed = |e: Error| (e.exit_code(), e.to_string());
                let again = first_locks.take();
                let locks =
                    again.map_or_else(|| launch.take_again().map(|l| (l, Vec::new())), Ok).map_err(failed)?;
                clock.replace(Clock::default());
                let result = launch.start(ends, restarts.get().count);
                drop(locks);
                result.map_err(failed)
            },
            |exit| {
                let next = restarts.get().after(&launch, exit);
                leftover.set(finish(&launch, exit, restarts.get().count, next.is_some()));
                restarts.set(next?);
                next.map(|n| n.pause)
            },
            || {
                let _ = leftover.take().map(Leftover::delete);
            },
            Checks {
                next: &mut || clock.borrow_mut().next(&launch.dirs, &launch.record.id),
                act: &|| {
                    if let Ok(Some(record)) = Record::read(&checker.dirs, &checker_id) {
                        let _ = checker.check_health(&record);
                    }
                },
            },
        )
        .map_err(monitor_error)?;
        match unroot_monitor::attach::wait_started(&mut socket) {
            Ok(_) => {
                if attached {
                    self.dirs.events.container("attach", record);
                }
                crate::sdnotify::tell(&self.dirs, record, attached)?;
                Ok(socket)
            }
            Err(error) => {
                let error = monitor_error(error);
                let exit = Exit {
                    code: error.exit_code().into(),
                    error: error.to_string(),
                    finished: unroot_monitor::log::now(),
                    ..Exit::default()
                };
                if State::observe(&self.dirs, &id).is_ok_and(|s| !s.is_live()) {
                    let _ = write_exit(&self.dirs, &id, &exit);
                }
                let _ = socket.shutdown(Shutdown::Both);
                Err(error)
            }
        }
    }

    fn open_log(&self, record: &Record) -> Result<Writer> {
        let log = &record.spec.log;
        let driver = match log.driver.as_deref().unwrap_or("k8s-file") {
            "k8s-file" => Driver::K8sFile,
            "json-file" => Driver::JsonFile,
            "none" | "passthrough" | "passthrough-tty" => Driver::None,
            other => {
                return Err(Error::engine(format_args!(
                    "running container with log driver {other}: invalid log driver: it is k8s-file, json-file, none, passthrough"
                )));
            }
        };
        let path = self.log_path(record);
        let max_size = log
            .options
            .iter()
            .rev()
            .find_map(|o| o.strip_prefix("max-size="))
            .and_then(crate::limits::parse_decimal_size);
        Writer::open(driver, &path, max_size)
            .map_err(|e| Error::engine(format_args!("open log {}: {}", path.display(), reason(&e))))
    }

    /// Where a container's log is.
    pub fn log_path(&self, record: &Record) -> PathBuf {
        let given = record.spec.log.options.iter().rev().find_map(|o| o.strip_prefix("path="));
        given.map_or_else(|| self.dirs.container(&record.id).join("ctr.log"), PathBuf::from)
    }

    /// What the monitor needs, and the locks that it is to hold until the container has started.
    fn plan_launch(&self, record: &Record, image: Option<&Named>) -> Result<(Launch, Vec<fs::File>)> {
        let namespace = self.enter()?;
        let spec = &record.spec;
        let config: Config = image.map(|i| i.image.config.config.clone()).unwrap_or_default();
        let view = self.root_view(spec, image, Some(&record.id))?;
        let user = self.process_user(record, &view, &config)?;
        let settled = self.settle_mounts(record, &view, &user)?;
        let mut network: Mode = spec.network.mode.as_deref().unwrap_or("").parse().map_err(Error::engine)?;
        if let Mode::Pasta(options) = &mut network {
            // (the container's own come later, and win)
            options.splice(0..0, spec.network.pasta_options.iter().cloned());
        }
        let network_path = match &network {
            Mode::Host => None,
            Mode::None | Mode::Pasta(_) => Some(PathBuf::new()),
            Mode::Ns(path) => Some(path.clone()),
            Mode::Container(name) => Some(self.namespace_of(name, "net")?),
        };
        let run_dir = self.dirs.run_container(&record.id);
        let files = netfiles::write(self, record, &network, &run_dir, &view, &user)?;
        let file_refs: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let own_user_namespace = record.maps.is_some();
        let in_user_namespace = own_user_namespace || namespace.rootless;
        let maps =
            record.maps.as_ref().map_or_else(|| namespace.maps.clone(), |m| m.compose(&namespace.maps));
        let join = |choice: &Namespace, kind: &str| match choice {
            Namespace::Container(name) if kind == "mqueue" => {
                self.root_of(name).map(|r| r.join("dev/mqueue"))
            }
            Namespace::Container(name) if kind == "shm" => self.root_of(name).map(|r| r.join("dev/shm")),
            Namespace::Container(name) => self.namespace_of(name, kind),
            Namespace::Path(path) if kind != "shm" => Ok(path.clone()),
            _ => Ok(PathBuf::from("/dev/shm")),
        };
        let inode = |path: &Path| fs::metadata(path).map(|m| m.ino()).ok();
        let shares_pid = match &spec.namespaces.pid {
            Namespace::Host => true,
            choice @ (Namespace::Container(_) | Namespace::Path(_)) => {
                inode(&join(choice, "pid")?) == inode(Path::new("/proc/self/ns/pid"))
            }
            _ => false,
        };
        let init = self.init_program(record)?;
        let notify = match crate::sdnotify::proxied(record) {
            Some(_) => Some(make_open_dir(run_dir.join("notify"))?),
            None => None,
        };
        let proxies = proxies();
        let planned = plan::plan(
            spec,
            &Facts {
                id: &record.id,
                name: &record.name,
                image: &config,
                user: &user,
                in_user_namespace,
                own_user_namespace,
                shares_pid,
                has_tty_group: maps.gid.to_outside(5).is_some(),
                network: network_path,
                run_dir: &run_dir,
                files: &file_refs,
                mounts: &settled.mounts,
                join: &join,
                proxies: &proxies,
                rlimits: &limits::host_rlimits(),
                capabilities: limits::own_capabilities(in_user_namespace),
                host_devices: &if spec.security.privileged {
                    limits::host_devices(namespace.rootless)
                } else {
                    Vec::new()
                },
                secrets: (
                    &crate::secrets::files(&self.dirs, record),
                    &crate::secrets::variables(&self.dirs, record)?,
                ),
                notify: notify.as_deref(),
                activation: &crate::sdnotify::sockets().variables(),
                init: init.as_deref(),
            },
        )?;
        let mounts_all = unroot_store::MOUNTED_FILES.iter().all(|file| files.iter().any(|(at, _)| at == file));
        let lower = match (image, &record.maps) {
            (Some(named), None) if mounts_all && named.image.layers.len() < MOST_LAYERS => {
                let mut lower = self.store.lower_dirs(&named.image);
                lower.push(self.store.mount_points().map_err(Error::engine)?);
                lower
            }
            (Some(named), None) => self.store.lower_dirs(&named.image),
            (Some(named), Some(maps)) => self.mapped_layers(named, maps)?,
            _ => Vec::new(),
        };
        let dir = self.dirs.container(&record.id);
        let upper = Some((dir.join("upper"), dir.join("work")));
        let rootfs = match &spec.root {
            Root::Image(_) => Rootfs::Overlay { lower, upper },
            Root::Directory { path, overlay: true, .. } => {
                Rootfs::Overlay { lower: vec![path.clone()], upper }
            }
            Root::Directory { path, .. } => Rootfs::Directory(path.clone()),
        };
        let ports = record
            .ports
            .iter()
            .map(|p| PortMap::parse(p))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(Error::engine)?;
        let mut preserved_fds = spec.process.preserved_fds.clone();
        preserved_fds.extend(&crate::sdnotify::sockets().numbers);
        preserved_fds.sort_unstable();
        preserved_fds.dedup();
        let launch = Launch {
            preserved_fds,
            filled: settled.filled,
            hooks: Hooks::of(spec, &planned)?,
            record: record.clone(),
            dirs: Dirs { events: self.dirs.events.of_monitor(), ..self.dirs.clone() },
            spec: planned,
            rootfs,
            network,
            ports: ports.into_iter().flatten().collect(),
            engine_maps: namespace.maps.clone(),
            engine_is_host: !namespace.rootless,
            uid: self.user.uid,
            stop_signal: self.stop_signal(record),
            setgroups: namespace.single_id.is_none(),
            seccomp: seccomp_profile(spec),
            store: self.store.clone(),
        };
        Ok((launch, settled.locks))
    }

    /// Who the process is: as asked, as the image says, or with keep-id the user.
    pub fn process_user(
        &self,
        record: &Record,
        view: &users::RootView,
        config: &Config,
    ) -> Result<ResolvedUser> {
        let groups = &record.spec.process.groups;
        match (&record.spec.process.user, record.default_user) {
            (Some(user), _) => users::resolve(view, user, groups),
            (None, Some((uid, gid))) => {
                // the user of the host, whom the image does not know, is at home where it starts
                let mut user = users::resolve(view, &format!("{uid}:{gid}"), groups)?;
                let start = record.spec.process.workdir.clone().unwrap_or_else(|| config.working_dir.clone());
                let own_home = self.user.home.to_string_lossy().into_owned();
                if record.spec.files.mounts.iter().any(|m| m.target == own_home) {
                    user.home = Some(own_home);
                }
                user.home = user.home.or(Some(start).filter(|dir| !dir.is_empty()));
                Ok(user)
            }
            (None, None) => users::resolve(view, &config.user, groups),
        }
    }

    /// The program of `--init` on the host: ours, kept in the run directory, or the one that was given.
    fn init_program(&self, record: &Record) -> Result<Option<PathBuf>> {
        let process = &record.spec.process;
        if !process.init {
            return Ok(None);
        }
        if let Some(path) = &process.init_path {
            return Ok(Some(path.clone()));
        }
        self.waiting_program().map(Some)
    }

    /// Our init on the host, which waits if it is given no command.
    pub fn waiting_program(&self) -> Result<PathBuf> {
        let path = self.dirs.run.join("init");
        if !path.exists() {
            crate::dirs::write_file(&path, unroot_payload::INIT, 0o755)?;
        }
        Ok(path)
    }

    fn namespace_of(&self, name: &str, kind: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/ns/{kind}", self.process_of(name)?)))
    }

    fn root_of(&self, name: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root", self.process_of(name)?)))
    }

    fn process_of(&self, name: &str) -> Result<u32> {
        let record = self.find(name)?;
        let state = State::observe(&self.dirs, &record.id)?;
        state.process().map(|p| p.pid).ok_or_else(|| {
            Error::state(format_args!("container {} is not running: container state improper", record.id))
        })
    }

    /// Layers as the container's own map needs them: copies with their owners shifted, made once for a map.
    pub(crate) fn mapped_layers(&self, named: &Named, maps: &IdMaps) -> Result<Vec<PathBuf>> {
        let shift = |uid: u32, gid: u32| Some((maps.uid.to_outside(uid)?, maps.gid.to_outside(gid)?));
        let key = format!("{}{}", maps.uid, maps.gid);
        self.store.mapped_layers(&named.image, &key, &shift).map_err(Error::engine)
    }
}

fn seccomp_profile(spec: &crate::spec::ContainerSpec) -> seccomp::Profile {
    let given = spec
        .security
        .options
        .iter()
        .rev()
        .find_map(|o| o.strip_prefix("seccomp=").or_else(|| o.strip_prefix("seccomp:")));
    match given {
        Some("unconfined") => seccomp::Profile::Unconfined,
        Some(file) => seccomp::Profile::File(file.into()),
        None if spec.security.privileged => seccomp::Profile::Unconfined,
        None => seccomp::Profile::Default,
    }
}

/// The filter of a container, for processes that join it.
pub fn profile_of(record: &Record) -> seccomp::Profile {
    seccomp_profile(&record.spec)
}

/// A directory that everybody may enter.
fn make_open_dir(dir: PathBuf) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    make_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))
        .context(|| format!("chmod {}", dir.display()))?;
    Ok(dir)
}

fn proxies() -> Vec<(String, String)> {
    let names = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy"];
    names
        .iter()
        .flat_map(|n| [n.to_string(), n.to_uppercase()])
        .filter_map(|n| Some((n.clone(), std::env::var(&n).ok()?)))
        .collect()
}

/// The monitor's error as the engine's.
pub fn monitor_error(error: unroot_monitor::Error) -> Error {
    match error {
        unroot_monitor::Error::Start { exit_code, text } => {
            let kind = match exit_code {
                126 => ErrorKind::NotExecutable,
                127 => ErrorKind::CommandNotFound,
                _ => ErrorKind::Engine,
            };
            match text.split_once("\nhint: ") {
                Some((text, hint)) => Error::new(kind, text).with_hint(hint),
                None => Error::new(kind, text),
            }
        }
        other => Error::engine(other),
    }
}

impl Launch {
    /// In the monitor, before it starts the container again: its lock, if nobody has decided otherwise meanwhile.
    fn take_again(&self) -> Result<Lock> {
        let lock = Lock::take(&self.dirs, &self.record.id)?;
        let waiting = Restarting::read(&self.dirs, &self.record.id)?;
        Restarting::remove(&self.dirs, &self.record.id);
        let own = waiting.is_some_and(|w| Some(w.monitor) == ProcessRef::of(std::process::id()));
        match own && !crate::state::is_unwanted(&self.dirs, &self.record.id) {
            true => Ok(lock),
            false => Err(Error::state("somebody else has taken over the container")),
        }
    }

    /// In the monitor: makes the process, its network and its state, and lets it go.
    fn start(&self, ends: StdioEnds, restarts: u32) -> Result<Started> {
        // (`volatile` leaves a mark that forbids the next mount of the same work directory)
        let _ = fs::remove_dir_all(self.dirs.container(&self.record.id).join("work/work/incompat"));
        let settings = limits::settings(&self.record.spec.limits)?;
        let cgroup = self.cgroup(&settings, restarts)?;
        let handle = cgroup.as_ref().map(Cgroup::handle).transpose().map_err(Error::engine)?;
        let restricted = match self.engine_is_host {
            true => {
                // (attaching takes a descriptor that is no O_PATH)
                let group = cgroup.as_ref().and_then(|c| fs::File::open(c.path()).ok());
                crate::devices::restrict(&self.record.spec, &self.spec, group.as_ref().map(|g| g.as_fd()))
            }
            false => Ok(()),
        };
        let handle = handle.as_ref().map(|h| h.as_fd());
        let started = restricted.and_then(|()| self.start_in(ends, handle, cgroup.as_ref(), restarts));
        if let Err(error) = &started {
            if let Some(cgroup) = cgroup {
                let _ = cgroup.remove();
            }
            if restarts > 0 {
                let exit = Exit {
                    code: error.exit_code().into(),
                    error: error.to_string(),
                    started: unroot_monitor::log::now(),
                    finished: unroot_monitor::log::now(),
                    restarts,
                    ..Exit::default()
                };
                let _ = write_exit(&self.dirs, &self.record.id, &exit);
            }
        }
        started
    }

    fn cgroup(&self, settings: &[unroot_cgroup::Setting], restarts: u32) -> Result<Option<Cgroup>> {
        let limits = &self.record.spec.limits;
        let cgroup = match limits.cgroups.as_deref() {
            Some("disabled" | "no-conmon") if settings.iter().all(|s| !s.required) => None,
            _ => {
                let parent = limits.cgroup_parent.as_deref();
                let slice = parent.filter(|p| p.ends_with(".slice"));
                let entered = match restarts == 0 && (parent.is_none() || slice.is_some()) {
                    true => self.enter_scope(slice),
                    false => Ok(false),
                };
                let entered = match entered {
                    Err(error) if slice.is_some() || settings.iter().any(|s| s.required) => {
                        return Err(Error::engine(error));
                    }
                    other => other.inspect_err(|e| log::info!("{e}")).unwrap_or(false),
                };
                let parent = parent.filter(|_| !entered && slice.is_none());
                Cgroup::create(parent, &self.record.id).map_err(Error::engine)?
            }
        };
        match &cgroup {
            Some(group) => group
                .apply(settings)
                .map_err(|e| Error::engine(format_args!("{e}\nhint: {DELEGATION_HINT}")))?,
            None => {
                if let Some(setting) = settings.iter().find(|s| s.required) {
                    let text = format!(
                        "the limit {}={} cannot be applied: there is no cgroup v2 directory that this user may write to",
                        setting.file, setting.value
                    );
                    return Err(Error::engine(format_args!("{text}\nhint: {DELEGATION_HINT}")));
                }
            }
        }
        Ok(cgroup)
    }

    fn enter_scope(&self, slice: Option<&str>) -> std::result::Result<bool, unroot_cgroup::Error> {
        let seconds = self.record.spec.life.stop_timeout.unwrap_or(crate::stop::TIMEOUT);
        unroot_cgroup::enter_scope(
            self.uid,
            &Scope {
                name: &format!("unroot-{}.scope", self.record.id),
                description: &format!("container {}", self.record.name),
                slice,
                stop_signal: self.stop_signal,
                stop_timeout: Duration::from_secs(seconds.into()),
            },
        )
    }

    fn start_in(
        &self,
        ends: StdioEnds,
        cgroup: Option<std::os::fd::BorrowedFd<'_>>,
        group: Option<&Cgroup>,
        restarts: u32,
    ) -> Result<Started> {
        let spec = &self.record.spec;
        let request = Request {
            spec: &self.spec,
            rootfs: self.rootfs.clone(),
            mount_point: self.dirs.run_container(&self.record.id),
            userns: self.record.maps.clone().map_or(Userns::Inherit, Userns::New),
            engine_maps: &self.engine_maps,
            engine_is_host: self.engine_is_host,
            cgroup,
            seccomp: self.seccomp.clone(),
            preserved_fds: &self.preserved_fds,
            setgroups: self.setgroups,
            loopback: true,
            no_devices: self.engine_is_host
                && !self.record.spec.security.privileged
                && !crate::devices::may_make(&self.spec),
        };
        let uses_pasta = matches!(self.network, Mode::Pasta(_));
        if uses_pasta || spec.runtime.is_some() || (self.record.maps.is_some() && !self.engine_is_host) {
            // layers are mounted here for a container that cannot, and its network namespace for pasta, which may
            // not open it in /proc: that takes a mount namespace of the monitor's own
            unroot_sys::ns::unshare([unroot_sys::process::Namespace::Mount].into_iter().collect())
                .map_err(Error::engine)?;
            unroot_runtime::stop_propagation().map_err(Error::engine)?;
        }
        let stdio = unroot_runtime::Stdio { stdin: ends.stdin, stdout: ends.stdout, stderr: ends.stderr };
        let mut made = match &spec.runtime {
            None => Made::Own(unroot_runtime::spawn(&request, stdio).map_err(runtime_error)?),
            Some(program) => Made::External(self.make_outside(program.as_ref(), group, stdio)?),
        };
        let pid = made.pid();
        let pasta = match &self.network {
            Mode::Pasta(options) => {
                let netns = self.dirs.run_container(&self.record.id).join("netns");
                let namespace = made.network_namespace()?;
                unroot_runtime::bind_namespace(namespace.as_fd(), &netns).map_err(Error::engine)?;
                Some(
                    Pasta::start(&netns, &self.dirs.run_container(&self.record.id), &self.ports, options)
                        .map_err(network_error)?,
                )
            }
            _ => None,
        };
        let terminal = made.wait_ready()?;
        let helper = pasta.map(|p| p.wait_ready().map_err(network_error)).transpose()?.flatten();
        let state = RunState {
            format: FORMAT,
            monitor: ProcessRef::of(std::process::id())
                .ok_or_else(|| Error::engine("read /proc/self/stat"))?,
            process: ProcessRef::of(pid)
                .ok_or_else(|| Error::engine("the container ended before it was started"))?,
            started: unroot_monitor::log::now(),
            maps: observe::maps_of(&pid.to_string()).ok(),
            cgroup: group.map(|g| g.path().to_string_lossy().into_owned()),
            network_helper: helper.and_then(ProcessRef::of),
            addresses: Vec::new(),
            restarts,
        };
        write_run(&self.dirs, &self.record.id, &state)?;
        Engine::note_filled(&self.store, &self.filled);
        Report::begin(&self.dirs, &self.record);
        self.dirs.events.container("init", &self.record);
        self.write_pidfiles(pid)?;
        let bundle = self.dirs.run_container(&self.record.id);
        let hook = |stage: Stage| self.hooks.run(stage, &self.record.id, pid, &bundle, &self.spec);
        let started = hook(Stage::Prestart).and_then(|()| made.start());
        match started.and_then(|child| hook(Stage::Poststart).map(|()| child)) {
            Ok(child) => {
                self.dirs.events.container("start", &self.record);
                Ok(Started { pidfd: child.pidfd, pid, terminal })
            }
            Err(error) => {
                let _ = fs::remove_file(bundle.join("state.json"));
                Err(error)
            }
        }
    }

    /// Has another OCI runtime make the process.
    fn make_outside(
        &self,
        program: &std::path::Path,
        group: Option<&Cgroup>,
        stdio: unroot_runtime::Stdio,
    ) -> Result<external::Made> {
        let cgroup = group.and_then(Cgroup::below_mount_point);
        let request = external::Request {
            program,
            flags: &self.record.spec.runtime_flags,
            spec: &self.spec,
            rootfs: &self.rootfs,
            bundle: &self.dirs.run_container(&self.record.id),
            id: &self.record.id,
            maps: self.record.maps.as_ref(),
            cgroup: cgroup.as_deref(),
            seccomp: &self.seccomp,
        };
        external::create(&request, stdio).map_err(runtime_error)
    }

    fn write_pidfiles(&self, pid: u32) -> Result<()> {
        let life = &self.record.spec.life;
        let files = [(&life.pidfile, pid), (&life.monitor_pidfile, std::process::id())];
        for (file, pid) in files.into_iter().filter_map(|(f, pid)| Some((f.as_ref()?, pid))) {
            fs::write(file, pid.to_string()).context(|| format!("write {}", file.display()))?;
        }
        Ok(())
    }
}

/// A container's process that waits to be let go.
enum Made {
    Own(unroot_runtime::Init),
    External(external::Made),
}

impl Made {
    fn pid(&self) -> u32 {
        match self {
            Self::Own(init) => init.pid(),
            Self::External(made) => made.pid(),
        }
    }

    fn network_namespace(&self) -> Result<std::os::fd::OwnedFd> {
        let path = format!("/proc/{}/ns/net", self.pid());
        let opened = match self {
            Self::Own(init) => init.network_namespace().and_then(|fd| fd.try_clone_to_owned().ok()),
            Self::External(_) => fs::File::open(&path).ok().map(Into::into),
        };
        opened.ok_or_else(|| Error::engine(format_args!("open {path}")))
    }

    fn wait_ready(&mut self) -> Result<Option<std::os::fd::OwnedFd>> {
        match self {
            Self::Own(init) => init.wait_ready().map_err(runtime_error),
            Self::External(made) => Ok(made.take_terminal()),
        }
    }

    fn start(self) -> Result<unroot_sys::process::Child> {
        match self {
            Self::Own(init) => init.start(),
            Self::External(made) => made.start(),
        }
        .map_err(runtime_error)
    }
}

fn runtime_error(error: unroot_runtime::Error) -> Error {
    match error {
        unroot_runtime::Error::Start(start) => {
            let kind = match start.exit_code {
                126 => ErrorKind::NotExecutable,
                127 => ErrorKind::CommandNotFound,
                _ => ErrorKind::Engine,
            };
            Error::new(kind, start.text)
        }
        other => Error::engine(other),
    }
}

fn network_error(error: unroot_network::Error) -> Error {
    match error.hint() {
        Some(hint) if error.to_string().contains("already in use") => {
            Error::new(ErrorKind::NotExecutable, format_args!("{error}\nhint: {hint}"))
        }
        Some(hint) => Error::engine(format_args!("{error}\nhint: {hint}")),
        None => Error::engine(error),
    }
}

/// In the monitor, after the end: what was held is freed, the exit is recorded, and with `--rm` all goes but the files
/// that are returned. Each step is taken whatever the others did.
fn finish(launch: &Launch, exit: unroot_monitor::Exit, restarts: u32, again: bool) -> Option<Leftover> {
    let Launch { store, dirs, record, .. } = launch;
    let run = State::observe(dirs, &record.id).ok().and_then(|s| s.run);
    let mut oom = false;
    if let Some(program) = &record.spec.runtime {
        let bundle = dirs.run_container(&record.id);
        external::Runtime::new(program.as_ref(), &record.spec.runtime_flags, &bundle, &record.id).delete();
    }
    if let Some(run) = &run {
        if let Some(helper) = run.network_helper.and_then(crate::stop::open_process) {
            let _ = crate::stop::kill_hard(None, &helper);
            // its ports are free when it is gone; the kernel takes tens of milliseconds to dissolve its namespaces
            if !launch.ports.is_empty() {
                let _ = crate::stop::wait_end(&helper, Some(Duration::from_secs(2)));
            }
        }
        if let Some(cgroup) = run.cgroup.as_ref().and_then(|p| Cgroup::open(p.as_ref())) {
            oom = cgroup.was_oom_killed();
            let _ = cgroup.remove();
        }
    }
    let pid = run.as_ref().map_or(0, |r| r.process.pid);
    let bundle = dirs.run_container(&record.id);
    let hooked = launch.hooks.run(Stage::Poststop, &record.id, pid, &bundle, &launch.spec);
    let record_of_exit = Exit {
        error: hooked.err().map(|e| e.to_string()).unwrap_or_default(),
        code: exit.code,
        oom,
        started: run.as_ref().map_or(0, |r| r.started),
        finished: exit.finished,
        pid: run.as_ref().map_or(0, |r| r.process.pid),
        restarts,
        ..Exit::default()
    };
    // (said before the exit is: in between the container is not taken to have ended for good)
    if again && let Some(monitor) = ProcessRef::of(std::process::id()) {
        let _ = Restarting::write(dirs, &record.id, monitor);
    }
    let _ = write_exit(dirs, &record.id, &record_of_exit);
    if let Ok(Some(record)) = Record::read(dirs, &record.id) {
        Report::end(dirs, &record);
    }
    dirs.events.emit(Event { exit_code: Some(exit.code), ..Event::of_container("died", record) });
    dirs.events.container("cleanup", record);
    let lock = record.spec.remove.then(|| Lock::take(dirs, &record.id).ok()).flatten()?;
    let leftover = crate::remove::withdraw(dirs, record, lock).ok();
    crate::volumes::drop_anonymous(dirs, store, &record.volumes);
    if let Some(image) = record.image.as_ref().filter(|_| record.spec.life.remove_image) {
        let _ = crate::images::remove_unused(store, dirs, &image.id);
    }
    leftover
}
