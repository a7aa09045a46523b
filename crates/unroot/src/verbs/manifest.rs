//! `manifest create`, `add`, `annotate`, `inspect`, `push`, `remove`, `rm`, `exists`

use serde_json::Value;
use unroot_engine::manifests::{Artifact, Entry, empty_list};
use unroot_engine::push::PushOptions;
use unroot_engine::{Engine, ErrorKind};

use crate::Global;
use crate::cli::{Args, CliError, Flag, Kind, Outcome, flag};
use crate::output::line;
use crate::progress::Shown;
use crate::registry_flags::{push_flags, push_options, registry_flags};
use crate::run_flags::pull_options;
use crate::verbs::load::full_name;
use crate::verbs::{ANY, Verb};

pub const CREATE: Verb = Verb {
    names: &["manifest create"],
    usage: "[options] LIST [IMAGE...]",
    about: "Make a manifest list, and add images to it",
    flags: || {
        vec![
            flag("all", ' ', Kind::Bool, "All of the lists that are added"),
            flag("amend", 'a', Kind::Bool, "A list of this name is changed"),
            flag("annotation", ' ', Kind::Repeat, "KEY=VALUE of the list"),
            flag("insecure", ' ', Kind::Bool, "Neither HTTPS nor certificates are required"),
            flag("tls-verify", ' ', Kind::Bool, "Require HTTPS and verify certificates"),
        ]
    },
    interspersed: true,
    count: (1, ANY),
    run: create,
};

fn entry_flags() -> Vec<Flag> {
    vec![
        flag("annotation", ' ', Kind::Repeat, "KEY=VALUE"),
        flag("arch", ' ', Kind::Value, "Architecture"),
        flag("features", ' ', Kind::List, "Features of the processor"),
        flag("os", ' ', Kind::Value, "Operating system"),
        flag("os-version", ' ', Kind::Value, "Version of the operating system"),
        flag("variant", ' ', Kind::Value, "Variant of the architecture"),
    ]
}

pub const ADD: Verb = Verb {
    names: &["manifest add"],
    usage: "[options] LIST IMAGE|FILE [IMAGE|FILE...]",
    about: "Add images, or files as an artifact, to a manifest list",
    flags: || {
        let mut flags = registry_flags();
        flags.extend(entry_flags());
        flags.extend([
            flag("all", ' ', Kind::Bool, "All of a list that is added"),
            flag("artifact", ' ', Kind::Bool, "What is added are files"),
            flag("artifact-config", ' ', Kind::Value, "File that is the artifact's configuration"),
            flag("artifact-config-type", ' ', Kind::Value, "Its media type"),
            flag("artifact-exclude-titles", ' ', Kind::Bool, "Names of files are not kept"),
            flag("artifact-layer-type", ' ', Kind::Value, "Media type of the files"),
            flag("artifact-subject", ' ', Kind::Value, "Image that the artifact is about"),
            flag("artifact-type", ' ', Kind::Value, "Type of the artifact"),
            flag("insecure", ' ', Kind::Bool, "Neither HTTPS nor certificates are required"),
        ]);
        flags
    },
    interspersed: true,
    count: (2, ANY),
    run: add,
};

pub const ANNOTATE: Verb = Verb {
    names: &["manifest annotate"],
    usage: "[options] LIST [IMAGE|DIGEST]",
    about: "Change what a manifest list says of an image, or of itself",
    flags: || {
        let mut flags = entry_flags();
        flags.extend([
            flag("index", ' ', Kind::Bool, "Of the list itself"),
            flag("os-features", ' ', Kind::List, "Features of the operating system"),
            flag("subject", ' ', Kind::Value, "Image that the list is about"),
        ]);
        flags
    },
    interspersed: true,
    count: (1, 2),
    run: annotate,
};

pub const INSPECT: Verb = Verb {
    names: &["manifest inspect"],
    usage: "[options] LIST",
    about: "Show a manifest list of the store, or a manifest of a registry",
    flags: || {
        vec![
            flag("authfile", ' ', Kind::Value, "File with credentials"),
            flag("insecure", ' ', Kind::Bool, "Neither HTTPS nor certificates are required"),
            flag("tls-verify", ' ', Kind::Bool, "Require HTTPS and verify certificates"),
            flag("verbose", 'v', Kind::Bool, "For Docker's command lines: all is shown anyhow"),
        ]
    },
    interspersed: true,
    count: (1, 1),
    run: inspect,
};

pub const PUSH: Verb = Verb {
    names: &["manifest push"],
    usage: "[options] LIST [DESTINATION]",
    about: "Push a manifest list, and the images that it names",
    flags: || {
        let mut flags = push_flags();
        flags.extend([
            flag("add-compression", ' ', Kind::List, "Push images in this compression, too: zstd"),
            flag("all", ' ', Kind::Bool, "The images, too (default true)"),
            flag("insecure", ' ', Kind::Bool, "Neither HTTPS nor certificates are required"),
            flag("purge", 'p', Kind::Bool, "As --rm"),
            flag("rm", ' ', Kind::Bool, "Remove the list afterwards"),
        ]);
        flags
    },
    interspersed: true,
    count: (1, 2),
    run: push,
};

