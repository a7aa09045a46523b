//! `volume create`, `ls`, `rm`, `inspect`, `prune`

use serde_json::{Value, json};
use unroot_engine::volumes::{NewVolume, is_in_use, users_of};
use unroot_engine::{Engine, ErrorKind};
use unroot_store::Volume;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::filters::pattern;
use crate::moment::{Direction, parse};
use crate::output::{self, formatted};
use crate::selection::timeout;
use crate::verbs::{ANY, Verb, each};

pub const CREATE: Verb = Verb {
    names: &["volume create"],
    usage: "[options] [NAME]",
    about: "Create a volume",
    flags: || {
        vec![
            flag("driver", 'd', Kind::Value, "Driver: local"),
            flag("gid", ' ', Kind::Value, "Group of its directory"),
            flag("ignore", ' ', Kind::Bool, "One that is there already is no error"),
            flag("label", 'l', Kind::Repeat, "Add a label KEY=VALUE"),
            flag("opt", 'o', Kind::Repeat, "Option of the driver: type=, device=, o=, nocopy"),
            flag("uid", ' ', Kind::Value, "Owner of its directory"),
        ]
    },
    interspersed: true,
    count: (0, 1),
    run: create,
};

pub const LIST: Verb = Verb {
    names: &["volume ls", "volume list"],
    usage: "[options]",
    about: "List volumes",
    flags: || {
        vec![
            flag(
                "filter",
                'f',
                Kind::Repeat,
                "Those for which this holds: name=, label=, driver=, opt=, scope=, dangling=, until=, since=",
            ),
            flag("format", ' ', Kind::Value, "json, or a Go template"),
            flag("noheading", 'n', Kind::Bool, "No headings"),
            flag("quiet", 'q', Kind::Bool, "Names alone"),
        ]
    },
    interspersed: true,
    count: (0, 0),
    run: list,
};

pub const REMOVE: Verb = Verb {
    names: &["volume rm", "volume remove"],
    usage: "[options] VOLUME [VOLUME...]",
    about: "Remove volumes",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All volumes"),
            flag("force", 'f', Kind::Bool, "With the containers that use them"),
            flag("time", 't', Kind::Value, "Seconds until those are killed"),
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run: remove,
};

pub const INSPECT: Verb = Verb {
    names: &["volume inspect"],
    usage: "[options] VOLUME [VOLUME...]",
    about: "Show all about volumes",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All volumes"),
            flag("format", 'f', Kind::Value, "json, or a Go template"),
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run: inspect,
};

pub const PRUNE: Verb = Verb {
    names: &["volume prune"],
    usage: "[options]",
    about: "Remove volumes that no container uses",
    flags: || {
        vec![
            flag("filter", ' ', Kind::Repeat, "Those for which this holds: label=, until=, ..."),
            flag("force", 'f', Kind::Bool, "Do not ask"),
        ]
    },
    interspersed: true,
    count: (0, 0),
    run: prune,
};

/// A volume as inspect shows it.
pub fn view(engine: &Engine, volume: &Volume) -> Value {
    let state = engine.store.volumes().state(volume);
    let mut options = serde_json::Map::new();
    for (key, value) in &volume.options {
        options.insert(key.clone(), value.as_str().into());
    }
    for option in volume.mount_options() {
        if let Some((key @ ("size" | "inodes" | "uid" | "gid"), value)) = option.split_once('=') {
            options.insert(key.to_uppercase(), value.into());
        }
    }
    json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": engine.store.volumes().data(&volume.name),
        "CreatedAt": unroot_monitor::log::format_nanos(volume.created).replace("+00:00", "Z"),
        "Labels": volume.labels,
        "Scope": "local",
        "Options": options,
        "UID": volume.uid.unwrap_or(0),
        "GID": volume.gid.unwrap_or(0),
        "Anonymous": volume.anonymous,
        "MountCount": is_in_use(engine, &volume.name).unwrap_or(0),
        "NeedsCopyUp": state.needs_copy_up,
        "NeedsChown": state.needs_chown,
        "LockNumber": 0,
    })
}

fn create(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let pair =
        |l: &String| l.split_once('=').map_or((l.clone(), String::new()), |(k, v)| (k.into(), v.into()));
    let name = args.rest.first().cloned().unwrap_or_default();
    let wanted = NewVolume {
        name: name.clone(),
        labels: args.all("label").iter().map(pair).collect(),
        driver: args.value("driver").unwrap_or_default().into(),
        options: args.all("opt").to_vec(),
        uid: args.number("uid")?,
        gid: args.number("gid")?,
        anonymous: false,
    };
    match engine.create_volume(wanted) {
        Ok(volume) => output::line(volume.name),
        Err(e) if e.kind() == ErrorKind::InUse && args.is("ignore") => output::line(name),
        Err(e) => return Err(e.into()),
    }
    Ok(0)
}

