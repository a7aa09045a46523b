//! From what was asked for to the OCI runtime spec: no system is touched here.

use std::path::{Path, PathBuf};

use unroot_runtime::spec::{Device, Linux, Mount, NamespaceSpec, Process, Rlimit, Root, Spec, User};
use unroot_store::Config;

use crate::capabilities;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::{ContainerSpec, MountKind, Namespace, Systemd};
use crate::users::ResolvedUser;

/// What the plan has to know besides.
pub struct Facts<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The name of its host: its own, or that of whose uts namespace it is in.
    pub host_name: &'a str,
    /// How its image says that it runs.
    pub image: &'a Config,
    /// Who the process is.
    pub user: &'a ResolvedUser,
    /// The process is in a user namespace that is not the host's.
    pub in_user_namespace: bool,
    /// The user namespace: `None` is the engine's, an empty path a new one, else joined.
    pub user_namespace: Option<PathBuf>,
    /// Its pid namespace is the engine's, asked for as the host's or as that of a container which shares it.
    pub shares_pid: bool,
    /// Group 5, whose terminals are, is in the map.
    pub has_tty_group: bool,
    /// The network namespace: `None` is the host's, an empty path a new one, else joined.
    pub network: Option<PathBuf>,
    /// Directory with hosts, resolv.conf, hostname and so on; those that are in it are mounted.
    pub run_dir: &'a Path,
    /// Files of it that are mounted: name there, path in the container.
    pub files: &'a [(&'a str, &'a str)],
    /// Mounts of volumes and the user, with all names resolved to host paths.
    pub mounts: &'a [crate::spec::Mount],
    /// Namespaces of other containers, by `--pid`, `--ipc`, `--uts`.
    pub join: &'a dyn Fn(&Namespace, &str) -> Result<PathBuf>,
    /// Environment of the engine, for proxies.
    pub proxies: &'a [(String, String)],
    /// Resource limits of the engine: name, soft, hard.
    pub rlimits: &'a [(String, u64, u64)],
    /// Capabilities that the engine has.
    pub capabilities: u64,
    /// Where the host's CPUs tell of their heat, which tells what others compute.
    pub throttles: &'a [String],
    /// Devices of the host, for `--privileged`.
    pub host_devices: &'a [Device],
    /// Secrets: files on the host and their paths in the container, and variables.
    pub secrets: (&'a [(PathBuf, String)], &'a [(String, String)]),
    /// Directory with the socket by which the container speaks to the service manager.
    pub notify: Option<&'a Path>,
    /// Variables of socket activation.
    pub activation: &'a [(String, String)],
    /// The program of `--init`, if one is bound.
    pub init: Option<&'a Path>,
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/interrupts",
    "/sys/firmware",
    "/sys/fs/selinux",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
];

const READ_ONLY: [&str; 6] =
    ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where `--init`'s program is in the container.
pub const INIT_PATH: &str = "/run/unroot-init";

/// The spec of a container.
pub fn plan(spec: &ContainerSpec, facts: &Facts<'_>) -> Result<Spec> {
    let mut process = process(spec, facts)?;
    if spec.process.init {
        process.args.splice(0..0, [INIT_PATH.to_string(), "--".to_string()]);
    }
    let (masked, read_only) = hidden_paths(spec, facts);
    let hostname = hostname(spec, facts);
    Ok(Spec {
        oci_version: "1.2.0".into(),
        process,
        root: Root { path: "rootfs".into(), readonly: spec.files.read_only },
        hostname,
        mounts: mounts(spec, facts)?,
        annotations: spec.annotations.clone(),
        linux: Linux {
            namespaces: namespaces(spec, facts)?,
            devices: devices(spec, facts)?,
            masked_paths: masked,
            readonly_paths: read_only,
            sysctl: sysctls(spec)?,
            ..Linux::default()
        },
    })
}

/// It gets what systemd needs.
pub fn is_systemd(spec: &ContainerSpec, image: &Config) -> bool {
    let program = command(spec, image).into_iter().next().unwrap_or_default();
    match spec.process.systemd {
        Systemd::Always => true,
        Systemd::Never => false,
        Systemd::Auto => {
            matches!(program.as_str(), "/usr/sbin/init" | "/sbin/init" | "/usr/local/sbin/init")
                || program.rsplit('/').next() == Some("systemd")
        }
    }
}

