//! The layers of defence, in the order in which they are told.

use crate::facts::{Facts, Seen};
use crate::host::{Host, Owner};
use crate::judge::{Evidence, Layer, State, names_of, state_of, why};
use crate::say::{Say, say};

/// All of them.
pub fn layers(facts: &Facts, host: &Host) -> Vec<Layer> {
    vec![
        engine(facts, host),
        process(facts),
        id_range(facts, host),
        user_namespace(facts, host),
        capabilities(facts),
        no_new_privileges(facts),
        seccomp(facts),
        security_module(facts),
        namespaces(facts),
        sealed_paths(facts),
        root_filesystem(facts),
        limits(facts),
        network(facts),
    ]
}

fn read(source: String, value: impl ToString) -> Vec<Evidence> {
    vec![Evidence { source, value: value.to_string() }]
}

/// Whose an id is, in a few words.
pub fn whose(owner: &Owner, id: u32) -> Say {
    match owner {
        Owner::Account { name } => say!("{name} (uid {id})", "{name} (uid {id})"),
        Owner::Subordinate { owner, offset } => {
            say!("uid {id}, {owner}'s subordinate id +{offset}", "uid {id} ({owner} の従属 id +{offset})")
        }
        Owner::Nobody => say!("uid {id}, nobody's", "uid {id} (誰のものでもない)"),
    }
}

fn unknown(why: &str) -> Say {
    say!("not known ({why})", "不明 ({why})")
}

fn engine(facts: &Facts, host: &Host) -> Layer {
    let (state, finding, evidence) = match &facts.supervisor {
        None => (
            State::Unknown,
            say!("no engine's process was found above it", "親プロセスにエンジンが見つかりません"),
            vec![],
        ),
        Some(s) => {
            let who = whose(&host.owner_of_uid(s.uid), s.uid);
            let (engine, comm) = (&s.engine, &s.comm);
            let finding = Say {
                en: format!("{engine}: {comm} runs as {}", who.en),
                ja: format!("{engine}: {comm} は {} として動いています", who.ja),
            };
            (state_of(Some(s.uid != 0)), finding, read(format!("/proc/{}/status Uid", s.pid), s.uid))
        }
    };
    Layer {
        id: "engine-not-root",
        name: say!("engine is not root", "エンジンが root でない"),
        state,
        finding,
        evidence,
        cure: Some(say!("run it as an ordinary user", "一般ユーザーで実行する")),
    }
}

fn process(facts: &Facts) -> Layer {
    let uid = facts.uid[1];
    let (state, finding) = match facts.inside_uid() {
        None => (
            State::Unknown,
            say!("uid {uid} on the host; inside: not known", "ホストでは uid {uid}、中では不明"),
        ),
        Some(inside) => {
            let state = state_of(Some(inside != 0));
            (
                state,
                say!(
                    "uid {inside} inside, uid {uid} on the host",
                    "中では uid {inside}、ホストでは uid {uid}"
                ),
            )
        }
    };
    Layer {
        id: "process-not-root",
        name: say!("process inside is not root", "中のプロセスが root でない"),
        state,
        finding,
        evidence: read(
            format!("/proc/{}/status Uid", facts.pid),
            facts.uid.map(|id| id.to_string()).join(" "),
        ),
        cure: Some(say!("-u USER, or USER in the image", "-u ユーザー、またはイメージの USER")),
    }
}

