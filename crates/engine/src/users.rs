//! Users and groups as the container's own /etc/passwd and /etc/group have them (identity rule 1).
//!
//! The root filesystem is not mounted when this is asked: [`RootView`] looks through its layers as overlayfs would.
//! What is read is hostile: paths are resolved in the layers by the kernel, without links; files are capped.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fgetxattr, fstat, openat, readlinkat};
use rustix::io::Errno;
use unroot_sys::path::openat2;

use crate::error::{Error, ErrorKind, Result};

const MAX_FILE: u64 = 8 << 20;

/// A merged view of layers, the top-most first.
#[derive(Debug)]
pub struct RootView {
    layers: Vec<OwnedFd>,
    host_users: String,
    /// What was read already: who is who is asked more than once.
    seen: RefCell<HashMap<String, Option<Vec<u8>>>>,
}

enum Found {
    Here(OwnedFd, FileType),
    Below,
    Hidden,
}

/// A directory of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryView {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permissions.
    pub mode: u32,
    /// There is something in it.
    pub has_files: bool,
}

impl RootView {
    /// Of these directories; those that are not there are left out.
    pub fn new(layers: &[PathBuf]) -> Self {
        let open = |dir: &PathBuf| {
            openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
        };
        Self {
            layers: layers.iter().filter_map(open).collect(),
            host_users: String::new(),
            seen: RefCell::default(),
        }
    }

    /// With users of the host, who are in its passwd, too (`--hostuser`).
    pub fn with_host_users(mut self, names: &[String]) -> Result<Self> {
        for name in names {
            let line = unroot_idmap::names::passwd_line(name)
                .ok_or_else(|| unknown("host user", name, "the host's passwd"))?;
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, about, home, ..] = fields[..] else {
                return Err(unknown("host user", name, "the host's passwd"));
            };
            // (what logs in has no business in a container: no password, and its shell may not be there)
            self.host_users += &format!("{name}:*:{uid}:{gid}:{about}:{home}:/bin/sh\n");
        }
        Ok(self)
    }

    /// /etc/passwd, with the host's users; none if it has neither.
    pub fn passwd(&self) -> Option<String> {
        let own = self.read("/etc/passwd").map(|data| String::from_utf8_lossy(&data).into_owned());
        if own.is_none() && self.host_users.is_empty() {
            return None;
        }
        let mut text = own.unwrap_or_default();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Some(text + &self.host_users)
    }

    /// The host's users are in its passwd.
    pub fn has_host_users(&self) -> bool {
        !self.host_users.is_empty()
    }

    /// What is at a path whose directories are no links.
    fn find(&self, path: &Path) -> Option<(usize, OwnedFd, FileType)> {
        for (n, layer) in self.layers.iter().enumerate() {
            match look(layer, path) {
                Found::Here(fd, kind) => return Some((n, fd, kind)),
                Found::Below => {}
                Found::Hidden => return None,
            }
        }
        None
    }

    /// Follows links, in the view.
    fn resolve(&self, path: &str) -> Option<(usize, PathBuf, FileType)> {
        let mut todo: Vec<String> = parts(path);
        let mut done = PathBuf::new();
        let mut links = 0;
        let mut last = (0, FileType::Directory);
        while let Some(part) = todo.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            let next = done.join(&part);
            let (n, fd, kind) = self.find(&next)?;
            if kind == FileType::Symlink {
                links += 1;
                if links > 40 {
                    return None;
                }
                let target = readlinkat(&fd, "", Vec::new()).ok()?.into_string().ok()?;
                if target.starts_with('/') {
                    done = PathBuf::new();
                }
                todo.extend(parts(&target));
                continue;
            }
            done = next;
            last = (n, kind);
        }
        Some((last.0, done, last.1))
    }

    /// The text of a regular file, at most eight MiB of it.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        let read = || {
            let mut data = Vec::with_capacity(4096);
            self.open(path)?.take(MAX_FILE).read_to_end(&mut data).ok().map(|_| data)
        };
        self.seen.borrow_mut().entry(path.into()).or_insert_with(read).clone()
    }

    fn open(&self, path: &str) -> Option<File> {
        let plain = Path::new(path.trim_start_matches('/'));
        for layer in &self.layers {
            match open_regular(layer, plain) {
                Ok(file) => return Some(file),
                Err(Errno::NOENT) if matches!(look(layer, plain), Found::Below) => {}
                // (a link on the way, or the file itself, or what hides it)
                Err(_) => break,
            }
        }
        let (n, path, _) = self.resolve(path)?;
        open_regular(&self.layers[n], &path).ok()
    }

    /// There is something at a path.
    pub fn exists(&self, path: &str) -> bool {
        self.resolve(path).is_some()
    }

    /// The directory at a path, its links followed in the view; none if there is none.
    pub fn directory(&self, path: &str) -> Option<DirectoryView> {
        let (top, path, kind) = self.resolve(path)?;
        if kind != FileType::Directory {
            return None;
        }
        let at = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        let open = |layer: &OwnedFd| openat2(layer, at, flags, Mode::empty(), resolve).ok();
        let stat = fstat(open(&self.layers[top])?).ok()?;
        let mut has_files = false;
        for dir in self.layers[top..].iter().filter_map(open) {
            let names = rustix::fs::Dir::read_from(&dir).into_iter().flatten().flatten();
            let mut names = names.map(|e| e.file_name().to_string_lossy().into_owned());
            // (what a layer above has whited out is in none of them)
            if names.any(|n| n != "." && n != ".." && self.find(&path.join(n)).is_some()) {
                has_files = true;
                break;
            }
        }
        Some(DirectoryView { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777, has_files })
    }

    /// There is a directory at a path.
    pub fn is_dir(&self, path: &str) -> bool {
        self.resolve(path).is_some_and(|(.., kind)| kind == FileType::Directory)
    }
}

