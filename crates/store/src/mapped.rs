//! Copies of layers whose owners are shifted for containers with an id map of their own: made once for a map,
//! beside the layer, published by rename like it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fgetxattr, flistxattr, fsetxattr, mkdirat, mknodat, openat, readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::{Call as _, Error, Image, Result, Store, digest, make_dir};

/// What an owner becomes; none if the map has no id for it.
pub type Shift<'a> = &'a dyn Fn(u32, u32) -> Option<(u32, u32)>;

impl Store {
    /// Directories of an image's layers for a map, the top-most first. `key` is the map as a text.
    pub fn mapped_layers(&self, image: &Image, key: &str, shift: Shift<'_>) -> Result<Vec<PathBuf>> {
        let hash = digest(key.as_bytes());
        let suffix = &hash["sha256:".len().."sha256:".len() + 16];
        image.layers.iter().rev().map(|diff_id| self.mapped_layer(diff_id, suffix, shift)).collect()
    }

    fn mapped_layer(&self, diff_id: &str, suffix: &str, shift: Shift<'_>) -> Result<PathBuf> {
        let layer = self.layer_dir(diff_id);
        let place = layer.join(format!("diff-{suffix}"));
        if place.is_dir() {
            return Ok(place);
        }
        let temporary = self.temporary()?;
        let copy = temporary.path().join("diff");
        make_dir(&copy)?;
        let open = |path: &PathBuf| {
            openat(CWD, path, DIRECTORY, Mode::empty()).call(|| format!("open {}", path.display()))
        };
        let (from, to) = (open(&layer.join("diff"))?, open(&copy)?);
        copy_dir(&from, &to, shift, "")?;
        match std::fs::rename(&copy, &place) {
            Err(_) if place.is_dir() => {}
            other => other.call(|| format!("rename layer to {}", place.display()))?,
        }
        Ok(place)
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

fn copy_dir(from: &OwnedFd, to: &OwnedFd, shift: Shift<'_>, path: &str) -> Result<()> {
    let read = Dir::read_from(from).call(|| format!("read layer directory {path}"))?;
    for entry in read {
        let entry = entry.call(|| format!("read layer directory {path}"))?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            let path = format!("{path}/{}", name.to_string_lossy());
            copy_entry(from, to, name, shift, &path)?;
        }
    }
    dress(from, to, shift, path)
}

fn copy_entry(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &std::ffi::CStr,
    shift: Shift<'_>,
    path: &str,
) -> Result<()> {
    let call = || format!("copy of layer entry {path}");
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).call(call)?;
    let (uid, gid) = shift(stat.st_uid, stat.st_gid).ok_or_else(|| {
        Error::Ids(format!(
            "{path} of the image belongs to {}:{}, which the container's id map does not have",
            stat.st_uid, stat.st_gid
        ))
    })?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::Directory => {
            mkdirat(to, name, Mode::from_raw_mode(0o700)).call(call)?;
            let inner = openat(from, name, DIRECTORY, Mode::empty()).call(call)?;
            return copy_dir(&inner, &openat(to, name, DIRECTORY, Mode::empty()).call(call)?, shift, path);
        }
        FileType::RegularFile => {
            let source =
                openat(from, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
                    .call(call)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let copy = openat(to, name, flags, Mode::from_raw_mode(0o600)).call(call)?;
            if rustix::fs::ioctl_ficlone(&copy, &source).is_err() {
                let (mut source, mut copy) =
                    (File::from(source.try_clone().call(call)?), File::from(copy.try_clone().call(call)?));
                std::io::copy(&mut source, &mut copy).call(call)?;
            }
            return dress(&source, &copy, shift, path);
        }
        FileType::Symlink => {
            symlinkat(readlinkat(from, name, Vec::new()).call(call)?, to, name).call(call)?
        }
        kind => {
            // (a device that cannot be made is no whiteout, and is left out as at extraction)
            match mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev) {
                Err(Errno::PERM) => return Ok(()),
                other => other.call(call)?,
            }
            chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty()).call(call)?;
        }
    }
    chownat(to, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
        .call(call)?;
    utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW).call(call)
}

fn times(stat: &rustix::fs::Stat) -> Timestamps {
    let time = |sec: i64, nsec: i64| Timespec { tv_sec: sec, tv_nsec: nsec };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as i64),
    }
}

/// Owner, mode, attributes and times as the original's, the owner shifted.
fn dress(from: &OwnedFd, to: &OwnedFd, shift: Shift<'_>, path: &str) -> Result<()> {
    let call = || format!("copy of layer entry {path}");
    let stat = rustix::fs::fstat(from).call(call)?;
    let (uid, gid) = shift(stat.st_uid, stat.st_gid).ok_or_else(|| {
        Error::Ids(format!(
            "{path} of the image belongs to {}:{}, which the container's id map does not have",
            stat.st_uid, stat.st_gid
        ))
    })?;
    rustix::fs::fchown(to, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).call(call)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).call(call)?;
    let mut names = vec![0u8; 16 << 10];
    let length = flistxattr(from, &mut names[..]).unwrap_or(0);
    for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let Ok(name) = std::ffi::CString::new(name) else { continue };
        let mut value = vec![0u8; 64 << 10];
        if let Ok(length) = fgetxattr(from, &name, &mut value[..]) {
            let _ = fsetxattr(to, &name, &value[..length], XattrFlags::empty());
        }
    }
    rustix::fs::futimens(to, &times(&stat)).call(call)
}
