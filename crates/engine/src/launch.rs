//! In the monitor: the process is made, its network set up, its state written, and let go. When it ends, that is
//! recorded and what it held is freed.

use std::cell::RefCell;
use std::fs;
use std::os::fd::AsFd as _;
use std::time::Duration;

use unroot_cgroup::systemd::Scope;
use unroot_cgroup::{Cgroup, DELEGATION_HINT};
use unroot_idmap::{IdMaps, observe};
use unroot_monitor::{Asked, Held, Started, StdioEnds};
use unroot_network::{Mode, Pasta, PortMap};
use unroot_runtime::spec::Spec;
use unroot_runtime::{Request, Rootfs, Userns, external, seccomp};

use crate::dirs::Dirs;
use crate::engine::Engine;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::events::Event;
use crate::health::Report;
use crate::hooks::{Hooks, Stage};
use crate::identity::{HostNames, map_text};
use crate::limits;
use crate::lock::Lock;
use crate::pod::PodGroup;
use crate::record::Record;
use crate::remove::{Leftover, NETNS};
use crate::spec::{FORMAT, Restart};
use crate::state::{
    Exit, ProcessRef, Restarting, RunState, State, forget_run, record_exit, set_initialized, write_exit,
    write_run,
};

/// Everything that the monitor needs to make the process.
pub struct Launch {
    /// What the container is.
    pub record: Record,
    /// Where it is kept.
    pub dirs: Dirs,
    /// What the process is to be.
    pub spec: Spec,
    /// Its root filesystem.
    pub rootfs: Rootfs,
    /// Its user namespace.
    pub userns: Userns,
    /// Its network.
    pub network: Mode,
    /// Its published ports.
    pub ports: Vec<PortMap>,
    /// The engine's id maps.
    pub engine_maps: IdMaps,
    /// The engine is in no user namespace.
    pub engine_is_host: bool,
    /// systemd makes its control group, where it is there.
    pub scopes: bool,
    /// Who the engine is on the host.
    pub uid: u32,
    /// How it is asked to stop.
    pub stop_signal: i32,
    /// setgroups(2) is allowed.
    pub setgroups: bool,
    /// System calls that are allowed.
    pub seccomp: seccomp::Profile,
    /// Where images and volumes are.
    pub store: unroot_store::Store,
    /// Programs that are run with it.
    pub hooks: Hooks,
    /// Descriptors that the container gets.
    pub preserved_fds: Vec<u32>,
    /// Volumes that get their first files by this start.
    pub filled: Vec<String>,
    /// The control group of its pod, if it is to be in it.
    pub pod: Option<PodGroup>,
    /// Rows and columns of its terminal, from its first moment on.
    pub window: Option<(u16, u16)>,
    /// What was written of its process.
    pub run: RefCell<Option<RunState>>,
}

/// How much later than the container systemd may kill its supervisor.
const SUPERVISORS: Duration = Duration::from_secs(10);

/// How often a container was started again, and how long its monitor waits before the next time: twice as long each
/// time, from a tenth of a second up to a minute; after ten good seconds from the beginning (as Docker does).
#[derive(Clone, Copy, Default)]
pub struct Restarts {
    /// So often until now.
    pub count: u32,
    /// So long before the next time.
    pub pause: Duration,
}

impl Restarts {
    /// What follows an end; none if nothing does.
    pub fn after(self, launch: &Launch, record: &Record, exit: unroot_monitor::Exit) -> Option<Self> {
        let wanted = match record.spec.life.restart {
            Restart::No => false,
            Restart::OnFailure(most) => exit.code != 0 && (most == 0 || self.count < most),
            Restart::Always | Restart::UnlessStopped => true,
        };
        if !wanted || exit.asked || crate::state::is_unwanted(&launch.dirs, &launch.record.id) {
            return None;
        }
        let ran = launch.run.borrow().as_ref().map_or(0, |r| exit.finished - r.started);
        let least = Duration::from_millis(100);
        let pause = match ran > 10_000_000_000 {
            true => least,
            false => (self.pause * 2).clamp(least, Duration::from_secs(60)),
        };
        Some(Self { count: self.count + 1, pause })
    }
}

