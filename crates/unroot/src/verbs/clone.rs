//! `container clone`

use unroot_engine::spec::{ContainerSpec, MountKind, Root};
use unroot_engine::{Engine, Record};

use crate::Global;
use crate::cli::{Args, CliError, Flag, Kind, Outcome, flag};
use crate::output;
use crate::progress::Shown;
use crate::run_flags;
use crate::verbs::Verb;
use crate::verbs::update::{LIMITS, merge};

pub const VERB: Verb = Verb {
    names: &["container clone"],
    usage: "[options] CONTAINER [NAME] [IMAGE]",
    about: "Make a container like another one",
    flags: || {
        let of_run = run_flags::all();
        let mut flags: Vec<Flag> = of_run.iter().copied().filter(|f| LIMITS.contains(&f.long)).collect();
        flags.extend([
            flag("destroy", ' ', Kind::Bool, "Remove the other one"),
            flag("force", 'f', Kind::Bool, "With --destroy: even if it runs"),
            flag("name", ' ', Kind::Value, "Its name (default NAME-clone)"),
            flag("pod", ' ', Kind::Value, "Make it a container of this pod"),
            flag("run", ' ', Kind::Bool, "Start it"),
        ]);
        flags
    },
    interspersed: true,
    count: (1, 3),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    if args.is("force") && !args.is("destroy") {
        return Err(CliError::new("cannot set --force without --destroy: invalid argument"));
    }
    let engine = global.engine()?;
    let old = engine.find(&args.rest[0])?;
    let mut spec = as_asked(&engine, &old);
    let mut asked = ContainerSpec::default();
    run_flags::fill_limits(&mut asked, args)?;
    merge(&mut spec.limits, asked.limits);
    if let Some(pod) = args.value("pod") {
        spec.pod = Some(pod.to_string());
    }
    if let Some(image) = args.rest.get(2) {
        spec.root = Root::Image(image.clone());
    }
    let name = args.rest.get(1).map(String::as_str).or(args.value("name"));
    // (its name may be the one that is wanted)
    let renamed = name.filter(|n| args.is("destroy") && *n == old.name);
    let given = name.filter(|_| renamed.is_none()).map(str::to_string);
    spec.name = Some(given.unwrap_or_else(|| free_name(&old.name, |name| engine.find(name).is_err())));
    let made = engine.create(spec, &run_flags::pull_options(args)?, &Shown::new(false))?;
    if args.is("destroy") {
        engine.remove(&old, args.is("force"), None, false)?;
    }
    if let Some(name) = renamed {
        engine.rename(&made.record, name)?;
    }
    if args.is("run") {
        engine.start(&made.record, made.image, false)?;
    }
    output::line(&made.record.id);
    Ok(0)
}

/// `NAME-clone`, `NAME-clone1`, ...
pub fn free_name(name: &str, is_free: impl Fn(&str) -> bool) -> String {
    let first = format!("{name}-clone");
    let further = (1..u32::MAX).map(|n| format!("{first}{n}"));
    std::iter::once(first.clone()).chain(further).find(|name| is_free(name)).unwrap_or(first)
}

/// What was asked for, without what was settled for that one container.
pub fn as_asked(engine: &Engine, old: &Record) -> ContainerSpec {
    let mut spec = old.spec.clone();
    engine.leave_pod(&mut spec);
    let own = engine.dirs.container(&old.id);
    let own = own.to_string_lossy();
    for mount in &mut spec.files.mounts {
        let used = old.volumes.iter().find(|v| v.target == mount.target && mount.kind == MountKind::Volume);
        if let Some(used) = used {
            mount.source = if used.anonymous { String::new() } else { used.name.clone() };
        }
        let of_old = |o: &String| {
            let value = o.strip_prefix("upperdir=").or_else(|| o.strip_prefix("workdir="));
            value.is_some_and(|path| path.starts_with(&*own)) || o.starts_with("image-id=")
        };
        mount.options.retain(|o| !of_old(o));
    }
    spec.files.volumes_from.clear();
    spec.replace = false;
    spec.life.cidfile = None;
    spec.life.pidfile = None;
    spec.life.monitor_pidfile = None;
    spec
}
