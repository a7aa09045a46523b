//! `diff`, `container diff`, `image diff`

use serde_json::{Map, Value};

use unroot_engine::Engine;
use unroot_engine::trees::Object;
use unroot_store::merged::Change;

use crate::Global;
use crate::cli::{Args, CliError, Flag, Kind, Outcome, flag};
use crate::output;
use crate::selection::{self, LATEST};
use crate::verbs::Verb;

const FORMAT: Flag = flag("format", ' ', Kind::Value, "json");

pub const VERB: Verb = Verb {
    names: &["diff"],
    usage: "[options] CONTAINER|IMAGE [CONTAINER|IMAGE]",
    about: "What is different in a container or image from its image, or from another one",
    flags: || vec![FORMAT, LATEST],
    interspersed: true,
    count: (0, 2),
    run: |global, args| run(global, args, &|engine, name| Ok(engine.object(name)?)),
};

pub const CONTAINER: Verb = Verb {
    names: &["container diff"],
    usage: "[options] CONTAINER [CONTAINER]",
    about: "What is different in a container from its image, or from another one",
    flags: || vec![FORMAT, LATEST],
    interspersed: true,
    count: (0, 2),
    run: |global, args| {
        run(global, args, &|engine, name| Ok(Object::Container(Box::new(engine.find(name)?))))
    },
};

pub const IMAGE: Verb = Verb {
    names: &["image diff"],
    usage: "[options] IMAGE [IMAGE]",
    about: "What is different in an image from its lower layers, or from another one",
    flags: || vec![FORMAT],
    interspersed: true,
    count: (1, 2),
    run: |global, args| {
        run(global, args, &|engine, name| Ok(Object::Image(Box::new(engine.image(name)?.image))))
    },
};

type Find<'a> = &'a dyn Fn(&Engine, &str) -> Result<Object, CliError>;

fn run(global: &Global, args: &Args, find: Find<'_>) -> Outcome {
    let engine = global.engine()?;
    let format = args.value("format");
    if let Some(other) = format.filter(|f| !matches!(*f, "json" | "")) {
        return Err(CliError::new(format!("only supported value for '--format' is 'json', not {other:?}")));
    }
    let (object, base) = match (&args.rest[..], args.is("latest")) {
        ([], false) => {
            return Err(CliError::new(
                "container must be specified: diff [options] CONTAINER|IMAGE [CONTAINER|IMAGE]",
            ));
        }
        ([], true) => (Object::Container(Box::new(selection::one(&engine, args)?)), None),
        (_, true) => return Err(CliError::new("--latest and containers cannot be used together")),
        ([name, rest @ ..], false) => {
            (find(&engine, name)?, rest.first().map(|base| find(&engine, base)).transpose()?)
        }
    };
    let found = engine.changes(&object, base.as_ref())?;
    if format == Some("json") {
        let mut all = Map::new();
        for (key, kind) in
            [("changed", Change::Changed), ("added", Change::Added), ("deleted", Change::Deleted)]
        {
            let paths: Vec<Value> =
                found.iter().filter(|(k, _)| *k == kind).map(|(_, p)| p.to_string_lossy().into()).collect();
            if !paths.is_empty() {
                all.insert(key.into(), paths.into());
            }
        }
        output::line(serde_json::to_string_pretty(&all).unwrap_or_default());
        return Ok(0);
    }
    for (kind, path) in found {
        let letter = match kind {
            Change::Added => 'A',
            Change::Changed => 'C',
            Change::Deleted => 'D',
        };
        output::line(format!("{letter} {}", path.display()));
    }
    Ok(0)
}