/// A regular file, at a path without links.
fn open_regular(layer: &OwnedFd, path: &Path) -> std::result::Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let file = openat2(layer, path, flags, Mode::empty(), resolve)?;
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        _ => Err(Errno::INVAL),
    }
}

/// Components, the last first.
fn parts(path: &str) -> Vec<String> {
    let mut all: Vec<String> = Path::new(path)
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    all.reverse();
    all
}

fn look(layer: &OwnedFd, path: &Path) -> Found {
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(layer, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH).or_else(
            |e| match e {
                // the last component is a link, which NO_SYMLINKS refuses too: its directory is none
                Errno::LOOP => {
                    let parent = openat2(
                        layer,
                        parent_of(path),
                        OFlags::PATH | OFlags::CLOEXEC,
                        Mode::empty(),
                        ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH,
                    )?;
                    openat(&parent, path.file_name().unwrap_or_default(), flags, Mode::empty())
                }
                e => Err(e),
            },
        )
    };
    match open(path) {
        Ok(fd) => match fstat(&fd) {
            Ok(stat)
                if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                    && stat.st_rdev == 0 =>
            {
                Found::Hidden
            }
            Ok(stat) => Found::Here(fd, FileType::from_raw_mode(stat.st_mode)),
            Err(_) => Found::Hidden,
        },
        Err(Errno::NOENT) => {
            // a directory on the way may hide what is below it
            for ancestor in path.ancestors().skip(1).filter(|a| !a.as_os_str().is_empty()) {
                match open(ancestor) {
                    Ok(fd) if is_opaque(layer, ancestor, &fd) => return Found::Hidden,
                    Ok(_) => return Found::Below,
                    Err(Errno::NOENT) => {}
                    Err(_) => return Found::Hidden,
                }
            }
            Found::Below
        }
        Err(_) => Found::Hidden,
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Not a directory, or one that shows nothing of the layers below.
fn is_opaque(layer: &OwnedFd, path: &Path, handle: &OwnedFd) -> bool {
    let is_dir = fstat(handle).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened =
        openat2(layer, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH);
    let mut value = [0; 1];
    !is_dir
        || opened.is_ok_and(|dir| {
            fgetxattr(dir.as_fd(), "user.overlay.opaque", &mut value[..]).is_ok() && value == *b"y"
        })
}

/// Among `--group-add`: the caller's supplementary groups are kept, though they have no id in the container.
pub const KEEP_GROUPS: &str = "keep-groups";

/// A user as the container has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups. The first one is the primary group: a process that gives that up (setgid programs let
    /// anybody do so) must not win what is denied to the group.
    pub groups: Vec<u32>,
    /// Home directory, if passwd has one.
    pub home: Option<String>,
    /// Its name, if passwd has one.
    pub name: Option<String>,
}

struct PasswdEntry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

fn text_of(view: &RootView, path: &str) -> String {
    String::from_utf8_lossy(&view.read(path).unwrap_or_default()).into_owned()
}

fn passwd(text: &str) -> impl Iterator<Item = PasswdEntry> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, ..] = fields[..] else { return None };
        let home = fields.get(5).copied().unwrap_or_default();
        Some(PasswdEntry {
            name: name.into(),
            uid: uid.trim().parse().ok()?,
            gid: gid.trim().parse().ok()?,
            home: home.into(),
        })
    })
}

fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?.trim().parse().ok()?);
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn unknown(what: &str, name: &str, file: &str) -> Error {
    Error::new(
        ErrorKind::NotExecutable,
        format_args!("unable to find {what} {name}: no matching entries in {file} file"),
    )
}

