//! pause and unpause: the container's cgroup is frozen, and with it every process in it.

use unroot_cgroup::{Cgroup, DELEGATION_HINT};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::record::Record;
use crate::state::{State, Status};

impl Engine {
    /// Stops every process of a running container where it is.
    pub fn pause(&self, record: &Record) -> Result<()> {
        let _lock = Lock::take(&self.dirs, &record.id)?;
        let state = State::observe(&self.dirs, &record.id)?;
        match state.status {
            Status::Running => {}
            Status::Paused => return Err(improper(record, "is already paused")),
            _ => return Err(improper(record, "is not running, can't pause")),
        }
        group_of(record, &state)?.freeze(true).map_err(Error::engine)?;
        self.dirs.events.container("pause", record);
        Ok(())
    }

    /// Lets them go on.
    pub fn unpause(&self, record: &Record) -> Result<()> {
        let _lock = Lock::take(&self.dirs, &record.id)?;
        let state = State::observe(&self.dirs, &record.id)?;
        if state.status != Status::Paused {
            return Err(improper(record, "is not paused, can't unpause"));
        }
        group_of(record, &state)?.freeze(false).map_err(Error::engine)?;
        self.dirs.events.container("unpause", record);
        Ok(())
    }
}

fn improper(record: &Record, what: &str) -> Error {
    Error::state(format_args!("\"{}\" {what}: container state improper", record.id))
}

fn group_of(record: &Record, state: &State) -> Result<Cgroup> {
    let path = state.run.as_ref().and_then(|run| run.cgroup.as_ref());
    path.and_then(|path| Cgroup::open(path.as_ref())).ok_or_else(|| {
        Error::engine(format_args!(
            "container {} has no control group of its own, which is what is frozen: none could be made when it started",
            record.name
        ))
        .with_hint(DELEGATION_HINT)
    })
}