/// All filters hold; of one key any value does.
fn matches(engine: &Engine, volume: &Volume, filters: &[String]) -> Result<bool, CliError> {
    let key = |filter: &String| filter.split_once('=').map_or(filter.clone(), |(k, _)| k.to_string());
    for filter in filters {
        let mut any = false;
        for other in filters.iter().filter(|other| key(other) == key(filter)) {
            any |= holds(engine, volume, &key(other), other.split_once('=').map_or("", |(_, v)| v))?;
        }
        if !any {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds(engine: &Engine, volume: &Volume, key: &str, value: &str) -> Result<bool, CliError> {
    let has_label = || {
        let (name, wanted) = value.split_once('=').map_or((value, None), |(n, v)| (n, Some(v)));
        volume.labels.get(name).is_some_and(|v| wanted.is_none_or(|w| w == v))
    };
    let bool = || match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(CliError::new(format!(
            "{value:?} is not a valid value for the {key:?} filter - must be true or false"
        ))),
    };
    Ok(match key {
        "name" => pattern(value)?.is_match(&volume.name),
        "driver" => value == "local",
        "scope" => value == "local",
        "label" => has_label(),
        "label!" => !has_label(),
        "opt" => match value.split_once('=') {
            Some((name, wanted)) => volume.options.get(name).is_some_and(|v| v == wanted),
            None => volume.options.contains_key(value),
        },
        "dangling" => users_of(&engine.dirs, &volume.name)?.is_empty() == bool()?,
        "anonymous" => volume.anonymous == bool()?,
        "all" => true,
        "until" | "created-before" => {
            let until = parse(value, Direction::Past)
                .ok_or_else(|| CliError::new(format!("{value:?} is neither a time nor a duration")))?;
            volume.created < until
        }
        "since" | "after" => volume.created > engine.find_volume(value)?.created,
        _ => return Err(CliError::new(format!("{key:?} is an invalid volume filter"))),
    })
}

fn matching(engine: &Engine, filters: &[String]) -> Result<Vec<Volume>, CliError> {
    let mut found = Vec::new();
    let all = engine.store.volumes().list().map_err(CliError::new)?;
    if all.is_empty() {
        // (a filter that makes no sense is an error all the same)
        matches(engine, &Volume::default(), filters)?;
    }
    for volume in all {
        if matches(engine, &volume, filters)? {
            found.push(volume);
        }
    }
    Ok(found)
}

fn list(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let volumes = matching(&engine, args.all("filter"))?;
    if args.is("quiet") {
        if args.value("format").is_some() {
            return Err(CliError::new("quiet and format flags cannot be used together"));
        }
        volumes.iter().for_each(|v| output::line(&v.name));
        return Ok(0);
    }
    let rows: Vec<Value> = volumes.iter().map(|v| view(&engine, v)).collect();
    let format = args.value("format").unwrap_or("table {{.Driver}}\t{{.Name}}");
    let headings = [
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Scope", "SCOPE"),
        ("CreatedAt", "CREATED AT"),
    ];
    formatted(format, &rows, &headings, args.is("noheading"))?;
    Ok(0)
}

fn remove(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    if args.rest.is_empty() != args.is("all") {
        return Err(CliError::new("choose either one or more volumes or all"));
    }
    let found: Vec<_> = match args.is("all") {
        true => engine.store.volumes().list().map_err(CliError::new)?.into_iter().map(Ok).collect(),
        false => args.rest.iter().map(|name| engine.find_volume(name)).collect(),
    };
    let force = args.is("force");
    let found =
        found.into_iter().filter(|v| !(force && v.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound)));
    let code_of = |e: unroot_engine::Error| {
        let code = match e.kind() {
            ErrorKind::NotFound => 1,
            ErrorKind::InUse => 2,
            _ => return CliError::from(e),
        };
        CliError { code, ..CliError::from(e) }
    };
    let timeout = timeout(args)?;
    each(found.map(|v| v.map_err(code_of)).collect(), |volume| {
        engine.remove_volume(&volume, force, timeout).map_err(code_of)?;
        Ok(Some(volume.name))
    })
}

fn inspect(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    if args.rest.is_empty() != args.is("all") {
        return Err(CliError::new("choose either one or more volumes or all"));
    }
    let mut found = Vec::new();
    let mut code = 0;
    if args.is("all") {
        found.extend(engine.store.volumes().list().map_err(CliError::new)?.iter().map(|v| view(&engine, v)));
    }
    for name in &args.rest {
        match engine.find_volume(name) {
            Ok(volume) => found.push(view(&engine, &volume)),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                code = crate::report(&CliError::new(format!("no such volume {name}")));
            }
            Err(e) => code = crate::report(&e.into()),
        }
    }
    match args.value("format") {
        Some(format) if format != "json" => formatted(format, &found, &[], false)?,
        _ => output::line(serde_json::to_string_pretty(&found).map_err(CliError::new)?),
    }
    Ok(code)
}

fn prune(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let mut unused = Vec::new();
    for volume in matching(&engine, args.all("filter"))? {
        if users_of(&engine.dirs, &volume.name)?.is_empty() {
            unused.push(volume);
        }
    }
    if !args.is("force") {
        output::line(
            "WARNING! This will remove all volumes not used by at least one container. The following volumes will be removed:",
        );
        unused.iter().for_each(|v| output::line(&v.name));
        if !output::confirms("Are you sure you want to continue? [y/N] ") {
            return Ok(0);
        }
    }
    each(unused.into_iter().map(Ok).collect(), |volume| {
        engine.remove_volume(&volume, false, None)?;
        Ok(Some(volume.name))
    })
}
