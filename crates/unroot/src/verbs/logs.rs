//! `logs`

use std::io::{BufWriter, Write};
use std::sync::mpsc::{SyncSender, sync_channel};

use unroot_engine::{Engine, Record, State, Status, journal};
use unroot_monitor::log::{Line, ReadOptions, Reader, Stream, read};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::moment::{self, Direction};
use crate::selection::{LATEST, several};
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["logs", "container logs"],
    usage: "[options] CONTAINER [CONTAINER...]",
    about: "Show what containers printed",
    flags: || {
        vec![
            flag("color", ' ', Kind::Bool, "Each container in a color of its own"),
            flag("follow", 'f', Kind::Bool, "Go on as more is printed"),
            flag("names", 'n', Kind::Bool, "Of several containers their names before lines, not their ids"),
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

fn moment(args: &Args, name: &str, direction: Direction) -> Result<Option<i64>, CliError> {
    let Some(text) = args.value(name) else { return Ok(None) };
    let time = moment::parse(text, direction);
    time.map(Some)
        .ok_or_else(|| CliError::new(format!("parsing --{name} \"{text}\": neither a time nor a duration")))
}

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let chosen = several(&engine, args)?.into_iter().map(|c| c.map(|(_, record)| record));
    show_all(&engine, chosen.collect::<Result<_, _>>()?, args)
}

/// Shows what these containers printed.
pub fn show_all(engine: &Engine, chosen: Vec<Record>, args: &Args) -> Outcome {
    let options = ReadOptions {
        tail: args.number::<i64>("tail")?.and_then(|n| usize::try_from(n).ok()),
        since: moment(args, "since", Direction::Past)?,
        until: moment(args, "until", Direction::Future)?,
        follow: args.is("follow"),
    };
    let mut records = Vec::new();
    for record in chosen {
        match record.spec.log.driver.as_deref() {
            Some(driver @ ("none" | "passthrough" | "passthrough-tty")) => {
                return Err(CliError::new(format!(
                    "this container is using the '{driver}' log driver, cannot read logs: this container is not logging output"
                )));
            }
            _ => records.push(record),
        }
    }
    let several = records.len() > 1;
    let prefixes: Vec<Prefix> =
        records.iter().enumerate().map(|(n, r)| Prefix::new(n, r, args, several)).collect();
    let mut out = Output::new()?;
    if several && options.follow {
        return follow_all(engine, &records, prefixes, &options, &mut out);
    }
    for (record, mut prefix) in records.iter().zip(prefixes) {
        let mut shown = Shown { prefix: &mut prefix, out: &mut out };
        show(engine, record, &options, &mut shown)?;
        out.flush();
    }
    Ok(0)
}

fn show(
    engine: &Engine,
    record: &Record,
    options: &ReadOptions,
    reader: &mut dyn Reader,
) -> Result<(), CliError> {
    let mut alive = || {
        State::observe(&engine.dirs, &record.id)
            .is_ok_and(|s| s.is_live() || matches!(s.status, Status::Created | Status::Restarting))
    };
    if record.spec.log.driver.as_deref() == Some("journald") {
        return Ok(journal::read(record, options, &mut alive, reader)?);
    }
    let path = engine.log_path(record);
    read(&path, options, alive, reader)
        .map_err(|e| CliError::new(format!("read {}: {}", path.display(), unroot_engine::plan::reason(&e))))
}

/// All at once, a thread for each; lines come as they come.
fn follow_all(
    engine: &Engine,
    records: &[Record],
    prefixes: Vec<Prefix>,
    options: &ReadOptions,
    out: &mut Output,
) -> Outcome {
    let (sender, receiver) = sync_channel::<(Stream, Vec<u8>)>(256);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (record, mut prefix) in records.iter().zip(prefixes) {
            let sender = sender.clone();
            threads.push(
                scope.spawn(move || show(engine, record, options, &mut Sent { prefix: &mut prefix, sender })),
            );
        }
        drop(sender);
        for (stream, text) in receiver {
            if !(out.write(stream, &text) && out.flush()) {
                break;
            }
        }
        threads.into_iter().try_for_each(|t| t.join().unwrap_or(Ok(())))
    })?;
    Ok(0)
}

/// What stands before a line.
struct Prefix {
    who: String,
    times: bool,
    color: Option<&'static str>,
    /// The last line has ended: of standard output, of standard error.
    begun: [bool; 2],
}

const COLORS: [&str; 6] = ["\x1b[37m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[35m"];

impl Prefix {
    fn new(n: usize, record: &Record, args: &Args, several: bool) -> Self {
        let who = match (several, args.is("names")) {
            (false, _) => String::new(),
            (true, true) => format!("{} ", record.name),
            (true, false) => format!("{} ", record.short_id()),
        };
        let color = args.is("color").then(|| COLORS[n % COLORS.len()]);
        Self { who, times: args.is("timestamps"), color, begun: [true; 2] }
    }

    fn apply(&mut self, line: &Line<'_>, text: &mut Vec<u8>) {
        text.clear();
        text.extend(self.color.unwrap_or_default().bytes());
        let begun = &mut self.begun[usize::from(line.stream == Stream::Stderr)];
        if *begun {
            text.extend(self.who.bytes());
            if self.times {
                text.extend(line.time.bytes());
                text.push(b' ');
            }
        }
        *begun = line.text.last() == Some(&b'\n');
        text.extend_from_slice(&line.text);
        if self.color.is_some() {
            let ended = text.last() == Some(&b'\n');
            text.truncate(text.len() - usize::from(ended));
            text.extend(b"\x1b[0m");
            text.extend(ended.then_some(b'\n'));
        }
    }
}

/// Standard output and error, in big pieces.
struct Output {
    out: BufWriter<std::fs::File>,
    text: Vec<u8>,
}

impl Output {
    fn new() -> Result<Self, CliError> {
        use std::os::fd::AsFd as _;
        // (standard output itself is written line by line)
        let copy = std::io::stdout().as_fd().try_clone_to_owned();
        let copy = copy.map_err(|e| CliError::new(format!("dup of standard output: {e}")))?;
        Ok(Self { out: BufWriter::with_capacity(256 << 10, copy.into()), text: Vec::new() })
    }

    /// False if nobody reads it any more.
    fn write(&mut self, stream: Stream, text: &[u8]) -> bool {
        match stream {
            Stream::Stdout => self.out.write_all(text).is_ok(),
            Stream::Stderr => self.flush() && std::io::stderr().write_all(text).is_ok(),
        }
    }

    fn flush(&mut self) -> bool {
        self.out.flush().is_ok()
    }
}

struct Shown<'a> {
    prefix: &'a mut Prefix,
    out: &'a mut Output,
}

impl Reader for Shown<'_> {
    fn line(&mut self, line: &Line<'_>) -> bool {
        let mut text = std::mem::take(&mut self.out.text);
        self.prefix.apply(line, &mut text);
        let written = self.out.write(line.stream, &text);
        self.out.text = text;
        written
    }

    fn idle(&mut self) {
        self.out.flush();
    }
}

struct Sent<'a> {
    prefix: &'a mut Prefix,
    sender: SyncSender<(Stream, Vec<u8>)>,
}

impl Reader for Sent<'_> {
    fn line(&mut self, line: &Line<'_>) -> bool {
        let mut text = Vec::new();
        self.prefix.apply(line, &mut text);
        self.sender.send((line.stream, text)).is_ok()
    }
}
