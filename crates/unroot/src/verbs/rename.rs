//! `rename`

use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["rename", "container rename"],
    usage: "CONTAINER NAME",
    about: "Give a container another name",
    flags: Vec::new,
    interspersed: true,
    count: (2, 2),
    run: |global, args| {
        let engine = global.engine()?;
        engine.rename(&engine.find(&args.rest[0])?, &args.rest[1])?;
        Ok(0)
    },
};
