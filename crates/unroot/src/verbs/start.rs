//! `start`

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::selection::{LATEST, several};
use crate::verbs::run::{detach_keys, follow};
use crate::verbs::{ANY, Verb, each};

pub const VERB: Verb = Verb {
    names: &["start", "container start"],
    usage: "[options] CONTAINER [CONTAINER...]",
    about: "Start containers",
    flags: || {
        vec![
            flag("all", ' ', Kind::Bool, "Start all containers"),
            flag("attach", 'a', Kind::Bool, "Show what it prints"),
            flag("detach-keys", ' ', Kind::Value, "Keys that detach"),
            flag("filter", 'f', Kind::Repeat, "Start those for which this holds"),
            flag("interactive", 'i', Kind::Bool, "Hand standard input on"),
            flag("sig-proxy", ' ', Kind::Bool, "Hand signals on to the container"),
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let containers = several(&engine, args)?;
    let attached = args.is("attach") || args.is("interactive");
    if !attached {
        return each(containers, |(word, record)| {
            if unroot_engine::State::observe(&engine.dirs, &record.id)?.is_live() {
                return Ok(Some(word));
            }
            engine.start(&record, None, false)?;
            crate::hints::after_detaching(&engine, &record);
            Ok(Some(word))
        });
    }
    let [one] = <[_; 1]>::try_from(containers)
        .map_err(|_| CliError::new("you cannot start and attach multiple containers at once"))?;
    let (_, record) = one?;
    let socket = match unroot_engine::State::observe(&engine.dirs, &record.id)?.is_live() {
        true => unroot_monitor::attach::connect_to(&engine.dirs.run_container(&record.id), true)
            .map_err(CliError::new)?,
        false => engine.start(&record, None, true)?,
    };
    let mut shown = crate::cli::Args::default();
    shown.help = false;
    follow(&engine, &record, socket, &shown, detach_keys(args)?)
}