/// The host name: given, or the first of the id; none if the host's is kept.
pub fn hostname(spec: &ContainerSpec, facts: &Facts<'_>) -> Option<String> {
    match (&spec.process.hostname, &spec.namespaces.uts) {
        (Some(name), _) => Some(name.clone()),
        (None, Namespace::Host | Namespace::Container(_) | Namespace::Path(_)) => None,
        (None, _) => Some(facts.id[..12].to_string()),
    }
}

/// What runs: entrypoint and command, the image's where none was given.
pub fn command(spec: &ContainerSpec, image: &Config) -> Vec<String> {
    let entrypoint = spec.process.entrypoint.clone();
    let command = match (&spec.process.command[..], &entrypoint) {
        ([], None) => image.cmd.clone(),
        // an entrypoint that was given does not go with the image's arguments
        ([], Some(_)) => Vec::new(),
        (given, _) => given.to_vec(),
    };
    let mut args = entrypoint.unwrap_or_else(|| image.entrypoint.clone());
    args.extend(command);
    args
}

fn process(spec: &ContainerSpec, facts: &Facts<'_>) -> Result<Process> {
    let args = command(spec, facts.image);
    if args.is_empty() {
        let text = "no command or entrypoint provided, and no CMD or ENTRYPOINT from image";
        return Err(Error::new(ErrorKind::CommandNotFound, text));
    }
    let no_new_privileges = spec.security.options.iter().any(|o| {
        matches!(o.as_str(), "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true")
    });
    let security = &spec.security;
    Ok(Process {
        terminal: spec.process.terminal,
        user: User {
            uid: facts.user.uid,
            gid: facts.user.gid,
            umask: Some(spec.process.umask.unwrap_or(0o022)),
            additional_gids: facts.user.groups.clone(),
        },
        args,
        env: environment(spec, facts),
        cwd: spec
            .process
            .workdir
            .clone()
            .or_else(|| Some(facts.image.working_dir.clone()).filter(|d| !d.is_empty()))
            .unwrap_or_else(|| "/".into()),
        make_cwd: spec.process.workdir.is_none(),
        keep_groups: spec.process.groups.iter().any(|g| g == crate::users::KEEP_GROUPS),
        capabilities: capabilities::sets(security, false, facts.user.uid, facts.capabilities)?,
        rlimits: rlimits(spec, facts.rlimits, facts.in_user_namespace),
        no_new_privileges,
        oom_score_adj: spec.process.oom_score_adj,
    })
}

/// Later ones win; the order is that of their first appearance.
fn environment(spec: &ContainerSpec, facts: &Facts<'_>) -> Vec<String> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match all.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value.to_string(),
        None => all.push((name.to_string(), value.to_string())),
    };
    set("PATH", PATH);
    // the value that programs know for a container like this
    set("container", "podman");
    if spec.process.terminal {
        set("TERM", "xterm");
    }
    spec.process.default_env.iter().for_each(|(name, value)| set(name, value));
    if spec.process.http_proxy.unwrap_or(true) {
        facts.proxies.iter().for_each(|(name, value)| set(name, value));
    }
    for text in &facts.image.env {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        set(name, value);
    }
    spec.process.host_env.iter().for_each(|(name, value)| set(name, value));
    spec.process.env.iter().for_each(|(name, value)| set(name, value));
    for (name, value) in &spec.process.env_merge {
        let merged = expand(value, &all);
        match all.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = merged,
            None => all.push((name.clone(), merged)),
        }
    }
    let notify = facts.notify.map(|_| ("NOTIFY_SOCKET".to_string(), crate::sdnotify::SOCKET.to_string()));
    for (name, value) in facts.activation.iter().chain(&notify).chain(facts.secrets.1) {
        all.retain(|(known, _)| known != name);
        all.push((name.clone(), value.clone()));
    }
    let given = |name: &str| spec.process.env.iter().any(|(known, _)| known == name);
    if spec.process.unset_env_all {
        all.retain(|(name, _)| given(name));
    }
    all.retain(|(name, _)| !spec.process.unset_env.contains(name) || given(name));
    let mut default = |name: &str, value: String| {
        if !all.iter().any(|(known, _)| known == name) && !spec.process.unset_env.iter().any(|u| u == name) {
            all.push((name.into(), value));
        }
    };
    default("HOSTNAME", facts.host_name.to_string());
    if is_systemd(spec, facts.image) {
        default("container_uuid", facts.id[..32].to_string());
    }
    default(
        "HOME",
        facts
            .user
            .home
            .clone()
            .unwrap_or_else(|| if facts.user.uid == 0 { "/root".into() } else { "/".into() }),
    );
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// `${NAME}` and `$NAME` stand for the values that are there.
fn expand(text: &str, known: &[(String, String)]) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded += before;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, tail) = match after.strip_prefix('{').and_then(|a| a.split_once('}')) {
            Some(parts) => parts,
            None => after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len())),
        };
        expanded += known.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v);
        rest = tail;
    }
    expanded + rest
}

