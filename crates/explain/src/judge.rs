//! From facts to what they mean. No system is touched here but for asking, of paths of the host, who may use them.

use std::path::Path;

use serde::Serialize;
use unroot_sys::capability;

use crate::access::{Access, Identity};
use crate::doors::doors;
use crate::facts::{Facts, Seen};
use crate::host::{Host, Owner};
use crate::say::{Say, say};

/// Who would be whoever breaks out, from worst to best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Root, without any break-out: a door is open, or nothing was taken from root.
    HostRoot,
    /// Root's id, with fewer rights than root's.
    RootId,
    /// What could be read is not enough to say.
    Unknown,
    /// An account of the host.
    Account,
    /// A subordinate id of somebody.
    Subordinate,
    /// An id that nobody has.
    Nobody,
}

impl Level {
    /// What an id alone is worth.
    fn of(uid: u32, owner: &Owner) -> Self {
        match owner {
            _ if uid == 0 => Self::RootId,
            Owner::Account { .. } => Self::Account,
            Owner::Subordinate { .. } => Self::Subordinate,
            Owner::Nobody => Self::Nobody,
        }
    }
}

/// Is it there?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Yes.
    On,
    /// In part.
    Partly,
    /// No.
    Off,
    /// It could not be read.
    Unknown,
}

/// What was read, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// A file, or the call.
    pub source: String,
    /// Its value.
    pub value: String,
}

/// A layer of defence.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// For programs.
    pub id: &'static str,
    /// Its name.
    pub name: Say,
    /// Is it there?
    pub state: State,
    /// What was found.
    pub finding: Say,
    /// Where.
    pub evidence: Vec<Evidence>,
    /// What puts it up, where it is not.
    pub cure: Option<Say>,
}

/// How bad an open door is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It leads to root of the host.
    Critical,
    /// It leads to an account, or to others' processes.
    High,
    /// It gives away more than a container needs.
    Medium,
}

/// A way out that needs no hole in the kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Door {
    /// For programs.
    pub id: &'static str,
    /// How bad.
    pub severity: Severity,
    /// Where it leads.
    pub finding: Say,
    /// What was read.
    pub evidence: Vec<Evidence>,
    /// What closes it.
    pub cure: Say,
}

/// What a break-out may do to a path of the host.
#[derive(Clone, Debug, Serialize)]
pub struct Reach {
    /// The path.
    pub path: String,
    /// None: not known.
    pub access: Option<Access>,
}

/// What it all comes to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Who would be whoever breaks out.
    pub level: Level,
    /// That in a sentence.
    pub verdict: Say,
    /// The engine runs as root; none is unknown.
    pub engine_is_root: Option<bool>,
    /// The process is root inside; none is unknown.
    pub root_inside: Option<bool>,
    /// As whom whoever breaks out acts.
    pub identity: Identity,
    /// Who that is.
    pub owner: Owner,
    /// Ways out.
    pub doors: Vec<Door>,
    /// Layers of defence.
    pub layers: Vec<Layer>,
    /// Paths of the host.
    pub reach: Vec<Reach>,
    /// What was read.
    pub facts: Facts,
}

/// Capabilities that are as good as root when they hold over the host.
pub(crate) const AS_GOOD_AS_ROOT: [&str; 4] = ["SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "DAC_READ_SEARCH"];

pub(crate) fn bit(name: &str) -> u64 {
    capability::NAMES.iter().position(|n| *n == name).map_or(0, |at| 1 << at)
}

/// `CHOWN, KILL`
pub fn names_of(bits: u64) -> String {
    let names = capability::NAMES.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, n)| *n);
    names.collect::<Vec<_>>().join(", ")
}

/// What a process may become without a hole, at its worst: what it is; root of its user namespace, unless it can gain
/// nothing; and every other id of its map, where a setuid program or its own capability makes it that.
pub(crate) struct Worst {
    pub(crate) identity: Identity,
    /// Over the host.
    pub(crate) capabilities: u64,
    /// The map, or who owns the namespace, could not be read.
    pub(crate) unknown: bool,
}

impl Worst {
    fn of(facts: &Facts, host: &Host) -> Self {
        // (the setuid programs of an image are whatever its maker put there; the host's own are trusted)
        let foreign_programs = !facts.no_new_privileges && facts.shares("mnt") != Some(true);
        let may_become_any = foreign_programs || facts.capabilities.permitted & bit("SETUID") != 0;
        let own = (facts.uid[1], facts.gid[1]);
        let mut candidates = vec![own];
        if let (true, Some(maps)) = (may_become_any || facts.inside_uid() == Some(0), facts.maps.known()) {
            let gid = maps.gid.to_outside(0).unwrap_or(own.1);
            let owner = facts.user_namespace.known().and_then(|ns| ns.owner);
            let accounts = owner.into_iter().chain(host.accounts.keys().copied());
            let others = accounts.filter(|uid| may_become_any && maps.uid.to_inside(*uid).is_some());
            candidates.extend(maps.uid.to_outside(0).into_iter().chain(others).map(|uid| (uid, gid)));
        }
        let level = |(uid, _): &(u32, u32)| Level::of(*uid, &host.owner_of_uid(*uid));
        let (uid, gid) = candidates.into_iter().min_by_key(level).unwrap_or(own);
        let gained = if foreign_programs { facts.capabilities.bounding } else { 0 };
        let held = facts.capabilities.permitted | facts.capabilities.effective | gained;
        let hosts = facts.is_in_hosts_user_namespace();
        let capabilities = if hosts == Some(true) { held } else { 0 };
        let unknown = hosts.is_none() || facts.maps.known().is_none();
        let overrides = capabilities & bit("DAC_OVERRIDE") != 0 && uid == 0;
        Self {
            identity: Identity { uid, gid, groups: facts.groups.clone(), overrides },
            capabilities,
            unknown,
        }
    }
}

