//! What a container is now: derived from what is seen, never from a word that nobody took back.
//!
//! ```text
//!              create            start                    exit, monitor records it
//!   (nothing) ───────▶ Created ───────▶ Running ──────────────────────────▶ Exited
//!                                        │   ▲                               │  │
//!                                  pause │   │ unpause                 start │  │ rm, --rm
//!                                        ▼   │                               ▼  ▼
//!                                       Paused                         Running  (nothing)
//! ```
//! `init` makes the process and does not let it go: Initialized, from which `start` leads to Running.
//!
//! A container with a restart policy is Restarting between its end and its next start, which its monitor makes;
//! `stop`, `start` and `rm` take that from the monitor, by the lock and `restarting.json`.
//!
//! `state.json` in the run directory exists while there is a process; it names the monitor and the process with
//! their start times, so that a pid used again is not taken for them. If it is there and the monitor is not, the
//! monitor was killed and the container with it (PR_SET_PDEATHSIG): the state is [`Status::Exited`] with
//! [`Exit::lost`] set, and the next verb that holds the container's lock records that and cleans.
//! `exit.json` beside `container.json` is the last exit. After a boot the run directory is empty: a container that has
//! run since its last exit, which the date of the file `ran` beside it tells, is then exited as well, and lost.

use std::fs;

use serde::{Deserialize, Serialize};

use unroot_idmap::IdMaps;

use crate::dirs::{Dirs, read_json, write_json};
use crate::error::Result;

/// A process that cannot be taken for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Its number, as its engine sees it.
    pub pid: u32,
    /// /proc/PID/stat field 22, clock ticks since boot.
    pub start_time: u64,
}

impl ProcessRef {
    /// The process of this number, now.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start_time: stat(pid)?.start_time })
    }

    /// It still lives (a zombie does not, but one whose other threads go on does).
    pub fn is_alive(&self) -> bool {
        let has_ended = |s: &Stat| s.threads <= 1 && matches!(s.state, b'Z' | b'X');
        stat(self.pid).is_some_and(|s| s.start_time == self.start_time && !has_ended(&s))
    }
}

struct Stat {
    state: u8,
    threads: u32,
    start_time: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = unroot_sys::path::read_proc(&format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.bytes().next()?;
    let threads = fields.nth(16)?.parse().ok()?;
    Some(Stat { state, threads, start_time: fields.nth(1)?.parse().ok()? })
}

/// A container's life from start to exit: `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunState {
    /// How to read it.
    pub format: u32,
    /// The monitor.
    pub monitor: ProcessRef,
    /// The container's first process.
    pub process: ProcessRef,
    /// When it started, nanoseconds since the epoch.
    pub started: i64,
    /// The maps of the process as they were read back (inside -> engine's namespace).
    pub maps: Option<IdMaps>,
    /// Its cgroup's directory, if it has one of its own.
    pub cgroup: Option<String>,
    /// Its network's helper.
    pub network_helper: Option<ProcessRef>,
    /// Addresses in the container.
    pub addresses: Vec<String>,
    /// How often its policy has started it again.
    #[serde(default)]
    pub restarts: u32,
}

/// How it ended: `exit.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code, 128 + signal for a killed one.
    pub code: i32,
    /// Out of memory.
    pub oom: bool,
    /// When the process started, nanoseconds since the epoch.
    pub started: i64,
    /// When it ended.
    pub finished: i64,
    /// Its pid was.
    pub pid: u32,
    /// The monitor was killed, so the code is not known but taken to be 137.
    pub lost: bool,
    /// It did not even start, and why.
    pub error: String,
    /// How often its policy had started it again.
    #[serde(default)]
    pub restarts: u32,
}

/// A container's monitor waits to start it again: `restarting.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restarting {
    /// The monitor.
    pub monitor: ProcessRef,
}

impl Restarting {
    fn file(dirs: &Dirs, id: &str) -> std::path::PathBuf {
        dirs.run_container(id).join("restarting.json")
    }

    /// The monitor that waits, if one does.
    pub fn read(dirs: &Dirs, id: &str) -> Result<Option<Self>> {
        Ok(read_json::<Self>(&Self::file(dirs, id))?.filter(|r| r.monitor.is_alive()))
    }

    /// Says that this process waits.
    pub fn write(dirs: &Dirs, id: &str, monitor: ProcessRef) -> Result<()> {
        write_json(&Self::file(dirs, id), &Self { monitor })
    }

    /// Takes it back.
    pub fn remove(dirs: &Dirs, id: &str) {
        let _ = fs::remove_file(Self::file(dirs, id));
    }
}

/// Somebody ended the container on purpose: it is not to be started again.
pub fn write_unwanted(dirs: &Dirs, id: &str) {
    let _ = fs::write(dirs.run_container(id).join("unwanted"), b"");
}

/// The user starts it: it is wanted again.
pub fn forget_unwanted(dirs: &Dirs, id: &str) {
    let _ = fs::remove_file(dirs.run_container(id).join("unwanted"));
}

/// Whether somebody did.
pub fn is_unwanted(dirs: &Dirs, id: &str) -> bool {
    dirs.run_container(id).join("unwanted").exists()
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Never started.
    Created,
    /// Its process is made, and waits to be let go.
    Initialized,
    /// It has a process.
    Running,
    /// It has one, which is frozen.
    Paused,
    /// It is being stopped.
    Stopping,
    /// It has ended, and its monitor is about to start it again.
    Restarting,
    /// It has ended.
    Exited,
}

impl Status {
    /// As `ps --filter status=` and inspect have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Initialized => "initialized",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopping => "stopping",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
        }
    }
}

