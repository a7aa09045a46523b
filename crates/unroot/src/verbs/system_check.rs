//! `system check`

use std::time::Duration;

use unroot_engine::check::{Check, Finding};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::moment::duration;
use crate::output;
use crate::progress::Shown;
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["system check"],
    usage: "[options]",
    about: "Look for damage in the store, and cure it",
    flags: || {
        vec![
            flag("force", 'f', Kind::Bool, "Remove what is damaged although containers use it, and these"),
            flag("max", 'm', Kind::Value, "Layers that no image has are damage at this age (default 24h)"),
            flag("quick", 'q', Kind::Bool, "Do not read the contents of layers"),
            flag(
                "repair",
                'r',
                Kind::Bool,
                "Fetch damaged layers again; remove the images of those that cannot be fetched",
            ),
        ]
    },
    interspersed: true,
    count: (0, 0),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let unused_for = match args.value("max") {
        None => Duration::from_secs(24 * 3600),
        Some("0") => Duration::ZERO,
        Some(text) => duration(text)
            .and_then(|nanos| u64::try_from(nanos).ok())
            .map(Duration::from_nanos)
            .ok_or_else(|| {
                CliError::new(format!(
                    "invalid argument \"{text}\" for \"-m, --max\" flag: time: invalid duration \"{text}\""
                ))
            })?,
    };
    let check = Check { quick: args.is("quick"), unused_for };
    let found = engine.check(check)?;
    for finding in &found {
        output::line(match finding {
            Finding::Store(damage) => format!("Damaged {damage}"),
            Finding::Container(record, why) => format!("Damaged container {}: {why}", record.id),
        });
    }
    if found.is_empty() {
        return Ok(0);
    }
    if !args.is("repair") {
        return Err(CliError::new("damage detected in local storage").with_hint(format!(
            "{} system check --repair, which fetches damaged layers again",
            unroot_engine::program()
        )));
    }
    let cured = engine.repair(&found, args.is("force"), &Shown::new(false))?;
    cured.iter().for_each(output::line);
    match engine.check(check)?.is_empty() {
        true => Ok(0),
        false => Err(CliError::new("damage in local storage still present after repair attempt")
            .with_hint("--force removes what is damaged although containers use it, and these")),
    }
}
