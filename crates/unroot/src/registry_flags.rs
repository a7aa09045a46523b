//! What verbs that speak with registries, or write images to files, have in common.

use std::path::Path;

use unroot_engine::Engine;
use unroot_engine::push::PushOptions;
use unroot_store::{Archive, Compression, Directory, Encoding, Image, Kind as Manifest, Progress};

use crate::cli::{Args, CliError, Flag, Kind, flag};
use crate::run_flags::pull_options;

/// How a registry is asked.
pub fn registry_flags() -> Vec<Flag> {
    vec![
        flag("authfile", ' ', Kind::Value, "File with credentials"),
        flag("cert-dir", ' ', Kind::Value, "Directory with certificates"),
        flag("creds", ' ', Kind::Value, "USER:PASSWORD"),
        flag("tls-verify", ' ', Kind::Bool, "Require HTTPS and verify certificates"),
    ]
}

/// How layers leave.
pub fn push_flags() -> Vec<Flag> {
    let mut flags = registry_flags();
    flags.extend([
        flag("compression-format", ' ', Kind::Value, "Of layers: gzip, zstd (default gzip)"),
        flag("compression-level", ' ', Kind::Value, "gzip: 1 to 9, zstd: 1 to 20"),
        flag("digestfile", ' ', Kind::Value, "Write the digest of what was pushed to this file"),
        flag(
            "force-compression",
            ' ',
            Kind::Bool,
            "Do not use layers that the registry has in another compression",
        ),
        flag("format", 'f', Kind::Value, "Of the manifest: oci, v2s2 or docker (default: what the image is)"),
        flag("quiet", 'q', Kind::Bool, "Do not show how it goes"),
        flag("remove-signatures", ' ', Kind::Bool, "Without signatures: none are pushed anyhow"),
    ]);
    flags
}

/// What was asked for by [`push_flags`].
pub fn push_options(args: &Args) -> Result<PushOptions, CliError> {
    let compression = args.value("compression-format").map(compression).transpose()?;
    let level = args.number("compression-level")?;
    Encoding::new(compression.unwrap_or(Compression::Gzip), level).map_err(CliError::new)?;
    Ok(PushOptions {
        registry: pull_options(args)?,
        kind: args.value("format").map(manifest_format).transpose()?,
        compression,
        level,
        // (as Podman: who chooses a format wants it)
        force: args.given_bool("force-compression").unwrap_or(compression.is_some()),
    })
}

/// `--compression-format`.
fn compression(text: &str) -> Result<Compression, CliError> {
    match text {
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        "zstd:chunked" => {
            Err(CliError::new("compression format zstd:chunked is not made: it is gzip or zstd")
                .with_hint("zstd is as small, and clients that pull parts of layers pull it whole"))
        }
        _ => Err(CliError::new(format!("unknown compression format \"{text}\": it is gzip or zstd"))),
    }
}

fn manifest_format(text: &str) -> Result<Manifest, CliError> {
    match text {
        "oci" => Ok(Manifest::Oci),
        "v2s2" | "docker" => Ok(Manifest::Docker),
        "v2s1" => Err(CliError::new("format v2s1 is not made: no registry takes it any more")
            .with_hint("--format v2s2")),
        _ => Err(CliError::new(format!(
            "unknown format \"{text}\". Choose one of the supported formats: oci or v2s2"
        ))),
    }
}

/// Writes an image where a transport says; false if it is no transport that writes files.
pub fn write_transport(
    engine: &Engine,
    image: &Image,
    destination: &str,
    options: &PushOptions,
    compress: bool,
    progress: &dyn Progress,
) -> Result<bool, CliError> {
    let Some((transport, place)) = destination.split_once(':') else { return Ok(false) };
    let compression = match options.compression {
        None if transport == "dir" && !compress => Compression::None,
        other => other.unwrap_or(Compression::Gzip),
    };
    let encoding = Encoding::new(compression, options.level).map_err(CliError::new)?;
    // (`PATH:NAME`)
    let (path, name) = place.split_once(':').map_or((place, None), |(p, n)| (p, Some(n.to_string())));
    let named = [(image.clone(), name.clone().into_iter().collect::<Vec<_>>())];
    let create = || {
        std::fs::File::create(path)
            .map_err(|e| CliError::new(format!("open {path}: {}", unroot_engine::plan::reason(&e))))
    };
    match transport {
        "dir" => {
            engine.enter()?;
            let kind = options
                .kind
                .unwrap_or(Manifest::of(&engine.store.manifest(&image.id).map_err(CliError::new)?));
            engine
                .store
                .save_dir(image, kind, encoding, Path::new(place), progress)
                .map_err(CliError::new)?;
        }
        "oci" => {
            engine.enter()?;
            let mut out = Directory::new(Path::new(path)).map_err(CliError::new)?;
            engine.store.save_oci(&named, encoding, &mut out, progress).map_err(CliError::new)?;
        }
        "oci-archive" => {
            let mut out = Archive::new(create()?);
            engine.enter()?;
            engine.store.save_oci(&named, encoding, &mut out, progress).map_err(CliError::new)?;
            out.finish().map_err(CliError::new)?;
        }
        "docker-archive" => {
            let full = |name: &String| crate::verbs::load::full_name(name);
            let names = name.iter().map(full).collect::<Result<Vec<_>, _>>()?;
            let file = create()?;
            engine.enter()?;
            engine.store.save_docker(&[(image.clone(), names)], file, progress).map_err(CliError::new)?;
        }
        "docker-daemon" | "containers-storage" | "ostree" => {
            return Err(CliError::new(format!("transport {transport}: is not supported"))
                .with_hint("save writes archives that other engines load"));
        }
        _ => return Ok(false),
    }
    Ok(true)
}