/// Resource limits of a container's processes, of those that the engine has: name, soft, hard.
pub fn rlimits(spec: &ContainerSpec, own: &[(String, u64, u64)], in_user_namespace: bool) -> Vec<Rlimit> {
    if spec.process.ulimits.iter().any(|l| l.name == "host") {
        return Vec::new();
    }
    let hard_of = |name: &str| own.iter().find(|(known, ..)| known == name).map(|(_, _, hard)| *hard);
    let mut all: Vec<Rlimit> = ["nofile", "nproc"]
        .iter()
        .map(|name| {
            let limit = hard_of(name).unwrap_or(1 << 20).min(1 << 20);
            Rlimit { kind: kind_of(name), soft: limit, hard: limit }
        })
        .collect();
    for limit in &spec.process.ulimits {
        let name = limit.name.to_ascii_lowercase();
        let kind = kind_of(name.trim_start_matches("rlimit_"));
        // (without limit is as far as it can be had)
        let most = hard_of(name.trim_start_matches("rlimit_")).filter(|_| in_user_namespace);
        let bounded = |value: u64| if value == u64::MAX { most.unwrap_or(value) } else { value };
        let new = Rlimit { kind: kind.clone(), soft: bounded(limit.soft), hard: bounded(limit.hard) };
        all.retain(|l| l.kind != kind);
        all.push(new);
    }
    all
}

fn kind_of(name: &str) -> String {
    format!("RLIMIT_{}", name.to_ascii_uppercase())
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: source.into(),
        options: options.iter().map(|o| o.to_string()).collect(),
    }
}

fn mounts(spec: &ContainerSpec, facts: &Facts<'_>) -> Result<Vec<Mount>> {
    let mut all = base_mounts(spec, facts)?;
    for (name, path) in facts.files {
        let source = facts.run_dir.join(name);
        // (a directory that the user mounts read-only may lack it)
        let mut options = vec!["bind", "rprivate", "nosuid", "nodev", "noexec", "optional"];
        if spec.files.read_only {
            options.push("ro");
        }
        all.push(mount(path, "bind", &source.to_string_lossy(), &options));
    }
    if let Some(program) = facts.init {
        all.push(mount(
            INIT_PATH,
            "bind",
            &program.to_string_lossy(),
            &["bind", "rprivate", "ro", "nosuid", "nodev"],
        ));
    }
    let wanted: Vec<Mount> = facts.mounts.iter().map(user_mount).collect::<Result<_>>()?;
    let mut memory: Vec<(&str, &[&str])> = Vec::new();
    if is_systemd(spec, facts.image) {
        memory.extend([
            ("/run", &["rw", "nosuid", "nodev", "tmpcopyup", "mode=0755"][..]),
            ("/run/lock", &["rw", "nosuid", "nodev", "tmpcopyup", "mode=1777"]),
            ("/tmp", &["rw", "nosuid", "nodev", "tmpcopyup", "mode=1777"]),
            ("/var/log/journal", &["rw", "nosuid", "nodev", "tmpcopyup", "mode=0755"]),
        ]);
    }
    if spec.files.read_only && spec.files.read_only_tmpfs.unwrap_or(true) {
        for (path, mode) in [("/run", "mode=0755"), ("/tmp", "mode=1777"), ("/var/tmp", "mode=1777")] {
            if !memory.iter().any(|(taken, _)| *taken == path) {
                all.insert(
                    all.len() - facts.files.len() - usize::from(facts.init.is_some()),
                    mount(path, "tmpfs", "tmpfs", &["rw", "nosuid", "nodev", "tmpcopyup", mode]),
                );
            }
        }
    }
    for (path, options) in memory {
        let at = all.len() - facts.files.len() - usize::from(facts.init.is_some());
        all.insert(at, mount(path, "tmpfs", "tmpfs", options));
    }
    if let Some(dir) = facts.notify {
        let options = ["bind", "rprivate", "nosuid", "nodev", "noexec"];
        all.push(mount("/run/notify", "bind", &dir.to_string_lossy(), &options));
    }
    for (file, path) in facts.secrets.0 {
        let options = ["bind", "rprivate", "nosuid", "nodev", "noexec", "ro"];
        all.push(mount(path, "bind", &file.to_string_lossy(), &options));
    }
    // what the user mounts replaces what would be there, and parents come before their children
    all.retain(|m| !wanted.iter().any(|w| w.destination == m.destination));
    all.extend(wanted);
    all.sort_by_key(|m| m.destination.trim_end_matches('/').matches('/').count());
    Ok(all)
}

