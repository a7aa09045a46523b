//! What a container's files take on the disk.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::record::Record;

/// Sizes in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// What it has changed or added: its own layer.
    pub own: u64,
    /// All that is in it: its image's layers as well.
    pub whole: u64,
}

impl Engine {
    /// The size of a container's files. The engine enters its namespace.
    pub fn size_of(&self, record: &Record) -> Result<Size> {
        self.enter_beside(Some(record), None)?;
        let own = match &record.spec.root {
            crate::spec::Root::Directory { path, overlay: false, .. } => tree_size(path)?,
            _ => tree_size(&self.dirs.container(&record.id).join("upper"))?,
        };
        let image = match &record.image {
            Some(wanted) => self.store.image_by_id(&wanted.id).map_err(Error::engine)?,
            None => None,
        };
        Ok(Size { own, whole: own + image.map_or(0, |i| i.size) })
    }
}

/// Directories below this many others are not counted.
const DEEPEST: u32 = 250;

/// Bytes of the files in a tree; one of several names counts once.
fn tree_size(dir: &Path) -> Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let call = || format!("size of {}", dir.display());
    match openat(CWD, dir, flags, Mode::empty()) {
        Ok(handle) => add(&handle, &mut HashSet::new(), 0).context(call),
        Err(Errno::NOENT) => Ok(0),
        Err(e) => Err(e).context(call),
    }
}

fn add(dir: &OwnedFd, seen: &mut HashSet<(u64, u64)>, depth: u32) -> std::result::Result<u64, Errno> {
    let mut bytes = 0;
    let mut below: Vec<CString> = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        // (what a running container removes meanwhile is not there)
        let Ok(stat) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => below.push(name.to_owned()),
            _ if stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino)) => {}
            _ => bytes += u64::try_from(stat.st_size).unwrap_or(0),
        }
    }
    // (a hostile tree has no end)
    for name in below.iter().filter(|_| depth < DEEPEST) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(inner) = openat(dir, name, flags, Mode::empty()) {
            bytes += add(&inner, seen, depth + 1)?;
        }
    }
    Ok(bytes)
}
