//! Pods live through their containers: what is done to a pod is done to each of them, those that others need first when
//! they start, and last when they stop.

use super::{Member, Pod};
use crate::dirs::Dirs;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;
use crate::state::{State, Status};

/// What went wrong with one container of a pod.
pub type Failure = (String, Error);

impl Engine {
    /// Starts all containers of a pod that do not run.
    pub fn start_pod(&self, pod: &Pod) -> Result<Vec<Failure>> {
        pod.needed_infra()?;
        let members = pod.members(&self.dirs)?;
        if members.is_empty() {
            return Err(Error::not_found(format_args!(
                "no containers in pod {} have no dependencies, cannot start pod: no such container",
                pod.id
            )));
        }
        let mut failures = Vec::new();
        for (record, state) in &members {
            if matches!(state.status, Status::Running | Status::Paused | Status::Stopping) {
                continue;
            }
            match self.start(record, None, false) {
                // (a container before this one needs it, or its policy was faster)
                Err(e) if e.kind() == ErrorKind::State && is_live(&self.dirs, record) => {}
                Err(e) => failures.push((record.id.clone(), e)),
                Ok(_) => {}
            }
        }
        if failures.is_empty() {
            pod.tell(&self.dirs, "start");
        }
        Ok(failures)
    }

    /// Stops all, the infra container last.
    pub fn stop_pod(&self, pod: &Pod, timeout: Option<u32>) -> Result<Vec<Failure>> {
        pod.tell(&self.dirs, "stop");
        self.stop_members(pod, timeout)
    }

    fn stop_members(&self, pod: &Pod, timeout: Option<u32>) -> Result<Vec<Failure>> {
        let members = pod.members(&self.dirs)?;
        let live = members.iter().filter(|(_, s)| s.stale || s.status == Status::Restarting || s.is_live());
        let records: Vec<&Record> = live.map(|(record, _)| record).collect();
        let results = crate::stop::stop(&self.dirs, &records, timeout, &|r| self.stop_signal(r));
        let failed = |e: &Error| !matches!(e.kind(), ErrorKind::Lost | ErrorKind::NotFound);
        let failures = records
            .iter()
            .zip(results)
            .filter_map(|(record, result)| Some((record.id.clone(), result.err().filter(failed)?)));
        Ok(failures.collect())
    }

    /// Stops all, and starts all.
    pub fn restart_pod(&self, pod: &Pod) -> Result<Vec<Failure>> {
        let failures = self.stop_members(pod, None)?;
        if !failures.is_empty() {
            return Ok(failures);
        }
        let failures = self.start_pod(pod)?;
        if failures.is_empty() {
            pod.tell(&self.dirs, "restart");
        }
        Ok(failures)
    }

    /// Sends a signal to the first process of each that runs.
    pub fn kill_pod(&self, pod: &Pod, signal: i32) -> Result<Vec<Failure>> {
        let failures = self.each_member(
            pod,
            |s| matches!(s.status, Status::Running | Status::Stopping),
            |record| crate::stop::kill(&self.dirs, record, signal),
        )?;
        pod.tell(&self.dirs, "kill");
        Ok(failures)
    }

    /// Freezes all that run.
    pub fn pause_pod(&self, pod: &Pod) -> Result<Vec<Failure>> {
        let failures = self.each_member(pod, |s| s.status == Status::Running, |record| self.pause(record))?;
        pod.tell(&self.dirs, "pause");
        Ok(failures)
    }

    /// Lets all go on that are frozen.
    pub fn unpause_pod(&self, pod: &Pod) -> Result<Vec<Failure>> {
        let failures =
            self.each_member(pod, |s| s.status == Status::Paused, |record| self.unpause(record))?;
        pod.tell(&self.dirs, "unpause");
        Ok(failures)
    }

    fn each_member(
        &self,
        pod: &Pod,
        is_meant: impl Fn(&State) -> bool,
        mut act: impl FnMut(&Record) -> Result<()>,
    ) -> Result<Vec<Failure>> {
        let mut failures = Vec::new();
        for (record, _) in pod.members(&self.dirs)?.iter().filter(|(_, state)| is_meant(state)) {
            failures.extend(act(record).err().map(|e| (record.id.clone(), e)));
        }
        Ok(failures)
    }

    /// The containers that one needs run before it does. Those that are left over from an infra container that has
    /// ended are in other namespaces than a new one makes: that is said.
    pub(crate) fn start_needed(&self, record: &Record) -> Result<()> {
        for id in crate::dependents::needs(record) {
            let Ok(needed) = self.find(id) else { continue };
            if State::observe(&self.dirs, &needed.id)?.is_live() {
                continue;
            }
            match self.start(&needed, None, false) {
                Err(e) if e.kind() == ErrorKind::State && is_live(&self.dirs, &needed) => {}
                Err(e) => {
                    return Err(Error::new(
                        e.kind(),
                        format_args!("starting container {}, which {} needs: {e}", needed.name, record.name),
                    ));
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Before an infra container starts again: who has stayed behind in the namespaces of the one before.
    pub(crate) fn warn_of_strays(&self, infra: &Record) -> Result<()> {
        let Some(pod) = Pod::of(&self.dirs, infra)?.filter(|_| infra.spec.infra) else { return Ok(()) };
        let members = pod.members(&self.dirs)?;
        let stays = |(r, s): &&Member| !r.spec.infra && s.is_live();
        let strays: Vec<&str> = members.iter().filter(stays).map(|(r, _)| r.name.as_str()).collect();
        if !strays.is_empty() {
            crate::warn(format_args!(
                "pod {}: {} still run in the namespaces of the infra container that has ended; {} pod restart {} brings all together",
                pod.name,
                strays.join(", "),
                crate::program(),
                pod.name
            ));
        }
        Ok(())
    }
}

fn is_live(dirs: &Dirs, record: &Record) -> bool {
    State::observe(dirs, &record.id).is_ok_and(|s| s.is_live())
}

/// In a monitor, after the end of a container: with the exit policy stop, the infra container does not outlive the last
/// of the others.
pub(crate) fn after_exit(dirs: &Dirs, record: &Record) -> Result<()> {
    let Some(pod) = Pod::of(dirs, record)?.filter(|_| !record.spec.infra) else { return Ok(()) };
    if pod.spec.exit_policy != super::ExitPolicy::Stop {
        return Ok(());
    }
    let members = pod.members(dirs)?;
    let has_ended = |s: &State| matches!(s.status, Status::Exited | Status::Stopping);
    let (infra, others): (Vec<&Member>, Vec<&Member>) = members.iter().partition(|(r, _)| r.spec.infra);
    if others.iter().any(|(r, s)| r.id != record.id && !has_ended(s)) {
        return Ok(());
    }
    let infra: Vec<&Record> = infra.iter().map(|(record, _)| record).collect();
    pod.tell(dirs, "stop");
    crate::stop::stop(dirs, &infra, None, &|r| r.spec.life.stop_signal.map_or(15, |s| s.cast_signed()))
        .into_iter()
        .collect()
}
