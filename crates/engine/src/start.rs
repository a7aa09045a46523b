//! A container starts: its spec is planned and the monitor is forked, which makes the process (see `launch`).

use std::fs;
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use unroot_monitor::log::{self, Driver, Writer};
use unroot_monitor::terminal;
use unroot_monitor::{Checks, Config as MonitorConfig, Stdin};
use unroot_network::{Mode, PortMap};
use unroot_runtime::{Userns, seccomp};
use unroot_store::Config;

use crate::dirs::{Dirs, make_dir};
use crate::engine::Engine;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::health::Clock;
use crate::hooks::Hooks;
use crate::host_tree::{self, Places};
use crate::images::Named;
use crate::launch::{Launch, Restarts, finish};
use crate::lock::Lock;
use crate::plan::{self, Facts, reason};
use crate::pod::PodGroup;
use crate::record::Record;
use crate::remove::Leftover;
use crate::spec::{Namespace, Restart, Root};
use crate::state::{Exit, State, Status, write_exit};
use crate::users::{self, ResolvedUser};
use crate::{limits, netfiles};

impl Engine {
    /// Starts a container; the socket to its monitor, on which its output comes if `attached`.
    pub fn start(&self, record: &Record, image: Option<Named>, attached: bool) -> Result<UnixStream> {
        self.launch(record, image, attached, false)
    }

    /// Makes a container's process, and does not let it go.
    pub fn init(&self, record: &Record) -> Result<()> {
        self.launch(record, None, false, true).map(drop)
    }

    /// Lets the process go that waits.
    fn let_go(&self, record: &Record, attached: bool) -> Result<UnixStream> {
        let directory = self.dirs.run_container(&record.id);
        let mut socket = unroot_monitor::attach::connect_to(&directory, attached).map_err(monitor_error)?;
        unroot_monitor::attach::let_go(&mut socket).map_err(monitor_error)?;
        if attached {
            self.dirs.events.container("attach", record);
        }
        crate::sdnotify::tell(&self.dirs, record, attached)?;
        Ok(socket)
    }

