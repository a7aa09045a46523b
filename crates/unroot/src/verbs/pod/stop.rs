//! `pod stop`

use crate::cli::{Kind, flag};
use crate::selection::timeout;
use crate::verbs::{ANY, Verb};

use super::{ID_FILE, LATEST, each, name, several};

pub const VERB: Verb = Verb {
    names: &["pod stop"],
    usage: "[options] POD [POD...]",
    about: "Stop all containers of pods",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All pods"),
            flag("ignore", 'i', Kind::Bool, "A pod that is not there is no error"),
            flag("time", 't', Kind::Value, "Seconds until a container is killed"),
            ID_FILE,
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run: |global, args| {
        let engine = global.engine()?;
        let timeout = timeout(args)?;
        each(several(&engine, args)?, "stopping", name, |pod| Ok(Some(engine.stop_pod(pod, timeout)?)))
    },
};
