//! Removing trees that somebody hostile may have made: however deep one is, few descriptors and a small stack do. What
//! is deeper than that is moved up, and its turn comes later. No link is followed.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, openat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;

/// So many directories are open at once.
const DEPTH: u32 = 64;

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
