//! `cp`: files between a container and the host, or two containers, as a tar between two directories.
//!
//! Each side is a directory handle. In a container every path is resolved by the kernel below the container's root
//! (RESOLVE_IN_ROOT): whatever links it has made, and whatever it changes meanwhile, nothing outside is read or
//! written. Of the host's side the paths are the user's own words.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, readlinkat};
use rustix::io::Errno;
use unroot_store::Shift;
use unroot_store::merged::Tree;
use unroot_store::tree_tar::{self, Unpack};
use unroot_sys::path::openat2;

use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::record::Record;
use crate::roots::OpenRoot;

/// As many links as the kernel follows in one path (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct CopyOptions {
    /// Files become those of the destination's user.
    pub archive: bool,
    /// Directories and files may replace each other.
    pub overwrite: bool,
}

/// One end of a copy.
pub enum End {
    /// A path in a container.
    Container(Box<Record>, String),
    /// A path of the host.
    Host(String),
    /// A tar: standard input or output.
    Stream,
}

/// A side that has directories.
struct Side {
    /// None is the host.
    container: Option<(Record, Rc<OpenRoot>)>,
    /// As it was typed.
    typed: String,
    /// Absolute.
    path: PathBuf,
}

/// Where a path leads.
enum Found {
    /// It is there.
    Here { dir: PathBuf, name: OsString, kind: FileType },
    /// It is not, but its directory is.
    Free { dir: PathBuf, name: OsString },
    /// Nor is that.
    Nowhere(Errno),
}

impl Engine {
    /// Copies. `input` and `output` are the streams for [`End::Stream`].
    pub fn copy(
        &self,
        from: &End,
        to: &End,
        options: CopyOptions,
        input: &mut dyn Read,
        output: &mut (dyn Write + Send),
    ) -> Result<()> {
        match (from, to) {
            (End::Stream, End::Stream) => Err(Error::engine("a tar is copied into or out of a container")),
            (from, End::Stream) => self.copy_out(&self.side(from, None)?, output),
            (End::Stream, to) => self.copy_in(input, &self.side(to, None)?, options),
            (from, to) => {
                let from = self.side(from, None)?;
                let to = self.side(to, Some(&from))?;
                self.copy_between(&from, &to, options)
            }
        }
    }

    fn side(&self, end: &End, beside: Option<&Side>) -> Result<Side> {
        match end {
            End::Container(record, path) => {
                let same = beside.and_then(|side| side.container.as_ref()).filter(|(r, _)| r.id == record.id);
                let root = match same {
                    Some((_, root)) => Rc::clone(root),
                    None => Rc::new(self.open_root(record)?),
                };
                let start = self.workdir(record)?;
                let path_in = Path::new(&start).join(path);
                Ok(Side { container: Some(((**record).clone(), root)), typed: path.clone(), path: path_in })
            }
            End::Host(path) => {
                self.enter()?;
                let absolute = std::path::absolute(path).context(|| format!("cp {path}"))?;
                Ok(Side { container: None, typed: path.clone(), path: absolute })
            }
            End::Stream => Err(Error::engine("a stream has no directories")),
        }
    }

    fn workdir(&self, record: &Record) -> Result<String> {
        let image = self.image_of(record)?.map(|i| i.image.config.config.working_dir);
        let given = record.spec.process.workdir.clone().or(image).filter(|dir| !dir.is_empty());
        Ok(given.unwrap_or_else(|| "/".into()))
    }

