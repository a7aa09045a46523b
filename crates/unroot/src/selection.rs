//! Which containers a verb is about: names, `--all`, `--latest`, `--filter`, `--cidfile`.

use unroot_engine::health::Report;
use unroot_engine::{Engine, Record, State};

use crate::cli::{Args, CliError, Flag, Kind, flag};

/// `--latest`.
pub const LATEST: Flag = flag("latest", 'l', Kind::Bool, "Act on the container that was made last");

/// The one container that is named, or the latest.
pub fn one(engine: &Engine, args: &Args) -> Result<Record, CliError> {
    match (args.rest.first(), args.is("latest")) {
        (Some(_), true) => Err(CliError::new("--latest and containers cannot be used together")),
        (Some(name), false) => Ok(engine.find(name)?),
        (None, true) => Ok(unroot_engine::record::latest(&engine.dirs)?),
        (None, false) => Err(CliError::new("you must provide at least one name or id")),
    }
}

/// `--time`: seconds until a container is killed; -1 is never.
pub fn timeout(args: &Args) -> Result<Option<u32>, CliError> {
    let seconds: Option<i64> = args.number("time")?;
    seconds
        .map(|s| match s {
            -1 => Ok(u32::MAX),
            s => u32::try_from(s)
                .map_err(|_| CliError::new(format!("--time {s}: it is seconds, or -1 for never"))),
        })
        .transpose()
}

/// All that are meant, each with the word that named it.
pub fn several(engine: &Engine, args: &Args) -> Result<Vec<Result<(String, Record), CliError>>, CliError> {
    let named = |record: Record| Ok((record.id.clone(), record));
    if args.is("all") {
        return Ok(engine.containers()?.into_iter().map(named).collect());
    }
    if args.is("latest") {
        return Ok(vec![named(unroot_engine::record::latest(&engine.dirs)?)]);
    }
    if !args.all("filter").is_empty() {
        let all = engine.containers()?.into_iter().map(|r| (State::observe(&engine.dirs, &r.id), r));
        let mut found = Vec::new();
        for (state, record) in all {
            if matches(engine, &record, &state?, args.all("filter"))? {
                found.push(named(record));
            }
        }
        return Ok(found);
    }
    let mut words = args.rest.clone();
    for file in args.all("cidfile") {
        match std::fs::read_to_string(file) {
            Ok(text) => words.push(text.lines().next().unwrap_or_default().to_string()),
            Err(e) if args.is("ignore") && e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                return Err(CliError::new(format!(
                    "reading CIDFile: open {file}: {}",
                    unroot_engine::plan::reason(&e)
                )));
            }
        }
    }
    if words.is_empty() && args.all("cidfile").is_empty() {
        return Err(CliError::new("you must provide at least one name or id"));
    }
    Ok(words
        .into_iter()
        .map(|word| engine.find(&word).map(|record| (word, record)).map_err(CliError::from))
        .collect())
}

/// A filter's regular expression.
pub fn pattern(text: &str) -> Result<regex_lite::Regex, CliError> {
    regex_lite::Regex::new(text).map_err(|e| CliError::new(format!("invalid filter: {text:?}: {e}")))
}

/// All `KEY=VALUE` hold; of one key any value does.
pub fn matches(
    engine: &Engine,
    record: &Record,
    state: &State,
    filters: &[String],
) -> Result<bool, CliError> {
    let mut keys: Vec<&str> = Vec::new();
    for filter in filters {
        let (key, _) = filter.split_once('=').ok_or_else(|| CliError::new(format!("invalid argument \"{filter}\" for \"--filter\": filter must be in the form of \"filter=value\"")))?;
        keys.push(key.trim_end_matches('!'));
    }
    for key in keys {
        let mut any = false;
        for filter in filters.iter().filter(|f| f.split('=').next().is_some_and(|k| k == key)) {
            any |= holds(engine, record, state, key, filter.split_once('=').map_or("", |(_, v)| v))?;
        }
        if !any {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds(engine: &Engine, record: &Record, state: &State, key: &str, value: &str) -> Result<bool, CliError> {
    let label = |wanted: &str| match wanted.split_once('=') {
        Some((name, value)) => record.spec.labels.get(name).is_some_and(|v| v == value),
        None => record.spec.labels.contains_key(wanted),
    };
    Ok(match key {
        "id" => record.id.starts_with(value),
        "name" => {
            let value = &value.replace('/', "");
            record.name.contains(value.trim_matches(['^', '$']))
                && (!value.starts_with('^') || record.name.starts_with(value.trim_matches(['^', '$'])))
        }
        "status" => {
            let known = [
                "created",
                "running",
                "paused",
                "stopping",
                "exited",
                "stopped",
                "unknown",
                "initialized",
                "removing",
            ];
            if !known.contains(&value) {
                return Err(CliError::new(format!("{value} is not a valid status")));
            }
            state.status.as_str() == value || (value == "stopped" && state.status.as_str() == "exited")
        }
        "label" => label(value),
        "exited" => {
            state.exit.as_ref().is_some_and(|e| e.started != 0 && e.code.to_string() == value)
                && !state.is_live()
        }
        "ancestor" => record.image.as_ref().is_some_and(|i| {
            i.name == value
                || i.id.starts_with(value.trim_start_matches("sha256:"))
                || engine.local_image(value).is_ok_and(|found| found.is_some_and(|f| f.image.id == i.id))
        }),
        "volume" => {
            record.volumes.iter().any(|v| v.name == value || v.target == value)
                || record.spec.files.mounts.iter().any(|m| m.source == value || m.target == value)
        }
        "network" => record.spec.network.mode.as_deref().unwrap_or("pasta") == value,
        "before" | "since" => {
            let other = engine.find(value)?;
            if key == "before" { record.created < other.created } else { record.created > other.created }
        }
        "health" => {
            let known = ["starting", "healthy", "unhealthy", "stopped", "none"];
            if !known.contains(&value) {
                return Err(CliError::new(format!(
                    "{value} is an invalid health status: it is one of {}",
                    known.join(", ")
                )));
            }
            Report::shown(&engine.dirs, record).map_or("none".into(), |r| r.status) == value
        }
        "restart-policy" => record.spec.life.restart.to_string() == value,
        "should-start-on-boot" => {
            unroot_engine::boot::should_run(&engine.dirs, record) == matches!(value, "true" | "1")
        }
        "pod" => false,
        "command" => record.spec.process.command.first().is_some_and(|c| c == value),
        _ => return Err(CliError::new(format!("{key} is an invalid filter"))),
    })
}
