//! `pod clone`

use unroot_engine::Engine;
use unroot_engine::pod::PodSpec;
use unroot_engine::spec::ContainerSpec;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::pod_flags;
use crate::progress::Shown;
use crate::run_flags;
use crate::verbs::Verb;
use crate::verbs::clone::{as_asked, free_name};
use crate::verbs::update::merge;

pub const VERB: Verb = Verb {
    names: &["pod clone"],
    usage: "[options] POD [NAME]",
    about: "Make a pod with containers like those of another one",
    flags: || {
        let mut flags = pod_flags::shared_flags(false);
        flags.extend([
            flag("destroy", ' ', Kind::Bool, "Remove the other one"),
            flag("name", 'n', Kind::Value, "Its name (default NAME-clone)"),
            flag("start", ' ', Kind::Bool, "Start it"),
        ]);
        flags
    },
    interspersed: true,
    count: (1, 2),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let old = engine.find_pod(&args.rest[0])?;
    let members = old.members(&engine.dirs)?;
    let name = args.rest.get(1).map(String::as_str).or(args.value("name")).map(str::to_string);
    let name = name.unwrap_or_else(|| {
        free_name(&old.name, |name| engine.find_pod(name).is_err() && engine.find(name).is_err())
    });
    let mut pod = PodSpec {
        name: Some(name),
        replace: false,
        create_command: std::env::args().collect(),
        ..old.spec.clone()
    };
    let mut infra = members.iter().find(|(r, _)| r.spec.infra).map(|(r, _)| as_asked(&engine, r));
    if let Some(infra) = &mut infra {
        infra.name = args.value("infra-name").map(str::to_string);
        if old.spec.hostname.is_empty() {
            infra.process.hostname = None;
        }
        infra.pod = None;
    }
    change(&mut pod, infra.as_mut(), args)?;
    let options = Default::default();
    let made = engine.create_pod(pod, infra, &options, &Shown::new(false))?;
    for (record, _) in members.iter().filter(|(r, _)| !r.spec.infra) {
        let mut spec = as_asked(&engine, record);
        spec.pod = Some(made.id.clone());
        spec.name = Some(container_name(&engine, &record.name));
        engine.create(spec, &options, &Shown::new(false)).inspect_err(|_| {
            let _ = engine.remove_pod(&made, true, Some(0));
        })?;
    }
    if args.is("destroy") {
        engine.remove_pod(&old, true, None)?;
    }
    let failures = if args.is("start") { engine.start_pod(&made)? } else { Vec::new() };
    if let Some((id, error)) = failures.into_iter().next() {
        return Err(CliError::new(format!("pod {} created, but starting container {id}: {error}", made.id)));
    }
    output::line(&made.id);
    Ok(0)
}

fn container_name(engine: &Engine, old: &str) -> String {
    free_name(old, |name| engine.find(name).is_err() && engine.find_pod(name).is_err())
}

/// What was asked for over what there was.
fn change(pod: &mut PodSpec, infra: Option<&mut ContainerSpec>, args: &Args) -> Result<(), CliError> {
    let mut args = args.clone();
    args.rest = vec![String::new()];
    let asked = run_flags::spec(&args.clone().without(&["name"]), "pod clone")?;
    pod.labels.extend(asked.labels);
    pod.hostname = asked.process.hostname.clone().unwrap_or_else(|| pod.hostname.clone());
    if args.value("restart").is_some() {
        pod.restart = asked.life.restart;
    }
    if asked.limits.cgroup_parent.is_some() {
        pod.limits.cgroup_parent = asked.limits.cgroup_parent.clone();
    }
    merge(&mut pod.limits, asked.limits);
    let Some(infra) = infra else {
        return match args.value("hostname").or(args.value("userns")).or(args.value("infra-name")) {
            Some(_) => Err(CliError::new("the pod has no infra container whose flags these are")),
            None => Ok(()),
        };
    };
    infra.process.hostname = asked.process.hostname.or(infra.process.hostname.take());
    infra.files.mounts.extend(asked.files.mounts);
    infra.files.volumes_from.extend(asked.files.volumes_from);
    infra.files.devices.extend(asked.files.devices);
    infra.files.shm_size = asked.files.shm_size.or(infra.files.shm_size);
    infra.security.options.extend(asked.security.options);
    infra.security.sysctls.extend(asked.security.sysctls);
    infra.life.monitor_pidfile = args.value("infra-conmon-pidfile").map(Into::into);
    if args.value("pid").is_some() {
        infra.namespaces.pid = asked.namespaces.pid;
    }
    if args.value("uts").is_some() {
        infra.namespaces.uts = asked.namespaces.uts;
    }
    let of_user = ["userns", "uidmap", "gidmap", "subuidname", "subgidname"];
    if of_user.iter().any(|name| args.value(name).is_some()) {
        infra.namespaces.user = asked.namespaces.user;
        infra.namespaces.uidmap = asked.namespaces.uidmap;
        infra.namespaces.gidmap = asked.namespaces.gidmap;
        infra.namespaces.subuidname = asked.namespaces.subuidname;
        infra.namespaces.subgidname = asked.namespaces.subgidname;
    }
    if let Some(command) = args.value("infra-command") {
        if matches!(infra.root, unroot_engine::spec::Root::Empty) {
            return Err(CliError::new(format!(
                "--infra-command {command}: the infra container has no image, and its own program is all that is in it"
            )));
        }
        infra.process.entrypoint = Some(vec![command.into()]);
    }
    Ok(())
}
