//! Writing a log, a chunk at a time and each with one write.
//!
//! A file that would grow over its bound becomes `FILE.1`, what that was `FILE.2`, and so on, `max_files` in all; they
//! may be compressed, `FILE.1.gz`, which a child does meanwhile.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{WaitId, WaitIdOptions, waitid};
use unroot_sys::process::{Fork, exit_now, fork};

use super::Stream;
use super::journal::{Fields, Journal};
use super::time::{format_nanos, now};

/// How a log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// `TIME stdout F text`, as Kubernetes and Podman have it.
    K8sFile,
    /// A JSON object a line, as Docker has it.
    JsonFile,
    /// The journal of systemd.
    Journald,
    /// Nothing.
    #[default]
    None,
}

/// What a log is like.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How it is written.
    pub driver: Driver,
    /// Its file.
    pub path: PathBuf,
    /// The bound of a file.
    pub max_size: Option<u64>,
    /// Files in all, this one and those before it; 0 is two.
    pub max_files: u32,
    /// Those before it are compressed.
    pub compress: bool,
    /// What the journal is told with each line.
    pub fields: Fields,
}

/// A log that is being written.
#[derive(Debug, Default)]
pub struct Writer {
    options: Options,
    file: Option<File>,
    journal: Option<Journal>,
    size: u64,
    compressor: Option<OwnedFd>,
    /// The first failure: the container goes on, its log ends.
    pub failure: Option<String>,
}

impl Writer {
    /// Opens it, to append.
    pub fn open(options: Options) -> io::Result<Self> {
        let (mut file, mut journal) = (None, None);
        match options.driver {
            Driver::None => {}
            Driver::Journald => journal = Some(Journal::open(&options.fields)?),
            Driver::K8sFile | Driver::JsonFile => file = Some(create(&options.path)?),
        }
        let size = file.as_ref().map_or(Ok(0), |f| f.metadata().map(|m| m.len()))?;
        Ok(Self { options, file, journal, size, compressor: None, failure: None })
    }

    /// The descriptors that it holds.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let journal = self.journal.as_ref().map(Journal::descriptor);
        let file = self.file.as_ref().map(|f| f.as_fd());
        file.into_iter().chain(journal).chain(self.compressor.as_ref().map(|fd| fd.as_fd()))
    }

    /// Writes what was read from a stream. A line that does not end in it is marked partial.
    pub fn write(&mut self, stream: Stream, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if let Some(journal) = &self.journal {
            if let Err(e) = journal.write(stream, data) {
                self.failure.get_or_insert(format!("journal: {e}: the rest of the log is lost"));
                self.journal = None;
            }
            return;
        }
        if self.file.is_none() {
            return;
        }
        let time = format_nanos(now());
        let mut text = Vec::with_capacity(data.len() + 64);
        for line in data.split_inclusive(|b| *b == b'\n') {
            match self.options.driver {
                Driver::JsonFile => json_line(&mut text, &time, stream, line),
                _ => k8s_line(&mut text, &time, stream, line),
            }
        }
        if let Err(e) = self.append(&text) {
            let path = self.options.path.display();
            self.failure.get_or_insert(format!("write {path}: {e}: the rest of the log is lost"));
            self.file = None;
        }
    }

    /// In pieces of whole lines, each as long as there is room for it in the file.
    fn append(&mut self, mut text: &[u8]) -> io::Result<()> {
        while !text.is_empty() {
            let fits = match self.options.max_size {
                None => text.len(),
                Some(max) => fitting(text, max.saturating_sub(self.size)),
            };
            if fits == 0 && self.size > 0 {
                self.rotate()?;
                continue;
            }
            // (a line that is longer than a file may be has one of its own)
            let end = if fits == 0 { line_end(text, 0) } else { fits };
            let (piece, rest) = text.split_at(end);
            self.size += piece.len() as u64;
            if let Some(file) = &mut self.file {
                file.write_all(piece)?;
            }
            text = rest;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.size = 0;
        let files = if self.options.max_files == 0 { 2 } else { self.options.max_files };
        let path = self.options.path.clone();
        if files == 1 {
            return self.file.as_ref().map_or(Ok(()), |f| f.set_len(0));
        }
        self.reap();
        for n in (1..files - 1).rev() {
            for name in [numbered, compressed] {
                // (most are not there)
                let _ = fs::rename(name(&path, n), name(&path, n + 1));
            }
        }
        let last = numbered(&path, 1);
        let _ = fs::remove_file(compressed(&path, 1));
        fs::rename(&path, &last)?;
        self.file = Some(create(&path)?);
        if self.options.compress {
            self.compress(&last);
        }
        Ok(())
    }

    /// In a child: whoever writes to the log does not wait for it. If there can be none it is left as it is.
    fn compress(&mut self, last: &Path) {
        match fork() {
            Ok(Fork::Child) => {
                let done = compress(last, &compressed(&self.options.path, 1));
                exit_now(i32::from(done.is_err()))
            }
            Ok(Fork::Parent(child)) => self.compressor = Some(child.pidfd),
            Err(_) => {}
        }
    }

    fn reap(&mut self) {
        if let Some(child) = self.compressor.take() {
            let _ = waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.reap();
    }
}

/// Where the line ends that holds this place.
fn line_end(text: &[u8], from: usize) -> usize {
    text[from..].iter().position(|b| *b == b'\n').map_or(text.len(), |at| from + at + 1)
}

/// How much of a text of whole lines there is room for.
fn fitting(text: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    match room >= text.len() {
        true => text.len(),
        false => text[..room].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1),
    }
}

fn compress(from: &Path, to: &Path) -> io::Result<()> {
    let mut new = to.as_os_str().to_os_string();
    new.push(".new");
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    io::copy(&mut File::open(from)?, &mut out)?;
    out.finish()?;
    fs::rename(&new, to)?;
    fs::remove_file(from)
}

/// The n-th part before the last rotation.
pub fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(format!(".{n}"));
    name.into()
}

/// The same, compressed.
pub fn compressed(path: &Path, n: u32) -> PathBuf {
    let mut name = numbered(path, n).into_os_string();
    name.push(".gz");
    name.into()
}

fn create(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(path)
}

fn k8s_line(text: &mut Vec<u8>, time: &str, stream: Stream, line: &[u8]) {
    let (line, tag) = match line.strip_suffix(b"\n") {
        Some(whole) => (whole, &b" F "[..]),
        None => (line, &b" P "[..]),
    };
    for part in [time.as_bytes(), b" ", stream.name().as_bytes(), tag, line, b"\n"] {
        text.extend_from_slice(part);
    }
}

fn json_line(text: &mut Vec<u8>, time: &str, stream: Stream, line: &[u8]) {
    text.extend(b"{\"log\":\"");
    for c in String::from_utf8_lossy(line).chars() {
        match c {
            '"' => text.extend(b"\\\""),
            '\\' => text.extend(b"\\\\"),
            '\n' => text.extend(b"\\n"),
            c if c < ' ' => text.extend(format!("\\u{:04x}", c as u32).bytes()),
            c => text.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    text.extend(format!("\",\"stream\":\"{}\",\"time\":\"{time}\"}}\n", stream.name()).bytes());
}
