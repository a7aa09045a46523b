//! `inspect`, `container inspect`, `image inspect`

use serde_json::Value;
use unroot_engine::{Engine, ErrorKind};

use crate::Global;
use crate::cli::{Args, CliError, Flag, Kind, Outcome, flag};
use crate::output::{formatted, line};
use crate::selection::LATEST;
use crate::verbs::{ANY, Verb};
use crate::view;

fn flags() -> Vec<Flag> {
    vec![
        flag("format", 'f', Kind::Value, "json, or a Go template"),
        flag("size", 's', Kind::Bool, "Sizes, too"),
        flag("type", 't', Kind::Value, "Kind of object: container, image, pod, volume, all"),
        LATEST,
    ]
}

pub const VERB: Verb = Verb {
    names: &["inspect"],
    usage: "[options] NAME [NAME...]",
    about: "Show all about containers, images, pods and volumes",
    flags,
    interspersed: true,
    count: (0, ANY),
    run: |global, args| run(global, args, args.value("type").unwrap_or("all")),
};

pub const CONTAINER: Verb = Verb {
    names: &["container inspect"],
    usage: "[options] CONTAINER [CONTAINER...]",
    about: "Show all about containers",
    flags,
    interspersed: true,
    count: (0, ANY),
    run: |global, args| run(global, args, "container"),
};

pub const IMAGE: Verb = Verb {
    names: &["image inspect"],
    usage: "[options] IMAGE [IMAGE...]",
    about: "Show all about images",
    flags,
    interspersed: true,
    count: (0, ANY),
    run: |global, args| run(global, args, "image"),
};

fn run(global: &Global, args: &Args, kind: &str) -> Outcome {
    if !["all", "container", "image", "pod", "volume"].contains(&kind) {
        return Err(CliError::new(format!(
            "invalid type \"{kind}\": it is container, image, pod, volume or all"
        )));
    }
    let engine = global.engine()?;
    let mut words = args.rest.clone();
    if args.is("latest") {
        words.push(unroot_engine::record::latest(&engine.dirs)?.id);
    }
    if words.is_empty() {
        return Err(CliError::new("no names or ids specified"));
    }
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for word in &words {
        match object(&engine, word, kind, args.is("size")) {
            Ok(value) => found.push(value),
            Err(error) => errors.push(error),
        }
    }
    match args.value("format").map(str::trim) {
        Some("json") | None => {
            if errors.is_empty() || !found.is_empty() {
                line(serde_json::to_string_pretty(&found).map_err(CliError::new)?);
            } else {
                line("[]");
            }
        }
        Some(format) => {
            if !format.contains("json") {
                found = found.into_iter().map(view::with_durations).collect();
            }
            formatted(format, &found, &[], false)?;
        }
    }
    match errors.len() {
        0 => Ok(0),
        _ => Err(errors.remove(0)),
    }
}

fn object(engine: &Engine, word: &str, kind: &str, size: bool) -> Result<Value, CliError> {
    if matches!(kind, "all" | "container") {
        match engine.find(word) {
            Ok(record) => {
                let mut shown = view::container(engine, &record)?;
                if size {
                    let found = engine.size_of(&record)?;
                    shown["SizeRw"] = found.own.into();
                    shown["SizeRootFs"] = found.whole.into();
                }
                return Ok(shown);
            }
            Err(e) if e.kind() == ErrorKind::NotFound && kind == "container" => {
                return Err(CliError::new(format!("inspecting object: no such container {word:?}")));
            }
            Err(e) if e.kind() == ErrorKind::NotFound && kind == "all" => {}
            Err(e) => return Err(e.into()),
        }
    }
    if matches!(kind, "all" | "image") {
        match engine.local_image(word) {
            Ok(Some(named)) => return view::image(engine, &named.image),
            Ok(None) | Err(_) if kind == "all" => {}
            Ok(None) => return Err(CliError::new(format!("{word}: image not known"))),
            Err(e) => return Err(e.into()),
        }
    }
    if matches!(kind, "all" | "pod") {
        match engine.find_pod(word) {
            Ok(pod) => return super::pod::inspect::view(engine, &pod),
            Err(e) if e.kind() == ErrorKind::NotFound && kind == "all" => {}
            Err(e) => return Err(CliError::new(format!("no such pod {word:?}: {e}"))),
        }
    }
    if let Some(volume) = engine.store.volumes().get(word).map_err(CliError::new)? {
        return Ok(super::volume::view(engine, &volume));
    }
    Err(CliError::new(format!("no such object: \"{word}\"")))
}
