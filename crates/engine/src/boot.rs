//! What runs again after a boot, with no daemon: a unit of systemd runs `system boot start`, which starts what should
//! run.
//!
//! A container whose restart policy is always or unless-stopped has a file `wanted` in its directory from its start
//! until somebody stops or kills it. After a boot the policy unless-stopped asks for that file; always asks only that it
//! has run before.

use std::fs;

use crate::dirs::Dirs;
use crate::engine::Engine;
use crate::error::Result;
use crate::record::Record;
use crate::spec::Restart;
use crate::state::State;

/// The container has been started.
pub(crate) fn want(dirs: &Dirs, record: &Record) {
    if matches!(record.spec.life.restart, Restart::Always | Restart::UnlessStopped) {
        let _ = fs::write(dirs.container(&record.id).join("wanted"), b"");
    }
}

/// Somebody has ended it on purpose.
pub(crate) fn forget(dirs: &Dirs, id: &str) {
    let _ = fs::remove_file(dirs.container(id).join("wanted"));
}

/// Whether a container is to run after a boot.
pub fn should_run(dirs: &Dirs, record: &Record) -> bool {
    let wanted = dirs.container(&record.id).join("wanted").exists();
    let has_run = || State::observe(dirs, &record.id).is_ok_and(|s| s.exit.is_some_and(|e| e.started != 0));
    match record.spec.life.restart {
        Restart::UnlessStopped => wanted,
        Restart::Always => wanted || has_run(),
        Restart::No | Restart::OnFailure(_) => false,
    }
}

impl Engine {
    /// Starts what should run and does not: its names, and what went wrong. What needs another container comes after
    /// it, whatever their order.
    pub fn start_after_boot(&self) -> Result<Vec<(Record, Result<()>)>> {
        let mut left: Vec<Record> = Vec::new();
        for record in self.containers()? {
            if should_run(&self.dirs, &record) && !State::observe(&self.dirs, &record.id)?.is_live() {
                left.push(record);
            }
        }
        let mut done = Vec::new();
        loop {
            let before = left.len();
            let mut failed = Vec::new();
            for record in left {
                match self.start(&record, None, false) {
                    Ok(_) => done.push((record, Ok(()))),
                    Err(e) => failed.push((record, Err(e))),
                }
            }
            if failed.is_empty() || failed.len() == before {
                done.extend(failed);
                return Ok(done);
            }
            left = failed.into_iter().map(|(record, _)| record).collect();
        }
    }

    /// Stops what would be started after a boot, which it still is then.
    pub fn stop_before_shutdown(&self) -> Result<Vec<Record>> {
        let mut running = Vec::new();
        for record in self.containers()? {
            if should_run(&self.dirs, &record) && State::observe(&self.dirs, &record.id)?.is_live() {
                running.push(record);
            }
        }
        let all: Vec<&Record> = running.iter().collect();
        let results = crate::stop::stop_for_now(&self.dirs, &all, None, &|r| self.stop_signal(r));
        results.into_iter().collect::<Result<()>>()?;
        Ok(running)
    }
}
