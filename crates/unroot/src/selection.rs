//! Which containers a verb is about: names, `--all`, `--latest`, `--filter`, `--cidfile`.

use unroot_engine::{Engine, Record, State};

use crate::cli::{Args, CliError, Flag, Kind, flag};
use crate::filters::Filters;

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
    let named = |record: Record| (record.id.clone(), record);
    let words = words(args)?;
    let has_words = !words.is_empty() || !args.all("cidfile").is_empty();
    let filters = Filters::parse(engine, args.all("filter"), &[])?;
    let has_filters = !args.all("filter").is_empty();
    match (args.is("all"), args.is("latest")) {
        (true, true) => return Err(CliError::new("--all and --latest cannot be used together")),
        (true, _) if has_words => return Err(CliError::new("no arguments are needed with --all")),
        (_, true) if has_words => {
            return Err(CliError::new("--latest and containers cannot be used together"));
        }
        _ => {}
    }
    let found: Vec<Result<(String, Record), CliError>> = if args.is("latest") {
        vec![Ok(named(unroot_engine::record::latest(&engine.dirs)?))]
    } else if has_words {
        let find = |word: String| engine.find(&word).map(|r| (word, r)).map_err(CliError::from);
        words.into_iter().map(find).collect()
    } else if args.is("all") || has_filters {
        engine.containers()?.into_iter().map(|r| Ok(named(r))).collect()
    } else {
        return Err(CliError::new("you must provide at least one name or id"));
    };
    if !has_filters {
        return Ok(found);
    }
    let mut kept = Vec::new();
    for one in found {
        let (word, record) = one?;
        if filters.hold(engine, &record, &State::observe(&engine.dirs, &record.id)?) {
            kept.push(Ok((word, record)));
        }
    }
    Ok(kept)
}

/// What was typed, and what is in `--cidfile`.
fn words(args: &Args) -> Result<Vec<String>, CliError> {
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
    Ok(words)
}
