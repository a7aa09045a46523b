//! A file of a layer: its content, owner, mode and times. Small files get them from a second thread, while the first
//! one makes the next: each costs about as much. Files are known to it by their descriptors alone, so whatever later
//! entries do to their names, it does not matter here.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fsetxattr, futimens};
use rustix::io::Errno;

use crate::{Call as _, Error, Result, invalid};

const MAX_XATTR: usize = 64 << 10;
/// What is written at once.
pub(super) const BUFFER: usize = 256 << 10;
/// A file of at least this size has no blocks where it has zeros (the lastlog of a user with a high number).
pub(super) const SPARSE: u64 = 1 << 20;
/// A file that goes to the second thread has at most so much.
pub(super) const SMALL: u64 = 32 << 10;
/// So many go there at once, and so many such batches wait: descriptors are few where several layers are made.
const BATCH: usize = 8;
const WAITING: usize = 2;

/// What an entry says of itself.
#[derive(Clone)]
pub(super) struct Meta {
    pub uid: u32,
    pub gid: u32,
    /// None if the file has it already.
    pub mode: Option<u32>,
    pub mtime: i64,
    pub nanos: i64,
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// A file that was made, and is empty.
pub(super) struct Made {
    pub path: PathBuf,
    pub file: File,
    pub gets_owner: bool,
    pub meta: Meta,
}

impl Made {
    /// All but its content.
    pub(super) fn finish(&self) -> Result<()> {
        dress(&self.file, &self.meta, self.gets_owner)?;
        futimens(&self.file, &times(self.meta.mtime, self.meta.nanos)).call(|| "futimens".into())
    }

    fn fill(mut self, content: &[u8]) -> Result<()> {
        let filled = self.file.write_all(content).call(|| "write".into());
        filled.and_then(|()| self.finish()).map_err(|e| match e {
            Error::Io { call, error } => Error::Io {
                call: format!("layer entry {:?}: {call}", self.path.display().to_string()),
                error,
            },
            other => other,
        })
    }
}

/// Owner, mode (after it: chown drops setuid), attributes (after both: chown drops file capabilities).
pub(super) fn dress(fd: impl AsFd, meta: &Meta, gets_owner: bool) -> Result<()> {
    if gets_owner {
        fchown(&fd, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
            .call(|| format!("chown {}:{}", meta.uid, meta.gid))?;
    }
    if let Some(mode) = meta.mode {
        fchmod(&fd, Mode::from_raw_mode(mode)).call(|| format!("chmod {mode:o}"))?;
    }
    for (name, value) in &meta.xattrs {
        // overlayfs' own are not the image's to set; others' namespaces may be closed to us
        if name.starts_with("user.overlay.") || name.starts_with("trusted.") || value.len() > MAX_XATTR {
            continue;
        }
        let Ok(c_name) = CString::new(name.as_str()) else { continue };
        match fsetxattr(&fd, &c_name, value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
            Err(e) => return Err(e).call(|| format!("setxattr {name}")),
        }
    }
    Ok(())
}

pub(super) fn times(seconds: i64, nanos: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    Timestamps { last_access: time, last_modification: time }
}

/// In large pieces, of which filesystems make large folios; with holes for zeros if that is wanted. How much it was.
pub(super) fn copy(
    source: &mut impl Read,
    file: &mut File,
    buffer: &mut [u8],
    holes: bool,
) -> io::Result<u64> {
    let (mut copied, mut ends_in_hole) = (0, false);
    loop {
        let n = match source.read(buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        copied += n as u64;
        ends_in_hole = holes && buffer[..n].iter().all(|b| *b == 0);
        match ends_in_hole {
            true => drop(file.seek(SeekFrom::Current(n as i64))?),
            false => file.write_all(&buffer[..n])?,
        }
    }
    if ends_in_hole {
        file.set_len(copied)?;
    }
    Ok(copied)
}

type Batch = Vec<(Made, Vec<u8>)>;

/// The second thread.
pub(super) struct Finisher {
    sender: Option<SyncSender<Batch>>,
    thread: Option<JoinHandle<Result<()>>>,
    batch: Batch,
}

impl Finisher {
    pub(super) fn start() -> Self {
        let (sender, receiver) = sync_channel::<Batch>(WAITING);
        let work = move || {
            for batch in receiver {
                for (made, content) in batch {
                    made.fill(&content)?;
                }
            }
            Ok(())
        };
        Self { sender: Some(sender), thread: Some(std::thread::spawn(work)), batch: Vec::new() }
    }

    /// Gives a file its content and all else, some time.
    pub(super) fn add(&mut self, made: Made, content: Vec<u8>) -> Result<()> {
        self.batch.push((made, content));
        if self.batch.len() < BATCH { Ok(()) } else { self.send() }
    }

    fn send(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        match self.sender.as_ref().map(|sender| sender.send(batch)) {
            Some(Ok(())) => Ok(()),
            // (it has ended: it says why)
            _ => self.end(),
        }
    }

    fn end(&mut self) -> Result<()> {
        self.sender = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => invalid("the layer's thread for small files ended"),
        }
    }

    /// All files have what they get.
    pub(super) fn finish(mut self) -> Result<()> {
        self.send()?;
        self.end()
    }
}

impl Drop for Finisher {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.end();
        }
    }
}