impl Launch {
    /// What the container is now: it may have been renamed or updated since its start.
    pub fn record_now(&self) -> Record {
        Record::read(&self.dirs, &self.record.id).ok().flatten().unwrap_or_else(|| self.record.clone())
    }

    /// In the monitor, before it starts the container again: its lock, if nobody has decided otherwise meanwhile.
    pub fn take_again(&self) -> Result<Lock> {
        let lock = Lock::take(&self.dirs, &self.record.id)?;
        let waiting = Restarting::read(&self.dirs, &self.record.id)?;
        let own = waiting.is_some_and(|w| Some(w.monitor) == ProcessRef::of(std::process::id()));
        if own && !crate::state::is_unwanted(&self.dirs, &self.record.id) {
            // (until its state is there, that it is to be started again is all that says so)
            return Ok(lock);
        }
        Restarting::remove(&self.dirs, &self.record.id);
        Err(Error::state("somebody else has taken over the container"))
    }

    /// In the monitor: makes the process, its network and its state, and lets it go.
    pub fn start(&self, ends: StdioEnds, restarts: u32, hold: bool) -> Result<Started<'_>> {
        // (`volatile` leaves a mark that forbids the next mount of the same work directory)
        let dir = self.dirs.container(&self.record.id);
        let parts = fs::read_dir(dir.join("parts")).into_iter().flatten().flatten().map(|part| part.path());
        for work in parts.chain([dir.join("work")]) {
            let _ = fs::remove_dir_all(work.join("work/incompat"));
        }
        let settings = limits::settings(&self.record.spec.limits)?;
        let cgroup = self.cgroup(&settings, restarts)?;
        let started = self.start_in(ends, cgroup.as_ref(), &settings, restarts, hold);
        if let Err(error) = &started {
            if let Some(cgroup) = cgroup {
                let _ = cgroup.remove();
            }
            crate::remove::end_helper(&self.dirs.run_container(&self.record.id));
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
                Restarting::remove(&self.dirs, &self.record.id);
            }
        }
        started
    }

    fn cgroup(&self, settings: &[unroot_cgroup::Setting], restarts: u32) -> Result<Option<Cgroup>> {
        let limits = &self.record.spec.limits;
        let cgroup = match limits.cgroups.as_deref() {
            Some("disabled" | "no-conmon") if settings.iter().all(|s| !s.required) => None,
            _ => {
                let pod = self.pod.as_ref();
                let parent = pod.map_or(limits.cgroup_parent.as_deref(), |p| p.parent.as_deref());
                let limited =
                    || settings.iter().chain(pod.map_or(&[][..], |p| &p.settings)).any(|s| s.required);
                let slice = parent.filter(|p| p.ends_with(".slice"));
                let entered = match self.scopes && restarts == 0 && (parent.is_none() || slice.is_some()) {
                    true => self.enter_scope(slice),
                    false => Ok(false),
                };
                let entered = match entered {
                    Err(error) if slice.is_some() || limited() => {
                        return Err(Error::engine(error));
                    }
                    other => other.inspect_err(|e| log::info!("{e}")).unwrap_or(false),
                };
                let parent = parent.filter(|_| !entered && slice.is_none());
                match pod {
                    None => Cgroup::create(parent, &self.record.id),
                    Some(pod) => Cgroup::create_in(&pod.as_group(), parent, &self.record.id),
                }
                .map_err(limit_error)?
            }
        };
        let of_pod = self.pod.iter().flat_map(|p| &p.settings);
        if cgroup.is_none()
            && let Some(setting) = settings.iter().chain(of_pod).find(|s| s.required)
        {
            let text = format!(
                "the limit {}={} cannot be applied: there is no cgroup v2 directory that this user may write to",
                setting.file, setting.value
            );
            return Err(Error::engine(format_args!("{text}\nhint: {DELEGATION_HINT}")));
        }
        Ok(cgroup)
    }

    /// Limits and devices, for a process that waits in its cgroup.
    fn restrict(
        &self,
        planned: &Spec,
        group: Option<&Cgroup>,
        settings: &[unroot_cgroup::Setting],
    ) -> Result<()> {
        if let Some(group) = group {
            group.apply(settings).map_err(limit_error)?;
        }
        if !self.engine_is_host {
            return Ok(());
        }
        // (attaching takes a descriptor that is no O_PATH)
        let group = group.and_then(|c| fs::File::open(c.path()).ok());
        crate::devices::restrict(&self.record.spec, planned, group.as_ref().map(|g| g.as_fd()))
    }

    fn enter_scope(&self, slice: Option<&str>) -> std::result::Result<bool, unroot_cgroup::Error> {
        let seconds = self.record.spec.life.stop_timeout.unwrap_or(crate::stop::TIMEOUT);
        let (name, description) = match &self.pod {
            None => (format!("unroot-{}", self.record.id), format!("container {}", self.record.name)),
            Some(pod) => (pod.name.clone(), format!("pod of container {}", self.record.name)),
        };
        unroot_cgroup::enter_scope(
            self.uid,
            &Scope {
                name: &format!("{name}.scope"),
                description: &description,
                shared: self.pod.is_some(),
                slice,
                stop_signal: if self.pod.is_some() { 15 } else { self.stop_signal },
                // (the supervisor has to have the time to record the end)
                stop_timeout: Duration::from_secs(seconds.into()).saturating_add(SUPERVISORS),
            },
        )
    }

    fn start_in(
        &self,
        ends: StdioEnds,
        group: Option<&Cgroup>,
        settings: &[unroot_cgroup::Setting],
        restarts: u32,
        hold: bool,
    ) -> Result<Started<'_>> {
        let spec = &self.record.spec;
        let cgroup = group.map(Cgroup::handle).transpose().map_err(Error::engine)?;
        let unfiltered = self.engine_is_host && !spec.security.privileged && group.is_none();
        let sealed = unfiltered.then(|| crate::devices::without_devices(&self.spec));
        let planned = sealed.as_ref().unwrap_or(&self.spec);
        let request = Request {
            spec: planned,
            rootfs: self.rootfs.clone(),
            mount_point: self.dirs.run_container(&self.record.id),
            userns: self.userns.clone(),
            engine_maps: &self.engine_maps,
            engine_is_host: self.engine_is_host,
            cgroup: cgroup.as_ref().map(|handle| handle.as_fd()),
            seccomp: self.seccomp.clone(),
            preserved_fds: &self.preserved_fds,
            setgroups: self.setgroups,
            loopback: true,
            no_devices: self.engine_is_host
                && !self.record.spec.security.privileged
                && !crate::devices::may_make(&self.spec),
        };
        let uses_pasta = matches!(self.network, Mode::Pasta(_));
        if uses_pasta || spec.runtime.is_some() || self.record.maps.is_some() {
            // layers are mounted here for a container that cannot, and its network namespace for pasta, which may
            // not open it in /proc: that takes a mount namespace of the monitor's own
            unroot_sys::ns::unshare([unroot_sys::process::Namespace::Mount].into_iter().collect())
                .map_err(Error::engine)?;
            unroot_runtime::stop_propagation_at(&self.dirs.run_container(&self.record.id))
                .map_err(Error::engine)?;
        }
        let stdio = unroot_runtime::Stdio { stdin: ends.stdin, stdout: ends.stdout, stderr: ends.stderr };
        let mut made = match &spec.runtime {
            None => Made::Own(unroot_runtime::spawn(&request, stdio).map_err(runtime_error)?),
            Some(program) => Made::External(self.make_outside(program.as_ref(), group, stdio)?),
        };
        let pid = made.pid();
        let pasta = match &self.network {
            Mode::Pasta(options) => {
                let run = self.dirs.run_container(&self.record.id);
                let netns = run.join(NETNS);
                let namespace = made.network_namespace()?;
                unroot_runtime::bind_namespace(namespace.as_fd(), &netns).map_err(Error::engine)?;
                Some(Pasta::start(&netns, &run, &self.ports, options).map_err(network_error)?)
            }
            _ => None,
        };
        // (while it makes its root filesystem, and until it is told to go on)
        self.restrict(planned, group, settings)?;
        let mut state = RunState {
            format: FORMAT,
            monitor: ProcessRef::of(std::process::id())
                .ok_or_else(|| Error::engine("read /proc/self/stat"))?,
            process: ProcessRef::of(pid)
                .ok_or_else(|| Error::engine("the container ended before it was started"))?,
            started: 0,
            maps: Some(self.observed_maps(pid)?),
            cgroup: group.map(|g| g.path().to_string_lossy().into_owned()),
            network_helper: None,
            addresses: Vec::new(),
            restarts,
        };
        let terminal = made.wait_ready()?;
        if let (Some(master), Some((rows, columns))) = (&terminal, self.window) {
            unroot_monitor::terminal::set_size(master, rows, columns);
        }
        let helper = pasta.map(|p| p.wait_ready().map_err(network_error)).transpose()?.flatten();
        state.network_helper = helper.and_then(ProcessRef::of);
        state.started = unroot_monitor::log::now();
        set_initialized(&self.dirs, &self.record.id, hold)?;
        write_run(&self.dirs, &self.record.id, &state)?;
        self.run.replace(Some(state.clone()));
        if restarts > 0 {
            Restarting::remove(&self.dirs, &self.record.id);
        }
        Engine::note_filled(&self.store, &self.filled);
        Report::begin(&self.dirs, &self.record);
        self.dirs.events.container("init", &self.record);
        self.write_pidfiles(pid)?;
        if hold {
            let pidfd = made.handle().try_clone_to_owned().context(|| "dup of a pidfd".into())?;
            let held = Waiting { launch: self, made, state };
            return Ok(Started {
                pidfd,
                pid,
                terminal,
                held: Some(Box::new(held)),
                asked: self.asked(group),
            });
        }
        let pidfd = self.let_run(made).inspect_err(|_| {
            let _ = fs::remove_file(self.dirs.run_container(&self.record.id).join("state.json"));
        })?;
        Ok(Started { pidfd, pid, terminal, held: None, asked: self.asked(group) })
    }

    /// How systemd, where it has made the scope, asks all that is in it to end.
    fn asked(&self, group: Option<&Cgroup>) -> Option<Asked> {
        let seconds = self.record.spec.life.stop_timeout.unwrap_or(crate::stop::TIMEOUT);
        group?.scope()?;
        Asked::listen(self.stop_signal, Duration::from_secs(seconds.into()))
    }

    /// Lets the process go, between its hooks.
    fn let_run(&self, made: Made) -> Result<std::os::fd::OwnedFd> {
        let (bundle, pid) = (self.dirs.run_container(&self.record.id), made.pid());
        let hook = |stage: Stage| self.hooks.run(stage, &self.record.id, pid, &bundle, &self.spec);
        let started = hook(Stage::Prestart).and_then(|()| made.start());
        let child = started?;
        hook(Stage::Poststart)?;
        crate::state::set_ran(&self.dirs, &self.record.id);
        self.tell_of_start(pid);
        Ok(child.pidfd)
    }

    fn tell_of_start(&self, pid: u32) {
        let around = (!self.engine_is_host).then_some(&self.engine_maps);
        let seen = crate::identity::Identity::of(pid, around);
        self.dirs.events.emit(Event {
            host_user: seen.as_ref().map_or(String::new(), |i| HostNames::default().user(i.host_uid)),
            id_map: seen.map_or(String::new(), |i| map_text(&i.maps.uid)),
            ..Event::of_container("start", &self.record)
        });
    }

    /// The maps of the process as the kernel has them; others than those that were asked for fail the start.
    fn observed_maps(&self, pid: u32) -> Result<IdMaps> {
        let observed = observe::maps_of(&pid.to_string()).map_err(Error::engine)?;
        let expected = self.record.maps.as_ref().unwrap_or(&self.engine_maps);
        if observed == *expected {
            return Ok(observed);
        }
        let shown = |maps: &IdMaps| {
            let lines = |map: &unroot_idmap::IdMap| map.to_string().trim().replace('\n', ", ");
            format!("uid {}; gid {}", lines(&maps.uid), lines(&maps.gid))
        };
        Err(Error::engine(format_args!(
            "the container's process is not in the user namespace that was asked for: its id map is {}, not {}",
            shown(&observed),
            shown(expected)
        )))
    }

    /// Has another OCI runtime make the process.
    fn make_outside(
        &self,
        program: &std::path::Path,
        group: Option<&Cgroup>,
        stdio: unroot_runtime::Stdio,
    ) -> Result<external::Made> {
        if !self.preserved_fds.is_empty() {
            let text = "descriptors are not handed on to a process that another OCI runtime makes";
            return Err(Error::engine(text)
                .with_hint("without --runtime they are (--preserve-fd, --preserve-fds, LISTEN_FDS)"));
        }
        let cgroup = group.and_then(Cgroup::below_mount_point);
        let request = external::Request {
            program,
            flags: &self.record.spec.runtime_flags,
            spec: &self.spec,
            rootfs: &self.rootfs,
            bundle: &self.dirs.run_container(&self.record.id),
            id: &self.record.id,
            maps: match &self.userns {
                Userns::New(maps) => Some(maps),
                Userns::Inherit | Userns::Join(..) => None,
            },
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

/// A container's process that was made by `init`, until `start`.
struct Waiting<'a> {
    launch: &'a Launch,
    made: Made,
    state: RunState,
}

impl Held for Waiting<'_> {
    fn descriptors(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        self.made.descriptors()
    }

    fn go(self: Box<Self>) -> std::result::Result<(), (u8, String)> {
        let Self { launch, made, mut state } = *self;
        let failed = |e: Error| (e.exit_code(), e.to_string());
        let (dirs, id) = (&launch.dirs, &launch.record.id);
        state.started = unroot_monitor::log::now();
        write_run(dirs, id, &state).map_err(failed)?;
        launch.run.replace(Some(state));
        set_initialized(dirs, id, false).map_err(failed)?;
        launch.let_run(made).map(drop).map_err(failed)
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

    fn descriptors(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        match self {
            Self::Own(init) => init.descriptors(),
            Self::External(made) => made.descriptors(),
        }
    }

    fn handle(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Own(init) => init.handle(),
            Self::External(made) => made.handle(),
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

fn limit_error(error: unroot_cgroup::Error) -> Error {
    match error {
        unroot_cgroup::Error::Limit { .. } => Error::engine(format_args!("{error}\nhint: {DELEGATION_HINT}")),
        other => Error::engine(other),
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
pub fn finish(
    launch: &Launch,
    record: &Record,
    exit: unroot_monitor::Exit,
    restarts: u32,
    again: bool,
) -> Option<Leftover> {
    let Launch { store, dirs, .. } = launch;
    let run = launch.run.take();
    let mut oom = false;
    if let Some(program) = &record.spec.runtime {
        let bundle = dirs.run_container(&record.id);
        external::Runtime::new(program.as_ref(), &record.spec.runtime_flags, &bundle, &record.id).delete();
    }
    if let Some(run) = &run {
        if let Some(helper) = run.network_helper.and_then(crate::stop::open_process) {
            let _ = crate::stop::kill_hard(None, &helper);
            let _ = fs::remove_file(dirs.run_container(&record.id).join(NETNS));
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
    let _ = record_exit(dirs, &record.id, &record_of_exit);
    // (what says that it has a process goes with all the rest, and last: until then nobody else starts it. The other
    // members of a pod have to see that it has ended)
    let is_seen = !record.spec.remove || record.spec.pod.is_some();
    if is_seen {
        forget_run(dirs, &record.id);
    }
    Report::end(dirs, record);
    let died = Event { exit_code: Some(exit.code), ..Event::of_container("died", record) };
    let hungry = oom.then(|| Event::of_container("oom", record));
    dirs.events.emit_all(hungry.into_iter().chain([died, Event::of_container("cleanup", record)]));
    if record.spec.pod.is_some() && !again {
        let _ = crate::pod::after_exit(dirs, record).inspect_err(|e| log::warn!("{e}"));
    }
    if !record.spec.remove {
        return None;
    }
    let lock = Lock::take(dirs, &record.id).ok()?;
    // (somebody else may have started it meanwhile: then it is theirs)
    if is_seen && State::observe(dirs, &record.id).is_ok_and(|s| s.is_live()) {
        return None;
    }
    let withdrawn = crate::remove::withdraw(dirs, record, lock);
    let leftover = withdrawn.inspect_err(|_| forget_run(dirs, &record.id)).ok();
    crate::volumes::drop_anonymous(dirs, store, &record.volumes);
    if let Some(image) = record.image.as_ref().filter(|_| record.spec.life.remove_image) {
        let _ = crate::images::remove_unused(store, dirs, &image.id);
    }
    leftover
}
