//! A pod goes: its containers first, those that need others before what they need; then its record, by one rename.

use std::fs;

use rustix::fs::FlockOperation;

use super::{Member, Pod};
use crate::engine::Engine;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::record::{Record, release_name};
use crate::state::State;

impl Engine {
    /// Removes a pod and its containers; with `force` also those that run.
    pub fn remove_pod(&self, pod: &Pod, force: bool, timeout: Option<u32>) -> Result<()> {
        let _lock = pod.lock(&self.dirs, FlockOperation::LockExclusive)?;
        let members = pod.members(&self.dirs)?;
        let (infra, others): (Vec<Member>, Vec<Member>) =
            members.into_iter().partition(|(record, _)| record.spec.infra);
        if force {
            // (what could not be stopped is what could not be removed, below)
            let all: Vec<_> = others.iter().map(|(record, _)| record).collect();
            let _ = crate::stop::stop(&self.dirs, &all, timeout, &|r| self.stop_signal(r));
        }
        let mut failures = Vec::new();
        for (record, _) in &others {
            match self.remove(record, force, timeout, true) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    failures.push(format!("error removing container {} from pod {}: {e}", record.id, pod.id));
                }
                _ => {}
            }
        }
        if !failures.is_empty() {
            let text = format!(
                "not all containers could be removed from pod {}: removing pod containers\n{}",
                pod.id,
                failures.iter().map(|f| format!("Error: {f}")).collect::<Vec<_>>().join("\n")
            );
            let error = Error::state(text);
            return Err(match force {
                true => error,
                false => error.with_hint(format_args!("{} pod rm --force {}", crate::program(), pod.name)),
            });
        }
        for (record, _) in &infra {
            self.remove(record, true, timeout, true)
                .or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
        }
        self.withdraw_pod(pod)?;
        pod.tell(&self.dirs, "remove");
        Ok(())
    }

    /// The record of a pod that has no containers any more.
    pub(super) fn withdraw_pod(&self, pod: &Pod) -> Result<()> {
        let (dir, doomed) = (self.dirs.pod(&pod.id), self.dirs.pods().join(format!(".{}", pod.id)));
        fs::rename(&dir, &doomed).context(|| format!("rename {}", dir.display()))?;
        release_name(&self.dirs, &pod.name, &pod.id);
        let _ = fs::remove_file(self.dirs.run.join("pods").join(&pod.id));
        crate::remove::remove_tree(&doomed)
    }

    /// Removes a container, and with an infra container its pod.
    pub fn remove_with_pod(
        &self,
        record: &Record,
        force: bool,
        timeout: Option<u32>,
        volumes: bool,
    ) -> Result<()> {
        let Some(pod) = Pod::of(&self.dirs, record)?.filter(|_| record.spec.infra) else {
            return self.remove(record, force, timeout, volumes);
        };
        crate::create::refuse_live(record, &State::observe(&self.dirs, &record.id)?, force)?;
        self.remove_pod(&pod, force, timeout)
    }

    /// Refuses to remove a pod's infra container alone.
    pub fn refuse_infra(&self, record: &Record) -> Result<()> {
        match Pod::of(&self.dirs, record)?.filter(|_| record.spec.infra) {
            Some(pod) => Err(Error::engine(format_args!(
                "container {} is the infra container of pod {} and cannot be removed without removing the pod",
                record.id, pod.id
            ))
            .with_hint(format_args!("{} pod rm {}", crate::program(), pod.name))),
            None => Ok(()),
        }
    }
}
