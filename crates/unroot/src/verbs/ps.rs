//! `ps`

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use unroot_engine::identity::HostNames;
use unroot_engine::{Engine, Pod, Record, State};
use unroot_monitor::log::format_nanos;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::filters::Filters;
use crate::output::{self, ago, formatted};
use crate::selection::LATEST;
use crate::verbs::Verb;
use crate::view::{self, Configs};

pub const VERB: Verb = Verb {
    names: &["ps", "container ls", "container list", "container ps"],
    usage: "[options]",
    about: "List containers",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "Those that do not run, too"),
            flag(
                "external",
                ' ',
                Kind::Bool,
                "Those of other tools that share the store, too: there are none",
            ),
            flag("filter", 'f', Kind::Repeat, "Those for which this holds: KEY=VALUE"),
            flag("format", ' ', Kind::Value, "json, or a Go template"),
            flag("last", 'n', Kind::Value, "The last ones, whether they run or not"),
            flag("no-trunc", ' ', Kind::Bool, "Whole ids and commands"),
            flag("noheading", ' ', Kind::Bool, "No headings"),
            flag("ns", ' ', Kind::Bool, "Their namespaces"),
            flag("pod", 'p', Kind::Bool, "Id and name of their pods"),
            flag("quiet", 'q', Kind::Bool, "Ids alone"),
            flag("size", 's', Kind::Bool, "What their files take"),
            flag(
                "sort",
                ' ',
                Kind::Value,
                "By: command, created, id, image, names, pod, runningfor, size, status",
            ),
            flag("sync", ' ', Kind::Bool, "Observe the state: always so"),
            flag("watch", 'w', Kind::Value, "Again and again, so many seconds apart"),
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, 0),
    run,
};

const HEADINGS: [(&str, &str); 35] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("ImageID", "IMAGE ID"),
    ("Command", "COMMAND"),
    ("CreatedHuman", "CREATED"),
    ("Created", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "RUNNING FOR"),
    ("StartedAt", "STARTED AT"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("Networks", "NETWORKS"),
    ("Pid", "PID"),
    ("Exited", "EXITED"),
    ("ExitedAt", "EXITED AT"),
    ("ExitCode", "EXIT CODE"),
    ("HostUser", "HOST USER"),
    ("HostUid", "HOST UID"),
    ("IDMap", "ID MAP"),
    ("User", "USER"),
    ("Pod", "POD ID"),
    ("PodName", "PODNAME"),
    ("Restarts", "RESTARTS"),
    ("Size", "SIZE"),
    ("Cgroup", "CGROUPNS"),
    ("IPC", "IPC"),
    ("MNT", "MNT"),
    ("NET", "NET"),
    ("PIDNS", "PIDNS"),
    ("UserNS", "USERNS"),
    ("UTS", "UTS"),
];

/// Names of templates, and the files of namespaces in /proc.
pub const NAMESPACES: [(&str, &str); 7] = [
    ("Cgroup", "cgroup"),
    ("IPC", "ipc"),
    ("MNT", "mnt"),
    ("NET", "net"),
    ("PIDNS", "pid"),
    ("UserNS", "user"),
    ("UTS", "uts"),
];

fn check(args: &Args) -> Result<(), CliError> {
    let error = |text: &str| Err(CliError::new(text));
    if args.value("last").is_some() && args.is("latest") {
        return error("last and latest are mutually exclusive");
    }
    if args.is("quiet") && (args.is("size") || args.is("ns")) {
        return error("quiet conflicts with size and namespace");
    }
    if args.is("size") && args.is("ns") {
        return error("size and namespace options conflict");
    }
    if args.number::<u64>("watch")?.is_some_and(|w| w > 0) && args.is("latest") {
        return error("the watch and latest flags cannot be used together");
    }
    Ok(())
}