    fn copy_between(&self, from: &Side, to: &Side, options: CopyOptions) -> Result<()> {
        let source = Source::of(from)?;
        let (dir, name) = target(to, source.is_dir, false)?;
        // (what is in a directory, in one that is to be made, is that directory)
        let whole = !source.contents || name.is_some();
        let shown = name.as_deref().unwrap_or(&source.name);
        let owners = owners_of(from);
        let shift = owners.as_ref().map(|s| s as Shift<'_>);
        let place = to.open(&dir)?;
        let (reader, writer) = std::io::pipe().context(|| "pipe".into())?;
        let tree = source.tree(from, whole, shift)?;
        let one = whole.then_some((source.name.as_os_str(), shown));
        let what = from.what();
        std::thread::scope(|scope| {
            // (as much stack as the deepest tree takes that is read)
            let thread = std::thread::Builder::new().stack_size(16 << 20);
            let written = thread
                .spawn_scoped(scope, move || {
                    let out = std::io::BufWriter::with_capacity(256 << 10, writer);
                    tree_tar::write_one(&tree, one, out)
                })
                .context(|| "cp: a thread".into())?;
            let unpacked = self.unpack(to, place, &dir, reader, options);
            let written = written.join().map_err(|_| Error::engine("cp: the reader ended"))?;
            // (why it was not taken says more than that nobody read it)
            unpacked.and(written.map_err(|e| Error::engine(format_args!("copying from {what}: {e}"))))
        })
    }

    fn copy_out(&self, from: &Side, output: &mut (dyn Write + Send)) -> Result<()> {
        let source = Source::of(from)?;
        let owners = owners_of(from);
        let shift = owners.as_ref().map(|s| s as Shift<'_>);
        let tree = source.tree(from, !source.contents, shift)?;
        let one = (!source.contents).then_some((source.name.as_os_str(), source.name.as_os_str()));
        tree_tar::write_one(&tree, one, output)
            .map_err(|e| Error::engine(format_args!("copying from {}: {e}", from.what())))
    }

    fn copy_in(&self, input: &mut dyn Read, to: &Side, options: CopyOptions) -> Result<()> {
        let (dir, _) = target(to, true, true)?;
        let tar = tree_tar::peek(input).context(|| "reading standard input".into())?;
        let tar = tar.ok_or_else(|| {
            Error::engine("source must be a (compressed) tar archive when copying from stdin")
        })?;
        self.unpack(to, to.open(&dir)?, &dir, tar, options)
    }

    fn unpack(
        &self,
        to: &Side,
        place: OwnedFd,
        dir: &Path,
        tar: impl Read,
        options: CopyOptions,
    ) -> Result<()> {
        let whose = match &to.container {
            // (files that come to the host are the user's, who is root in here)
            None => Some((0, 0)),
            Some((record, _)) if options.archive => Some(self.owner_in(record)?),
            Some(_) => None,
        };
        let maps = to.container.as_ref().and_then(|(record, _)| record.maps.as_ref());
        let owner = |uid: u32, gid: u32| {
            let (uid, gid) = whose.unwrap_or((uid, gid));
            let Some(maps) = maps else { return Ok((uid, gid)) };
            let missing = |id: u32, map: &unroot_idmap::IdMap| {
                format!("id {id} is none of the container's, which has {}", map.ranges())
            };
            Ok((
                maps.uid.to_outside(uid).ok_or_else(|| missing(uid, &maps.uid))?,
                maps.gid.to_outside(gid).ok_or_else(|| missing(gid, &maps.gid))?,
            ))
        };
        // (of the host's side what is said is below the directory, which is said before)
        let root = Path::new("/");
        let (shown, place_name) = match &to.container {
            Some(_) => (root.join(dir), String::new()),
            None => (root.to_path_buf(), format!(" in {}", root.join(dir).display())),
        };
        let how = Unpack { owner: &owner, overwrite: options.overwrite, shown: &shown };
        tree_tar::unpack(place, tar, &how)
            .map_err(|e| Error::engine(format_args!("copying to {}{place_name}: {e}", to.what())))
    }

    /// The user of a container, as ids in it.
    fn owner_in(&self, record: &Record) -> Result<(u32, u32)> {
        let image = self.image_of(record)?;
        let view = self.root_view(&record.spec, image.as_ref(), Some(&record.id))?;
        let config = image.map(|i| i.image.config.config).unwrap_or_default();
        let user = self.process_user(record, &view, &config)?;
        Ok((user.uid, user.gid))
    }
}

/// What owners are in the container, if they are others.
fn owners_of(side: &Side) -> Option<impl Fn(u32, u32) -> Option<(u32, u32)> + '_> {
    let maps = side.container.as_ref()?.0.maps.as_ref()?;
    Some(move |uid: u32, gid: u32| Some((maps.uid.to_inside(uid)?, maps.gid.to_inside(gid)?)))
}

/// What is copied.
struct Source {
    dir: PathBuf,
    name: OsString,
    is_dir: bool,
    /// What is in it, and not itself: `DIR/.`.
    contents: bool,
}

impl Source {
    fn of(side: &Side) -> Result<Self> {
        match side.look() {
            Found::Here { dir, name, kind } => {
                let is_dir = kind == FileType::Directory;
                let contents = is_dir && (ends_in_dot(&side.typed) || name.is_empty());
                Ok(Self { dir, name, is_dir, contents })
            }
            Found::Free { .. } => Err(side.missing(Errno::NOENT)),
            Found::Nowhere(errno) => Err(side.missing(errno)),
        }
    }