/// Who `USER[:GROUP]` is, by name or number; empty is root. `more` are groups besides.
pub fn resolve(view: &RootView, wanted: &str, more: &[String]) -> Result<ResolvedUser> {
    let (passwd_text, group_text) = (view.passwd().unwrap_or_default(), text_of(view, "/etc/group"));
    let (user, group) = wanted.split_once(':').unwrap_or((wanted, ""));
    let user = if user.is_empty() { "0" } else { user };
    let by_name = passwd(&passwd_text).find(|entry| entry.name == user);
    let number = user.parse::<u32>().ok();
    let entry = by_name.or_else(|| passwd(&passwd_text).find(|entry| Some(entry.uid) == number));
    let mut resolved = match (&entry, number) {
        (Some(entry), _) => ResolvedUser {
            uid: entry.uid,
            gid: entry.gid,
            home: Some(entry.home.clone()).filter(|h| !h.is_empty()),
            name: Some(entry.name.clone()),
            ..ResolvedUser::default()
        },
        (None, Some(uid)) => ResolvedUser { uid, ..ResolvedUser::default() },
        (None, None) => return Err(unknown("user", user, "passwd")),
    };
    let group_id = |name: &str| {
        let found = groups(&group_text).find(|(known, ..)| *known == name).map(|(_, gid, _)| gid);
        found.or_else(|| name.parse().ok()).ok_or_else(|| unknown("group", name, "group"))
    };
    if !group.is_empty() {
        resolved.gid = group_id(group)?;
    } else if let Some(name) = &resolved.name {
        let mine = groups(&group_text).filter(|(.., members)| members.split(',').any(|m| m == name));
        resolved.groups = mine.map(|(_, gid, _)| gid).filter(|gid| *gid != resolved.gid).collect();
    }
    resolved.groups.insert(0, resolved.gid);
    for name in more.iter().filter(|name| *name != KEEP_GROUPS) {
        let gid = group_id(name)?;
        if !resolved.groups.contains(&gid) {
            resolved.groups.push(gid);
        }
    }
    Ok(resolved)
}

/// The container's name for a user id.
pub fn name_of_uid(passwd_text: &str, uid: u32) -> Option<String> {
    passwd(passwd_text).find(|entry| entry.uid == uid).map(|entry| entry.name)
}

/// The container's name for a group id.
pub fn name_of_gid(group_text: &str, gid: u32) -> Option<String> {
    groups(group_text).find(|(_, id, _)| *id == gid).map(|(name, ..)| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn layers(name: &str) -> (PathBuf, Vec<PathBuf>) {
        let base = std::env::temp_dir().join(format!("unroot-users-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        let dirs = ["top", "bottom"].map(|d| base.join(d));
        dirs.iter().for_each(|d| fs::create_dir_all(d.join("etc")).unwrap());
        (base, dirs.to_vec())
    }

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nsync:x:5:0:sync:/sbin:/bin/sync\n1234:x:77:7::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:sync,root\nwheel:x:10:sync\n";

    #[test]
    fn users() {
        let (base, dirs) = layers("users");
        fs::write(dirs[1].join("etc/passwd"), PASSWD).unwrap();
        fs::write(dirs[1].join("etc/group"), GROUP).unwrap();
        let view = RootView::new(&dirs);
        let get = |user: &str| {
            resolve(&view, user, &[]).map(|u| (u.uid, u.gid, u.groups)).map_err(|e| e.to_string())
        };
        assert_eq!(get("").unwrap(), (0, 0, vec![0, 50]));
        assert_eq!(get("sync").unwrap(), (5, 0, vec![0, 50, 10]));
        assert_eq!(get("5").unwrap(), (5, 0, vec![0, 50, 10]));
        assert_eq!(get("5:50").unwrap(), (5, 50, vec![50]));
        assert_eq!(get("sync:wheel").unwrap(), (5, 10, vec![10]));
        assert_eq!(get("4321:567").unwrap(), (4321, 567, vec![567]));
        assert_eq!(get("1234").unwrap(), (77, 7, vec![7]), "a name of digits is a name first");
        assert_eq!(
            get("Fatherlinux").unwrap_err(),
            "unable to find user Fatherlinux: no matching entries in passwd file"
        );
        assert_eq!(
            get("0:nosuch").unwrap_err(),
            "unable to find group nosuch: no matching entries in group file"
        );
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn links_stay_in_the_image() {
        let (base, dirs) = layers("links");
        fs::write(base.join("outside"), PASSWD).unwrap();
        symlink("../../outside", dirs[0].join("etc/passwd")).unwrap();
        symlink(base.join("outside"), dirs[0].join("etc/group")).unwrap();
        fs::create_dir_all(dirs[1].join("usr/share")).unwrap();
        fs::write(dirs[1].join("usr/share/real"), "text").unwrap();
        symlink("/usr/share/real", dirs[1].join("etc/link")).unwrap();
        symlink("loop", dirs[1].join("etc/loop")).unwrap();
        let view = RootView::new(&dirs);
        assert_eq!(view.read("/etc/passwd"), None);
        assert_eq!(view.read("/etc/group"), None);
        assert_eq!(view.read("/etc/link").unwrap(), b"text");
        assert_eq!(view.read("/etc/loop"), None);
        assert!(view.is_dir("/usr/share") && !view.exists("/nosuch"));
        fs::remove_dir_all(base).unwrap();
    }
}
