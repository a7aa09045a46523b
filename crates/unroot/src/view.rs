//! Containers and images as `inspect` and `ps` show them: what is observed, in the form Podman's users know.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Value, json};
use unroot_engine::identity::{HostNames, Identity, map_text};

use unroot_engine::health::{Health, Report};
use unroot_engine::spec::MountKind;
use unroot_engine::{Engine, Record, State, Status};
use unroot_monitor::log::format_nanos;
use unroot_network::PortMap;
use unroot_store::{Config, Image};

use crate::cli::CliError;
use crate::output::ago;

/// A time as inspect has it; none is the year one, as Go's zero time.
pub fn time(nanos: i64) -> String {
    if nanos == 0 { "0001-01-01T00:00:00Z".into() } else { format_nanos(nanos) }
}

/// `docker inspect` of a container.
pub fn container(engine: &Engine, record: &Record) -> Result<Value, CliError> {
    let state = State::observe(&engine.dirs, &record.id)?;
    let spec = &record.spec;
    let image = record.image.as_ref().and_then(|i| engine.store.image_by_id(&i.id).ok().flatten());
    let config = image.as_ref().map(|i| i.config.config.clone()).unwrap_or_default();
    let args = unroot_engine::plan::command(spec, &config);
    let (run, exit) = (state.run.as_ref(), state.exit.as_ref());
    let live = state.is_live();
    let ports = ports(&engine.network_owner(record));
    let stop_signal = engine.stop_signal(record);
    let network_mode = spec.network.mode.clone().unwrap_or_else(|| "pasta".into());
    let mode = |n: &unroot_engine::spec::Namespace, default: &str| match n {
        unroot_engine::spec::Namespace::Host => "host".to_string(),
        unroot_engine::spec::Namespace::Container(c) => format!("container:{c}"),
        unroot_engine::spec::Namespace::Path(p) => format!("ns:{}", p.display()),
        unroot_engine::spec::Namespace::None => "none".into(),
        unroot_engine::spec::Namespace::Private => "private".into(),
        unroot_engine::spec::Namespace::Shareable => "shareable".into(),
        _ => default.to_string(),
    };
    let mut labels = config.labels.clone();
    labels.extend(spec.labels.clone());
    let seen = engine.identity(&state);
    let lines = |map: fn(&unroot_idmap::IdMaps) -> &unroot_idmap::IdMap| {
        let texts = seen.as_ref().map(|i| map_text(map(&i.maps)));
        texts.map(|text| text.split(',').map(str::to_string).collect::<Vec<_>>())
    };
    let mut shown = json!({
        "Id": record.id,
        "Created": time(record.created),
        "Path": args.first().cloned().unwrap_or_default(),
        "Args": args.get(1..).unwrap_or_default(),
        "State": {
            "OciVersion": "1.2.0",
            "Status": state.status.as_str(),
            "Running": live,
            "Paused": state.status == Status::Paused,
            "Restarting": state.status == Status::Restarting,
            "OOMKilled": exit.is_some_and(|e| e.oom),
            "Dead": false,
            "Pid": state.process().map_or(0, |p| p.pid),
            "ConmonPid": run.filter(|_| live).map_or(0, |r| r.monitor.pid),
            "ExitCode": exit.map_or(0, |e| e.code),
            "Error": exit.map_or("", |e| &e.error),
            "StartedAt": time(run.map(|r| r.started).or(exit.map(|e| e.started)).unwrap_or(0)),
            "FinishedAt": time(exit.map_or(0, |e| e.finished)),
            "CgroupPath": run.and_then(|r| r.cgroup.clone()).unwrap_or_default(),
            "Lost": exit.is_some_and(|e| e.lost),
            "Health": health_of(engine, record),
            "Healthcheck": health_of(engine, record),
        },
        "Image": record.image.as_ref().map_or("", |i| &i.id),
        "ImageDigest": record.image.as_ref().map_or("", |i| &i.digest),
        "ImageName": record.image.as_ref().map_or("", |i| &i.name),
        "Rootfs": match &spec.root { unroot_engine::spec::Root::Directory { path, .. } => path.to_string_lossy().into_owned(), _ => String::new() },
        "ResolvConfPath": engine.dirs.run_container(&record.id).join("resolv.conf"),
        "HostnamePath": engine.dirs.run_container(&record.id).join("hostname"),
        "HostsPath": engine.dirs.run_container(&record.id).join("hosts"),
        "StaticDir": engine.dirs.container(&record.id),
        "OCIRuntime": spec.runtime.as_deref().unwrap_or(crate::conf::OWN_RUNTIME),
        "ConmonPidFile": spec.life.monitor_pidfile.clone().unwrap_or_default(),
        "PidFile": spec.life.pidfile.clone().unwrap_or_default(),
        "Name": record.name,
        "RestartCount": run.map(|r| r.restarts).or(exit.map(|e| e.restarts)).unwrap_or(0),
        "Driver": "overlay",
        "MountLabel": "", "ProcessLabel": "", "AppArmorProfile": "",
        "GraphDriver": {"Name": "overlay", "Data": {"UpperDir": engine.dirs.container(&record.id).join("upper"), "WorkDir": engine.dirs.container(&record.id).join("work")}},
        "Mounts": mounts(record),
        "NetworkSettings": {"Ports": ports, "IPAddress": "", "Gateway": "", "MacAddress": "", "SandboxKey": state.process().map(|p| format!("/proc/{}/ns/net", p.pid)).unwrap_or_default(), "Networks": {network_mode.split(':').next().unwrap_or_default(): {}}},
        "Namespace": "", "IsInfra": spec.infra, "IsService": false, "Pod": spec.pod.clone().unwrap_or_default(),
        "ExecIDs": unroot_engine::sessions::living(&engine.dirs, &record.id),
        "HostUser": seen.as_ref().map_or(String::new(), |i| HostNames::default().user(i.host_uid)),
        "HostUid": seen.as_ref().map(|i| i.host_uid),
        "HostGid": seen.as_ref().map(|i| i.host_gid),
        "IDMap": {"Observed": seen.is_some(), "UidMap": lines(|m| &m.uid), "GidMap": lines(|m| &m.gid), "Owner": seen.as_ref().and_then(|i| i.owner)},
        "Config": {
            "Hostname": engine.host_name_of(record),
            "User": spec.process.user.clone().unwrap_or_else(|| config.user.clone()),
            "Tty": spec.process.terminal,
            "OpenStdin": spec.process.interactive,
            "StdinOnce": false,
            "Cmd": args,
            "Image": record.image.as_ref().map_or("", |i| &i.name),
            "Volumes": config.volumes,
            "WorkingDir": spec.process.workdir.clone().unwrap_or_else(|| if config.working_dir.is_empty() { "/".into() } else { config.working_dir.clone() }),
            "Entrypoint": spec.process.entrypoint.clone().unwrap_or_else(|| config.entrypoint.clone()),
            "Labels": labels,
            "Annotations": spec.annotations,
            "StopSignal": unroot_sys::signal::name(stop_signal),
            "StopTimeout": spec.life.stop_timeout.unwrap_or(10),
            "Timeout": spec.life.timeout,
            "Umask": format!("{:04o}", spec.process.umask.unwrap_or(0o022)),
            "CreateCommand": spec.create_command,
            "Secrets": spec.secrets.iter().filter(|s| s.kind == unroot_engine::secrets::SecretKind::Mount).map(|s| json!({"Name": s.name, "ID": s.id, "UID": s.uid, "GID": s.gid, "Mode": s.mode})).collect::<Vec<_>>(),
            "SdNotifyMode": spec.process.sdnotify.as_deref().unwrap_or("container"),
            "SdNotifySocket": spec.process.notify_socket.clone().unwrap_or_default(),
            "Passwd": spec.process.passwd.unwrap_or(true),
            "Healthcheck": health(&spec.health),
            "StartupHealthCheck": spec.health.startup,
            "HealthcheckOnFailureAction": spec.health.on_failure.as_str(),
            "HealthLogDestination": spec.health.log_destination,
            "HealthMaxLogCount": spec.health.max_log_count,
            "HealthMaxLogSize": spec.health.max_log_size,
        },
        "HostConfig": {
            "Binds": binds(record),
            "CgroupMode": mode(&spec.namespaces.cgroup, "private"),
            "ContainerIDFile": spec.life.cidfile.clone().unwrap_or_default(),
            "LogConfig": {"Type": spec.log.driver.clone().unwrap_or_else(|| "k8s-file".into()), "Path": if matches!(spec.log.driver.as_deref(), Some("none" | "passthrough")) { String::new() } else { engine.log_path(record).to_string_lossy().into_owned() }, "Config": Value::Null, "Tag": spec.log.options.iter().find_map(|o| o.strip_prefix("tag=")).unwrap_or(""), "Size": log_size(record)},
            "NetworkMode": network_mode,
            "PortBindings": ports,
            "AutoRemove": spec.remove,
            "AutoRemoveImage": spec.life.remove_image,
            "RestartPolicy": {"Name": spec.life.restart.to_string(), "MaximumRetryCount": match spec.life.restart { unroot_engine::spec::Restart::OnFailure(most) => most, _ => 0 }},
            "CapAdd": spec.security.cap_add,
            "CapDrop": spec.security.cap_drop,
            "Dns": spec.network.dns, "DnsOptions": spec.network.dns_options, "DnsSearch": spec.network.dns_search,
            "ExtraHosts": spec.network.add_hosts,
            "GroupAdd": spec.process.groups,
            "IpcMode": mode(&spec.namespaces.ipc, "shareable"),
            "PidMode": mode(&spec.namespaces.pid, "private"),
            "UTSMode": mode(&spec.namespaces.uts, "private"),
            "UsernsMode": match (&record.maps, record.userns.as_str()) { (_, m) if m.starts_with("container:") || m.starts_with("ns:") => m, (Some(_), _) => "private", (None, "") if engine.user.is_rootless() => "private", (_, m) => m },
            "IDMappings": record.maps.as_ref().map(|m| { let list = |map| map_text(map).split(',').map(str::to_string).collect::<Vec<_>>(); json!({"UidMap": list(&m.uid), "GidMap": list(&m.gid)}) }),
            "Privileged": spec.security.privileged,
            "PublishAllPorts": spec.network.publish_all,
            "ReadonlyRootfs": spec.files.read_only,
            "SecurityOpt": spec.security.options,
            "ShmSize": spec.files.shm_size.unwrap_or(64 << 20),
            "Runtime": "oci",
            "Init": spec.process.init,
            "Memory": spec.limits.memory.unwrap_or(0),
            "MemorySwap": spec.limits.memory_swap.unwrap_or(0),
            "MemoryReservation": spec.limits.memory_reservation.unwrap_or(0),
            "NanoCpus": (spec.limits.cpus.unwrap_or(0.0) * 1e9) as u64,
            "CpuShares": spec.limits.cpu_shares.unwrap_or(0),
            "CpuPeriod": spec.limits.cpu_period.unwrap_or(0),
            "CpuQuota": spec.limits.cpu_quota.unwrap_or(0),
            "CpusetCpus": spec.limits.cpuset_cpus.clone().unwrap_or_default(),
            "CpusetMems": spec.limits.cpuset_mems.clone().unwrap_or_default(),
            "PidsLimit": spec.limits.pids.unwrap_or(2048),
            "OomScoreAdj": spec.process.oom_score_adj.unwrap_or(0),
            "CgroupParent": spec.limits.cgroup_parent.clone().unwrap_or_default(),
            "Ulimits": spec.process.ulimits.iter().map(|l| json!({"Name": format!("RLIMIT_{}", l.name.to_uppercase()), "Soft": l.soft as i64, "Hard": l.hard as i64})).collect::<Vec<_>>(),
        },
    });
    crate::inspected::complete(engine, record, &state, &config, &mut shown);
    Ok(shown)
}

