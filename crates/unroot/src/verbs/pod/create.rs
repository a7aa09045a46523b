//! `pod create`

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::pod_flags;
use crate::progress::Shown;
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["pod create"],
    usage: "[options] [NAME]",
    about: "Create a pod: containers that share a network and more",
    flags: || {
        let mut flags = pod_flags::shared_flags(true);
        flags.extend([
            flag(
                "exit-policy",
                ' ',
                Kind::Value,
                "When the last container has ended the pod's own runs on or ends: continue, stop",
            ),
            flag(
                "infra",
                ' ',
                Kind::Bool,
                "Make an infra container, whose namespaces are shared (default true)",
            ),
            flag(
                "infra-image",
                ' ',
                Kind::Value,
                "Image of the infra container (default: our own program, without one)",
            ),
            flag("name", 'n', Kind::Value, "Name of the pod"),
            flag("pod-id-file", ' ', Kind::Value, "Write the pod's id to this file"),
            flag("replace", ' ', Kind::Bool, "Replace a pod of the same name"),
            flag(
                "share",
                ' ',
                Kind::Value,
                "Shared namespaces: cgroup, ipc, net, pid, uts, none; +NAME adds (default ipc,net,uts)",
            ),
            flag("share-parent", ' ', Kind::Bool, "Containers are in the pod's control group (default true)"),
        ]);
        flags
    },
    interspersed: false,
    count: (0, 1),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let (spec, infra) = pod_flags::specs(global, args)?;
    let engine = global.engine()?;
    let pod = engine.create_pod(spec, infra, &Default::default(), &Shown::new(true))?;
    if let Some(file) = args.value("pod-id-file") {
        std::fs::write(file, &pod.id).map_err(|e| {
            let _ = engine.remove_pod(&pod, true, None);
            CliError::new(format!(
                "failed to write pod ID to file: open {file}: {}",
                unroot_engine::plan::reason(&e)
            ))
        })?;
    }
    output::line(&pod.id);
    Ok(0)
}
