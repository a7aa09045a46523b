//! `stop`

use unroot_engine::stop::{refuse_paused, stop};
use unroot_engine::{Engine, Record, State};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::selection::{LATEST, several, timeout};
use crate::verbs::{ANY, Verb, each};

pub const VERB: Verb = Verb {
    names: &["stop", "container stop"],
    usage: "[options] CONTAINER [CONTAINER...]",
    about: "Stop containers",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All containers that run"),
            flag("cidfile", ' ', Kind::Repeat, "Read a container's id from this file"),
            flag("filter", 'f', Kind::Repeat, "Those for which this holds"),
            flag("ignore", 'i', Kind::Bool, "A container that is not there is no error"),
            flag("time", 't', Kind::Value, "Seconds until it is killed"),
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
    let mut containers = several(&engine, args)?;
    if args.is("ignore") {
        containers.retain(Result::is_ok);
    }
    let live = |r: &Record| State::observe(&engine.dirs, &r.id).is_ok_and(|s| s.is_live() || s.stale);
    if args.is("all") || !args.all("filter").is_empty() {
        containers.retain(|c| c.as_ref().is_ok_and(|(_, record)| live(record)));
    }
    let containers = containers
        .into_iter()
        .map(|c| {
            c.and_then(|(word, r)| {
                refuse_paused(&engine.dirs, &r, "stop").map(|()| (word, r)).map_err(CliError::from)
            })
        })
        .collect();
    stop_each(&engine, containers, timeout)
}

/// Stops all at once and says of each how it went.
fn stop_each(
    engine: &Engine,
    containers: Vec<Result<(String, Record), CliError>>,
    timeout: Option<u32>,
) -> Outcome {
    let all: Vec<&Record> = containers.iter().flatten().map(|(_, record)| record).collect();
    let mut results = stop(&engine.dirs, &all, timeout, &|r| engine.stop_signal(r)).into_iter();
    each(containers, |(word, _)| {
        results.next().unwrap_or(Ok(()))?;
        Ok(Some(word))
    })
}
