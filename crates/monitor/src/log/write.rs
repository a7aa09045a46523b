//! Writing a log, a chunk at a time and each with one write.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::Stream;
use super::time::{format_nanos, now};

/// How a log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// `TIME stdout F text`, as Kubernetes and Podman have it.
    K8sFile,
    /// A JSON object a line, as Docker has it.
    JsonFile,
    /// Nothing.
    #[default]
    None,
}

/// A log that is being written.
#[derive(Debug, Default)]
pub struct Writer {
    driver: Driver,
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max_size: Option<u64>,
    /// The first failure: the container goes on, its log ends.
    pub failure: Option<String>,
}

impl Writer {
    /// Opens it, to append.
    pub fn open(driver: Driver, path: &Path, max_size: Option<u64>) -> io::Result<Self> {
        let file = match driver {
            Driver::None => None,
            _ => Some(create(path)?),
        };
        let size = file.as_ref().map_or(Ok(0), |f| f.metadata().map(|m| m.len()))?;
        Ok(Self { driver, path: path.into(), file, size, max_size, failure: None })
    }

    /// The descriptor that it holds.
    pub fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.file.as_ref().map(std::os::fd::AsFd::as_fd)
    }

    /// Writes what was read from a stream. A line that does not end in it is marked partial.
    pub fn write(&mut self, stream: Stream, data: &[u8]) {
        if self.file.is_none() || data.is_empty() {
            return;
        }
        let time = format_nanos(now());
        let mut text = Vec::with_capacity(data.len() + 64);
        for line in data.split_inclusive(|b| *b == b'\n') {
            match self.driver {
                Driver::K8sFile => k8s_line(&mut text, &time, stream, line),
                Driver::JsonFile => json_line(&mut text, &time, stream, line),
                Driver::None => {}
            }
        }
        let written = self.append(&text);
        if let Err(e) = written {
            self.failure
                .get_or_insert(format!("write {}: {e}: the rest of the log is lost", self.path.display()));
            self.file = None;
        }
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if self.max_size.is_some_and(|max| self.size > 0 && self.size + text.len() as u64 > max) {
            fs::rename(&self.path, rotated(&self.path))?;
            self.file = Some(create(&self.path)?);
            self.size = 0;
        }
        self.size += text.len() as u64;
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(text))
    }
}

/// The part before the last rotation.
pub fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".1");
    name.into()
}

fn create(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(path)
}

fn k8s_line(text: &mut Vec<u8>, time: &str, stream: Stream, line: &[u8]) {
    let (line, tag) = match line.strip_suffix(b"\n") {
        Some(whole) => (whole, "F"),
        None => (line, "P"),
    };
    text.extend(format!("{time} {} {tag} ", stream.name()).bytes());
    text.extend(line);
    text.push(b'\n');
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
