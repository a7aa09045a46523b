//! What can be read of a process from the host's side: facts, each known or unknown, none guessed.
//!
//! The second column of a uid_map is relative to the reader's own user namespace, so all this is read from the
//! namespace of the host (see [`Facts::of`]); pidfd_open(2) makes sure that it stays one process all the time.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::Serialize;
use unroot_idmap::{IdMaps, observe};
use unroot_sys::ns;
use unroot_sys::path::read_proc;

use crate::mounts::{self, Mount};

/// A fact, or why it is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen<T> {
    /// So it is.
    Known(T),
    /// It could not be read.
    Unknown(String),
}

impl<T> Seen<T> {
    /// The fact.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(fact) => Some(fact),
            Self::Unknown(_) => None,
        }
    }

    fn of(result: std::io::Result<T>, what: &str) -> Self {
        match result {
            Ok(fact) => Self::Known(fact),
            Err(e) => Self::Unknown(format!("{what}: {e}")),
        }
    }
}

/// A user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct UserNamespace {
    /// Its number.
    pub inode: u64,
    /// It is the host's.
    pub is_hosts: bool,
    /// Who holds all capabilities over it from outside; none where the kernel did not say.
    pub owner: Option<u32>,
    /// How many user namespaces are around it.
    pub depth: u32,
}

/// Whether a namespace is the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Namespace {
    /// `net`
    pub kind: &'static str,
    /// It is the host's.
    pub is_hosts: Seen<bool>,
}

/// Sets of capabilities, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// In force.
    pub effective: u64,
    /// That it may put in force.
    pub permitted: u64,
    /// That a program may get at execve(2).
    pub bounding: u64,
    /// Kept over execve(2).
    pub ambient: u64,
}

/// Who started and keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Supervisor {
    /// `Podman`, `Docker`, `containerd`, `CRI-O`, `unroot`, `systemd-nspawn`, or none of these.
    pub engine: String,
    /// The process that keeps it.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// As whom it runs on the host.
    pub uid: u32,
}

/// A device node in the container's /dev.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// `/dev/sda`
    pub path: String,
    /// A block device.
    pub is_block: bool,
    /// Its number.
    pub major: u32,
    /// Its number.
    pub minor: u32,
    /// Its owner on the host.
    pub uid: u32,
    /// Its group on the host.
    pub gid: u32,
    /// Its mode.
    pub mode: u32,
}

/// Limits of its control group; none is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Its group.
    pub group: String,
    /// memory.max, bytes.
    pub memory: Option<u64>,
    /// pids.max.
    pub pids: Option<u64>,
}

/// Everything that was read.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// On the host.
    pub pid: u32,
    /// Its name, as it calls itself.
    pub comm: String,
    /// Real, effective, saved and filesystem user id, on the host.
    pub uid: [u32; 4],
    /// The same of groups.
    pub gid: [u32; 4],
    /// Supplementary groups, on the host.
    pub groups: Vec<u32>,
    /// Inside -> host.
    pub maps: Seen<IdMaps>,
    /// Its user namespace.
    pub user_namespace: Seen<UserNamespace>,
    /// The others.
    pub namespaces: Vec<Namespace>,
    /// What it may do, over its user namespace.
    pub capabilities: Capabilities,
    /// It can gain nothing by execve(2).
    pub no_new_privileges: bool,
    /// 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
    /// How many filters.
    pub seccomp_filters: u32,
    /// Security modules that the kernel runs.
    pub lsm: Seen<Vec<String>>,
    /// Its label or profile.
    pub label: Seen<String>,
    /// What is mounted in it.
    pub mounts: Seen<Vec<Mount>>,
    /// Devices that it finds.
    pub devices: Seen<Vec<Device>>,
    /// Limits.
    pub limits: Seen<Limits>,
    /// Who logged in to start it (auditing); none is nobody.
    pub login_uid: Option<u32>,
    /// Who keeps it.
    pub supervisor: Option<Supervisor>,
    /// That of which nothing of this can be said: it is planned, not running.
    pub planned: bool,
}

