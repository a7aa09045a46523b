//! `pod rm`

use unroot_engine::ErrorKind;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::selection::timeout;
use crate::verbs::{ANY, Verb};

use super::{ID_FILE, LATEST, several};

pub const VERB: Verb = Verb {
    names: &["pod rm"],
    usage: "[options] POD [POD...]",
    about: "Remove pods and their containers",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All pods"),
            flag(
                "force",
                'f',
                Kind::Bool,
                "Those whose containers run, too; one that is not there is no error",
            ),
            flag("ignore", 'i', Kind::Bool, "A pod that is not there is no error"),
            flag("time", 't', Kind::Value, "Seconds until a container that runs is killed"),
            ID_FILE,
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let force = args.is("force");
    let timeout = timeout(args)?;
    if timeout.is_some() && !force {
        return Err(CliError::new("--force option must be specified to use the --time option"));
    }
    let engine = global.engine()?;
    let mut args = args.clone();
    args.set_default("ignore", vec![force.to_string()]);
    let (pods, mut code) = (several(&engine, &args)?, 0);
    for pod in pods {
        let removed = pod.and_then(|pod| match engine.remove_pod(&pod, force, timeout) {
            // (somebody else was faster)
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(pod.id),
            other => other.map(|()| pod.id).map_err(CliError::from),
        });
        match removed {
            Ok(id) => crate::output::line(id),
            Err(error) => code = crate::report(&error),
        }
    }
    if code == 0 {
        args.all("pod-id-file").iter().for_each(|file| drop(std::fs::remove_file(file)));
    }
    engine.sweep()?;
    Ok(code)
}