fn health(health: &Health) -> Value {
    match &health.check {
        None if health.disabled => json!({"Test": ["NONE"]}),
        check => json!(check),
    }
}

/// What health checks found.
fn health_of(engine: &Engine, record: &Record) -> Value {
    match Report::shown(&engine.dirs, record) {
        None => json!({"Status": "", "FailingStreak": 0, "Log": null}),
        Some(report) => {
            json!({"Status": report.status, "FailingStreak": report.failing_streak, "Log": report.log})
        }
    }
}

/// Times of health checks as templates show them: `30s`, not nanoseconds.
pub fn with_durations(mut object: Value) -> Value {
    for check in ["Healthcheck", "StartupHealthCheck"] {
        for name in ["Interval", "Timeout", "StartPeriod", "StartInterval"] {
            let found = object.get_mut("Config").and_then(|c| c.get_mut(check)?.get_mut(name));
            if let Some(value) = found {
                *value = crate::health_flags::shown(value.as_u64().unwrap_or(0)).into();
            }
        }
    }
    object
}

/// `max-size` as inspect shows it.
fn log_size(record: &Record) -> String {
    let size = record
        .spec
        .log
        .options
        .iter()
        .rev()
        .find_map(|o| o.strip_prefix("max-size=").or_else(|| o.strip_prefix("size=")));
    let bytes = size.and_then(unroot_engine::limits::parse_decimal_size).unwrap_or(0);
    let (value, unit) = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")]
        .into_iter()
        .find(|(factor, _)| bytes as f64 >= *factor)
        .map_or((bytes as f64, "B"), |(f, u)| (bytes as f64 / f, u));
    let text = format!("{value:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

pub fn mounts(record: &Record) -> Vec<Value> {
    record
        .spec
        .files
        .mounts
        .iter()
        .filter(|m| matches!(m.kind, MountKind::Bind | MountKind::Volume | MountKind::Image))
        .map(|m| {
            if m.kind == MountKind::Image {
                let writes = m.options.iter().any(|o| o == "rw");
                return json!({"Type": "image", "Source": m.source, "Destination": m.target, "Driver": "", "Mode": "", "Options": [], "RW": writes, "Propagation": ""});
            }
            let volume = record.volumes.iter().find(|v| v.target == m.target);
            json!({
                "Type": if volume.is_some() { "volume" } else { "bind" },
                "Name": volume.map_or("", |v| &v.name),
                "Source": m.source,
                "Destination": m.target,
                "Driver": if volume.is_some() { "local" } else { "" },
                "Mode": "",
                "Options": mount_options(m),
                "RW": !m.options.iter().any(|o| o == "ro"),
                "Propagation": m.options.iter().find(|o| o.contains("private") || o.contains("shared") || o.contains("slave")).cloned().unwrap_or_else(|| "rprivate".into()),
            })
        })
        .collect()
}

fn is_propagation(option: &str) -> bool {
    let plain = option.strip_prefix('r').unwrap_or(option);
    matches!(plain, "private" | "shared" | "slave" | "unbindable")
}

/// Options of a bind or volume with those that nobody has to ask for; propagation is shown apart.
fn mount_options(mount: &unroot_engine::spec::Mount) -> Vec<String> {
    let own = ["tmpcopyup", "z", "Z", "U", "copy", "nocopy", "rw"];
    let given = mount.options.iter().filter(|o| !own.contains(&o.as_str()) && !is_propagation(o));
    let defaults = unroot_engine::plan::volume_defaults(mount).into_iter().map(str::to_string);
    given.cloned().chain(defaults).collect()
}

fn binds(record: &Record) -> Vec<String> {
    let name = |m: &unroot_engine::spec::Mount| {
        record.volumes.iter().find(|v| v.target == m.target).map_or(m.source.clone(), |v| v.name.clone())
    };
    record
        .spec
        .files
        .mounts
        .iter()
        .filter(|m| !m.source.is_empty())
        .map(|m| {
            let propagation = m.options.iter().find(|o| is_propagation(o)).map_or("rprivate", String::as_str);
            let options = [vec![propagation.to_string()], mount_options(m)].concat().join(",");
            format!("{}:{}:{options}", name(m), m.target)
        })
        .collect()
}

pub fn ports(record: &Record) -> Value {
    let mut all = serde_json::Map::new();
    for port in record.published() {
        let binding = json!({"HostIp": port.host_ip.map_or("0.0.0.0".to_string(), |ip| ip.to_string()), "HostPort": port.host.to_string()});
        let list = all.entry(format!("{}/{}", port.container, port.protocol)).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(binding);
        }
    }
    Value::Object(all)
}

/// Ports one after the other that are published in the same way.
struct PortRange {
    host_ip: Option<std::net::IpAddr>,
    host: u16,
    container: u16,
    protocol: String,
    length: u16,
}

fn port_ranges(record: &Record) -> Vec<PortRange> {
    let mut ports: Vec<PortMap> = record.published().collect();
    ports.sort_by_key(|p| (p.host_ip.map(|ip| ip.to_string()), p.protocol.to_string(), p.host, p.container));
    let mut ranges: Vec<PortRange> = Vec::new();
    for port in ports {
        let next = |r: &PortRange| {
            (r.host_ip, r.host + r.length, r.container + r.length)
                == (port.host_ip, port.host, port.container)
                && r.protocol == port.protocol.to_string()
        };
        match ranges.last_mut().filter(|r| next(r)) {
            Some(range) => range.length += 1,
            None => ranges.push(PortRange {
                host_ip: port.host_ip,
                host: port.host,
                container: port.container,
                protocol: port.protocol.to_string(),
                length: 1,
            }),
        }
    }
    ranges
}

/// Published ports as `ps --format json` has them.
pub fn ports_json(record: &Record) -> Value {
    let one = |r: &PortRange| {
        json!({
            "host_ip": r.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            "container_port": r.container,
            "host_port": r.host,
            "range": r.length,
            "protocol": r.protocol,
        })
    };
    port_ranges(record).iter().map(one).collect()
}

/// What the images of containers say, each of which is read once.
pub struct Configs<'a> {
    engine: &'a Engine,
    known: RefCell<BTreeMap<String, Rc<Config>>>,
}

