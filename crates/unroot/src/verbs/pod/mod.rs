//! `pod`: a file a verb, and which pods they are about.

use unroot_engine::pod::{self, Failure};
use unroot_engine::{Engine, Error, ErrorKind, Pod};

use crate::cli::{Args, CliError, Flag, Kind, Outcome, flag};
use crate::pod_flags::id_in;

pub mod clone;
pub mod create;
pub mod exists;
pub mod inspect;
pub mod kill;
pub mod logs;
pub mod pause;
pub mod prune;
pub mod ps;
pub mod restart;
pub mod rm;
pub mod start;
pub mod stats;
pub mod stop;
pub mod top;

/// `--latest`.
const LATEST: Flag = flag("latest", 'l', Kind::Bool, "Act on the pod that was made last");

/// `--pod-id-file`.
const ID_FILE: Flag = flag("pod-id-file", ' ', Kind::Repeat, "Read a pod's id from this file");

/// The one pod that is named, or the latest.
fn one(engine: &Engine, args: &Args) -> Result<Pod, CliError> {
    match (args.rest.first(), args.is("latest")) {
        (Some(name), false) => Ok(engine.find_pod(name)?),
        (None, true) => Ok(pod::latest(&engine.dirs)?),
        (Some(_), true) => Err(CliError::new("--latest and pods cannot be used together")),
        (None, false) => Err(CliError::new("you must provide the name or id of a pod")),
    }
}

/// All that are meant: names, `--all`, `--latest`, `--pod-id-file`.
fn several(engine: &Engine, args: &Args) -> Result<Vec<Result<Pod, CliError>>, CliError> {
    let (all, latest, files) = (args.is("all"), args.is("latest"), args.all("pod-id-file"));
    let error = |text: &str| Err(CliError::new(text));
    match (all, latest, files.is_empty(), args.rest.is_empty()) {
        (true, true, ..) => return error("--all and --latest cannot be used together"),
        (true, _, false, _) | (_, true, false, _) => {
            return error("--all, --latest, and --pod-id-file cannot be used together");
        }
        (true, .., false) => return error("no arguments are needed with --all"),
        (_, true, _, false) => return error("--latest and pods cannot be used together"),
        (_, _, false, false) => return error("no arguments are needed with --latest or --pod-id-file"),
        (false, false, true, true) => return error("you must provide at least one name or id"),
        _ => {}
    }
    if all {
        return Ok(pod::all(&engine.dirs)?.into_iter().map(Ok).collect());
    }
    if latest {
        return Ok(vec![Ok(pod::latest(&engine.dirs)?)]);
    }
    let mut words: Vec<Result<String, CliError>> = args.rest.iter().cloned().map(Ok).collect();
    words.extend(files.iter().map(|file| id_in(file)));
    let ignore = args.is("ignore");
    let found = words.into_iter().map(|word| engine.find_pod(&word?).map_err(|e| missing(&e)));
    Ok(found.filter(|pod| !(ignore && pod.as_ref().is_err_and(|e| e.code == 1))).collect())
}

/// A pod that is not there has an exit code of its own.
fn missing(error: &Error) -> CliError {
    let code = if error.kind() == ErrorKind::NotFound { 1 } else { error.exit_code() };
    CliError { code, ..CliError::new(error) }
}

/// Does something to each pod; prints what is said of each that went well, and each container with which it did not.
fn each(
    pods: Vec<Result<Pod, CliError>>,
    doing: &str,
    said: fn(&Pod) -> &str,
    mut act: impl FnMut(&Pod) -> Result<Option<Vec<Failure>>, CliError>,
) -> Outcome {
    let mut code = 0;
    for pod in pods {
        let done = pod.and_then(|pod| Ok((act(&pod)?, pod)));
        match done {
            Ok((Some(failures), pod)) if failures.is_empty() => crate::output::line(said(&pod)),
            Ok((failures, _)) => {
                for (id, error) in failures.into_iter().flatten() {
                    let text = format!("{doing} container {id}: {error}");
                    let hint = error.hint().map(str::to_string);
                    code = crate::report(&CliError { hint, ..CliError::new(text) });
                }
            }
            Err(error) => code = crate::report(&CliError { code: 125, ..error }),
        }
    }
    Ok(code)
}

fn id(pod: &Pod) -> &str {
    &pod.id
}

fn name(pod: &Pod) -> &str {
    &pod.name
}