fn base_mounts(spec: &ContainerSpec, facts: &Facts<'_>) -> Result<Vec<Mount>> {
    let privileged = spec.security.privileged;
    let systemd = is_systemd(spec, facts.image);
    let proc_options = spec.security.options.iter().find_map(|o| o.strip_prefix("proc-opts="));
    let mut proc = mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]);
    proc.options.extend(proc_options.iter().flat_map(|o| o.split(',')).map(str::to_string));
    let mut pts = vec!["nosuid", "noexec", "ptmxmode=0666", "mode=0620"];
    if facts.has_tty_group {
        pts.push("gid=5");
    }
    let sys_access = if privileged { "rw" } else { "ro" };
    // sysfs shows the network namespace, so it can be mounted only by its owner
    let own_network = facts.network.as_ref().is_some_and(|p| p.as_os_str().is_empty());
    let sys = match own_network || !facts.in_user_namespace {
        true => mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys_access]),
        false => mount("/sys", "bind", "/sys", &["rbind", "rprivate", "nosuid", "noexec", "nodev", "rro"]),
    };
    // (without those tmpfs nothing at all can be written to)
    let sealed = spec.files.read_only && spec.files.read_only_tmpfs == Some(false);
    let mut dev = vec!["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"];
    dev.extend(sealed.then_some("ro"));
    let mut all = vec![
        match facts.in_user_namespace && facts.shares_pid {
            // (only the owner of a namespace may mount its processes)
            true => mount("/proc", "bind", "/proc", &["rbind", "rprivate", "nosuid", "noexec", "nodev"]),
            false => proc,
        },
        mount("/dev", "tmpfs", "tmpfs", &dev),
        sys,
        mount("/dev/pts", "devpts", "devpts", &pts),
        match &spec.namespaces.ipc {
            Namespace::Host if facts.in_user_namespace => mount(
                "/dev/mqueue",
                "bind",
                "/dev/mqueue",
                &["bind", "rprivate", "nosuid", "noexec", "nodev"],
            ),
            // (only the owner of a namespace may mount its queues)
            Namespace::Container(_) if facts.in_user_namespace => mount(
                "/dev/mqueue",
                "bind",
                &(facts.join)(&spec.namespaces.ipc, "mqueue")?.to_string_lossy(),
                &["bind", "rprivate", "nosuid", "noexec", "nodev"],
            ),
            _ => mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        },
    ];
    let size = format!("size={}", spec.files.shm_size.unwrap_or(64 << 20));
    let mut shm = vec!["nosuid", "noexec", "nodev", "mode=1777", size.as_str()];
    shm.extend(sealed.then_some("ro"));
    match &spec.namespaces.ipc {
        Namespace::Host => all.push(mount(
            "/dev/shm",
            "bind",
            "/dev/shm",
            &["bind", "rprivate", "nosuid", "noexec", "nodev"],
        )),
        Namespace::None => {}
        Namespace::Container(_) | Namespace::Path(_) => {
            let shm = (facts.join)(&spec.namespaces.ipc, "shm")?;
            all.push(mount(
                "/dev/shm",
                "bind",
                &shm.to_string_lossy(),
                &["bind", "rprivate", "nosuid", "noexec", "nodev"],
            ));
        }
        _ => all.push(mount("/dev/shm", "tmpfs", "shm", &shm)),
    }
    let own_cgroup = matches!(spec.namespaces.cgroup, Namespace::Default | Namespace::Private);
    if spec.namespaces.cgroup == Namespace::Host {
        // as the host has it, with the controllers of version 1 on a hybrid one
        let mut options = vec!["rbind", "rprivate", "nosuid", "noexec", "nodev"];
        options.extend((!privileged).then_some("rro"));
        all.push(mount("/sys/fs/cgroup", "bind", "/sys/fs/cgroup", &options));
    } else if own_cgroup || !facts.in_user_namespace {
        all.push(mount(
            "/sys/fs/cgroup",
            "cgroup2",
            "cgroup",
            &["nosuid", "noexec", "nodev", if privileged || systemd { "rw" } else { "ro" }],
        ));
    }
    Ok(all)
}

