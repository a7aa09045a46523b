//! The fields of `inspect` that Podman's and Docker's users find in a container beside those that [`crate::view`]
//! tells of: what was observed where it runs, else what was asked for.

use serde_json::{Map, Value, json};

use unroot_engine::spec::MountKind;
use unroot_engine::{Engine, Record, State, dependents, roots};
use unroot_store::Config;

use crate::view;

/// Adds them.
pub fn complete(engine: &Engine, record: &Record, state: &State, config: &Config, shown: &mut Value) {
    let (effective, bounding) = capabilities(record, state);
    add(
        shown,
        json!({
            "Dependencies": dependents::needs(record),
            "UseImageHosts": record.spec.network.no_hosts || record.spec.files.hosts_file.as_deref() == Some("image"),
            "UseImageHostname": record.spec.process.no_hostname,
        }),
    );
    shown["EffectiveCaps"] = effective;
    shown["BoundingCaps"] = bounding;
    add(
        &mut shown["State"],
        json!({
            "StoppedByUser": unroot_engine::state::is_unwanted(&engine.dirs, &record.id),
            "CheckpointedAt": view::time(0),
            "RestoredAt": view::time(0),
        }),
    );
    add(&mut shown["GraphDriver"]["Data"], graph(engine, record));
    network(record, config, &mut shown["NetworkSettings"]);
    configuration(engine, record, config, &mut shown["Config"]);
    host(record, state, &mut shown["HostConfig"]);
}

/// What is there already stays.
fn add(to: &mut Value, more: Value) {
    let (Value::Object(to), Value::Object(more)) = (to, more) else { return };
    for (name, value) in more {
        to.entry(name).or_insert(value);
    }
}

/// Effective and bounding: of the process while it runs.
fn capabilities(record: &Record, state: &State) -> (Value, Value) {
    let names = |mask: u64| {
        let held = unroot_sys::capability::NAMES.iter().enumerate().filter(|(n, _)| mask >> n & 1 == 1);
        let mut all: Vec<String> = held.map(|(_, name)| format!("CAP_{name}")).collect();
        all.sort_unstable();
        if all.is_empty() { Value::Null } else { json!(all) }
    };
    if let Some(process) = state.process() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
        let mask = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
            u64::from_str_radix(line.trim(), 16).unwrap_or(0)
        };
        return (names(mask("CapEff:")), names(mask("CapBnd:")));
    }
    let user = record.spec.process.user.as_deref().unwrap_or("0");
    let is_root = matches!(user.split(':').next(), Some("" | "0" | "root"));
    let uid = if is_root { 0 } else { 1 };
    let Ok(sets) = unroot_engine::capabilities::sets(&record.spec.security, false, uid, u64::MAX) else {
        return (Value::Null, Value::Null);
    };
    let listed = |mut names: Vec<String>| {
        names.sort_unstable();
        if names.is_empty() { Value::Null } else { json!(names) }
    };
    (listed(sets.effective), listed(sets.bounding))
}

fn graph(engine: &Engine, record: &Record) -> Value {
    let image = record.image.as_ref().and_then(|i| engine.store.image_by_id(&i.id).ok().flatten());
    let mut data = Map::new();
    if let Some(image) = image {
        let lower = engine.store.lower_dirs(&image);
        let lower: Vec<String> = lower.iter().map(|d| d.display().to_string()).collect();
        data.insert("LowerDir".into(), lower.join(":").into());
    }
    if roots::is_mounted(&engine.dirs, &record.id) {
        data.insert("MergedDir".into(), json!(roots::merged(&engine.dirs, &record.id)));
    }
    Value::Object(data)
}

fn network(record: &Record, image: &Config, shown: &mut Value) {
    add(
        shown,
        json!({
            "EndpointID": "",
            "IPPrefixLen": 0,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "Bridge": "",
            "SandboxID": "",
            "HairpinMode": false,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
        }),
    );
    // (ports that are exposed and not published have no binding)
    for (port, protocols) in view::exposed(image, record).as_object().into_iter().flatten() {
        for protocol in protocols.as_array().into_iter().flatten().filter_map(Value::as_str) {
            add(&mut shown["Ports"], json!({ format!("{port}/{protocol}"): null }));
        }
    }
}

