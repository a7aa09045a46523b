//! `commit`

use unroot_engine::commit::Commit;
use unroot_engine::images::Progress as _;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::progress::Shown;
use crate::verbs::Verb;
use crate::verbs::load::full_name;

pub const VERB: Verb = Verb {
    names: &["commit", "container commit"],
    usage: "[options] CONTAINER [IMAGE]",
    about: "Make an image of what a container has become",
    flags: || {
        vec![
            flag("author", 'a', Kind::Value, "Who made it"),
            flag(
                "change",
                'c',
                Kind::Repeat,
                "Change the configuration by CMD, ENV, LABEL, ... as in a Containerfile",
            ),
            flag(
                "config",
                ' ',
                Kind::Value,
                "A JSON file whose fields go before the container's configuration",
            ),
            flag("format", 'f', Kind::Value, "Of the manifest: oci or docker (default oci)"),
            flag("iidfile", ' ', Kind::Value, "Write the image's id to this file"),
            flag("include-volumes", ' ', Kind::Bool, "The container's volumes are the image's"),
            flag("message", 'm', Kind::Value, "Message of the history (format docker)"),
            flag("pause", 'p', Kind::Bool, "Nothing runs in the container meanwhile"),
            flag("quiet", 'q', Kind::Bool, "Do not show how it goes"),
            flag("squash", 's', Kind::Bool, "All files in one layer"),
        ]
    },
    interspersed: true,
    count: (1, 2),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let docker = match args.value("format") {
        None | Some("oci") => false,
        Some("docker") => true,
        Some(other) => {
            return Err(CliError::new(format!("unrecognized image format \"{other}\": it is oci or docker")));
        }
    };
    if args.value("message").is_some_and(|m| !m.is_empty()) && !docker {
        return Err(CliError::new("messages are only compatible with the docker image format (-f docker)"));
    }
    let config = args.value("config").map(|path| {
        let bytes = std::fs::read(path)
            .map_err(|e| CliError::new(format!("open {path}: {}", unroot_engine::plan::reason(&e))))?;
        serde_json::from_slice(&bytes).map_err(|e| CliError::new(format!("--config {path}: {e}")))
    });
    let asked = Commit {
        author: args.value("author").map(str::to_string),
        changes: args.all("change").to_vec(),
        config: config.transpose()?,
        docker,
        include_volumes: args.is("include-volumes"),
        message: args.value("message").filter(|m| !m.is_empty()).map(str::to_string),
        pause: args.is("pause"),
        squash: args.is("squash"),
        name: args.rest.get(1).map(|name| full_name(name)).transpose()?,
    };
    let record = engine.find(&args.rest[0])?;
    let progress = Shown::new(args.is("quiet"));
    progress.say("Getting image source signatures");
    // (opened as the user, before the namespace is entered)
    let iidfile = args.value("iidfile").map(|path| {
        std::fs::File::create(path)
            .map_err(|e| CliError::new(format!("open {path}: {}", unroot_engine::plan::reason(&e))))
    });
    let iidfile = iidfile.transpose()?;
    let image = engine.commit(&record, &asked)?;
    if let Some(layer) = image.layers.last() {
        progress.say(&format!("Copying blob {layer}"));
    }
    progress.say(&format!("Copying config sha256:{}", image.id));
    progress.say("Writing manifest to image destination");
    if let Some(mut file) = iidfile {
        use std::io::Write as _;
        file.write_all(image.id.as_bytes()).map_err(|e| CliError::new(format!("write --iidfile: {e}")))?;
    }
    output::line(&image.id);
    Ok(0)
}
