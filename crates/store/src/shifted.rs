//! Images whose owners are others than on disk, for containers with an id map of their own where the kernel does not
//! shift ids at a mount: a tree of all of an image's files, merged, made at most once.
//!
//! ```text
//! images/ID/refers-KEY/     names, owners, modes, times, links; a file's content stays in its layer, of which overlayfs
//!                           is told by user.overlay.redirect (Linux 6.16, "data-only layers")
//! images/ID/copies-KEY/     the same with the contents, which share their blocks where the filesystem can
//! ```
//! KEY stands for what the owners that the image really has become, not for the whole map: keep-id, nomap, auto and most
//! given maps have one tree among them, and where no owner changes there is none at all.
//!
//! It is made by all processors at once and published by one rename. What is half made lies in `tmp` under a name of its
//! own; whoever was interrupted goes on with it, and two who need the same wait for each other, and nobody else for them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fgetxattr, flistxattr, fsetxattr, ftruncate, futimens, linkat, mkdirat, mknodat, openat,
    readlinkat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::merged::{Node, Part, Style, Tree};
use crate::{Call as _, Error, Image, Result, Store, digest};

/// What an owner becomes; none if the map has no id for it.
pub type Shift<'a> = &'a (dyn Fn(u32, u32) -> Option<(u32, u32)> + Sync);

/// What is needed of an image.
pub struct Wanted<'a> {
    /// What owners become.
    pub shift: Shift<'a>,
    /// The whole map, for an image of which is not known which ids it has.
    pub map: String,
    /// overlayfs can be told where a file's content is.
    pub refers: bool,
    /// Is told now and then how many files are there; from several threads.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// Directories of an image for overlayfs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerDirs {
    /// The top-most first.
    pub lower: Vec<PathBuf>,
    /// Where contents are that files in `lower` refer to.
    pub data: Vec<PathBuf>,
}

impl Store {
    /// An image's layers with their owners shifted.
    pub fn shifted(&self, image: &Image, wanted: &Wanted<'_>) -> Result<LayerDirs> {
        let layers = self.lower_dirs(image);
        let Some(key) = key(image, wanted).filter(|_| !layers.is_empty()) else {
            return Ok(LayerDirs { lower: layers, data: Vec::new() });
        };
        let place = |kind: &str| self.image_dir(&image.id).join(format!("{kind}-{key}"));
        let (refers, copies) = (place("refers"), place("copies"));
        if copies.is_dir() {
            return Ok(LayerDirs { lower: vec![copies], data: Vec::new() });
        }
        let (place, data) = match wanted.refers {
            true => (refers, layers.clone()),
            false => (copies, Vec::new()),
        };
        if !place.is_dir() {
            self.make_shifted(&layers, &place, wanted)?;
        }
        Ok(LayerDirs { lower: vec![place], data })
    }

    fn make_shifted(&self, layers: &[PathBuf], place: &Path, wanted: &Wanted<'_>) -> Result<()> {
        let parts: Vec<Part<'_>> = layers.iter().map(|dir| Part { dir: dir.clone(), owners: None }).collect();
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let image = place.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let half = self.resumable(&format!("{name}-{image}"))?;
        // (whoever held it before has finished it)
        if place.is_dir() {
            return Ok(());
        }
        let root = openat(CWD, half.path(), DIRECTORY, Mode::empty())
            .call(|| format!("open {}", half.path().display()))?;
        let work = Work::new(wanted, root.try_clone().call(|| "dup".into())?);
        work.run(Tree::open(&parts, Style::Merged)?, root)?;
        self.unsettled_image(&image)?;
        match std::fs::rename(half.path(), place) {
            Err(_) if place.is_dir() => Ok(()),
            other => other.call(|| format!("rename files of image {image} to {}", place.display())),
        }
    }
}