const KINDS: [&str; 7] = ["mnt", "pid", "net", "ipc", "uts", "cgroup", "time"];

impl Facts {
    /// Reads them. To be called in the host's user namespace.
    pub fn of(pid: u32) -> std::io::Result<Self> {
        let process = rustix::process::Pid::from_raw(pid.cast_signed())
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
        let held = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())?;
        let facts = Self::read(pid)?;
        // (still the same process: its number was not given to another one meanwhile)
        let mut ended = [rustix::event::PollFd::new(&held, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut ended, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))? {
            0 => Ok(facts),
            _ => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
        }
    }

    fn read(pid: u32) -> std::io::Result<Self> {
        let status = read_proc(&format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim)
        };
        let numbers = |name: &str| field(name).split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let four = |name: &str| <[u32; 4]>::try_from(numbers(name)).unwrap_or([u32::MAX; 4]);
        let bits = |name: &str| u64::from_str_radix(field(name), 16).unwrap_or(0);
        let number = |name: &str| field(name).parse().unwrap_or(0);
        let mounts = mounts::of(pid);
        Ok(Self {
            pid,
            comm: clean(field("Name")),
            uid: four("Uid"),
            gid: four("Gid"),
            groups: numbers("Groups"),
            maps: match observe::maps_of(&pid.to_string()) {
                Ok(maps) => Seen::Known(maps),
                Err(e) => Seen::Unknown(e.to_string()),
            },
            user_namespace: user_namespace(pid),
            namespaces: KINDS.iter().map(|kind| Namespace { kind, is_hosts: is_hosts(pid, kind) }).collect(),
            capabilities: Capabilities {
                effective: bits("CapEff"),
                permitted: bits("CapPrm"),
                bounding: bits("CapBnd"),
                ambient: bits("CapAmb"),
            },
            no_new_privileges: number("NoNewPrivs") == 1,
            seccomp: number("Seccomp"),
            seccomp_filters: number("Seccomp_filters"),
            lsm: Seen::of(
                fs::read_to_string("/sys/kernel/security/lsm")
                    .map(|text| text.trim().split(',').map(str::to_string).collect()),
                "read /sys/kernel/security/lsm",
            ),
            label: label(pid),
            devices: devices(&pid.to_string()),
            mounts,
            limits: limits(pid),
            login_uid: fs::read_to_string(format!("/proc/{pid}/loginuid"))
                .ok()
                .and_then(|t| t.trim().parse().ok())
                .filter(|uid| *uid != u32::MAX),
            supervisor: supervisor(pid),
            planned: false,
        })
    }

    /// The user id inside, if the map is known and has it.
    pub fn inside_uid(&self) -> Option<u32> {
        self.maps.known()?.uid.to_inside(self.uid[1])
    }

    /// It is in the host's own user namespace.
    pub fn is_in_hosts_user_namespace(&self) -> Option<bool> {
        self.user_namespace.known().map(|n| n.is_hosts)
    }

    /// It shares this namespace with the host.
    pub fn shares(&self, kind: &str) -> Option<bool> {
        self.namespaces.iter().find(|n| n.kind == kind)?.is_hosts.known().copied()
    }
}

