//! Of a process of any engine, or of none: its container, its user inside and outside, its map, and who started it.

use std::fs;

use serde::Serialize;
use unroot_explain::facts::{Facts, Seen, Supervisor, supervisor};
use unroot_explain::host::Owner;
use unroot_idmap::observe;

use super::{Answer, Asker, Inside, Outside, lines};
use crate::error::{Error, Result};
use crate::events::Who;
use crate::processes::Process;
use crate::top::printable;
use crate::users::{RootView, name_of_gid, name_of_uid};

/// Who a process is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessAnswer {
    /// Its number on the host.
    pub pid: u32,
    /// Its number where it lives.
    pub inside_pid: u32,
    /// What it calls itself.
    pub comm: String,
    /// Its effective user on the host.
    pub user: Outside,
    /// Its effective group on the host.
    pub group: Outside,
    /// The same in its container, or in its user namespace where it is in none.
    pub inside_user: Option<Inside>,
    /// Its group there.
    pub inside_group: Option<Inside>,
    /// It is in a container.
    pub in_container: bool,
    /// It is in a user namespace of its own, not the host's; none is unknown.
    pub own_user_namespace: Option<bool>,
    /// Who holds all capabilities over that from outside.
    pub namespace_owner: Option<Outside>,
    /// Inside, outside, how many.
    pub uid_map: Vec<String>,
    /// The same of groups.
    pub gid_map: Vec<String>,
    /// Who logged in for it to be started, which su and sudo keep.
    pub login: Option<Outside>,
    /// Who ran the command that started its container.
    pub started_by: Option<Who>,
    /// The engine's process that keeps it.
    pub supervisor: Option<Supervisor>,
    /// What could not be read, and why.
    pub unknown: Vec<String>,
}

/// The container's id in the path of a control group: 64 hex digits.
fn id_in_cgroup(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let is_hex = |part: &&str| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
    text.split(|c: char| !c.is_ascii_alphanumeric()).find(is_hex).map(|id| id[..12].to_string())
}

fn names_in(pid: u32) -> (String, String) {
    let view = RootView::new(&[format!("/proc/{pid}/root").into()]);
    let text = |path: &str| String::from_utf8_lossy(&view.read(path).unwrap_or_default()).into_owned();
    (text("/etc/passwd"), text("/etc/group"))
}

/// What the user (or the group) of a process is in its container of another engine; none if it is in none.
pub(super) fn foreign(pid: u32, users: bool) -> Option<Inside> {
    // (who sees what we see, and whom we see, is in no container)
    let shares = |kind: &str| {
        let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{kind}")).ok();
        of(&pid.to_string()).is_some_and(|namespace| Some(namespace) == of("self"))
    };
    if shares("mnt") && shares("pid") {
        return None;
    }
    let keeper = supervisor(pid)?;
    let process = Process::read(pid)?;
    let maps = observe::maps_of(&pid.to_string()).ok()?;
    let (passwd, group) = names_in(pid);
    let id = match users {
        true => maps.uid.to_inside(process.nth("Uid", 1)),
        false => maps.gid.to_inside(process.nth("Gid", 1)),
    };
    let name = id.and_then(|id| if users { name_of_uid(&passwd, id) } else { name_of_gid(&group, id) });
    let container = id_in_cgroup(pid).unwrap_or_else(|| format!("kept by process {}", keeper.pid));
    Some(Inside { container, engine: keeper.engine, id, name: name.map(|n| printable(&n)) })
}

impl Asker<'_> {
    pub(super) fn process(&self, pid: u32) -> Result<Answer> {
        let facts = Facts::of(pid).map_err(|e| match e.raw_os_error() {
            Some(code) if code == rustix::io::Errno::SRCH.raw_os_error() => {
                Error::not_found(format_args!("{pid}: there is no such process"))
            }
            _ => Error::engine(format_args!("read /proc/{pid}: {e}")),
        })?;
        let process =
            Process::read(pid).ok_or_else(|| Error::not_found(format_args!("{pid}: it has just ended")))?;
        let known = self.container_of(pid);
        let depth = known.map_or(process.depth(), |k| k.depth(self.processes()));
        let namespace = facts.user_namespace.known();
        let (inside_user, inside_group) = match known {
            Some(k) => {
                let there = |id: Option<u32>, name: Option<String>| Inside {
                    container: k.record.name.clone(),
                    engine: "unroot".into(),
                    id,
                    name,
                };
                // (by the map of this very process: it may be in a user namespace below the container's)
                let maps = facts.maps.known();
                let uid = maps.and_then(|m| m.uid.to_inside(facts.uid[1]));
                let gid = maps.and_then(|m| m.gid.to_inside(facts.gid[1]));
                (
                    Some(there(uid, uid.and_then(|u| k.user(u)))),
                    Some(there(gid, gid.and_then(|g| k.group(g)))),
                )
            }
            None => (foreign(pid, true), foreign(pid, false)),
        };
        let mut unknown = Vec::new();
        if let Seen::Unknown(why) = &facts.user_namespace {
            unknown.push(why.clone());
        }
        if let Seen::Unknown(why) = &facts.maps {
            unknown.push(why.clone());
        }
        let maps = facts.maps.known();
        Ok(Answer::Pid(Box::new(ProcessAnswer {
            pid,
            inside_pid: process.at_depth("NSpid", depth).parse().unwrap_or(pid),
            comm: facts.comm.clone(),
            user: self.outside_user(facts.uid[1]),
            group: self.outside_group(facts.gid[1]),
            in_container: inside_user.is_some(),
            inside_user,
            inside_group,
            own_user_namespace: namespace.map(|n| !n.is_hosts),
            namespace_owner: namespace
                .filter(|n| !n.is_hosts)
                .and_then(|n| n.owner)
                .map(|owner| self.outside_user(owner)),
            uid_map: maps.map(|m| lines(&m.uid)).unwrap_or_default(),
            gid_map: maps.map(|m| lines(&m.gid)).unwrap_or_default(),
            login: facts.login_uid.map(|id| self.outside_user(id)),
            started_by: known.and_then(|k| self.starter(&k.record.id)),
            supervisor: facts.supervisor,
            unknown,
        })))
    }

    /// Who ran the command that started a container, as its last event of that kind says.
    pub(super) fn starter(&self, id: &str) -> Option<Who> {
        let events = crate::events::Follower::new(self.engine.dirs.events.path()?).next_events();
        events.into_iter().rev().find(|e| e.id == id && e.status == "start")?.by
    }
}

/// `fred's subordinate id +998`, `fred`, `nobody's`.
pub fn whose(owner: &Owner) -> String {
    match owner {
        Owner::Account { name } => name.clone(),
        Owner::Subordinate { owner, offset } => format!("{owner}'s subordinate id +{offset}"),
        Owner::Nobody => "nobody's: no account has it, and no range of subordinate ids".into(),
    }
}
