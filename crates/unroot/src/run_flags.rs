//! Flags of `run` and `create`, and what they mean as a [`ContainerSpec`].

use std::path::PathBuf;

use unroot_engine::images::PullOptions;
use unroot_engine::secrets::{SecretKind, SecretUse};
use unroot_engine::spec::{ContainerSpec, Device, Namespace, PullPolicy, Restart, Root, Systemd, Ulimit};

use crate::cli::{Args, CliError, Flag, Kind, flag};
use crate::mount_flags;
use unroot_engine::volumes::idmap;

use Kind::{Bool, List, Repeat, Value};

/// Flags of both.
pub const FLAGS: &[Flag] = &[
    flag("add-host", ' ', Repeat, "Add a line to /etc/hosts: NAME[;NAME]:IP"),
    flag("annotation", ' ', Repeat, "Add an annotation KEY=VALUE"),
    flag("arch", ' ', Value, "Use an image for this architecture"),
    flag("authfile", ' ', Value, "File with credentials for registries"),
    flag("blkio-weight", ' ', Value, "Share of block I/O, 10 to 1000"),
    flag("blkio-weight-device", ' ', Repeat, "Share of a device's I/O: PATH:WEIGHT"),
    flag("cap-add", ' ', List, "Add capabilities"),
    flag("cap-drop", ' ', List, "Drop capabilities"),
    flag("cert-dir", ' ', Value, "Directory with certificates for registries"),
    flag("cgroup-conf", ' ', Repeat, "Write FILE=VALUE to the control group"),
    flag("cgroup-parent", ' ', Value, "Parent of the control group"),
    flag("cgroupns", ' ', Value, "Cgroup namespace: private, host, container:NAME, ns:PATH"),
    flag("cgroups", ' ', Value, "Control group: enabled, disabled, no-conmon"),
    flag("cidfile", ' ', Value, "Write the container's id to this file"),
    flag("conmon-pidfile", ' ', Value, "Write the monitor's process id to this file"),
    flag("cpu-period", ' ', Value, "Period of the CPU limit, microseconds"),
    flag("cpu-quota", ' ', Value, "CPU time in a period, microseconds"),
    flag("cpu-rt-period", ' ', Value, "Real-time period (cgroup v1 only: refused)"),
    flag("cpu-rt-runtime", ' ', Value, "Real-time CPU time (cgroup v1 only: refused)"),
    flag("cpu-shares", 'c', Value, "Share of the CPU"),
    flag("cpus", ' ', Value, "Number of CPUs"),
    flag("cpuset-cpus", ' ', Value, "CPUs to run on: 0-3, 0,1"),
    flag("cpuset-mems", ' ', Value, "Memory nodes to use"),
    flag("creds", ' ', Value, "USER:PASSWORD for the registry"),
    flag("device", ' ', Repeat, "Add a device HOST[:CONTAINER[:PERMISSIONS]]"),
    flag(
        "default-mounts-file",
        ' ',
        Value,
        "File with lines HOST[:CONTAINER]: what every container gets copies of",
    ),
    flag("device-cgroup-rule", ' ', Repeat, "Allow devices: TYPE MAJOR:MINOR ACCESS, such as c 189:* rwm"),
    flag("device-read-bps", ' ', Repeat, "Limit reading from a device: PATH:BYTES"),
    flag("device-read-iops", ' ', Repeat, "Limit reads from a device: PATH:NUMBER"),
    flag("device-write-bps", ' ', Repeat, "Limit writing to a device: PATH:BYTES"),
    flag("device-write-iops", ' ', Repeat, "Limit writes to a device: PATH:NUMBER"),
    flag("dns", ' ', List, "Name servers"),
    flag("dns-option", ' ', List, "Options of the resolver"),
    flag("dns-search", ' ', List, "Search domains"),
    flag("entrypoint", ' ', Value, "Replace the image's entrypoint"),
    flag("env", 'e', Repeat, "Set an environment variable: NAME=VALUE, NAME, NAME*"),
    flag("env-file", ' ', Repeat, "Read environment variables from a file"),
    flag("env-merge", ' ', Repeat, "Set a variable from the image's: PATH=${PATH}:/x"),
    flag("env-host", ' ', Bool, "Use the environment of the caller"),
    flag("expose", ' ', Repeat, "Expose a port"),
    flag("gidmap", ' ', Repeat, "Group ids of the container's user namespace"),
    flag("group-add", ' ', List, "Add groups to the process"),
    flag("group-entry", ' ', Value, "Line for /etc/group"),
    flag("hostname", 'h', Value, "Host name of the container"),
    flag("hosts-file", ' ', Value, "Base of /etc/hosts: a path, image, none"),
    flag("hostuser", ' ', Repeat, "Add a user of the host to /etc/passwd"),
    flag("http-proxy", ' ', Bool, "Hand on the proxy variables (default true)"),
    flag("image-volume", ' ', Value, "What becomes of the image's volumes: anonymous, tmpfs, ignore"),
    flag("init", ' ', Bool, "Run an init that hands signals on and reaps processes"),
    flag("init-path", ' ', Value, "Program of --init"),
    flag("interactive", 'i', Bool, "Keep standard input open"),
    flag("ipc", ' ', Value, "IPC namespace: private, shareable, none, host, container:NAME, ns:PATH"),
    flag("label", 'l', Repeat, "Add a label KEY=VALUE"),
    flag("label-file", ' ', Repeat, "Read labels from a file"),
    flag("log-driver", ' ', Value, "Log driver: k8s-file, json-file, none, passthrough"),
    flag(
        "log-opt",
        ' ',
        Repeat,
        "Option of the log driver: path=, max-size=, max-file=, compress=true, tag=",
    ),
    flag("memory", 'm', Value, "Memory limit"),
    flag("memory-reservation", ' ', Value, "Memory that is kept for the container"),
    flag("memory-swap", ' ', Value, "Memory and swap together; -1 for no limit"),
    flag("memory-swappiness", ' ', Value, "Tendency to swap (cgroup v1 only: refused)"),
    flag("mount", ' ', Repeat, "Mount: type=bind|volume|tmpfs|devpts|ramfs|glob,src=,dst=,..."),
    flag("name", ' ', Value, "Name of the container"),
    flag("network", ' ', Repeat, "Network: none, host, private, pasta[:OPTIONS], container:NAME, ns:PATH"),
    flag("no-hostname", ' ', Bool, "Do not make /etc/hostname"),
    flag("no-hosts", ' ', Bool, "Do not make /etc/hosts"),
    flag("oom-kill-disable", ' ', Bool, "No OOM killer (cgroup v1 only: refused)"),
    flag("oom-score-adj", ' ', Value, "Preference of the OOM killer, -1000 to 1000"),
    flag("os", ' ', Value, "Use an image for this operating system"),
    flag("passwd", ' ', Bool, "Add a missing user to /etc/passwd (default true)"),
    flag("passwd-entry", ' ', Value, "Line for /etc/passwd"),
    flag("pid", ' ', Value, "PID namespace: private, host, container:NAME, ns:PATH"),
    flag("pidfile", ' ', Value, "Write the container's process id to this file"),
    flag("pids-limit", ' ', Value, "Number of processes; -1 for no limit"),
    flag("platform", ' ', Value, "Use an image for OS/ARCH[/VARIANT]"),
    flag("pod", ' ', Value, "Make it a container of this pod; new:NAME makes the pod, too"),
    flag("pod-id-file", ' ', Value, "Read the pod's id from this file"),
    flag("privileged", ' ', Bool, "All capabilities, devices, and no filter"),
    flag("publish", 'p', List, "Publish a port: [[IP:][HOST]:]CONTAINER[/PROTOCOL]"),
    flag("publish-all", 'P', Bool, "Publish all exposed ports"),
    flag("pull", ' ', Value, "When to pull: missing, always, never, newer"),
    flag("quiet", 'q', Bool, "Do not show how a pull goes"),
    flag("read-only", ' ', Bool, "Make the root filesystem read-only"),
    flag(
        "read-only-tmpfs",
        ' ',
        Bool,
        "With --read-only, /run, /tmp and /var/tmp are writable (default true)",
    ),
    flag("replace", ' ', Bool, "Replace a container of the same name"),
    flag("restart", ' ', Value, "Start it again after its end: no, on-failure[:MAX], always, unless-stopped"),
    flag("retry", ' ', Value, "How often to try again when performing pull (default 3)"),
    flag("retry-delay", ' ', Value, "Pause between tries after pull failures"),
    flag("rm", ' ', Bool, "Remove the container when it ends"),
    flag("rootfs", ' ', Bool, "The argument is a directory, not an image; DIR:O keeps it as it is"),
    flag(
        "sdnotify",
        ' ',
        Value,
        "Who tells the service manager that it is ready: container, conmon, healthy, ignore",
    ),
    flag("secret", ' ', Repeat, "Hand on a secret: NAME[,type=mount|env][,target=][,uid=][,gid=][,mode=]"),
    flag(
        "security-opt",
        ' ',
        Repeat,
        "no-new-privileges, seccomp=FILE|unconfined, mask=, unmask=, proc-opts=",
    ),
    flag("shm-size", ' ', Value, "Size of /dev/shm"),
    flag("stop-signal", ' ', Value, "Signal that asks the container to stop"),
    flag("stop-timeout", ' ', Value, "Seconds until it is killed"),
    flag("subgidname", ' ', Value, "Take group ids of this name of /etc/subgid"),
    flag("subuidname", ' ', Value, "Take user ids of this name of /etc/subuid"),
    flag("sysctl", ' ', List, "Set a kernel setting of the container's namespaces"),
    flag("systemd", ' ', Value, "Prepare for systemd: true (if the command is one), false, always"),
    flag("timeout", ' ', Value, "Seconds the container may run"),
    flag("tls-verify", ' ', Bool, "Require HTTPS and verify certificates"),
    flag("tmpfs", ' ', Repeat, "Mount a tmpfs: PATH[:OPTIONS]"),
    flag("tty", 't', Bool, "Give it a terminal"),
    flag("tz", ' ', Value, "Time zone, or local"),
    flag("uidmap", ' ', Repeat, "User ids of the container's user namespace"),
    flag("ulimit", ' ', List, "Resource limit NAME=SOFT[:HARD], or host"),
    flag("umask", ' ', Value, "umask of the process, octal"),
    flag("unsetenv", ' ', Repeat, "Unset a variable of the image"),
    flag("unsetenv-all", ' ', Bool, "Unset all variables of the image"),
    flag("user", 'u', Value, "USER[:GROUP] by name or number"),
    flag(
        "userns",
        ' ',
        Value,
        "User namespace: host, keep-id[:uid=,gid=,size=], nomap, auto[:size=,uidmapping=,gidmapping=], container:NAME, ns:PATH",
    ),
    flag("uts", ' ', Value, "UTS namespace: private, host, container:NAME, ns:PATH"),
    flag("variant", ' ', Value, "Use an image for this variant of the architecture"),
    flag("volume", 'v', Repeat, "Mount: [SOURCE:]TARGET[:OPTIONS]"),
    flag("volumes-from", ' ', Repeat, "Mount the volumes of another container: NAME[:ro]"),
    flag("workdir", 'w', Value, "Working directory"),
];