fn id_range(facts: &Facts, host: &Host) -> Layer {
    let (state, finding, value) = match &facts.maps {
        Seen::Unknown(why) => (State::Unknown, unknown(why), String::new()),
        Seen::Known(maps) => {
            let extents = maps.uid.extents();
            let has = |id: u32| maps.uid.to_inside(id).is_some();
            let ids = maps.uid.len();
            // (more accounts than a map of single ids can name are those of the whole host)
            let accounts: Vec<&str> = host
                .accounts
                .iter()
                .filter(|(id, _)| has(**id))
                .map(|(_, a)| a.name.as_str())
                .take(4)
                .collect();
            let names = accounts.join(", ");
            let value = extents
                .iter()
                .take(3)
                .map(|e| format!("{} {} {}", e.inside, e.outside, e.length))
                .collect::<Vec<_>>()
                .join("; ");
            let (state, finding) = match (has(0), accounts.len()) {
                (true, _) => (
                    State::Off,
                    say!(
                        "{ids} ids, the host's root (0) among them",
                        "{ids} 個の id。ホストの root (0) を含む"
                    ),
                ),
                (false, 0) => (
                    State::On,
                    say!(
                        "{ids} ids that no account of the host has",
                        "{ids} 個の id。ホストのどのアカウントのものでもない"
                    ),
                ),
                (false, _) => (
                    State::Partly,
                    say!("{ids} ids, among them those of {names}", "{ids} 個の id。{names} のものを含む"),
                ),
            };
            (state, finding, value)
        }
    };
    Layer {
        id: "own-id-range",
        name: say!("ids of its own", "専用の id 範囲"),
        state,
        finding,
        evidence: read(format!("/proc/{}/uid_map", facts.pid), value),
        cure: Some(say!("--userns=auto or --userns=nomap", "--userns=auto または --userns=nomap")),
    }
}

fn user_namespace(facts: &Facts, host: &Host) -> Layer {
    let (state, finding, value) = match &facts.user_namespace {
        Seen::Unknown(why) => (State::Unknown, unknown(why), String::new()),
        Seen::Known(n) if n.is_hosts => {
            (State::Off, say!("the host's own", "ホスト自身の名前空間"), format!("user:[{}]", n.inode))
        }
        Seen::Known(n) => {
            let owner = n.owner.map(|uid| whose(&host.owner_of_uid(uid), uid));
            let owner = owner.unwrap_or_else(|| say!("not known", "不明"));
            let finding = Say {
                en: format!("its own, owned by {}, {} deep", owner.en, n.depth),
                ja: format!("専用。所有者は {}、深さ {}", owner.ja, n.depth),
            };
            (
                if n.owner == Some(0) { State::Partly } else { State::On },
                finding,
                format!("user:[{}]", n.inode),
            )
        }
    };
    Layer {
        id: "user-namespace",
        name: say!("user namespace", "ユーザー名前空間"),
        state,
        finding,
        evidence: read(format!("/proc/{}/ns/user", facts.pid), value),
        cure: Some(say!(
            "--userns=auto, or an engine that is not root",
            "--userns=auto、または root でないエンジン"
        )),
    }
}

fn capabilities(facts: &Facts) -> Layer {
    let held = facts.capabilities.effective | facts.capabilities.permitted;
    let (count, names) = (held.count_ones(), names_of(held));
    let bounding = facts.capabilities.bounding.count_ones();
    let (over, over_ja) = match facts.user_namespace.known() {
        Some(n) if n.is_hosts => ("over the host".to_string(), "ホストに対して".to_string()),
        Some(n) => (
            format!("over its user namespace {} alone, none over the host", n.inode),
            format!("自分のユーザー名前空間 {} に対してのみ。ホストには無し", n.inode),
        ),
        None => ("over what is not known".into(), "対象は不明".into()),
    };
    let own = facts.is_in_hosts_user_namespace();
    let state = match (count, own) {
        (0, _) if bounding == 0 || facts.no_new_privileges => State::On,
        (_, Some(false)) => State::Partly,
        (0, _) => State::Partly,
        (n, Some(true)) if n >= 38 => State::Off,
        (_, Some(true)) => State::Partly,
        (_, None) => State::Unknown,
    };
    let all = unroot_sys::capability::NAMES.len();
    let finding = match count {
        0 => say!(
            "none in force, {bounding} to be gained at most",
            "有効なもの無し、得られるのは最大 {bounding} 個"
        ),
        38.. => say!("{count} of {all}, {over}", "{all} 個中 {count} 個、{over_ja}"),
        _ => say!("{count} {over}: {names}", "{count} 個、{over_ja}: {names}"),
    };
    Layer {
        id: "capabilities",
        name: say!("capabilities", "ケーパビリティ"),
        state,
        finding,
        evidence: read(
            format!("/proc/{}/status CapEff, CapBnd", facts.pid),
            format!("{:016x}, {:016x}", facts.capabilities.effective, facts.capabilities.bounding),
        ),
        cure: Some(say!("--cap-drop all", "--cap-drop all")),
    }
}

