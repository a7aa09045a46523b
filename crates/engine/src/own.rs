//! `own`: files of a user's subordinate ids below a path, and taking them back.
//!
//! What lies below the path may be a container's to write to while we look. So nothing is named twice: each entry is
//! opened by its one name in its directory (openat2(2): no link is followed, no mount is entered), looked at and given
//! to the user by that descriptor. Whoever renames or links meanwhile changes nothing of that. chown(2) itself takes
//! setuid, setgid and file capabilities away; we look whether it did. A file that has more names than were found below
//! the path belongs to another place, too, and is left alone.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, chownat, fstat, openat, openat2,
};
use rustix::io::Errno;
use serde::Serialize;
use unroot_idmap::{IdMap, SubIds};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::plan::reason;

/// What to do with which files.
#[derive(Clone, Debug, Default)]
pub struct OwnOptions {
    /// Nothing is changed.
    pub dry_run: bool,
    /// Files with names elsewhere, too.
    pub hard_links: bool,
    /// Also where a running container has the path.
    pub force: bool,
    /// As root: whose subordinate ids, and who gets the files.
    pub user: Option<String>,
}

/// A file of a subordinate id.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its owner on the host; none is one that is neither the user's nor a subordinate id.
    pub uid: Option<u32>,
    /// Its group on the host.
    pub gid: Option<u32>,
    /// It is the user's now; else why it is not, or nothing was asked for.
    pub taken: bool,
    /// Why it was left alone.
    pub left: Option<String>,
}

/// Directories of engines, whose files have to keep their owners.
const STORES: [&str; 3] = [".local/share/containers/storage", ".local/share/docker", ".local/share/buildkit"];

/// Deeper than this nobody has directories; each costs a descriptor.
const MAX_DEPTH: usize = 400;

struct Walk<'a> {
    /// As this process sees them -> on the host.
    uids: &'a IdMap,
    gids: &'a IdMap,
    subids: &'a SubIds,
    to: (u32, u32),
    options: &'a OwnOptions,
    /// Directories that are passed over: device and number.
    stores: Vec<(u64, u64)>,
    /// Names found of each file that has several.
    names: HashMap<(u64, u64), u64>,
    found: Vec<OwnedFile>,
}

impl Engine {
    /// Files of subordinate ids below the paths; where `take` is set, they are given to the user.
    pub fn own(&self, paths: &[PathBuf], options: &OwnOptions, take: bool) -> Result<Vec<OwnedFile>> {
        let (name, uid, gid) = match (&options.user, self.user.is_rootless()) {
            (None, true) => (self.user.name.clone(), self.user.uid, self.user.gid),
            (Some(name), false) => account(name)?,
            (None, false) => {
                return Err(Error::engine("own as root: whose files are to be taken back is not said")
                    .with_hint("--for USER"));
            }
            (Some(_), true) => {
                return Err(Error::engine("--for is for root: others take back only their own"));
            }
        };
        let subids = SubIds::of(&name, uid).map_err(Error::engine)?;
        if subids.is_missing() {
            return Err(Error::engine(format_args!(
                "{name} has no subordinate ids, so there is nothing to take back"
            )));
        }
        if take && !options.force {
            self.refuse_in_use(paths)?;
        }
        let maps = self.enter()?.maps.clone();
        let lacks = || Error::engine(format_args!("uid {uid} and gid {gid} are not in this user namespace"));
        let to = (maps.uid.to_inside(uid).ok_or_else(lacks)?, maps.gid.to_inside(gid).ok_or_else(lacks)?);
        let home = unroot_idmap::names::passwd_line(&name)
            .and_then(|line| line.split(':').nth(5).map(PathBuf::from))
            .unwrap_or_else(|| self.user.home.clone());
        let stores =
            STORES.iter().map(|dir| home.join(dir)).chain([self.dirs.root.clone(), self.dirs.kept.clone()]);
        let stores: Vec<PathBuf> = stores.filter_map(|dir| dir.canonicalize().ok()).collect();
        let numbers = stores.iter().filter_map(|dir| rustix::fs::stat(dir).ok()).map(|s| id_of(&s)).collect();
        let mut walk = Walk {
            uids: &maps.uid,
            gids: &maps.gid,
            subids: &subids,
            to,
            options,
            stores: numbers,
            names: HashMap::new(),
            found: Vec::new(),
        };
        for path in paths {
            walk.start(path, &stores, take)?;
        }
        Ok(walk.found)
    }

    /// A container that runs would lose its files under its feet.
    fn refuse_in_use(&self, paths: &[PathBuf]) -> Result<()> {
        for path in paths {
            let Ok(real) = path.canonicalize() else { continue };
            for record in self.containers()? {
                let state = crate::State::observe(&self.dirs, &record.id)?;
                let sources = record.spec.files.mounts.iter().map(|m| PathBuf::from(&m.source));
                let mut sources = sources.chain(record.volumes.iter().map(|v| v.path.clone()));
                let meets =
                    |s: PathBuf| s.canonicalize().is_ok_and(|s| s.starts_with(&real) || real.starts_with(&s));
                if state.is_live() && sources.any(meets) {
                    return Err(Error::new(
                        crate::ErrorKind::InUse,
                        format_args!(
                            "{}: the running container {} has it mounted",
                            path.display(),
                            record.name
                        ),
                    )
                    .with_hint(format_args!(
                        "{} stop {}, or --force",
                        crate::program(),
                        record.name
                    )));
                }
            }
        }
        Ok(())
    }
}

fn account(name: &str) -> Result<(String, u32, u32)> {
    let line = unroot_idmap::names::passwd_line(name);
    let fields: Vec<&str> = line.as_deref().unwrap_or_default().split(':').collect();
    match fields[..] {
        [name, _, uid, gid, ..] => {
            uid.parse().ok().zip(gid.parse().ok()).map(|(u, g)| (name.to_string(), u, g))
        }
        _ => None,
    }
    .ok_or_else(|| Error::engine(format_args!("--for {name}: no such user")))
}

