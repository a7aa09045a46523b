//! kill, stop and wait: signals through pidfds, so that a pid used again is never hit.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::dirs::{Dirs, write_file};
use crate::error::{Context as _, Error, Result};
use crate::record::Record;
use crate::spec::Restart;
use crate::state::{ProcessRef, Restarting, State, Status, write_unwanted};

/// Seconds from the request to end until the kill.
pub const TIMEOUT: u32 = 10;

/// A handle on a process that was seen; none if it is gone or its number was used again.
pub fn open_process(process: ProcessRef) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(process.pid).ok()?)?;
    let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    process.is_alive().then_some(handle)
}

/// Waits until the process has ended; false if time is up before.
pub fn wait_end(process: &OwnedFd, timeout: Option<Duration>) -> Result<bool> {
    let deadline = timeout.map(|t| Instant::now() + t);
    loop {
        let left = deadline.map(|d| {
            let left = d.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
        });
        let mut fds = [PollFd::new(process, PollFlags::IN)];
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e).context(|| "poll of a pidfd".into()),
        }
    }
}

/// Sends a signal to the container's first process.
pub fn kill(dirs: &Dirs, record: &Record, signal: i32) -> Result<()> {
    let state = State::observe(dirs, &record.id)?;
    let not_running = || {
        Error::state(format_args!(
            "can only kill running containers. {} is in state {}: container state improper",
            record.id,
            State::observe(dirs, &record.id).map_or("unknown", |s| s.status.as_str()),
        ))
    };
    let process = state.process().ok_or_else(not_running)?;
    let handle = open_process(process).ok_or_else(not_running)?;
    if matches!(signal, 9 | 15) || record.spec.life.stop_signal == Some(signal.cast_unsigned()) {
        write_unwanted(dirs, &record.id);
        crate::boot::forget(dirs, &record.id);
    }
    send(&handle, signal).context(|| format!("sending signal {signal} to container {}", record.id))?;
    dirs.events.container("kill", record);
    Ok(())
}

fn send(process: &OwnedFd, signal: i32) -> std::result::Result<(), Errno> {
    // container signals include the real-time ones, whose numbers the C library keeps for itself
    let signal = unroot_sys::signal::signal_from_raw(signal).ok_or(Errno::INVAL)?;
    match pidfd_send_signal(process, signal) {
        Err(Errno::SRCH) => Ok(()),
        other => other,
    }
}

/// Stops containers, all at once: the stop signal to each, then after the timeout SIGKILL; and waits until their
/// monitors have recorded the exits. Those that do not run are left as they are.
pub fn stop(
    dirs: &Dirs,
    records: &[&Record],
    timeout: Option<u32>,
    signal_of: &dyn Fn(&Record) -> i32,
) -> Result<()> {
    records.iter().for_each(|record| crate::boot::forget(dirs, &record.id));
    stop_for_now(dirs, records, timeout, signal_of)
}

/// The same, but those that should run after a boot still should.
pub(crate) fn stop_for_now(
    dirs: &Dirs,
    records: &[&Record],
    timeout: Option<u32>,
    signal_of: &dyn Fn(&Record) -> i32,
) -> Result<()> {
    let mut stopping = Vec::new();
    for record in records {
        let state = State::observe(dirs, &record.id)?;
        if state.stale {
            crate::remove::settle(dirs, record, &crate::lock::Lock::take(dirs, &record.id)?)?;
            return Err(Error::state(format_args!(
                "container {} conmon exited prematurely, exit code could not be retrieved: conmon process killed: its monitor was killed, and the container with it",
                record.id
            )));
        }
        if state.status == Status::Restarting {
            crate::remove::settle(dirs, record, &crate::lock::Lock::take(dirs, &record.id)?)?;
        }
        let Some(run) = state.run.clone().filter(|_| state.is_live()) else { continue };
        write_unwanted(dirs, &record.id);
        if state.status == Status::Paused {
            return Err(Error::state(format_args!("container {} is paused: unpause it first", record.id)));
        }
        let seconds = timeout.unwrap_or(record.spec.life.stop_timeout.unwrap_or(TIMEOUT));
        let process = open_process(run.process);
        let _ = write_file(&dirs.run_container(&record.id).join("stopping"), b"", 0o600);
        let signal = signal_of(record);
        if let Some(process) = process.as_ref().filter(|_| seconds != 0) {
            send(process, signal)
                .context(|| format!("sending signal {signal} to container {}", record.id))?;
        }
        stopping.push((*record, run, process, seconds, signal));
    }
    let begun = Instant::now();
    for (record, run, process, seconds, signal) in &stopping {
        let Some(process) = process else { continue };
        let left = Duration::from_secs((*seconds).into()).saturating_sub(begun.elapsed());
        if *seconds != 0 && wait_end(process, Some(left))? {
            continue;
        }
        if *seconds != 0 {
            warn_of_kill(record, *signal, *seconds);
        }
        kill_hard(run.cgroup.as_deref(), process)?;
    }
    for (record, run, process, ..) in &stopping {
        if let Some(process) = process
            && !wait_end(process, Some(Duration::from_secs(30)))?
        {
            let _ = fs::remove_file(dirs.run_container(&record.id).join("stopping"));
            return Err(Error::engine(format_args!(
                "container {} did not end within 30 seconds of SIGKILL: its process {} is stuck in the kernel",
                record.id, run.process.pid
            )));
        }
        wait_recorded(dirs, record, run.monitor)?;
        dirs.events.container("stop", record);
    }
    Ok(())
}

/// Said on standard error, as Podman does.
fn warn_of_kill(record: &Record, signal: i32, seconds: u32) {
    crate::warn(format_args!(
        "StopSignal {} failed to stop container {} in {seconds} seconds, resorting to SIGKILL",
        unroot_sys::signal::name(signal),
        record.name
    ));
}

/// Ends every process of the container.
pub fn kill_hard(cgroup: Option<&str>, process: &OwnedFd) -> Result<()> {
    if let Some(cgroup) = cgroup {
        let _ = fs::write(format!("{cgroup}/cgroup.kill"), "1");
    }
    match pidfd_send_signal(process, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(e) => Err(e).context(|| "sending SIGKILL".into()),
    }
}

/// Waits until the monitor has recorded the exit and cleaned up, which it does before it ends.
fn wait_recorded(dirs: &Dirs, record: &Record, monitor: ProcessRef) -> Result<()> {
    let Some(handle) = open_process(monitor) else { return Ok(()) };
    let now = Record::read(dirs, &record.id)?;
    let restarts = now.as_ref().unwrap_or(record).spec.life.restart != Restart::No;
    let begun = Instant::now();
    // (a container that ended by itself just before may be about to be started again: not any more)
    while !wait_end(&handle, Some(Duration::from_millis(if restarts { 50 } else { 60_000 })))? {
        if restarts && Restarting::read(dirs, &record.id)?.is_some() {
            return crate::remove::settle(dirs, record, &crate::lock::Lock::take(dirs, &record.id)?);
        }
        if begun.elapsed() < Duration::from_secs(60) {
            continue;
        }
        return Err(Error::engine(format_args!(
            "the monitor (process {}) has not cleaned up within a minute of its container's end",
            monitor.pid
        )));
    }
    Ok(())
}
