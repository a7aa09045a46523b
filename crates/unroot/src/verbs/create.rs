//! `create`

use crate::Global;
use crate::cli::{Args, Outcome};
use crate::output;
use crate::pod_flags;
use crate::progress::Shown;
use crate::run_flags;
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["create", "container create"],
    usage: "[options] IMAGE [COMMAND [ARG...]]",
    about: "Create a container without starting it",
    flags: run_flags::all,
    interspersed: false,
    count: (1, ANY),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let args = &pod_flags::fill(global.conf()?, args)?;
    let mut spec = run_flags::spec(args, "create")?;
    global.complete(&mut spec)?;
    let engine = global.engine()?;
    let shown = Shown::new(args.is("quiet"));
    super::load::for_container(&engine, &mut spec.root, &shown)?;
    let made = pod_flags::make_new(global, &engine, &mut spec)?;
    let created = engine.create(spec, &run_flags::pull_options(args)?, &shown);
    let created = created.inspect_err(|_| drop(made.map(|pod| engine.remove_pod(&pod, false, None))))?;
    output::line(&created.record.id);
    Ok(0)
}
