//! `image prune`

use unroot_engine::Engine;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::image_filter::Filters;
use crate::output;
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["image prune"],
    usage: "[options]",
    about: "Remove images without a name, or all that no container uses",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All that no container uses"),
            flag("filter", ' ', Kind::Repeat, "Those for which this holds: label=, label!=, until=, ..."),
            flag("force", 'f', Kind::Bool, "Do not ask"),
        ]
    },
    interspersed: true,
    count: (0, 0),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    if !args.is("force") {
        let what = match args.is("all") {
            true => "all images without at least one container associated with them",
            false => "all dangling images",
        };
        let question =
            format!("WARNING! This command removes {what}.\nAre you sure you want to continue? [y/N] ");
        if !output::confirms(&question) {
            return Ok(0);
        }
    }
    let pruned = prune(&engine, args.is("all"), args.all("filter"))?;
    pruned.ids.iter().for_each(output::line);
    Ok(0)
}

/// What went.
#[derive(Default)]
pub struct Pruned {
    /// Ids.
    pub ids: Vec<String>,
    /// Bytes of layers that no image has any more.
    pub bytes: u64,
}

/// Removes images that no container uses: those without a name, or `all` of them.
pub fn prune(engine: &Engine, all: bool, filters: &[String]) -> Result<Pruned, CliError> {
    engine.enter()?;
    let filters = Filters::parse(engine, filters)?;
    let used: Vec<String> =
        engine.containers()?.into_iter().flat_map(|record| engine.images_of(&record)).collect();
    let names = engine.store.names();
    let (images, broken) = engine.store.all_images();
    let mut pruned = Pruned::default();
    for image in images {
        let own: Vec<&str> =
            names.iter().filter(|(_, id)| *id == image.id).map(|(n, _)| n.as_str()).collect();
        let wanted = (all || own.is_empty()) && !used.contains(&image.id) && filters.hold_for(&image, &own);
        if wanted && engine.image_mount(&image.id).is_none() {
            if !engine.remove_image_if_unused(&image.id)? {
                continue;
            }
            engine.dirs.events.image("remove", &image.id, &image.id);
            pruned.ids.push(image.id);
        }
    }
    // (an image that cannot be read is of no use to anyone)
    for (id, _) in broken.into_iter().filter(|_| all) {
        engine.store.remove_image(&id).map_err(CliError::new)?;
        pruned.ids.push(id);
    }
    pruned.bytes = engine.store.collect(&[]).map_err(CliError::new)?;
    Ok(pruned)
}
