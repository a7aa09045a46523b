//! `top`: the processes of a container, seen from both sides.
//!
//! Identity rule 1: `user` and `group` are looked up in the container's own files, below its root; `huser` and
//! `hgroup` with the host alone. The number in a container is the host's number through the map that the kernel
//! shows for that very process, so that a nested user namespace is told rightly.

use std::collections::BTreeSet;
use std::fs;

use unroot_idmap::{names, observe};
use unroot_sys::capability;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::pod::Member;
use crate::processes::{Process, Processes};
use crate::record::Record;
use crate::spec::Namespace;
use crate::state::State;
use crate::users::{RootView, name_of_gid, name_of_uid};

/// Descriptor and heading.
pub const DESCRIPTORS: [(&str, &str); 35] = [
    ("args", "COMMAND"),
    ("capamb", "AMBIENT CAPS"),
    ("capbnd", "BOUNDING CAPS"),
    ("capeff", "EFFECTIVE CAPS"),
    ("capinh", "INHERITED CAPS"),
    ("capprm", "PERMITTED CAPS"),
    ("comm", "COMMAND"),
    ("command", "COMMAND"),
    ("etime", "ELAPSED"),
    ("group", "GROUP"),
    ("groups", "GROUPS"),
    ("hgroup", "HGROUP"),
    ("hgroups", "HGROUPS"),
    ("hpid", "HPID"),
    ("huser", "HUSER"),
    ("label", "LABEL"),
    ("nice", "NI"),
    ("pcpu", "%CPU"),
    ("pgid", "PGID"),
    ("pid", "PID"),
    ("ppid", "PPID"),
    ("rgroup", "RGROUP"),
    ("rss", "RSS"),
    ("ruser", "RUSER"),
    ("seccomp", "SECCOMP"),
    ("stat", "STAT"),
    ("state", "STATE"),
    ("stime", "STIME"),
    ("time", "TIME"),
    ("tty", "TTY"),
    ("user", "USER"),
    ("vsz", "VSZ"),
    ("uid", "UID"),
    ("gid", "GID"),
    ("huid", "HUID"),
];

const DEFAULT: [&str; 8] = ["user", "pid", "ppid", "pcpu", "etime", "tty", "time", "args"];

struct Context {
    /// The user namespace of the container's first process.
    namespace: Option<std::path::PathBuf>,
    /// How deep its pid namespace is.
    depth: usize,
    passwd: String,
    group: String,
    uptime: f64,
}

impl Context {
    fn of(init: u32) -> Self {
        let view = RootView::new(&[format!("/proc/{init}/root").into()]);
        let text = |path: &str| String::from_utf8_lossy(&view.read(path).unwrap_or_default()).into_owned();
        let uptime = fs::read_to_string("/proc/uptime").ok().and_then(|t| t.split('.').next()?.parse().ok());
        let namespace = fs::read_link(format!("/proc/{init}/ns/user")).ok();
        Self {
            namespace,
            depth: Process::read(init).map_or(1, |p| p.depth()),
            passwd: text("/etc/passwd"),
            group: text("/etc/group"),
            uptime: uptime.unwrap_or(0.0),
        }
    }

    /// Capabilities are over a user namespace: over another one than the container's they are worth nothing outside of it
    /// (identity rule 5).
    fn capabilities(&self, process: &Process, field: &str) -> String {
        let own = fs::read_link(format!("/proc/{}/ns/user", process.pid)).ok();
        let nested = own.is_some() && self.namespace.is_some() && own != self.namespace;
        let names = capabilities(process.field(field));
        if nested && names != "none" { format!("{names}[nested]") } else { names }
    }

    fn user(&self, process: &Process, host_uid: u32) -> String {
        match observe::maps_of(&process.pid.to_string()).ok().and_then(|m| m.uid.to_inside(host_uid)) {
            Some(uid) => name_of_uid(&self.passwd, uid).map_or_else(|| uid.to_string(), |n| printable(&n)),
            None => format!("unmapped({host_uid})"),
        }
    }

