//! Flags of pods, and what they mean as a [`PodSpec`] and the [`ContainerSpec`] of its infra container; and `--pod` of
//! `run` and `create`.

use std::path::PathBuf;

use unroot_engine::plan::INIT_PATH;
use unroot_engine::pod::{ExitPolicy, PodSpec, SHARED};
use unroot_engine::spec::{ContainerSpec, Root, Systemd};
use unroot_engine::{Engine, Pod};

use crate::Global;
use crate::cli::{Args, CliError, Flag, Kind, flag};
use crate::conf::Conf;
use crate::progress::Shown;
use crate::run_flags;

/// Flags of `run` that say what the infra container is like.
const OF_INFRA: [&str; 26] = [
    "add-host",
    "device",
    "dns",
    "dns-option",
    "dns-search",
    "gidmap",
    "hostname",
    "hosts-file",
    "infra-command",
    "infra-conmon-pidfile",
    "infra-image",
    "infra-name",
    "network",
    "no-hostname",
    "no-hosts",
    "pid",
    "publish",
    "security-opt",
    "shm-size",
    "subgidname",
    "subuidname",
    "sysctl",
    "uidmap",
    "userns",
    "uts",
    "volume",
];

/// Flags of `run` that say what the pod is like.
const OF_POD: [&str; 15] = [
    "blkio-weight",
    "blkio-weight-device",
    "cgroup-parent",
    "cpu-shares",
    "cpus",
    "cpuset-cpus",
    "cpuset-mems",
    "device-read-bps",
    "device-write-bps",
    "label",
    "label-file",
    "memory",
    "memory-swap",
    "restart",
    "volumes-from",
];

/// What of containers.conf is the infra container's.
const CONFIGURED: [&str; 11] = [
    "dns",
    "dns-option",
    "dns-search",
    "hosts-file",
    "network",
    "no-hostname",
    "no-hosts",
    "pid",
    "shm-size",
    "userns",
    "uts",
];

/// What of containers.conf a pod decides for its containers.
const DECIDED: [&str; 8] = ["cgroupns", "ipc", "network", "no-hostname", "no-hosts", "pid", "userns", "uts"];

/// Flags of `pod create` that it shares with `run`, without those of networks that `pod clone` lacks.
pub fn shared_flags(with_network: bool) -> Vec<Flag> {
    let network = ["add-host", "dns", "hosts-file", "network", "no-host", "publish"];
    let of_network = |f: &Flag| network.iter().any(|n| f.long.starts_with(n));
    let known = |f: &Flag| OF_INFRA.contains(&f.long) || OF_POD.contains(&f.long);
    let mut flags: Vec<Flag> =
        run_flags::FLAGS.iter().copied().filter(|f| known(f) && (with_network || !of_network(f))).collect();
    flags.extend([
        flag("infra-command", ' ', Kind::Value, "Command of the infra container, with --infra-image"),
        flag("infra-conmon-pidfile", ' ', Kind::Value, "Write the infra monitor's process id to this file"),
        flag("infra-name", ' ', Kind::Value, "Name of the infra container (default POD ID-infra)"),
    ]);
    flags
}

