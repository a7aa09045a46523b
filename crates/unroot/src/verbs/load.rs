//! `load`

use std::path::Path;

use unroot_engine::Engine;
use unroot_engine::spec::Root;
use unroot_engine::trust::Policy;
use unroot_registry::Reference;
use unroot_store::{Load, Progress};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::progress::Shown;
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
    let engine = global.engine()?;
    let fetched = match args.value("input") {
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => Some(url),
        _ => None,
    };
    let source = match (fetched, args.value("input")) {
        (Some(url), _) => Source::Url(url),
        (None, Some(path)) => Source::Path(path),
        (None, None) => Source::Input,
    };
    for (name, _) in load(&engine, source, None, &Shown::new(args.is("quiet")))? {
        output::line(format!("Loaded image: {name}"));
    }
    Ok(0)
}

/// Where an archive is.
pub enum Source<'a> {
    /// A file or a directory.
    Path(&'a str),
    /// A web server.
    Url(&'a str),
    /// Standard input.
    Input,
}

/// Loads what a word with a transport names (`docker-archive:PATH[:NAME]`); none if it is no such word.
pub fn from_transport(
    engine: &Engine,
    word: &str,
    progress: &dyn Progress,
) -> Result<Option<Vec<(String, String)>>, CliError> {
    let Some(("docker-archive" | "oci-archive" | "oci" | "dir", path)) = word.split_once(':') else {
        return Ok(None);
    };
    // (`PATH:NAME`, where there is no such path)
    let (path, only) = match path.split_once(':') {
        Some((before, name)) if !Path::new(path).exists() => (before, Some(name)),
        _ => (path, None),
    };
    let mut loaded = load(engine, Source::Path(path), only, progress)?;
    let asked = only.and_then(|name| full_name(name).ok());
    // (the name that was asked for comes first)
    loaded.sort_by_key(|(name, _)| Some(name) != asked.as_ref());
    Ok(Some(loaded))
}

/// Has the image of a container that an archive is named for.
pub fn for_container(engine: &Engine, root: &mut Root, progress: &dyn Progress) -> Result<(), CliError> {
    if let Root::Image(word) = root
        && let Some(loaded) = from_transport(engine, word, progress)?
        && let Some((name, _)) = loaded.into_iter().next()
    {
        *word = name;
    }
    Ok(())
}

/// Loads an archive, or of it only what has this name; names and ids of its images.
pub fn load(
    engine: &Engine,
    source: Source<'_>,
    only: Option<&str>,
    progress: &dyn Progress,
) -> Result<Vec<(String, String)>, CliError> {
    let ids = engine.id_check()?;
    let check = |path: &str, uid: u64, gid: u64| ids.check(path, uid, gid);
    let full = |name: &str| full_name(name).map_err(|e| e.text.unwrap_or_default());
    let now = unroot_monitor::log::now();
    let policy = Policy::load(&engine.policy_path())?;
    let allows = |transport: &str| policy.check_transport(transport).map_err(|e| e.to_string());
    let how = Load { ids: &check, now, progress, only, allows: &allows, full_name: &full };
    let shown = match source {
        Source::Path(path) | Source::Url(path) => path,
        Source::Input => "-",
    };
    let loaded = match source {
        Source::Path(path) => engine.store.load(Path::new(path), &how),
        Source::Url(url) => {
            engine.store.load_stream(unroot_registry::download(url).map_err(CliError::new)?, &how)
        }
        Source::Input => engine.store.load_stream(std::io::stdin().lock(), &how),
    };
    let loaded = loaded.map_err(|e| match e {
        unroot_store::Error::Ids(text) => CliError::from(ids.error("load", &text)),
        unroot_store::Error::Io { call, error } if call.starts_with("open ") => {
            CliError::new(format!("{call}: {}", unroot_engine::plan::reason(&error)))
        }
        other => CliError::new(format!("payload does not match any of the supported image formats: {other}")),
    })?;
    let mut all = Vec::new();
    for image in loaded {
        let id = image.image.id;
        engine.dirs.events.image("loadfromarchive", &id, shown);
        if image.names.is_empty() {
            all.push((format!("sha256:{id}"), id.clone()));
        }
        all.extend(image.names.into_iter().map(|name| (name, id.clone())));
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