/// Flags of both, with those of health checks.
pub fn all() -> Vec<Flag> {
    [FLAGS, &crate::health_flags::FLAGS].concat()
}

fn namespace(text: Option<&str>, kind: &str) -> Result<Namespace, CliError> {
    let text = text.unwrap_or("");
    match text.split_once(':').unwrap_or((text, "")) {
        ("", "") => Ok(Namespace::Default),
        ("private", "") => Ok(Namespace::Private),
        ("host", "") => Ok(Namespace::Host),
        ("none", "") if kind == "ipc" => Ok(Namespace::None),
        ("shareable", "") if kind == "ipc" => Ok(Namespace::Shareable),
        ("container", name) if !name.is_empty() => Ok(Namespace::Container(name.into())),
        ("ns", path) if !path.is_empty() => Ok(Namespace::Path(path.into())),
        _ => Err(CliError::new(format!("unrecognized namespace mode {text} passed to --{kind}"))),
    }
}

/// `NAME=VALUE`, `NAME` of the caller, `PREFIX*` of the caller.
pub fn environment(args: &Args) -> Result<Vec<(String, String)>, CliError> {
    let mut all = Vec::new();
    for file in args.all("env-file") {
        let text = std::fs::read(file).map_err(|e| {
            CliError::new(format!(
                "parsing environment variables: open {file}: {}",
                unroot_engine::plan::reason(&e)
            ))
        })?;
        for line in String::from_utf8_lossy(&text)
            .lines()
            .map(str::trim_start)
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
        {
            add_variable(&mut all, line)?;
        }
    }
    for text in args.all("env") {
        add_variable(&mut all, text)?;
    }
    Ok(all)
}