impl<'a> Configs<'a> {
    /// None yet.
    pub fn new(engine: &'a Engine) -> Self {
        Self { engine, known: RefCell::default() }
    }

    /// Whose images they are.
    pub fn engine(&self) -> &'a Engine {
        self.engine
    }

    /// That of a container's image; empty if it has none, or that is gone.
    pub fn of(&self, record: &Record) -> Rc<Config> {
        let Some(wanted) = &record.image else { return Rc::default() };
        let read = || {
            let image = self.engine.store.image_by_id(&wanted.id).ok().flatten();
            Rc::new(image.map(|i| i.config.config).unwrap_or_default())
        };
        self.known.borrow_mut().entry(wanted.id.clone()).or_insert_with(read).clone()
    }
}

/// Ports that the image or `--expose` tells of: number -> protocols.
pub fn exposed(image: &Config, record: &Record) -> Value {
    let mut all: BTreeMap<u16, Vec<String>> = std::collections::BTreeMap::new();
    for text in image.exposed_ports.keys().chain(&record.spec.network.expose) {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { continue };
        for port in first..=last {
            let protocols = all.entry(port).or_default();
            if !protocols.iter().any(|p| p == protocol) {
                protocols.push(protocol.to_string());
            }
        }
    }
    match all.is_empty() {
        true => Value::Null,
        false => json!(all),
    }
}