    fn launch(
        &self,
        record: &Record,
        image: Option<Named>,
        attached: bool,
        hold: bool,
    ) -> Result<UnixStream> {
        let approached = self.approach_pod(record.spec.pod.as_deref())?;
        self.enter_beside(self.needed_that_runs(record)?.as_ref(), None)?;
        self.start_needed(record)?;
        drop(approached);
        let lock = Lock::take(&self.dirs, &record.id)?;
        let state = State::observe(&self.dirs, &record.id)?;
        if state.status == Status::Initialized && !hold {
            return self.let_go(record, attached);
        }
        if state.is_live() && hold {
            return Err(Error::state(format_args!(
                "container {} has already been created in runtime: container state improper",
                record.id
            )));
        }
        if state.is_live() {
            return Err(Error::state(format_args!("container {} is already running", record.id)));
        }
        check_log(&record.spec)?;
        self.recover_store()?;
        self.warn_of_strays(record)?;
        crate::remove::settle(&self.dirs, record, &lock)?;
        let image = match image {
            Some(image) => Some(image),
            None => self.image_of(record)?,
        };
        make_dir(&self.dirs.run_container(&record.id))?;
        crate::state::forget_unwanted(&self.dirs, &record.id);
        crate::boot::want(&self.dirs, record);
        let (mut launch, volume_locks) = self.plan_launch(record, image.as_ref())?;
        if attached && record.spec.process.terminal {
            let sizes = [terminal::size(std::io::stdin()), terminal::size(std::io::stdout())];
            launch.window = sizes.into_iter().flatten().next();
        }
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
        let checker_id = record.id.clone();
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
                let count = restarts.get().count;
                let result = launch.start(ends, count, hold && count == 0);
                // (a process that waits has inherited them)
                let (lock, volume_locks) = locks;
                lock.release();
                for file in volume_locks {
                    let _ = flock(&file, FlockOperation::Unlock);
                }
                result.map_err(failed)
            },
            |exit| {
                let record = launch.record_now();
                let next = restarts.get().after(&launch, &record, exit);
                leftover.set(finish(&launch, &record, exit, restarts.get().count, next.is_some()));
                restarts.set(next?);
                next.map(|n| n.pause)
            },
            || {
                let _ = leftover.take().map(Leftover::delete);
                // (nobody waits for this process any more)
                let _ = checker.store.settle();
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
                if !hold {
                    crate::sdnotify::tell(&self.dirs, record, attached)?;
                }
                Ok(socket)
            }
            Err(error) => {
                // (its own handle on it would be in the way)
                drop(first_locks.take());
                let _ = socket.shutdown(Shutdown::Both);
                let error = monitor_error(error);
                let _ = self.record_failure(record, &error);
                Err(error)
            }
        }
    }

    /// A start has failed, or the monitor was killed in the middle of it.
    fn record_failure(&self, record: &Record, error: &Error) -> Result<()> {
        let lock = Lock::take(&self.dirs, &record.id)?;
        crate::remove::settle(&self.dirs, record, &lock)?;
        let state = State::observe(&self.dirs, &record.id)?;
        if state.is_live() {
            return Ok(());
        }
        let exit = Exit {
            code: error.exit_code().into(),
            error: error.to_string(),
            // (what has run before has, whatever becomes of this start)
            started: state.exit.map_or(0, |before| before.started),
            finished: unroot_monitor::log::now(),
            ..Exit::default()
        };
        write_exit(&self.dirs, &record.id, &exit)
    }

    fn open_log(&self, record: &Record) -> Result<Writer> {
        let driver = match record.spec.log.driver.as_deref().unwrap_or("k8s-file") {
            "k8s-file" => Driver::K8sFile,
            "json-file" => Driver::JsonFile,
            "journald" => Driver::Journald,
            "none" | "passthrough" | "passthrough-tty" => Driver::None,
            other => {
                return Err(Error::engine(format_args!(
                    "running container with log driver {other}: invalid log driver: it is k8s-file, json-file, journald, none, passthrough"
                )));
            }
        };
        if driver == Driver::Journald && !log::journal::is_there() {
            return Err(Error::engine(
                "running container with log driver journald: there is no journal: /run/systemd/journal/socket is not there",
            )
            .with_hint("--log-driver k8s-file"));
        }
        let path = self.log_path(record);
        let option = |name: &str| {
            let options = record.spec.log.options.iter().rev();
            options.into_iter().find_map(|o| o.strip_prefix(name)?.strip_prefix('='))
        };
        Writer::open(log::Options {
            driver,
            path: path.clone(),
            max_size: option("max-size").and_then(crate::limits::parse_decimal_size),
            max_files: option("max-file").and_then(|n| n.parse().ok()).unwrap_or(0),
            compress: option("compress") == Some("true"),
            fields: log::journal::Fields {
                id: record.id.clone(),
                name: record.name.clone(),
                tag: option("tag").unwrap_or_default().to_string(),
            },
        })
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
        let mut user = self.process_user(record, &view, &config)?;
        if let Some(maps) = record.maps.as_ref().filter(|_| spec.process.groups.is_empty()) {
            // (groups that the image gives its user, and this map has no place for)
            user.groups.retain(|gid| maps.gid.to_outside(*gid).is_some());
        }
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
        let userns = self.userns_of(record)?;
        let user_namespace = match &userns {
            Userns::Inherit => None,
            Userns::New(_) => Some(PathBuf::new()),
            Userns::Join(path, _) => Some(path.clone()),
        };
        let in_user_namespace = user_namespace.is_some() || namespace.rootless;
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
        let host_name = self.host_name_of(record);
        let mut planned = plan::plan(
            spec,
            &Facts {
                id: &record.id,
                host_name: &host_name,
                image: &config,
                user: &user,
                in_user_namespace,
                user_namespace,
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
                throttles: &limits::thermal_throttles(),
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
        let mounts_all =
            unroot_store::MOUNTED_FILES.iter().all(|file| files.iter().any(|(at, _)| at == file));
        let skeleton = match &spec.root {
            Root::Directory { path, overlay: true, .. } => {
                let dir = self.dirs.container(&record.id);
                let places = Places {
                    upper: dir.join("upper"),
                    works: dir.join("parts"),
                    skeleton: run_dir.join("skeleton"),
                };
                let parts = host_tree::assemble(path, &places, planned.root.readonly)?;
                parts.map(|mounts| {
                    planned.mounts.splice(0..0, mounts);
                    places.skeleton
                })
            }
            _ => None,
        };
        let rootfs = self.rootfs(record, image, mounts_all, skeleton)?;
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
            pod: PodGroup::of(&self.dirs, record)?,
            window: None,
            run: std::cell::RefCell::default(),
            hooks: Hooks::of(spec, &planned)?,
            record: record.clone(),
            dirs: Dirs { events: self.dirs.events.of_monitor(), ..self.dirs.clone() },
            spec: planned,
            rootfs,
            userns,
            network,
            ports: ports.into_iter().flatten().collect(),
            engine_maps: namespace.maps.clone(),
            engine_is_host: !namespace.rootless,
            scopes: self.scopes,
            uid: self.user.uid,
            stop_signal: self.stop_signal_with(record, &config),
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
        let process = &record.spec.process;
        let groups = &process.groups;
        let mut user = match (&process.user, record.default_user) {
            (Some(user), _) => users::resolve(view, user, groups)?,
            (None, Some((uid, gid))) => users::resolve(view, &format!("{uid}:{gid}"), groups)?,
            (None, None) => users::resolve(view, &config.user, groups)?,
        };
        let is_own = process.user.is_none() && record.default_user.is_some();
        if is_own {
            let own_home = self.user.home.to_string_lossy().into_owned();
            let is_there = record.spec.files.mounts.iter().any(|m| m.target == own_home);
            user.home = is_there.then_some(own_home).or(user.home);
        }
        if user.home.is_none() && (is_own || user.uid != 0) && process.passwd.unwrap_or(true) {
            // whom the image does not know is at home where it starts
            let start = process.workdir.clone().unwrap_or_else(|| config.working_dir.clone());
            user.home = Some(start).filter(|dir| !dir.is_empty());
        }
        Ok(user)
    }

    /// The program of `--init` on the host: ours, kept in the run directory, or the one that was given. It is all that
    /// an empty root has.
    fn init_program(&self, record: &Record) -> Result<Option<PathBuf>> {
        let process = &record.spec.process;
        if matches!(record.spec.root, Root::Empty) {
            return self.waiting_program().map(Some);
        }
        if !process.init {
            return Ok(None);
        }
        if let Some(path) = &process.init_path {
            fs::metadata(path).map_err(|e| {
                let why = reason(&e);
                Error::engine(format_args!(
                    "container-init binary not found on the host: stat {}: {why}",
                    path.display()
                ))
            })?;
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

    pub(crate) fn namespace_of(&self, name: &str, kind: &str) -> Result<PathBuf> {
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

/// The caller's own streams are handed over, but no terminal of the caller's: whoever has it could write to it what the
/// user's shell then runs (`TIOCSTI`).
pub fn check_log(spec: &crate::spec::ContainerSpec) -> Result<()> {
    use std::io::IsTerminal as _;
    let passes = spec.log.driver.as_deref() == Some("passthrough");
    let is_terminal = || {
        std::io::stdin().is_terminal() || std::io::stdout().is_terminal() || std::io::stderr().is_terminal()
    };
    match passes && is_terminal() {
        true => Err(Error::engine(
            "the '--log-driver passthrough' option cannot be used on a TTY. If you really want it, use '--log-driver passthrough-tty'",
        )),
        false => Ok(()),
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