fn add_variable(all: &mut Vec<(String, String)>, text: &str) -> Result<(), CliError> {
    match text.split_once('=') {
        Some(("", _)) => return Err(CliError::new(format!("invalid environment variable: \"{text}\""))),
        Some((name, value)) => all.push((name.into(), value.into())),
        None => match text.strip_suffix('*') {
            Some(prefix) => all.extend(std::env::vars().filter(|(name, _)| name.starts_with(prefix))),
            None => all.extend(std::env::var(text).ok().map(|value| (text.to_string(), value))),
        },
    }
    Ok(())
}

fn log_options(given: &[String]) -> Result<Vec<String>, CliError> {
    for option in given {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let fits = match name {
            "path" | "tag" | "max-size" | "size" => true,
            "max-file" => value.parse::<u32>().is_ok_and(|n| n > 0),
            "compress" => matches!(value, "true" | "false"),
            _ => false,
        };
        if !fits {
            return Err(CliError::new(format!("invalid --log-opt {option:?}"))
                .with_hint("it is path=FILE, max-size=10m, max-file=3, compress=true or tag=TEXT"));
        }
    }
    // (the size has another name)
    let renamed = |o: &String| o.strip_prefix("size=").map_or(o.clone(), |size| format!("max-size={size}"));
    Ok(given.iter().map(renamed).collect())
}

