//! Ways out of a container that need no hole in the kernel: what it was given of the host.

use std::path::Path;

use crate::access::Identity;
use crate::facts::Facts;
use crate::host::{Host, Owner};
use crate::judge::{AS_GOOD_AS_ROOT, Door, Evidence, Severity, Worst, bit, names_of};
use crate::mounts::Mount;
use crate::say::{Say, say};

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

pub(crate) fn doors(facts: &Facts, worst: &Worst, host: &Host) -> Vec<Door> {
    let mut doors = Vec::new();
    doors.extend(kept_groups(facts, host));
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

/// Groups that hold as much as root, on most hosts.
const POWERFUL_GROUPS: [&str; 10] =
    ["root", "docker", "podman", "disk", "shadow", "sudo", "wheel", "lxd", "incus", "libvirt"];

/// Groups of the host that a process in a user namespace of its own was left with: inside nobody sees which.
fn kept_groups(facts: &Facts, host: &Host) -> Option<Door> {
    if facts.is_in_hosts_user_namespace() != Some(false) {
        return None;
    }
    let name = |gid: u32| match host.owner_of_gid(gid) {
        Owner::Account { name } => Some((name, gid)),
        _ => None,
    };
    let kept: Vec<(String, u32)> =
        facts.groups.iter().filter(|gid| **gid != facts.gid[1]).filter_map(|gid| name(*gid)).collect();
    if kept.is_empty() {
        return None;
    }
    let powerful = kept.iter().any(|(name, _)| POWERFUL_GROUPS.contains(&name.as_str()));
    let names = kept.iter().map(|(name, gid)| format!("{name} ({gid})")).collect::<Vec<_>>().join(", ");
    Some(Door {
        id: "host-groups",
        severity: if powerful { Severity::High } else { Severity::Medium },
        finding: say!(
            "it is still in groups of the host, with all that is theirs there: {names}",
            "ホストのグループに属したままで、その権限をすべて持ちます: {names}"
        ),
        evidence: evidence(
            format!("/proc/{}/status Groups", facts.pid),
            facts.groups.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
        ),
        cure: say!(
            "no --group-add keep-groups; one group alone: --gidmap=+gINSIDE:@OUTSIDE and --group-add INSIDE, with a line of subgid(5) for it",
            "--group-add keep-groups をやめる。一つのグループだけなら subgid(5) に加え --gidmap=+g中:@外 と --group-add 中"
        ),
    })
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