/// What stands for the shift of just this image; none if nothing changes.
fn key(image: &Image, wanted: &Wanted<'_>) -> Option<String> {
    let text = match &image.ids {
        Some((uids, gids)) => {
            let one = |uid: u32, gid: u32| (wanted.shift)(uid, gid);
            let first = (uids.first().copied().unwrap_or(0), gids.first().copied().unwrap_or(0));
            let shifted_uids: Vec<_> = uids.iter().map(|uid| one(*uid, first.1).map(|o| o.0)).collect();
            let shifted_gids: Vec<_> = gids.iter().map(|gid| one(first.0, *gid).map(|o| o.1)).collect();
            let same =
                |ids: &[u32], shifted: &[Option<u32>]| ids.iter().zip(shifted).all(|(a, b)| Some(*a) == *b);
            if same(uids, &shifted_uids) && same(gids, &shifted_gids) {
                return None;
            }
            format!("{uids:?}{shifted_uids:?}{gids:?}{shifted_gids:?}")
        }
        None => wanted.map.clone(),
    };
    Some(digest(text.as_bytes())["sha256:".len()..][..16].to_string())
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// An attribute of a file has room for so long a path on every filesystem, beside others.
const LONGEST_REFERENCE: usize = 1024;

/// Directories that wait for a thread; more are done by the thread that finds them, as each holds descriptors.
const MOST_WAITING: usize = 16;

/// A directory to be made: what it is like, where, and its path.
type Task = (Tree<'static>, OwnedFd, PathBuf);

struct Queue {
    tasks: VecDeque<Task>,
    busy: usize,
}

struct Work<'a> {
    wanted: &'a Wanted<'a>,
    root: OwnedFd,
    queue: Mutex<Queue>,
    changed: Condvar,
    failure: Mutex<Option<Error>>,
    failed: AtomicBool,
    done: AtomicU64,
    /// Names of files that have several, by file, made when all others are.
    names: Mutex<HashMap<(u64, u64), BTreeSet<PathBuf>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Work<'a> {
    fn new(wanted: &'a Wanted<'a>, root: OwnedFd) -> Self {
        Self {
            wanted,
            root,
            queue: Mutex::new(Queue { tasks: VecDeque::new(), busy: 0 }),
            changed: Condvar::new(),
            failure: Mutex::new(None),
            failed: AtomicBool::new(false),
            done: AtomicU64::new(0),
            names: Mutex::default(),
        }
    }

    fn run(&self, tree: Tree<'static>, to: OwnedFd) -> Result<()> {
        locked(&self.queue).tasks.push_back((tree, to, PathBuf::new()));
        // (files are made with the modes that they have to have)
        let umask = rustix::process::umask(Mode::empty());
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(8);
        std::thread::scope(|scope| {
            // (joined one by one: the caller may fork when this returns, and then has to be the only thread)
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(|| self.thread())).collect();
            all.into_iter().for_each(|thread| drop(thread.join()));
        });
        rustix::process::umask(umask);
        match locked(&self.failure).take() {
            Some(error) => Err(error),
            None => self.link(),
        }
    }

    fn thread(&self) {
        loop {
            let mut queue = locked(&self.queue);
            let (tree, to, path) = loop {
                match queue.tasks.pop_back() {
                    Some(task) => break task,
                    None if queue.busy == 0 => return,
                    None => queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            };
            queue.busy += 1;
            drop(queue);
            let result = match self.failed.load(Ordering::Relaxed) {
                true => Ok(()),
                false => self.directory(&tree, &to, &path),
            };
            if let Err(error) = result {
                self.failed.store(true, Ordering::Relaxed);
                locked(&self.failure).get_or_insert(error);
            }
            locked(&self.queue).busy -= 1;
            self.changed.notify_all();
        }
    }

    fn directory(&self, tree: &Tree<'static>, to: &OwnedFd, path: &Path) -> Result<()> {
        for node in tree.entries(path)?.values() {
            let at = path.join(&node.name);
            self.entry(tree, node, to, &at).map_err(|error| match error {
                Error::Io { call, error } => {
                    Error::Io { call: format!("files of image: /{}: {call}", at.display()), error }
                }
                other => other,
            })?;
            let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(512) {
                (self.wanted.progress)(done);
            }
        }
        let node = tree.node()?;
        let owner = self.owner(&node, path)?;
        dress(tree.handle(), to, &node.stat, owner)
    }

    fn owner(&self, node: &Node, path: &Path) -> Result<(u32, u32)> {
        let (uid, gid) = (node.stat.st_uid, node.stat.st_gid);
        (self.wanted.shift)(uid, gid).ok_or_else(|| {
            Error::Ids(format!(
                "/{} of the image belongs to {uid}:{gid}, which the container's id map does not have",
                path.display()
            ))
        })
    }

    fn entry(&self, tree: &Tree<'static>, node: &Node, to: &OwnedFd, path: &Path) -> Result<()> {
        let owner = self.owner(node, path)?;
        let (from, name, stat) = (tree.dir_of(node), node.name.as_os_str(), &node.stat);
        match node.kind() {
            FileType::Directory => {
                match mkdirat(to, name, Mode::from_raw_mode(0o700)) {
                    Err(Errno::EXIST) => {}
                    other => other.call(|| "mkdir".into())?,
                }
                let inner = tree.enter(name)?;
                let made = openat(to, name, DIRECTORY, Mode::empty()).call(|| "open".into())?;
                let mut queue = locked(&self.queue);
                if queue.tasks.len() >= MOST_WAITING {
                    drop(queue);
                    return self.directory(&inner, &made, path);
                }
                queue.tasks.push_back((inner, made, path.into()));
                drop(queue);
                self.changed.notify_one();
                Ok(())
            }
            _ if stat.st_nlink > 1 => {
                let mut names = locked(&self.names);
                let all = names.entry((stat.st_dev, stat.st_ino)).or_default();
                let is_first = all.is_empty();
                all.insert(path.into());
                drop(names);
                if is_first { self.file(from, name, stat, to, path, owner) } else { Ok(()) }
            }
            _ => self.file(from, name, stat, to, path, owner),
        }
    }

    /// What is no directory.
    fn file(
        &self,
        from: &OwnedFd,
        name: &OsStr,
        stat: &Stat,
        to: &OwnedFd,
        path: &Path,
        owner: (u32, u32),
    ) -> Result<()> {
        match self.new_file(from, name, stat, to, path, owner) {
            // (times are set last: what has them was finished before an interruption)
            Err(Error::Io { error, .. }) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let there = statat(to, name, AtFlags::SYMLINK_NOFOLLOW).call(|| "stat".into())?;
                let same = there.st_mode == stat.st_mode
                    && (there.st_uid, there.st_gid) == owner
                    && there.st_size == stat.st_size
                    && (there.st_mtime, there.st_mtime_nsec) == (stat.st_mtime, stat.st_mtime_nsec);
                if same {
                    return Ok(());
                }
                unlinkat(to, name, AtFlags::empty()).call(|| "unlink".into())?;
                self.new_file(from, name, stat, to, path, owner)
            }
            made => made,
        }
    }

    fn new_file(
        &self,
        from: &OwnedFd,
        name: &OsStr,
        stat: &Stat,
        to: &OwnedFd,
        path: &Path,
        owner: (u32, u32),
    ) -> Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::RegularFile => return self.regular(from, name, stat, to, path, owner),
            FileType::Symlink => {
                let target = readlinkat(from, name, Vec::new()).call(|| "readlink".into())?;
                symlinkat(target, to, name).call(|| "symlink".into())?;
            }
            kind => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                match mknodat(to, name, kind, mode, stat.st_rdev) {
                    // (a device that cannot be made is left out as at extraction)
                    Err(Errno::PERM) => return Ok(()),
                    other => other.call(|| "mknod".into())?,
                }
                chmodat(to, name, mode, AtFlags::empty()).call(|| "chmod".into())?;
            }
        }
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .call(|| format!("chown to {}:{}", owner.0, owner.1))?;
        utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW).call(|| "utimensat".into())
    }

    fn regular(
        &self,
        from: &OwnedFd,
        name: &OsStr,
        stat: &Stat,
        to: &OwnedFd,
        path: &Path,
        owner: (u32, u32),
    ) -> Result<()> {
        let open = || {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            openat(from, name, flags, Mode::empty()).call(|| "open".into())
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
        let made = openat(to, name, flags, mode).call(|| "creat".into())?;
        let size = stat.st_size.cast_unsigned();
        let place = [b"/", path.as_os_str().as_bytes()].concat();
        match self.wanted.refers && place.len() <= LONGEST_REFERENCE {
            true if size > 0 => {
                ftruncate(&made, size).call(|| "ftruncate".into())?;
                let set = |name: &str, value: &[u8]| {
                    fsetxattr(&made, name, value, XattrFlags::empty()).call(|| format!("setxattr {name}"))
                };
                set("user.overlay.redirect", &place)?;
                set("user.overlay.metacopy", b"")?;
            }
            true => {}
            false => copy(&open()?, &made, size)?,
        }
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        fchown(&made, Some(uid), Some(gid)).call(|| format!("chown to {}:{}", owner.0, owner.1))?;
        if stat.st_mode & 0o7000 != 0 {
            fchmod(&made, Mode::from_raw_mode(stat.st_mode & 0o7777)).call(|| "chmod".into())?;
        }
        if has_attributes(from, name) {
            copy_attributes(&open()?, &made)?;
        }
        futimens(&made, &times(stat)).call(|| "futimens".into())
    }

    /// The other names of files that have several; directories keep their times.
    fn link(&self) -> Result<()> {
        for names in locked(&self.names).values().filter(|names| names.len() > 1) {
            // (any of the names may have been the one that was made)
            let call = |name: &Path| format!("files of image: link /{}", name.display());
            let exists =
                |name: &&PathBuf| statat(&self.root, name.as_path(), AtFlags::SYMLINK_NOFOLLOW).is_ok();
            let Some(made) = names.iter().find(exists) else { continue };
            for name in names.iter().filter(|name| *name != made && !exists(name)) {
                let parent = name.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let before = statat(&self.root, parent, AtFlags::SYMLINK_NOFOLLOW).call(|| call(name))?;
                linkat(&self.root, made, &self.root, name, AtFlags::empty()).call(|| call(name))?;
                utimensat(&self.root, parent, &times(&before), AtFlags::SYMLINK_NOFOLLOW)
                    .call(|| call(name))?;
            }
        }
        Ok(())
    }
}

