//! A pod comes to be: its directory is made beside the others, locked, and published by one rename; then its infra
//! container is made. Killed before the rename, it leaves a directory whose name begins with a dot; killed after it, a
//! pod that says what it lacks and can be removed.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::{Pod, PodSpec};
use crate::dirs::{make_dir, write_json};
use crate::engine::Engine;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::images::{Progress, PullOptions};
use crate::names;
use crate::record::{claim_name, release_name};
use crate::spec::{ContainerSpec, FORMAT, Namespace};

impl Engine {
    /// Makes a pod, and its infra container if it is to have one.
    pub fn create_pod(
        &self,
        spec: PodSpec,
        infra: Option<ContainerSpec>,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Pod> {
        if let Some(name) = &spec.name {
            names::check(name)?;
            if spec.replace
                && let Ok(old) = self.find_pod(name)
            {
                self.remove_pod(&old, true, None)?;
            }
        }
        self.enter()?;
        let (mut pod, _lock) = self.publish_pod(spec, infra.is_some())?;
        if let Some(infra) = infra {
            let made = self.make_infra(&mut pod, infra, options, progress);
            made.inspect_err(|_| drop(self.withdraw_pod(&pod)))?;
        }
        pod.tell(&self.dirs, "create");
        Ok(pod)
    }

    fn make_infra(
        &self,
        pod: &mut Pod,
        mut infra: ContainerSpec,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<()> {
        infra.pod = Some(pod.id.clone());
        infra.infra = true;
        infra.name.get_or_insert_with(|| format!("{}-infra", pod.short_id()));
        if infra.namespaces.uts != Namespace::Host {
            infra.process.hostname.get_or_insert_with(|| pod.name.chars().take(64).collect());
        }
        let made = self.create(infra, options, progress)?;
        pod.infra = Some(made.record.id.clone());
        write_json(&self.dirs.pod(&pod.id).join("pod.json"), pod)
            .inspect_err(|_| drop(self.remove(&made.record, true, Some(0), true)))
    }

    /// The pod without containers, and its lock.
    fn publish_pod(&self, spec: PodSpec, has_infra: bool) -> Result<(Pod, File)> {
        let id = names::new_id()?;
        make_dir(&self.dirs.pods())?;
        let temporary = self.dirs.pods().join(format!(".{id}"));
        let lock = new_locked(&temporary)?;
        let (given, created) = (spec.name.clone(), unroot_monitor::log::now());
        let mut pod = Pod { format: FORMAT, id, name: String::new(), created, spec, has_infra, infra: None };
        for _ in 0..20 {
            pod.name = given.clone().unwrap_or_else(names::random);
            match claim_name(&self.dirs, &pod.name, &pod.id) {
                Ok(()) => break,
                Err(e) if e.kind() == ErrorKind::InUse && given.is_none() => pod.name.clear(),
                Err(e) => {
                    let _ = fs::remove_dir(&temporary);
                    return Err(in_use(&pod.name, e));
                }
            }
        }
        let published = write_json(&temporary.join("pod.json"), &pod).and_then(|()| {
            fs::rename(&temporary, self.dirs.pod(&pod.id)).context(|| format!("publish pod {}", pod.id))
        });
        published.inspect_err(|_| {
            release_name(&self.dirs, &pod.name, &pod.id);
            let _ = fs::remove_dir_all(&temporary);
        })?;
        Ok((pod, lock))
    }
}

/// A new directory, locked (whoever sweeps may look at it before it is).
fn new_locked(dir: &Path) -> Result<File> {
    loop {
        make_dir(dir)?;
        let Ok(lock) = File::open(dir) else { continue };
        flock(&lock, FlockOperation::LockExclusive).context(|| format!("flock {}", dir.display()))?;
        if dir.exists() {
            return Ok(lock);
        }
    }
}

fn in_use(name: &str, error: Error) -> Error {
    if error.kind() != ErrorKind::InUse {
        return error;
    }
    Error::new(
        ErrorKind::InUse,
        format_args!("adding pod to state: name \"{name}\" is in use: pod already exists"),
    )
    .with_hint(format_args!(
        "{0} pod rm {name}, or --replace; if it is a container's, {0} rm {name}",
        crate::program()
    ))
}
