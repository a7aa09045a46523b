//! `kill`

use unroot_engine::State;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
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
    let name = args.value("signal").unwrap_or("KILL");
    let signal =
        unroot_sys::signal::parse(name).ok_or_else(|| CliError::new(format!("invalid signal: {name}")))?;
    each(several(&engine, args)?, |(word, record)| {
        if args.is("all") && !State::observe(&engine.dirs, &record.id)?.is_live() {
            return Ok(None);
        }
        unroot_engine::stop::kill(&engine.dirs, &record, signal)?;
        Ok(Some(word))
    })
}
