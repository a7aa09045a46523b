//! From facts to what they mean. No system is touched here but for asking, of paths of the host, who may use them.

use std::path::Path;

use serde::Serialize;
use unroot_sys::capability;

use crate::access::{Access, Identity};
use crate::facts::{Facts, Seen};
use crate::host::{Host, Owner};
use crate::mounts::Mount;
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
const AS_GOOD_AS_ROOT: [&str; 4] = ["SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "DAC_READ_SEARCH"];

fn bit(name: &str) -> u64 {
    capability::NAMES.iter().position(|n| *n == name).map_or(0, |at| 1 << at)
}

/// `CHOWN, KILL`
pub fn names_of(bits: u64) -> String {
    let names = capability::NAMES.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, n)| *n);
    names.collect::<Vec<_>>().join(", ")
}

/// What a process may become without a hole: what it is, and, unless it can gain nothing, root of its user namespace
/// by a setuid program.
struct Worst {
    identity: Identity,
    /// Over the host.
    capabilities: u64,
    /// The map, or who owns the namespace, could not be read.
    unknown: bool,
}

impl Worst {
    fn of(facts: &Facts) -> Self {
        // (the setuid programs of an image are whatever its maker put there; the host's own are trusted)
        let foreign_programs = !facts.no_new_privileges && facts.shares("mnt") != Some(true);
        let may_become_root = foreign_programs
            || facts.capabilities.permitted & bit("SETUID") != 0
            || facts.inside_uid() == Some(0);
        let mut uid = facts.uid[1];
        let mut gid = facts.gid[1];
        if let (true, Some(maps)) = (may_become_root, facts.maps.known()) {
            uid = maps.uid.to_outside(0).unwrap_or(uid);
            gid = maps.gid.to_outside(0).unwrap_or(gid);
        }
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
    let worst = Worst::of(&facts);
    let owner = host.owner_of_uid(worst.identity.uid);
    let mut doors = doors(&facts, &worst);
    doors.sort_by_key(|d| d.severity);
    let strong = AS_GOOD_AS_ROOT.iter().map(|n| bit(n)).sum::<u64>() & worst.capabilities;
    let open = doors.iter().any(|d| d.severity == Severity::Critical);
    let level = match &owner {
        _ if open || strong != 0 => Level::HostRoot,
        _ if worst.identity.uid == 0 => Level::RootId,
        _ if worst.unknown => Level::Unknown,
        Owner::Account { .. } => Level::Account,
        Owner::Subordinate { .. } => Level::Subordinate,
        Owner::Nobody => Level::Nobody,
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

fn evidence(source: impl Into<String>, value: impl Into<String>) -> Vec<Evidence> {
    vec![Evidence { source: source.into(), value: value.into() }]
}

/// Where the program is that waits in a container which was made for a look.
pub const WAITING: &str = "/.unroot-waits";

/// Files that every engine mounts for a container.
const ENGINES_OWN: [&str; 9] = [
    WAITING,
    "/etc/passwd",
    "/etc/group",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/hostname",
    "/run/.containerenv",
    "/dev/console",
    "/run/secrets",
];

/// The host's files that are in the container.
fn host_mounts(facts: &Facts) -> impl Iterator<Item = (&Mount, &str)> {
    let all = facts.mounts.known().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(|m| Some((m, m.source.as_deref()?))).filter(|(m, source)| {
        let own = (ENGINES_OWN.contains(&m.target.as_str()) && m.target != *source) || m.target == "/";
        // masks of /proc, nodes of /dev, and the container's own /dev/shm
        let below = |dir: &str| m.target.starts_with(dir);
        let masks = below("/proc") || below("/sys") || (below("/dev/") && source.starts_with("/dev/"));
        let shm = m.target == "/dev/shm" && *source != "/dev/shm";
        !own && !masks && !shm
    })
}

/// Directories that are the host itself.
fn is_vital(source: &str) -> bool {
    source == "/"
        || [
            "/etc", "/usr", "/boot", "/root", "/bin", "/sbin", "/lib", "/lib64", "/var", "/dev", "/run",
            "/proc", "/sys",
        ]
        .iter()
        .any(|dir| {
            source == *dir
                || source
                    .strip_prefix(dir)
                    .is_some_and(|r| r.starts_with('/') && *dir != "/var" && *dir != "/run")
        })
}

fn doors(facts: &Facts, worst: &Worst) -> Vec<Door> {
    let mut doors = Vec::new();
    // (in the host's own mounts everything is the host's: nothing of it is told apart)
    let contained = facts.shares("mnt") != Some(true);
    let identity = &worst.identity;
    let pid = facts.pid;
    let root = identity.uid == 0;
    let strong = AS_GOOD_AS_ROOT.iter().map(|n| bit(n)).sum::<u64>() & worst.capabilities;
    if strong != 0 {
        let names = names_of(strong);
        doors.push(Door {
            id: "capabilities",
            severity: Severity::Critical,
            finding: say!(
                "capabilities over the host itself that are as good as root: {names}",
                "ホストそのものに対する、root 同然のケーパビリティ: {names}"
            ),
            evidence: evidence(
                format!("/proc/{pid}/status CapEff, CapBnd"),
                format!("{:016x}, {:016x}", facts.capabilities.effective, facts.capabilities.bounding),
            ),
            cure: say!(
                "no --privileged; --cap-drop all, and only what is needed with --cap-add",
                "--privileged をやめ、--cap-drop all と必要な --cap-add だけにする"
            ),
        });
    }
    if !contained {
        doors.push(Door {
            id: "host-mounts",
            severity: match (root, identity.overrides) {
                (true, true) => Severity::Critical,
                (true, false) => Severity::High,
                _ => Severity::Medium,
            },
            finding: say!(
                "it is in the host's own mounts: all files of the host are before it, as its uid may use them",
                "ホスト自身のマウントの中にいます。uid の権限の範囲でホストの全ファイルが見えます"
            ),
            evidence: evidence(format!("/proc/{pid}/ns/mnt"), "the host's"),
            cure: say!("a container", "コンテナにする"),
        });
    }
    let mounted: Vec<(&Mount, &str)> = host_mounts(facts).filter(|_| contained).collect();
    for (mount, source) in &mounted {
        // what is mounted below a directory of the host comes with it
        let comes_with = |(outer, path): &(&Mount, &str)| {
            let below = |a: &str, b: &str| {
                a != b && a.strip_prefix(b.trim_end_matches('/')).is_some_and(|r| r.starts_with('/'))
            };
            below(&mount.target, &outer.target) && below(source, path) && !outer.read_only
        };
        if mounted.iter().any(comes_with) && !mount.is_socket {
            continue;
        }
        let source = *source;
        let access = identity.access(Path::new(source));
        let writes = !mount.read_only && access.is_none_or(|a| a.write);
        let target = &mount.target;
        let shown = evidence(
            format!("/proc/{pid}/mountinfo {target}"),
            format!("{source} {}", if mount.read_only { "ro" } else { "rw" }),
        );
        let engine =
            ["docker.sock", "podman.sock", "containerd.sock", "crio.sock", "unroot.sock", "buildkitd.sock"]
                .iter()
                .any(|name| source.ends_with(name));
        if mount.is_socket && engine {
            if access.is_some_and(|a| !a.write) {
                continue;
            }
            use std::os::unix::fs::MetadataExt as _;
            let owner = std::fs::metadata(source).map(|m| m.uid()).unwrap_or(0);
            doors.push(Door {
                id: "engine-socket",
                severity: if owner == 0 { Severity::Critical } else { Severity::High },
                finding: say!(
                    "the socket of an engine that runs as uid {owner}: whoever may talk to it starts containers with any right that engine has ({source})",
                    "uid {owner} で動くエンジンのソケットです。話しかけられる者は、そのエンジンの持つあらゆる権限でコンテナを起動できます ({source})"
                ),
                evidence: shown,
                cure: say!("do not mount {source}", "{source} をマウントしない"),
            });
            continue;
        }
        let severity = match (root && !mount.idmapped, is_vital(source), writes) {
            (true, true, true) => Severity::Critical,
            (true, _, true) | (false, true, true) => Severity::High,
            (true, true, false) => Severity::High,
            _ => Severity::Medium,
        };
        let how = match (mount.read_only, access) {
            (true, _) => say!("to be read", "読み取りのみ"),
            (false, None) => say!("to be written, as far as could be seen", "書き込み可 (確認できた範囲で)"),
            (false, Some(a)) if a.write => say!("to be written", "書き込み可"),
            (false, Some(_)) => say!(
                "mounted for writing; the directory itself is not this id's",
                "書き込み用。ただしディレクトリ自体はこの id のものではない"
            ),
        };
        doors.push(Door {
            id: "host-files",
            severity,
            finding: Say {
                en: format!("the host's {source} is at {target}, {}", how.en),
                ja: format!("ホストの {source} が {target} にあります ({})", how.ja),
            },
            evidence: shown,
            cure: say!(
                "a narrower directory, or :ro, or a volume of its own",
                "より狭いディレクトリ、:ro、または専用のボリュームにする"
            ),
        });
    }
    doors.extend(devices(facts, identity).filter(|_| contained));
    if facts.shares("pid") == Some(true) {
        doors.push(Door {
            id: "host-pid",
            severity: if root && worst.capabilities & bit("SYS_PTRACE") != 0 {
                Severity::Critical
            } else {
                Severity::High
            },
            finding: say!(
                "it sees all processes of the host, and may signal those of its uid",
                "ホストの全プロセスが見え、同じ uid のものにはシグナルを送れます"
            ),
            evidence: evidence(format!("/proc/{pid}/ns/pid"), "the host's"),
            cure: say!("no --pid=host", "--pid=host をやめる"),
        });
    }
    if facts.shares("net") == Some(true) {
        doors.push(Door {
            id: "host-network",
            severity: if worst.capabilities & bit("NET_ADMIN") != 0 {
                Severity::High
            } else {
                Severity::Medium
            },
            finding: say!(
                "it is in the host's network: services of the host's loopback and abstract sockets answer it",
                "ホストのネットワークにいます。ループバックのサービスや抽象ソケットに届きます"
            ),
            evidence: evidence(format!("/proc/{pid}/ns/net"), "the host's"),
            cure: say!("no --network=host", "--network=host をやめる"),
        });
    }
    if facts.shares("ipc") == Some(true) {
        doors.push(Door {
            id: "host-ipc",
            severity: Severity::Medium,
            finding: say!(
                "it shares the host's shared memory and queues",
                "ホストの共有メモリとキューを共有しています"
            ),
            evidence: evidence(format!("/proc/{pid}/ns/ipc"), "the host's"),
            cure: say!("no --ipc=host", "--ipc=host をやめる"),
        });
    }
    if let Some(mounts) = facts.mounts.known() {
        let sealed = |path: &str| {
            let best = mounts.iter().filter(|m| {
                path == m.target || path.starts_with(&format!("{}/", m.target.trim_end_matches('/')))
            });
            best.max_by_key(|m| m.target.len()).is_none_or(|m| m.read_only || m.kind != "proc")
        };
        if root && contained && !worst.unknown && !sealed("/proc/sys/kernel/core_pattern") {
            doors.push(Door {
                id: "proc-sys",
                severity: Severity::Critical,
                finding: say!("/proc/sys can be written by the host's root id: core_pattern names a program that the host then runs as root", "/proc/sys にホストの root の id で書き込めます。core_pattern に書いたプログラムはホストで root として実行されます"),
                evidence: evidence(format!("/proc/{pid}/mountinfo /proc/sys"), "rw"),
                cure: say!("no --privileged, no --security-opt unmask=ALL", "--privileged や --security-opt unmask=ALL をやめる"),
            });
        }
        let agent = mounts.iter().find(|m| m.kind == "cgroup" && !m.read_only);
        if let (Some(mount), true) = (agent.filter(|_| contained), worst.capabilities & bit("SYS_ADMIN") != 0)
        {
            let target = &mount.target;
            doors.push(Door {
                id: "release-agent",
                severity: Severity::Critical,
                finding: say!("a control group of version 1 can be written: its release_agent is run by the host as root", "バージョン 1 の cgroup に書き込めます。その release_agent はホストで root として実行されます"),
                evidence: evidence(format!("/proc/{pid}/mountinfo {target}"), "cgroup rw"),
                cure: say!("no --privileged, --cgroupns=private", "--privileged をやめ、--cgroupns=private にする"),
            });
        }
    }
    doors
}

/// Devices of the host that hold everybody's data.
fn devices(facts: &Facts, identity: &Identity) -> Option<Door> {
    let opened: Vec<_> = facts
        .devices
        .known()?
        .iter()
        .filter(|device| device.is_block || (device.major == 1 && matches!(device.minor, 1 | 2 | 4)))
        .filter(|device| {
            let bits = match () {
                () if identity.overrides => 6,
                () if device.uid == identity.uid => device.mode >> 6,
                () if device.gid == identity.gid || identity.groups.contains(&device.gid) => device.mode >> 3,
                () => device.mode,
            };
            bits & 6 != 0
        })
        .collect();
    let first = opened.first()?;
    let mut names = opened.iter().take(5).map(|d| d.path.as_str()).collect::<Vec<_>>().join(", ");
    if opened.len() > 5 {
        names += ", ...";
    }
    let count = opened.len();
    Some(Door {
        id: "device",
        severity: Severity::Critical,
        finding: say!(
            "{count} device(s) of the host can be opened, which hold everybody's data: {names}",
            "全員のデータを持つホストのデバイス {count} 個を開けます: {names}"
        ),
        evidence: evidence(
            format!("/proc/{}/root{}", facts.pid, first.path),
            format!("{}:{} mode {:o} {}:{}", first.major, first.minor, first.mode, first.uid, first.gid),
        ),
        cure: say!("no --device for it, no --privileged", "--device や --privileged を外す"),
    })
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
