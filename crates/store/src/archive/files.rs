//! The files of an archive, looked up by the names that they have in it, never on disk. A plain tar that can be read
//! anywhere is read where it is; of one that comes, layers are taken as they pass and the rest is spooled.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat};
use serde::de::DeserializeOwned;
use unroot_sys::path::openat2;

use crate::layer::{IdCheck, is_digest};
use crate::{Call as _, Error, Result, Store, Temporary, digest, invalid, pipe};

const MAX_JSON: u64 = 8 << 20;
const MAX_FILES: usize = 100_000;
/// What of a file is looked at to tell whether it is a layer.
const LOOKED_AT: u64 = 512;

/// The files of an archive.
pub struct Files {
    place: Place,
    links: HashMap<String, String>,
}

enum Place {
    Directory(PathBuf),
    /// Offset and size in the file.
    Tar(Arc<File>, HashMap<String, (u64, u64)>),
    /// Files on disk, and layers that are in the store already, by their diff IDs.
    Spooled {
        files: HashMap<String, PathBuf>,
        layers: HashMap<String, String>,
        _dir: Temporary,
    },
}

/// A part of a file.
struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let length = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

impl Files {
    /// Those of a directory.
    pub fn of_directory(dir: &Path) -> Self {
        Self { place: Place::Directory(dir.into()), links: HashMap::new() }
    }

    /// Those of an archive that is a file.
    pub fn of_file(store: &Store, file: File, ids: IdCheck<'_>) -> Result<Self> {
        let mut start = [0; 4];
        let is_plain = file.read_at(&mut start, 0).is_ok_and(|n| !pipe::is_compressed(&start[..n]))
            && file.metadata().is_ok_and(|m| m.is_file());
        if is_plain { Self::of_tar(file) } else { Self::of_stream(store, file, ids) }
    }

