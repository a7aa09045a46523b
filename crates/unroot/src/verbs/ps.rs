//! `ps`

use serde_json::{Value, json};
use unroot_engine::identity::{HostNames, Identity, map_text};
use unroot_engine::{Engine, Record, State};
use unroot_monitor::log::format_nanos;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output::{self, ago, formatted};
use crate::selection::{LATEST, matches};
use crate::verbs::Verb;
use crate::view;

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
            flag("quiet", 'q', Kind::Bool, "Ids alone"),
            flag("sort", ' ', Kind::Value, "By: created, id, image, names, status, command"),
            flag("sync", ' ', Kind::Bool, "Observe the state: always so"),
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, 0),
    run,
};

const HEADINGS: [(&str, &str); 21] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedHuman", "CREATED"),
    ("Created", "CREATED"),
    ("CreatedAt", "CREATED"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("Networks", "NETWORKS"),
    ("Pid", "PID"),
    ("ExitCode", "EXITCODE"),
    ("HostUser", "HOST USER"),
    ("HostUid", "HOST UID"),
    ("IDMap", "ID MAP"),
    ("User", "USER"),
    ("Pod", "POD ID"),
];

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let mut records = engine.containers()?;
    records.reverse();
    let last: Option<usize> = args.number("last")?;
    let everything = args.is("all")
        || args.is("latest")
        || last.is_some()
        || args.all("filter").iter().any(|f| f.starts_with("status") || f.starts_with("exited"));
    let mut rows = Vec::new();
    let limit = if args.is("latest") { 1 } else { last.unwrap_or(usize::MAX) };
    for record in records {
        let state = State::observe(&engine.dirs, &record.id)?;
        if (everything || state.is_live())
            && matches(&engine, &record, &state, args.all("filter"))?
            && rows.len() < limit
        {
            rows.push((record, state));
        }
    }
    sort(&mut rows, args.value("sort"))?;
    if args.is("quiet") {
        if args.value("format").is_some() {
            return Err(CliError::new("quiet and format cannot be used together"));
        }
        rows.iter().for_each(|(record, _)| {
            output::line(if args.is("no-trunc") { &record.id } else { record.short_id() })
        });
        return Ok(0);
    }
    let mut values: Vec<Value> =
        rows.iter().map(|(record, state)| row(&engine, record, state, args.is("no-trunc"))).collect();
    // (it is read of each container's process: for those who ask)
    if args
        .value("format")
        .is_some_and(|f| f.contains("json") || IDENTITY.iter().any(|column| f.contains(column)))
    {
        let mut names = HostNames::default();
        for (value, (_, state)) in values.iter_mut().zip(&rows) {
            identity(value, engine.identity(state), &mut names);
        }
    }
    match args.value("format") {
        Some(format) => formatted(format, &values, &HEADINGS, args.is("noheading"))?,
        None => formatted(
            "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.CreatedHuman}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
            &values,
            &HEADINGS,
            args.is("noheading"),
        )?,
    }
    Ok(0)
}

/// Columns that tell who a container's process is.
const IDENTITY: [&str; 4] = ["HostUser", "HostUid", "User", "IDMap"];

fn identity(row: &mut Value, seen: Option<Identity>, names: &mut HostNames) {
    row["HostUser"] = seen.as_ref().map_or(String::new(), |i| names.user(i.host_uid)).into();
    row["HostUid"] = seen.as_ref().map(|i| i.host_uid).into();
    row["User"] = seen.as_ref().and_then(|i| i.uid).map_or(String::new(), |uid| uid.to_string()).into();
    row["IDMap"] = seen.map_or(String::new(), |i| map_text(&i.maps.uid)).into();
}

fn sort(rows: &mut [(Record, State)], by: Option<&str>) -> Result<(), CliError> {
    match by.unwrap_or("created") {
        "created" | "runningfor" => {}
        "id" => rows.sort_by(|a, b| a.0.id.cmp(&b.0.id)),
        "image" => rows.sort_by_key(|r| r.0.image.as_ref().map(|i| i.name.clone())),
        "names" => rows.sort_by(|a, b| a.0.name.cmp(&b.0.name)),
        "status" => rows.sort_by_key(|r| r.1.status.as_str()),
        "command" => rows.sort_by(|a, b| a.0.spec.process.command.cmp(&b.0.spec.process.command)),
        other => {
            return Err(CliError::new(format!(
                "invalid argument \"{other}\" for --sort: it is command, created, id, image, names, runningfor or status"
            )));
        }
    }
    Ok(())
}

fn row(engine: &Engine, record: &Record, state: &State, whole: bool) -> Value {
    let spec = &record.spec;
    let config = || {
        record
            .image
            .as_ref()
            .and_then(|i| engine.store.image_by_id(&i.id).ok().flatten())
            .map(|i| i.config.config)
            .unwrap_or_default()
    };
    let command = match spec.process.command.is_empty() || spec.process.entrypoint.is_none() {
        true => unroot_engine::plan::command(spec, &config()),
        false => unroot_engine::plan::command(spec, &unroot_store::Config::default()),
    };
    let command = command.join(" ");
    let shown = if whole || command.chars().count() <= 20 {
        command.clone()
    } else {
        command.chars().take(17).collect::<String>() + "..."
    };
    let now = unroot_monitor::log::now();
    let created = format!("{} ago", ago((now - record.created) / 1_000_000_000));
    json!({
        "ID": if whole { &record.id } else { record.short_id() },
        "Id": record.id,
        "Image": record.image.as_ref().map_or("", |i| &i.name),
        "ImageID": record.image.as_ref().map_or("", |i| &i.id),
        "Command": shown,
        "CreatedHuman": created, "RunningFor": created,
        "Created": created,
        "CreatedAt": format_nanos(record.created),
        "StartedAt": state.run.as_ref().map_or(0, |r| r.started / 1_000_000_000),
        "Exited": state.exit.as_ref().is_some_and(|e| e.started != 0) && !state.is_live(),
        "ExitedAt": state.exit.as_ref().map_or(0, |e| e.finished / 1_000_000_000),
        "ExitCode": state.exit.as_ref().map_or(0, |e| e.code),
        "State": state.status.as_str(),
        "Status": view::status_of(engine, record, state),
        "Pid": state.process().map_or(0, |p| p.pid),
        "Ports": view::ports_text(record),
        "Names": record.name,
        "Labels": spec.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","),
        "Mounts": spec.files.mounts.iter().map(|m| m.target.clone()).collect::<Vec<_>>().join(","),
        "Networks": spec.network.mode.clone().unwrap_or_else(|| "pasta".into()),
        "Pod": "", "PodName": "", "IsInfra": false, "Size": "", "Restarts": 0,
    })
}
