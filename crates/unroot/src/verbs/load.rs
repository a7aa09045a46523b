//! `load`

use std::path::Path;

use unroot_engine::Engine;
use unroot_registry::Reference;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["load", "image load"],
    usage: "[options]",
    about: "Load images from an archive",
    flags: || {
        vec![
            flag("input", 'i', Kind::Value, "Archive or directory (default standard input)"),
            flag("quiet", 'q', Kind::Bool, "Do not show how it goes"),
        ]
    },
    interspersed: true,
    count: (0, 0),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    use std::io::IsTerminal as _;
    if args.value("input").is_none() && std::io::stdin().is_terminal() {
        return Err(CliError::new(
            "cannot read from terminal, use command-line redirection or the --input flag",
        ));
    }
    for (name, _) in load(&global.engine()?, args.value("input"))? {
        output::line(format!("Loaded image: {name}"));
    }
    Ok(0)
}

/// Loads an archive; names and ids of its images.
pub fn load(engine: &Engine, path: Option<&str>) -> Result<Vec<(String, String)>, CliError> {
    let ids = engine.id_check()?;
    let check = |path: &str, uid: u64, gid: u64| ids.check(path, uid, gid);
    let now = unroot_monitor::log::now();
    let loaded = match path {
        Some(path) => engine.store.load(Path::new(path), &check, now),
        None => engine.store.load_stream(std::io::stdin().lock(), &check, now),
    };
    let loaded = loaded.map_err(|e| match e {
        unroot_store::Error::Ids(text) => CliError::from(ids.error("load", &text)),
        other => CliError::new(format!("payload does not match any of the supported image formats: {other}")),
    })?;
    let mut all = Vec::new();
    for image in loaded {
        let id = image.image.id.clone();
        engine.dirs.events.image("loadfromarchive", &id, path.unwrap_or("-"));
        if image.names.is_empty() {
            all.push((format!("sha256:{id}"), id.clone()));
        }
        for name in image.names {
            let name = full_name(&name)?;
            engine.store.tag(&id, &name).map_err(CliError::new)?;
            all.push((name, id.clone()));
        }
    }
    Ok(all)
}

/// A name of an archive or of the user's own as a full one: without a registry it is local.
pub fn full_name(name: &str) -> Result<String, CliError> {
    let reference = match unroot_registry::Name::parse(name).map_err(CliError::new)? {
        unroot_registry::Name::Full(reference) => reference,
        unroot_registry::Name::Short(short) => short.on_registry("localhost").map_err(CliError::new)?,
    };
    Ok(Reference::or_latest(reference).to_string())
}
