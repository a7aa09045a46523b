//! Pods: containers that belong together.
//!
//! A pod is a record (`pods/ID/pod.json`) and, unless it shares nothing, an infra container: a container like any other
//! whose process only waits, so that its namespaces are there before the first and after the last of the others. A
//! member is a container whose spec names the pod; it joins the infra container's namespaces as `--network
//! container:NAME` would. So nothing is kept twice: which containers a pod has, and what it is doing, is derived from
//! theirs.
//!
//! ```text
//! root   pods/ID/pod.json     what was asked for, and the infra container's id; the directory is flocked:
//!                             shared while a container is added to it, exclusively while it is made or removed
//! run    pods/ID              flocked by whoever starts the first container of a pod: only one user namespace of the
//!                             engine's is made for them all, where none is there yet
//! ```
//! Names of pods and containers are one set of links (`crate::record`): no name is both.

mod create;
mod group;
mod join;
mod life;
mod remove;

use std::fs::{self, File};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::dirs::{Dirs, make_dir, read_json};
use crate::engine::Engine;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::record::{Record, id_of_name, is_id};
use crate::spec::{Limits, Restart};
use crate::state::{State, Status};

pub(crate) use group::PodGroup;
pub use life::Failure;
pub(crate) use life::after_exit;

/// Kernel namespaces that members can share with the infra container, as `--share` names them.
pub const SHARED: [&str; 5] = ["cgroup", "ipc", "net", "pid", "uts"];

/// A pod as it was asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PodSpec {
    /// Given name, or none for a generated one.
    pub name: Option<String>,
    /// `--replace`.
    pub replace: bool,
    /// `--label`, label files first.
    pub labels: std::collections::BTreeMap<String, String>,
    /// The command line that created it.
    pub create_command: Vec<String>,
    /// `--hostname`.
    pub hostname: String,
    /// `--share`: of [`SHARED`], sorted.
    pub share: Vec<String>,
    /// `--share-parent`: members are in the pod's control group.
    pub share_parent: bool,
    /// `--exit-policy`.
    pub exit_policy: ExitPolicy,
    /// `--restart`: of members that say nothing else.
    pub restart: Restart,
    /// Limits of its control group.
    pub limits: Limits,
}

/// What becomes of a pod when its last container but the infra container has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitPolicy {
    /// The infra container runs on.
    #[default]
    Continue,
    /// The infra container ends, too.
    Stop,
}

impl ExitPolicy {
    /// As the command line has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Stop => "stop",
        }
    }
}

/// A pod as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pod {
    /// How to read it: [`crate::spec::FORMAT`].
    pub format: u32,
    /// 64 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made, nanoseconds since the epoch.
    pub created: i64,
    /// What was asked for.
    pub spec: PodSpec,
    /// It is to have an infra container.
    pub has_infra: bool,
    /// The infra container's id, once it is there.
    pub infra: Option<String>,
}

/// What a pod is doing: what its containers are doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodStatus {
    /// No container has run.
    Created,
    /// All run.
    Running,
    /// Some run or are paused, others are not.
    Degraded,
    /// All are paused.
    Paused,
    /// Some have ended, the others never ran.
    Stopped,
    /// All have ended.
    Exited,
}

impl PodStatus {
    /// As `pod ps` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::Running => "Running",
            Self::Degraded => "Degraded",
            Self::Paused => "Paused",
            Self::Stopped => "Stopped",
            Self::Exited => "Exited",
        }
    }

    /// Of what its containers are doing.
    pub fn of(containers: &[Status]) -> Self {
        let count = |wanted: &[Status]| containers.iter().filter(|s| wanted.contains(s)).count();
        let all = containers.len();
        let running = count(&[Status::Running, Status::Stopping]);
        let ended = count(&[Status::Exited, Status::Restarting]);
        let paused = count(&[Status::Paused]);
        match (running, paused, ended) {
            (0, 0, 0) => Self::Created,
            (n, ..) if n == all => Self::Running,
            (_, n, _) if n == all => Self::Paused,
            (.., n) if n == all => Self::Exited,
            (0, 0, _) => Self::Stopped,
            _ => Self::Degraded,
        }
    }
}

/// A container of a pod, with what it is doing.
pub type Member = (Record, State);

impl Dirs {
    /// `root/pods`.
    pub fn pods(&self) -> PathBuf {
        self.kept.join("pods")
    }

    /// `root/pods/ID`.
    pub fn pod(&self, id: &str) -> PathBuf {
        self.pods().join(id)
    }
}

impl Pod {
    /// `id`'s first twelve digits.
    pub fn short_id(&self) -> &str {
        &self.id[..12]
    }

    /// Members share this namespace, of [`SHARED`].
    pub fn shares(&self, kind: &str) -> bool {
        self.spec.share.iter().any(|s| s == kind)
    }

    /// Reads one; none if it is gone.
    pub fn read(dirs: &Dirs, id: &str) -> Result<Option<Self>> {
        read_json(&dirs.pod(id).join("pod.json"))
    }

    /// The pod of a container, if it is in one.
    pub fn of(dirs: &Dirs, record: &Record) -> Result<Option<Self>> {
        record.spec.pod.as_deref().map_or(Ok(None), |id| Self::read(dirs, id))
    }

