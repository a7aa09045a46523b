//! `pause`, `unpause`

use unroot_engine::{Engine, Record, State, Status};

use crate::Global;
use crate::cli::{Args, Flag, Kind, Outcome, flag};
use crate::selection::{LATEST, several};
use crate::verbs::{ANY, Verb, each};

fn flags(all: &'static str) -> Vec<Flag> {
    vec![
        flag("all", 'a', Kind::Bool, all),
        flag("cidfile", ' ', Kind::Repeat, "Read a container's id from this file"),
        flag("filter", 'f', Kind::Repeat, "Those for which this holds"),
        LATEST,
    ]
}

pub const PAUSE: Verb = Verb {
    names: &["pause", "container pause"],
    usage: "[options] CONTAINER [CONTAINER...]",
    about: "Stop all processes of containers where they are",
    flags: || flags("All containers that run"),
    interspersed: true,
    count: (0, ANY),
    run: |global, args| run(global, args, Status::Running, &|engine, record| engine.pause(record)),
};

pub const UNPAUSE: Verb = Verb {
    names: &["unpause", "container unpause"],
    usage: "[options] CONTAINER [CONTAINER...]",
    about: "Let the processes of paused containers go on",
    flags: || flags("All containers that are paused"),
    interspersed: true,
    count: (0, ANY),
    run: |global, args| run(global, args, Status::Paused, &|engine, record| engine.unpause(record)),
};

type Act<'a> = &'a dyn Fn(&Engine, &Record) -> unroot_engine::Result<()>;

/// `from` is what those are that `--all` and `--filter` mean.
fn run(global: &Global, args: &Args, from: Status, act: Act<'_>) -> Outcome {
    let engine = global.engine()?;
    let chosen = args.is("all") || !args.all("filter").is_empty();
    each(several(&engine, args)?, |(word, record)| {
        if chosen && State::observe(&engine.dirs, &record.id)?.status != from {
            return Ok(None);
        }
        act(&engine, &record)?;
        Ok(Some(word))
    })
}
