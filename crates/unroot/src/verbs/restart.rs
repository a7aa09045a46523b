//! `restart`

use unroot_engine::ErrorKind;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
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
        if state.status == unroot_engine::Status::Paused {
            return Err(CliError::new(
                "unable to restart a container in a paused or unknown state: container state improper",
            )
            .with_hint(format!("{} unpause {}", unroot_engine::program(), record.name)));
        }
        for result in unroot_engine::stop::stop(&engine.dirs, &[&record], timeout, &|r| engine.stop_signal(r))
        {
            result.or_else(|e| if e.kind() == ErrorKind::Lost { Ok(()) } else { Err(e) })?;
        }
        engine.start(&record, None, false)?;
        engine.dirs.events.container("restart", &record);
        Ok(Some(word))
    })
}