/// A text of a container without what could move a terminal's cursor, and no longer than a line.
pub fn clean(text: &str) -> String {
    text.chars()
        .take(200)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// What the first process of the host has; where that cannot be read, the first of this one's own ancestors.
fn host_namespace(kind: &str) -> std::io::Result<u64> {
    let of = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/{kind}")).map(|m| m.ino());
    // (the host's user, pid, ipc, uts, cgroup and time namespaces have fixed numbers since the kernel made them first)
    let fixed = match kind {
        "ipc" => Some(0xefff_ffff),
        "uts" => Some(0xefff_fffe),
        "user" => Some(0xefff_fffd),
        "pid" => Some(0xefff_fffc),
        "cgroup" => Some(0xefff_fffb),
        "time" => Some(0xefff_fffa),
        _ => None,
    };
    match (of("1"), fixed) {
        (Ok(inode), _) => Ok(inode),
        (Err(_), Some(inode)) => Ok(inode),
        // (an engine that a user of the host runs is in the host's network and mounts, or a copy of them)
        (Err(_), None) => of("self"),
    }
}

fn is_hosts(pid: u32, kind: &str) -> Seen<bool> {
    let path = format!("/proc/{pid}/ns/{kind}");
    let both = fs::metadata(&path).and_then(|m| Ok(m.ino() == host_namespace(kind)?));
    Seen::of(both, &format!("stat {path}"))
}

fn user_namespace(pid: u32) -> Seen<UserNamespace> {
    let path = format!("/proc/{pid}/ns/user");
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(e) => return Seen::Unknown(format!("open {path}: {e}")),
    };
    let inode = match file.metadata() {
        Ok(meta) => meta.ino(),
        Err(e) => return Seen::Unknown(format!("stat {path}: {e}")),
    };
    let mut depth = 0;
    let mut around = ns::parent(&file).ok();
    while let Some(namespace) = around {
        depth += 1;
        around = ns::parent(&namespace).ok();
    }
    let is_hosts = host_namespace("user").is_ok_and(|hosts| hosts == inode);
    let owner = if is_hosts { Some(0) } else { ns::owner_uid(&file).ok() };
    Seen::Known(UserNamespace { inode, is_hosts, owner, depth })
}

fn label(pid: u32) -> Seen<String> {
    let paths = [format!("/proc/{pid}/attr/apparmor/current"), format!("/proc/{pid}/attr/current")];
    for path in &paths {
        if let Ok(text) = fs::read_to_string(path) {
            return Seen::Known(clean(text.trim_matches(['\0', '\n'])));
        }
    }
    Seen::Unknown(format!("read {}: no security module answers, or it may not be read", paths[1]))
}

/// As many nodes as a container's /dev has at most, for anyone who fills it.
const MOST_DEVICES: usize = 4096;

/// The device nodes that a process (`self` too) finds in /dev.
pub fn devices(pid: &str) -> Seen<Vec<Device>> {
    use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
    let root = format!("/proc/{pid}/root");
    let open = || -> std::io::Result<Vec<Device>> {
        let root =
            rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let dev = openat2(&root, "dev", flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
        let mut found = Vec::new();
        for entry in Dir::read_from(&dev)?.take(MOST_DEVICES) {
            let entry = entry?;
            let Ok(stat) = statat(&dev, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if !matches!(kind, FileType::BlockDevice | FileType::CharacterDevice) {
                continue;
            }
            found.push(Device {
                path: format!("/dev/{}", clean(&entry.file_name().to_string_lossy())),
                is_block: kind == FileType::BlockDevice,
                major: rustix::fs::major(stat.st_rdev),
                minor: rustix::fs::minor(stat.st_rdev),
                uid: stat.st_uid,
                gid: stat.st_gid,
                mode: stat.st_mode & 0o7777,
            });
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    };
    Seen::of(open(), &format!("read {root}/dev"))
}

fn limits(pid: u32) -> Seen<Limits> {
    let path = format!("/proc/{pid}/cgroup");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) => return Seen::Unknown(format!("read {path}: {e}")),
    };
    let below = |mount: &str, group: &str| Path::new(mount).join(group.trim_start_matches('/'));
    let number = |path: std::path::PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let Some(group) = text.lines().find_map(|l| l.strip_prefix("0::")) else {
        return Seen::Unknown(format!("{path}: no control group of version 2"));
    };
    let mut limits = Limits { group: clean(group), ..Limits::default() };
    for mount in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        // (a limit of a group around it holds as well)
        for around in below(mount, group).ancestors().take_while(|d| d.starts_with(mount)) {
            let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
            limits.memory = least(limits.memory, number(around.join("memory.max")));
            limits.pids = least(limits.pids, number(around.join("pids.max")));
        }
    }
    // version 1, beside it
    for (controller, file) in [("memory", "memory.limit_in_bytes"), ("pids", "pids.max")] {
        let group =
            text.lines().find_map(|l| l.split_once(':')?.1.strip_prefix(controller)?.strip_prefix(':'));
        let Some(value) =
            group.and_then(|g| number(below(&format!("/sys/fs/cgroup/{controller}"), g).join(file)))
        else {
            continue;
        };
        // (no limit is a number of pages near the end of 63 bits)
        let value = Some(value).filter(|v| *v < 1 << 62);
        match controller {
            "memory" => limits.memory = limits.memory.into_iter().chain(value).min(),
            _ => limits.pids = limits.pids.into_iter().chain(value).min(),
        }
    }
    Seen::Known(limits)
}

