//! Health checks: a command that is run in the container from time to time and whose exit code says how it is.
//!
//! ```text
//!            start          a check passes             `retries` checks in a row fail
//!   (nothing) ───▶ starting ──────────────▶ healthy ◀──────────────────────────────▶ unhealthy ───▶ on-failure
//!                                                      a check passes                   action
//! ```
//! Failures within the start period do not count. A startup check, if there is one, runs in place of the other
//! until it has passed so often as it has to; until then the container is starting.
//!
//! The container's monitor runs them, in a child of its own, whether systemd is there or not; `healthcheck run`
//! runs one at once. What they found is a [`Report`] in `containers/ID/healthcheck.log` or, where it was asked for,
//! in another directory. It begins anew with each start.

mod check;
mod spec;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use unroot_monitor::log::{format_nanos, now};

pub use spec::{Check, EVENTS_LOGGER, Health, LOCAL, OnFailure, Startup, test_of};

use crate::dirs::{Dirs, read_json, write_json};
use crate::error::{Context as _, Result};
use crate::record::Record;

/// How a container is.
pub const STARTING: &str = "starting";
/// The last check passed.
pub const HEALTHY: &str = "healthy";
/// Too many checks in a row failed.
pub const UNHEALTHY: &str = "unhealthy";
/// It does not run any more.
pub const STOPPED: &str = "stopped";

/// What health checks found since the container's start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Report {
    /// starting, healthy, unhealthy or stopped.
    pub status: String,
    /// How many checks in a row have failed.
    pub failing_streak: u32,
    /// The last checks.
    pub log: Vec<Finding>,
    /// How it goes with the startup check.
    #[serde(skip_serializing_if = "Progress::is_none")]
    pub startup: Progress,
}

/// What one check found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Finding {
    /// When it began, RFC 3339.
    pub start: String,
    /// When it ended.
    pub end: String,
    /// The command's exit code; -1 for one that took too long.
    pub exit_code: i32,
    /// What it printed.
    pub output: String,
}

/// How it goes with a startup check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Progress {
    /// So often it has passed.
    pub successes: u32,
    /// So often in a row it has failed.
    pub failures: u32,
    /// It has passed so often as it has to.
    pub done: bool,
}

impl Progress {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a container's report is.
pub fn path(dirs: &Dirs, record: &Record) -> PathBuf {
    match record.spec.health.log_destination.as_str() {
        LOCAL | EVENTS_LOGGER | "" => dirs.container(&record.id).join("healthcheck.log"),
        dir => PathBuf::from(dir).join(format!("{}-healthcheck.log", record.id)),
    }
}

impl Report {
    /// The report of a container; none if it has no health check or never started.
    pub fn read(dirs: &Dirs, record: &Record) -> Option<Self> {
        record.spec.health.check.as_ref()?;
        read_json(&path(dirs, record)).ok().flatten()
    }

    /// The same with what is to be said before the first start.
    pub fn shown(dirs: &Dirs, record: &Record) -> Option<Self> {
        record.spec.health.check.as_ref()?;
        Some(Self::read(dirs, record).unwrap_or_else(|| Self { status: STARTING.into(), ..Self::default() }))
    }

    /// Begins anew, as the container starts.
    pub fn begin(dirs: &Dirs, record: &Record) {
        if record.spec.health.check.is_some() {
            let _ = write_json(&path(dirs, record), &Self { status: STARTING.into(), ..Self::default() });
        }
    }

    /// The container has ended.
    pub fn end(dirs: &Dirs, record: &Record) {
        if let Some(mut report) = Self::read(dirs, record) {
            report.status = STOPPED.into();
            report.failing_streak = 0;
            let _ = write_json(&path(dirs, record), &report);
        }
    }

    /// Changes it; two checks at once do so one after the other.
    fn change<T>(dirs: &Dirs, record: &Record, act: impl FnOnce(&mut Self) -> T) -> Result<T> {
        let place = dirs.run_container(&record.id).join("health.lock");
        let lock = File::options().write(true).create(true).truncate(false).mode(0o600).open(&place);
        let lock = lock.context(|| format!("open {}", place.display()))?;
        flock(&lock, FlockOperation::LockExclusive).context(|| format!("flock {}", place.display()))?;
        let mut report = Self::read(dirs, record).unwrap_or_default();
        let outcome = act(&mut report);
        write_json(&path(dirs, record), &report)?;
        Ok(outcome)
    }

    /// Takes a finding in.
    fn add(&mut self, health: &Health, finding: Finding, since_start: Duration) {
        let passed = finding.exit_code == 0;
        let startup = health.startup.as_ref().filter(|_| !self.startup.done);
        match startup {
            Some(startup) if passed => {
                self.startup.failures = 0;
                self.startup.successes += 1;
                self.startup.done = self.startup.successes >= startup.successes.max(1);
            }
            Some(_) => {
                self.startup.successes = 0;
                self.startup.failures += 1;
            }
            None if passed => {
                self.status = HEALTHY.into();
                self.failing_streak = 0;
            }
            None => self.count_failure(health, since_start),
        }
        if health.log_destination != EVENTS_LOGGER {
            self.log.push(finding.cut(health.max_log_size));
        }
        let most = health.max_log_count as usize;
        if most != 0 && self.log.len() > most {
            self.log.drain(..self.log.len() - most);
        }
    }