/// A mount of the user's, with the defaults of its kind.
pub(crate) fn user_mount(wanted: &crate::spec::Mount) -> Result<Mount> {
    let has = |name: &str| wanted.options.iter().any(|o| o == name);
    let mut options: Vec<String> = wanted
        .options
        .iter()
        .filter(|o| {
            !matches!(o.as_str(), "z" | "Z" | "U" | "copy" | "nocopy" | "O" | "notmpcopyup" | "chown=true")
        })
        .filter(|o| !["upperdir=", "workdir=", "volume-opt="].iter().any(|p| o.starts_with(p)))
        .cloned()
        .collect();
    match wanted.kind {
        MountKind::Bind | MountKind::Glob | MountKind::Volume => {
            if has("O") {
                return overlay_mount(wanted);
            }
            for default in volume_defaults(wanted) {
                options.insert(0, default.into());
            }
            // what is mounted below the source comes with it, and is read-only as well
            if has("ro") && !has("bind") {
                options.push("rro".into());
            }
            if !options
                .iter()
                .any(|o| matches!(o.trim_start_matches('r'), "private" | "shared" | "slave" | "unbindable"))
            {
                options.push("rprivate".into());
            }
            Ok(Mount {
                destination: wanted.target.clone(),
                kind: "bind".into(),
                source: wanted.source.clone(),
                options,
            })
        }
        MountKind::Tmpfs | MountKind::Ramfs => {
            for (default, other) in [("nosuid", "suid"), ("nodev", "dev")] {
                if !has(default) && !has(other) {
                    options.push(default.into());
                }
            }
            if !has("notmpcopyup") && !has("tmpcopyup") && wanted.kind == MountKind::Tmpfs {
                options.push("tmpcopyup".into());
            }
            let kind = if wanted.kind == MountKind::Tmpfs { "tmpfs" } else { "ramfs" };
            Ok(Mount { destination: wanted.target.clone(), kind: kind.into(), source: kind.into(), options })
        }
        MountKind::Image => Ok(image_mount(wanted)),
        MountKind::Filesystem => {
            let kind = options.iter().find_map(|o| o.strip_prefix("fstype=")).unwrap_or_default().to_string();
            options.retain(|o| !o.starts_with("fstype="));
            Ok(Mount { destination: wanted.target.clone(), kind, source: wanted.source.clone(), options })
        }
        MountKind::Devpts => {
            for default in ["nosuid", "noexec", "ptmxmode=0666", "mode=0620"] {
                let key = default.split('=').next().unwrap_or(default);
                if !options.iter().any(|o| o.starts_with(key)) {
                    options.push(default.into());
                }
            }
            Ok(Mount {
                destination: wanted.target.clone(),
                kind: "devpts".into(),
                source: "devpts".into(),
                options,
            })
        }
    }
}

/// What a bind or a volume is besides what was asked for.
pub fn volume_defaults(wanted: &crate::spec::Mount) -> Vec<&'static str> {
    let has = |names: &[&str]| wanted.options.iter().any(|o| names.contains(&o.as_str()));
    let of_volumes = wanted.kind == MountKind::Volume;
    let mut all = Vec::new();
    all.extend((of_volumes && !has(&["suid", "nosuid"])).then_some("nosuid"));
    all.extend((of_volumes && !has(&["dev", "nodev"])).then_some("nodev"));
    all.extend((!has(&["bind", "rbind"])).then_some("rbind"));
    all
}

