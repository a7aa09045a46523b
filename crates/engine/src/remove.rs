//! rm: what a container leaves, and cleaning after a monitor that was killed.
//!
//! Removing is: record gone (the container no longer exists for anyone), name given back, then its files. Killed
//! in between, the name is nobody's and the files are in a directory whose name begins with a dot, which the next removal sweeps. A monitor
//! that removes its container (`--rm`) does so before it tells of the end, and deletes the files afterwards.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::UnmountFlags;

use crate::dirs::Dirs;
use crate::error::{Context as _, Error, Result};
use crate::lock::Lock;
use crate::record::{Record, release_name};
use crate::state::{ProcessRef, Restarting, RunState, State, write_exit};

/// Records the exit of a container whose monitor was killed, and frees what it held; one whose monitor waits to
/// start it again will not do so. The caller has the lock.
pub fn settle(dirs: &Dirs, record: &Record, _lock: &Lock) -> Result<()> {
    if let Some(waiting) = Restarting::read(dirs, &record.id)? {
        Restarting::remove(dirs, &record.id);
        if let Some(monitor) = crate::stop::open_process(waiting.monitor) {
            let _ = crate::stop::kill_hard(None, &monitor);
        }
    }
    let state = State::observe(dirs, &record.id)?;
    if !state.stale {
        if !state.is_live() {
            free_half_made(dirs, record);
        }
        return Ok(());
    }
    if let (Some(run), Some(exit)) = (&state.run, &state.exit) {
        free_held(run);
        // (where the disk is full it is derived again the next time)
        let _ = write_exit(dirs, &record.id, exit);
    }
    Ok(())
}

/// What a monitor leaves that was killed before it could write down what it holds.
fn free_half_made(dirs: &Dirs, record: &Record) {
    let run = dirs.run_container(&record.id);
    if run.exists() {
        // (the network's helper may not even have written its number; it ends with this file, but would be neither
        // found nor waited for then. One that was just going into the background is another process the next time; one
        // that was starting ends with the monitor, and may be past being found)
        if run.join(NETNS).exists() {
            for _ in 0..4 {
                processes_of(&run).into_iter().for_each(end_process);
            }
            let _ = fs::remove_file(run.join(NETNS));
            unroot_network::wait_free(record.published(), Duration::from_secs(2));
        }
        end_helper(&run);
        let (parent, pod) = (record.spec.limits.cgroup_parent.as_deref(), record.spec.pod.as_deref());
        let lost = unroot_cgroup::Cgroup::lost(parent, pod, &record.id);
        let _ = lost.map(unroot_cgroup::Cgroup::remove);
    }
}

/// Ends a network helper of which nothing tells but its own file.
pub(crate) fn end_helper(run: &Path) {
    let helper = run.join(unroot_network::PASTA_PID);
    let pid = fs::read_to_string(&helper).ok().and_then(|text| text.trim().parse().ok());
    // (the number may be another process's by now)
    pid.and_then(|pid| helper_of(run, pid)).into_iter().for_each(end_process);
    let _ = fs::remove_file(helper);
}

/// The file that a network's helper has the namespace from.
pub(crate) const NETNS: &str = "netns";

/// The process of this number, if it is a helper for this directory.
fn helper_of(run: &Path, pid: u32) -> Option<ProcessRef> {
    let process = ProcessRef::of(pid)?;
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let file = run.join(NETNS);
    words.split(|b| *b == 0).any(|word| word == file.as_os_str().as_bytes()).then_some(process)
}

/// All of them: for when nothing else tells.
fn processes_of(run: &Path) -> Vec<ProcessRef> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|e| e.file_name().to_str()?.parse().ok());
    numbers.filter_map(|pid| helper_of(run, pid)).collect()
}

/// Its ports are free when it is gone.
fn end_process(process: ProcessRef) {
    if let Some(handle) = crate::stop::open_process(process) {
        let _ = crate::stop::kill_hard(None, &handle);
        let _ = crate::stop::wait_end(&handle, Some(Duration::from_secs(2)));
    }
}

/// Removes what is in memory of a container that no longer exists.
pub(crate) fn remove_run(run: &Path) -> Result<()> {
    end_helper(run);
    // (what `mount` has mounted is not to be emptied)
    let _ = rustix::mount::unmount(run.join(crate::roots::MERGED), UnmountFlags::DETACH);
    remove_tree(run)
}

/// Network helper and cgroup of a container without a monitor.
fn free_held(run: &RunState) {
    if let Some(process) = crate::stop::open_process(run.process) {
        let _ = crate::stop::kill_hard(run.cgroup.as_deref(), &process);
    }
    run.network_helper.into_iter().for_each(end_process);
    if let Some(path) = &run.cgroup {
        let _ = unroot_cgroup::Cgroup::open(Path::new(path)).map(|cgroup| cgroup.remove());
    }
}

/// The name and the files of a container that no longer exists. (The name is free: whoever wants it finds nobody there.)
#[derive(Debug)]
pub struct Leftover {
    dirs: Dirs,
    name: String,
    id: String,
    kept: PathBuf,
}

impl Leftover {
    /// Deletes them.
    pub fn delete(self) -> Result<()> {
        release_name(&self.dirs, &self.name, &self.id);
        let run = remove_run(&self.dirs.run_container(&self.id));
        remove_tree(&self.kept).and(run)
    }
}

/// Removes a container that has no process. The caller has the lock, which goes with it.
pub fn remove(dirs: &Dirs, record: &Record, lock: Lock) -> Result<()> {
    withdraw(dirs, record, lock)?.delete()
}

/// Removes a container, all but its files.
pub fn withdraw(dirs: &Dirs, record: &Record, lock: Lock) -> Result<Leftover> {
    let dir = dirs.container(&record.id);
    let doomed = dirs.containers().join(format!(".{}", record.id));
    if let Some(file) = &record.spec.life.cidfile {
        let _ = fs::remove_file(file);
    }
    match fs::rename(&dir, &doomed) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => other.context(|| format!("rename {}", dir.display()))?,
    }
    lock.release();
    dirs.events.container("remove", record);
    Ok(Leftover { dirs: dirs.clone(), name: record.name.clone(), id: record.id.clone(), kept: doomed })
}

/// Removes a tree, whatever the modes in it; it is no error if it is not there. The engine has to be in its
/// namespace where files belong to subordinate ids.
pub fn remove_tree(dir: &Path) -> Result<()> {
    match unroot_store::remove_tree(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|e| Error::engine(format_args!("remove {}: {e}", dir.display()))),
    }
}
