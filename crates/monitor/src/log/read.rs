//! Reading a log again: the last lines, from a time on, and as it grows. What was rotated away is read first.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Stream;
use super::time::parse_time;
use super::write::{compressed, numbered};

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
pub struct Line<'a> {
    /// When.
    pub time: &'a str,
    /// Where.
    pub stream: Stream,
    /// The text, with its end of line unless the log's is missing.
    pub text: Cow<'a, [u8]>,
    /// It goes on in the next one.
    pub partial: bool,
}

/// Takes lines.
pub trait Reader {
    /// A line; false ends the reading.
    fn line(&mut self, line: &Line<'_>) -> bool;
    /// No more has come so far.
    fn idle(&mut self) {}
}

impl<F: FnMut(&Line<'_>) -> bool> Reader for F {
    fn line(&mut self, line: &Line<'_>) -> bool {
        self(line)
    }
}

fn parse(raw: &[u8]) -> Option<Line<'_>> {
    if raw.first() == Some(&b'{') {
        return parse_json(raw);
    }
    let mut parts = raw.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = if parts.next()? == b"stderr" { Stream::Stderr } else { Stream::Stdout };
    let partial = parts.next()? == b"P";
    let text = parts.next()?;
    let text = if partial { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
    Some(Line { time, stream, text: text.into(), partial })
}

/// Docker's form, as our writer has it.
fn parse_json(raw: &[u8]) -> Option<Line<'_>> {
    let text = std::str::from_utf8(raw).ok()?;
    let start = |name: &str| Some(text.find(&format!("\"{name}\":\""))? + name.len() + 4);
    let plain = |name: &str| {
        let rest = text.get(start(name)?..)?;
        rest.split('"').next()
    };
    let mut log = String::new();
    let mut chars = text[start("log")?..].chars();
    loop {
        match chars.next()? {
            '"' => break,
            '\\' => match chars.next()? {
                'n' => log.push('\n'),
                't' => log.push('\t'),
                'r' => log.push('\r'),
                'u' => {
                    let code: String = chars.by_ref().take(4).collect();
                    log.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
                }
                c => log.push(c),
            },
            c => log.push(c),
        }
    }
    // (what the container prints may look like fields: they come after it)
    let rest = chars.as_str();
    let after = |name: &str| {
        let at = rest.find(&format!("\"{name}\":\""))? + name.len() + 4;
        rest.get(at..)?.split('"').next()
    };
    let stream = if after("stream").or_else(|| plain("stream"))? == "stderr" {
        Stream::Stderr
    } else {
        Stream::Stdout
    };
    let time = after("time").or_else(|| plain("time"))?;
    Some(Line { time, stream, partial: !log.ends_with('\n'), text: log.into_bytes().into() })
}

/// A file of a log.
enum Source {
    Plain(PathBuf),
    Compressed(PathBuf),
}

/// The files of a log, the oldest first.
fn sources(path: &Path) -> Vec<Source> {
    let mut all = Vec::new();
    for n in 1.. {
        let (plain, packed) = (numbered(path, n), compressed(path, n));
        match (plain.exists(), packed.exists()) {
            (true, _) => all.push(Source::Plain(plain)),
            (false, true) => all.push(Source::Compressed(packed)),
            _ => break,
        }
    }
    all.reverse();
    if path.exists() {
        all.push(Source::Plain(path.into()));
    }
    all
}

/// Reads a log. `alive` says whether the container may still print; with `follow` the reading ends when it may not.
pub fn read(
    path: &Path,
    options: &ReadOptions,
    mut alive: impl FnMut() -> bool,
    reader: &mut dyn Reader,
) -> io::Result<()> {
    let mut state = State { options, reader, done: false };
    let sources = sources(path);
    let (first, mut start) = match options.tail {
        Some(tail) => tail_start(&sources, tail)?,
        None => (0, 0),
    };
    let mut position = 0;
    for source in sources.iter().skip(first) {
        position = match source {
            Source::Plain(path) => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(start))?;
                start + state.lines(&mut BufReader::with_capacity(256 << 10, file))?
            }
            Source::Compressed(path) => {
                let mut file = BufReader::new(flate2::read::GzDecoder::new(File::open(path)?));
                io::copy(&mut (&mut file).take(start), &mut io::sink())?;
                state.lines(&mut file)?
            }
        };
        start = 0;
    }
    if first >= sources.len() {
        position = std::fs::metadata(path).map_or(0, |m| m.len());
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
    fn give(&mut self, line: &Line<'_>) {
        if self.options.since.is_some() || self.options.until.is_some() {
            let time = parse_time(line.time);
            let before = |bound: Option<i64>| bound.zip(time).is_some_and(|(bound, time)| time < bound);
            let after = |bound: Option<i64>| bound.zip(time).is_some_and(|(bound, time)| time > bound);
            if before(self.options.since) {
                return;
            }
            self.done = after(self.options.until);
        }
        self.done = self.done || !self.reader.line(line);
    }

    /// Gives whole lines until the end; how many bytes they were.
    fn lines(&mut self, source: &mut dyn BufRead) -> io::Result<u64> {
        let (mut raw, mut position) = (Vec::new(), 0);
        while !self.done && source.read_until(b'\n', &mut raw)? > 0 {
            if raw.last() != Some(&b'\n') {
                break; // being written
            }
            position += raw.len() as u64;
            if let Some(line) = parse(&raw) {
                self.give(&line);
            }
            raw.clear();
        }
        Ok(position)
    }
}

