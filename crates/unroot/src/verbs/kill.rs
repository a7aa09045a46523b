//! `kill`

use unroot_engine::State;

use crate::Global;
use crate::cli::{Args, Kind, Outcome, flag};
use crate::selection::{LATEST, several};
use crate::verbs::{ANY, Verb, each};

pub const VERB: Verb = Verb {
    names: &["kill", "container kill"],
    usage: "[options] CONTAINER [CONTAINER...]",
    about: "Send a signal to containers",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All containers that run"),
            flag("cidfile", ' ', Kind::Repeat, "Read a container's id from this file"),
            flag("signal", 's', Kind::Value, "Signal to send (default KILL)"),
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let signal = crate::run_flags::signal(args.value("signal").unwrap_or("KILL"))?;
    let chosen = args.is("all");
    each(several(&engine, args)?, |(word, record)| {
        if chosen && !State::observe(&engine.dirs, &record.id)?.is_live() {
            return Ok(None);
        }
        unroot_engine::stop::kill(&engine.dirs, &record, signal)?;
        Ok(Some(word))
    })
}