/// A signal by name or number, with a dash before it or none.
pub fn signal(text: &str) -> Result<i32, CliError> {
    let text = text.strip_prefix('-').unwrap_or(text);
    unroot_sys::signal::parse(text).ok_or_else(|| match text.parse::<i64>() {
        Ok(number) if number != 0 => CliError::new("valid signals are 1 through 64"),
        _ => CliError::new(format!("invalid signal: {text}")),
    })
}

/// `--ulimit`
pub fn ulimits(args: &Args) -> Result<Vec<Ulimit>, CliError> {
    args.all("ulimit").iter().map(|t| ulimit(t)).collect()
}

fn ulimit(text: &str) -> Result<Ulimit, CliError> {
    if text == "host" {
        return Ok(Ulimit { name: "host".into(), soft: 0, hard: 0 });
    }
    let broken = || {
        CliError::new(format!(
            "ulimit option \"{text}\" requires name=SOFT:HARD, failed to be parsed: invalid ulimit argument: {text}"
        ))
    };
    let (name, value) = text.split_once('=').ok_or_else(broken)?;
    let number = |text: &str| {
        if matches!(text, "-1" | "unlimited") { Ok(u64::MAX) } else { text.parse().map_err(|_| broken()) }
    };
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let limit = Ulimit { name: name.into(), soft: number(soft)?, hard: number(hard)? };
    if limit.soft > limit.hard {
        let shown = |n: u64| if n == u64::MAX { "-1 (unlimited)".into() } else { n.to_string() };
        return Err(CliError::new(format!(
            "ulimit option \"{text}\" requires name=SOFT:HARD, failed to be parsed: ulimit soft limit must be less than or equal to hard limit: soft: {}, hard: {}",
            shown(limit.soft),
            shown(limit.hard)
        )));
    }
    Ok(limit)
}

fn device(text: &str) -> Result<Device, CliError> {
    let mut parts = text.split(':');
    let source = parts.next().unwrap_or_default();
    let (second, third) = (parts.next(), parts.next());
    let is_mode = |s: &str| !s.is_empty() && s.chars().all(|c| "rwm".contains(c));
    let (target, permissions) = match (second, third) {
        (Some(mode), None) if !mode.starts_with('/') => (source, mode),
        (target, mode) => (target.unwrap_or(source), mode.unwrap_or("rwm")),
    };
    if !is_mode(permissions) {
        return Err(CliError::new(format!("invalid device mode {permissions:?} in device {text:?}")));
    }
    if !target.starts_with('/') || parts.next().is_some() {
        return Err(CliError::new(format!("invalid device specification: {text}")));
    }
    Ok(Device { source: source.into(), target: target.into(), permissions: permissions.into() })
}

pub fn labels(args: &Args) -> Result<std::collections::BTreeMap<String, String>, CliError> {
    let mut all = std::collections::BTreeMap::new();
    let mut add = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        all.insert(name.to_string(), value.to_string());
    };
    for file in args.all("label-file") {
        let text = std::fs::read_to_string(file).map_err(|e| {
            CliError::new(format!(
                "unable to process labels: open {file}: {}",
                unroot_engine::plan::reason(&e)
            ))
        })?;
        text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).for_each(&mut add);
    }
    args.all("label").iter().for_each(|text| add(text));
    Ok(all)
}

/// How to ask registries.
pub fn pull_options(args: &Args) -> Result<PullOptions, CliError> {
    let platform = match (args.value("platform"), args.value("os"), args.value("arch"), args.value("variant"))
    {
        (Some(_), _, Some(_), _) | (Some(_), Some(_), ..) => {
            return Err(CliError::new("--platform option can not be specified with --arch or --os"));
        }
        (Some(platform), ..) => Some(platform.to_string()),
        (None, None, None, None) => None,
        (None, os, arch, variant) => {
            let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
            let text = format!("{}/{}", os.unwrap_or("linux"), arch.unwrap_or(host));
            Some(variant.map_or(text.clone(), |v| format!("{text}/{v}")))
        }
    };
    if let Some(file) = args.value("authfile") {
        rustix::fs::access(file, rustix::fs::Access::EXISTS).map_err(|e| {
            let reason = unroot_engine::plan::reason(&e.into());
            CliError::new(format!("credential file is not accessible: faccessat {file}: {reason}"))
        })?;
    }
    Ok(PullOptions {
        tls_verify: args.given_bool("tls-verify"),
        cert_dir: args.value("cert-dir").map(PathBuf::from),
        authfile: args.value("authfile").map(PathBuf::from),
        creds: args.value("creds").map(str::to_string),
        retry: args.number("retry")?,
        retry_delay: match args.value("retry-delay") {
            Some(text) => Some(
                crate::output::duration(text)
                    .ok_or_else(|| CliError::new(format!("time: invalid duration \"{text}\"")))?,
            ),
            None => None,
        },
        platform,
    })
}

