//! `image import-store`

use std::path::PathBuf;

use unroot_engine::Engine;
use unroot_store::foreign::Foreign;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::progress::Shown;
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["image import-store"],
    usage: "[options] [DIRECTORY...]",
    about: "Bring the images of Podman's and Docker's stores over, without downloading",
    flags: || {
        vec![
            flag("dry-run", 'n', Kind::Bool, "Only list what is there"),
            flag("image", ' ', Kind::Repeat, "Only images of this name or id"),
            flag("quiet", 'q', Kind::Bool, "Print only the ids"),
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let stores = match args.rest.is_empty() {
        false => args.rest.iter().map(PathBuf::from).collect(),
        true => engine.foreign_stores(),
    };
    if stores.is_empty() {
        return Err(CliError::new("no store of Podman or Docker is where this user would have one")
            .with_hint("name its directory: podman info --format '{{.Store.GraphRoot}}', docker info --format '{{.DockerRootDir}}'"));
    }
    let mut left: Vec<&String> = args.all("image").iter().collect();
    let mut failed = 0;
    for store in stores {
        for image in engine.foreign_images(&store)? {
            let asked: Vec<&String> = args.all("image").iter().filter(|wanted| is(&image, wanted)).collect();
            if asked.is_empty() && !args.all("image").is_empty() {
                continue;
            }
            left.retain(|wanted| !asked.contains(wanted));
            if args.is("dry-run") {
                output::line(format!("{}  {}", &image.id[..image.id.len().min(12)], title(&image)));
                continue;
            }
            if let Err(error) = bring(&engine, &image, args.is("quiet")) {
                // (the others are not lost with it)
                unroot_engine::warn(format_args!("{}: {error}", title(&image)));
                failed += 1;
            }
        }
    }
    match left.first() {
        Some(missing) => Err(CliError::new(format!("{missing}: no such image in the store"))),
        None if failed > 0 => Err(CliError::new(format!("{failed} images could not be brought over"))),
        None => Ok(0),
    }
}

fn is(image: &Foreign, wanted: &str) -> bool {
    image.names.iter().any(|n| n == wanted || n.strip_suffix(":latest") == Some(wanted))
        || (wanted.len() >= 3 && image.id.starts_with(wanted.trim_start_matches("sha256:")))
}

fn title(image: &Foreign) -> String {
    if image.names.is_empty() { "<none>".into() } else { image.names.join(", ") }
}

fn bring(engine: &Engine, image: &Foreign, quiet: bool) -> Result<(), unroot_engine::Error> {
    let brought = engine.import_foreign(image, &Shown::new(true))?;
    if quiet {
        output::line(&brought.id);
        return Ok(());
    }
    let what = match (brought.known, brought.bytes) {
        (true, _) => "was here already".to_string(),
        (false, 0) => "all its layers were here".to_string(),
        (false, bytes) => format!("{} of layers", output::human(bytes, 3)),
    };
    output::line(format!("{}: {what}", title(image)));
    Ok(())
}
