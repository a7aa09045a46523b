//! `info`

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use unroot_engine::{Engine, Status};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::template;
use crate::verbs::Verb;
use crate::verbs::version::architecture;

pub const VERB: Verb = Verb {
    names: &["info", "system info"],
    usage: "[options]",
    about: "Show the engine and its host",
    flags: || vec![flag("format", 'f', Kind::Value, "json, or a Go template")],
    interspersed: true,
    count: (0, 0),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let data = json!({
        "Host": host(global, &engine)?,
        "Store": store(&engine)?,
        "Registries": registries(&engine)?,
        "Plugins": {
            "Volume": ["local"],
            "Network": ["none", "host", "pasta", "container", "ns"],
            "Log": ["k8s-file", "json-file", "none", "passthrough"],
        },
        "Version": {
            "APIVersion": env!("CARGO_PKG_VERSION"), "Version": env!("CARGO_PKG_VERSION"),
            "OsArch": format!("linux/{}", architecture()), "Os": "linux",
        },
    });
    match args.value("format").map(str::trim) {
        Some("json") => {
            output::line(serde_json::to_string_pretty(&as_json(&data)).map_err(CliError::new)?);
        }
        Some(format) => output::line(template::render(format, &data).map_err(CliError::new)?),
        None => output::raw(yaml(&as_json(&data), 0).as_bytes()),
    }
    Ok(0)
}

fn host(global: &Global, engine: &Engine) -> Result<Value, CliError> {
    let uname = rustix::system::uname();
    let text = |c: &std::ffi::CStr| c.to_string_lossy().into_owned();
    let map = |m: &unroot_idmap::IdMap| {
        let extent = |e: &unroot_idmap::Extent| json!({"container_id": e.inside, "host_id": e.outside, "size": e.length});
        m.extents().iter().map(extent).collect::<Vec<_>>()
    };
    let namespace = engine.enter()?;
    let conf = global.conf()?;
    let log_driver = conf.text("containers", "log_driver")?.unwrap_or_else(|| "k8s-file".into());
    let (runtime, external) = global.runtime()?;
    let path = external.map_or_else(|| std::env::current_exe().unwrap_or_default(), PathBuf::from);
    let events = if engine.dirs.events.path().is_some() { "file" } else { "none" };
    let systemd = engine.scopes && unroot_cgroup::has_systemd(engine.user.uid);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let bytes = |name: &str| {
        let line = memory.lines().find_map(|l| l.strip_prefix(name)?.split_whitespace().next());
        line.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let is_on = |file: &str| fs::read_to_string(file).is_ok_and(|t| t.starts_with(['1', 'Y']));
    Ok(json!({
        "Arch": architecture(),
        "CgroupManager": if systemd { "systemd" } else { "cgroupfs" },
        "CgroupsVersion": if fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap_or(false) { "v2" } else { "v1" },
        "CgroupControllers": unroot_cgroup::controllers(),
        "Conmon": {"Package": "", "Path": std::env::current_exe().unwrap_or_default(), "Version": "part of the engine"},
        "CPUs": std::thread::available_parallelism().map_or(1, usize::from),
        "DatabaseBackend": "files",
        "Distribution": distribution(),
        "EventLogger": events,
        "Hostname": text(uname.nodename()),
        "IDMappings": {"GIDMap": map(&namespace.maps.gid), "UIDMap": map(&namespace.maps.uid), "SingleID": namespace.single_id.is_some()},
        "Kernel": text(uname.release()),
        "LogDriver": log_driver,
        "MemFree": bytes("MemFree:"),
        "MemTotal": bytes("MemTotal:"),
        "NetworkBackend": "pasta",
        "OCIRuntime": {"Name": runtime, "Package": "", "Path": path, "Version": env!("CARGO_PKG_VERSION")},
        "OS": "linux",
        "Pasta": pasta(),
        "RemoteSocket": {"Path": "", "Exists": false},
        "RootlessNetworkCmd": "pasta",
        "Security": {
            "AppArmorEnabled": is_on("/sys/module/apparmor/parameters/enabled"),
            "Capabilities": unroot_engine::capabilities::DEFAULT.map(|c| format!("CAP_{c}")).join(","),
            "Rootless": engine.user.is_rootless(),
            "SECCOMPEnabled": fs::read_to_string("/proc/self/status").is_ok_and(|s| s.contains("\nSeccomp:")),
            "SECCOMPProfilePath": "built in",
            "SELinuxEnabled": fs::exists("/sys/fs/selinux/enforce").unwrap_or(false),
        },
        "ServiceIsRemote": false,
        "SwapFree": bytes("SwapFree:"),
        "SwapTotal": bytes("SwapTotal:"),
        "Uptime": uptime(),
        "User": {"Name": engine.user.name, "UID": engine.user.uid},
    }))
}

fn store(engine: &Engine) -> Result<Value, CliError> {
    let real = |dir: &Path| fs::canonicalize(dir).unwrap_or_else(|_| dir.into());
    let root = real(&engine.dirs.root);
    let containers = engine.containers()?;
    let of = |id: &str| unroot_engine::State::observe(&engine.dirs, id).ok().map(|s| s.status);
    let states: Vec<Status> = containers.iter().filter_map(|r| of(&r.id)).collect();
    let count = |wanted: &[Status]| states.iter().filter(|s| wanted.contains(s)).count();
    let (running, paused) = (count(&[Status::Running]), count(&[Status::Paused]));
    let stat = rustix::fs::statvfs(&root).ok();
    let allocated = stat.as_ref().map_or(0, |s| s.f_blocks * s.f_frsize);
    let used = stat.as_ref().map_or(0, |s| (s.f_blocks - s.f_bfree) * s.f_frsize);
    Ok(json!({
        "ConfigFile": "",
        "ContainerStore": {
            "Number": containers.len(), "Paused": paused, "Running": running,
            "Stopped": containers.len() - paused - running,
        },
        "GraphDriverName": "overlay",
        "GraphOptions": {},
        "GraphRoot": root,
        "GraphRootAllocated": allocated,
        "GraphRootUsed": used,
        "GraphStatus": {"Backing Filesystem": filesystem(&root), "Supports d_type": "true", "Supports volatile": "true"},
        "ImageCopyTmpDir": root.join("tmp"),
        "ImageStore": {"Number": engine.store.images().map_err(CliError::new)?.len()},
        "RunRoot": real(&engine.dirs.run),
        "TransientStore": false,
        "VolumePath": root.join("volumes"),
    }))
}

fn registries(engine: &Engine) -> Result<Value, CliError> {
    let conf = engine.registries()?;
    let search = conf.unqualified_search_registries();
    Ok(if search.is_empty() { json!({}) } else { json!({"search": search}) })
}

/// The kind of filesystem that a directory is on, as mountinfo names it.
fn filesystem(dir: &Path) -> String {
    let mounted = unroot_sys::mountinfo::of("self").unwrap_or_default();
    let around = mounted.into_iter().filter(|m| dir.starts_with(&m.target));
    around.max_by_key(|m| m.target.as_os_str().len()).map_or("unknown".into(), |m| m.kind)
}

fn pasta() -> Value {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&dirs).map(|dir| dir.join("pasta")).find(|file| file.is_file());
    let Some(program) = found else { return json!({"Executable": "", "Package": "", "Version": ""}) };
    let asked = Command::new(&program).arg("--version").stdin(Stdio::null()).output();
    let said = asked.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    json!({"Executable": program, "Package": "", "Version": said.lines().next().unwrap_or("")})
}

