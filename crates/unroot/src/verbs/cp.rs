//! `cp`

use unroot_engine::copy::{CopyOptions, End};
use unroot_engine::{Engine, ErrorKind};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["cp", "container cp"],
    usage: "[options] [CONTAINER:]SRC_PATH [CONTAINER:]DEST_PATH",
    about: "Copy files between a container and the host, or two containers",
    flags: || {
        vec![
            flag("archive", 'a', Kind::Bool, "Files become those of the container's user (default true)"),
            flag("overwrite", ' ', Kind::Bool, "Directories and other files may replace each other"),
        ]
    },
    interspersed: true,
    count: (2, 2),
    run,
};

/// A container and a path in it; a path that begins with `.` or `/` is the host's.
fn split(word: &str) -> (Option<&str>, &str) {
    match word.split_once(':') {
        Some((container, path)) if !word.starts_with(['.', '/']) => (Some(container), path),
        _ => (None, word),
    }
}

fn end(engine: &Engine, word: &str) -> Result<End, CliError> {
    match split(word) {
        (Some(""), path) | (None, path) if path != "-" => Ok(End::Host(path.into())),
        (Some(name), path) => match engine.find(name) {
            Ok(record) => Ok(End::Container(Box::new(record), path.into())),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                Err(CliError::new(format!("container {name:?} does not exist: no such container")))
            }
            Err(e) => Err(e.into()),
        },
        _ => Ok(End::Stream),
    }
}

fn run(global: &Global, args: &Args) -> Outcome {
    let [from, to] = [&args.rest[0], &args.rest[1]];
    if split(from).1.is_empty() || split(to).1.is_empty() {
        return Err(CliError::new(format!("invalid arguments {from:?}, {to:?}: you must specify paths")));
    }
    let engine = global.engine()?;
    let (source, target) = (end(&engine, from)?, end(&engine, to)?);
    if ![&source, &target].iter().any(|e| matches!(e, End::Container(..))) {
        return Err(CliError::new(format!("neither {from:?} nor {to:?} is in a container"))
            .with_hint("a path in a container is written CONTAINER:PATH"));
    }
    let options =
        CopyOptions { archive: args.given_bool("archive").unwrap_or(true), overwrite: args.is("overwrite") };
    engine.copy(&source, &target, options, &mut std::io::stdin(), &mut std::io::stdout())?;
    Ok(0)
}
