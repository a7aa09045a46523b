//! `container exists`, `image exists`, `volume exists`: exit code 0 or 1, and nothing said.

use unroot_engine::ErrorKind;

use crate::cli::{CliError, Kind, flag};
use crate::verbs::Verb;

pub const CONTAINER: Verb = Verb {
    names: &["container exists"],
    usage: "CONTAINER",
    about: "Is there such a container",
    flags: || vec![flag("external", ' ', Kind::Bool, "Those of other tools, too: there are none")],
    interspersed: true,
    count: (1, 1),
    run: |global, args| match global.engine()?.find(&args.rest[0]) {
        Ok(_) => Ok(0),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(1),
        Err(e) => Err(e.into()),
    },
};

pub const IMAGE: Verb = Verb {
    names: &["image exists"],
    usage: "IMAGE",
    about: "Is there such an image",
    flags: Vec::new,
    interspersed: true,
    count: (1, 1),
    run: |global, args| Ok(u8::from(global.engine()?.local_image(&args.rest[0])?.is_none())),
};

pub const VOLUME: Verb = Verb {
    names: &["volume exists"],
    usage: "VOLUME",
    about: "Is there such a volume",
    flags: Vec::new,
    interspersed: true,
    count: (1, 1),
    run: |global, args| {
        let found = global.engine()?.store.volumes().get(&args.rest[0]).map_err(CliError::new)?;
        Ok(u8::from(found.is_none()))
    },
};
