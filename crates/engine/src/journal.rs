//! What a container with the log driver journald has printed, as journalctl(1) shows it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use unroot_monitor::log::{Line, ReadOptions, Reader, Stream, format_nanos};

use crate::error::{Context as _, Error, Result};
use crate::record::Record;

/// Reads it. `alive` says whether the container may still print.
pub fn read(
    record: &Record,
    options: &ReadOptions,
    alive: &mut dyn FnMut() -> bool,
    reader: &mut dyn Reader,
) -> Result<()> {
    let mut command = Command::new("journalctl");
    command.args(["--output=json", "--no-pager", "--quiet"]);
    command.arg(format!("CONTAINER_ID_FULL={}", record.id));
    let lines = options.tail.map_or("all".into(), |n| n.to_string());
    command.arg(format!("--lines={lines}"));
    let time = |nanos: i64| {
        format!("@{}.{:06}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000) / 1000)
    };
    command.args(options.since.map(|t| format!("--since={}", time(t))));
    command.args(options.until.filter(|_| !options.follow).map(|t| format!("--until={}", time(t))));
    command.args(options.follow.then_some("--follow"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(|| "journalctl".into())?;
    let result = show(&mut child, options, alive, reader);
    let _ = child.kill();
    let output = child.wait_with_output().context(|| "journalctl".into())?;
    result?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(code) if code != 0 && !said.trim().is_empty() => {
            Err(Error::engine(format_args!("journalctl: {}", said.trim())))
        }
        _ => Ok(()),
    }
}

fn show(
    child: &mut Child,
    options: &ReadOptions,
    alive: &mut dyn FnMut() -> bool,
    reader: &mut dyn Reader,
) -> Result<()> {
    let Some(out) = child.stdout.take() else { return Ok(()) };
    let (sender, receiver) = std::sync::mpsc::sync_channel(64);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for line in BufReader::new(out).lines().map_while(std::result::Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        loop {
            let ended = options.follow && !alive();
            match receiver.recv_timeout(Duration::from_millis(if ended { 500 } else { 100 })) {
                Ok(text) => {
                    let entry: Value = serde_json::from_str(&text).context(|| "journalctl".into())?;
                    if !give(&entry, options, reader) {
                        break;
                    }
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(_) => {
                    reader.idle();
                    let past = options.until.is_some_and(|until| unroot_monitor::log::now() > until);
                    if ended || (options.follow && past) {
                        break;
                    }
                }
            }
        }
        // (or the thread would read for ever)
        drop(receiver);
        let _ = child.kill();
        Ok(())
    })
}

fn give(entry: &Value, options: &ReadOptions, reader: &mut dyn Reader) -> bool {
    let field = |name: &str| entry.get(name).and_then(Value::as_str);
    let micros = field("__REALTIME_TIMESTAMP").and_then(|t| t.parse::<i64>().ok()).unwrap_or(0);
    if options.until.is_some_and(|until| micros * 1000 > until) {
        return false;
    }
    let mut text = match entry.get("MESSAGE") {
        Some(Value::String(text)) => text.clone().into_bytes(),
        // (what is no UTF-8 is a list of bytes)
        Some(Value::Array(bytes)) => bytes.iter().filter_map(|b| u8::try_from(b.as_u64()?).ok()).collect(),
        _ => return true,
    };
    let partial = field("CONTAINER_PARTIAL_MESSAGE") == Some("true");
    if !partial {
        text.push(b'\n');
    }
    let stream = if field("PRIORITY") == Some("3") { Stream::Stderr } else { Stream::Stdout };
    let time = format_nanos(micros * 1000);
    reader.line(&Line { time: &time, stream, text: text.into(), partial })
}
