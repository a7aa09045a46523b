//! `pod pause`, `pod unpause`

use unroot_engine::Status;

use crate::cli::{Kind, flag};
use crate::verbs::{ANY, Verb};

use super::{LATEST, each, id, several};

pub const PAUSE: Verb = Verb {
    names: &["pod pause"],
    usage: "[options] POD [POD...]",
    about: "Stop all processes of pods where they are",
    flags: || vec![flag("all", 'a', Kind::Bool, "All pods"), LATEST],
    interspersed: true,
    count: (0, ANY),
    run: |global, args| {
        let engine = global.engine()?;
        each(several(&engine, args)?, "pausing", id, |pod| Ok(Some(engine.pause_pod(pod)?)))
    },
};

pub const UNPAUSE: Verb = Verb {
    names: &["pod unpause"],
    usage: "[options] POD [POD...]",
    about: "Let processes of paused pods go on",
    flags: || vec![flag("all", 'a', Kind::Bool, "All pods"), LATEST],
    interspersed: true,
    count: (0, ANY),
    run: |global, args| {
        let engine = global.engine()?;
        each(several(&engine, args)?, "unpausing", id, |pod| {
            // (of those in which nothing is paused nothing is said)
            let paused = pod.members(&engine.dirs)?.iter().any(|(_, state)| state.status == Status::Paused);
            Ok(paused.then(|| engine.unpause_pod(pod)).transpose()?)
        })
    },
};
