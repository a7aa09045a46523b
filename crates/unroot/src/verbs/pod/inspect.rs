//! `pod inspect`

use serde_json::{Value, json};
use unroot_engine::pod::PodStatus;
use unroot_engine::spec::Namespace;
use unroot_engine::{Engine, Pod, Record};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output::{formatted, line};
use crate::verbs::{ANY, Verb};
use crate::view;

use super::LATEST;

pub const VERB: Verb = Verb {
    names: &["pod inspect"],
    usage: "[options] POD [POD...]",
    about: "Show all about pods",
    flags: || vec![flag("format", 'f', Kind::Value, "json, or a Go template"), LATEST],
    interspersed: true,
    count: (0, ANY),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    if args.rest.is_empty() != args.is("latest") {
        return Err(CliError::new("you must provide at least one name or id, or --latest, and not both"));
    }
    let mut pods: Vec<Result<Pod, CliError>> = args
        .rest
        .iter()
        .map(|word| engine.find_pod(word).map_err(|e| CliError::new(format!("no such pod {word:?}: {e}"))))
        .collect();
    if args.is("latest") {
        pods.push(Ok(unroot_engine::pod::latest(&engine.dirs)?));
    }
    let (mut found, mut code) = (Vec::new(), 0);
    for pod in pods {
        match pod.and_then(|pod| view(&engine, &pod)) {
            Ok(value) => found.push(value),
            Err(error) => code = crate::report(&error),
        }
    }
    match args.value("format").map(str::trim) {
        None | Some("json") => line(serde_json::to_string_pretty(&found).map_err(CliError::new)?),
        Some(format) => formatted(format, &found, &[], false)?,
    }
    Ok(code)
}

/// The control group of a pod while it runs, below where they are mounted.
pub fn cgroup_path(engine: &Engine, pod: &Pod) -> Result<String, CliError> {
    let group = pod.group(&engine.dirs)?.and_then(|path| unroot_cgroup::Cgroup::open(&path));
    Ok(group.and_then(|g| g.below_mount_point()).unwrap_or_default())
}

/// A pod as inspect shows it.
pub fn view(engine: &Engine, pod: &Pod) -> Result<Value, CliError> {
    let members = pod.members(&engine.dirs)?;
    let (spec, limits) = (&pod.spec, &pod.spec.limits);
    let statuses: Vec<_> = members.iter().map(|(_, state)| state.status).collect();
    let mut containers: Vec<(&str, Value)> = members
        .iter()
        .map(|(record, state)| {
            let user = engine.identity(state).map(|i| i.host_uid);
            let shown = json!({
                "Id": record.id, "Name": record.name, "State": state.status.as_str(), "HostUid": user,
            });
            (record.id.as_str(), shown)
        })
        .collect();
    // (the infra container is the first)
    containers[usize::from(members.first().is_some_and(|(r, _)| r.spec.infra))..].sort_by_key(|(id, _)| *id);
    let infra = members.iter().find(|(record, _)| record.spec.infra).map(|(record, _)| record);
    let mut shown = json!({
        "Id": pod.id,
        "Name": pod.name,
        "Created": view::time(pod.created),
        "CreateCommand": spec.create_command,
        "ExitPolicy": spec.exit_policy.as_str(),
        "State": PodStatus::of(&statuses).as_str(),
        "Hostname": infra.and_then(|r| r.spec.process.hostname.clone()).unwrap_or_else(|| spec.hostname.clone()),
        "Labels": spec.labels,
        "CreateCgroup": spec.share_parent,
        "CgroupParent": limits.cgroup_parent.clone().unwrap_or_default(),
        "CgroupPath": cgroup_path(engine, pod)?,
        "CreateInfra": pod.has_infra,
        "InfraContainerID": pod.infra.clone().unwrap_or_default(),
        "InfraConfig": infra.map(|infra| infra_config(pod, infra)),
        "SharedNamespaces": shared(pod, infra),
        "NumContainers": members.len(),
        "Containers": containers.into_iter().map(|(_, shown)| shown).collect::<Vec<_>>(),
        "RestartPolicy": spec.restart.to_string(),
        "LockNumber": 0,
    });
    let settings = [
        ("cpu_period", limits.cpus.map(|_| 100_000).into()),
        ("cpu_quota", limits.cpus.map(|c| (c * 100_000.0) as i64).into()),
        ("cpu_shares", limits.cpu_shares.into()),
        ("cpuset_cpus", limits.cpuset_cpus.clone().into()),
        ("cpuset_mems", limits.cpuset_mems.clone().into()),
        ("memory_limit", limits.memory.into()),
        ("memory_swap", limits.memory_swap.into()),
        ("blkio_weight", limits.blkio_weight.into()),
        ("device_read_bps", crate::inspected::rates(&limits.device_read_bps, "Rate")),
        ("device_write_bps", crate::inspected::rates(&limits.device_write_bps, "Rate")),
        ("mounts", infra.map(view::mounts).into()),
        ("volumes_from", infra.map(|r| r.spec.files.volumes_from.clone()).into()),
        ("security_opt", infra.map(|r| r.spec.security.options.clone()).into()),
    ];
    // (what was not asked for is not shown)
    for (name, value) in settings {
        let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if let (false, Some(map)) = (is_empty, shown.as_object_mut()) {
            map.insert(name.into(), value);
        }
    }
    Ok(shown)
}

/// What the containers of the pod share; the user namespace, too, where it is one of the pod's own.
fn shared(pod: &Pod, infra: Option<&Record>) -> Vec<String> {
    let mut all = pod.spec.share.clone();
    all.extend(infra.filter(|r| r.maps.is_some()).map(|_| "user".to_string()));
    all.sort();
    all
}

fn infra_config(pod: &Pod, infra: &Record) -> Value {
    let spec = &infra.spec;
    let mode = |n: &Namespace| match n {
        Namespace::Host => "host".to_string(),
        Namespace::Container(id) => format!("container:{id}"),
        Namespace::Path(path) => format!("ns:{}", path.display()),
        _ => "private".into(),
    };
    let limits = &pod.spec.limits;
    json!({
        "PortBindings": view::ports(infra),
        "HostNetwork": spec.network.mode.as_deref() == Some("host"),
        "StaticIP": "",
        "StaticMAC": "",
        "NoManageResolvConf": spec.network.dns.iter().any(|d| d == "none"),
        "DNSServer": spec.network.dns,
        "DNSSearch": spec.network.dns_search,
        "DNSOption": spec.network.dns_options,
        "NoManageHostname": spec.process.no_hostname,
        "NoManageHosts": spec.network.no_hosts,
        "HostAdd": spec.network.add_hosts,
        "HostsFile": spec.files.hosts_file.clone().unwrap_or_default(),
        "Networks": crate::verbs::ps::networks(infra),
        "NetworkOptions": null,
        "cpuset_cpus": limits.cpuset_cpus.clone().unwrap_or_default(),
        "pid_ns": mode(&spec.namespaces.pid),
        "userns": match (&infra.maps, infra.userns.as_str()) { (_, mode) if !mode.is_empty() => mode, (Some(_), _) => "private", _ => "host" },
        "uts_ns": mode(&spec.namespaces.uts),
    })
}