fn pull_policy(text: Option<&str>) -> Result<PullPolicy, CliError> {
    match text.map(str::to_ascii_lowercase).as_deref() {
        None | Some("missing" | "ifnotpresent" | "if_not_present" | "") => Ok(PullPolicy::Missing),
        Some("always" | "true") => Ok(PullPolicy::Always),
        Some("never" | "false") => Ok(PullPolicy::Never),
        Some("newer" | "ifnewer") => Ok(PullPolicy::Newer),
        Some(other) => Err(CliError::new(format!("unsupported pull policy \"{other}\""))),
    }
}

fn rootfs(text: &str) -> Root {
    let (path, options) = match text.rsplit_once(':') {
        Some((path, options)) if options == "O" || idmap::is_idmap(options) => (path, options),
        _ => (text, ""),
    };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let shift = idmap::is_idmap(options).then(|| options.to_string());
    Root::Directory { path, overlay: options == "O", shift }
}

/// `--preserve-fds N`, `--preserve-fd FD,...`: descriptors that are open, sorted.
pub fn preserved_fds(args: &Args) -> Result<Vec<u32>, CliError> {
    let count: u32 = args.number("preserve-fds")?.unwrap_or(0);
    let listed = args.all("preserve-fd").iter().map(|text| {
        text.parse::<u32>()
            .map_err(|_| CliError::new(format!("--preserve-fd {text:?} is no descriptor's number")))
    });
    let mut all = (3..3 + count.min(1 << 20)).map(Ok).chain(listed).collect::<Result<Vec<u32>, _>>()?;
    all.sort_unstable();
    all.dedup();
    let is_open = |fd: &u32| std::path::Path::new(&format!("/proc/self/fd/{fd}")).exists();
    match all.iter().find(|fd| !is_open(fd)) {
        Some(fd) => Err(CliError::new(format!(
            "file descriptor {fd} is not available - the preserve-fds option requires that file descriptors must be passed"
        ))),
        None => Ok(all),
    }
}

/// The container that was asked for.
pub fn spec(args: &Args, verb: &str) -> Result<ContainerSpec, CliError> {
    let [image, command @ ..] = &args.rest[..] else {
        return Err(CliError::new(format!(
            "\"{} {verb}\" requires at least 1 arg(s), only received 0",
            unroot_engine::program()
        )));
    };
    conflicts(args)?;
    let mut spec = ContainerSpec { pull: pull_policy(args.value("pull"))?, ..ContainerSpec::default() };
    spec.root = if args.is("rootfs") { rootfs(image) } else { Root::Image(image.clone()) };
    spec.name = args
        .value("name")
        .map(|n| n.strip_prefix('/').unwrap_or(n))
        .filter(|n| !n.is_empty())
        .map(str::to_string);
    spec.labels = labels(args)?;
    spec.annotations = pairs(args.all("annotation"), "annotation")?;
    spec.remove = args.is("rm");
    spec.replace = args.is("replace");
    if spec.replace && spec.name.is_none() {
        return Err(CliError::new("cannot replace container without --name being set"));
    }
    spec.create_command = std::env::args().collect();
    spec.pod = crate::pod_flags::pod_of(args)?;
    fill_process(&mut spec, args, command)?;
    fill_life(&mut spec, args)?;
    fill_files(&mut spec, args)?;
    fill_namespaces(&mut spec, args)?;
    fill_security(&mut spec, args)?;
    fill_limits(&mut spec, args)?;
    spec.secrets = args.all("secret").iter().map(|t| secret(t)).collect::<Result<_, _>>()?;
    crate::health_flags::fill(&mut spec.health, args)?;
    spec.log.driver = args.value("log-driver").map(str::to_string);
    spec.log.options = log_options(args.all("log-opt"))?;
    Ok(spec)
}

/// `NAME[,OPTION=VALUE...]`
fn secret(text: &str) -> Result<SecretUse, CliError> {
    let broken = |what: String| CliError::new(format!("{what}: parsing secret"));
    let mut wanted = SecretUse { mode: 0o444, ..SecretUse::default() };
    let mut owned = false;
    for (n, part) in text.split(',').enumerate() {
        let number = |value: &str, radix| {
            u32::from_str_radix(value, radix).map_err(|_| broken(format!("{part} is not a number")))
        };
        match part.split_once('=') {
            None if n == 0 => wanted.name = part.into(),
            Some(("source" | "id", value)) => wanted.name = value.into(),
            Some(("type", "mount")) => wanted.kind = SecretKind::Mount,
            Some(("type", "env")) => wanted.kind = SecretKind::Env,
            Some(("type", other)) => return Err(broken(format!("type {other} is invalid"))),
            Some(("target", value)) => wanted.target = value.into(),
            Some(("mode", value)) => (owned, wanted.mode) = (true, number(value, 8)? & 0o7777),
            Some(("uid" | "UID", value)) => (owned, wanted.uid) = (true, number(value, 10)?),
            Some(("gid" | "GID", value)) => (owned, wanted.gid) = (true, number(value, 10)?),
            _ => return Err(broken(format!("option {part} invalid"))),
        }
    }
    if wanted.name.is_empty() {
        return Err(broken("no source found".into()));
    }
    if wanted.kind == SecretKind::Env && owned {
        return Err(broken("UID, GID, Mode options cannot be set with secret type env".into()));
    }
    Ok(wanted)
}

