//! `healthcheck run`

use unroot_engine::health::HEALTHY;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::selection::{LATEST, one};
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["healthcheck run"],
    usage: "[options] CONTAINER",
    about: "Run a container's health check now",
    flags: || vec![flag("ignore-result", ' ', Kind::Bool, "An unhealthy container is no failure"), LATEST],
    interspersed: true,
    count: (0, 1),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    if args.rest.is_empty() && !args.is("latest") {
        return Err(CliError::new("you must provide at least one name or id"));
    }
    let record = one(&engine, args)?;
    match engine.check_health(&record)? {
        HEALTHY => Ok(0),
        status => {
            output::line(status);
            Ok(u8::from(!args.is("ignore-result")))
        }
    }
}
