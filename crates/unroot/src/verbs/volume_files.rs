//! `volume export`, `import`, `mount`, `unmount`, `reload`

use std::fs::File;
use std::io::{self, Read};

use unroot_engine::Engine;
use unroot_store::{Volume, tree_tar};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::verbs::{ANY, Verb, each};

pub const EXPORT: Verb = Verb {
    names: &["volume export"],
    usage: "[options] VOLUME",
    about: "Write a volume's files as a tar",
    flags: || vec![flag("output", 'o', Kind::Value, "To this file (default standard output)")],
    interspersed: true,
    count: (1, 1),
    run: export,
};

pub const IMPORT: Verb = Verb {
    names: &["volume import"],
    usage: "VOLUME [FILE|-]",
    about: "Unpack a tar over a volume's files",
    flags: Vec::new,
    interspersed: true,
    count: (1, 2),
    run: import,
};

pub const MOUNT: Verb = Verb {
    names: &["volume mount"],
    usage: "VOLUME [VOLUME...]",
    about: "Mount volumes, and say where",
    flags: Vec::new,
    interspersed: true,
    count: (1, ANY),
    run: |global, args| {
        let engine = global.engine()?;
        needs_namespace(&engine, "mount")?;
        each(found(&engine, args), |volume| Ok(Some(engine.mount_volume(&volume)?.display().to_string())))
    },
};

pub const UNMOUNT: Verb = Verb {
    names: &["volume unmount", "volume umount"],
    usage: "VOLUME [VOLUME...]",
    about: "Unmount volumes",
    flags: Vec::new,
    interspersed: true,
    count: (1, ANY),
    run: |global, args| {
        let engine = global.engine()?;
        needs_namespace(&engine, "unmount")?;
        each(found(&engine, args), |volume| {
            engine.unmount_volume(&volume)?;
            Ok(Some(volume.name))
        })
    },
};

pub const RELOAD: Verb = Verb {
    names: &["volume reload"],
    usage: "",
    about: "Look for volumes of plugins: there are no plugins, so there is nothing to find",
    flags: Vec::new,
    interspersed: true,
    count: (0, 0),
    run: |global, _| global.engine().map(|_| 0),
};

fn found(engine: &Engine, args: &Args) -> Vec<Result<Volume, CliError>> {
    args.rest.iter().map(|name| engine.find_volume(name).map_err(CliError::from)).collect()
}

/// A mount of an ordinary user's is seen in their user namespace alone.
fn needs_namespace(engine: &Engine, verb: &str) -> Result<(), CliError> {
    let inside = rustix::process::geteuid().is_root();
    match engine.user.is_rootless() && !inside {
        true => Err(CliError::new(format!(
            "cannot run command \"{0} volume {verb}\" in rootless mode, must execute `{0} unshare` first",
            unroot_engine::program()
        ))),
        false => Ok(()),
    }
}

/// Where a volume's files are while this runs.
fn files(engine: &Engine, volume: &Volume) -> Result<std::path::PathBuf, CliError> {
    match volume.kind() {
        None => Ok(engine.store.volumes().data(&volume.name)),
        Some("bind") => Ok(volume.device().into()),
        Some(_) if engine.user.is_rootless() => Err(CliError::new(format!(
            "volume {} is a filesystem of its own, which is there while a container has it",
            volume.name
        ))
        .with_hint(format!("{} exec CONTAINER tar -c DIRECTORY", unroot_engine::program()))),
        Some(_) => Ok(engine.mount_volume(volume)?),
    }
}

fn export(global: &Global, args: &Args) -> Outcome {
    use std::io::IsTerminal as _;
    let engine = global.engine()?;
    let volume = engine.find_volume(&args.rest[0])?;
    let output = args.value("output");
    if output.is_none() && io::stdout().is_terminal() {
        return Err(CliError::new(
            "cannot write to terminal, use command-line redirection or the --output flag",
        ));
    }
    // (opened as the user, before the namespace is entered)
    let file = output.map(|path| {
        File::create(path)
            .map_err(|e| CliError::new(format!("open {path}: {}", unroot_engine::plan::reason(&e))))
    });
    let file = file.transpose()?;
    engine.enter()?;
    let dir = files(&engine, &volume)?;
    match file {
        Some(file) => tree_tar::export(&dir, io::BufWriter::with_capacity(256 << 10, file)),
        None => tree_tar::export(&dir, io::BufWriter::with_capacity(256 << 10, io::stdout().lock())),
    }
    .map_err(CliError::new)?;
    Ok(0)
}

fn import(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let volume = engine.find_volume(&args.rest[0])?;
    let source: Box<dyn Read> = match args.rest.get(1).map(String::as_str) {
        None | Some("-") => Box::new(io::stdin()),
        Some(path) => Box::new(
            File::open(path)
                .map_err(|e| CliError::new(format!("open {path}: {}", unroot_engine::plan::reason(&e))))?,
        ),
    };
    let ids = engine.id_check()?;
    let check = |path: &str, uid: u64, gid: u64| ids.check(path, uid, gid);
    tree_tar::import(&files(&engine, &volume)?, source, &check).map_err(|e| match e {
        unroot_store::Error::Ids(text) => CliError::from(ids.error(&volume.name, &text)),
        other => CliError::new(format!("volume import {}: {other}", volume.name)),
    })?;
    Ok(0)
}
