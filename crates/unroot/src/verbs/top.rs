//! `top`

use unroot_engine::top::DESCRIPTORS;

use crate::cli::{Kind, Outcome, flag};
use crate::output;
use crate::selection::LATEST;
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["top", "container top"],
    usage: "[options] CONTAINER [DESCRIPTOR...]",
    about: "Show the processes of a container, from inside and from outside",
    flags: || vec![LATEST, flag("list-descriptors", ' ', Kind::Bool, "List what can be shown")],
    interspersed: false,
    count: (0, ANY),
    run: |global, args| -> Outcome {
        if args.is("list-descriptors") {
            DESCRIPTORS.iter().for_each(|(name, _)| output::line(name));
            return Ok(0);
        }
        let engine = global.engine()?;
        let (record, descriptors) = match args.is("latest") {
            true => (unroot_engine::record::latest(&engine.dirs)?, &args.rest[..]),
            false => (crate::selection::one(&engine, args)?, args.rest.get(1..).unwrap_or_default()),
        };
        if descriptors.first().is_some_and(|d| d.starts_with('-') || d == "aux") {
            // (the container's own ps, as Podman does with arguments for it)
            let command = ["ps".to_string()].into_iter().chain(descriptors.iter().cloned()).collect();
            let spec = unroot_engine::exec::ExecSpec {
                command,
                user: Some("0".into()),
                ..unroot_engine::exec::ExecSpec::default()
            };
            return match engine.exec(&record, &spec)? {
                unroot_monitor::attach::Outcome::Exited(code) => Ok(code as u8),
                _ => Ok(0),
            };
        }
        let (headings, rows) = engine.top(&record, descriptors)?;
        output::table(Some(headings), rows);
        Ok(0)
    },
};