/// Status with what it rests on.
#[derive(Clone, Debug)]
pub struct State {
    /// What it is doing.
    pub status: Status,
    /// While it has a process.
    pub run: Option<RunState>,
    /// The last exit.
    pub exit: Option<Exit>,
    /// There is a `state.json` whose monitor is gone: somebody should clean.
    pub stale: bool,
}

impl State {
    /// Looks.
    pub fn observe(dirs: &Dirs, id: &str) -> Result<Self> {
        let run: Option<RunState> = read_json(&dirs.run_container(id).join("state.json"))?;
        if let Some(run) = run {
            if run.monitor.is_alive() {
                let status = live_status(dirs, id, &run);
                return Ok(Self { status, run: Some(run), exit: None, stale: false });
            }
            // the monitor records the exit before it removes state.json: it may have ended in between
            let recorded = Self::read_exit(dirs, id)?.filter(|e| e.started == run.started);
            let stale = recorded.is_none();
            let exit = recorded.unwrap_or_else(|| Exit {
                code: 137,
                started: run.started,
                finished: run.started,
                pid: run.process.pid,
                lost: true,
                error: "the monitor was killed, and the container with it: its exit code is not known".into(),
                ..Exit::default()
            });
            return Ok(Self { status: Status::Exited, run: stale.then_some(run), exit: Some(exit), stale });
        }
        let exit = lost_by_boot(dirs, id, Self::read_exit(dirs, id)?);
        let status = match &exit {
            Some(exit) if exit.started != 0 && Restarting::read(dirs, id)?.is_some() => Status::Restarting,
            Some(exit) if exit.started != 0 => Status::Exited,
            _ => Status::Created,
        };
        Ok(Self { status, run: None, exit, stale: false })
    }

    fn read_exit(dirs: &Dirs, id: &str) -> Result<Option<Exit>> {
        read_json(&dirs.container(id).join("exit.json"))
    }

    /// It has a process.
    pub fn is_live(&self) -> bool {
        matches!(self.status, Status::Initialized | Status::Running | Status::Paused | Status::Stopping)
    }

    /// The first process, while it lives.
    pub fn process(&self) -> Option<ProcessRef> {
        self.run.as_ref().filter(|_| self.is_live()).map(|r| r.process)
    }
}

/// The last exit, or if the container has run after it the one that nobody was there to record.
fn lost_by_boot(dirs: &Dirs, id: &str, exit: Option<Exit>) -> Option<Exit> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(ran) = fs::metadata(dirs.container(id).join(RAN)) else { return exit };
    let started = ran.mtime() * 1_000_000_000 + ran.mtime_nsec();
    match exit {
        Some(exit) if exit.finished >= started => Some(exit),
        _ => Some(Exit {
            code: 137,
            started,
            finished: started,
            lost: true,
            error: "the host went down under the container: its exit code is not known".into(),
            ..Exit::default()
        }),
    }
}

fn live_status(dirs: &Dirs, id: &str, run: &RunState) -> Status {
    if dirs.run_container(id).join(INITIALIZED).exists() {
        Status::Initialized
    } else if run.cgroup.as_deref().is_some_and(is_frozen) {
        Status::Paused
    } else if is_being_stopped(dirs, id) {
        Status::Stopping
    } else {
        Status::Running
    }
}

/// Whoever stops a container says so: `stopping`, which holds for as long as that process lives.
pub fn set_stopping(dirs: &Dirs, id: &str, stops: bool) {
    let file = dirs.run_container(id).join(STOPPING);
    match ProcessRef::of(std::process::id()).filter(|_| stops) {
        Some(own) => drop(write_json(&file, &own)),
        None => drop(fs::remove_file(file)),
    }
}

fn is_being_stopped(dirs: &Dirs, id: &str) -> bool {
    let by = read_json::<ProcessRef>(&dirs.run_container(id).join(STOPPING));
    by.ok().flatten().is_some_and(|process| process.is_alive())
}

fn is_frozen(cgroup: &str) -> bool {
    unroot_sys::path::read_proc(&format!("{cgroup}/cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
}

/// Is there while the process waits to be let go.
const INITIALIZED: &str = "initialized";

/// Is there while somebody stops the container.
const STOPPING: &str = "stopping";

/// Says that the process waits to be let go, or does not any more.
pub fn set_initialized(dirs: &Dirs, id: &str, waits: bool) -> Result<()> {
    let file = dirs.run_container(id).join(INITIALIZED);
    match waits {
        true => crate::dirs::write_file(&file, b"", 0o600),
        false => {
            let _ = fs::remove_file(file);
            Ok(())
        }
    }
}

/// Is written at each start; not needed before its `state.json` is lost.
const RAN: &str = "ran";

/// Says, over boots as well, that the container runs now.
pub fn set_ran(dirs: &Dirs, id: &str) {
    let _ = fs::File::create(dirs.container(id).join(RAN));
}

/// Says that the container has a process.
pub fn write_run(dirs: &Dirs, id: &str, state: &RunState) -> Result<()> {
    write_json(&dirs.run_container(id).join("state.json"), state)
}

/// Records an exit, then says that there is no process.
pub fn write_exit(dirs: &Dirs, id: &str, exit: &Exit) -> Result<()> {
    record_exit(dirs, id, exit)?;
    forget_run(dirs, id);
    Ok(())
}

/// Records an exit.
pub fn record_exit(dirs: &Dirs, id: &str, exit: &Exit) -> Result<()> {
    write_json(&dirs.container(id).join("exit.json"), exit)
}

/// Says that there is no process.
pub fn forget_run(dirs: &Dirs, id: &str) {
    for name in ["state.json", STOPPING, "attach.sock", INITIALIZED] {
        let _ = fs::remove_file(dirs.run_container(id).join(name));
    }
}
