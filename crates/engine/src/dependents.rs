//! Which containers need which others: those whose namespaces they join.

use std::collections::HashMap;

use crate::engine::Engine;
use crate::error::Result;
use crate::record::Record;
use crate::spec::Namespace;
use crate::state::State;

/// Who needs whom, by id.
pub struct Dependents(HashMap<String, Vec<String>>);

impl Dependents {
    /// Of all containers.
    pub fn of(records: &[Record]) -> Self {
        let mut all: HashMap<String, Vec<String>> = HashMap::new();
        for record in records {
            for needed in needs(record) {
                all.entry(needed.to_string()).or_default().push(record.id.clone());
            }
        }
        Self(all)
    }

    /// Those that need a container directly.
    pub fn on(&self, id: &str) -> &[String] {
        self.0.get(id).map_or(&[], |v| &v[..])
    }

    /// Those that need it, or what needs it, and the container itself at the end.
    pub fn closure(&self, id: &str) -> Vec<String> {
        let mut all = vec![id.to_string()];
        let mut next = 0;
        while let Some(current) = all.get(next).cloned() {
            all.extend(self.on(&current).iter().filter(|id| !all.contains(id)).cloned().collect::<Vec<_>>());
            next += 1;
        }
        all.reverse();
        all
    }
}

impl Engine {
    /// A container that this one needs and that runs: in its user namespace is where this one has to be.
    pub(crate) fn needed_that_runs(&self, record: &Record) -> Result<Option<Record>> {
        for id in needs(record) {
            if State::observe(&self.dirs, id)?.is_live() {
                return Record::read(&self.dirs, id);
            }
        }
        Ok(None)
    }
}

/// Ids of the containers that one needs, each once.
pub fn needs(record: &Record) -> Vec<&str> {
    let namespaces = &record.spec.namespaces;
    let kinds = [&namespaces.pid, &namespaces.ipc, &namespaces.uts, &namespaces.cgroup];
    let of_kinds = kinds.into_iter().filter_map(|n| match n {
        Namespace::Container(id) => Some(id.as_str()),
        _ => None,
    });
    let others = [&record.spec.network.mode, &namespaces.user];
    let others = others.into_iter().filter_map(|m| m.as_deref()?.strip_prefix("container:"));
    let mut all: Vec<&str> = of_kinds.chain(others).filter(|id| *id != record.id).collect();
    all.sort_unstable();
    all.dedup();
    all
}
