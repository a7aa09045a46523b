//! `pod exists`: exit code 0 or 1, and nothing said.

use unroot_engine::ErrorKind;

use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["pod exists"],
    usage: "POD",
    about: "Is there such a pod",
    flags: Vec::new,
    interspersed: true,
    count: (1, 1),
    run: |global, args| match global.engine()?.find_pod(&args.rest[0]) {
        Ok(_) => Ok(0),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(1),
        Err(e) => Err(e.into()),
    },
};
