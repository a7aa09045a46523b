//! `restart`

use crate::Global;
use crate::cli::{Args, Kind, Outcome, flag};
use crate::selection::{LATEST, several, timeout};
use crate::verbs::{ANY, Verb, each};

pub const VERB: Verb = Verb {
    names: &["restart", "container restart"],
    usage: "[options] CONTAINER [CONTAINER...]",
    about: "Stop containers and start them again",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All containers"),
            flag("cidfile", ' ', Kind::Repeat, "Read a container's id from this file"),
            flag("filter", 'f', Kind::Repeat, "Those for which this holds"),
            flag("running", ' ', Kind::Bool, "Only those that run"),
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
    let mut args = args.clone();
    if args.is("running") && args.rest.is_empty() {
        args.set_default("all", vec!["true".into()]);
    }
    let containers = several(&engine, &args)?;
    let only_running = args.is("running");
    each(containers, |(word, record)| {
        let state = unroot_engine::State::observe(&engine.dirs, &record.id)?;
        if only_running && !state.is_live() {
            return Ok(None);
        }
        unroot_engine::stop::stop(&engine.dirs, &[&record], timeout, &|r| engine.stop_signal(r))?;
        engine.start(&record, None, false)?;
        engine.dirs.events.container("restart", &record);
        Ok(Some(word))
    })
}