    /// The directory that it is in, or with `whole` unset the one that it is.
    fn tree<'a>(&self, side: &Side, whole: bool, owners: Option<Shift<'a>>) -> Result<Tree<'a>> {
        let dir = if whole { self.dir.clone() } else { self.dir.join(&self.name) };
        Ok(Tree::of(side.open(&dir)?, owners))
    }
}

/// The directory that is copied to, and what the copy is called there, if not as its source.
fn target(to: &Side, is_dir: bool, from_stream: bool) -> Result<(PathBuf, Option<OsString>)> {
    let not_dir = || Err(Error::engine("destination must be a directory when copying from stdin"));
    match to.look() {
        Found::Here { dir, name, kind: FileType::Directory } => Ok((dir.join(name), None)),
        Found::Here { .. } | Found::Free { .. } if from_stream => not_dir(),
        Found::Here { kind, .. } if to.container.is_none() && kind != FileType::RegularFile => {
            Err(Error::engine(format_args!(
                "invalid destination: {:?} must be a directory or a regular file",
                to.typed
            )))
        }
        Found::Here { .. } if is_dir => {
            Err(Error::engine("destination must be a directory when copying a directory"))
        }
        Found::Here { dir, name, .. } => Ok((dir, Some(name))),
        Found::Free { .. } if to.typed.ends_with('/') => Err(to.missing(Errno::NOENT)),
        Found::Free { dir, name } => Ok((dir, Some(name))),
        Found::Nowhere(_) if from_stream => not_dir(),
        Found::Nowhere(errno) => Err(to.missing(errno)),
    }
}

/// `.`, `DIR/.`
fn ends_in_dot(path: &str) -> bool {
    path.trim_end_matches('/').rsplit('/').next() == Some(".")
}

impl Side {
    fn what(&self) -> String {
        self.container.as_ref().map_or("the host".into(), |(record, _)| format!("container {}", record.name))
    }

    fn missing(&self, errno: Errno) -> Error {
        let why = crate::plan::reason(&errno.into());
        Error::not_found(format_args!("{:?} could not be found on {}: {why}", self.typed, self.what()))
    }

    /// Follows the path, the last link included.
    fn look(&self) -> Found {
        match &self.container {
            Some((_, root)) => look_in(&root.root, &self.path),
            None => self.look_on_host(),
        }
    }

    fn look_on_host(&self) -> Found {
        let name = self.path.file_name().map(OsStr::to_os_string).unwrap_or_default();
        let parent = self.path.parent().unwrap_or(Path::new("/")).to_path_buf();
        let kind = |path: &Path| rustix::fs::stat(path).map(|s| FileType::from_raw_mode(s.st_mode));
        match kind(&self.path) {
            Ok(kind) => match std::fs::canonicalize(&self.path) {
                // (the name stays the one that was typed, whatever it is a link to)
                Ok(real) if kind == FileType::Directory || real.parent() != Some(&parent) => Found::Here {
                    dir: real.parent().unwrap_or(Path::new("/")).into(),
                    name: real.file_name().map(OsStr::to_os_string).unwrap_or_default(),
                    kind,
                },
                _ => Found::Here { dir: parent, name, kind },
            },
            Err(Errno::NOENT) if kind(&parent) == Ok(FileType::Directory) => {
                Found::Free { dir: parent, name }
            }
            Err(errno) => Found::Nowhere(errno),
        }
    }

    fn open(&self, dir: &Path) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = match &self.container {
            Some((_, root)) => openat2(&root.root, at(dir), flags, Mode::empty(), IN_ROOT),
            None => rustix::fs::open(dir, flags, Mode::empty()),
        };
        opened.map_err(|e| {
            let why = crate::plan::reason(&e.into());
            Error::engine(format_args!("open {:?} on {}: {why}", Path::new("/").join(dir), self.what()))
        })
    }
}

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

fn at(path: &Path) -> &Path {
    let below = path.strip_prefix("/").unwrap_or(path);
    if below.as_os_str().is_empty() { Path::new(".") } else { below }
}

