//! `pod kill`

use crate::cli::{Kind, flag};
use crate::verbs::{ANY, Verb};

use super::{LATEST, each, id, several};

pub const VERB: Verb = Verb {
    names: &["pod kill"],
    usage: "[options] POD [POD...]",
    about: "Send a signal to all containers of pods",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All pods"),
            flag("signal", 's', Kind::Value, "Signal to send (default KILL)"),
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run: |global, args| {
        let engine = global.engine()?;
        let signal = crate::run_flags::signal(args.value("signal").unwrap_or("KILL"))?;
        each(several(&engine, args)?, "killing", id, |pod| Ok(Some(engine.kill_pod(pod, signal)?)))
    },
};
