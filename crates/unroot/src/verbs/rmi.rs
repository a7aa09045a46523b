//! `rmi`

use unroot_engine::{Engine, ErrorKind};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["rmi", "image rm"],
    usage: "[options] IMAGE [IMAGE...]",
    about: "Remove images",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All images"),
            flag("force", 'f', Kind::Bool, "With all names and the containers that use it"),
            flag("ignore", 'i', Kind::Bool, "An image that is not there is no error"),
            flag("no-prune", ' ', Kind::Bool, "Leave the images without a name that it was made of"),
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let words: Vec<String> = match args.is("all") {
        true => engine.store.images().map_err(CliError::new)?.into_iter().map(|i| i.id).collect(),
        false => args.rest.clone(),
    };
    if words.is_empty() && !args.is("all") {
        return Err(CliError::new("image name or ID must be specified"));
    }
    let mut code = 0;
    for word in words {
        match remove(&engine, &word, args.is("force"), !args.is("no-prune")) {
            Ok(lines) => lines.iter().for_each(output::line),
            Err(e) if e.code == 1 && (args.is("ignore") || args.is("force")) => {}
            Err(e) => code = crate::report(&e),
        }
    }
    Ok(code)
}

/// Takes a name away, and with the last one the image, and if `prune` those without a name that it was made of; what was
/// done, a line each.
pub fn remove(engine: &Engine, word: &str, force: bool, prune: bool) -> Result<Vec<String>, CliError> {
    engine.enter()?;
    let named = engine
        .local_image(word)?
        .ok_or_else(|| CliError::with_code(1, format!("{word}: image not known")))?;
    let id = &named.image.id;
    let names = engine.names_of(id);
    let by_name = names.contains(&named.name);
    if by_name && names.len() > 1 {
        engine.store.untag(&named.name).map_err(CliError::new)?;
        engine.dirs.events.image("untag", id, &named.name);
        return Ok(vec![format!("Untagged: {}", named.name)]);
    }
    if !by_name && names.len() > 1 && !force {
        return Err(CliError::with_code(
            2,
            format!(
                "unable to delete image \"{id}\" by ID with more than one tag ({}): please force removal",
                names.join(" ")
            ),
        ));
    }
    for record in engine.containers()? {
        if record.image.as_ref().is_some_and(|i| i.id == *id) {
            if !force {
                return Err(CliError::with_code(
                    2,
                    format!(
                        "image used by {}: image is in use by a container: consider listing external containers and force-removing image",
                        record.id
                    ),
                ));
            }
            // (with its pod, which had others that use it)
            match engine.remove_with_pod(&record, true, Some(0), true) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
    }
    let ancestors = if prune { engine.nameless_ancestors(&named.image)? } else { Vec::new() };
    if !engine.remove_image_if_unused(id)? {
        return Err(CliError::with_code(
            2,
            format!("image used by a container that was made just now: {id}: image is in use by a container"),
        ));
    }
    let mut removed = vec![id.clone()];
    for image in ancestors {
        if engine.has_children(&image) || !engine.remove_image_if_unused(&image.id)? {
            break;
        }
        removed.push(image.id);
    }
    engine.store.collect(&[]).map_err(CliError::new)?;
    names.iter().for_each(|name| engine.dirs.events.image("untag", id, name));
    removed.iter().for_each(|id| engine.dirs.events.image("remove", id, id));
    let untagged = names.iter().map(|n| format!("Untagged: {n}"));
    Ok(untagged.chain(removed.iter().map(|id| format!("Deleted: {id}"))).collect())
}