fn no_new_privileges(facts: &Facts) -> Layer {
    let on = facts.no_new_privileges;
    Layer {
        id: "no-new-privileges",
        name: say!("no new privileges", "新たな特権の禁止"),
        state: state_of(Some(on)),
        finding: match on {
            true => say!("setuid programs give nothing", "setuid プログラムは効きません"),
            false => say!(
                "a setuid program makes it root of its user namespace",
                "setuid プログラムで自分のユーザー名前空間の root になれます"
            ),
        },
        evidence: read(format!("/proc/{}/status NoNewPrivs", facts.pid), u8::from(on)),
        cure: Some(say!("--security-opt no-new-privileges", "--security-opt no-new-privileges")),
    }
}

fn seccomp(facts: &Facts) -> Layer {
    let filters = facts.seccomp_filters;
    let (state, finding) = match facts.seccomp {
        0 => (State::Off, say!("every system call may be made", "すべてのシステムコールが可能")),
        1 => (State::On, say!("strict: read, write and exit alone", "strict: read、write、exit のみ")),
        _ => (
            State::On,
            say!(
                "{filters} filter(s); what they allow may not be read",
                "フィルター {filters} 個 (内容は読めません)"
            ),
        ),
    };
    Layer {
        id: "seccomp",
        name: say!("system call filter", "システムコールの制限"),
        state,
        finding,
        evidence: read(format!("/proc/{}/status Seccomp", facts.pid), facts.seccomp),
        cure: Some(say!(
            "no --privileged, no seccomp=unconfined",
            "--privileged や seccomp=unconfined をやめる"
        )),
    }
}

fn security_module(facts: &Facts) -> Layer {
    let modules = facts.lsm.known().cloned().unwrap_or_default();
    let confining = modules.iter().find(|m| matches!(m.as_str(), "apparmor" | "selinux" | "smack"));
    let (state, finding, value) = match (&facts.label, confining) {
        (_, None) if facts.lsm.known().is_some() => (
            State::Off,
            say!(
                "the kernel runs neither AppArmor nor SELinux",
                "カーネルに AppArmor も SELinux もありません"
            ),
            modules.join(","),
        ),
        (Seen::Known(label), _) if label.contains("unconfined") => {
            (State::Off, say!("{label}", "{label}"), label.clone())
        }
        (Seen::Known(label), _) if !label.is_empty() => {
            (State::On, say!("{label}", "{label}"), label.clone())
        }
        (label, _) => {
            let why = why(label).or_else(|| why(&facts.lsm)).unwrap_or("no label").to_string();
            (State::Unknown, unknown(&why), String::new())
        }
    };
    Layer {
        id: "security-module",
        name: say!("AppArmor or SELinux", "AppArmor / SELinux"),
        state,
        finding,
        evidence: read(format!("/proc/{}/attr/current", facts.pid), value),
        cure: None,
    }
}

fn namespaces(facts: &Facts) -> Layer {
    // (the time namespace is the host's in every engine)
    let considered = || facts.namespaces.iter().filter(|n| n.kind != "time");
    let shared: Vec<&str> =
        considered().filter(|n| n.is_hosts == Seen::Known(true)).map(|n| n.kind).collect();
    let unread = considered().filter(|n| n.is_hosts.known().is_none()).count();
    let names = shared.join(", ");
    let (state, finding) = match (shared.len(), unread) {
        (0, 0) => (State::On, say!("none shared with the host", "ホストと共有するもの無し")),
        (0, n) => (State::Unknown, say!("{n} could not be read", "{n} 個は読めません")),
        (6.., _) => (State::Off, say!("all are the host's", "すべてホストのもの")),
        _ => (State::Partly, say!("shared with the host: {names}", "ホストと共有: {names}")),
    };
    Layer {
        id: "namespaces",
        name: say!("namespaces", "名前空間"),
        state,
        finding,
        evidence: read(format!("/proc/{}/ns/*", facts.pid), names),
        cure: Some(say!(
            "no --pid=host, --network=host, --ipc=host, --uts=host",
            "--pid=host、--network=host、--ipc=host、--uts=host をやめる"
        )),
    }
}

