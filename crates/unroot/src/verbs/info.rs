//! `info`

use std::fs;

use serde_json::{Value, json};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::template;
use crate::verbs::Verb;
use crate::verbs::version::architecture;

pub const VERB: Verb = Verb {
    names: &["info"],
    usage: "[options]",
    about: "Show the engine and its host",
    flags: || {
        vec![
            flag("format", 'f', Kind::Value, "json, or a Go template"),
            flag("debug", 'D', Kind::Bool, "More"),
        ]
    },
    interspersed: true,
    count: (0, 0),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let uname = rustix::system::uname();
    let text = |c: &std::ffi::CStr| c.to_string_lossy().into_owned();
    let map = |m: &unroot_idmap::IdMap| {
        m.extents()
            .iter()
            .map(|e| json!({"container_id": e.inside, "host_id": e.outside, "size": e.length}))
            .collect::<Vec<_>>()
    };
    let containers = engine.containers()?;
    let states: Vec<_> =
        containers.iter().filter_map(|r| unroot_engine::State::observe(&engine.dirs, &r.id).ok()).collect();
    let running = states.iter().filter(|s| s.is_live()).count();
    let namespace = engine.enter()?;
    let cgroup_v2 = fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap_or(false);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |name: &str| {
        memory
            .lines()
            .find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    };
    let data = json!({
        "Host": {
            "Arch": architecture(), "OS": "linux", "Os": "linux", "Kernel": text(uname.release()), "Hostname": text(uname.nodename()),
            "CPUs": std::thread::available_parallelism().map_or(1, usize::from),
            "MemTotal": kib("MemTotal:"), "MemFree": kib("MemFree:"), "SwapTotal": kib("SwapTotal:"), "SwapFree": kib("SwapFree:"),
            "CgroupManager": "cgroupfs", "CgroupsVersion": if cgroup_v2 { "v2" } else { "v1" },
            "DatabaseBackend": "files", "LogDriver": "k8s-file", "EventLogger": "none", "NetworkBackend": "pasta", "RootlessNetworkCmd": "pasta",
            "OCIRuntime": {"Name": "unroot", "Path": std::env::current_exe().unwrap_or_default(), "Package": "", "Version": env!("CARGO_PKG_VERSION")},
            "Conmon": {"Path": "", "Package": "", "Version": "in the engine"},
            "Distribution": distribution(),
            "ServiceIsRemote": false,
            "IDMappings": {"uidmap": map(&namespace.maps.uid), "gidmap": map(&namespace.maps.gid), "singleID": namespace.single_id},
            "Security": {"Rootless": engine.user.is_rootless(), "SeccompEnabled": true, "SeccompProfilePath": "built in", "SELinuxEnabled": fs::exists("/sys/fs/selinux/enforce").unwrap_or(false), "AppArmorEnabled": false, "Capabilities": "CAP_CHOWN,CAP_DAC_OVERRIDE,CAP_FOWNER,CAP_FSETID,CAP_KILL,CAP_NET_BIND_SERVICE,CAP_SETFCAP,CAP_SETGID,CAP_SETPCAP,CAP_SETUID,CAP_SYS_CHROOT"},
            "RemoteSocket": {"Path": "", "Exists": false},
        },
        "Store": {
            "GraphDriverName": "overlay", "GraphRoot": engine.dirs.root, "RunRoot": engine.dirs.run, "VolumePath": engine.dirs.root.join("volumes"), "ConfigFile": "", "ImageCopyTmpDir": engine.dirs.root.join("tmp"),
            "ImageStore": {"Number": engine.store.images().map_err(CliError::new)?.len()},
            "ContainerStore": {"Number": containers.len(), "Running": running, "Paused": 0, "Stopped": containers.len() - running},
            "GraphOptions": {}, "GraphStatus": {"Native Overlay Diff": "false", "Supports d_type": "true"}, "TransientStore": false,
        },
        "Registries": {}, "Plugins": {"Volume": ["local"], "Network": ["none", "host", "pasta"], "Log": ["k8s-file", "json-file", "none", "passthrough"]},
        "Version": {"APIVersion": env!("CARGO_PKG_VERSION"), "Version": env!("CARGO_PKG_VERSION"), "OsArch": format!("linux/{}", architecture()), "Os": "linux"},
    });
    match args.value("format").map(str::trim) {
        Some("json") => output::line(serde_json::to_string_pretty(&data).map_err(CliError::new)?),
        Some(format) => output::line(template::render(format, &lowered(&data)).map_err(CliError::new)?),
        None => output::raw(yaml(&data, 0).as_bytes()),
    }
    Ok(0)
}

/// os-release(5)
fn distribution() -> Value {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or("unknown")
            .trim_matches('"')
            .to_string()
    };
    json!({"Distribution": field("ID"), "Version": field("VERSION_ID"), "Codename": field("VERSION_CODENAME")})
}

/// (templates name fields in any case already)
fn lowered(data: &Value) -> Value {
    data.clone()
}

/// As YAML: keys with a small first letter.
fn yaml(value: &Value, depth: usize) -> String {
    let pad = "  ".repeat(depth);
    let Value::Object(map) = value else { return String::new() };
    let small = |key: &str| {
        let mut chars = key.chars();
        match key.chars().nth(1).is_some_and(char::is_uppercase) {
            true => key.to_string(),
            false => chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default(),
        }
    };
    map.iter()
        .map(|(key, value)| match value {
            Value::Object(inner) if !inner.is_empty() => {
                format!("{pad}{}:\n{}", small(key), yaml(value, depth + 1))
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                let lines: String = items
                    .iter()
                    .map(|i| {
                        format!("{pad}- {}\n", yaml(i, 0).trim_end().replace('\n', &format!("\n{pad}  ")))
                    })
                    .collect();
                format!("{pad}{}:\n{lines}", small(key))
            }
            Value::String(text) => {
                format!("{pad}{}: {}\n", small(key), if text.is_empty() { "\"\"" } else { text })
            }
            other => format!("{pad}{}: {other}\n", small(key)),
        })
        .collect()
}