fn conflicts(args: &Args) -> Result<(), CliError> {
    let both = |a: &str, b: &str| args.value(a).is_some() && args.value(b).is_some();
    if both("cpu-period", "cpus") || both("cpu-quota", "cpus") {
        let other = if both("cpu-period", "cpus") { "--cpu-period" } else { "--cpu-quota" };
        return Err(CliError::new(format!("{other} and --cpus cannot be set together")));
    }
    if args.is("no-hosts") && !args.all("add-host").is_empty() {
        return Err(CliError::new("--no-hosts and --add-host cannot be set together"));
    }
    if args.is("no-hosts") && args.value("hosts-file").is_some() {
        return Err(CliError::new("--no-hosts and --hosts-file cannot be set together"));
    }
    Ok(())
}

/// `--add-host NAME[;NAME]:IP`
fn added_hosts(args: &Args) -> Result<Vec<String>, CliError> {
    for text in args.all("add-host") {
        let Some((names, ip)) = text.split_once(':').filter(|(names, _)| !names.is_empty()) else {
            return Err(CliError::new(format!("bad format for add-host: {text:?}: it is NAME[;NAME]:IP")));
        };
        if ip != "host-gateway" && ip.parse::<std::net::IpAddr>().is_err() {
            return Err(CliError::new(format!("invalid IP address in add-host: {ip:?} for {names}")));
        }
    }
    Ok(args.all("add-host").to_vec())
}

fn pairs(texts: &[String], flag: &str) -> Result<std::collections::BTreeMap<String, String>, CliError> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) => Ok((name.to_string(), value.to_string())),
            None => Err(CliError::new(format!("--{flag} \"{text}\" must be formatted as KEY=VALUE"))),
        })
        .collect()
}

fn fill_process(spec: &mut ContainerSpec, args: &Args, command: &[String]) -> Result<(), CliError> {
    let text = |name: &str| args.value(name).map(str::to_string);
    let process = &mut spec.process;
    process.command = command.to_vec();
    process.entrypoint = args.value("entrypoint").map(|text| match text {
        "" => Vec::new(),
        json if json.starts_with('[') => {
            serde_json::from_str(json).unwrap_or_else(|_| vec![json.to_string()])
        }
        text => vec![text.to_string()],
    });
    process.terminal = args.is("tty");
    process.interactive = args.is("interactive");
    process.user = text("user").filter(|u| !u.is_empty());
    process.groups = args.all("group-add").to_vec();
    if process.groups.len() > 1 && process.groups.iter().any(|g| g == unroot_engine::users::KEEP_GROUPS) {
        return Err(CliError::new(
            "the '--group-add keep-groups' option is not allowed with any other --group-add options",
        ));
    }
    process.workdir = text("workdir");
    if let Some(dir) = process.workdir.as_ref().filter(|d| !d.starts_with('/')) {
        return Err(CliError::new(format!("working directory \"{dir}\" is not an absolute path")));
    }
    process.env = environment(args)?;
    process.host_env = if args.is("env-host") { std::env::vars().collect() } else { Vec::new() };
    process.unset_env = args.all("unsetenv").to_vec();
    process.unset_env_all = args.is("unsetenv-all");
    process.hostname = text("hostname");
    process.no_hostname = args.is("no-hostname");
    process.init = args.is("init") || args.value("init-path").is_some();
    process.init_path = args.value("init-path").map(PathBuf::from);
    process.umask = match args.value("umask") {
        Some(text) => Some(
            u32::from_str_radix(text, 8)
                .ok()
                .filter(|m| *m <= 0o777)
                .ok_or_else(|| CliError::new(format!("invalid umask {text}: invalid argument")))?,
        ),
        None => None,
    };
    process.ulimits = ulimits(args)?;
    process.oom_score_adj = args.number("oom-score-adj")?;
    if let Some(score) = process.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
        return Err(CliError::new(format!("--oom-score-adj {score}: it is from -1000 to 1000")));
    }
    process.timezone = text("tz");
    process.passwd = args.given_bool("passwd");
    process.passwd_entry = text("passwd-entry");
    process.group_entry = text("group-entry");
    process.preserved_fds = preserved_fds(args)?;
    process.env_merge = pairs(args.all("env-merge"), "env-merge")?.into_iter().collect();
    process.host_users = args.all("hostuser").to_vec();
    process.systemd = match args.value("systemd") {
        None | Some("true") => Systemd::Auto,
        Some("false") => Systemd::Never,
        Some("always") => Systemd::Always,
        Some(other) => {
            return Err(CliError::new(format!(
                "\"{other}\" is not a valid --systemd: it is true, false or always"
            )));
        }
    };
    process.sdnotify = text("sdnotify");
    let modes = unroot_engine::sdnotify::MODES;
    if let Some(other) = process.sdnotify.as_deref().filter(|m| !modes.contains(m)) {
        return Err(CliError::new(format!("invalid sdnotify value {other:?}: must be {}", modes.join(", "))));
    }
    if process.sdnotify.as_deref() != Some("ignore") {
        process.notify_socket = std::env::var("NOTIFY_SOCKET").ok().filter(|v| !v.is_empty());
    }
    process.http_proxy = args.given_bool("http-proxy");
    Ok(())
}

