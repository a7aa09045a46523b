//! Running a health check, and what follows from it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::os::fd::AsFd as _;

use unroot_monitor::log::now;
use unroot_monitor::session;
use unroot_runtime::Stdio;

use super::{EVENTS_LOGGER, Finding, HEALTHY, OnFailure, Report, STARTING, STOPPED, UNHEALTHY};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::events::Event;
use crate::exec::ExecSpec;
use crate::record::Record;
use crate::state::{State, Status};

/// Output beyond this is not kept, however much the log may hold.
const MAX_OUTPUT: usize = 1 << 20;

impl Engine {
    /// Runs a health check of a container at once, records what it found and acts on it; what this one says of the
    /// container: healthy, unhealthy, starting (a startup check failed) or stopped.
    pub fn check_health(&self, record: &Record) -> Result<&'static str> {
        let health = &record.spec.health;
        let state = State::observe(&self.dirs, &record.id)?;
        let runs = matches!(state.status, Status::Running | Status::Stopping);
        let Some(run) = state.run.as_ref().filter(|_| runs) else {
            return Err(Error::state(format_args!("container {} is not running", record.id)));
        };
        let Some(check) = health.check.as_ref().filter(|c| c.command().is_some()) else {
            return Err(Error::engine(format_args!("container {} has no defined healthcheck", record.id)));
        };
        let before = Report::read(&self.dirs, record).unwrap_or_default();
        let startup = health.startup.as_ref().filter(|_| !before.startup.done);
        let current = startup.map_or(check, |s| &s.check);
        let begun = now();
        let (code, output) = self.capture(record, current.command().unwrap_or_default(), current.timeout)?;
        if code != 0 && self.has_ended(record, run.process)? {
            Report::change(&self.dirs, record, |report| {
                report.status = STOPPED.into();
                report.failing_streak = 0;
            })?;
            return Ok(STOPPED);
        }
        let finding = Finding::of(begun, code, &output);
        let since_start = Duration::from_nanos((now() - run.started).unsigned_abs());
        let told = finding.clone().cut(health.max_log_size).output;
        let report = Report::change(&self.dirs, record, |report| {
            report.add(health, finding, since_start);
            report.clone()
        })?;
        self.dirs.events.emit(Event {
            health_status: report.status.clone(),
            failing_streak: report.failing_streak,
            health_log: if health.log_destination == EVENTS_LOGGER { told } else { String::new() },
            ..Event::of_container("health_status", record)
        });
        let gave_up =
            startup.is_some_and(|s| s.check.retries != 0 && report.startup.failures >= s.check.retries);
        if gave_up {
            self.act(record, OnFailure::Restart)?;
        } else if report.status == UNHEALTHY {
            self.act(record, health.on_failure)?;
        }
        Ok(match code {
            0 => HEALTHY,
            _ if startup.is_some() => STARTING,
            _ => UNHEALTHY,
        })
    }

    fn act(&self, record: &Record, action: OnFailure) -> Result<()> {
        let stop = || -> Result<()> {
            let results = crate::stop::stop_for_now(&self.dirs, &[record], None, &|r| self.stop_signal(r));
            results.into_iter().collect()
        };
        match action {
            OnFailure::None => Ok(()),
            OnFailure::Kill => {
                let state = State::observe(&self.dirs, &record.id)?;
                let Some(run) = &state.run else { return Ok(()) };
                let Some(process) = crate::stop::open_process(run.process) else { return Ok(()) };
                // (it is not marked as unwanted: its restart policy decides)
                crate::stop::kill_hard(run.cgroup.as_deref(), &process)?;
                crate::stop::wait_end(&process, Some(Duration::from_secs(10)))?;
                self.dirs.events.container("kill", record);
                if let Some(monitor) = crate::stop::open_process(run.monitor) {
                    let restarts = record.spec.life.restart != crate::spec::Restart::No;
                    let most = Duration::from_secs(if restarts { 0 } else { 10 });
                    // (its own child cannot wait for the monitor longer than it takes to record the exit)
                    crate::stop::wait_end(&monitor, Some(most))?;
                }
                Ok(())
            }
            OnFailure::Stop => stop(),
            OnFailure::Restart => {
                stop()?;
                self.start(record, None, false)?;
                self.dirs.events.container("restart", record);
                Ok(())
            }
        }
    }

    /// The container is ending: its processes are killed before its first one is gone.
    fn has_ended(&self, record: &Record, process: crate::state::ProcessRef) -> Result<bool> {
        let stopping = |status| matches!(status, Status::Stopping | Status::Exited | Status::Restarting);
        let ended = match crate::stop::open_process(process) {
            Some(handle) => crate::stop::wait_end(&handle, Some(Duration::from_millis(100)))?,
            None => true,
        };
        Ok(ended || stopping(State::observe(&self.dirs, &record.id)?.status))
    }

    /// Runs a command in the container; its exit code and what it printed.
    fn capture(&self, record: &Record, command: Vec<String>, timeout: u64) -> Result<(i32, Vec<u8>)> {
        let spec = ExecSpec { command, session: crate::names::new_id()?, ..ExecSpec::default() };
        let mut ends = session::pipes(false).map_err(Error::engine)?;
        let [stdin, stdout, stderr] = std::mem::take(&mut ends.process);
        let running = match self.spawn_exec(record, &spec, Stdio { stdin, stdout, stderr }) {
            Ok(running) => running,
            Err(e) => return Ok((e.exit_code().into(), e.to_string().into_bytes())),
        };
        let deadline = (timeout != 0).then(|| Instant::now() + Duration::from_nanos(timeout));
        let mut output = Vec::new();
        let ended =
            read_all(&running.pidfd, &ends.outputs, deadline, &mut output).context(|| "poll".into())?;
        if !ended {
            let _ = pidfd_send_signal(&running.pidfd, Signal::KILL);
        }
        let status = waitid(WaitId::PidFd(running.pidfd.as_fd()), WaitIdOptions::EXITED);
        if !ended {
            let text =
                format!("health check exceeded timeout ({})", Duration::from_nanos(timeout).as_secs_f64());
            output.extend(text.as_bytes());
            return Ok((-1, output));
        }
        let code = status
            .ok()
            .flatten()
            .map_or(-1, |s| s.exit_status().unwrap_or_else(|| 128 + s.terminating_signal().unwrap_or(0)));
        Ok((code, output))
    }
}