pub const REMOVE: Verb = Verb {
    names: &["manifest remove"],
    usage: "LIST IMAGE|DIGEST",
    about: "Take an image out of a manifest list",
    flags: Vec::new,
    interspersed: true,
    count: (2, 2),
    run: |global, args| {
        let engine = global.engine()?;
        engine.enter()?;
        let mut list = engine.list(&args.rest[0])?;
        engine.remove_from_list(&mut list, &args.rest[1])?;
        line(list.id);
        Ok(0)
    },
};

pub const DELETE: Verb = Verb {
    names: &["manifest rm"],
    usage: "[options] LIST [LIST...]",
    about: "Remove manifest lists",
    flags: || vec![flag("ignore", 'i', Kind::Bool, "A list that is not there is no error")],
    interspersed: true,
    count: (1, ANY),
    run: delete,
};

pub const EXISTS: Verb = Verb {
    names: &["manifest exists"],
    usage: "LIST",
    about: "Is there such a manifest list",
    flags: Vec::new,
    interspersed: true,
    count: (1, 1),
    run: |global, args| {
        let found = global.engine()?.local_image(&args.rest[0])?;
        Ok(u8::from(found.is_none_or(|named| !named.image.is_list)))
    },
};

fn pairs(args: &Args) -> Result<Vec<(String, String)>, CliError> {
    let pair = |text: &String| {
        text.split_once('=')
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .ok_or_else(|| CliError::new(format!("no value given for annotation \"{text}\"")))
    };
    args.all("annotation").iter().map(pair).collect()
}

fn entry(args: &Args) -> Result<Entry, CliError> {
    let text = |name: &str| args.value(name).filter(|v| !v.is_empty()).map(str::to_string);
    Ok(Entry {
        architecture: text("arch"),
        os: text("os"),
        variant: text("variant"),
        os_version: text("os-version"),
        features: args.all("features").to_vec(),
        os_features: args.all("os-features").to_vec(),
        annotations: pairs(args)?,
    })
}

/// `--insecure` is Docker's word for `--tls-verify=false`.
fn verify(args: &Args) -> Result<Option<bool>, CliError> {
    match (args.given_bool("insecure"), args.given_bool("tls-verify")) {
        (Some(_), Some(_)) => Err(CliError::new("--insecure may not be used with --tls-verify")),
        (Some(insecure), None) => Ok(Some(!insecure)),
        (None, verify) => Ok(verify),
    }
}

/// How registries are asked: here only its words for registries are known. Lists of images want TLS even of this
/// machine's own registry, as Podman.
fn asking(args: &Args) -> Result<PushOptions, CliError> {
    let mut registry = pull_options(&args.clone().without(&["os", "arch", "variant"]))?;
    registry.tls_verify = verify(args)?;
    Ok(PushOptions { registry, ..PushOptions::default() })
}

fn create(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let name = full_name(&args.rest[0])?;
    let options = asking(args)?;
    engine.enter()?;
    let _lease = engine.store.lease().map_err(CliError::new)?;
    let mut list = match engine.local_image(&name)? {
        Some(known) if args.is("amend") && known.image.is_list => {
            engine.store.list(&known.image.id).map_err(CliError::new)?
        }
        Some(known) => {
            return Err(CliError::new(format!(
                "image name \"{name}\" is already associated with image \"{}\": that name is already in use",
                known.image.id
            )));
        }
        None => engine
            .store
            .make_list(&empty_list(&pairs(args)?), std::slice::from_ref(&name))
            .map_err(CliError::new)?,
    };
    for word in &args.rest[1..] {
        engine.add_to_list(&mut list, word, args.is("all"), &Entry::default(), &options)?;
    }
    line(list.id);
    Ok(0)
}

fn add(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let (says, options) = (entry(args)?, asking(args)?);
    let mut list = engine.list(&args.rest[0])?;
    // (files are the user's own: read before the namespace is entered, whose root may read no more)
    engine.enter()?;
    if args.is("artifact") {
        let text = |name: &str| args.value(name).map(str::to_string);
        let artifact = Artifact {
            kind: text("artifact-type"),
            config: text("artifact-config"),
            config_type: text("artifact-config-type"),
            layer_type: text("artifact-layer-type"),
            without_titles: args.is("artifact-exclude-titles"),
            subject: args.value("artifact-subject").map(|word| subject(&engine, word)).transpose()?,
        };
        engine.add_artifact(&mut list, &args.rest[1..], &artifact, &says)?;
    } else {
        if let Some(name) = [
            "artifact-type",
            "artifact-config",
            "artifact-config-type",
            "artifact-layer-type",
            "artifact-subject",
        ]
        .iter()
        .find(|name| args.value(name).is_some())
        {
            return Err(CliError::new(format!("--{name} requires --artifact")));
        }
        for word in &args.rest[1..] {
            engine.add_to_list(&mut list, word, args.is("all"), &says, &options)?;
        }
    }
    line(list.id);
    Ok(0)
}

