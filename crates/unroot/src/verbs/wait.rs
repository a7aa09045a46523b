//! `wait`

use std::time::Duration;

use unroot_engine::{Engine, Record, State, Status};

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
                "Wait for this state instead: running, paused, healthy, exited, removing, ...",
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

const CONDITIONS: [&str; 13] = [
    "configured",
    "created",
    "exited",
    "healthy",
    "initialized",
    "paused",
    "removing",
    "restarting",
    "running",
    "stopped",
    "stopping",
    "unhealthy",
    "unknown",
];

/// Of several conditions one is enough.
fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let conditions = args.all("condition");
    if let Some(condition) = conditions.iter().find(|c| !CONDITIONS.contains(&c.as_str())) {
        return Err(CliError::new(format!("unknown container state: {condition}: invalid argument"))
            .with_hint(format!("it is one of {}", CONDITIONS.join(", "))));
    }
    let interval = interval(args)?;
    let mut containers = several(&engine, args)?;
    if args.is("ignore") {
        containers.iter().filter(|c| c.is_err()).for_each(|_| output::line(-1));
        containers.retain(Result::is_ok);
    }
    each(containers, |(_, record)| {
        wait(&engine, &record, conditions, interval).map(|code| Some(code.to_string()))
    })
}

/// Milliseconds, or a duration.
fn interval(args: &Args) -> Result<Duration, CliError> {
    let Some(text) = args.value("interval") else { return Ok(Duration::from_millis(20)) };
    let nanos = text.parse::<u64>().ok().map(|ms| ms * 1_000_000);
    let nanos = nanos.or_else(|| crate::moment::duration(text).and_then(|n| u64::try_from(n).ok()));
    nanos.map(Duration::from_nanos).ok_or_else(|| {
        CliError::new(format!("invalid --interval {text:?}: it is milliseconds, or a time such as 2s"))
    })
}

/// `healthy`, `unhealthy`
fn is_health(engine: &Engine, record: &Record, wanted: &str) -> bool {
    wanted.ends_with("healthy")
        && unroot_engine::health::Report::read(&engine.dirs, record).is_some_and(|r| r.status == wanted)
}

fn is_state(state: &State, wanted: &str) -> bool {
    let status = state.status.as_str();
    match wanted {
        "stopped" => status == "exited",
        "configured" => status == "created",
        _ => status == wanted,
    }
}

fn wait(
    engine: &Engine,
    record: &Record,
    conditions: &[String],
    interval: Duration,
) -> Result<i32, CliError> {
    loop {
        let state = State::observe(&engine.dirs, &record.id)?;
        let code = state.exit.as_ref().map_or(0, |e| e.code);
        if conditions.is_empty() {
            // (what never ran has ended, in a way; so has what will be started again)
            if matches!(state.status, Status::Exited | Status::Created | Status::Restarting) {
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
        } else if conditions.iter().any(|c| is_state(&state, c) || is_health(engine, record, c)) {
            return Ok(if state.is_live() { -1 } else { code });
        }
        if Record::read(&engine.dirs, &record.id)?.is_none() {
            return Ok(if conditions.is_empty() || conditions.iter().any(|c| c == "removing") {
                code
            } else {
                -1
            });
        }
        std::thread::sleep(interval);
    }
}
