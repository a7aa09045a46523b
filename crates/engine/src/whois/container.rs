//! Of a container: its user inside and outside, and its map.

use serde::Serialize;
use unroot_idmap::observe;

use super::{Answer, Asker, Inside, Outside, lines};
use crate::error::{Error, Result};
use crate::events::Who;
use crate::processes::Process;

/// Who a container is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerAnswer {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// `running`, ...
    pub status: String,
    /// The pod that it is in.
    pub pod: Option<String>,
    /// Its first process on the host.
    pub pid: Option<u32>,
    /// Whose engine made it.
    pub engine_user: Outside,
    /// The user of its first process, inside; none if it does not run.
    pub inside_user: Option<Inside>,
    /// The same outside.
    pub user: Option<Outside>,
    /// What its root is on the host, if its map has a root.
    pub root: Option<Outside>,
    /// The maps were read of its process; else they are those that it would get.
    pub observed: bool,
    /// Inside, outside, how many.
    pub uid_map: Vec<String>,
    /// The same of groups.
    pub gid_map: Vec<String>,
    /// Who ran the command that started it.
    pub started_by: Option<Who>,
}

impl Asker<'_> {
    pub(super) fn container(&self, word: &str) -> Result<Answer> {
        let found = self.engine.find(word)?;
        let known = self.known.iter().find(|k| k.record.id == found.id);
        let known =
            known.ok_or_else(|| Error::not_found(format_args!("{word}: it has just been removed")))?;
        let process = known.state.process().and_then(|p| Process::read(p.pid));
        let uid = process.as_ref().map(|p| p.nth("Uid", 1));
        let maps = process.as_ref().and_then(|p| observe::maps_of(&p.pid.to_string()).ok());
        let there = uid.and_then(|uid| known.maps.uid.to_inside(uid));
        Ok(Answer::Container(Box::new(ContainerAnswer {
            name: known.record.name.clone(),
            id: known.record.id.clone(),
            status: known.state.status.as_str().into(),
            pod: crate::Pod::of(&self.engine.dirs, &known.record)?.map(|pod| pod.name),
            pid: process.as_ref().map(|p| p.pid),
            engine_user: self.outside_user(self.engine.user.uid),
            inside_user: uid.map(|_| Inside {
                container: known.record.name.clone(),
                engine: "unroot".into(),
                id: there,
                name: there.and_then(|id| known.user(id)),
            }),
            user: uid.map(|uid| self.outside_user(uid)),
            root: known.maps.uid.to_outside(0).map(|id| self.outside_user(id)),
            observed: maps.is_some(),
            uid_map: lines(&known.maps.uid),
            gid_map: lines(&known.maps.gid),
            started_by: process.and_then(|_| self.starter(&known.record.id)),
        })))
    }
}