/// Where the last lines begin: in which file, and where in it.
fn tail_start(sources: &[Source], tail: usize) -> io::Result<(usize, u64)> {
    if tail == 0 {
        return Ok((sources.len(), 0));
    }
    let mut lines = 0;
    for (n, source) in sources.iter().enumerate().rev() {
        let mut back = Backwards::open(source)?;
        while let Some((start, raw)) = back.previous()? {
            let Some(line) = parse(&raw) else { continue };
            // (the very last one may have no end yet)
            if !line.partial || lines == 0 {
                if lines == tail {
                    return Ok((n, start + raw.len() as u64));
                }
                lines += 1;
            }
        }
    }
    Ok((0, 0))
}

/// Lines of a file from its end on.
struct Backwards {
    file: Option<File>,
    /// Where the buffer begins in the file.
    offset: u64,
    buffer: Vec<u8>,
}

impl Backwards {
    fn open(source: &Source) -> io::Result<Self> {
        match source {
            Source::Plain(path) => {
                let file = File::open(path)?;
                let offset = file.metadata()?.len();
                let mut back = Self { file: Some(file), offset, buffer: Vec::new() };
                // (what has no end is being written)
                while !back.buffer.contains(&b'\n') && back.fill()? {}
                let end = back.buffer.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                back.buffer.truncate(end);
                Ok(back)
            }
            Source::Compressed(path) => {
                let mut buffer = Vec::new();
                flate2::read::GzDecoder::new(File::open(path)?).read_to_end(&mut buffer)?;
                Ok(Self { file: None, offset: 0, buffer })
            }
        }
    }

    /// Reads what is before the buffer; false if there is nothing.
    fn fill(&mut self) -> io::Result<bool> {
        let Some(file) = self.file.as_ref().filter(|_| self.offset > 0) else { return Ok(false) };
        let length = self.offset.min(64 << 10);
        let mut block = vec![0; length as usize];
        file.read_exact_at(&mut block, self.offset - length)?;
        block.append(&mut self.buffer);
        self.buffer = block;
        self.offset -= length;
        Ok(true)
    }

    fn previous(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        loop {
            let inner = self.buffer.len().saturating_sub(1);
            if let Some(at) = self.buffer[..inner].iter().rposition(|b| *b == b'\n') {
                let line = self.buffer.split_off(at + 1);
                return Ok(Some((self.offset + at as u64 + 1, line)));
            }
            if !self.fill()? {
                let line = std::mem::take(&mut self.buffer);
                return Ok((!line.is_empty()).then_some((0, line)));
            }
        }
    }
}

/// Goes on as the file grows, or is rotated.
fn follow(
    path: &Path,
    mut position: u64,
    state: &mut State<'_>,
    alive: &mut dyn FnMut() -> bool,
) -> io::Result<()> {
    let mut open: Option<File> = None;
    while !state.done {
        // asked before the last read, so that nothing printed before the end is missed
        let ended = !alive();
        // (the old one is read to its end before the new one)
        let now = std::fs::metadata(path).ok();
        if let Some(file) = &mut open {
            file.seek(SeekFrom::Start(position))?;
            position += state.lines(&mut BufReader::new(&mut *file))?;
            let same = now.as_ref().is_some_and(|now| {
                file.metadata().is_ok_and(|m| m.ino() == now.ino()) && now.len() >= position
            });
            if !same {
                open = None;
                position = 0;
            }
        }
        if open.is_none()
            && let Ok(mut file) = File::open(path)
        {
            if file.metadata()?.len() < position {
                position = 0;
            }
            file.seek(SeekFrom::Start(position))?;
            position += state.lines(&mut BufReader::new(&mut file))?;
            open = Some(file);
        }
        let past = state.options.until.is_some_and(|until| super::time::now() > until);
        if ended || past {
            break;
        }
        state.reader.idle();
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Driver, Options, Writer};
    use super::*;

    fn all(path: &Path, options: &ReadOptions) -> String {
        let mut text = Vec::new();
        read(path, options, || false, &mut |line: &Line<'_>| {
            text.extend(&*line.text);
            true
        })
        .unwrap();
        String::from_utf8(text).unwrap()
    }

    fn tail(n: usize) -> ReadOptions {
        ReadOptions { tail: Some(n), ..ReadOptions::default() }
    }

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("unroot-log-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = directory("written");
        for driver in [Driver::K8sFile, Driver::JsonFile] {
            let path = dir.join(format!("{driver:?}"));
            let mut log = Writer::open(Options { driver, path: path.clone(), ..Options::default() }).unwrap();
            log.write(Stream::Stdout, b"one\ntwo \"quoted\",\"stream\":\"x\"\\\nthr");
            log.write(Stream::Stdout, b"ee\n");
            log.write(Stream::Stderr, b"last");
            assert_eq!(
                all(&path, &ReadOptions::default()),
                "one\ntwo \"quoted\",\"stream\":\"x\"\\\nthree\nlast"
            );
            assert_eq!(all(&path, &tail(1)), "last");
            assert_eq!(all(&path, &tail(2)), "three\nlast");
            assert_eq!(all(&path, &tail(4)), all(&path, &ReadOptions::default()));
            assert_eq!(all(&path, &tail(0)), "");
            let later = ReadOptions { since: Some(super::super::now() + 1), ..ReadOptions::default() };
            assert_eq!(all(&path, &later), "");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