/// Ports as `ps` shows them: published ones, then those that are only exposed.
pub fn ports_text(images: &Configs<'_>, record: &Record) -> String {
    let span = |first: u16, length: u16| match length {
        1 => first.to_string(),
        _ => format!("{first}-{}", first + (length - 1)),
    };
    let ranges = port_ranges(&images.engine().network_owner(record));
    let mut texts: Vec<String> = ranges
        .iter()
        .map(|r| {
            let ip = r.host_ip.map_or("0.0.0.0".to_string(), |ip| ip.to_string());
            format!("{ip}:{}->{}/{}", span(r.host, r.length), span(r.container, r.length), r.protocol)
        })
        .collect();
    let is_published = |port: u16, protocol: &str| {
        ranges
            .iter()
            .any(|r| r.protocol == protocol && (r.container..=r.container + (r.length - 1)).contains(&port))
    };
    let exposed = exposed(&images.of(record), record);
    let mut last: Option<(u16, u16, String)> = None;
    let mut flush = |last: Option<(u16, u16, String)>| {
        texts.extend(last.map(|(first, length, protocol)| format!("{}/{protocol}", span(first, length))));
    };
    let mut alone: Vec<(String, u16)> = Vec::new();
    for (port, protocols) in exposed.as_object().into_iter().flatten() {
        let Ok(port) = port.parse::<u16>() else { continue };
        let protocols = protocols.as_array().into_iter().flatten().filter_map(Value::as_str);
        alone.extend(protocols.filter(|p| !is_published(port, p)).map(|p| (p.to_string(), port)));
    }
    alone.sort();
    for (protocol, port) in alone {
        match &mut last {
            Some((first, length, known)) if *known == protocol && *first + *length == port => *length += 1,
            _ => flush(last.replace((port, 1, protocol))),
        }
    }
    flush(last);
    texts.join(", ")
}

