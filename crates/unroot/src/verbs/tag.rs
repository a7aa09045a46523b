//! `tag`, `untag`

use crate::cli::{CliError, Outcome};
use crate::verbs::load::full_name;
use crate::verbs::{ANY, Verb};

pub const TAG: Verb = Verb {
    names: &["tag", "image tag"],
    usage: "IMAGE NAME [NAME...]",
    about: "Give an image more names",
    flags: Vec::new,
    interspersed: true,
    count: (2, ANY),
    run: |global, args| -> Outcome {
        let engine = global.engine()?;
        let image = engine.image(&args.rest[0])?.image;
        engine.enter()?;
        for name in &args.rest[1..] {
            engine.store.tag(&image.id, &full_name(name)?).map_err(CliError::new)?;
            engine.dirs.events.image("tag", &image.id, name);
        }
        Ok(0)
    },
};

pub const UNTAG: Verb = Verb {
    names: &["untag", "image untag"],
    usage: "IMAGE [NAME...]",
    about: "Take names from an image",
    flags: Vec::new,
    interspersed: true,
    count: (1, ANY),
    run: |global, args| -> Outcome {
        let engine = global.engine()?;
        let image = engine.image(&args.rest[0])?.image;
        engine.enter()?;
        let own = engine.names_of(&image.id);
        let names = match &args.rest[1..] {
            [] => own.clone(),
            given => given.iter().map(|n| full_name(n)).collect::<Result<Vec<_>, _>>()?,
        };
        for name in names {
            if !own.contains(&name) {
                return Err(CliError::new(format!("{name}: tag not known")));
            }
            engine.store.untag(&name).map_err(CliError::new)?;
            engine.dirs.events.image("untag", &image.id, &name);
        }
        Ok(0)
    },
};
