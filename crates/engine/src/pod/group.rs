//! The control group of a pod: its containers' groups are in it, its limits hold for all of them together. It is made
//! with the first container that runs and goes with the last.

use std::path::{Path, PathBuf};

use unroot_cgroup::Setting;

use super::Pod;
use crate::dirs::Dirs;
use crate::error::Result;
use crate::record::Record;
use crate::state::State;

/// Where a container's group is to be made.
#[derive(Debug)]
pub(crate) struct PodGroup {
    /// `unroot-pod-ID`
    pub name: String,
    /// It is there already, by a container that runs.
    pub place: Option<PathBuf>,
    /// Its limits.
    pub settings: Vec<Setting>,
    /// `--cgroup-parent` of the pod.
    pub parent: Option<String>,
}

impl PodGroup {
    /// Of a container that is in a pod whose group it shares.
    pub(crate) fn of(dirs: &Dirs, record: &Record) -> Result<Option<Self>> {
        let Some(pod) = Pod::of(dirs, record)?.filter(|pod| pod.spec.share_parent) else { return Ok(None) };
        let mut settings = crate::limits::settings(&pod.spec.limits)?;
        settings.retain(|s| s.required);
        Ok(Some(Self {
            name: pod.group_name(),
            place: pod.group(dirs)?,
            settings,
            parent: pod.spec.limits.cgroup_parent.clone(),
        }))
    }
}

impl PodGroup {
    /// As the control groups' crate has it.
    pub(crate) fn as_group(&self) -> unroot_cgroup::Pod<'_> {
        unroot_cgroup::Pod { name: &self.name, place: self.place.as_deref(), settings: &self.settings }
    }
}

impl Pod {
    fn group_name(&self) -> String {
        format!("{}{}", unroot_cgroup::POD_PREFIX, self.id)
    }

    /// Its control group's directory, while a container is in it.
    pub fn group(&self, dirs: &Dirs) -> Result<Option<PathBuf>> {
        let name = self.group_name();
        let of = |state: &State| {
            let run = state.run.as_ref().filter(|_| state.is_live())?;
            let parent = Path::new(run.cgroup.as_ref()?).parent()?;
            parent.ends_with(&name).then(|| parent.to_path_buf())
        };
        if let Some(infra) = &self.infra
            && let Some(group) = of(&State::observe(dirs, infra)?)
        {
            return Ok(Some(group));
        }
        Ok(self.members(dirs)?.iter().find_map(|(_, state)| of(state)))
    }
}