/// An image's layers; without a directory to write to, read-only.
fn image_mount(wanted: &crate::spec::Mount) -> Mount {
    let destination = wanted.target.clone();
    let layers: Vec<&str> = wanted.options.iter().filter_map(|o| o.strip_prefix("lowerdir+=")).collect();
    let writes = wanted.options.iter().any(|o| o.starts_with("upperdir="));
    let mut options: Vec<String> = Vec::new();
    let refers = wanted.options.iter().any(|o| o.starts_with("datadir+="));
    if let ([only], false) = (&layers[..], writes || refers) {
        // (an overlay has two layers at least)
        options.extend(["bind", "rprivate", "ro", "nosuid", "nodev"].map(String::from));
        return Mount { destination, kind: "bind".into(), source: only.to_string(), options };
    }
    let parts = ["lowerdir+=", "datadir+=", "upperdir=", "workdir="];
    options.extend(wanted.options.iter().filter(|o| parts.iter().any(|p| o.starts_with(p))).cloned());
    options.extend(["userxattr", "nosuid", "nodev"].map(String::from));
    options.extend((!writes).then(|| "ro".into()));
    Mount { destination, kind: "overlay".into(), source: "overlay".into(), options }
}

fn overlay_mount(wanted: &crate::spec::Mount) -> Result<Mount> {
    let value = |key: &str| wanted.options.iter().find_map(|o| o.strip_prefix(key));
    let (Some(upper), Some(work)) = (value("upperdir="), value("workdir=")) else {
        return Err(Error::engine(format_args!(
            "overlay of {}: upperdir and workdir go together",
            wanted.source
        )));
    };
    let options = vec![
        format!("lowerdir+={}", wanted.source),
        format!("upperdir={upper}"),
        format!("workdir={work}"),
        "userxattr".into(),
    ];
    Ok(Mount {
        destination: wanted.target.clone(),
        kind: "overlay".into(),
        source: "overlay".into(),
        options,
    })
}

fn namespaces(spec: &ContainerSpec, facts: &Facts<'_>) -> Result<Vec<NamespaceSpec>> {
    let mut all = Vec::new();
    let mut add = |kind: &str, path: Option<PathBuf>| all.push(NamespaceSpec { kind: kind.into(), path });
    add("mount", None);
    let choices = [
        ("pid", &spec.namespaces.pid),
        ("ipc", &spec.namespaces.ipc),
        ("uts", &spec.namespaces.uts),
        ("cgroup", &spec.namespaces.cgroup),
    ];
    for (kind, choice) in choices {
        match choice {
            Namespace::Host => {}
            Namespace::Default | Namespace::Private | Namespace::None | Namespace::Shareable => {
                add(kind, None)
            }
            other => add(kind, Some((facts.join)(other, kind)?)),
        }
    }
    match &facts.network {
        None => {}
        Some(path) if path.as_os_str().is_empty() => add("network", None),
        Some(path) => add("network", Some(path.clone())),
    }
    if let Some(path) = &facts.user_namespace {
        add("user", Some(path.clone()).filter(|p| !p.as_os_str().is_empty()));
    }
    Ok(all)
}

/// Masked and read-only paths, with what `--security-opt mask=` and `unmask=` say.
fn hidden_paths(spec: &ContainerSpec, facts: &Facts<'_>) -> (Vec<String>, Vec<String>) {
    let list = |paths: &[&str]| paths.iter().map(|p| p.to_string()).collect::<Vec<_>>();
    let (mut masked, mut read_only) = match spec.security.privileged {
        true => (Vec::new(), Vec::new()),
        false => ([list(&MASKED), facts.throttles.to_vec()].concat(), list(&READ_ONLY)),
    };
    let values = |key: &str| {
        let texts: Vec<String> = spec
            .security
            .options
            .iter()
            .filter_map(|o| o.strip_prefix(key).or_else(|| o.strip_prefix(&key.replace('=', ":"))))
            .flat_map(|v| v.split(':'))
            .map(str::to_string)
            .collect();
        texts
    };
    for path in values("unmask=") {
        let matches =
            |known: &String| path.eq_ignore_ascii_case("all") || *known == path || glob(&path, known);
        masked.retain(|known| !matches(known));
        read_only.retain(|known| !matches(known));
    }
    masked.extend(values("mask="));
    (masked, read_only)
}

/// `*` stands for any letters but `/`.
pub fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len())
                .take_while(|n| !rest.as_bytes()[..*n].contains(&b'/'))
                .any(|n| rest.is_char_boundary(n) && glob(after, &rest[n..]))
        }),
    }
}