    fn count_failure(&mut self, health: &Health, since_start: Duration) {
        let Some(check) = &health.check else { return };
        if self.status == STARTING && since_start < Duration::from_nanos(check.start_period) {
            return;
        }
        self.failing_streak += 1;
        if self.failing_streak >= check.retries {
            self.status = UNHEALTHY.into();
        }
    }

    /// How long after one check the next one is; none if there is none.
    fn pause(&self, health: &Health) -> Option<Duration> {
        let check = health.check.as_ref().filter(|c| c.command().is_some())?;
        let startup = health.startup.as_ref().filter(|_| !self.startup.done);
        let interval = startup.map_or(check.interval, |s| s.check.interval);
        (interval != 0).then(|| Duration::from_nanos(interval))
    }
}

/// Tells a container's monitor when the next check is.
#[derive(Debug, Default)]
pub struct Clock {
    begun: bool,
    startup_done: bool,
}

impl Clock {
    /// How long until the next one, seen from the end of the last: none from the start to the first, nor from the
    /// last startup check to the first of the other. Flags may have changed by `update`.
    pub fn next(&mut self, dirs: &Dirs, id: &str) -> Option<Duration> {
        let record = Record::read(dirs, id).ok().flatten()?;
        let report = Report::read(dirs, &record).unwrap_or_default();
        let done = report.startup.done;
        let first = !std::mem::replace(&mut self.begun, true);
        let after_startup = done && !std::mem::replace(&mut self.startup_done, done);
        let pause = report.pause(&record.spec.health)?;
        Some(if first || after_startup { Duration::ZERO } else { pause })
    }
}

impl Finding {
    fn of(begun: i64, exit_code: i32, output: &[u8]) -> Self {
        Self {
            start: format_nanos(begun),
            end: format_nanos(now()),
            exit_code,
            output: String::from_utf8_lossy(output).into_owned(),
        }
    }

    /// At most so many letters of output; 0 is all.
    fn cut(mut self, most: u64) -> Self {
        if most != 0
            && let Some((at, _)) = self.output.char_indices().nth(most as usize)
        {
            self.output.truncate(at);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(startup: bool) -> Health {
        let check =
            Check { test: vec!["CMD".into(), "x".into()], retries: 2, interval: 5, ..Check::default() };
        let startup = startup.then(|| Startup { check: check.clone(), successes: 2 });
        Health { check: Some(check), startup, max_log_count: 3, max_log_size: 4, ..Health::default() }
    }

    fn after(health: &Health, codes: &[i32], since_start: Duration) -> Report {
        let mut report = Report { status: STARTING.into(), ..Report::default() };
        codes.iter().for_each(|code| report.add(health, Finding::of(0, *code, b"123456"), since_start));
        report
    }

    #[test]
    fn so_many_failures_in_a_row() {
        let health = health(false);
        let late = Duration::from_secs(1000);
        for (codes, status, streak) in [
            (&[][..], STARTING, 0),
            (&[0], HEALTHY, 0),
            (&[1], STARTING, 1),
            (&[0, 1], HEALTHY, 1),
            (&[0, 1, 0, 1], HEALTHY, 1),
            (&[0, 1, 1], UNHEALTHY, 2),
            (&[1, 1, 1], UNHEALTHY, 3),
            (&[1, 1, 0], HEALTHY, 0),
        ] {
            let report = after(&health, codes, late);
            assert_eq!((report.status.as_str(), report.failing_streak), (status, streak), "{codes:?}");
        }
        let report = after(&health, &[0, 0, 0, 0, 0], late);
        assert_eq!(report.log.len(), 3);
        assert_eq!(report.log[0].output, "1234");
    }

    #[test]
    fn the_start_period_forgives() {
        let mut health = health(false);
        health.check.as_mut().unwrap().start_period = 1_000_000_000;
        assert_eq!(after(&health, &[1, 1, 1], Duration::ZERO).failing_streak, 0);
        assert_eq!(after(&health, &[1, 1, 1], Duration::from_secs(2)).status, UNHEALTHY);
        assert_eq!(after(&health, &[0, 1, 1], Duration::ZERO).status, UNHEALTHY, "it had started");
    }

    #[test]
    fn a_startup_check_comes_first() {
        let health = health(true);
        let report = after(&health, &[0], Duration::ZERO);
        assert_eq!((report.status.as_str(), report.startup.done), (STARTING, false));
        let report = after(&health, &[0, 1, 0], Duration::ZERO);
        assert!(!report.startup.done);
        let report = after(&health, &[0, 0], Duration::ZERO);
        assert_eq!((report.status.as_str(), report.startup.done), (STARTING, true));
        assert_eq!(report.pause(&health), Some(Duration::from_nanos(5)));
        assert_eq!(after(&health, &[0, 0, 0], Duration::ZERO).status, HEALTHY);
    }
}
