//! `pod top`

use unroot_engine::pod::Member;
use unroot_engine::top::DESCRIPTORS;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::verbs::top::columns_of_ps;
use crate::verbs::{ANY, Verb};

use super::{LATEST, one};

pub const VERB: Verb = Verb {
    names: &["pod top"],
    usage: "[options] POD [DESCRIPTOR...]",
    about: "Show the processes of a pod, from inside and from outside",
    flags: || vec![LATEST, flag("list-descriptors", ' ', Kind::Bool, "List what can be shown")],
    interspersed: false,
    count: (0, ANY),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    if args.is("list-descriptors") {
        DESCRIPTORS.iter().for_each(|(name, _)| output::line(name));
        return Ok(0);
    }
    let engine = global.engine()?;
    let (pod, descriptors) = match args.is("latest") {
        true => (unroot_engine::pod::latest(&engine.dirs)?, &args.rest[..]),
        false => (one(&engine, args)?, args.rest.get(1..).unwrap_or_default()),
    };
    let columns = columns_of_ps(descriptors);
    let descriptors = columns.as_deref().unwrap_or(descriptors);
    if descriptors.first().is_some_and(|d| d.starts_with('-')) {
        return Err(CliError::new(format!(
            "{}: of ps(1) pod top knows -eo with a list of descriptors",
            descriptors[0]
        )));
    }
    let members = pod.members(&engine.dirs)?;
    let live: Vec<&Member> = members.iter().filter(|(_, state)| state.is_live()).collect();
    if live.is_empty() {
        return Err(CliError::new("pod top can only be used on pods with at least one running container"));
    }
    let (headings, rows) = engine.top_of_pod(&live, descriptors)?;
    output::table(Some(headings), rows);
    Ok(0)
}