/// The pod that was asked for, and its infra container if it is to have one.
pub fn specs(global: &Global, args: &Args) -> Result<(PodSpec, Option<ContainerSpec>), CliError> {
    let name = match (args.rest.first(), args.value("name")) {
        (Some(_), Some(_)) => return Err(CliError::new("cannot specify --name and NAME at the same time")),
        (first, name) => first.map(String::as_str).or(name).filter(|n| !n.is_empty()).map(str::to_string),
    };
    if args.is("replace") && name.is_none() {
        return Err(CliError::new("cannot replace pod without --name being set"));
    }
    let share = args.value("share").unwrap_or("ipc,net,uts");
    let has_infra = args.given_bool("infra").unwrap_or(!matches!(share, "" | "none"));
    let mut asked = ContainerSpec::default();
    run_flags::fill_limits(&mut asked, args)?;
    let mut pod = PodSpec {
        name,
        replace: args.is("replace"),
        labels: run_flags::labels(args)?,
        create_command: std::env::args().collect(),
        hostname: args.value("hostname").unwrap_or_default().to_string(),
        share: Vec::new(),
        share_parent: args.given_bool("share-parent").unwrap_or(true),
        exit_policy: exit_policy(global.conf()?, args)?,
        restart: args.value("restart").unwrap_or("no").parse().map_err(CliError::new)?,
        limits: asked.limits,
    };
    if pod.limits.cgroup_parent.is_some() && !pod.share_parent {
        return Err(CliError::new("--cgroup-parent cannot be used with --share-parent=false"));
    }
    if !has_infra {
        refuse_without_infra(args)?;
        return Ok((pod, None));
    }
    pod.share = shared(share)?;
    if pod.share_parent && pod.share.iter().any(|s| s == "cgroup") {
        return Err(CliError::new(
            "cannot define the pod as the cgroup parent at the same time as joining the infra container's cgroupNS: invalid argument",
        )
        .with_hint("--share-parent=false"));
    }
    let infra = infra(global, args)?;
    Ok((pod, Some(infra)))
}

fn exit_policy(conf: &Conf, args: &Args) -> Result<ExitPolicy, CliError> {
    let configured = conf.text("engine", "pod_exit_policy")?;
    match args.value("exit-policy").or(configured.as_deref()) {
        None | Some("continue") => Ok(ExitPolicy::Continue),
        Some("stop") => Ok(ExitPolicy::Stop),
        Some(other) => Err(CliError::new(format!(
            "running pod create option: invalid pod exit policy: {other:?}: it is continue or stop"
        ))),
    }
}

/// `--share`: a list; one that begins with + is added to the usual ones.
fn shared(text: &str) -> Result<Vec<String>, CliError> {
    let (text, usual) = text.strip_prefix('+').map_or((text, ""), |more| (more, "ipc,net,uts"));
    let mut all = std::collections::BTreeSet::new();
    for kind in usual.split(',').chain(text.split(',')).filter(|k| !matches!(*k, "" | "none")) {
        if !SHARED.contains(&kind) {
            return Err(CliError::new(format!(
                "invalid kernel namespace to share: {kind}. Options are: cgroup, ipc, net, pid, uts or none"
            )));
        }
        all.insert(kind.to_string());
    }
    Ok(all.into_iter().collect())
}

fn refuse_without_infra(args: &Args) -> Result<(), CliError> {
    let share = args.value("share").filter(|s| !matches!(*s, "" | "none"));
    if let Some(share) = share {
        return Err(CliError::new(format!(
            "cannot set share({share}) namespaces without an infra container"
        )));
    }
    if !args.all("publish").is_empty() {
        return Err(CliError::new("you must have an infra container to publish port bindings to the host"));
    }
    let given = |name: &&&str| args.value(name).is_some();
    match OF_INFRA.iter().chain(&["volumes-from"]).find(given) {
        Some(name) => Err(CliError::new(format!("cannot set --{name} without an infra container"))),
        None => Ok(()),
    }
}

/// The infra container; without an image of its own it is our own waiting program, which may do nothing at all.
fn infra(global: &Global, args: &Args) -> Result<ContainerSpec, CliError> {
    let conf = global.conf()?;
    let filled = conf.fill(args)?;
    let given = |name: &str| args.value(name).is_some() || CONFIGURED.contains(&name);
    let unwanted: Vec<&str> = run_flags::FLAGS.iter().map(|f| f.long).filter(|name| !given(name)).collect();
    let of_pod = ["name", "replace", "pod-id-file", "label", "label-file", "restart"];
    let limits: Vec<&str> = OF_POD.iter().copied().filter(|name| *name != "volumes-from").collect();
    let mut args = filled.without(&unwanted).without(&of_pod).without(&limits);
    let image = args.value("infra-image").map(str::to_string).or(conf.text("engine", "infra_image")?);
    let image = image.filter(|i| !i.is_empty());
    let configured = conf.text("engine", "infra_command")?.filter(|_| image.is_some());
    let command = args.value("infra-command").map(str::to_string).or(configured);
    args.rest = vec![image.clone().unwrap_or_default()];
    let mut spec = run_flags::spec(&args, "pod create")?;
    global.complete(&mut spec)?;
    match (image, command) {
        (Some(_), command) => spec.process.entrypoint = command.map(|c| vec![c]),
        (None, None) => embedded(&mut spec),
        (None, Some(command)) => {
            return Err(CliError::new(format!(
                "--infra-command {command}: the infra container has no image, and its own program is all that is in it"
            ))
            .with_hint("--infra-image names an image that has the command"));
        }
    }
    spec.name = args.value("infra-name").filter(|n| !n.is_empty()).map(str::to_string);
    spec.life.monitor_pidfile = args.value("infra-conmon-pidfile").map(PathBuf::from);
    Ok(spec)
}

