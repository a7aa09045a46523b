//! kill, stop and wait: signals through pidfds, so that a pid used again is never hit.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::dirs::Dirs;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::lock::Lock;
use crate::record::Record;
use crate::spec::Restart;
use crate::state::{ProcessRef, Restarting, RunState, State, Status, set_stopping, write_unwanted};

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
/// monitors have recorded the exits. Those that do not run are left as they are; one that is paused cannot hear a
/// signal, and is killed. What became of each, in their order.
pub fn stop(
    dirs: &Dirs,
    records: &[&Record],
    timeout: Option<u32>,
    signal_of: &dyn Fn(&Record) -> i32,
) -> Vec<Result<()>> {
    records.iter().for_each(|record| crate::boot::forget(dirs, &record.id));
    stop_for_now(dirs, records, timeout, signal_of)
}

/// The same, but those that should run after a boot still should.
pub(crate) fn stop_for_now(
    dirs: &Dirs,
    records: &[&Record],
    timeout: Option<u32>,
    signal_of: &dyn Fn(&Record) -> i32,
) -> Vec<Result<()>> {
    // (infra containers end last: others are in their namespaces)
    let (infra, others): (Vec<&Record>, Vec<&Record>) = records.iter().copied().partition(|r| r.spec.infra);
    if !infra.is_empty() && !others.is_empty() {
        let mut others = stop_for_now(dirs, &others, timeout, signal_of).into_iter();
        let mut infra = stop_for_now(dirs, &infra, timeout, signal_of).into_iter();
        let mut result = |r: &&Record| if r.spec.infra { infra.next() } else { others.next() };
        return records.iter().filter_map(&mut result).collect();
    }
    let begun = Instant::now();
    let asked: Vec<Result<Option<Stopping<'_>>>> =
        records.iter().map(|record| Stopping::ask(dirs, record, timeout, &|| signal_of(record))).collect();
    // (all are killed before any is waited for)
    let killed: Vec<Result<Option<Stopping<'_>>>> = asked
        .into_iter()
        .map(|one| one.and_then(|s| s.map(|s| s.kill_late(begun).map(|()| s)).transpose()))
        .collect();
    killed.into_iter().map(|one| one?.map_or(Ok(()), |s| s.finish(dirs))).collect()
}

/// A container that has been asked to end.
struct Stopping<'a> {
    record: &'a Record,
    run: RunState,
    process: Option<OwnedFd>,
    seconds: u32,
    signal: i32,
}

impl<'a> Stopping<'a> {
    /// None if it does not run.
    fn ask(
        dirs: &Dirs,
        record: &'a Record,
        timeout: Option<u32>,
        signal: &dyn Fn() -> i32,
    ) -> Result<Option<Self>> {
        let mut state = State::observe(dirs, &record.id)?;
        if state.stale {
            crate::remove::settle(dirs, record, &Lock::take(dirs, &record.id)?)?;
            return Err(Error::new(
                ErrorKind::Lost,
                format_args!(
                    "container {} conmon exited prematurely, exit code could not be retrieved: conmon process killed: its monitor was killed, and the container with it",
                    record.id
                ),
            ));
        }
        if state.status == Status::Restarting {
            crate::remove::settle(dirs, record, &Lock::take(dirs, &record.id)?)?;
            // (its monitor may have been faster)
            state = State::observe(dirs, &record.id)?;
        }
        let is_live = state.is_live();
        let Some(run) = state.run.filter(|_| is_live) else { return Ok(None) };
        write_unwanted(dirs, &record.id);
        let seconds = match state.status {
            Status::Paused | Status::Initialized => 0,
            _ => timeout.unwrap_or(record.spec.life.stop_timeout.unwrap_or(TIMEOUT)),
        };
        let process = open_process(run.process);
        set_stopping(dirs, &record.id, true);
        let signal = signal();
        if let Some(process) = process.as_ref().filter(|_| seconds != 0) {
            send(process, signal)
                .context(|| format!("sending signal {signal} to container {}", record.id))?;
        }
        Ok(Some(Self { record, run, process, seconds, signal }))
    }

    /// When its time is up.
    fn kill_late(&self, begun: Instant) -> Result<()> {
        let Some(process) = &self.process else { return Ok(()) };
        let left = Duration::from_secs(self.seconds.into()).saturating_sub(begun.elapsed());
        if self.seconds != 0 && wait_end(process, Some(left))? {
            return Ok(());
        }
        if self.seconds != 0 {
            warn_of_kill(self.record, self.signal, self.seconds);
        }
        kill_hard(self.run.cgroup.as_deref(), process)
    }

    fn finish(&self, dirs: &Dirs) -> Result<()> {
        if let Some(process) = &self.process
            && !wait_end(process, Some(Duration::from_secs(30)))?
        {
            set_stopping(dirs, &self.record.id, false);
            return Err(Error::engine(format_args!(
                "container {} did not end within 30 seconds of SIGKILL: its process {} is stuck in the kernel",
                self.record.id, self.run.process.pid
            )));
        }
        wait_recorded(dirs, self.record, self.run.monitor)?;
        dirs.events.container("stop", self.record);
        Ok(())
    }
}

/// Refuses what only containers that are not paused can do.
pub fn refuse_paused(dirs: &Dirs, record: &Record, what: &str) -> Result<()> {
    match State::observe(dirs, &record.id)?.status {
        Status::Paused => Err(Error::state(format_args!(
            "can only {what} created or running containers. {} is in state paused: container state improper",
            record.id
        ))
        .with_hint(format_args!("{} unpause {}", crate::program(), record.name))),
        _ => Ok(()),
    }
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
            return crate::remove::settle(dirs, record, &Lock::take(dirs, &record.id)?);
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
