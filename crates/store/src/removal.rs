//! Removing trees that somebody hostile may have made: however deep one is, few descriptors and a small stack do. What
//! is deeper than that is moved up, and its turn comes later. No link is followed.

use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, openat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;

/// So many directories are open at once.
const DEPTH: u32 = 64;
/// Directories that each processor gets at least, and levels that are looked through for as many.
const SHARE: usize = 8;
const LEVELS: usize = 6;

const DIRECTORY: OFlags =
    OFlags::DIRECTORY.union(OFlags::CLOEXEC).union(OFlags::RDONLY).union(OFlags::NOFOLLOW);

/// Removes a directory, or whatever is there, with all that is below.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH;
    Ok(remove_in(&openat(CWD, parent, flags, Mode::empty())?, name)?)
}

/// The same by all processors, for a tree of many files.
pub fn remove_large_tree(path: &Path) -> io::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
    if let Ok(top) = openat(CWD, path, DIRECTORY, Mode::empty())
        && threads > 1
    {
        let branches = branches(top, threads * SHARE)?;
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((parent, name)) = branches.get(next.fetch_add(1, Ordering::Relaxed)) {
                // (what is left is tried again below, and said there)
                let _ = remove_in(parent, name);
            }
        };
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    }
    remove_tree(path)
}

/// Directories below one, with their parents: at least so many, if there are as many in the upper levels.
fn branches(top: OwnedFd, wanted: usize) -> io::Result<Vec<(Arc<OwnedFd>, OsString)>> {
    let mut level = directories(Arc::new(top))?;
    for _ in 0..LEVELS {
        if level.is_empty() || level.len() >= wanted {
            break;
        }
        let mut below = Vec::new();
        for (parent, name) in level {
            let dir = openat(&*parent, &name, DIRECTORY, Mode::empty())?;
            below.extend(directories(Arc::new(dir))?);
        }
        level = below;
    }
    Ok(level)
}

fn directories(dir: Arc<OwnedFd>) -> io::Result<Vec<(Arc<OwnedFd>, OsString)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(&*dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && !matches!(name.to_bytes(), b"." | b"..") {
            found.push((dir.clone(), OsStr::from_bytes(name.to_bytes()).to_os_string()));
        }
    }
    Ok(found)
}

/// The same, for a name in a directory.
pub fn remove_in(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        done => return done,
    }
    let top = openat(parent, name, DIRECTORY, Mode::empty()).map_err(no_directory)?;
    let mut removal = Removal { top, moved: 0 };
    loop {
        let before = removal.moved;
        removal.empty(None, 0)?;
        if removal.moved == before {
            return unlinkat(parent, name, AtFlags::REMOVEDIR);
        }
    }
}

/// Of what unlink(2) refuses as a directory, or for want of permission.
fn no_directory(errno: Errno) -> Errno {
    if matches!(errno, Errno::NOTDIR | Errno::LOOP) { Errno::PERM } else { errno }
}

struct Removal {
    top: OwnedFd,
    /// So many directories have been moved up.
    moved: u64,
}

impl Removal {
    /// Empties a directory, the top one if none is given.
    fn empty(&mut self, dir: Option<&OwnedFd>, depth: u32) -> Result<(), Errno> {
        for entry in Dir::read_from(dir.unwrap_or(&self.top))? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let here = dir.unwrap_or(&self.top);
            match unlinkat(here, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(e) => return Err(e),
            }
            if depth == DEPTH {
                self.move_up(here.try_clone().map_err(|_| Errno::MFILE)?, name)?;
                continue;
            }
            let inner = openat(here, name, DIRECTORY, Mode::empty()).map_err(no_directory)?;
            self.empty(Some(&inner), depth + 1)?;
            unlinkat(dir.unwrap_or(&self.top), name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }

    fn move_up(&mut self, dir: OwnedFd, name: &CStr) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            let new = format!(".deep-{}", self.moved);
            match renameat_with(&dir, name, &self.top, new.as_str(), RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                // (a filesystem that cannot do without replacing: an empty directory at most is replaced)
                Err(Errno::INVAL) => match renameat(&dir, name, &self.top, new.as_str()) {
                    Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                    done => return done,
                },
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn by_all_processors() {
        let base = tempfile::tempdir().unwrap();
        let (tree, outside) = (base.path().join("tree"), base.path().join("outside"));
        fs::write(&outside, "stays").unwrap();
        for n in 0..40 {
            let dir = tree.join(format!("one/{}/{n}/below", n % 3));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("file"), "").unwrap();
            std::os::unix::fs::symlink(base.path(), dir.join("link")).unwrap();
        }
        fs::write(tree.join("one/file"), "").unwrap();
        remove_large_tree(&tree).unwrap();
        assert!(!tree.exists() && outside.exists());
        assert_eq!(remove_large_tree(&tree).unwrap_err().kind(), io::ErrorKind::NotFound);
        remove_large_tree(&outside).unwrap();
        assert!(!outside.exists());
    }

    #[test]
    fn deep_and_wide() {
        let base = std::env::temp_dir().join(format!("unroot-removal-{}", std::process::id()));
        let (tree, outside) = (base.join("tree"), base.join("outside"));
        fs::create_dir_all(tree.join("wide")).unwrap();
        fs::write(&outside, "stays").unwrap();
        for n in 0..200 {
            fs::write(tree.join("wide").join(n.to_string()), "").unwrap();
        }
        std::os::unix::fs::symlink("../../outside", tree.join("wide/link")).unwrap();
        std::os::unix::fs::symlink(&base, tree.join("to-base")).unwrap();
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut dir = openat(CWD, &tree, flags, Mode::empty()).unwrap();
        for _ in 0..400 {
            for name in ["d", ".deep-1"] {
                rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o700)).unwrap();
            }
            dir = openat(&dir, "d", flags, Mode::empty()).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read_to_string(&outside).unwrap(), "stays");
        remove_tree(&outside).unwrap();
        assert_eq!(remove_tree(&outside).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::remove_dir(&base).unwrap();
    }
}