fn id_of(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

impl Walk<'_> {
    fn start(&mut self, path: &Path, stores: &[PathBuf], take: bool) -> Result<()> {
        let failed = |e: Errno| Error::engine(format_args!("open {}: {}", path.display(), reason(&e.into())));
        let fd = openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed)?;
        let stat = fstat(&fd).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let text = format!("{}: it is a symbolic link, which is not followed", path.display());
            return Err(Error::engine(text).with_hint("name the file or directory itself"));
        }
        let real = path
            .canonicalize()
            .map_err(|e| Error::engine(format_args!("{}: {}", path.display(), reason(&e))))?;
        if let Some(store) = stores.iter().find(|s| real.starts_with(s)) {
            let text = format!(
                "{}: it is in {}, where images and containers need their owners",
                path.display(),
                store.display()
            );
            return Err(Error::engine(text)
                .with_hint(format_args!("{0} rm, {0} rmi, {0} volume rm", crate::program())));
        }
        if real == Path::new("/") {
            return Err(Error::engine("/: name a directory below it"));
        }
        self.count(&fd, &stat, 0);
        self.visit(&fd, &stat, &real, 0, take);
        Ok(())
    }

    /// Counts the names of files that have several.
    fn count(&mut self, fd: &OwnedFd, stat: &Stat, depth: usize) {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if depth < MAX_DEPTH && !self.stores.contains(&id_of(stat)) => {
                for name in names_of(fd).unwrap_or_default() {
                    if let Ok((entry, stat)) = open_entry(fd, &name) {
                        self.count(&entry, &stat, depth + 1);
                    }
                }
            }
            FileType::Directory => {}
            _ if stat.st_nlink > 1 => *self.names.entry(id_of(stat)).or_default() += 1,
            _ => {}
        }
    }

    fn visit(&mut self, fd: &OwnedFd, stat: &Stat, path: &Path, depth: usize, take: bool) {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_dir && self.stores.contains(&id_of(stat)) {
            return;
        }
        if is_dir {
            match names_of(fd) {
                _ if depth >= MAX_DEPTH => self.leave(path, "directories are nested too deep"),
                Err(e) => self.leave(path, &format!("read: {}", reason(&e.into()))),
                Ok(names) => {
                    for name in names {
                        let below = path.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
                        match open_entry(fd, &name) {
                            Ok((entry, stat)) => self.visit(&entry, &stat, &below, depth + 1, take),
                            // (gone; or something is mounted there, which is another place)
                            Err(Errno::NOENT | Errno::XDEV) => {}
                            Err(e) => self.leave(&below, &format!("open: {}", reason(&e.into()))),
                        }
                    }
                }
            }
        }
        // (a directory comes after what is in it: what was interrupted is found again)
        self.one(fd, stat, path, take);
    }

    fn leave(&mut self, path: &Path, why: &str) {
        self.found.push(OwnedFile {
            path: path.into(),
            uid: None,
            gid: None,
            taken: false,
            left: Some(why.into()),
        });
    }

    fn one(&mut self, fd: &OwnedFd, stat: &Stat, path: &Path, take: bool) {
        let has = |ranges: &[(u32, u32)], id: Option<u32>| {
            id.filter(|id| {
                ranges.iter().any(|(first, count)| id.checked_sub(*first).is_some_and(|n| n < *count))
            })
        };
        let uid = has(&self.subids.uid, self.uids.to_outside(stat.st_uid));
        let gid = has(&self.subids.gid, self.gids.to_outside(stat.st_gid));
        if uid.is_none() && gid.is_none() {
            return;
        }
        let mut file = OwnedFile { path: path.into(), uid, gid, taken: false, left: None };
        let here = self.names.get(&id_of(stat)).copied().unwrap_or(1);
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_dir && stat.st_nlink > here && !self.options.hard_links {
            file.left = Some(format!(
                "it has {} names, {here} of them here: the others are elsewhere (--hard-links takes it anyway)",
                stat.st_nlink
            ));
        } else if take && !self.options.dry_run {
            match give(fd, uid.map(|_| self.to.0), gid.map(|_| self.to.1)) {
                Ok(()) => file.taken = true,
                Err(Errno::PERM) => {
                    file.left = Some(
                        "operation not permitted: it is immutable, or its owner is not in your map".into(),
                    );
                }
                Err(e) => file.left = Some(format!("chown: {}", reason(&e.into()))),
            }
        }
        self.found.push(file);
    }
}

/// Gives what a descriptor holds to a user; a program of another user's must not become a setuid one of this one.
fn give(fd: &OwnedFd, uid: Option<u32>, gid: Option<u32>) -> std::result::Result<(), Errno> {
    chownat(fd, c"", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::EMPTY_PATH)?;
    let stat = fstat(fd)?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if regular && stat.st_mode & 0o6000 != 0 {
        use std::os::fd::AsRawFd as _;
        // (a descriptor of O_PATH has no fchmod(2); the kernel's own link to it leads to this very file)
        let itself = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
        rustix::fs::chmod(itself, Mode::from_raw_mode(stat.st_mode & 0o1777))?;
    }
    Ok(())
}

fn open_entry(dir: &OwnedFd, name: &CString) -> std::result::Result<(OwnedFd, Stat), Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = loop {
        match openat2(dir, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => break other?,
        }
    };
    let stat = fstat(&fd)?;
    Ok((fd, stat))
}

fn names_of(dir: &OwnedFd) -> std::result::Result<Vec<CString>, Errno> {
    let readable = openat(
        dir,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    )?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&readable)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}
