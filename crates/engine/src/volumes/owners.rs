//! Changing the owners of a tree: `:U`.

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

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

/// A directory that others depend on.
pub(crate) fn is_precious(path: &Path) -> bool {
    PRECIOUS.iter().any(|p| Path::new(p) == path)
}

/// Gives a tree to a user, unless its root is theirs already: then it was done before. The root comes last, so that
/// what was interrupted is done again. No link is followed, and nothing that is mounted below is touched.
pub fn give(path: &Path, home: &Path, uid: u32, gid: u32) -> Result<()> {
    let failed =
        |text: &str| Error::engine(format_args!("failed to chown recursively {}: {text}", path.display()));
    let real = path.canonicalize().map_err(|e| failed(&reason(&e)))?;
    if is_precious(&real) || real == home {
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
    changed.and_then(|()| fchown(&file, Some(uid), Some(gid)).map_err(|e| (e, PathBuf::new()))).map_err(
        |(errno, below)| {
            let which = real.join(&below);
            match errno {
                Errno::PERM => failed(&format!("operation not permitted for {}", which.display())).with_hint(
                    format_args!(
                        "{} is not of your ids (/etc/subuid, /etc/subgid); as root: chown -R {}: {}",
                        strangers(&which),
                        unroot_idmap::EngineUser::outside().name,
                        real.display()
                    ),
                ),
                e => failed(&format!("{}: {}", which.display(), reason(&e.into()))),
            }
        },
    )
}

/// Which of its owner and group has no number here.
fn strangers(path: &Path) -> &'static str {
    let overflow = |name: &str| {
        fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok().and_then(|t| t.trim().parse::<u32>().ok())
    };
    match fs::symlink_metadata(path) {
        Ok(meta)
            if Some(meta.gid()) == overflow("overflowgid") && Some(meta.uid()) != overflow("overflowuid") =>
        {
            "its group"
        }
        _ => "its owner",
    }
}

/// What failed, and for which file below.
type Failed = (Errno, PathBuf);

fn below(dir: &OwnedFd, top: &Stat, uid: Uid, gid: Gid) -> std::result::Result<(), Failed> {
    let here = |e: Errno| (e, PathBuf::new());
    let names: Vec<CString> = Dir::read_from(dir)
        .map_err(here)?
        .map(|entry| entry.map(|e| e.file_name().to_owned()))
        .collect::<std::result::Result<_, _>>()
        .map_err(here)?;
    let is_entry = |name: &&CString| !matches!(name.to_bytes(), b"." | b"..");
    for name in names.iter().filter(is_entry) {
        match one(dir, name, top, uid, gid) {
            Ok(()) | Err((Errno::NOENT, _)) => {}
            Err((e, below)) => {
                let name = Path::new(OsStr::from_bytes(name.to_bytes()));
                return Err((e, if below.as_os_str().is_empty() { name.into() } else { name.join(below) }));
            }
        }
    }
    Ok(())
}

fn one(dir: &OwnedFd, name: &CStr, top: &Stat, uid: Uid, gid: Gid) -> std::result::Result<(), Failed> {
    let here = |e: Errno| (e, PathBuf::new());
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(here)?;
    if stat.st_dev != top.st_dev {
        return Ok(());
    }
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        below(&openat(dir, name, flags, Mode::empty()).map_err(here)?, top, uid, gid)?;
    }
    chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(here)
}
