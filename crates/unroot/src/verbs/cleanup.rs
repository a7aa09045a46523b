//! `container cleanup`

use unroot_engine::{State, sessions};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::selection::{LATEST, several};
use crate::verbs::{ANY, Verb, each};

pub const VERB: Verb = Verb {
    names: &["container cleanup"],
    usage: "[options] CONTAINER [CONTAINER...]",
    about: "Free what containers hold whose monitor was killed",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All containers"),
            flag("exec", ' ', Kind::Value, "Forget this exec session, which has ended"),
            flag("rm", ' ', Kind::Bool, "And remove them"),
            flag("rmi", ' ', Kind::Bool, "And their images, if nobody else uses those"),
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run,
};

fn check(args: &Args) -> Result<(), CliError> {
    let together = |a: &str, b: &str| Err(CliError::new(format!("--{a} and --{b} cannot be set together")));
    if args.value("exec").is_some() {
        for other in ["all", "rmi"] {
            if args.is(other) {
                return if other == "all" { together("all", "exec") } else { together("exec", other) };
            }
        }
        if args.rest.len() + usize::from(args.is("latest")) != 1 {
            return Err(CliError::new("exec option needs a single container"));
        }
    }
    Ok(())
}

fn run(global: &Global, args: &Args) -> Outcome {
    check(args)?;
    let engine = global.engine()?;
    each(several(&engine, args)?, |(word, record)| {
        if let Some(session) = args.value("exec") {
            sessions::forget(&engine.dirs, &record.id, session)?;
            return Ok(Some(word));
        }
        let state = State::observe(&engine.dirs, &record.id)?;
        if state.is_live() && args.is("all") {
            return Ok(None);
        }
        engine.clean_up(&record)?;
        if args.is("rm") {
            engine.remove(&record, false, None, true)?;
        }
        if let Some(image) = record.image.as_ref().filter(|_| args.is("rmi")) {
            unroot_engine::images::remove_unused(&engine.store, &engine.dirs, &image.id)?;
        }
        Ok(Some(word))
    })
}