/// The engine's process that keeps it, found among its ancestors. Those that are in the container with it may call
/// themselves anything.
pub fn supervisor(pid: u32) -> Option<Supervisor> {
    let mut at = pid;
    let namespace = |who: &str, kind: &str| fs::read_link(format!("/proc/{who}/ns/{kind}")).ok();
    let mounts = namespace(&pid.to_string(), "mnt");
    let is_outside = |at: u32| {
        let at = at.to_string();
        // (what may not be read is another user's, or root's: no process of a container that this user may look into)
        let same = |kind: &str, other: &Option<_>| namespace(&at, kind).map(|n| Some(n) == *other);
        same("pid", &namespace("self", "pid")) != Some(false) && same("mnt", &mounts) != Some(true)
    };
    for _ in 0..64 {
        let stat = fs::read(format!("/proc/{at}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat).into_owned();
        at = stat[stat.rfind(')')? + 1..].split_whitespace().nth(1)?.parse().ok().filter(|p| *p > 1)?;
        let status = read_proc(&format!("/proc/{at}/status")).ok()?;
        let uid =
            status.lines().find_map(|l| l.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()?;
        let words = fs::read(format!("/proc/{at}/cmdline")).unwrap_or_default();
        let words: Vec<String> =
            words.split(|b| *b == 0).take(64).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        let program =
            words.first().map(|w| w.rsplit('/').next().unwrap_or(w).to_string()).unwrap_or_default();
        if !is_outside(at) {
            continue;
        }
        if let Some(engine) = engine_of(&program, &words).or_else(|| is_ours(at).then_some("unroot")) {
            return Some(Supervisor { engine: engine.into(), pid: at, comm: clean(&program), uid });
        }
    }
    None
}

/// Which engine a process of this command line belongs to.
fn engine_of(program: &str, words: &[String]) -> Option<&'static str> {
    let says = |text: &str| words.iter().any(|w| w.contains(text));
    match program {
        "conmon" if says("crio") => Some("CRI-O"),
        "conmon" => Some("Podman"),
        "conmon-rs" | "crio" => Some("CRI-O"),
        _ if program.starts_with("containerd-shim") => {
            Some(if says("moby") { "Docker" } else { "containerd" })
        }
        "dockerd" => Some("Docker"),
        "containerd" => Some("containerd"),
        "systemd-nspawn" => Some("systemd-nspawn"),
        "lxc-start" | "lxc-monitord" => Some("LXC"),
        _ => None,
    }
}

/// A process is ours by the program that it runs, whatever name it was called by.
fn is_ours(pid: u32) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let file = format!("/proc/{pid}/exe");
    let place = |path: &str| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let named = |path: std::path::PathBuf| {
        path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"unroot"))
    };
    place(&file).is_some_and(|other| Some(other) == place("/proc/self/exe"))
        || fs::read_link(&file).is_ok_and(named)
}
