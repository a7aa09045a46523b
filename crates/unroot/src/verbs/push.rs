//! `push`

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::progress::Shown;
use crate::registry_flags::{push_flags, push_options, write_transport};
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["push", "image push"],
    usage: "[options] IMAGE [DESTINATION]",
    about: "Push an image to a registry, an archive or a directory",
    flags: || {
        let mut flags = push_flags();
        flags.extend([
            flag("compress", ' ', Kind::Bool, "Compress layers in a directory (dir:)"),
            flag("retry", ' ', Kind::Value, "How often to try again when performing push (default 3)"),
            flag("retry-delay", ' ', Kind::Value, "Pause between tries after push failures"),
        ]);
        flags
    },
    interspersed: true,
    count: (1, 2),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let args = &global.conf()?.fill(args)?;
    let engine = global.engine()?;
    let options = push_options(args)?;
    let named = engine.image(&args.rest[0])?;
    if named.image.is_list {
        return Err(CliError::new(format!("{}: is a manifest list", args.rest[0])).with_hint(format!(
            "{} manifest push {}",
            unroot_engine::program(),
            args.rest.join(" ")
        )));
    }
    let destination = match args.rest.get(1) {
        Some(destination) => destination.clone(),
        None if named.name == named.image.id => {
            return Err(CliError::new("an image that is named by its id needs a destination"));
        }
        None => named.name.clone(),
    };
    let progress = Shown::new(args.is("quiet"));
    // (opened as the user, before the namespace is entered)
    let digestfile = args.value("digestfile").map(|path| {
        std::fs::File::create(path)
            .map_err(|e| CliError::new(format!("open {path}: {}", unroot_engine::plan::reason(&e))))
    });
    let digestfile = digestfile.transpose()?;
    let digest =
        if write_transport(&engine, &named.image, &destination, &options, args.is("compress"), &progress)? {
            named.image.digest.clone()
        } else {
            engine.push(&named.image, &destination, &options, &progress)?.to_string()
        };
    if let Some(mut file) = digestfile {
        use std::io::Write as _;
        file.write_all(digest.as_bytes()).map_err(|e| CliError::new(format!("write --digestfile: {e}")))?;
    }
    Ok(0)
}
