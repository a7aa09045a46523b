//! Of an id of the host: whose it is there, what it is in containers, and which processes have it.

use serde::Serialize;
use unroot_explain::host::{Owner, Range};
use unroot_idmap::IdMap;

use super::{Asker, Inside, Known, Outside, Running};

/// What an id is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NumberAnswer {
    /// On the host.
    pub outside: Outside,
    /// The ranges that this user has, if it is an account; the range that it is of, if it is a subordinate id.
    pub ranges: Vec<Range>,
    /// In containers, those where it has a name or processes first.
    pub inside: Vec<InContainer>,
    /// Processes in none of our containers.
    pub processes: Vec<Elsewhere>,
}

/// What it is in a container.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InContainer {
    /// There.
    #[serde(flatten)]
    pub user: Inside,
    /// The container runs.
    pub running: bool,
    /// Processes there that have it.
    pub processes: Vec<Running>,
}

impl std::ops::Deref for InContainer {
    type Target = Inside;

    fn deref(&self) -> &Inside {
        &self.user
    }
}

/// A process somewhere else.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Elsewhere {
    /// The process.
    #[serde(flatten)]
    pub process: Running,
    /// In whose container, if it is in one.
    pub inside: Option<Inside>,
}

impl NumberAnswer {
    /// An account, a subordinate id, or some container's or process's.
    pub fn means_something(&self) -> bool {
        self.outside.owner != Owner::Nobody || !self.inside.is_empty() || !self.processes.is_empty()
    }
}

/// Users or groups.
struct Sort {
    field: &'static str,
    map: fn(&Known) -> &IdMap,
    name: fn(&Known, u32) -> Option<String>,
}

const USERS: Sort = Sort { field: "Uid", map: |k| &k.maps.uid, name: Known::user };
const GROUPS: Sort = Sort { field: "Gid", map: |k| &k.maps.gid, name: Known::group };

impl Asker<'_> {
    pub(super) fn uid(&self, id: u32) -> NumberAnswer {
        self.number(self.outside_user(id), &self.host.subuids, &USERS)
    }

    pub(super) fn gid(&self, id: u32) -> NumberAnswer {
        self.number(self.outside_group(id), &self.host.subgids, &GROUPS)
    }

    fn number(&self, outside: Outside, ranges: &[Range], sort: &Sort) -> NumberAnswer {
        let id = outside.id;
        let has_it = |p: &&&crate::processes::Process| p.nth(sort.field, 1) == id;
        let mut found = Vec::new();
        let mut told = Vec::new();
        for known in &self.known {
            let Some(there) = (sort.map)(known).to_inside(id) else { continue };
            let members = known.members(self.processes());
            let depth = known.depth(self.processes());
            let processes: Vec<Running> =
                members.iter().filter(has_it).map(|p| Running::of(p, depth)).collect();
            told.extend(processes.iter().map(|p| p.pid));
            let name = (sort.name)(known, there);
            // (where ids are the host's own, every id is in every container: only what is used is told)
            if there == id && name.is_none() && processes.is_empty() {
                continue;
            }
            let user = Inside {
                container: known.record.name.clone(),
                engine: "unroot".into(),
                id: Some(there),
                name,
            };
            found.push(InContainer { user, running: known.state.is_live(), processes });
        }
        found.sort_by_key(|c| (c.processes.is_empty(), c.name.is_none()));
        let me = std::process::id();
        let others = self
            .processes()
            .iter()
            .filter(|p| p.nth(sort.field, 1) == id && !told.contains(&p.pid) && p.pid != me);
        let processes = others.map(|p| Elsewhere {
            process: Running::of(p, p.depth()),
            inside: super::process::foreign(p.pid, sort.field == "Uid"),
        });
        let whose = |range: &&Range| match &outside.owner {
            Owner::Account { name } => range.owner == *name,
            Owner::Subordinate { .. } => range.contains(id),
            Owner::Nobody => false,
        };
        NumberAnswer {
            ranges: ranges.iter().filter(whose).cloned().collect(),
            inside: found,
            processes: processes.collect(),
            outside,
        }
    }
}
