//! `pod prune`

use unroot_engine::pod::PodStatus;
use unroot_engine::{Engine, ErrorKind};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::verbs::{Verb, each};

pub const VERB: Verb = Verb {
    names: &["pod prune"],
    usage: "[options]",
    about: "Remove all pods that have ended, and their containers",
    flags: || vec![flag("force", 'f', Kind::Bool, "Do not ask")],
    interspersed: true,
    count: (0, 0),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    if !args.is("force") {
        output::line("WARNING! This will remove all stopped/exited pods..");
        if !output::confirms("Are you sure you want to continue? [y/N] ") {
            return Ok(0);
        }
    }
    let code = each(prune(&engine)?, |id| Ok(Some(id)));
    engine.sweep()?;
    code
}

/// Removes pods that have ended: the ids of those that are gone, and what went wrong.
pub fn prune(engine: &Engine) -> Result<Vec<Result<String, CliError>>, CliError> {
    let mut done = Vec::new();
    for pod in unroot_engine::pod::all(&engine.dirs)? {
        let status =
            PodStatus::of(&pod.members(&engine.dirs)?.iter().map(|m| m.1.status).collect::<Vec<_>>());
        if !matches!(status, PodStatus::Exited | PodStatus::Stopped) {
            continue;
        }
        match engine.remove_pod(&pod, false, None) {
            Ok(()) => done.push(Ok(pod.id)),
            // (somebody else was faster, or has started it)
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::State) => {}
            Err(e) => done.push(Err(e.into())),
        }
    }
    Ok(done)
}
