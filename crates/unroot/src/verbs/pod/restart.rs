//! `pod restart`

use crate::cli::{Kind, flag};
use crate::verbs::{ANY, Verb};

use super::{LATEST, each, id, several};

pub const VERB: Verb = Verb {
    names: &["pod restart"],
    usage: "[options] POD [POD...]",
    about: "Stop all containers of pods and start them again",
    flags: || vec![flag("all", 'a', Kind::Bool, "All pods"), LATEST],
    interspersed: true,
    count: (0, ANY),
    run: |global, args| {
        let engine = global.engine()?;
        each(several(&engine, args)?, "restarting", id, |pod| Ok(Some(engine.restart_pod(pod)?)))
    },
};