    fn of_tar(file: File) -> Result<Self> {
        let read = || "read archive".to_string();
        let (mut files, mut links) = (HashMap::new(), HashMap::new());
        let file = Arc::new(file);
        let mut archive = tar::Archive::new(&*file);
        for entry in archive.entries_with_seek().call(read)? {
            let entry = entry.call(read)?;
            check_count(files.len() + links.len())?;
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    files.insert(name_of(&entry)?, (entry.raw_file_position(), entry.size()));
                }
                _ => links.extend(link_of(&entry)?),
            }
        }
        Ok(Self { place: Place::Tar(file, files), links })
    }

    /// Those of an archive that comes.
    pub fn of_stream(store: &Store, source: impl Read, ids: IdCheck<'_>) -> Result<Self> {
        let read = || "read archive".to_string();
        let dir = store.temporary()?;
        let (mut files, mut layers, mut links) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut archive = tar::Archive::new(pipe::decompressed(source).call(read)?);
        for entry in archive.entries().call(read)? {
            let mut entry = entry.call(read)?;
            check_count(files.len() + layers.len() + links.len())?;
            if !matches!(entry.header().entry_type(), tar::EntryType::Regular | tar::EntryType::Continuous) {
                links.extend(link_of(&entry)?);
                continue;
            }
            let name = name_of(&entry)?;
            let mut start = Vec::new();
            (&mut entry).take(LOOKED_AT).read_to_end(&mut start).call(read)?;
            let is_layer = is_layer(&start);
            let whole = Cursor::new(start).chain(entry);
            if is_layer {
                layers.insert(name, store.ingest_layer(whole, None, ids)?.diff_id);
                continue;
            }
            let path = dir.path().join(files.len().to_string());
            let mut file = File::create(&path).call(|| format!("create {}", path.display()))?;
            let copied = io::copy(&mut whole.take(store.max_layer + 1), &mut file);
            if copied.call(|| format!("write {}", path.display()))? > store.max_layer {
                return Err(pipe::too_large(store.max_layer)).call(|| format!("archive: {name}"));
            }
            files.insert(name, path);
        }
        // (whoever writes to a pipe wants it read to its end)
        io::copy(&mut archive.into_inner(), &mut io::sink()).call(read)?;
        Ok(Self { place: Place::Spooled { files, layers, _dir: dir }, links })
    }

    /// The name without links.
    fn real<'a>(&'a self, name: &'a str) -> &'a str {
        let mut name = name;
        for _ in 0..8 {
            match self.links.get(name) {
                Some(target) => name = target,
                None => break,
            }
        }
        name
    }

    /// A file, and its size.
    pub fn open(&self, name: &str) -> Result<(Box<dyn Read + Send>, u64)> {
        let missing = || Error::Invalid(format!("archive has no {name}"));
        let name = self.real(name);
        let file = match &self.place {
            Place::Directory(dir) => {
                let root = openat(CWD, dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                    .call(|| format!("open {}", dir.display()))?;
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                File::from(
                    openat2(&root, name, flags, Mode::empty(), ResolveFlags::IN_ROOT)
                        .map_err(|_| missing())?,
                )
            }
            Place::Tar(file, entries) => {
                let (at, size) = entries.get(name).ok_or_else(missing)?;
                return Ok((Box::new(Section { file: file.clone(), at: *at, end: at + size }), *size));
            }
            Place::Spooled { files, .. } => {
                let path = files.get(name).ok_or_else(missing)?;
                File::open(path).call(|| format!("open {}", path.display()))?
            }
        };
        let meta = file.metadata().call(|| format!("stat {name}"))?;
        if !meta.is_file() {
            return invalid(format!("archive: {name} is no file"));
        }
        Ok((Box::new(file), meta.len()))
    }

    /// The layer that a file of an archive that came was.
    pub fn passed(&self, name: &str) -> Option<&str> {
        match &self.place {
            Place::Spooled { layers, .. } => layers.get(self.real(name)).map(String::as_str),
            _ => None,
        }
    }

    /// There is such a file.
    pub fn has(&self, name: &str) -> bool {
        self.open(name).is_ok()
    }

    /// A small file as a whole.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        self.open(name)?.0.take(MAX_JSON + 1).read_to_end(&mut data).call(|| format!("read {name}"))?;
        if data.len() as u64 > MAX_JSON {
            return invalid(format!("archive: {name} has more than {MAX_JSON} bytes"));
        }
        Ok(data)
    }

    /// A small blob of an OCI layout, whose name has to be its digest.
    pub fn blob(&self, name: &str) -> Result<Vec<u8>> {
        let data = self.read(&blob_name(name)?)?;
        if digest(&data) != name {
            return invalid(format!("archive: blob {name} has digest {}", digest(&data)));
        }
        Ok(data)
    }

    /// A JSON file.
    pub fn parse<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        serde_json::from_slice(&self.read(name)?).map_err(|e| Error::Invalid(format!("archive: {name}: {e}")))
    }
}

/// Where a blob of an OCI layout is.
pub fn blob_name(digest: &str) -> Result<String> {
    if !is_digest(digest) {
        return invalid(format!("archive: digest {digest:?} is not sha256: and 64 hex digits"));
    }
    Ok(digest.replacen("sha256:", "blobs/sha256/", 1))
}

/// It begins like a tar, or like something compressed.
fn is_layer(start: &[u8]) -> bool {
    pipe::is_compressed(start) || start.get(257..262) == Some(b"ustar")
}

fn check_count(count: usize) -> Result<()> {
    match count >= MAX_FILES {
        true => invalid(format!("archive has more than {MAX_FILES} files")),
        false => Ok(()),
    }
}

fn name_of<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String> {
    let path = entry.path().call(|| "read archive".into())?;
    Ok(path.to_string_lossy().trim_start_matches("./").to_string())
}

fn link_of<R: Read>(entry: &tar::Entry<'_, R>) -> Result<Option<(String, String)>> {
    let name = name_of(entry)?;
    let target = entry.link_name().ok().flatten().unwrap_or_default().into_owned();
    let base = match entry.header().entry_type() {
        tar::EntryType::Symlink => Path::new(&name).parent().unwrap_or(Path::new("")),
        tar::EntryType::Link => Path::new(""),
        _ => return Ok(None),
    };
    Ok(Some((name.clone(), flat(&base.join(&target)))))
}

/// A path without `.` and `..`.
fn flat(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.to_str().unwrap_or_default().split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Makes sure that a path can be read before anything else is done.
pub fn open(path: &Path) -> Result<File> {
    fs::File::open(path).call(|| format!("open {}", path.display()))
}
