//! `system prune`

use unroot_engine::{Engine, State, Status};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::moment::{Direction, parse};
use crate::output::{self, human};
use crate::verbs::Verb;
use crate::verbs::image_prune::prune;

pub const VERB: Verb = Verb {
    names: &["system prune"],
    usage: "[options]",
    about: "Remove what is not used: containers that have ended, images, volumes",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All images that no container uses, not just those without a name"),
            flag("filter", ' ', Kind::Repeat, "Those for which this holds: label=, label!=, until="),
            flag("force", 'f', Kind::Bool, "Do not ask"),
            flag("volumes", ' ', Kind::Bool, "Volumes that no container uses, too"),
        ]
    },
    interspersed: true,
    count: (0, 0),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    if !args.is("force") && !output::confirms(&question(args)) {
        return Ok(0);
    }
    engine.enter()?;
    let pods = if args.all("filter").is_empty() { super::pod::prune::prune(&engine)? } else { Vec::new() };
    show("Deleted Pods", &pods.into_iter().collect::<Result<Vec<_>, _>>()?);
    let containers = prune_containers(&engine, args.all("filter"))?;
    show("Deleted Containers", &containers);
    if args.is("volumes") {
        let volumes = prune_volumes(&engine, args.all("filter"))?;
        show("Deleted Volumes", &volumes);
    }
    let images = prune(&engine, args.is("all"), args.all("filter"))?;
    show("Deleted Images", &images.ids);
    output::line(format!("Total reclaimed space: {}", human(images.bytes, 4)));
    Ok(0)
}

fn question(args: &Args) -> String {
    let volumes =
        if args.is("volumes") { "\n\t- all volumes not used by at least one container" } else { "" };
    let images = match args.is("all") {
        true => "all images without at least one container associated with them",
        false => "all dangling images",
    };
    format!(
        "WARNING! This command removes:\n\t- all stopped containers\n\t- all stopped pods{volumes}\n\t- {images}\n\nAre you sure you want to continue? [y/N] "
    )
}

fn show(title: &str, what: &[String]) {
    if !what.is_empty() {
        output::line(title);
        what.iter().for_each(output::line);
    }
}

/// Labels and age, for what is no image.
fn holds(
    filters: &[String],
    labels: &std::collections::BTreeMap<String, String>,
    created: i64,
) -> Result<bool, CliError> {
    for text in filters {
        let (key, value, negated) = match (text.split_once("!="), text.split_once('=')) {
            (Some((key, value)), Some((other, _))) if key.len() < other.len() => (key, value, true),
            (_, Some((key, value))) => (key, value, false),
            _ => return Err(CliError::new(format!("invalid filter \"{text}\""))),
        };
        let is = match key {
            "label" => match value.split_once('=') {
                Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
                None => labels.contains_key(value),
            },
            "until" => {
                let time = parse(value, Direction::Past)
                    .ok_or_else(|| CliError::new(format!("invalid value \"{value}\" for until filter")))?;
                created < time
            }
            _ => return Err(CliError::new(format!("{key} is an invalid filter"))),
        };
        if is == negated {
            return Ok(false);
        }
    }
    Ok(true)
}

fn prune_containers(engine: &Engine, filters: &[String]) -> Result<Vec<String>, CliError> {
    let mut gone = Vec::new();
    for record in engine.containers()? {
        let status = State::observe(&engine.dirs, &record.id)?.status;
        let has_ended = record.spec.pod.is_none() && matches!(status, Status::Created | Status::Exited);
        let labels = record.spec.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        if has_ended && holds(filters, &labels, record.created)? {
            engine.remove(&record, false, None, false)?;
            gone.push(record.id);
        }
    }
    Ok(gone)
}

fn prune_volumes(engine: &Engine, filters: &[String]) -> Result<Vec<String>, CliError> {
    // (an age says nothing of a volume's use)
    let labels_only: Vec<String> = filters.iter().filter(|f| f.starts_with("label")).cloned().collect();
    let mut gone = Vec::new();
    for volume in engine.store.volumes().list().map_err(CliError::new)? {
        let used = unroot_engine::volumes::users_of(&engine.dirs, &volume.name)?;
        let labels = volume.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        if used.is_empty() && holds(&labels_only, &labels, volume.created)? {
            engine.remove_volume(&volume, false, None)?;
            gone.push(volume.name);
        }
    }
    Ok(gone)
}