    fn group(&self, process: &Process, host_gid: u32) -> String {
        match observe::maps_of(&process.pid.to_string()).ok().and_then(|m| m.gid.to_inside(host_gid)) {
            Some(gid) => name_of_gid(&self.group, gid).map_or_else(|| gid.to_string(), |n| printable(&n)),
            None => format!("unmapped({host_gid})"),
        }
    }
}

/// Image data on a terminal: no control characters, no blanks, not endless.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() || c.is_whitespace() { '?' } else { c }).collect()
}

fn capabilities(hex: &str) -> String {
    let bits = u64::from_str_radix(hex, 16).unwrap_or(0);
    let all = (1u64 << capability::NAMES.len()) - 1;
    if bits == 0 {
        return "none".into();
    }
    if bits & all == all {
        return "full".into();
    }
    capability::NAMES
        .iter()
        .enumerate()
        .filter(|(n, _)| bits & (1 << n) != 0)
        .map(|(_, name)| *name)
        .collect::<Vec<_>>()
        .join(",")
}

fn elapsed(seconds: f64) -> String {
    let s = seconds.max(0.0) as u64;
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

fn tty(number: i64) -> String {
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
    match major {
        0 => "?".into(),
        136..=143 => format!("pts/{}", minor + 256 * (major - 136)),
        4 => format!("tty{minor}"),
        _ => format!("{major}:{minor}"),
    }
}

const TICKS: f64 = 100.0;

fn value(descriptor: &str, p: &Process, context: &Context) -> String {
    let host_user = |uid: u32| names::host_user(uid).unwrap_or_else(|| uid.to_string());
    let host_group = |gid: u32| names::host_group(gid).unwrap_or_else(|| gid.to_string());
    let groups = |one: &dyn Fn(u32) -> String| {
        p.field("Groups")
            .split_whitespace()
            .filter_map(|g| g.parse().ok())
            .map(one)
            .collect::<Vec<_>>()
            .join(",")
    };
    let started = p.stat(22) as f64 / TICKS;
    let cpu = (p.stat(14) + p.stat(15)) as f64 / TICKS;
    let alive = (context.uptime - started).max(0.01);
    match descriptor {
        "user" => context.user(p, p.nth("Uid", 1)),
        "ruser" => context.user(p, p.nth("Uid", 0)),
        "huser" => host_user(p.nth("Uid", 1)),
        "huid" => p.nth("Uid", 1).to_string(),
        "uid" => observe::maps_of(&p.pid.to_string())
            .ok()
            .and_then(|m| m.uid.to_inside(p.nth("Uid", 1)))
            .map_or("?".into(), |u| u.to_string()),
        "gid" => observe::maps_of(&p.pid.to_string())
            .ok()
            .and_then(|m| m.gid.to_inside(p.nth("Gid", 1)))
            .map_or("?".into(), |g| g.to_string()),
        "group" => context.group(p, p.nth("Gid", 1)),
        "rgroup" => context.group(p, p.nth("Gid", 0)),
        "hgroup" => host_group(p.nth("Gid", 1)),
        "groups" => groups(&|g| context.group(p, g)),
        "hgroups" => groups(&host_group),
        "pid" => p.at_depth("NSpid", context.depth),
        "hpid" => p.pid.to_string(),
        "ppid" => parent_inside(p, context.depth),
        "pgid" => p.at_depth("NSpgid", context.depth),
        "comm" => printable(p.comm()),
        "args" | "command" => arguments(p),
        "capamb" => context.capabilities(p, "CapAmb"),
        "capbnd" => context.capabilities(p, "CapBnd"),
        "capeff" => context.capabilities(p, "CapEff"),
        "capinh" => context.capabilities(p, "CapInh"),
        "capprm" => context.capabilities(p, "CapPrm"),
        "etime" => elapsed(context.uptime - started),
        "stime" => elapsed(context.uptime - started),
        "time" => elapsed(cpu),
        "pcpu" => format!("{:.3}", 100.0 * cpu / alive),
        "tty" => tty(p.stat(7)),
        "nice" => p.stat(19).to_string(),
        "rss" => p.field("VmRSS").split_whitespace().next().unwrap_or("0").to_string(),
        "vsz" => (p.stat(23) / 1024).to_string(),
        "state" | "stat" => p.state(),
        "label" => fs::read_to_string(format!("/proc/{}/attr/current", p.pid))
            .map(|l| l.trim_end_matches(['\0', '\n']).to_string())
            .ok()
            .filter(|l| !l.is_empty())
            .unwrap_or_else(|| "?".into()),
        "seccomp" => match p.field("Seccomp") {
            "0" => "disabled".into(),
            "1" => "strict".into(),
            "2" => "filter".into(),
            other => other.into(),
        },
        _ => "?".into(),
    }
}

/// The parent's number in the container; 0 if it is outside.
fn parent_inside(p: &Process, depth: usize) -> String {
    Process::read(p.parent())
        .filter(|parent| p.at_depth("NSpid", depth) != "1" && parent.depth() >= depth)
        .map_or("0".into(), |parent| parent.at_depth("NSpid", depth))
}

fn arguments(p: &Process) -> String {
    let raw = fs::read(format!("/proc/{}/cmdline", p.pid)).unwrap_or_default();
    let text = String::from_utf8_lossy(&raw).trim_end_matches('\0').replace('\0', " ");
    match text.is_empty() {
        true => format!("[{}]", printable(p.comm())),
        false => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
    }
}

impl Engine {
    /// Headings and rows.
    pub fn top(&self, record: &Record, descriptors: &[String]) -> Result<Table> {
        let state = State::observe(&self.dirs, &record.id)?;
        if state.process().is_none() {
            return Err(Error::state("top can only be used on running containers"));
        }
        self.top_of_pod(&[&(record.clone(), state)], descriptors)
    }

    /// The same of several containers that run; a process is shown once, though they may share a pid namespace.
    pub fn top_of_pod(&self, containers: &[&Member], descriptors: &[String]) -> Result<Table> {
        let chosen: Vec<String> = match descriptors.is_empty() {
            true => DEFAULT.iter().map(|d| d.to_string()).collect(),
            false => descriptors.iter().flat_map(|d| d.split(',')).map(|d| d.trim().to_lowercase()).collect(),
        };
        let headings = chosen.iter().map(heading).collect::<Result<Vec<_>>>()?;
        let all = Processes::read();
        let mut shown = BTreeSet::new();
        let mut rows = Vec::new();
        for (record, state) in containers {
            let Some(init) = state.process() else { continue };
            let context = Context::of(init.pid);
            let shares = record.spec.namespaces.pid == Namespace::Host;
            let own =
                all.of_container(init.pid, shares, state.run.as_ref().and_then(|r| r.cgroup.as_deref()));
            // (in a pid namespace that containers share, who a process is tells its own root)
            let is_shared =
                record.spec.pod.is_some() || matches!(record.spec.namespaces.pid, Namespace::Container(_));
            for process in own.into_iter().filter(|p| shown.insert(p.pid)) {
                let other = is_shared && !same_root(process.pid, init.pid);
                let theirs = other
                    .then(|| Context { namespace: context.namespace.clone(), ..Context::of(process.pid) });
                let context = theirs.as_ref().unwrap_or(&context);
                rows.push(chosen.iter().map(|d| value(d, process, context)).collect());
            }
        }
        Ok((headings, rows))
    }
}

/// Headings and rows.
type Table = (Vec<String>, Vec<Vec<String>>);

fn heading(descriptor: &String) -> Result<String> {
    let found =
        DESCRIPTORS.iter().find(|(name, _)| name == descriptor).map(|(_, heading)| heading.to_string());
    found.ok_or_else(|| {
        Error::engine(format_args!(
            "'{descriptor}' unknown descriptor: there are {}",
            DESCRIPTORS.map(|(name, _)| name).join(", ")
        ))
    })
}

/// They are in one mount namespace, where names of users are the same.
fn same_root(pid: u32, other: u32) -> bool {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    namespace(pid).is_some_and(|own| Some(own) == namespace(other))
}