fn run(global: &Global, args: &Args) -> Outcome {
    check(args)?;
    let engine = global.engine()?;
    let filters = Filters::parse(&engine, args.all("filter"), &[])?;
    let seconds = args.number::<u64>("watch")?.unwrap_or(0);
    loop {
        let rows = rows(&engine, args, &filters)?;
        if seconds > 0 {
            output::raw(b"\x1b[H\x1b[2J");
        }
        show(&engine, args, &rows)?;
        if seconds == 0 {
            return Ok(0);
        }
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

fn rows(engine: &Engine, args: &Args, filters: &Filters) -> Result<Vec<(Record, State)>, CliError> {
    let mut records = engine.containers()?;
    records.reverse();
    let last = args.number::<i64>("last")?.and_then(|n| usize::try_from(n).ok());
    let everything =
        args.is("all") || args.is("latest") || last.is_some() || filters.has(&["status", "exited", "health"]);
    let limit = if args.is("latest") { 1 } else { last.unwrap_or(usize::MAX) };
    let mut rows = Vec::new();
    for record in records {
        if rows.len() == limit {
            break;
        }
        let state = State::observe(&engine.dirs, &record.id)?;
        let shown = everything || (state.is_live() && state.status != unroot_engine::Status::Initialized);
        if shown && filters.hold(engine, &record, &state) {
            rows.push((record, state));
        }
    }
    sort(engine, &mut rows, args.value("sort"))?;
    Ok(rows)
}

fn sort(engine: &Engine, rows: &mut [(Record, State)], by: Option<&str>) -> Result<(), CliError> {
    match by.unwrap_or("none") {
        "none" => {}
        "created" | "runningfor" => rows.sort_by_key(|r| r.0.created),
        "id" => rows.sort_by(|a, b| a.0.id.cmp(&b.0.id)),
        "image" => rows.sort_by_key(|r| r.0.image.as_ref().map(|i| i.name.clone())),
        "pod" => rows.sort_by(|a, b| a.0.spec.pod.cmp(&b.0.spec.pod)),
        "names" => rows.sort_by(|a, b| a.0.name.cmp(&b.0.name)),
        "status" => rows.sort_by_key(|r| r.1.status.as_str()),
        "command" => {
            let images = Configs::new(engine);
            rows.sort_by_cached_key(|r| command(&images, &r.0));
        }
        "size" => {
            let mut sizes = BTreeMap::new();
            for (record, _) in rows.iter() {
                sizes.insert(record.id.clone(), engine.size_of(record)?.own);
            }
            rows.sort_by_key(|r| sizes.get(&r.0.id).copied());
        }
        other => {
            return Err(CliError::new(format!(
                "invalid argument \"{other}\" for \"--sort\" flag: it is command, created, id, image, names, pod, runningfor, size or status"
            )));
        }
    }
    Ok(())
}

fn show(engine: &Engine, args: &Args, rows: &[(Record, State)]) -> Result<(), CliError> {
    let format = args.value("format");
    if args.is("quiet") && format.is_none() {
        rows.iter().for_each(|(record, _)| {
            output::line(if args.is("no-trunc") { &record.id } else { record.short_id() })
        });
        return Ok(());
    }
    let wants = |name: &str| format.is_some_and(|f| f.contains(name));
    let shown = Shown {
        whole: args.is("no-trunc"),
        size: args.is("size") || wants(".Size"),
        namespaces: args.is("ns") || NAMESPACES.iter().any(|(name, _)| wants(&format!(".{name}"))),
    };
    let is_json = format.is_some_and(|f| f.trim() == "json");
    let mut names = HostNames::default();
    // (it is read of each container's process: for those who ask)
    let images = Configs::new(engine);
    let wants_identity = is_json || view::IDENTITY.iter().any(|column| wants(column));
    let pods = Pods::of(engine, rows)?;
    let values = rows
        .iter()
        .map(|(record, state)| {
            let mut all = whole(&images, record, state, &shown)?;
            pods.add(record, &mut all, shown.whole || is_json);
            if wants_identity {
                view::add_identity(&mut all, engine.identity(state), &mut names);
            }
            Ok(if is_json { all } else { brief(&images, record, &shown, all) })
        })
        .collect::<Result<Vec<Value>, CliError>>()?;
    let usual =
        "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.CreatedHuman}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
    let namespaces = "table {{.ID}}\t{{.Names}}\t{{.Pid}}\t{{.Cgroup}}\t{{.IPC}}\t{{.MNT}}\t{{.NET}}\t{{.PIDNS}}\t{{.UserNS}}\t{{.UTS}}";
    let mut own = match (args.is("ns"), args.is("size")) {
        (true, _) => namespaces.to_string(),
        (_, true) => format!("{usual}\t{{{{.Size}}}}"),
        _ => usual.to_string(),
    };
    if args.is("pod") {
        own += "\t{{.Pod}}\t{{.PodName}}";
    }
    let format =
        format.map_or(own, |f| f.replace(".Namespaces.User", ".UserNS").replace(".Namespaces.", "."));
    formatted(&format, &values, &HEADINGS, args.is("noheading"))
}

/// The pods of containers, each read once, and the published ports of their infra containers.
#[derive(Default)]
struct Pods(BTreeMap<String, Pod>);

impl Pods {
    fn of(engine: &Engine, rows: &[(Record, State)]) -> Result<Self, CliError> {
        let mut all = BTreeMap::new();
        for id in rows.iter().filter_map(|(record, _)| record.spec.pod.as_ref()) {
            if !all.contains_key(id)
                && let Some(pod) = Pod::read(&engine.dirs, id)?
            {
                all.insert(id.clone(), pod);
            }
        }
        Ok(Self(all))
    }

    fn add(&self, record: &Record, row: &mut Value, whole: bool) {
        let Some(id) = &record.spec.pod else { return };
        row["Pod"] = if whole { id.as_str() } else { &id[..12] }.into();
        row["PodName"] = self.0.get(id).map_or("", |pod| &pod.name).into();
    }
}

struct Shown {
    whole: bool,
    size: bool,
    namespaces: bool,
}

fn command(images: &Configs<'_>, record: &Record) -> Vec<String> {
    unroot_engine::plan::command(&record.spec, &images.of(record))
}

/// A row as JSON has it.
fn whole(images: &Configs<'_>, record: &Record, state: &State, shown: &Shown) -> Result<Value, CliError> {
    let engine = images.engine();
    let spec = &record.spec;
    let (run, exit) = (state.run.as_ref(), state.exit.as_ref());
    let exited = exit.is_some_and(|e| e.started != 0) && !state.is_live();
    let started = run.map(|r| r.started).or(exit.map(|e| e.started)).filter(|t| *t != 0);
    let seconds = |nanos: Option<i64>| nanos.map_or(ZERO_TIME, |n| n.div_euclid(1_000_000_000));
    let size = match shown.size {
        true => {
            let size = engine.size_of(record)?;
            json!({"rootFsSize": size.whole, "rwSize": size.own})
        }
        false => Value::Null,
    };
    let mut mounts: Vec<&str> = spec.files.mounts.iter().map(|m| m.target.as_str()).collect();
    mounts.sort_unstable();
    Ok(json!({
        "AutoRemove": spec.remove,
        "Command": command(images, record),
        "CreatedAt": created_ago(record),
        "CIDFile": spec.life.cidfile.clone().unwrap_or_default(),
        "Exited": exited,
        "ExitedAt": seconds(exit.filter(|_| exited).map(|e| e.finished)),
        "ExitCode": exit.filter(|_| !state.is_live()).map_or(0, |e| e.code),
        "ExposedPorts": view::exposed(&images.of(record), record),
        "Id": record.id,
        "Image": record.image.as_ref().map_or("", |i| &i.name),
        "ImageID": record.image.as_ref().map_or("", |i| &i.id),
        "IsInfra": spec.infra,
        "Labels": spec.labels,
        "Mounts": mounts,
        "Names": [record.name],
        "Namespaces": namespaces(state, shown),
        "Networks": networks(record),
        "Pid": state.process().map_or(0, |p| p.pid),
        "Pod": "",
        "PodName": "",
        "Ports": view::ports_json(&engine.network_owner(record)),
        "Restarts": run.map(|r| r.restarts).or(exit.map(|e| e.restarts)).unwrap_or(0),
        "Size": size,
        "StartedAt": seconds(started),
        "State": state.status.as_str(),
        "Status": view::status_of(engine, record, state),
        "Created": record.created.div_euclid(1_000_000_000),
    }))
}

/// Go's zero time as Unix seconds.
const ZERO_TIME: i64 = -62_135_596_800;

fn created_ago(record: &Record) -> String {
    format!("{} ago", ago((unroot_monitor::log::now() - record.created) / 1_000_000_000))
}

pub fn networks(record: &Record) -> Vec<String> {
    let mode = record.spec.network.mode.as_deref().unwrap_or("pasta");
    let name = mode.split(':').next().unwrap_or(mode);
    match name {
        // (namespaces and the helper that is everybody's own are no networks)
        "none" | "host" | "container" | "ns" | "private" | "pasta" | "slirp4netns" | "" => Vec::new(),
        other => vec![other.to_string()],
    }
}

fn namespaces(state: &State, shown: &Shown) -> Value {
    let mut all = Map::new();
    if let Some(process) = state.process().filter(|_| shown.namespaces) {
        for (name, file) in NAMESPACES {
            let link = std::fs::read_link(format!("/proc/{}/ns/{file}", process.pid)).unwrap_or_default();
            let number = link.to_string_lossy().trim_matches(|c: char| !c.is_ascii_digit()).to_string();
            all.insert(name.to_string(), number.into());
        }
    }
    Value::Object(all)
}

/// The same with what templates and tables show for it.
fn brief(images: &Configs<'_>, record: &Record, shown: &Shown, mut row: Value) -> Value {
    let words = row["Command"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let command = words.collect::<Vec<_>>().join(" ");
    let command = match shown.whole || command.chars().count() <= 17 {
        true => command,
        false => command.chars().take(17).collect::<String>() + "...",
    };
    let created = created_ago(record);
    let id = if shown.whole { &record.id } else { record.short_id() };
    let image_id = row["ImageID"].as_str().unwrap_or_default();
    let image_id = if shown.whole { image_id.to_string() } else { image_id.chars().take(12).collect() };
    let size = match &row["Size"] {
        Value::Null => String::new(),
        size => {
            let bytes = |name: &str| output::human(size[name].as_u64().unwrap_or(0), 3).replace(' ', "");
            format!("{} (virtual {})", bytes("rwSize"), bytes("rootFsSize"))
        }
    };
    let networks = networks(record).join(",");
    let text = [
        ("ID", id.to_string()),
        ("ImageID", image_id),
        ("Command", command),
        ("CreatedHuman", created.clone()),
        ("RunningFor", created.clone()),
        ("Created", format_nanos(record.created)),
        ("CreatedAt", format_nanos(record.created)),
        ("Ports", view::ports_text(images, record)),
        ("Names", record.name.clone()),
        ("Networks", networks),
        ("Size", size),
    ];
    for (name, value) in text {
        row[name] = value.into();
    }
    for (name, _) in NAMESPACES {
        row[name] = row["Namespaces"].get(name).cloned().unwrap_or_else(|| "".into());
    }
    row
}
