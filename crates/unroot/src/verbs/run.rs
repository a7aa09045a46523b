//! `run`

use std::io::IsTerminal as _;

use unroot_engine::{Engine, Record};
use unroot_monitor::attach::{Options, Outcome as Attached, run as attach};
use unroot_monitor::terminal::DetachKeys;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::pod_flags;
use crate::progress::Shown;
use crate::run_flags;
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["run", "container run"],
    usage: "[options] IMAGE [COMMAND [ARG...]]",
    about: "Run a command in a new container",
    flags: || {
        let mut flags = run_flags::all();
        flags.extend([
            flag("attach", 'a', Kind::List, "Show only these: stdin, stdout, stderr"),
            flag("detach", 'd', Kind::Bool, "Do not wait for the container"),
            flag("detach-keys", ' ', Kind::Value, "Keys that detach (default ctrl-p,ctrl-q)"),
            flag("preserve-fd", ' ', Kind::List, "Hand on these descriptors"),
            flag("preserve-fds", ' ', Kind::Value, "Hand on so many descriptors from 3 on"),
            flag("rmi", ' ', Kind::Bool, "Remove the image afterwards"),
            flag("sig-proxy", ' ', Kind::Bool, "Hand signals on to the container (default true)"),
        ]);
        flags
    },
    interspersed: false,
    count: (1, ANY),
    run,
};

/// The keys that detach.
pub fn detach_keys(args: &Args) -> Result<DetachKeys, CliError> {
    DetachKeys::parse(args.value("detach-keys").unwrap_or("ctrl-p,ctrl-q")).map_err(CliError::new)
}

fn run(global: &Global, args: &Args) -> Outcome {
    let args = &pod_flags::fill(global.conf()?, args)?;
    let mut spec = run_flags::spec(args, "run")?;
    global.complete(&mut spec)?;
    let keys = detach_keys(args)?;
    let detach = args.is("detach");
    if args.is("rmi") {
        if args.given_bool("rm") == Some(false) {
            return Err(CliError::new("the --rmi option does not work without --rm"));
        }
        spec.remove = true;
        spec.life.remove_image = true;
    }
    let streams = ["stdin", "stdout", "stderr"];
    if let Some(other) =
        args.all("attach").iter().find(|a| !streams.iter().any(|s| a.eq_ignore_ascii_case(s)))
    {
        return Err(CliError::new(format!(
            "invalid stream {other:?} for --attach - must be one of stdin, stdout, or stderr: invalid argument"
        )));
    }
    let passthrough = spec.log.driver.as_deref() == Some("passthrough");
    if passthrough && spec.process.terminal {
        return Err(CliError::new("the '--log-driver passthrough' option cannot be used with '--tty'"));
    }
    if spec.process.terminal && spec.process.interactive && !detach && !std::io::stdin().is_terminal() {
        unroot_engine::warn(format_args!(
            "The input device is not a TTY. The --tty and --interactive flags might not work properly"
        ));
    }
    let engine = global.engine()?;
    let options = run_flags::pull_options(args)?;
    let shown = Shown::new(args.is("quiet"));
    let existing = spec.pod.as_deref().filter(|p| !p.starts_with("new:"));
    let approached = engine.approach_pod(existing)?;
    super::load::for_container(&engine, &mut spec.root, &shown)?;
    let made = pod_flags::make_new(global, &engine, &mut spec)?;
    let created = engine.create(spec, &options, &shown);
    let created = created.inspect_err(|_| drop(made.map(|pod| engine.remove_pod(&pod, false, None))))?;
    let record = created.record;
    let image = created.image;
    let started = engine.start(&record, image, !detach && !passthrough);
    drop(approached);
    let socket = match started {
        Ok(socket) => socket,
        Err(error) => {
            // a foreground container that could not start leaves nothing behind with --rm
            if record.spec.remove {
                let _ = engine.remove(&record, true, Some(0), true);
            }
            return Err(error.into());
        }
    };
    if detach {
        output::line(&record.id);
        crate::hints::after_detaching(&engine, &record);
        return Ok(0);
    }
    let only = args.all("attach");
    if !only.is_empty() && only.iter().all(|a| a.eq_ignore_ascii_case("stdin")) {
        output::line(&record.id);
    }
    let code = follow(&engine, &record, socket, args, keys)?;
    if code != 0 {
        for text in engine.denied_binds(&record).unwrap_or_default() {
            unroot_engine::say(format_args!("hint: {text}"));
        }
    }
    if args.is("rmi")
        && let Some(image) = &record.image
        && engine.store.image_by_id(&image.id).map_err(CliError::new)?.is_some()
    {
        unroot_engine::warn(format_args!("--rmi: {}: image is in use by a container", image.name));
    }
    Ok(code)
}

/// Goes along with a container until it ends or the user detaches.
pub fn follow(
    engine: &Engine,
    record: &Record,
    socket: std::os::unix::net::UnixStream,
    args: &Args,
    detach_keys: DetachKeys,
) -> Outcome {
    let forward = |signal: i32| {
        let _ = unroot_engine::stop::kill(&engine.dirs, record, signal);
    };
    let only = args.all("attach");
    let wants = |name: &str| only.is_empty() || only.iter().any(|a| a.eq_ignore_ascii_case(name));
    let proxies = args.given_bool("sig-proxy").unwrap_or(true) && !record.spec.process.terminal;
    let options = Options {
        stdin: record.spec.process.interactive && wants("stdin") && !args.is("no-stdin"),
        terminal: record.spec.process.terminal,
        stdout: wants("stdout"),
        stderr: wants("stderr"),
        detach_keys,
        forward: proxies.then_some(&forward),
    };
    match attach(socket, options) {
        Ok(Attached::Exited(code)) => Ok(code as u8),
        Ok(Attached::Detached) => Ok(0),
        Ok(Attached::Broken) => Ok(141),
        Err(error) => Err(CliError::new(format!("container {}: {error}", record.name))),
    }
}