/// What the facts mean.
pub fn judge(facts: Facts, host: &Host) -> Report {
    let worst = Worst::of(&facts, host);
    let owner = host.owner_of_uid(worst.identity.uid);
    let mut doors = doors(&facts, &worst, host);
    doors.sort_by_key(|d| d.severity);
    let strong = AS_GOOD_AS_ROOT.iter().map(|n| bit(n)).sum::<u64>() & worst.capabilities;
    let open = doors.iter().any(|d| d.severity == Severity::Critical);
    let level = match Level::of(worst.identity.uid, &owner) {
        _ if open || strong != 0 => Level::HostRoot,
        Level::RootId => Level::RootId,
        _ if worst.unknown => Level::Unknown,
        level => level,
    };
    let engine_is_root = facts.supervisor.as_ref().map(|s| s.uid == 0);
    let root_inside = facts.inside_uid().map(|uid| uid == 0);
    let (uid, pid) = (worst.identity.uid, facts.pid);
    let verdict = match (level, &owner) {
        (Level::HostRoot, _) => say!(
            "ROOT ON THE HOST. Whoever controls this process controls the host, without breaking out.",
            "ホストの root です。このプロセスを操る者は、脱出するまでもなくホストを支配できます。"
        ),
        (Level::RootId, _) => say!(
            "Root's id on the host. Whoever breaks out acts as uid 0 of the host; only the taken capabilities and the walls of the container stand before that.",
            "ホストでは root の id です。脱出した者はホストの uid 0 として動きます。それを阻むのは取り除かれたケーパビリティとコンテナの壁だけです。"
        ),
        (Level::Unknown, _) => say!(
            "Not known: what decides it may not be read here. As root: unroot explain {pid}",
            "不明です。判断に必要な情報をここからは読めません。root で: unroot explain {pid}"
        ),
        (_, Owner::Account { name }) => say!(
            "Not root. Whoever breaks out gets what {name} (uid {uid}) has on the host, and nothing of root's.",
            "root ではありません。脱出した者が得るのは、ホストの {name} (uid {uid}) の権限だけです。"
        ),
        (_, Owner::Subordinate { owner, .. }) => say!(
            "Not root, and nobody. Whoever breaks out is uid {uid}, a subordinate id of {owner}: no file and no right of anybody on the host.",
            "root でも、誰でもありません。脱出した者は {owner} の従属 id、uid {uid} になり、ホストの誰のファイルにも権限にも届きません。"
        ),
        (_, Owner::Nobody) => say!(
            "Not root, and nobody. Whoever breaks out is uid {uid}, which no account of the host has.",
            "root でも、誰でもありません。脱出した者はホストのどのアカウントでもない uid {uid} になります。"
        ),
    };
    Report {
        level,
        verdict,
        engine_is_root,
        root_inside,
        reach: reach(&worst.identity, host),
        owner,
        doors,
        layers: crate::layers::layers(&facts, host),
        identity: worst.identity,
        facts,
    }
}

/// Paths that matter, and those that are homes of people.
fn reach(identity: &Identity, host: &Host) -> Vec<Reach> {
    let mut paths: Vec<String> =
        ["/etc/shadow", "/etc/passwd", "/etc/ssh/ssh_host_ed25519_key", "/root", "/boot", "/usr/bin"]
            .map(String::from)
            .into();
    for (uid, account) in &host.accounts {
        if account.has_shell && *uid >= 1000 && account.home.starts_with('/') && account.home != "/" {
            paths.push(account.home.clone());
        }
    }
    paths.extend(
        ["/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock"].map(String::from),
    );
    paths.dedup();
    paths.retain(|path| std::fs::symlink_metadata(path).is_ok());
    paths.into_iter().map(|path| Reach { access: identity.access(Path::new(&path)), path }).collect()
}

/// A fact that may be unknown, as a state.
pub fn state_of(fact: Option<bool>) -> State {
    match fact {
        Some(true) => State::On,
        Some(false) => State::Off,
        None => State::Unknown,
    }
}

/// Why a fact is not known.
pub fn why<T>(fact: &Seen<T>) -> Option<&str> {
    match fact {
        Seen::Known(_) => None,
        Seen::Unknown(why) => Some(why),
    }
}
