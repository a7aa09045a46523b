//! `save`

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;

use unroot_engine::Engine;
use unroot_store::{Archive, Compression, Directory, Encoding, Image, Kind as Manifest, Progress as _};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::progress::Shown;
use crate::verbs::load::full_name;
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["save", "image save"],
    usage: "[options] IMAGE [IMAGE...]",
    about: "Save images to an archive or a directory",
    flags: || {
        vec![
            flag("compress", ' ', Kind::Bool, "Compress layers in a directory (docker-dir)"),
            flag(
                "format",
                ' ',
                Kind::Value,
                "docker-archive, oci-archive, oci-dir, docker-dir (default docker-archive)",
            ),
            flag(
                "multi-image-archive",
                'm',
                Kind::Bool,
                "What follows the first image are images, too, not names for it",
            ),
            flag("output", 'o', Kind::Value, "File or directory (default standard output)"),
            flag("quiet", 'q', Kind::Bool, "Do not show how it goes"),
            flag("uncompressed", ' ', Kind::Bool, "Layers of OCI formats are plain tars"),
        ]
    },
    interspersed: true,
    count: (1, ANY),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let format = args.value("format").unwrap_or("docker-archive");
    let is_dir = matches!(format, "oci-dir" | "docker-dir");
    if !is_dir && !matches!(format, "docker-archive" | "oci-archive") {
        return Err(CliError::new(format!(
            "unsupported format \"{format}\" for saving images: it is docker-archive, oci-archive, oci-dir or docker-dir"
        )));
    }
    if args.is("compress") && format != "docker-dir" {
        return Err(CliError::new("--compress can only be set when --format is 'docker-dir'"));
    }
    if args.is("multi-image-archive") && format != "docker-archive" {
        return Err(CliError::new("multi-image archives are only supported in docker-archive format"));
    }
    if args.value("output").is_none() && is_dir {
        return Err(CliError::new(format!("--output flag must be set for {format} format")));
    }
    if args.value("output").is_none() && io::stdout().is_terminal() {
        return Err(CliError::new("refusing to save to terminal. Use -o flag or redirect"));
    }
    let engine = global.engine()?;
    let images = named(&engine, args)?;
    let progress = Shown::new(args.is("quiet"));
    progress.say("Getting image source signatures");
    let packed = if args.is("uncompressed") { Compression::None } else { Compression::Gzip };
    let encoding = Encoding::new(packed, None).map_err(CliError::new)?;
    let store = &engine.store;
    match format {
        "docker-archive" => {
            let out = out(args)?;
            engine.enter()?;
            store.save_docker(&images, out, &progress)
        }
        "oci-archive" => {
            let mut archive = Archive::new(out(args)?);
            engine.enter()?;
            store.save_oci(&images, encoding, &mut archive, &progress).and_then(|()| archive.finish())
        }
        "oci-dir" => {
            engine.enter()?;
            let mut dir =
                Directory::new(Path::new(args.value("output").unwrap_or("."))).map_err(CliError::new)?;
            store.save_oci(&images, encoding, &mut dir, &progress)
        }
        _ => {
            engine.enter()?;
            let packed = if args.is("compress") { Compression::Gzip } else { Compression::None };
            let encoding = Encoding::new(packed, None).map_err(CliError::new)?;
            let dir = Path::new(args.value("output").unwrap_or("."));
            store.save_dir(&images[0].0, Manifest::Docker, encoding, dir, &progress)
        }
    }
    .map_err(|e| CliError::new(format!("save: {e}")))?;
    for (image, _) in &images {
        engine.dirs.events.image("save", &image.id, args.value("output").unwrap_or("-"));
    }
    Ok(0)
}

/// Opened as the user, before the namespace is entered.
fn out(args: &Args) -> Result<Box<dyn Write>, CliError> {
    let out: Box<dyn Write> = match args.value("output") {
        Some(path) => Box::new(
            File::create(path)
                .map_err(|e| CliError::new(format!("open {path}: {}", unroot_engine::plan::reason(&e))))?,
        ),
        None => Box::new(io::stdout().lock()),
    };
    Ok(Box::new(io::BufWriter::with_capacity(256 << 10, out)))
}

/// The images with the names that they have in the archive.
fn named(engine: &Engine, args: &Args) -> Result<Vec<(Image, Vec<String>)>, CliError> {
    let several = args.is("multi-image-archive");
    let words = if several { &args.rest[..] } else { &args.rest[..1] };
    let mut images: Vec<(Image, Vec<String>)> = Vec::new();
    for word in words {
        let found = engine.image(word)?;
        if found.image.is_list {
            return Err(CliError::new(format!("{word}: is a manifest list, which cannot be saved")));
        }
        // (what was named by its id has no name there either; a digest is no tag)
        let tagged = found.name != found.image.id && !found.name.contains('@');
        let names: Vec<String> = tagged.then_some(found.name).into_iter().collect();
        match images.iter_mut().find(|(image, _)| image.id == found.image.id) {
            Some((_, known)) => known.extend(names),
            None => images.push((found.image, names)),
        }
    }
    if !several {
        for name in &args.rest[1..] {
            images[0].1.push(full_name(name)?);
        }
    }
    Ok(images)
}
