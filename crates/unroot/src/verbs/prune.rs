//! `container prune`

use unroot_engine::{ErrorKind, Record, State, Status};

use crate::Global;
use crate::cli::{Args, Kind, Outcome, flag};
use crate::filters::{Filters, PRUNE};
use crate::output;
use crate::verbs::{Verb, each};

pub const VERB: Verb = Verb {
    names: &["container prune"],
    usage: "[options]",
    about: "Remove all containers that do not run",
    flags: || {
        vec![
            flag("filter", ' ', Kind::Repeat, "Those for which this holds: label=, label!=, until="),
            flag("force", 'f', Kind::Bool, "Do not ask"),
        ]
    },
    interspersed: true,
    count: (0, 0),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let filters = Filters::parse(&engine, args.all("filter"), PRUNE)?;
    if !args.is("force") {
        output::line("WARNING! This will remove all non running containers.");
        if !output::confirms("Are you sure you want to continue? [y/N] ") {
            return Ok(0);
        }
    }
    let mut chosen: Vec<Record> = Vec::new();
    for record in engine.containers()? {
        let state = State::observe(&engine.dirs, &record.id)?;
        // (those of pods come and go with their pods)
        let is_free = record.spec.pod.is_none() && matches!(state.status, Status::Created | Status::Exited);
        if is_free && filters.hold(&engine, &record, &state) {
            chosen.push(record);
        }
    }
    let code = each(chosen.into_iter().map(Ok).collect(), |record| {
        match engine.remove(&record, false, None, false) {
            Ok(()) => Ok(Some(record.id)),
            // (somebody else was faster, or has started it)
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::State) => Ok(None),
            Err(e) => Err(e.into()),
        }
    });
    engine.sweep()?;
    code
}