/// Reads what a process prints until it ends; false if time is up before.
fn read_all(
    process: &OwnedFd,
    outputs: &[Option<OwnedFd>; 2],
    deadline: Option<Instant>,
    into: &mut Vec<u8>,
) -> io::Result<bool> {
    let mut open = [true, true];
    let mut buffer = [0; 16 << 10];
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(false);
        }
        let left = left.map(|l| Timespec { tv_sec: l.as_secs() as i64, tv_nsec: l.subsec_nanos().into() });
        let mut fds = vec![PollFd::new(process, PollFlags::IN)];
        fds.extend(
            outputs
                .iter()
                .zip(open)
                .filter(|(_, open)| *open)
                .flat_map(|(fd, _)| fd)
                .map(|fd| PollFd::new(fd, PollFlags::IN)),
        );
        match poll(&mut fds, left.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        let ended = !fds[0].revents().is_empty();
        for (n, fd) in outputs.iter().enumerate() {
            // (what a process in the background prints later is not waited for)
            while let Some(fd) = fd.as_ref().filter(|_| open[n]) {
                match rustix::io::read(fd, &mut buffer) {
                    Ok(0) => open[n] = false,
                    Ok(length) => {
                        let room = MAX_OUTPUT.saturating_sub(into.len());
                        into.extend(&buffer[..length.min(room)]);
                        if !ended || room == 0 {
                            break;
                        }
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => break,
                }
            }
        }
        if ended {
            return Ok(true);
        }
    }
}
