//! A layer's tar again, bit for bit, from what other engines keep of it.
//!
//! Docker and Podman unpack a layer and keep a list of what its tar was made of (tar-split): a line of JSON for each
//! run of bytes that are no file's contents, and for each file its name and size.
//!
//! ```text
//! {"type":2,"payload":"<base64>","position":0}                               bytes
//! {"type":1,"name":"etc/passwd","size":5,"payload":"<crc64>","position":1}   contents of the file in the tree
//! ```
//! What is read is checked by the layer's digest, as any layer that comes from outside; here only the files are held
//! to be files of the tree.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Deserialize;
use unroot_sys::path::openat2;

use crate::{Call as _, Result};

/// A line of the list is no longer than this.
const MAX_LINE: u64 = 64 << 20;

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    name: String,
    #[serde(default)]
    name_raw: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    payload: Option<String>,
}

/// Where the next bytes come from.
enum Current {
    Bytes(Cursor<Vec<u8>>),
    File { file: File, left: u64, name: PathBuf },
}

/// The tar, as it is read.
pub struct TarSplit {
    tree: OwnedFd,
    list: BufReader<Box<dyn Read + Send>>,
    current: Current,
}

impl TarSplit {
    /// Of a list, compressed with gzip, and the tree of files.
    pub fn open(list: &Path, tree: &Path) -> Result<Self> {
        let file = File::open(list).call(|| format!("open {}", list.display()))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tree =
            rustix::fs::open(tree, flags, Mode::empty()).call(|| format!("open {}", tree.display()))?;
        Ok(Self::new(Box::new(flate2::read::MultiGzDecoder::new(file)), tree))
    }

    fn new(list: Box<dyn Read + Send>, tree: OwnedFd) -> Self {
        Self { tree, list: BufReader::new(list), current: Current::Bytes(Cursor::new(Vec::new())) }
    }

    /// The next line of the list; none at its end.
    fn next(&mut self) -> io::Result<Option<Current>> {
        let mut line = Vec::new();
        let length = (&mut self.list).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(None);
        }
        let entry: Entry =
            serde_json::from_slice(&line).map_err(|e| wrong(format!("a line of the list: {e}")))?;
        match entry.kind {
            1 if entry.size > 0 && entry.payload.is_some() => self.open_file(&entry).map(Some),
            1 => Ok(Some(Current::Bytes(Cursor::new(Vec::new())))),
            2 => {
                let bytes = STANDARD.decode(entry.payload.unwrap_or_default());
                Ok(Some(Current::Bytes(Cursor::new(
                    bytes.map_err(|e| wrong(format!("a line of the list: {e}")))?,
                ))))
            }
            other => Err(wrong(format!("a line of the list is of the unknown type {other}"))),
        }
    }

    fn open_file(&self, entry: &Entry) -> io::Result<Current> {
        let name = match entry.name_raw.is_empty() {
            true => PathBuf::from(&entry.name),
            false => {
                let raw = STANDARD
                    .decode(&entry.name_raw)
                    .map_err(|e| wrong(format!("a name of the list: {e}")))?;
                PathBuf::from(std::ffi::OsString::from_vec(raw))
            }
        };
        let inside = name.strip_prefix("/").unwrap_or(&name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&self.tree, inside, flags, Mode::empty(), resolve)
            .map_err(|e| io::Error::new(e.kind(), format!("open {}: {e}", name.display())))?;
        let file = File::from(file);
        if !file.metadata()?.is_file() {
            return Err(wrong(format!("{} is no file in the tree", name.display())));
        }
        Ok(Current::File { file, left: entry.size, name })
    }
}

fn wrong(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl Read for TarSplit {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let got = match &mut self.current {
                Current::Bytes(bytes) => bytes.read(buffer)?,
                Current::File { left: 0, .. } => 0,
                Current::File { file, left, name } => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                    let got = file.read(&mut buffer[..most])?;
                    if got == 0 && most > 0 {
                        return Err(wrong(format!("{} is {left} bytes shorter than it was", name.display())));
                    }
                    *left -= got as u64;
                    got
                }
            };
            if got > 0 || buffer.is_empty() {
                return Ok(got);
            }
            match self.next()? {
                Some(next) => self.current = next,
                None => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str, tree: &Path) -> io::Result<Vec<u8>> {
        let tree = rustix::fs::open(tree, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut out = Vec::new();
        TarSplit::new(Box::new(Cursor::new(list.to_string().into_bytes())), tree).read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn bytes_and_files() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("etc")).unwrap();
        std::fs::write(tree.path().join("etc/f"), "12345").unwrap();
        std::os::unix::fs::symlink("etc/f", tree.path().join("link")).unwrap();
        let head = STANDARD.encode("head|");
        let tail = STANDARD.encode("|tail");
        let file = |name: &str, size: u64| {
            format!(r#"{{"type":1,"name":"{name}","size":{size},"payload":"AAAAAAAAAAA=","position":1}}"#)
        };
        let list = |middle: &str| {
            format!(
                "{{\"type\":2,\"payload\":\"{head}\",\"position\":0}}\n{middle}\n{{\"type\":2,\"payload\":\"{tail}\",\"position\":2}}\n"
            )
        };
        assert_eq!(read(&list(&file("etc/f", 5)), tree.path()).unwrap(), b"head|12345|tail");
        assert_eq!(read(&list(&file("./etc/f", 5)), tree.path()).unwrap(), b"head|12345|tail");
        assert_eq!(
            read(&list(r#"{"type":1,"name":"etc/","position":1}"#), tree.path()).unwrap(),
            b"head||tail"
        );
        for (name, size) in [("etc/f", 6), ("link", 5), ("../etc/passwd", 5), ("etc", 5), ("nosuch", 1)] {
            assert!(read(&list(&file(name, size)), tree.path()).is_err(), "{name}");
        }
        assert!(read("{\"type\":3}\n", tree.path()).is_err());
        assert!(read("nonsense", tree.path()).is_err());
    }
}