fn fill_life(spec: &mut ContainerSpec, args: &Args) -> Result<(), CliError> {
    spec.life.stop_signal = args.value("stop-signal").map(signal).transpose()?.map(i32::cast_unsigned);
    spec.life.stop_timeout = args.number("stop-timeout")?;
    spec.life.restart = args.value("restart").unwrap_or("no").parse().map_err(CliError::new)?;
    spec.life.restart_of_pod = args.value("restart").is_none();
    if spec.remove && spec.life.restart != Restart::No {
        return Err(CliError::new(
            "the --rm option conflicts with --restart, when the restartPolicy is not \"\" and \"no\"",
        ));
    }
    spec.life.timeout = args.number("timeout")?.unwrap_or(0);
    let path = |name: &str| args.value(name).map(|p| std::path::absolute(p).unwrap_or_else(|_| p.into()));
    spec.life.cidfile = path("cidfile");
    spec.life.pidfile = path("pidfile");
    spec.life.monitor_pidfile = path("conmon-pidfile");
    Ok(())
}

fn fill_files(spec: &mut ContainerSpec, args: &Args) -> Result<(), CliError> {
    let files = &mut spec.files;
    files.mounts = mount_flags::all(args)?;
    files.volumes_from = args.all("volumes-from").to_vec();
    files.image_volume = args.value("image-volume").map(str::to_string);
    if let Some(other) =
        files.image_volume.as_deref().filter(|v| !matches!(*v, "anonymous" | "bind" | "tmpfs" | "ignore"))
    {
        return Err(CliError::new(format!(
            "invalid image-volume type \"{other}\". Pick one of bind, tmpfs, or ignore"
        )));
    }
    files.read_only = args.is("read-only");
    files.read_only_tmpfs = args.given_bool("read-only-tmpfs");
    files.shm_size = args.size("shm-size")?;
    files.devices = args.all("device").iter().map(|t| device(t)).collect::<Result<_, _>>()?;
    files.device_cgroup_rules = args.all("device-cgroup-rule").to_vec();
    files.default_mounts = args.value("default-mounts-file").map(PathBuf::from);
    files.hosts_file = args.value("hosts-file").map(str::to_string);
    Ok(())
}

fn fill_namespaces(spec: &mut ContainerSpec, args: &Args) -> Result<(), CliError> {
    let namespaces = &mut spec.namespaces;
    namespaces.pid = namespace(args.value("pid"), "pid")?;
    namespaces.ipc = namespace(args.value("ipc"), "ipc")?;
    namespaces.uts = namespace(args.value("uts"), "uts")?;
    namespaces.cgroup = namespace(args.value("cgroupns"), "cgroupns")?;
    namespaces.user = args.value("userns").map(str::to_string);
    if let Some(mode) = &namespaces.user {
        mode.parse::<unroot_idmap::UsernsMode>().map_err(CliError::new)?;
    }
    namespaces.uidmap = args.all("uidmap").to_vec();
    namespaces.gidmap = args.all("gidmap").to_vec();
    namespaces.subuidname = args.value("subuidname").map(str::to_string);
    namespaces.subgidname = args.value("subgidname").map(str::to_string);
    if spec.process.init
        && matches!(namespaces.pid, Namespace::Host | Namespace::Container(_) | Namespace::Path(_))
    {
        return Err(CliError::new("cannot add init binary as PID 1 (PID namespace isn't private)"));
    }
    // (sethostname(2))
    if let Some(name) = spec.process.hostname.as_ref().filter(|name| name.len() > 64) {
        return Err(CliError::new(format!(
            "--hostname {name:?} has {} characters: 64 is the most",
            name.len()
        )));
    }
    if spec.process.hostname.is_some() && namespaces.uts == Namespace::Host {
        return Err(CliError::new(
            "cannot set hostname when running in the host UTS namespace: invalid configuration",
        ));
    }
    let network = &mut spec.network;
    let modes = args.all("network");
    if modes.len() > 1 {
        return Err(CliError::new(
            "several networks for one container need bridge networks, which are not there yet",
        ));
    }
    network.mode = modes.last().cloned();
    network.mode.as_deref().unwrap_or("").parse::<unroot_network::Mode>().map_err(CliError::new)?;
    // (an empty one is none, for scripts)
    network.publish = args.all("publish").iter().filter(|p| !p.is_empty()).cloned().collect();
    for text in &network.publish {
        unroot_network::PortMap::parse(text).map_err(CliError::new)?;
    }
    if let Some(mode @ ("host" | "none" | "container")) =
        network.mode.as_deref().and_then(|m| m.split(':').next())
        && !network.publish.is_empty()
    {
        unroot_engine::say(format_args!(
            "Port mappings have been discarded because \"{mode}\" network namespace mode does not support them"
        ));
        network.publish.clear();
    }
    network.publish_all = args.is("publish-all");
    network.expose = args.all("expose").to_vec();
    network.dns = args.all("dns").to_vec();
    network.dns_search = args.all("dns-search").to_vec();
    network.dns_options = args.all("dns-option").to_vec();
    network.add_hosts = added_hosts(args)?;
    network.no_hosts = args.is("no-hosts");
    Ok(())
}