fn configuration(engine: &Engine, record: &Record, config: &Config, shown: &mut Value) {
    let mut ports = Map::new();
    for (port, protocols) in view::exposed(config, record).as_object().into_iter().flatten() {
        for protocol in protocols.as_array().into_iter().flatten().filter_map(Value::as_str) {
            ports.insert(format!("{port}/{protocol}"), json!({}));
        }
    }
    for port in record.published() {
        ports.insert(format!("{}/{}", port.container, port.protocol), json!({}));
    }
    shown["Env"] = json!(engine.variables_of(record, config));
    if !ports.is_empty() {
        add(shown, json!({ "ExposedPorts": ports }));
    }
    add(
        shown,
        json!({
            "Domainname": "",
            "AttachStdin": record.spec.process.interactive,
            "AttachStdout": false,
            "AttachStderr": false,
            "OnBuild": if config.on_build.is_empty() { Value::Null } else { json!(config.on_build) },
            "HealthcheckMaxLogCount": record.spec.health.max_log_count,
            "HealthcheckMaxLogSize": record.spec.health.max_log_size,
            "sdNotifyMode": record.spec.process.sdnotify.as_deref().unwrap_or("container"),
        }),
    );
}

fn host(record: &Record, state: &State, shown: &mut Value) {
    let (spec, limits) = (&record.spec, &record.spec.limits);
    let tmpfs: Map<String, Value> = spec
        .files
        .mounts
        .iter()
        .filter(|m| m.kind == MountKind::Tmpfs)
        .map(|m| (m.target.clone(), m.options.join(",").into()))
        .collect();
    let devices: Vec<Value> = spec
        .files
        .devices
        .iter()
        .map(|d| json!({"PathOnHost": d.source, "PathInContainer": d.target, "CgroupPermissions": d.permissions}))
        .collect();
    if limits.pids.is_none() {
        // (the default holds where it can be had)
        let group = state.run.as_ref().and_then(|r| r.cgroup.as_ref()).filter(|_| state.is_live());
        let held = group.and_then(|path| std::fs::read_to_string(format!("{path}/pids.max")).ok());
        if state.is_live() {
            shown["PidsLimit"] = held.and_then(|t| t.trim().parse::<u64>().ok()).unwrap_or(0).into();
        }
    }
    add(
        shown,
        json!({
            "Annotations": spec.annotations,
            "BlkioDeviceReadBps": rates(&limits.device_read_bps, "Rate"),
            "BlkioDeviceReadIOps": rates(&limits.device_read_iops, "Rate"),
            "BlkioDeviceWriteBps": rates(&limits.device_write_bps, "Rate"),
            "BlkioDeviceWriteIOps": rates(&limits.device_write_iops, "Rate"),
            "BlkioWeight": limits.blkio_weight.unwrap_or(0),
            "BlkioWeightDevice": rates(&limits.blkio_weight_device, "Weight"),
            "Cgroup": "",
            "CgroupConf": if limits.cgroup_conf.is_empty() { Value::Null } else { json!(limits.cgroup_conf) },
            "CgroupManager": cgroup_manager(state),
            "Cgroups": limits.cgroups.as_deref().unwrap_or("default"),
            "ConsoleSize": [0, 0],
            "CpuCount": 0,
            "CpuPercent": 0,
            "CpuRealtimePeriod": limits.cpu_rt_period.unwrap_or(0),
            "CpuRealtimeRuntime": limits.cpu_rt_runtime.unwrap_or(0),
            "Devices": devices,
            "DiskQuota": 0,
            "HostsFile": spec.files.hosts_file.clone().unwrap_or_default(),
            "IOMaximumBandwidth": 0,
            "IOMaximumIOps": 0,
            "Isolation": "",
            "KernelMemory": 0,
            "Links": null,
            "MemorySwappiness": limits.memory_swappiness.unwrap_or(0),
            "OomKillDisable": limits.oom_kill_disable,
            "Tmpfs": tmpfs,
            "VolumeDriver": "",
            "VolumesFrom": if spec.files.volumes_from.is_empty() { Value::Null } else { json!(spec.files.volumes_from) },
        }),
    );
}

/// Limits of devices, `PATH:NUMBER`.
pub fn rates(list: &[String], name: &str) -> Value {
    let one = |text: &String| {
        let (path, value) = text.rsplit_once(':')?;
        let number = unroot_engine::limits::parse_size(value)?;
        Some(json!({"Path": path, name: number}))
    };
    let all: Vec<Value> = list.iter().filter_map(one).collect();
    if all.is_empty() { Value::Null } else { json!(all) }
}

/// Who made the control group.
fn cgroup_manager(state: &State) -> &'static str {
    let group = state.run.as_ref().and_then(|r| r.cgroup.as_deref());
    match group {
        Some(path) if path.contains(".scope/") => "systemd",
        _ => "cgroupfs",
    }
}
