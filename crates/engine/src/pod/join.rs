//! What a container gets from the pod that it joins: namespaces of the infra container, its volumes, its devices, and
//! what it may not do. A member cannot have more than its pod: another user namespace, a way out of the pod's control
//! group, or ports of its own are refused.

use std::fs::File;

use rustix::fs::FlockOperation;

use super::Pod;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::spec::{ContainerSpec, Namespace};

impl Engine {
    /// Settles what the pod gives to a container that is being made; the pod, if it is to be in one.
    pub(crate) fn join_pod(&self, spec: &mut ContainerSpec) -> Result<Option<Pod>> {
        let Some(name) = spec.pod.clone() else { return Ok(None) };
        let pod = self.find_pod(&name)?;
        spec.pod = Some(pod.id.clone());
        if spec.infra {
            return Ok(None);
        }
        check_groups(&pod, spec)?;
        if spec.life.restart_of_pod && !spec.remove {
            spec.life.restart = pod.spec.restart;
        }
        if let Some(infra) = pod.needed_infra()? {
            let infra = self.find(infra).map_err(|_| {
                Error::state(format_args!("pod {}: its infra container {infra} is gone", pod.name))
                    .with_hint(format_args!("{} pod rm {}", crate::program(), pod.name))
            })?;
            join_network(&pod, &infra, spec)?;
            join_kinds(&pod, &infra, spec)?;
            join_user(&infra, spec)?;
            inherit(&infra, spec);
        }
        Ok(Some(pod))
    }

    /// The reverse: what was asked for without what the pod has given, for a container that is made like this one.
    pub fn leave_pod(&self, spec: &mut ContainerSpec) {
        let pod = spec.pod.as_deref().and_then(|id| self.find_pod(id).ok());
        let Some(infra) = pod.and_then(|pod| self.find(pod.infra.as_deref()?).ok()).filter(|_| !spec.infra)
        else {
            return;
        };
        let given = format!("container:{}", infra.id);
        for mode in [&mut spec.network.mode, &mut spec.namespaces.user] {
            *mode = mode.take().filter(|mode| *mode != given);
        }
        let own = &mut spec.namespaces;
        for kind in [&mut own.pid, &mut own.ipc, &mut own.uts, &mut own.cgroup] {
            if matches!(kind, Namespace::Container(id) if *id == infra.id) {
                *kind = Namespace::Default;
            }
        }
        let theirs = &infra.spec;
        spec.files.mounts.retain(|m| !theirs.files.mounts.iter().any(|t| t.target == m.target));
        spec.files.devices.retain(|d| !theirs.files.devices.iter().any(|t| t.target == d.target));
        spec.security.options.retain(|o| !theirs.security.options.contains(o));
    }

    /// Held while a container is published: the pod is there, and is not removed meanwhile.
    pub(crate) fn hold_pod(&self, pod: Option<&Pod>) -> Result<Option<File>> {
        pod.map(|pod| pod.lock(&self.dirs, FlockOperation::LockShared)).transpose()
    }
}

fn check_groups(pod: &Pod, spec: &ContainerSpec) -> Result<()> {
    if !pod.spec.share_parent {
        return Ok(());
    }
    let refused = |flag: &str| {
        Err(Error::engine(format_args!(
            "{flag} cannot be used in pod {}: its containers are in its control group: invalid argument",
            pod.name
        ))
        .with_hint("pod create --share-parent=false leaves each container's control group to the container"))
    };
    match (&spec.limits.cgroup_parent, spec.limits.cgroups.as_deref()) {
        (Some(_), _) => refused("--cgroup-parent"),
        (_, Some(mode @ ("disabled" | "no-conmon"))) => refused(&format!("--cgroups={mode}")),
        _ => Ok(()),
    }
}

fn join_network(pod: &Pod, infra: &Record, spec: &mut ContainerSpec) -> Result<()> {
    if !pod.shares("net") || spec.network.mode.is_some() {
        return Ok(());
    }
    let refused = |what: &str| {
        Err(Error::engine(format_args!(
            "invalid config provided: {what} pod is created: network cannot be configured when it is shared with a pod"
        )))
    };
    if !spec.network.publish.is_empty() || spec.network.publish_all {
        return refused("published or exposed ports must be defined when the");
    }
    if !spec.network.add_hosts.is_empty() {
        return refused("extra host entries must be specified when the");
    }
    spec.network.mode = Some(match infra.spec.network.mode.as_deref() {
        Some("host") => "host".into(),
        _ => format!("container:{}", infra.id),
    });
    Ok(())
}

fn join_kinds(pod: &Pod, infra: &Record, spec: &mut ContainerSpec) -> Result<()> {
    let (own, theirs) = (&mut spec.namespaces, &infra.spec.namespaces);
    let kinds = [
        ("pid", &mut own.pid, &theirs.pid),
        ("ipc", &mut own.ipc, &theirs.ipc),
        ("uts", &mut own.uts, &theirs.uts),
        ("cgroup", &mut own.cgroup, &theirs.cgroup),
    ];
    for (kind, own, theirs) in kinds {
        if !pod.shares(kind) || *own != Namespace::Default {
            continue;
        }
        if kind == "uts" && spec.process.hostname.is_some() {
            return Err(Error::engine(
                "invalid config provided: cannot set hostname when joining the pod UTS namespace: invalid configuration",
            ));
        }
        if kind == "pid" && spec.process.init {
            return Err(Error::engine("cannot add init binary as PID 1 (PID namespace isn't private)"));
        }
        *own = match theirs {
            Namespace::Host => Namespace::Host,
            _ => Namespace::Container(infra.id.clone()),
        };
    }
    Ok(())
}

/// Namespaces are owned by a user namespace: who shares them has to be in it.
fn join_user(infra: &Record, spec: &mut ContainerSpec) -> Result<()> {
    let own = &mut spec.namespaces;
    let maps = !own.uidmap.is_empty() || !own.gidmap.is_empty();
    let is_infra = |mode: &str| {
        mode.strip_prefix("container:").is_some_and(|name| name == infra.id || name == infra.name)
    };
    let differs = match (own.user.as_deref(), &infra.maps) {
        (None | Some(""), _) => false,
        (Some("host"), None) => false,
        (Some(mode), _) => !is_infra(mode),
    };
    if maps || differs || own.subuidname.is_some() || own.subgidname.is_some() {
        let asked = own.user.as_deref().unwrap_or("a map of its own");
        let theirs = if infra.userns.is_empty() { "the engine's" } else { &infra.userns };
        return Err(Error::engine(format_args!(
            "cannot set user namespace mode when joining pod with infra container: invalid argument: asked for {asked}, and the pod's user namespace is {theirs}"
        ))
        .with_hint("pod create takes --userns, --uidmap and --gidmap, for all containers of the pod"));
    }
    own.user = infra.maps.as_ref().map(|_| format!("container:{}", infra.id));
    Ok(())
}

/// What else all containers of the pod have.
fn inherit(infra: &Record, spec: &mut ContainerSpec) {
    let theirs = &infra.spec;
    if !theirs.files.mounts.is_empty() {
        spec.files.volumes_from.insert(0, infra.id.clone());
    }
    let devices = theirs.files.devices.iter();
    let new = devices.filter(|d| !spec.files.devices.iter().any(|own| own.target == d.target)).cloned();
    let new: Vec<_> = new.collect();
    spec.files.devices.extend(new);
    // (the last one counts: a container cannot loosen what its pod has tightened)
    spec.security.options.extend(theirs.security.options.iter().cloned());
    spec.process.no_hostname |= theirs.process.no_hostname;
    spec.network.no_hosts |= theirs.network.no_hosts;
}
