//! `logs`

use std::io::Write as _;

use unroot_engine::State;
use unroot_monitor::log::{ReadOptions, Stream, now, parse_time, read};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output::duration;
use crate::selection::{LATEST, several};
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["logs", "container logs"],
    usage: "[options] CONTAINER [CONTAINER...]",
    about: "Show what containers printed",
    flags: || {
        vec![
            flag("follow", 'f', Kind::Bool, "Go on as more is printed"),
            flag("names", 'n', Kind::Bool, "The container's name before each line"),
            flag("since", ' ', Kind::Value, "From this time on, or so long ago"),
            flag("tail", ' ', Kind::Value, "The last lines; -1 is all"),
            flag("timestamps", 't', Kind::Bool, "The time before each line"),
            flag("until", ' ', Kind::Value, "Until this time"),
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run,
};

fn moment(args: &Args, name: &str) -> Result<Option<i64>, CliError> {
    let Some(text) = args.value(name) else { return Ok(None) };
    let absolute = parse_time(text).or_else(|| text.parse::<f64>().ok().map(|s| (s * 1e9) as i64));
    let relative = || duration(text).map(|seconds| now() - seconds as i64 * 1_000_000_000);
    absolute
        .filter(|_| !text.ends_with(['s', 'm', 'h']))
        .or_else(relative)
        .map(Some)
        .ok_or_else(|| CliError::new(format!("parsing --{name} \"{text}\": neither a time nor a duration")))
}

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let tail = args.number::<i64>("tail")?.and_then(|n| usize::try_from(n).ok());
    let options = ReadOptions {
        tail,
        since: moment(args, "since")?,
        until: moment(args, "until")?,
        follow: args.is("follow"),
    };
    for container in several(&engine, args)? {
        let (_, record) = container?;
        if record.spec.log.driver.as_deref() == Some("none") {
            return Err(CliError::new(
                "this container is using the 'none' log driver, cannot read logs: this container is not logging output",
            ));
        }
        let alive = || {
            State::observe(&engine.dirs, &record.id)
                .is_ok_and(|s| s.is_live() || s.status == unroot_engine::Status::Created)
        };
        let mut begun = true;
        let mut show = |line: &unroot_monitor::log::Line| {
            let mut text = Vec::new();
            if begun && args.is("names") {
                text.extend(format!("{} ", record.name).bytes());
            }
            if begun && args.is("timestamps") {
                text.extend(format!("{} ", line.time).bytes());
            }
            text.extend(&line.text);
            begun = line.text.last() == Some(&b'\n');
            let written = match line.stream {
                Stream::Stdout => std::io::stdout().write_all(&text),
                Stream::Stderr => std::io::stderr().write_all(&text),
            };
            written.is_ok()
        };
        let path = engine.log_path(&record);
        read(&path, &options, alive, &mut show)
            .map_err(|e| CliError::new(format!("read {}: {e}", path.display())))?;
    }
    Ok(0)
}