fn embedded(spec: &mut ContainerSpec) {
    spec.root = Root::Empty;
    spec.process.entrypoint = Some(vec![INIT_PATH.into()]);
    spec.process.passwd = Some(false);
    spec.process.http_proxy = Some(false);
    spec.process.systemd = Systemd::Never;
    spec.files.read_only = true;
    spec.security.cap_drop = vec!["all".into()];
}

/// The pod that `--pod` or `--pod-id-file` names.
pub fn pod_of(args: &Args) -> Result<Option<String>, CliError> {
    match (args.value("pod").filter(|p| !p.is_empty()), args.value("pod-id-file")) {
        (Some(_), Some(_)) => Err(CliError::new("cannot specify both --pod and --pod-id-file")),
        (pod, None) => Ok(pod.map(str::to_string)),
        (None, Some(file)) => Ok(Some(id_in(file)?)),
    }
}

/// The id in a file that `pod create --pod-id-file` has written.
pub fn id_in(file: &str) -> Result<String, CliError> {
    let text = std::fs::read_to_string(file).map_err(|e| {
        CliError::new(format!("reading pod ID file: open {file}: {}", unroot_engine::plan::reason(&e)))
    })?;
    Ok(text.lines().next().unwrap_or_default().trim().to_string())
}

/// Flags of `run` and `create` with what containers.conf says, but for what a pod decides.
pub fn fill(conf: &Conf, args: &Args) -> Result<Args, CliError> {
    let filled = conf.fill(args)?;
    if pod_of(args)?.is_none() {
        return Ok(filled);
    }
    let not_given: Vec<&str> = DECIDED.iter().copied().filter(|name| args.value(name).is_none()).collect();
    Ok(filled.without(&not_given))
}

/// `--pod new:NAME`: makes the pod, which gets the container's network, host name and user namespace.
pub fn make_new(global: &Global, engine: &Engine, spec: &mut ContainerSpec) -> Result<Option<Pod>, CliError> {
    let Some(name) = spec.pod.as_deref().and_then(|p| p.strip_prefix("new:")).map(str::to_string) else {
        return Ok(None);
    };
    if name.is_empty() {
        return Err(CliError::new("new pod name must be at least one character"));
    }
    let mut args = Args::default();
    args.set_default("name", vec![name.clone()]);
    let (mut pod, infra) = specs(global, &args)?;
    pod.restart = spec.life.restart;
    pod.hostname = spec.process.hostname.clone().unwrap_or_default();
    let infra = infra.map(|mut infra| {
        infra.network = std::mem::take(&mut spec.network);
        infra.process.hostname = spec.process.hostname.take();
        let (theirs, own) = (&mut infra.namespaces, &mut spec.namespaces);
        theirs.user = own.user.take().or(theirs.user.take());
        (theirs.uidmap, theirs.gidmap) = (std::mem::take(&mut own.uidmap), std::mem::take(&mut own.gidmap));
        (theirs.subuidname, theirs.subgidname) = (own.subuidname.take(), own.subgidname.take());
        infra
    });
    let made = engine.create_pod(pod, infra, &Default::default(), &Shown::new(false))?;
    spec.pod = Some(made.id.clone());
    Ok(Some(made))
}