/// The descriptor of an image of the store.
fn subject(engine: &Engine, word: &str) -> Result<Value, CliError> {
    let image = engine.image(word)?.image;
    let manifest = engine.store.manifest(&image.id).map_err(CliError::new)?;
    let kind = unroot_store::Kind::of(&manifest);
    Ok(serde_json::json!({"mediaType": kind.manifest(), "digest": image.digest, "size": manifest.len()}))
}

fn annotate(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let says = entry(args)?;
    let word = args.rest.get(1).map(String::as_str).filter(|w| !w.is_empty());
    if args.is("index") && word.is_some() {
        return Err(CliError::new("--index will update image index, so it may not be used with an image"));
    }
    if !args.is("index") && word.is_none() {
        return Err(CliError::new("which image of the list is to be changed: --index for the list itself"));
    }
    if word.is_some() && args.value("subject").is_some() {
        return Err(CliError::new("setting subject for a manifest list requires no instance digest"));
    }
    let of_image = ["arch", "os", "variant", "os-version", "features", "os-features"];
    if let (None, Some(name)) = (word, of_image.iter().find(|name| !args.all(name).is_empty())) {
        return Err(CliError::new(format!(
            "setting --{name} in a manifest list requires an instance digest"
        )));
    }
    engine.enter()?;
    let mut list = engine.list(&args.rest[0])?;
    let subject = args.value("subject").map(|word| subject(&engine, word)).transpose()?;
    engine.annotate_list(&mut list, word, &says, subject)?;
    line(list.id);
    Ok(0)
}

fn inspect(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let word = &args.rest[0];
    let local = if word.starts_with("docker://") { None } else { engine.local_image(word)? };
    let shown: Value = match local {
        Some(named) if named.image.is_list => {
            engine.store.list(&named.image.id).map_err(CliError::new)?.index
        }
        _ => {
            let mut registry = asking(args)?.registry;
            // (the default is to require TLS)
            registry.tls_verify = registry.tls_verify.or(Some(true));
            let client = engine.client(&registry)?;
            let (_, manifest) = engine.remote_manifest(&client, word)?;
            if !manifest.is_index() {
                log::warn!(
                    "The manifest type {} is not a manifest list but a single image.",
                    manifest.media_type
                );
            }
            serde_json::from_slice(&manifest.bytes).map_err(CliError::new)?
        }
    };
    line(serde_json::to_string_pretty(&shown).map_err(CliError::new)?);
    Ok(0)
}

fn push(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let mut options = push_options(args)?;
    options.registry.tls_verify = verify(args)?;
    let mut add_zstd = false;
    for format in args.all("add-compression") {
        match format.as_str() {
            "zstd" => add_zstd = true,
            "gzip" => return Err(CliError::new("--add-compression gzip: images are pushed in it anyhow")),
            other => {
                return Err(CliError::new(format!(
                    "unknown compression format \"{other}\" to add: it is zstd"
                )));
            }
        }
    }
    let list = engine.list(&args.rest[0])?;
    let destination = args.rest.last().cloned().unwrap_or_default();
    let alone = args.given_bool("all") == Some(false);
    // (opened as the user, before the namespace is entered)
    let digestfile = args.value("digestfile").map(|path| {
        std::fs::File::create(path)
            .map_err(|e| CliError::new(format!("open {path}: {}", unroot_engine::plan::reason(&e))))
    });
    let digestfile = digestfile.transpose()?;
    let progress = Shown::new(args.is("quiet"));
    let digest = engine.push_list(&list, &destination, &options, (alone, add_zstd), &progress)?;
    if let Some(mut file) = digestfile {
        use std::io::Write as _;
        file.write_all(digest.as_str().as_bytes())
            .map_err(|e| CliError::new(format!("write --digestfile: {e}")))?;
    }
    if args.is("rm") || args.is("purge") {
        engine.store.remove_image(&list.id).map_err(CliError::new)?;
    }
    Ok(0)
}

fn delete(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let mut code = 0;
    for word in &args.rest {
        match engine.list(word) {
            Ok(_) => super::rmi::remove(&engine, word, false, false)?.iter().for_each(line),
            Err(e) if e.kind() == ErrorKind::NotFound && args.is("ignore") => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {
                code = crate::report(&CliError::with_code(1, e.to_string()));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(code)
}
