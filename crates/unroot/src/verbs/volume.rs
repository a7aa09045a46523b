//! `volume create`, `ls`, `rm`, `inspect`, `prune`

use serde_json::{Value, json};
use unroot_engine::Engine;
use unroot_store::Volume;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output::{self, formatted};
use crate::verbs::{ANY, Verb, each};

pub const CREATE: Verb = Verb {
    names: &["volume create"],
    usage: "[options] [NAME]",
    about: "Create a volume",
    flags: || {
        vec![
            flag("ignore", ' ', Kind::Bool, "One that is there already is no error"),
            flag("label", 'l', Kind::Repeat, "Add a label KEY=VALUE"),
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
    flags: || vec![flag("format", 'f', Kind::Value, "json, or a Go template")],
    interspersed: true,
    count: (1, ANY),
    run: inspect,
};

pub const PRUNE: Verb = Verb {
    names: &["volume prune"],
    usage: "[options]",
    about: "Remove volumes that no container uses",
    flags: || vec![flag("force", 'f', Kind::Bool, "Do not ask")],
    interspersed: true,
    count: (0, 0),
    run: prune,
};

/// A volume as inspect shows it.
pub fn view(engine: &Engine, volume: &Volume) -> Value {
    json!({
        "Name": volume.name, "Driver": "local", "Mountpoint": engine.store.volumes().data(&volume.name),
        "CreatedAt": unroot_monitor::log::format_nanos(volume.created), "Labels": volume.labels, "Scope": "local",
        "Options": {}, "Anonymous": volume.anonymous, "MountCount": 0, "NeedsCopyUp": false, "NeedsChown": false,
    })
}

fn create(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    engine.enter()?;
    let name = args.rest.first().cloned().map_or_else(unroot_engine::names::new_id, Ok)?;
    let labels = args
        .all("label")
        .iter()
        .map(|l| l.split_once('=').map_or((l.clone(), String::new()), |(k, v)| (k.into(), v.into())))
        .collect();
    match engine.store.volumes().create(&name, labels, false, unroot_monitor::log::now()) {
        Err(unroot_store::Error::InUse(_)) if args.is("ignore") => {}
        other => {
            other.map_err(CliError::new)?;
            engine.dirs.events.volume("create", &name);
        }
    }
    output::line(name);
    Ok(0)
}

fn list(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let volumes = engine.store.volumes().list().map_err(CliError::new)?;
    if args.is("quiet") {
        volumes.iter().for_each(|v| output::line(&v.name));
        return Ok(0);
    }
    let rows: Vec<Value> = volumes.iter().map(|v| view(&engine, v)).collect();
    let format = args.value("format").unwrap_or("table {{.Driver}}\t{{.Name}}");
    formatted(
        format,
        &rows,
        &[("Driver", "DRIVER"), ("Name", "VOLUME NAME"), ("Mountpoint", "MOUNTPOINT")],
        args.is("noheading"),
    )?;
    Ok(0)
}

fn remove(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    engine.enter()?;
    let volumes = engine.store.volumes();
    let names: Vec<String> = match args.is("all") {
        true => volumes.list().map_err(CliError::new)?.into_iter().map(|v| v.name).collect(),
        false => args.rest.clone(),
    };
    each(names.into_iter().map(Ok).collect(), |name| {
        if volumes.get(&name).map_err(CliError::new)?.is_none() {
            return match args.is("force") {
                true => Ok(None),
                false => Err(CliError::with_code(
                    1,
                    format!("no volume with name \"{name}\" found: no such volume"),
                )),
            };
        }
        for record in engine.containers()?.iter().filter(|r| r.volumes.iter().any(|v| v.name == name)) {
            if !args.is("force") {
                return Err(CliError::with_code(
                    2,
                    format!(
                        "volume {name} is being used by the following container(s): {}: volume is being used",
                        record.id
                    ),
                ));
            }
            engine.remove(record, true, Some(0), false)?;
        }
        volumes.remove(&name).map_err(CliError::new)?;
        engine.dirs.events.volume("remove", &name);
        Ok(Some(name))
    })
}

fn inspect(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let mut found = Vec::new();
    for name in &args.rest {
        let volume = engine.store.volumes().get(name).map_err(CliError::new)?;
        found.push(view(&engine, &volume.ok_or_else(|| CliError::new(format!("no such volume {name}")))?));
    }
    match args.value("format") {
        Some(format) => formatted(format, &found, &[], false)?,
        None => output::line(serde_json::to_string_pretty(&found).map_err(CliError::new)?),
    }
    Ok(0)
}

fn prune(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    if !args.is("force") {
        return Err(CliError::new("volume prune removes every volume that no container uses: say --force"));
    }
    engine.enter()?;
    let used: Vec<String> =
        engine.containers()?.into_iter().flat_map(|r| r.volumes).map(|v| v.name).collect();
    let unused =
        engine.store.volumes().list().map_err(CliError::new)?.into_iter().filter(|v| !used.contains(&v.name));
    each(unused.map(Ok).collect(), |volume| {
        engine.store.volumes().remove(&volume.name).map_err(CliError::new)?;
        engine.dirs.events.volume("remove", &volume.name);
        Ok(Some(volume.name))
    })
}
