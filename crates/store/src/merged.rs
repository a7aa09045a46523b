//! Directories of layers seen as the one tree that overlayfs would make of them, without mounting it: what `export`
//! writes and `diff` compares. Nothing is followed: each directory is opened below the one before it.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fgetxattr, fstat, openat, statat};
use rustix::io::Errno;

use crate::shifted::Shift;
use crate::{Call as _, Result, invalid};

/// What a directory of overlayfs has if nothing below it shines through.
pub const OPAQUE: &str = "user.overlay.opaque";

/// A directory with files.
pub struct Part<'a> {
    /// Where.
    pub dir: PathBuf,
    /// What its files' owners are shown as.
    pub owners: Option<Shift<'a>>,
}

/// What devices 0:0 are in a tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Files like others: the tree is no layer.
    Plain,
    /// Entries that say what the layer removes.
    Layer,
    /// What they say is done, and they are not seen.
    Merged,
}

/// A directory of the tree, of as many layers as have it, the top-most first.
pub struct Tree<'a> {
    parts: Vec<(OwnedFd, Option<Shift<'a>>)>,
    style: Style,
    depth: u32,
}

/// What is in a directory.
pub struct Node {
    /// Its name.
    pub name: OsString,
    /// The file as it is on disk.
    pub stat: Stat,
    /// Its owner and group as they are shown.
    pub owner: (u32, u32),
    part: usize,
}

impl Node {
    /// Its type.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// It says that a layer below has no such file.
    pub fn is_whiteout(&self) -> bool {
        self.kind() == FileType::CharacterDevice && self.stat.st_rdev == 0
    }
}

/// Whoever goes down a tree holds a descriptor, and some stack, for each directory on the way: a hostile one has no end.
const DEEPEST: u32 = 500;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

impl<'a> Tree<'a> {
    /// Of these directories, the top-most first.
    pub fn open(parts: &[Part<'a>], style: Style) -> Result<Self> {
        let mut opened: Vec<(OwnedFd, Option<Shift<'a>>)> = Vec::new();
        for part in parts {
            let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
            let dir = openat(CWD, &part.dir, flags, Mode::empty())
                .call(|| format!("open {}", part.dir.display()))?;
            opened.push((dir, part.owners));
        }
        Ok(Self { parts: opened, style, depth: 0 })
    }

    /// A directory that is open.
    pub fn of(dir: OwnedFd, owners: Option<Shift<'a>>) -> Self {
        Self { parts: vec![(dir, owners)], style: Style::Plain, depth: 0 }
    }

    /// One thing in it.
    pub fn entry(&self, name: &OsStr) -> Result<Node> {
        let (dir, owners) = &self.parts[0];
        let stat =
            statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).call(|| format!("stat {}", name.display()))?;
        Ok(Node { name: name.into(), stat, owner: owner_of(&stat, *owners), part: 0 })
    }

    /// The directory itself.
    pub fn node(&self) -> Result<Node> {
        let (dir, owners) = &self.parts[0];
        let stat = fstat(dir).call(|| "fstat".into())?;
        Ok(Node { name: OsString::new(), stat, owner: owner_of(&stat, *owners), part: 0 })
    }

    /// The top-most directory of it.
    pub fn handle(&self) -> &OwnedFd {
        &self.parts[0].0
    }

    /// The directory that an entry is in.
    pub fn dir_of(&self, node: &Node) -> &OwnedFd {
        &self.parts[node.part].0
    }

    /// What it was opened as.
    pub fn style(&self) -> Style {
        self.style
    }

    /// Layers below do not shine through it.
    pub fn is_opaque(&self) -> bool {
        is_opaque(self.handle())
    }

    /// Both are the same directories.
    pub fn is_same(&self, other: &Self) -> bool {
        let ids = |tree: &Self| -> Option<Vec<(u64, u64)>> {
            let id = |(dir, _): &(OwnedFd, _)| fstat(dir).ok().map(|s| (s.st_dev, s.st_ino));
            tree.parts.iter().map(id).collect()
        };
        ids(self).is_some_and(|own| Some(own) == ids(other))
    }

    /// What is in it, by name.
    pub fn entries(&self, path: &Path) -> Result<BTreeMap<OsString, Node>> {
        let call = || format!("read directory {}", path.display());
        let (mut found, mut hidden) = (BTreeMap::<OsString, Node>::new(), HashSet::new());
        for (part, (dir, owners)) in self.parts.iter().enumerate() {
            for entry in Dir::read_from(dir).call(call)? {
                let entry = entry.call(call)?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." || found.contains_key(name) || hidden.contains(name) {
                    continue;
                }
                let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    stat => stat.call(call)?,
                };
                let node = Node { name: name.into(), stat, owner: owner_of(&stat, *owners), part };
                match self.style == Style::Merged && node.is_whiteout() {
                    true => drop(hidden.insert(name.to_os_string())),
                    false => drop(found.insert(name.into(), node)),
                }
            }
        }
        Ok(found)
    }

    /// A directory of this one.
    pub fn enter(&self, name: &OsStr) -> Result<Self> {
        if self.depth == DEEPEST {
            return invalid(format!("a directory that is more than {DEEPEST} directories deep"));
        }
        let mut parts = Vec::new();
        for (dir, owners) in &self.parts {
            match openat(dir, name, DIRECTORY, Mode::empty()) {
                Ok(inner) => {
                    let last = self.style == Style::Merged && is_opaque(&inner);
                    parts.push((inner, *owners));
                    if last {
                        break;
                    }
                }
                Err(Errno::NOENT) => {}
                // (a file that hides what is below it, once there is no directory above)
                Err(Errno::NOTDIR | Errno::LOOP) if !parts.is_empty() => break,
                Err(e) => return Err(e).call(|| format!("open directory {}", name.display())),
            }
        }
        if parts.is_empty() {
            return Err(Errno::NOENT).call(|| format!("open directory {}", name.display()));
        }
        Ok(Self { parts, style: self.style, depth: self.depth + 1 })
    }
}

fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0u8; 2];
    fgetxattr(dir, OPAQUE, &mut value[..]).is_ok_and(|n| &value[..n] == b"y")
}

fn owner_of(stat: &Stat, owners: Option<Shift<'_>>) -> (u32, u32) {
    let own = (stat.st_uid, stat.st_gid);
    owners.map_or(own, |shift| shift(own.0, own.1).unwrap_or((65534, 65534)))
}

/// How a path is another one than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Added,
    /// It was another one.
    Changed,
    /// It is no more.
    Deleted,
}

/// What is different in a tree from what it was, in the order of the paths, which begin with `/`. A removed directory
/// is told without what was in it; a directory whose list of names has changed is changed.
pub fn changes(new: &Tree<'_>, old: &Tree<'_>) -> Result<Vec<(Change, PathBuf)>> {
    let mut all = Vec::new();
    compare(new, Some(old), Path::new("/"), &mut all)?;
    Ok(all)
}

fn compare(
    new: &Tree<'_>,
    old: Option<&Tree<'_>>,
    path: &Path,
    all: &mut Vec<(Change, PathBuf)>,
) -> Result<bool> {
    if old.is_some_and(|old| new.is_same(old)) {
        return Ok(false);
    }
    let news = new.entries(path)?;
    let mut olds = old.map(|old| old.entries(path)).transpose()?.unwrap_or_default();
    let mut names: Vec<&OsString> =
        news.keys().chain(olds.keys().filter(|n| !news.contains_key(*n))).collect();
    names.sort();
    let names: Vec<OsString> = names.into_iter().cloned().collect();
    let mut renamed = false;
    for name in names {
        let at = path.join(&name);
        let (now, before) = (news.get(&name), olds.remove(&name));
        let Some(now) = now else {
            all.push((Change::Deleted, at));
            renamed = true;
            continue;
        };
        let place = all.len();
        let mut differs = before.as_ref().is_some_and(|before| !is_equal(now, before));
        renamed |= before.is_none();
        if now.kind() == FileType::Directory {
            let was = match (old, &before) {
                (Some(old), Some(before)) if before.kind() == FileType::Directory => Some(old.enter(&name)?),
                _ => None,
            };
            differs |= compare(&new.enter(&name)?, was.as_ref(), &at, all)? && was.is_some();
        }
        match (before.is_none(), differs) {
            (true, _) => all.insert(place, (Change::Added, at)),
            (false, true) => all.insert(place, (Change::Changed, at)),
            (false, false) => {}
        }
    }
    Ok(renamed)
}

fn is_equal(a: &Node, b: &Node) -> bool {
    let same_file = (a.stat.st_dev, a.stat.st_ino) == (b.stat.st_dev, b.stat.st_ino);
    let is_dir = a.kind() == FileType::Directory;
    same_file
        || (a.stat.st_mode == b.stat.st_mode
            && a.owner == b.owner
            && a.stat.st_rdev == b.stat.st_rdev
            && (is_dir || a.stat.st_size == b.stat.st_size)
            && a.stat.st_mtime == b.stat.st_mtime
            && a.stat.st_mtime_nsec == b.stat.st_mtime_nsec)
}
