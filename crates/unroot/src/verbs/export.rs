//! `export`

use std::fs::File;
use std::io::{self, IsTerminal as _};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["export", "container export"],
    usage: "[options] CONTAINER",
    about: "Write all files of a container as a tar",
    flags: || vec![flag("output", 'o', Kind::Value, "To this file (default standard output)")],
    interspersed: true,
    count: (1, 1),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let record = engine.find(&args.rest[0])?;
    match args.value("output") {
        // (opened as the user, before the namespace is entered)
        Some(path) => {
            let file = File::create(path)
                .map_err(|e| CliError::new(format!("open {path}: {}", unroot_engine::plan::reason(&e))))?;
            engine.export(&record, file)?;
        }
        None if io::stdout().is_terminal() => {
            return Err(CliError::new("refusing to export to terminal. Use -o flag or redirect"));
        }
        None => engine.export(&record, io::stdout().lock())?,
    }
    Ok(0)
}