/// The content: shared where the filesystem can, without its holes where it cannot.
fn copy(source: &OwnedFd, made: &OwnedFd, size: u64) -> Result<()> {
    if rustix::fs::ioctl_ficlone(made, source).is_ok() {
        return Ok(());
    }
    let duplicate = |fd: &OwnedFd| fd.try_clone().map(File::from).call(|| "dup".into());
    let copied = std::io::copy(&mut duplicate(source)?, &mut duplicate(made)?).call(|| "copy".into())?;
    match copied == size {
        true => Ok(()),
        false => {
            crate::invalid(format!("a file of the image has {copied} bytes, not {size}: it was changed"))
        }
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = |sec: i64, nsec: i64| Timespec { tv_sec: sec, tv_nsec: nsec };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as i64),
    }
}

/// Owner, attributes, mode and times.
fn dress(from: &OwnedFd, to: &OwnedFd, stat: &Stat, (uid, gid): (u32, u32)) -> Result<()> {
    fchown(to, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .call(|| format!("chown to {uid}:{gid}"))?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).call(|| "chmod".into())?;
    copy_attributes(from, to)?;
    futimens(to, &times(stat)).call(|| "futimens".into())
}

/// Most files have none: they need not be opened.
fn has_attributes(dir: &OwnedFd, name: &OsStr) -> bool {
    let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name.as_bytes()].concat();
    // (what cannot be told is looked at)
    rustix::fs::llistxattr(&path[..], &mut [0u8; 0][..]) != Ok(0)
}

fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let mut names = [0u8; 4096];
    let length = match flistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        other => other.call(|| "listxattr".into())?,
    };
    for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        // (the tree is merged: nothing is below it that could shine through)
        let Ok(name) = std::ffi::CString::new(name) else { continue };
        if name.as_bytes().starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        if let Ok(length) = fgetxattr(from, &name, &mut value[..]) {
            // (one that may not be set here could not be set at extraction either)
            let _ = fsetxattr(to, &name, &value[..length], XattrFlags::empty());
        }
    }
    Ok(())
}
