//! `pod logs`

use unroot_engine::{Engine, Pod, Record};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::verbs::{Verb, logs};

use super::{LATEST, one};

pub const VERB: Verb = Verb {
    names: &["pod logs"],
    usage: "[options] POD",
    about: "Show what the containers of a pod printed",
    flags: || {
        let mut flags = (logs::VERB.flags)();
        flags.retain(|f| f.long != "latest");
        flags.push(flag("container", 'c', Kind::Value, "Of this container alone"));
        flags.push(LATEST);
        flags
    },
    interspersed: true,
    count: (0, 1),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let pod = one(&engine, args)?;
    let records = chosen(&engine, &pod, args.value("container"))?;
    logs::show_all(&engine, records, args)
}

/// The infra container has nothing to say, unless it has an image of its own or is asked for.
fn chosen(engine: &Engine, pod: &Pod, only: Option<&str>) -> Result<Vec<Record>, CliError> {
    let records = pod.members(&engine.dirs)?.into_iter().map(|(record, _)| record);
    let Some(only) = only else {
        return Ok(records.filter(|r| !r.spec.infra || r.image.is_some()).collect());
    };
    let mut records = records;
    let found = records.find(|r| r.name == only || r.id == only);
    found.map(|r| vec![r]).ok_or_else(|| {
        CliError::new(format!("container {only} is not in pod {}: no such container", pod.name))
    })
}
