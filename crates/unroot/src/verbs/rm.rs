//! `rm`

use unroot_engine::ErrorKind;

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
    let containers = several(&engine, args)?;
    let containers = containers
        .into_iter()
        .filter(|c| c.is_ok() || !lenient)
        .map(|c| c.map_err(|e| CliError { code: 1, ..e }))
        .collect();
    let containers: Vec<Result<(String, unroot_engine::Record), CliError>> = containers;
    if force {
        let all: Vec<_> = containers.iter().flatten().map(|(_, record)| record).collect();
        unroot_engine::stop::stop(&engine.dirs, &all, timeout, &|r| engine.stop_signal(r))?;
    }
    let code =
        each(containers, |(word, record)| match engine.remove(&record, force, timeout, args.is("volumes")) {
            Ok(()) => Ok(Some(word)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Some(word)),
            Err(e) if e.kind() == ErrorKind::State => Err(CliError { code: 2, ..CliError::from(e) }),
            Err(e) => Err(e.into()),
        });
    engine.sweep()?;
    code
}
