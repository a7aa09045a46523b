//! `update`: what a container is to be like changes, while it runs, too.

use unroot_cgroup::{Cgroup, DELEGATION_HINT};

use crate::dirs::write_json;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::limits;
use crate::lock::Lock;
use crate::record::Record;
use crate::spec::ContainerSpec;
use crate::state::State;

impl Engine {
    /// Changes a container: limits hold at once, health checks and restart policy from now on, all else from the next
    /// start on. What cannot be applied changes nothing.
    pub fn update(
        &self,
        record: &Record,
        change: impl FnOnce(&mut ContainerSpec) -> Result<()>,
    ) -> Result<Record> {
        let _lock = Lock::take(&self.dirs, &record.id)?;
        let old = Record::read(&self.dirs, &record.id)?.ok_or_else(|| {
            Error::not_found(format_args!("no container with ID {} found: no such container", record.id))
        })?;
        let mut new = old.clone();
        change(&mut new.spec)?;
        self.apply_limits(&old, &new)?;
        write_json(&self.dirs.container(&record.id).join("container.json"), &new)?;
        if State::observe(&self.dirs, &new.id)?.is_live() {
            crate::boot::want(&self.dirs, &new);
        }
        // (a monitor that does not listen, an older one, goes on as it was told)
        let _ = unroot_monitor::attach::tell_update(&self.dirs.run_container(&record.id));
        self.dirs.events.container("update", &new);
        Ok(new)
    }

    fn apply_limits(&self, old: &Record, new: &Record) -> Result<()> {
        let before = limits::settings(&old.spec.limits).unwrap_or_default();
        let mut settings = limits::settings(&new.spec.limits)?;
        settings.retain(|s| !before.iter().any(|b| (&b.file, &b.value) == (&s.file, &s.value)));
        let state = State::observe(&self.dirs, &new.id)?;
        let Some(run) = state.run.as_ref().filter(|_| state.is_live() && !settings.is_empty()) else {
            return Ok(());
        };
        let group = run.cgroup.as_ref().and_then(|path| Cgroup::open(path.as_ref()));
        match group {
            Some(group) => group.apply(&settings).map_err(|e| Error::engine(e).with_hint(DELEGATION_HINT)),
            None => match settings.iter().find(|s| s.required) {
                None => Ok(()),
                Some(setting) => Err(Error::engine(format_args!(
                    "the limit {}={} cannot be applied: container {} has no control group of its own",
                    setting.file, setting.value, new.name
                ))
                .with_hint(DELEGATION_HINT)),
            },
        }
    }
}