fn sealed_paths(facts: &Facts) -> Layer {
    let (state, finding) = match &facts.mounts {
        Seen::Unknown(why) => (State::Unknown, unknown(why)),
        Seen::Known(mounts) => {
            let sealed = |target: &str| mounts.iter().any(|m| m.target == target && m.read_only);
            let masked = mounts.iter().filter(|m| m.target.starts_with("/proc/") && m.kind != "proc").count();
            match (sealed("/proc/sys"), masked) {
                (true, 0) => (
                    State::Partly,
                    say!(
                        "/proc/sys is read-only, nothing is masked",
                        "/proc/sys は読み取り専用、隠されたパスは無し"
                    ),
                ),
                (true, n) => (
                    State::On,
                    say!(
                        "/proc/sys is read-only, {n} paths of /proc are masked",
                        "/proc/sys は読み取り専用、/proc の {n} 個のパスを隠蔽"
                    ),
                ),
                (false, n) => (
                    State::Off,
                    say!(
                        "/proc/sys is not read-only, {n} paths are masked",
                        "/proc/sys は読み取り専用でない。隠されたパスは {n} 個"
                    ),
                ),
            }
        }
    };
    Layer {
        id: "sealed-paths",
        name: say!("kernel paths sealed", "カーネルのパスの封印"),
        state,
        finding,
        evidence: read(format!("/proc/{}/mountinfo", facts.pid), "/proc, /proc/sys"),
        cure: Some(say!("no --privileged, no unmask=", "--privileged や unmask= をやめる")),
    }
}

fn root_filesystem(facts: &Facts) -> Layer {
    let root = facts.mounts.known().and_then(|all| all.iter().rfind(|m| m.target == "/"));
    let (state, finding, value) = match (root, &facts.mounts) {
        (_, Seen::Unknown(why)) => (State::Unknown, unknown(why), String::new()),
        (None, _) => (State::Unknown, say!("no mount at /", "/ にマウントがありません"), String::new()),
        (Some(root), _) if root.read_only => {
            (State::On, say!("its root is read-only", "ルートは読み取り専用"), "ro".into())
        }
        (Some(root), _) => {
            let kind = &root.kind;
            (
                State::Off,
                say!("its root can be written ({kind})", "ルートに書き込めます ({kind})"),
                kind.clone(),
            )
        }
    };
    Layer {
        id: "read-only-root",
        name: say!("read-only root", "読み取り専用のルート"),
        state,
        finding,
        evidence: read(format!("/proc/{}/mountinfo /", facts.pid), value),
        cure: Some(say!("--read-only", "--read-only")),
    }
}

fn limits(facts: &Facts) -> Layer {
    let (state, finding, value) = match &facts.limits {
        Seen::Unknown(why) => (State::Unknown, unknown(why), String::new()),
        Seen::Known(limits) => {
            let show = |n: Option<u64>| n.map_or("max".to_string(), |n| n.to_string());
            let (memory, pids) = (show(limits.memory), show(limits.pids));
            let state = match (limits.memory, limits.pids) {
                (Some(_), Some(_)) => State::On,
                (None, None) => State::Off,
                _ => State::Partly,
            };
            (
                state,
                say!("memory {memory}, processes {pids}", "メモリ {memory}、プロセス数 {pids}"),
                limits.group.clone(),
            )
        }
    };
    Layer {
        id: "limits",
        name: say!("limits", "リソース制限"),
        state,
        finding,
        evidence: read(format!("/proc/{}/cgroup", facts.pid), value),
        cure: Some(say!("--memory and --pids-limit", "--memory と --pids-limit")),
    }
}

fn network(facts: &Facts) -> Layer {
    let shared = facts.shares("net");
    Layer {
        id: "network",
        name: say!("network of its own", "専用のネットワーク"),
        state: state_of(shared.map(|s| !s)),
        finding: match shared {
            Some(true) => say!("it is the host's", "ホストのネットワークです"),
            Some(false) => say!("not the host's", "ホストのものではない"),
            None => say!("not known", "不明"),
        },
        evidence: read(
            format!("/proc/{}/ns/net", facts.pid),
            shared.map_or("unknown", |s| if s { "the host's" } else { "its own" }),
        ),
        cure: Some(say!("no --network=host", "--network=host をやめる")),
    }
}
