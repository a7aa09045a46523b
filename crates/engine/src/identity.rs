//! Who a container's first process is on the host and inside, as the kernel has it now: what `ps`, `inspect`, `stats` and
//! events show. Never what was asked for.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;

use unroot_idmap::{IdMap, IdMaps, names, observe};
use unroot_sys::ns::owner_uid;

use crate::engine::Engine;
use crate::state::State;

/// What was observed of a process.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its user id on the host.
    pub host_uid: u32,
    /// Its group id on the host.
    pub host_gid: u32,
    /// Its user id in the container; none if the map lacks it.
    pub uid: Option<u32>,
    /// Inside -> host.
    pub maps: IdMaps,
    /// The uid on the host that holds all capabilities over its user namespace; none where the kernel did not say.
    pub owner: Option<u32>,
}

/// `0:1000:1,1:100000:65536`
pub fn map_text(map: &IdMap) -> String {
    let line = |e: &unroot_idmap::Extent| format!("{}:{}:{}", e.inside, e.outside, e.length);
    map.extents().iter().map(line).collect::<Vec<_>>().join(",")
}

impl Identity {
    /// Of a process. `around` are the maps of the engine's user namespace to the host, if this process has entered it.
    pub fn of(pid: u32, around: Option<&IdMaps>) -> Option<Self> {
        let status = unroot_sys::path::read_proc(&format!("/proc/{pid}/status")).ok()?;
        let second = |name: &str| -> Option<u32> {
            let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let (mut host_uid, mut host_gid) = (second("Uid")?, second("Gid")?);
        let mut maps = observe::maps_of(&pid.to_string()).ok()?;
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/user")).ok();
        if let Some(around) = around {
            // (numbers are the engine's namespace's here, and so is the map of a namespace below it)
            host_uid = around.uid.to_outside(host_uid).unwrap_or(host_uid);
            host_gid = around.gid.to_outside(host_gid).unwrap_or(host_gid);
            let inode = |meta: std::io::Result<std::fs::Metadata>| meta.map(|m| m.ino()).ok();
            let same = namespace.as_ref().and_then(|f| inode(f.metadata()))
                == inode(std::fs::metadata("/proc/self/ns/user"));
            if !same {
                maps = maps.compose(around);
            }
        }
        let owner = namespace.as_ref().and_then(|f| owner_uid(f).ok());
        let owner = owner.map(|uid| around.and_then(|a| a.uid.to_outside(uid)).unwrap_or(uid));
        Some(Self { host_uid, host_gid, uid: maps.uid.to_inside(host_uid), maps, owner })
    }
}

impl Engine {
    /// Who a container's first process is, while it lives.
    pub fn identity(&self, state: &State) -> Option<Identity> {
        let entered = self.entered().filter(|n| n.rootless).map(|n| &n.maps);
        Identity::of(state.process()?.pid, entered)
    }
}

/// The host's names of ids, each asked for once.
#[derive(Debug, Default)]
pub struct HostNames(HashMap<u32, String>);

impl HostNames {
    /// A user's name, or the number where the host has none.
    pub fn user(&mut self, uid: u32) -> String {
        let name = || names::host_user(uid).unwrap_or_else(|| uid.to_string());
        self.0.entry(uid).or_insert_with(name).clone()
    }
}
