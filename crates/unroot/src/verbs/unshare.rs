//! `unshare`

use std::os::unix::process::CommandExt as _;

use unroot_idmap::engine::{GID_VARIABLE, UID_VARIABLE};

use crate::cli::{CliError, Outcome};
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["unshare"],
    usage: "[COMMAND [ARG...]]",
    about: "Run a command in the engine's user namespace, with mounts of its own",
    flags: Vec::new,
    interspersed: false,
    count: (0, ANY),
    run: |global, args| -> Outcome {
        let engine = global.engine()?;
        if !engine.user.is_rootless() {
            return Err(CliError::new("please use unshare with rootless"));
        }
        engine.enter()?;
        // (images and volumes can be mounted in there)
        engine.unshare_mounts()?;
        let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into());
        let (program, rest) = args.rest.split_first().map_or((&shell, &[][..]), |(p, r)| (p, r));
        let error = std::process::Command::new(program)
            .args(rest)
            .env(UID_VARIABLE, engine.user.uid.to_string())
            .env(GID_VARIABLE, engine.user.gid.to_string())
            .exec();
        let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
        Err(CliError::with_code(code, format!("exec {program}: {}", unroot_engine::plan::reason(&error))))
    },
};
