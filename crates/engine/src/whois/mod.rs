//! `whois`: whose an id, a process, a path or a container is, from inside and from outside.
//!
//! Everything is read from the host's namespaces (the engine's own is not entered), so that what uid_map(5) shows are
//! the host's numbers. Names outside come from the host alone, names inside from the container alone.

mod container;
mod number;
mod path;
mod process;

use std::cell::OnceCell;
use std::path::PathBuf;

use serde::Serialize;
use unroot_explain::Host;
use unroot_explain::host::Owner;
use unroot_idmap::{IdMap, IdMaps, engine::planned_maps, names, observe};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::processes::{Process, Processes};
use crate::record::Record;
use crate::spec::Namespace;
use crate::state::State;
use crate::top::printable;
use crate::users::{RootView, name_of_gid, name_of_uid};

pub use container::ContainerAnswer;
pub use number::{InContainer, NumberAnswer};
pub use path::{MountedIn, OwnerInside, PathAnswer};
pub use process::{ProcessAnswer, whose};

/// What kind of thing is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A user id of the host, or an account's name.
    Uid,
    /// A group id of the host.
    Gid,
    /// A process.
    Pid,
    /// A file.
    Path,
    /// A container of this engine.
    Container,
}

impl std::str::FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "uid" | "user" | "id" => Self::Uid,
            "gid" | "group" => Self::Gid,
            "pid" | "process" => Self::Pid,
            "path" | "file" => Self::Path,
            "container" => Self::Container,
            _ => {
                return Err(Error::engine(format_args!(
                    "unknown type {text:?}: it is uid, gid, pid, path or container"
                )));
            }
        })
    }
}

/// One answer.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Answer {
    /// Of a user id.
    Uid(NumberAnswer),
    /// Of a group id.
    Gid(NumberAnswer),
    /// Of a process.
    Pid(Box<ProcessAnswer>),
    /// Of a file.
    Path(PathAnswer),
    /// Of a container.
    Container(Box<ContainerAnswer>),
}

/// Whose an id of the host is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outside {
    /// The id.
    pub id: u32,
    /// Whose.
    pub owner: Owner,
}

/// What an id of the host is in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inside {
    /// The container's name, or its id where another engine made it.
    pub container: String,
    /// Whose container it is: `unroot`, `Podman`, ...
    pub engine: String,
    /// The id there; none is one that the container's map lacks.
    pub id: Option<u32>,
    /// The name that the container gives it.
    pub name: Option<String>,
}

/// A process that has an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Its number on the host.
    pub pid: u32,
    /// Its number in the container.
    pub inside_pid: u32,
    /// What it calls itself.
    pub comm: String,
}

impl Running {
    /// With its number in a pid namespace so deep below ours.
    fn of(process: &Process, depth: usize) -> Self {
        Self {
            pid: process.pid,
            inside_pid: process.at_depth("NSpid", depth).parse().unwrap_or(process.pid),
            comm: printable(process.comm()),
        }
    }
}

/// A container of this engine with what identity needs of it.
struct Known {
    record: Record,
    state: State,
    /// Inside -> host: as the kernel shows it while it runs, else as it would be.
    maps: IdMaps,
    /// Where its files are, the top-most first.
    layers: Vec<PathBuf>,
    passwd: OnceCell<String>,
    group: OnceCell<String>,
}

impl Known {
    fn user(&self, uid: u32) -> Option<String> {
        let passwd = self.passwd.get_or_init(|| self.text("/etc/passwd"));
        name_of_uid(passwd, uid).map(|name| printable(&name))
    }

    fn group(&self, gid: u32) -> Option<String> {
        let group = self.group.get_or_init(|| self.text("/etc/group"));
        name_of_gid(group, gid).map(|name| printable(&name))
    }

    fn text(&self, path: &str) -> String {
        let data = RootView::new(&self.layers).read(path).unwrap_or_default();
        String::from_utf8_lossy(&data).into_owned()
    }

    fn members<'a>(&self, all: &'a Processes) -> Vec<&'a Process> {
        let Some(init) = self.state.process() else { return Vec::new() };
        let shares = self.record.spec.namespaces.pid == Namespace::Host;
        all.of_container(init.pid, shares, self.state.run.as_ref().and_then(|r| r.cgroup.as_deref()))
    }

    /// How deep its pid namespace is below ours.
    fn depth(&self, all: &Processes) -> usize {
        self.state.process().and_then(|init| all.get(init.pid)).map_or(1, Process::depth)
    }
}

/// What answers questions: it has looked at all containers when it is made, which is before the engine's own
/// namespace is entered.
pub struct Asker<'a> {
    engine: &'a Engine,
    host: Host,
    known: Vec<Known>,
    processes: OnceCell<Processes>,
}

impl<'a> Asker<'a> {
    /// Looks.
    pub fn new(engine: &'a Engine) -> Result<Self> {
        let planned = planned_maps(&engine.user).map_err(Error::engine)?;
        let mut known = Vec::new();
        for record in engine.containers()? {
            let state = State::observe(&engine.dirs, &record.id)?;
            known.push(look(engine, record, state, &planned));
        }
        Ok(Self { engine, host: Host::read(), known, processes: OnceCell::new() })
    }

    fn processes(&self) -> &Processes {
        self.processes.get_or_init(Processes::read)
    }

