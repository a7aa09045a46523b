//! `attach`

use unroot_engine::State;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::selection::{LATEST, one};
use crate::verbs::Verb;
use crate::verbs::run::{detach_keys, follow};

pub const VERB: Verb = Verb {
    names: &["attach", "container attach"],
    usage: "[options] CONTAINER",
    about: "Attach to a running container",
    flags: || {
        vec![
            flag("detach-keys", ' ', Kind::Value, "Keys that detach"),
            flag("no-stdin", ' ', Kind::Bool, "Do not hand standard input on"),
            flag("sig-proxy", ' ', Kind::Bool, "Hand signals on to the container"),
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, 1),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let record = one(&engine, args)?;
    if !State::observe(&engine.dirs, &record.id)?.is_live() {
        return Err(CliError::new("you can only attach to running containers"));
    }
    let socket = unroot_monitor::attach::connect_to(&engine.dirs.run_container(&record.id), true)
        .map_err(CliError::new)?;
    engine.dirs.events.container("attach", &record);
    follow(&engine, &record, socket, args, detach_keys(args)?)
}