/// Follows a path below a root, component by component: what it leads to, without links.
fn look_in(root: &OwnedFd, path: &Path) -> Found {
    let mut todo: Vec<OsString> = words(path);
    let (mut done, mut links) = (PathBuf::new(), 0);
    let mut kind = FileType::Directory;
    while let Some(word) = todo.pop() {
        if word == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&word);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat2(root, at(&next), flags, Mode::empty(), IN_ROOT);
        let stat = opened.as_ref().map_err(|e| *e).and_then(fstat);
        let (handle, stat) = match (opened, stat) {
            (Ok(handle), Ok(stat)) => (handle, stat),
            (Err(Errno::NOENT), _) if todo.is_empty() => return Found::Free { dir: done, name: word },
            (Err(errno), _) | (_, Err(errno)) => return Found::Nowhere(errno),
        };
        kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Symlink {
            done = next;
            continue;
        }
        links += 1;
        let Ok(link) = readlinkat(&handle, "", Vec::new()) else { return Found::Nowhere(Errno::NOENT) };
        if links > MOST_LINKS {
            return Found::Nowhere(Errno::LOOP);
        }
        let link = Path::new(OsStr::from_bytes(link.as_bytes()));
        if link.is_absolute() {
            done = PathBuf::new();
        }
        todo.extend(words(link));
    }
    let name = done.file_name().map(OsStr::to_os_string).unwrap_or_default();
    let kind = if name.is_empty() { FileType::Directory } else { kind };
    done.pop();
    Found::Here { dir: done, name, kind }
}

/// Components, the last first.
fn words(path: &Path) -> Vec<OsString> {
    let word = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    let mut all: Vec<OsString> = path.components().filter_map(word).collect();
    all.reverse();
    all
}

/// Paths below a root that begin like this one, in its own form; directories end in `/`.
pub fn list(root: &OwnedFd, begun: &str) -> Vec<String> {
    let entries = |path: &str| -> Option<Vec<(String, bool)>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat2(root, at(Path::new(path)), flags, Mode::empty(), IN_ROOT).ok()?;
        let found = rustix::fs::Dir::read_from(&dir).ok()?.flatten().map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, entry.file_type() == FileType::Directory)
        });
        Some(found.filter(|(name, _)| name != "." && name != "..").collect())
    };
    let (parent, name) = begun.rsplit_once('/').map_or(("", begun), |(p, n)| (&begun[..=p.len()], n));
    let show = |(name, is_dir): (String, bool), before: &str| {
        format!("{before}{name}{}", if is_dir { "/" } else { "" })
    };
    let before = if begun.is_empty() { "/" } else { parent };
    let mut all: Vec<String> = entries(parent)
        .unwrap_or_default()
        .into_iter()
        .filter(|(known, _)| known.starts_with(name))
        .map(|entry| show(entry, before))
        .collect();
    // (a directory that is named whole: what is in it)
    if !name.is_empty() && all.iter().any(|p| p.trim_end_matches('/') == begun) {
        let inside = entries(begun).unwrap_or_default();
        let before = format!("{begun}/");
        all.extend(inside.into_iter().map(|entry| show(entry, &before)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_root() {
        let dir = std::env::temp_dir().join(format!("unroot-copy-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("root/a/b")).unwrap();
        std::fs::write(dir.join("outside"), "x").unwrap();
        std::fs::write(dir.join("root/a/file"), "x").unwrap();
        for (link, to) in
            [("up", "../../../outside"), ("abs", "/a"), ("loop", "loop"), ("gone", "/a/new"), ("far", "/x/y")]
        {
            std::os::unix::fs::symlink(to, dir.join("root").join(link)).unwrap();
        }
        let root = rustix::fs::open(dir.join("root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let seen = |path: &str| match look_in(&root, Path::new(path)) {
            Found::Here { dir, name, kind } => format!("{} {} {kind:?}", dir.display(), name.display()),
            Found::Free { dir, name } => format!("{} {} free", dir.display(), name.display()),
            Found::Nowhere(errno) => errno.raw_os_error().to_string(),
        };
        assert_eq!(seen("/a/b/../file"), "a file RegularFile");
        assert_eq!(seen("/abs/b/."), "a b Directory");
        assert_eq!(seen("/up"), " outside free");
        assert_eq!(seen("../../outside"), " outside free");
        assert_eq!(seen("/gone"), "a new free");
        assert_eq!(seen("/"), "  Directory");
        assert_eq!((seen("/far"), seen("/loop"), seen("/a/file/x")), ("2".into(), "40".into(), "20".into()));
        assert!(ends_in_dot("dir/.") && ends_in_dot(".") && ends_in_dot("./") && !ends_in_dot("dir."));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
