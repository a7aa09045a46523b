//! `pod start`

use crate::cli::{Kind, flag};
use crate::verbs::{ANY, Verb};

use super::{ID_FILE, LATEST, each, name, several};

pub const VERB: Verb = Verb {
    names: &["pod start"],
    usage: "[options] POD [POD...]",
    about: "Start all containers of pods",
    flags: || vec![flag("all", 'a', Kind::Bool, "All pods"), ID_FILE, LATEST],
    interspersed: true,
    count: (0, ANY),
    run: |global, args| {
        let engine = global.engine()?;
        each(several(&engine, args)?, "starting", name, |pod| Ok(Some(engine.start_pod(pod)?)))
    },
};