    /// What a user id of the host is in containers, of each map once.
    pub fn insides(&self, uid: u32) -> Vec<Inside> {
        let there = self.known.iter().filter_map(|k| Some((k, k.maps.uid.to_inside(uid)?)));
        let own = there.filter(|(k, id)| *id != uid || k.user(*id).is_some());
        let inside = own.map(|(k, id)| Inside {
            container: k.record.name.clone(),
            engine: "unroot".into(),
            id: Some(id),
            name: k.user(id),
        });
        let mut all: Vec<Inside> = inside.collect();
        all.sort_by_key(|i| i.name.is_none());
        all.dedup_by(|a, b| a.id == b.id && a.name == b.name);
        all
    }

    /// The maps of containers that have ids of their own, to the host, by name.
    pub fn user_maps(&self) -> Vec<(String, IdMap)> {
        let own = self.known.iter().filter(|k| k.record.maps.is_some());
        own.map(|k| (k.record.name.clone(), k.maps.uid.clone())).collect()
    }

    fn outside_user(&self, id: u32) -> Outside {
        Outside { id, owner: self.host.owner_of_uid(id) }
    }

    fn outside_group(&self, id: u32) -> Outside {
        Outside { id, owner: self.host.owner_of_gid(id) }
    }

    /// The container of this engine that a process is in.
    fn container_of(&self, pid: u32) -> Option<&Known> {
        self.known.iter().find(|k| k.members(self.processes()).iter().any(|p| p.pid == pid))
    }
}

fn look(engine: &Engine, record: Record, state: State, planned: &IdMaps) -> Known {
    let live = state.process();
    let observed = live.and_then(|init| observe::maps_of(&init.pid.to_string()).ok());
    let maps = observed.unwrap_or_else(|| match &record.maps {
        Some(own) => own.compose(planned),
        None => planned.clone(),
    });
    let layers = match live {
        Some(init) => vec![format!("/proc/{}/root", init.pid).into()],
        None => {
            let image = record.image.as_ref().and_then(|i| engine.store.image_by_id(&i.id).ok().flatten());
            let lower = image.map(|i| engine.store.lower_dirs(&i)).unwrap_or_default();
            std::iter::once(engine.dirs.container(&record.id).join("upper")).chain(lower).collect()
        }
    };
    Known { record, state, maps, layers, passwd: OnceCell::new(), group: OnceCell::new() }
}

/// `0:1000:1`, a text a line of the map.
fn lines(map: &IdMap) -> Vec<String> {
    map.extents().iter().map(|e| format!("{}:{}:{}", e.inside, e.outside, e.length)).collect()
}

impl Asker<'_> {
    /// What a word is. A number may be an id and a process: then there are two answers, unless the kind is given.
    pub fn answer(&self, word: &str, kind: Option<Kind>) -> Result<Vec<Answer>> {
        let number = word.parse::<u32>().ok();
        let wanted = |what: &str| Error::engine(format_args!("{word}: not a {what}"));
        let one = match (kind, number) {
            (Some(Kind::Uid), Some(id)) => Answer::Uid(self.uid(id)),
            (Some(Kind::Uid), None) => Answer::Uid(self.uid(account(word).ok_or_else(|| wanted("user"))?)),
            (Some(Kind::Gid), id) => Answer::Gid(self.gid(id.ok_or_else(|| wanted("group id"))?)),
            (Some(Kind::Pid), id) => self.process(id.ok_or_else(|| wanted("process id"))?)?,
            (Some(Kind::Path), _) => self.path(word)?,
            (Some(Kind::Container), _) => self.container(word)?,
            (None, Some(id)) => return self.any_number(word, id),
            (None, None) => return self.any_word(word).map(|answer| vec![answer]),
        };
        Ok(vec![one])
    }

    fn any_number(&self, word: &str, id: u32) -> Result<Vec<Answer>> {
        if crate::record::id_of_name(&self.engine.dirs, word).is_some() {
            return Ok(vec![self.container(word)?]);
        }
        let uid = self.uid(id);
        let process = self.process(id).ok();
        // (an id that means nothing to anyone is not what was asked for where there is such a process)
        let mut answers = Vec::new();
        if process.is_none() || uid.means_something() {
            let gid = self.gid(id);
            let same = gid.outside == uid.outside && gid.inside.iter().all(|g| g.name.is_none());
            answers.push(Answer::Uid(uid));
            if !same && gid.means_something() {
                answers.push(Answer::Gid(gid));
            }
        }
        answers.extend(process);
        Ok(answers)
    }

    fn any_word(&self, word: &str) -> Result<Answer> {
        if word.contains('/') {
            return self.path(word);
        }
        match self.container(word) {
            Ok(answer) => return Ok(answer),
            Err(e) if e.kind() != crate::ErrorKind::NotFound => return Err(e),
            Err(_) => {}
        }
        if let Some(uid) = account(word) {
            return Ok(Answer::Uid(self.uid(uid)));
        }
        match std::fs::symlink_metadata(word) {
            Ok(_) => self.path(word),
            Err(_) => Err(Error::not_found(format_args!(
                "{word}: no container, no account of this host, and no file here has this name"
            ))),
        }
    }
}

fn account(name: &str) -> Option<u32> {
    let line = names::passwd_line(name)?;
    let mut fields = line.split(':');
    (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
}
