//! `exec`

use unroot_engine::exec::ExecSpec;
use unroot_monitor::attach::Outcome as Attached;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::run_flags::{environment, preserved_fds};
use crate::selection::LATEST;
use crate::verbs::run::detach_keys;
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["exec", "container exec"],
    usage: "[options] CONTAINER COMMAND [ARG...]",
    about: "Run a command in a running container",
    flags: || {
        vec![
            flag("cidfile", ' ', Kind::Value, "Read the container's id from this file"),
            flag("detach", 'd', Kind::Bool, "Do not wait for the command"),
            flag("detach-keys", ' ', Kind::Value, "Keys that detach"),
            flag("env", 'e', Kind::Repeat, "Set an environment variable"),
            flag("env-file", ' ', Kind::Repeat, "Read environment variables from a file"),
            flag("interactive", 'i', Kind::Bool, "Hand standard input on"),
            flag("preserve-fd", ' ', Kind::List, "Hand on these descriptors"),
            flag("preserve-fds", ' ', Kind::Value, "Hand on so many descriptors from 3 on"),
            flag("privileged", ' ', Kind::Bool, "All capabilities, and no filter"),
            flag("tty", 't', Kind::Bool, "Give it a terminal"),
            flag("user", 'u', Kind::Value, "USER[:GROUP] by name or number"),
            flag("workdir", 'w', Kind::Value, "Working directory"),
            LATEST,
        ]
    },
    interspersed: false,
    count: (0, ANY),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let mut words = args.rest.iter();
    let record = match (args.is("latest"), args.value("cidfile")) {
        (true, _) => unroot_engine::record::latest(&engine.dirs)?,
        (_, Some(file)) => {
            let text = std::fs::read_to_string(file).map_err(|e| {
                CliError::new(format!("reading CIDFile: open {file}: {}", unroot_engine::plan::reason(&e)))
            })?;
            engine.find(text.trim())?
        }
        _ => engine.find(words.next().ok_or_else(|| {
            CliError::new("exec requires the name or ID of a container or the --latest or --cidfile flag")
        })?)?,
    };
    let command: Vec<String> = words.cloned().collect();
    if command.is_empty() {
        return Err(CliError::new(
            "must provide a non-empty command to start an exec session: invalid argument",
        ));
    }
    let spec = ExecSpec {
        session: unroot_engine::names::new_id()?,
        command,
        env: environment(args)?,
        user: args.value("user").filter(|u| !u.is_empty()).map(str::to_string),
        workdir: args.value("workdir").map(str::to_string),
        terminal: args.is("tty"),
        interactive: args.is("interactive"),
        detach: args.is("detach"),
        privileged: args.is("privileged")
            || global.conf()?.text("containers", "privileged")?.as_deref() == Some("true"),
        preserved_fds: preserved_fds(args)?,
        detach_keys: detach_keys(args)?,
    };
    match engine.exec(&record, &spec)? {
        Attached::Exited(code) => Ok(code as u8),
        Attached::Detached => {
            if spec.detach {
                output::line(&spec.session);
            }
            Ok(0)
        }
        Attached::Broken => Ok(141),
    }
}
