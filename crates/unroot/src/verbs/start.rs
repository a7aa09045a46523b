//! `start`

use unroot_engine::{Engine, ErrorKind, Record, State, Status};

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
    let attached = args.is("attach") || args.is("interactive");
    check(args, attached)?;
    let containers = several(&engine, args)?;
    let chosen = args.is("all") || !args.all("filter").is_empty();
    if !attached {
        return each(containers, |(word, record)| {
            let state = unroot_engine::State::observe(&engine.dirs, &record.id)?;
            match state.status {
                // (only those that do not run are meant)
                Status::Running | Status::Stopping if chosen && args.rest.is_empty() => return Ok(None),
                Status::Running | Status::Stopping => return Ok(Some(word)),
                _ => {}
            }
            match engine.start(&record, None, false) {
                Ok(_) => {}
                // (its policy, or somebody else, was faster)
                Err(e) if e.kind() == ErrorKind::State && is_live(&engine, &record) => return Ok(Some(word)),
                // (which of its failures it is, only one that is attached tells by its code)
                Err(e) => return Err(CliError { code: 125, ..CliError::from(e) }),
            }
            crate::hints::after_detaching(&engine, &record);
            Ok(Some(word))
        });
    }
    let [one] = <[_; 1]>::try_from(containers)
        .map_err(|_| CliError::new("you cannot start and attach multiple containers at once"))?;
    let (_, record) = one?;
    let socket = match unroot_engine::State::observe(&engine.dirs, &record.id)?.status {
        Status::Running | Status::Stopping => {
            unroot_monitor::attach::connect_to(&engine.dirs.run_container(&record.id), true)
                .map_err(CliError::new)?
        }
        _ => engine.start(&record, None, true)?,
    };
    let mut shown = Args::default();
    let bool = |given: bool| vec![given.to_string()];
    shown.set_default("sig-proxy", bool(args.given_bool("sig-proxy").unwrap_or(true)));
    shown.set_default("no-stdin", bool(!args.is("interactive")));
    follow(&engine, &record, socket, &shown, detach_keys(args)?)
}

fn is_live(engine: &Engine, record: &Record) -> bool {
    State::observe(&engine.dirs, &record.id).is_ok_and(|s| s.is_live())
}

fn check(args: &Args, attached: bool) -> Result<(), CliError> {
    let error = |text: &str| Err(CliError::new(text));
    let (words, all, latest) = (args.rest.len(), args.is("all"), args.is("latest"));
    if words == 0 && !latest && !all && args.all("filter").is_empty() {
        return error("start requires at least one argument");
    }
    if all && latest {
        return error("--all and --latest cannot be used together");
    }
    if words > 0 && all {
        return error("either start all containers or the container(s) provided in the arguments");
    }
    if attached && words > 1 {
        return error("you cannot start and attach multiple containers at once");
    }
    if attached && all {
        return error("you cannot start and attach all containers at once");
    }
    if args.is("sig-proxy") && !attached {
        return error("you cannot use sig-proxy without --attach: invalid argument");
    }
    Ok(())
}