fn fill_security(spec: &mut ContainerSpec, args: &Args) -> Result<(), CliError> {
    let security = &mut spec.security;
    security.privileged = args.is("privileged");
    security.cap_add = args.all("cap-add").to_vec();
    security.cap_drop = args.all("cap-drop").to_vec();
    security.sysctls = pairs(args.all("sysctl"), "sysctl")?;
    for option in args.all("security-opt") {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => security.options.push("no-new-privileges".into()),
            ("no-new-privileges", "false") => {}
            ("seccomp", "") => {
                return Err(CliError::new("invalid --security-opt: seccomp=: a file or unconfined"));
            }
            ("seccomp", file) => {
                if file != "unconfined" && !std::path::Path::new(file).exists() {
                    return Err(CliError::new(format!(
                        "opening seccomp profile failed: open {file}: no such file or directory"
                    )));
                }
                security.options.push(format!("seccomp={file}"));
            }
            ("mask" | "unmask" | "proc-opts", _) => security.options.push(format!("{name}={value}")),
            ("label", _) if !std::path::Path::new("/sys/fs/selinux/enforce").exists() => {}
            ("label", _) => {
                return Err(CliError::new(
                    "--security-opt label: SELinux labels are not there yet, and SELinux is on",
                ));
            }
            ("apparmor", "unconfined") => {}
            ("apparmor", _) => {
                return Err(CliError::new("--security-opt apparmor: AppArmor profiles are not there yet"));
            }
            _ => return Err(CliError::new(format!("invalid --security-opt 2: \"{option}\""))),
        }
    }
    Ok(())
}

/// Limits of the control group.
pub fn fill_limits(spec: &mut ContainerSpec, args: &Args) -> Result<(), CliError> {
    let limits = &mut spec.limits;
    limits.memory = args.size("memory")?.filter(|m| *m != 0);
    limits.memory_reservation = args.size("memory-reservation")?;
    limits.memory_swap = match args.value("memory-swap") {
        Some("-1") => Some(-1),
        _ => args.size("memory-swap")?.map(|s| s as i64),
    };
    limits.cpus = args.number("cpus")?;
    limits.cpu_period = args.number("cpu-period")?;
    limits.cpu_quota = args.number("cpu-quota")?;
    limits.cpu_shares = args.number("cpu-shares")?;
    limits.cpuset_cpus = args.value("cpuset-cpus").map(str::to_string);
    limits.cpuset_mems = args.value("cpuset-mems").map(str::to_string);
    limits.pids = args.number("pids-limit")?;
    limits.blkio_weight = args.number("blkio-weight")?;
    limits.blkio_weight_device = args.all("blkio-weight-device").to_vec();
    limits.memory_swappiness = args.number("memory-swappiness")?;
    limits.cpu_rt_period = args.number("cpu-rt-period")?;
    limits.cpu_rt_runtime = args.number("cpu-rt-runtime")?;
    limits.oom_kill_disable = args.is("oom-kill-disable");
    limits.device_read_bps = args.all("device-read-bps").to_vec();
    limits.device_write_bps = args.all("device-write-bps").to_vec();
    limits.device_read_iops = args.all("device-read-iops").to_vec();
    limits.device_write_iops = args.all("device-write-iops").to_vec();
    limits.cgroup_conf = pairs(args.all("cgroup-conf"), "cgroup-conf")?;
    limits.cgroup_parent = args.value("cgroup-parent").map(str::to_string);
    limits.cgroups = args.value("cgroups").map(str::to_string);
    if let Some(other) =
        limits.cgroups.as_deref().filter(|c| !matches!(*c, "enabled" | "disabled" | "no-conmon"))
    {
        return Err(CliError::new(format!(
            "invalid value for --cgroups: \"{other}\": it is enabled, disabled or no-conmon"
        )));
    }
    Ok(())
}
