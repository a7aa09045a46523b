//! Changing the owners of a tree: `:U`.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchown, fstat, openat, statat,
};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::plan::reason;

/// Directories whose owners a whole system depends on.
const PRECIOUS: [&str; 24] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/passwd",
    "/etc/pki",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/lib",
    "/var/log",
    "/mnt",
];

/// Gives a tree to a user, unless its root is theirs already: then it was done before. The root comes last, so that
/// what was interrupted is done again. No link is followed, and nothing that is mounted below is touched.
pub fn give(path: &Path, home: &Path, uid: u32, gid: u32) -> Result<()> {
    let failed =
        |text: &str| Error::engine(format_args!("failed to chown recursively {}: {text}", path.display()));
    let real = path.canonicalize().map_err(|e| failed(&reason(&e)))?;
    if PRECIOUS.iter().any(|p| Path::new(p) == real) || real == home {
        return Err(failed("it is a directory that others depend on")
            .with_hint("leave the option U out, or mount a directory in it"));
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = openat(CWD, &real, flags, Mode::empty()).map_err(|e| failed(&reason(&e.into())))?;
    let stat = fstat(&file).map_err(|e| failed(&reason(&e.into())))?;
    if (stat.st_uid, stat.st_gid) == (uid, gid) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let changed = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => below(&file, &stat, uid, gid),
        _ => Ok(()),
    };
    changed.and_then(|()| fchown(&file, Some(uid), Some(gid))).map_err(|e| match e {
        Errno::PERM => failed("operation not permitted")
            .with_hint("there are files in it that belong to somebody outside of your ids: see /etc/subuid"),
        e => failed(&reason(&e.into())),
    })
}

fn below(dir: &OwnedFd, top: &Stat, uid: Uid, gid: Gid) -> std::result::Result<(), Errno> {
    let names: Vec<CString> = Dir::read_from(dir)?
        .map(|entry| entry.map(|e| e.file_name().to_owned()))
        .collect::<std::result::Result<_, _>>()?;
    let is_entry = |name: &&CString| !matches!(name.to_bytes(), b"." | b"..");
    for name in names.iter().filter(is_entry) {
        match one(dir, name, top, uid, gid) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn one(dir: &OwnedFd, name: &CStr, top: &Stat, uid: Uid, gid: Gid) -> std::result::Result<(), Errno> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if stat.st_dev != top.st_dev {
        return Ok(());
    }
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        below(&openat(dir, name, flags, Mode::empty())?, top, uid, gid)?;
    }
    chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}
