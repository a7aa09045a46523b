//! Reading a log again: the last lines, from a time on, and as it grows.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Stream;
use super::time::parse_time;
use super::write::rotated;

/// Which part of a log.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// Only the last lines.
    pub tail: Option<usize>,
    /// Not before, nanoseconds since the epoch.
    pub since: Option<i64>,
    /// Not after.
    pub until: Option<i64>,
    /// Goes on as the log grows.
    pub follow: bool,
}

/// A line that was printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub time: String,
    /// Where.
    pub stream: Stream,
    /// The text, with its end of line unless the log's is missing.
    pub text: Vec<u8>,
    partial: bool,
}

/// Takes lines; false ends the reading.
pub trait Reader {
    /// A line.
    fn line(&mut self, line: &Line) -> bool;
}

impl<F: FnMut(&Line) -> bool> Reader for F {
    fn line(&mut self, line: &Line) -> bool {
        self(line)
    }
}

fn parse(raw: &[u8]) -> Option<Line> {
    if raw.first() == Some(&b'{') {
        return parse_json(raw);
    }
    let mut parts = raw.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?.to_string();
    let stream = if parts.next()? == b"stderr" { Stream::Stderr } else { Stream::Stdout };
    let partial = parts.next()? == b"P";
    let mut text = parts.next()?.to_vec();
    if partial && text.last() == Some(&b'\n') {
        text.pop();
    }
    Some(Line { time, stream, text, partial })
}

/// Docker's form, as our writer has it.
fn parse_json(raw: &[u8]) -> Option<Line> {
    let text = std::str::from_utf8(raw).ok()?;
    let field = |name: &str| {
        let start = text.find(&format!("\"{name}\":\""))? + name.len() + 4;
        let mut out = String::new();
        let mut chars = text[start..].chars();
        loop {
            match chars.next()? {
                '"' => return Some(out),
                '\\' => match chars.next()? {
                    'n' => out.push('\n'),
                    't' => out.push('\t'),
                    'r' => out.push('\r'),
                    'u' => {
                        let code: String = chars.by_ref().take(4).collect();
                        out.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
                    }
                    c => out.push(c),
                },
                c => out.push(c),
            }
        }
    };
    let log = field("log")?;
    let stream = if field("stream")? == "stderr" { Stream::Stderr } else { Stream::Stdout };
    Some(Line { time: field("time")?, stream, partial: !log.ends_with('\n'), text: log.into_bytes() })
}

/// Reads a log. `alive` says whether the container may still print; with `follow` the reading ends when it may not.
pub fn read(
    path: &Path,
    options: &ReadOptions,
    mut alive: impl FnMut() -> bool,
    reader: &mut dyn Reader,
) -> io::Result<()> {
    let mut sources: Vec<PathBuf> = vec![rotated(path), path.into()];
    sources.retain(|p| p.exists());
    let mut state = State { options, reader, done: false };
    if options.tail == Some(0) {
        sources.clear();
    }
    let skip = match options.tail {
        Some(tail) => count_lines(&sources)?.saturating_sub(tail),
        None => 0,
    };
    let mut lines = 0;
    let mut position =
        if options.tail == Some(0) { std::fs::metadata(path).map_or(0, |m| m.len()) } else { 0 };
    for source in &sources {
        let mut file = BufReader::new(File::open(source)?);
        let mut raw = Vec::new();
        position = 0;
        while !state.done && file.read_until(b'\n', &mut raw)? > 0 {
            if raw.last() != Some(&b'\n') {
                break; // being written
            }
            position += raw.len() as u64;
            if let Some(line) = parse(&raw) {
                if lines >= skip {
                    state.give(&line);
                }
                lines += usize::from(!line.partial);
            }
            raw.clear();
        }
    }
    if options.follow && !state.done {
        follow(path, position, &mut state, &mut alive)?;
    }
    Ok(())
}

struct State<'a> {
    options: &'a ReadOptions,
    reader: &'a mut dyn Reader,
    done: bool,
}

impl State<'_> {
    fn give(&mut self, line: &Line) {
        let time = parse_time(&line.time);
        let before = |bound: Option<i64>| bound.zip(time).is_some_and(|(bound, time)| time < bound);
        let after = |bound: Option<i64>| bound.zip(time).is_some_and(|(bound, time)| time > bound);
        if before(self.options.since) {
            return;
        }
        if after(self.options.until) || !self.reader.line(line) {
            self.done = true;
        }
    }
}

fn count_lines(sources: &[PathBuf]) -> io::Result<usize> {
    let mut lines = 0;
    for source in sources {
        let mut file = BufReader::with_capacity(1 << 18, File::open(source)?);
        let mut raw = Vec::new();
        let mut open = false;
        while file.read_until(b'\n', &mut raw)? > 0 {
            if let Some(line) = parse(&raw) {
                open = line.partial;
                lines += usize::from(!line.partial);
            }
            raw.clear();
        }
        lines += usize::from(open);
    }
    Ok(lines)
}

/// Goes on as the file grows, or is rotated.
fn follow(
    path: &Path,
    mut position: u64,
    state: &mut State<'_>,
    alive: &mut dyn FnMut() -> bool,
) -> io::Result<()> {
    let mut rest = Vec::new();
    while !state.done {
        // asked before the last read, so that nothing printed before the end is missed
        let ended = !alive();
        if let Ok(mut file) = File::open(path) {
            if file.metadata()?.len() < position {
                position = 0;
            }
            file.seek(SeekFrom::Start(position))?;
            position += file.read_to_end(&mut rest)? as u64;
        }
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let raw: Vec<u8> = rest.drain(..=end).collect();
            if let Some(line) = parse(&raw)
                && !state.done
            {
                state.give(&line);
            }
        }
        let past = state.options.until.is_some_and(|until| super::time::now() > until);
        if ended || past {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Driver, Writer};
    use super::*;

    fn all(path: &Path, options: &ReadOptions) -> String {
        let mut text = Vec::new();
        read(path, options, || false, &mut |line: &Line| {
            text.extend(&line.text);
            true
        })
        .unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = std::env::temp_dir().join(format!("unroot-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for driver in [Driver::K8sFile, Driver::JsonFile] {
            let path = dir.join(format!("{driver:?}"));
            let mut log = Writer::open(driver, &path, None).unwrap();
            log.write(Stream::Stdout, b"one\ntwo \"quoted\"\\\nthr");
            log.write(Stream::Stdout, b"ee\n");
            log.write(Stream::Stderr, b"last");
            assert_eq!(all(&path, &ReadOptions::default()), "one\ntwo \"quoted\"\\\nthree\nlast");
            let tail = |n| ReadOptions { tail: Some(n), ..ReadOptions::default() };
            assert_eq!(all(&path, &tail(2)), "three\nlast");
            assert_eq!(all(&path, &tail(0)), "");
            let later = ReadOptions { since: Some(super::super::now() + 1), ..ReadOptions::default() };
            assert_eq!(all(&path, &later), "");
        }
        let path = dir.join("rotated");
        let mut log = Writer::open(Driver::K8sFile, &path, Some(200)).unwrap();
        for n in 0..6 {
            log.write(Stream::Stdout, format!("line {n}\n").as_bytes());
        }
        assert_eq!(
            all(&path, &ReadOptions::default()),
            (0..6).map(|n| format!("line {n}\n")).collect::<String>()
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