/// The same with how it is.
pub fn status_of(engine: &Engine, record: &Record, state: &State) -> String {
    let report = Report::read(&engine.dirs, record).filter(|_| state.is_live());
    status(state) + &report.map(|r| format!(" ({})", r.status)).unwrap_or_default()
}

/// `Up 3 seconds`, `Exited (0) 2 minutes ago`, `Created`.
pub fn status(state: &State) -> String {
    let now = unroot_monitor::log::now();
    let since = |nanos: i64| ago((now - nanos) / 1_000_000_000);
    match (state.status, &state.run, &state.exit) {
        (Status::Created, ..) => "Created".into(),
        (Status::Initialized, ..) => "Initialized".into(),
        (Status::Paused, ..) => "Paused".into(),
        (Status::Stopping, ..) => "Stopping".into(),
        (Status::Restarting, _, Some(exit)) => {
            format!("Restarting ({}) {} ago", exit.code, since(exit.finished))
        }
        (_, Some(run), _) if state.is_live() => format!("Up {}", since(run.started)),
        (_, _, Some(exit)) => format!("Exited ({}) {} ago", exit.code, since(exit.finished)),
        _ => "Exited".into(),
    }
}

/// `docker inspect` of an image.
pub fn image(engine: &Engine, image: &Image) -> Result<Value, CliError> {
    let names = engine.names_of(&image.id);
    let (digested, tags): (Vec<&str>, Vec<&str>) =
        names.iter().map(String::as_str).partition(|n| n.contains('@'));
    let all: Vec<&str> = digested.iter().chain(&tags).copied().collect();
    let config: Value = serde_json::to_value(&image.config.config).unwrap_or_default();
    let history: Value = serde_json::to_value(&image.config.history).unwrap_or_default();
    let manifest: Value = engine
        .store
        .manifest(&image.id)
        .ok()
        .and_then(|m| serde_json::from_slice(&m).ok())
        .unwrap_or_default();
    let mut dirs = engine.store.lower_dirs(image).into_iter().map(|d| d.display().to_string());
    let mut data = serde_json::Map::new();
    if let Some(top) = dirs.next() {
        data.insert("UpperDir".into(), top.into());
    }
    let lower: Vec<String> = dirs.collect();
    if !lower.is_empty() {
        data.insert("LowerDir".into(), lower.join(":").into());
    }
    let kind = unroot_store::Kind::of(manifest.to_string().as_bytes());
    Ok(json!({
        "Id": image.id,
        "Digest": image.digest,
        "RepoTags": tags,
        "RepoDigests": repo_digests(image, &all),
        "Parent": "",
        "Comment": image.config.comment.clone().or_else(|| image.config.history.last()?.comment.clone()).unwrap_or_default(),
        "Created": image.config.created.clone().unwrap_or_default(),
        "Config": with_defaults(config),
        "Version": "",
        "Author": image.config.author.clone().unwrap_or_default(),
        "Architecture": image.config.architecture,
        "Variant": image.config.variant.clone().unwrap_or_default(),
        "Os": image.config.os,
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Name": "overlay", "Data": data},
        "RootFS": {"Type": "layers", "Layers": image.layers},
        "Labels": image.config.config.labels,
        "Annotations": manifest.get("annotations").cloned().unwrap_or_else(|| json!({})),
        "ManifestType": kind.manifest(),
        "User": image.config.config.user,
        "History": history,
        "NamesHistory": engine.store.past_names(&image.id).into_iter().rev().collect::<Vec<_>>(),
    }))
}

