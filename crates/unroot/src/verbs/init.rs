//! `init`

use unroot_engine::{State, Status};

use crate::cli::{Kind, flag};
use crate::selection::{LATEST, several};
use crate::verbs::{ANY, Verb, each};

pub const VERB: Verb = Verb {
    names: &["init", "container init"],
    usage: "[options] CONTAINER [CONTAINER...]",
    about: "Make the processes of containers, for start to let them go",
    flags: || vec![flag("all", 'a', Kind::Bool, "All containers that were made and never started"), LATEST],
    interspersed: true,
    count: (0, ANY),
    run: |global, args| {
        let engine = global.engine()?;
        each(several(&engine, args)?, |(word, record)| {
            let status = State::observe(&engine.dirs, &record.id)?.status;
            if args.is("all") && !matches!(status, Status::Created | Status::Exited) {
                return Ok(None);
            }
            engine.init(&record)?;
            Ok(Some(word))
        })
    },
};
