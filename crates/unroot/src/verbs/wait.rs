//! `wait`

use unroot_engine::{Engine, Record, State};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::selection::{LATEST, several};
use crate::verbs::{ANY, Verb, each};

pub const VERB: Verb = Verb {
    names: &["wait", "container wait"],
    usage: "[options] CONTAINER [CONTAINER...]",
    about: "Wait for containers, and print their exit codes",
    flags: || {
        vec![
            flag(
                "condition",
                ' ',
                Kind::List,
                "Wait for this state instead: created, running, paused, exited, stopped, stopping",
            ),
            flag("ignore", ' ', Kind::Bool, "A container that is not there counts as ended with -1"),
            flag("interval", 'i', Kind::Value, "How often to look, with --condition (default 250ms)"),
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let conditions = args.all("condition");
    for condition in conditions {
        if ![
            "created",
            "running",
            "paused",
            "healthy",
            "unhealthy",
            "exited",
            "stopped",
            "stopping",
            "configured",
            "initialized",
        ]
        .contains(&condition.as_str())
        {
            return Err(CliError::new(format!(
                "unknown container state or condition: {condition}: invalid argument"
            )));
        }
    }
    let mut containers = several(&engine, args)?;
    if args.is("ignore") {
        containers.iter().filter(|c| c.is_err()).for_each(|_| output::line(-1));
        containers.retain(Result::is_ok);
    }
    each(containers, |(_, record)| wait(&engine, &record, conditions).map(|code| Some(code.to_string())))
}

/// `healthy`, `unhealthy`
fn is_health(engine: &Engine, record: &Record, wanted: &str) -> bool {
    wanted.ends_with("healthy")
        && unroot_engine::health::Report::read(&engine.dirs, record).is_some_and(|r| r.status == wanted)
}

fn wait(engine: &Engine, record: &Record, conditions: &[String]) -> Result<i32, CliError> {
    let is = |state: &State, wanted: &str| {
        state.status.as_str() == wanted || (wanted == "stopped" && state.status.as_str() == "exited")
    };
    loop {
        let state = State::observe(&engine.dirs, &record.id)?;
        let code = state.exit.as_ref().map_or(0, |e| e.code);
        if conditions.is_empty() {
            if state.status == unroot_engine::Status::Exited {
                return Ok(code);
            }
            if state.is_live() {
                let directory = engine.dirs.run_container(&record.id);
                if let Ok(socket) = unroot_monitor::attach::connect_to(&directory, false)
                    && let Ok(code) = unroot_monitor::attach::wait_exit(socket)
                {
                    return Ok(code);
                }
            }
        } else if conditions.iter().any(|c| is(&state, c) || is_health(engine, record, c)) {
            return Ok(if state.is_live() { -1 } else { code });
        }
        if unroot_engine::record::Record::read(&engine.dirs, &record.id)?.is_none() {
            return Ok(code);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
