//! `rm`

use std::collections::HashMap;

use unroot_engine::dependents::Dependents;
use unroot_engine::stop::stop;
use unroot_engine::{Engine, ErrorKind, Record};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::selection::{LATEST, several, timeout};
use crate::verbs::{ANY, Verb, each};

pub const VERB: Verb = Verb {
    names: &["rm", "container rm"],
    usage: "[options] CONTAINER [CONTAINER...]",
    about: "Remove containers",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All containers"),
            flag("cidfile", ' ', Kind::Repeat, "Read a container's id from this file"),
            flag("depend", ' ', Kind::Bool, "And those that need them"),
            flag("filter", ' ', Kind::Repeat, "Those for which this holds"),
            flag("force", 'f', Kind::Bool, "Those that run, too; one that is not there is no error"),
            flag("ignore", 'i', Kind::Bool, "A container that is not there is no error"),
            flag("time", 't', Kind::Value, "Seconds until one that runs is killed"),
            flag("volumes", 'v', Kind::Bool, "Their anonymous volumes, too"),
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let timeout = timeout(args)?;
    let force = args.is("force");
    if timeout.is_some() && !force {
        return Err(CliError::new("--force option must be specified to use the --time option"));
    }
    let lenient = force || args.is("ignore");
    let containers: Containers = several(&engine, args)?
        .into_iter()
        .filter(|c| c.is_ok() || !lenient)
        .map(|c| c.map_err(missing))
        .collect();
    let containers = match args.is("all") || args.is("depend") {
        true => with_dependents(&engine, containers)?,
        false => without_dependents(&engine, containers)?,
    };
    let mut failures = stop_first(&engine, &containers, force, timeout);
    let code = each(containers, |(word, record)| {
        if let Some(failure) = failures.remove(&record.id) {
            return Err(failure);
        }
        match engine.remove_with_pod(&record, force, timeout, args.is("volumes")) {
            Ok(()) => Ok(Some(word)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Some(word)),
            Err(e) if e.kind() == ErrorKind::State => Err(CliError { code: 2, ..CliError::from(e) }),
            Err(e) => Err(e.into()),
        }
    });
    engine.sweep()?;
    code
}

/// As `podman rm` says it, with its exit code.
fn missing(error: CliError) -> CliError {
    let text = error.text.map(|t| t.replace("no container with name or ID", "no container with ID or name"));
    CliError { code: 1, text, hint: error.hint }
}

type Containers = Vec<Result<(String, Record), CliError>>;

/// All are stopped at once, which takes as long as the slowest; what did not go well, by id.
fn stop_first(
    engine: &Engine,
    containers: &Containers,
    force: bool,
    timeout: Option<u32>,
) -> HashMap<String, CliError> {
    if !force {
        return HashMap::new();
    }
    let all: Vec<&Record> = containers.iter().flatten().map(|(_, record)| record).collect();
    let results = stop(&engine.dirs, &all, timeout, &|r| engine.stop_signal(r));
    let failed = |e: &unroot_engine::Error| !matches!(e.kind(), ErrorKind::Lost | ErrorKind::NotFound);
    let failures = all
        .iter()
        .zip(results)
        .filter_map(|(record, result)| Some((record.id.clone(), result.err().filter(failed)?.into())));
    failures.collect()
}

/// Those that need the others come before them.
fn with_dependents(engine: &Engine, containers: Containers) -> Result<Containers, CliError> {
    let all = engine.containers()?;
    let dependents = Dependents::of(&all);
    let mut done: Vec<String> = Vec::new();
    let mut ordered: Containers = Vec::new();
    for one in containers {
        let (word, record) = match one {
            Ok(one) => one,
            Err(e) => {
                ordered.push(Err(e));
                continue;
            }
        };
        for id in dependents.closure(&record.id) {
            let Some(other) = all.iter().find(|r| r.id == id && !done.contains(&id)) else { continue };
            let shown = if id == record.id { word.clone() } else { id.clone() };
            ordered.push(Ok((shown, other.clone())));
            done.push(id);
        }
    }
    Ok(ordered)
}

/// What others need that stay is not removed.
fn without_dependents(engine: &Engine, containers: Containers) -> Result<Containers, CliError> {
    let dependents = Dependents::of(&engine.containers()?);
    let going: Vec<String> = containers.iter().flatten().map(|(_, r)| r.id.clone()).collect();
    let check = |(word, record): (String, Record)| {
        engine.refuse_infra(&record)?;
        let left: Vec<&str> = dependents
            .on(&record.id)
            .iter()
            .map(String::as_str)
            .filter(|id| !going.iter().any(|g| g == id))
            .collect();
        match left.is_empty() {
            true => Ok((word, record)),
            false => Err(CliError::new(format!(
                "container {} has dependent containers which must be removed before it: {}: container already exists",
                record.id,
                left.join(", ")
            ))
            .with_hint(format!("{} rm --depend {word}", unroot_engine::program()))),
        }
    };
    let mut checked: Containers = containers.into_iter().map(|c| c.and_then(check)).collect();
    // (those that need others go first)
    checked.sort_by_key(|c| c.as_ref().is_ok_and(|(_, r)| !dependents.on(&r.id).is_empty()));
    Ok(checked)
}
