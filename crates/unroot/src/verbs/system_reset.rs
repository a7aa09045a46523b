//! `system reset`

use std::path::Path;

use unroot_engine::{Engine, ErrorKind, Record, remove};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["system reset"],
    usage: "[options]",
    about: "Remove all containers, images, volumes and secrets, and all else that is kept",
    flags: || vec![flag("force", 'f', Kind::Bool, "Do not ask")],
    interspersed: true,
    count: (0, 0),
    run,
};

/// What the engine keeps in its directories. Whatever else is there is somebody else's, and stays.
const KEPT: [&str; 15] = [
    "containers",
    "events.log",
    "ids.lock",
    "images",
    "init",
    "layers",
    "lease",
    "mount-points",
    "mounts",
    "names",
    "pods",
    "secrets",
    "tmp",
    "unsettled",
    "volumes",
];

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    if !args.is("force") && !output::confirms(&question(&engine)) {
        return Ok(0);
    }
    end_all(&engine)?;
    for volume in engine.store.volumes().list().map_err(CliError::new)? {
        engine.remove_volume(&volume, true, Some(0))?;
    }
    engine.enter()?;
    let dirs = &engine.dirs;
    dirs.userns.iter().filter(|file| file.starts_with(&dirs.run)).for_each(|f| unroot_idmap::kept::forget(f));
    for dir in [&dirs.root, &dirs.kept, &dirs.run] {
        clear(dir)?;
    }
    Ok(0)
}

fn question(engine: &Engine) -> String {
    format!(
        "WARNING! This will remove:\n        - all containers\n        - all pods\n        - all images\n        - all volumes\n        - all secrets\n        - all that is kept in {} and {}\nAre you sure you want to continue? [y/N] ",
        engine.dirs.root.display(),
        engine.dirs.run.display()
    )
}

fn end_all(engine: &Engine) -> Result<(), CliError> {
    let all: Vec<Record> = engine.containers()?;
    let records: Vec<&Record> = all.iter().collect();
    // (what cannot be stopped cannot be removed: that is said then)
    let _ = unroot_engine::stop::stop(&engine.dirs, &records, Some(0), &|r| engine.stop_signal(r));
    for record in &all {
        match engine.remove(record, true, Some(0), true) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
    }
    Ok(engine.sweep()?)
}

/// Removes what the engine has made in a directory, and the directory itself if nothing else is in it.
fn clear(dir: &Path) -> Result<(), CliError> {
    for name in KEPT {
        let path = dir.join(name);
        match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => remove::remove_tree(&path)?,
            Ok(_) => {
                std::fs::remove_file(&path)
                    .map_err(|e| CliError::new(format!("remove {}: {e}", path.display())))?;
            }
            Err(_) => {}
        }
    }
    // (it stays if it holds something of others, or is a mount point)
    let _ = std::fs::remove_dir(dir);
    Ok(())
}
