//! `mount`, `unmount`

use serde_json::{Value, json};
use unroot_engine::{Engine, Record, roots};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::selection::{LATEST, several};
use crate::verbs::{ANY, Verb, each};

pub const MOUNT: Verb = Verb {
    names: &["mount", "container mount"],
    usage: "[options] [CONTAINER...]",
    about: "Mount the files of containers on the host, or list where they are",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All containers"),
            flag("format", ' ', Kind::Value, "List as json"),
            flag("no-trunc", ' ', Kind::Bool, "Whole ids"),
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run: mount,
};

pub const UNMOUNT: Verb = Verb {
    names: &["unmount", "umount", "container unmount", "container umount"],
    usage: "[options] CONTAINER [CONTAINER...]",
    about: "Unmount the files of containers",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All containers that are mounted"),
            flag("force", 'f', Kind::Bool, "Even if somebody uses them"),
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run: unmount,
};

/// A mount that ends with this command is of no use.
fn check(engine: &Engine, verb: &str) -> Result<(), CliError> {
    let program = unroot_engine::program();
    match engine.user.is_rootless() && !rustix::process::geteuid().is_root() {
        false => Ok(()),
        true => Err(CliError::new(format!(
            "cannot run command \"{program} {verb}\" in rootless mode, must execute `{program} unshare` first"
        ))
        .with_hint(format!("{program} unshare, and in that shell {program} {verb} ..."))),
    }
}

fn mount(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    if !args.rest.is_empty() && args.is("latest") {
        return Err(CliError::new("--latest and containers cannot be used together"));
    }
    check(&engine, "mount")?;
    if !args.rest.is_empty() || args.is("latest") || args.is("all") {
        return each(several(&engine, args)?, |(_, record)| {
            Ok(Some(engine.mount(&record)?.display().to_string()))
        });
    }
    let mounted: Vec<Record> = mounted(&engine)?;
    let place = |r: &Record| roots::merged(&engine.dirs, &r.id).display().to_string();
    match args.value("format") {
        Some("json") => {
            let row = |r: &Record| json!({"id": r.id, "Names": [r.name], "mountpoint": place(r)});
            let rows: Vec<Value> = mounted.iter().map(row).collect();
            output::line(serde_json::to_string_pretty(&rows).unwrap_or_default());
        }
        None | Some("") => {
            let id = |r: &Record| if args.is("no-trunc") { r.id.clone() } else { r.short_id().to_string() };
            output::table(None, mounted.iter().map(|r| vec![id(r), place(r)]).collect());
        }
        Some(other) => return Err(CliError::new(format!("unknown --format argument: {other:?}"))),
    }
    Ok(0)
}

fn mounted(engine: &Engine) -> Result<Vec<Record>, CliError> {
    let mut all = engine.containers()?;
    all.retain(|r| roots::is_mounted(&engine.dirs, &r.id));
    Ok(all)
}

fn unmount(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    check(&engine, "unmount")?;
    let chosen = match args.is("all") {
        true => mounted(&engine)?.into_iter().map(|r| Ok((r.id.clone(), r))).collect(),
        false => several(&engine, args)?,
    };
    each(chosen, |(_, record)| match engine.unmount(&record, args.is("force"))? {
        true => Ok(Some(record.id)),
        false if args.is("all") => Ok(None),
        false => Ok(Some(record.id)),
    })
}
