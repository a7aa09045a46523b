//! `stop`

use crate::Global;
use crate::cli::{Args, Kind, Outcome, flag};
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
    let all: Vec<_> = containers.iter().flatten().map(|(_, record)| record).collect();
    unroot_engine::stop::stop(&engine.dirs, &all, timeout, &|r| engine.stop_signal(r))?;
    each(containers, |(word, _)| Ok(Some(word)))
}