    /// Its infra container's id. A pod whose maker was killed has none although it should.
    fn needed_infra(&self) -> Result<Option<&str>> {
        match (self.has_infra, self.infra.as_deref()) {
            (true, None) => Err(Error::state(format_args!(
                "pod {} has no infra container: whoever made the pod was killed while making it",
                self.name
            ))
            .with_hint(format_args!("{} pod rm {}", crate::program(), self.name))),
            (_, infra) => Ok(infra),
        }
    }

    /// Its containers, the infra container first, the others oldest first.
    pub fn members(&self, dirs: &Dirs) -> Result<Vec<Member>> {
        let mut found = Vec::new();
        for record in crate::record::all(dirs)? {
            if record.spec.pod.as_ref() == Some(&self.id) {
                let state = State::observe(dirs, &record.id)?;
                found.push((record, state));
            }
        }
        found.sort_by_key(|(record, _)| !record.spec.infra);
        Ok(found)
    }

    /// Something happened to it.
    fn tell(&self, dirs: &Dirs, status: &str) {
        dirs.events.emit(crate::events::Event {
            kind: "pod".into(),
            id: self.id.clone(),
            name: self.name.clone(),
            attributes: Some(self.spec.labels.clone()),
            ..crate::events::Event::new(status)
        });
    }

    /// Waits for its lock; not found if it goes away meanwhile.
    fn lock(&self, dirs: &Dirs, operation: FlockOperation) -> Result<File> {
        let path = dirs.pod(&self.id);
        let gone = || missing(&self.name);
        let file = File::open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => gone(),
            _ => Error::engine(format_args!("open {}: {e}", path.display())),
        })?;
        rustix::io::retry_on_intr(|| flock(&file, operation))
            .context(|| format!("flock {}", path.display()))?;
        if path.exists() { Ok(file) } else { Err(gone()) }
    }
}

fn missing(wanted: &str) -> Error {
    Error::not_found(format_args!("no pod with name or ID {wanted} found: no such pod"))
}

/// Ids of all pods, in no order.
fn ids(dirs: &Dirs) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dirs.pods()) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::engine(format_args!("read {}: {e}", dirs.pods().display()))),
    };
    Ok(entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(|name| is_id(name)).collect())
}

/// All pods, oldest first; one that vanishes while we look is left out.
pub fn all(dirs: &Dirs) -> Result<Vec<Pod>> {
    let mut pods = Vec::new();
    for id in ids(dirs)? {
        pods.extend(Pod::read(dirs, &id)?);
    }
    pods.sort_by_key(|p| p.created);
    Ok(pods)
}

/// The pod that was made last.
pub fn latest(dirs: &Dirs) -> Result<Pod> {
    all(dirs)?.pop().ok_or_else(|| Error::not_found("no pods were found: no such pod"))
}

/// Finds a pod by name, id or the beginning of an id.
pub fn find(dirs: &Dirs, wanted: &str) -> Result<Pod> {
    let missing = || missing(wanted);
    if wanted.is_empty() || wanted.contains('/') {
        return Err(missing());
    }
    if let Some(id) = id_of_name(dirs, wanted)
        && let Some(pod) = Pod::read(dirs, &id)?
    {
        return Ok(pod);
    }
    let found: Vec<_> = ids(dirs)?.into_iter().filter(|id| id.starts_with(wanted)).collect();
    match &found[..] {
        [] => Err(missing()),
        [id] => Pod::read(dirs, id)?.ok_or_else(missing),
        _ => Err(Error::new(
            ErrorKind::Engine,
            format_args!("more than one result for pod name or ID {wanted}: pod ID prefix is ambiguous"),
        )),
    }
}

impl Engine {
    /// A pod by name, id or the beginning of an id.
    pub fn find_pod(&self, name: &str) -> Result<Pod> {
        find(&self.dirs, name)
    }

    /// Before the engine's user namespace is entered, by whoever starts a container of a pod: held until the infra
    /// container runs, in whose namespace all others have to be. None where it runs already, or there is none.
    pub fn approach_pod(&self, pod: Option<&str>) -> Result<Option<File>> {
        let Some(pod) = pod.filter(|_| self.entered().is_none()) else { return Ok(None) };
        let pod = find(&self.dirs, pod)?;
        let Some(infra) = &pod.infra else { return Ok(None) };
        let runs = || State::observe(&self.dirs, infra).map(|s| s.is_live());
        if runs()? {
            return Ok(None);
        }
        let dir = self.dirs.run.join("pods");
        make_dir(&dir)?;
        let file = crate::lock::lock_file(&dir.join(&pod.id))?;
        Ok((!runs()?).then_some(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_what_its_containers_are() {
        use Status::{Created, Exited, Paused, Restarting, Running, Stopping};
        for (containers, status) in [
            (&[][..], "Created"),
            (&[Created, Created], "Created"),
            (&[Running, Running], "Running"),
            (&[Running, Stopping], "Running"),
            (&[Running, Created], "Degraded"),
            (&[Running, Paused, Exited], "Degraded"),
            (&[Paused, Paused], "Paused"),
            (&[Exited, Restarting], "Exited"),
            (&[Exited, Created], "Stopped"),
            (&[Paused, Exited], "Degraded"),
        ] {
            assert_eq!(PodStatus::of(containers).as_str(), status, "{containers:?}");
        }
    }
}