/// All digests that an image is known by.
pub fn digests(image: &Image) -> Vec<&str> {
    std::iter::once(&image.digest).chain(&image.digests).map(String::as_str).collect()
}

/// The repositories of an image's names with each of its digests.
pub fn repo_digests(image: &Image, names: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for name in names {
        let (repository, _) = repository(name);
        for digest in digests(image) {
            let one = format!("{repository}@{digest}");
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    all
}

/// RFC 3339 as Go writes it: `Z`, and no zeros at the end of a fraction.
pub fn rfc3339(nanos: i64) -> String {
    let text = format_nanos(nanos).replace("+00:00", "Z");
    match (text.split_once('.'), text.ends_with('Z')) {
        (Some((whole, fraction)), true) => {
            let fraction = fraction.trim_end_matches('Z').trim_end_matches('0');
            if fraction.is_empty() { format!("{whole}Z") } else { format!("{whole}.{fraction}Z") }
        }
        _ => text,
    }
}

/// Fields that templates ask for even where the image has none.
fn with_defaults(mut config: Value) -> Value {
    if let Some(map) = config.as_object_mut() {
        for (name, value) in [
            ("Env", json!([])),
            ("Cmd", json!([])),
            ("Entrypoint", json!([])),
            ("Labels", Value::Null),
            ("User", json!("")),
            ("WorkingDir", json!("")),
            ("Volumes", Value::Null),
            ("ExposedPorts", Value::Null),
            ("StopSignal", json!("")),
        ] {
            map.entry(name).or_insert(value);
        }
    }
    config
}

/// A name's repository and tag.
pub fn repository(name: &str) -> (String, String) {
    if let Some((repository, _)) = name.split_once('@') {
        return (self::repository(repository).0, "<none>".into());
    }
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.into(), tag.into()),
        _ => (name.into(), "<none>".into()),
    }
}

/// Columns that tell who a container's process is: they are read of it only where they are asked for.
pub const IDENTITY: [&str; 4] = ["HostUser", "HostUid", "User", "IDMap"];

/// Adds them to a row; they are empty where there is no process.
pub fn add_identity(row: &mut Value, seen: Option<Identity>, names: &mut HostNames) {
    row["HostUser"] = seen.as_ref().map_or(String::new(), |i| names.user(i.host_uid)).into();
    row["HostUid"] = seen.as_ref().map(|i| i.host_uid).into();
    row["User"] = seen.as_ref().and_then(|i| i.uid).map_or(String::new(), |uid| uid.to_string()).into();
    row["IDMap"] = seen.map_or(String::new(), |i| map_text(&i.maps.uid)).into();
}