/// `0h 49m 1.00s`
fn uptime() -> String {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = text.split(' ').next().and_then(|t| t.parse().ok()).unwrap_or(0.0);
    let whole = seconds as u64;
    format!("{}h {}m {:.2}s", whole / 3600, whole / 60 % 60, seconds % 60.0)
}

/// os-release(5)
fn distribution() -> Value {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let value = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or("unknown").trim_matches('"').to_string()
    };
    json!({"Distribution": field("ID"), "Version": field("VERSION_ID"), "Codename": field("VERSION_CODENAME")})
}

/// Templates name fields as Go does, JSON and YAML as Podman's do.
fn as_json(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.iter().map(|(k, v)| (json_name(k), as_json(v))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(as_json).collect()),
        other => other.clone(),
    }
}

fn json_name(name: &str) -> String {
    let odd = [
        ("AppArmorEnabled", "apparmorEnabled"),
        ("CgroupsVersion", "cgroupVersion"),
        ("CPUs", "cpus"),
        ("GIDMap", "gidmap"),
        ("IDMappings", "idMappings"),
        ("OCIRuntime", "ociRuntime"),
        ("OS", "os"),
        ("SECCOMPEnabled", "seccompEnabled"),
        ("SECCOMPProfilePath", "seccompProfilePath"),
        ("SELinuxEnabled", "selinuxEnabled"),
        ("SingleID", "singleID"),
        ("UID", "uid"),
        ("UIDMap", "uidmap"),
    ];
    // (not a field, but a word of people's)
    if name.contains(' ') || matches!(name, "APIVersion") {
        return name.into();
    }
    let small = || {
        let mut chars = name.chars();
        chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
    };
    odd.iter().find(|(go, _)| *go == name).map_or_else(small, |(_, json)| json.to_string())
}

fn yaml(value: &Value, depth: usize) -> String {
    let pad = "  ".repeat(depth);
    let Value::Object(map) = value else { return String::new() };
    let entry = |(key, value): (&String, &Value)| match value {
        Value::Object(inner) if !inner.is_empty() => format!("{pad}{key}:\n{}", yaml(value, depth + 1)),
        Value::Array(items) if !items.is_empty() => {
            let item = |i: &Value| match i {
                Value::Object(_) => yaml(i, 0).trim_end().replace('\n', &format!("\n{pad}  ")),
                other => scalar(other),
            };
            let lines: String = items.iter().map(|i| format!("{pad}- {}\n", item(i))).collect();
            format!("{pad}{key}:\n{lines}")
        }
        other => format!("{pad}{key}: {}\n", scalar(other)),
    };
    map.iter().map(entry).collect()
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
