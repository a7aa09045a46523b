//! `import`

use std::fs::File;
use std::io::Read;

use unroot_store::{Config, History, ImageConfig};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::verbs::Verb;
use crate::verbs::load::full_name;

pub const VERB: Verb = Verb {
    names: &["import", "image import"],
    usage: "[options] PATH|- [NAME]",
    about: "Make an image of a tar of a root filesystem",
    flags: || {
        vec![
            flag("arch", ' ', Kind::Value, "Architecture of the image"),
            flag(
                "change",
                'c',
                Kind::Repeat,
                "Change the configuration by CMD, ENV, LABEL, ... as in a Containerfile",
            ),
            flag("message", 'm', Kind::Value, "Message of the history"),
            flag("os", ' ', Kind::Value, "Operating system of the image"),
            flag("quiet", 'q', Kind::Bool, "Do not show how it goes"),
            flag("variant", ' ', Kind::Value, "Variant of the architecture"),
        ]
    },
    interspersed: true,
    count: (1, 2),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let ids = engine.id_check()?;
    let mut config = Config::default();
    for change in args.all("change") {
        unroot_engine::changes::apply(&mut config, change).map_err(CliError::new)?;
    }
    let now = unroot_monitor::log::now();
    let created = Some(unroot_monitor::log::format_nanos(now));
    let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let image_config = ImageConfig {
        created: created.clone(),
        architecture: args.value("arch").unwrap_or(host).into(),
        variant: args.value("variant").map(str::to_string),
        os: args.value("os").unwrap_or("linux").into(),
        config,
        ..ImageConfig::default()
    };
    let path = &args.rest[0];
    let source: Box<dyn Read + Send> = match path.as_str() {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(
            File::open(path)
                .map_err(|e| CliError::new(format!("open {path}: {}", unroot_engine::plan::reason(&e))))?,
        ),
    };
    let comment = args.value("message").map_or_else(|| format!("imported from {path}"), str::to_string);
    let history = History {
        created,
        created_by: Some(format!("/bin/sh -c #(nop) ADD file:{path} in /")),
        comment: Some(comment),
        empty_layer: false,
    };
    let check = |path: &str, uid: u64, gid: u64| ids.check(path, uid, gid);
    let names: Vec<String> = args.rest.get(1).map(|name| full_name(name)).transpose()?.into_iter().collect();
    let image =
        engine.store.import(source, image_config, history, &names, &check, now).map_err(|e| match e {
            unroot_store::Error::Ids(text) => CliError::from(ids.error(path, &text)),
            other => CliError::new(other),
        })?;
    engine.dirs.events.image("import", &image.id, path);
    output::line(format!("sha256:{}", image.id));
    Ok(0)
}