fn sysctls(spec: &ContainerSpec) -> Result<std::collections::BTreeMap<String, String>> {
    let of = |name: &str, prefixes: &[&str]| prefixes.iter().any(|p| name.starts_with(p));
    let of_host = |name: &str| {
        let network = of(name, &["net."]) && spec.network.mode.as_deref() == Some("host");
        let ipc = of(name, &["kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue."])
            && spec.namespaces.ipc == Namespace::Host;
        if network { Some("network") } else { ipc.then_some("ipc") }
    };
    for name in spec.security.sysctls.keys() {
        if let Some(kind) = of_host(name) {
            return Err(Error::engine(format_args!(
                "sysctl {name} can't be set since the {kind} namespace is the host's: sysctls of it would be the host's"
            )));
        }
        if !of(
            name,
            &["net.", "kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.", "kernel.domainname", "user."],
        ) {
            return Err(Error::engine(format_args!(
                "sysctl {name} is not in a namespace: it would change the host"
            )));
        }
    }
    // (a network that is joined has the settings of whoever made it)
    let joined =
        spec.network.mode.as_deref().is_some_and(|m| m.starts_with("container:") || m.starts_with("ns:"));
    let defaults = spec.security.default_sysctls.iter();
    let defaults = defaults.filter(|(name, _)| of_host(name).is_none() && !(joined && of(name, &["net."])));
    let mut all: std::collections::BTreeMap<_, _> =
        defaults.map(|(name, value)| (name.clone(), value.clone())).collect();
    all.extend(spec.security.sysctls.clone());
    Ok(all)
}

fn devices(spec: &ContainerSpec, facts: &Facts<'_>) -> Result<Vec<Device>> {
    let mut all: Vec<Device> =
        if spec.security.privileged { facts.host_devices.to_vec() } else { Vec::new() };
    if is_systemd(spec, facts.image) {
        // (it would start a getty on each of the host's virtual terminals)
        all.retain(|d| {
            let number = d.path.strip_prefix("/dev/tty");
            !number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        });
    }
    for wanted in &spec.files.devices {
        all.extend(device_of(&wanted.source, &wanted.target)?);
    }
    Ok(all)
}

/// A device of the host, or all of a directory.
pub fn device_of(source: &Path, target: &Path) -> Result<Vec<Device>> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let meta = std::fs::metadata(source)
        .map_err(|e| Error::engine(format_args!("stat {}: {}", source.display(), reason(&e))))?;
    if meta.is_dir() {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(source)
            .map_err(|e| Error::engine(format_args!("read {}: {e}", source.display())))?
            .flatten()
        {
            let kind = entry.file_type().ok();
            if kind.is_some_and(|k| k.is_char_device() || k.is_block_device() || k.is_dir()) {
                all.extend(device_of(&entry.path(), &target.join(entry.file_name()))?);
            }
        }
        return Ok(all);
    }
    let kind = match meta.file_type() {
        k if k.is_char_device() => "c",
        k if k.is_block_device() => "b",
        _ => return Err(Error::engine(format_args!("{} is not a valid device", source.display()))),
    };
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    Ok(vec![Device {
        path: target.to_string_lossy().into_owned(),
        kind: kind.into(),
        major,
        minor,
        file_mode: Some(meta.mode() & 0o777),
        source: source.into(),
    }])
}

/// An I/O error's reason without its number, in lower case as messages have it.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, matches) in [
            ("/proc/*", "/proc/kcore", true),
            ("/sys/*", "/sys/dev/block", false),
            ("/sys/*/*", "/sys/dev/block", true),
            ("/a", "/a", true),
            ("*", "", true),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn what_runs() {
        let image =
            Config { entrypoint: vec!["/entry".into()], cmd: vec!["arg".into()], ..Config::default() };
        let of = |entrypoint: Option<&[&str]>, command: &[&str]| {
            let mut spec = ContainerSpec::default();
            spec.process.entrypoint = entrypoint.map(|e| e.iter().map(|s| s.to_string()).collect());
            spec.process.command = command.iter().map(|s| s.to_string()).collect();
            super::command(&spec, &image).join(" ")
        };
        assert_eq!(of(None, &[]), "/entry arg");
        assert_eq!(of(None, &["x"]), "/entry x");
        assert_eq!(of(Some(&["/mine"]), &[]), "/mine");
        assert_eq!(of(Some(&[]), &["x"]), "x");
        assert_eq!(of(Some(&[]), &[]), "");
    }
}
