//! `image mount`, `image unmount`

use serde_json::{Value, json};
use unroot_engine::Engine;
use unroot_store::Image;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output::{self, formatted};
use crate::verbs::{ANY, Verb, each};
use crate::view::repository;

pub const MOUNT: Verb = Verb {
    names: &["image mount"],
    usage: "[options] [IMAGE...]",
    about: "Mount images for reading, or show which are mounted",
    flags: || vec![flag("all", 'a', Kind::Bool, "All images"), flag("format", ' ', Kind::Value, "json")],
    interspersed: true,
    count: (0, ANY),
    run: mount,
};

pub const UNMOUNT: Verb = Verb {
    names: &["image unmount", "image umount"],
    usage: "[options] [IMAGE...]",
    about: "Unmount images",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All that are mounted"),
            flag("force", 'f', Kind::Bool, "Even while something uses them"),
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run: unmount,
};

/// A mount of an ordinary user's is seen in their user namespace alone.
fn needs_namespace(engine: &Engine, verb: &str) -> Result<(), CliError> {
    let inside = rustix::process::geteuid().is_root();
    match engine.user.is_rootless() && !inside {
        true => Err(CliError::new(format!(
            "cannot run command \"{0} image {verb}\" in rootless mode, must execute `{0} unshare` first",
            unroot_engine::program()
        ))),
        false => Ok(()),
    }
}

fn all_images(engine: &Engine) -> Result<Vec<Image>, CliError> {
    Ok(engine.store.images().map_err(CliError::new)?.into_iter().filter(|i| !i.is_list).collect())
}

fn mount(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    needs_namespace(&engine, "mount")?;
    let format = args.value("format");
    if let Some(other) = format.filter(|f| *f != "json" && !f.is_empty()) {
        return Err(CliError::new(format!("unknown --format argument: \"{other}\"")));
    }
    if args.is("all") && !args.rest.is_empty() {
        return Err(CliError::new("when using the --all switch, you may not pass any image names or IDs"));
    }
    let wanted: Vec<Image> = match (args.is("all"), &args.rest[..]) {
        (true, _) => all_images(&engine)?,
        (false, []) => {
            let mounted = |image: &Image| engine.image_mount(&image.id).is_some();
            all_images(&engine)?.into_iter().filter(mounted).collect()
        }
        (false, words) => {
            words.iter().map(|w| Ok(engine.image(w)?.image)).collect::<Result<_, CliError>>()?
        }
    };
    let mut rows = Vec::new();
    for image in &wanted {
        let place = engine.mount_image(image)?;
        let names = engine.names_of(&image.id);
        let mut repositories: Vec<String> = names.iter().map(|n| repository(n).0).collect();
        repositories.dedup();
        rows.push(json!({
            "id": image.id, "Names": names, "Repositories": repositories, "mountpoint": place,
            "ID": names.first().unwrap_or(&image.id), "Path": place,
        }));
    }
    match (format, &rows[..]) {
        (Some("json"), _) => {
            for row in rows.iter_mut().filter_map(Value::as_object_mut) {
                row.remove("ID");
                row.remove("Path");
            }
            formatted("json", &rows, &[], true)?;
        }
        (_, [only]) if args.rest.len() == 1 => output::line(only["Path"].as_str().unwrap_or_default()),
        _ => formatted("table {{.ID}}\t{{.Path}}", &rows, &[], true)?,
    }
    Ok(0)
}

fn unmount(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    needs_namespace(&engine, "unmount")?;
    if args.is("all") && !args.rest.is_empty() {
        return Err(CliError::new("when using the --all switch, you may not pass any image names or IDs"));
    }
    if !args.is("all") && args.rest.is_empty() {
        return Err(CliError::new("image name or ID must be specified"));
    }
    let items: Vec<Result<Image, CliError>> = match args.is("all") {
        true => {
            all_images(&engine)?.into_iter().filter(|i| engine.image_mount(&i.id).is_some()).map(Ok).collect()
        }
        false => args.rest.iter().map(|w| Ok(engine.image(w)?.image)).collect(),
    };
    each(items, |image| match engine.unmount_image(&image.id, args.is("force"))? {
        true => Ok(Some(image.id)),
        // (as Podman has it: it is what was asked for)
        false => Ok(None),
    })
}
