//! The mounts of a spec, made inside the new root. A target is resolved with openat2(RESOLVE_IN_ROOT): whatever
//! links the image has, it stays in the root; what is missing is made on the way.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, open_tree,
};

use unroot_sys::SyscallError;
use unroot_sys::mount::{attr, set_attributes};
use unroot_sys::path::openat2;

use unroot_idmap::{Extent, IdMap, IdMaps};

use crate::rootfs::{attach, clone_tree, log_of, shift_owners};
use crate::spec::Mount;

/// Options of a mount, sorted by whom they are for.
#[derive(Debug, Default)]
pub struct Options {
    set: u64,
    clear: u64,
    recursive_set: u64,
    recursive: bool,
    propagation: Option<MountPropagationFlags>,
    data: Vec<(String, Option<String>)>,
    copy_up: bool,
    /// Where it cannot be made on a read-only filesystem it is left out.
    optional: bool,
}

impl Options {
    /// Sorts them.
    pub fn parse(options: &[String]) -> Self {
        let mut parsed = Self::default();
        for option in options {
            parsed.add(option);
        }
        parsed
    }

    fn add(&mut self, option: &str) {
        let one = |name: &str| match name {
            "ro" => Some((attr::RDONLY, true)),
            "rw" => Some((attr::RDONLY, false)),
            "nosuid" => Some((attr::NOSUID, true)),
            "suid" => Some((attr::NOSUID, false)),
            "nodev" => Some((attr::NODEV, true)),
            "dev" => Some((attr::NODEV, false)),
            "noexec" => Some((attr::NOEXEC, true)),
            "exec" => Some((attr::NOEXEC, false)),
            "noatime" => Some((attr::NOATIME, true)),
            "strictatime" => Some((attr::STRICTATIME, true)),
            "nodiratime" => Some((attr::NODIRATIME, true)),
            "relatime" => Some((0, true)),
            _ => None,
        };
        if let Some((bits, on)) = one(option) {
            if on {
                self.set |= bits;
                self.clear &= !bits;
            } else {
                self.set &= !bits;
                self.clear |= bits;
            }
            if bits & attr::ATIME != 0 {
                self.clear |= attr::ATIME;
            }
            return;
        }
        if let Some((bits, true)) = option.strip_prefix('r').and_then(one) {
            self.recursive_set |= bits;
            return;
        }
        let recursive = |flag| flag | MountPropagationFlags::REC;
        match option {
            "bind" => self.recursive = false,
            "rbind" => self.recursive = true,
            "private" => self.propagation = Some(MountPropagationFlags::PRIVATE),
            "rprivate" => self.propagation = Some(recursive(MountPropagationFlags::PRIVATE)),
            "slave" => self.propagation = Some(MountPropagationFlags::DOWNSTREAM),
            "rslave" => self.propagation = Some(recursive(MountPropagationFlags::DOWNSTREAM)),
            "shared" => self.propagation = Some(MountPropagationFlags::SHARED),
            "rshared" => self.propagation = Some(recursive(MountPropagationFlags::SHARED)),
            "unbindable" => self.propagation = Some(MountPropagationFlags::UNBINDABLE),
            "runbindable" => self.propagation = Some(recursive(MountPropagationFlags::UNBINDABLE)),
            "tmpcopyup" => self.copy_up = true,
            "optional" => self.optional = true,
            _ => self.data.push(match option.split_once('=') {
                Some((key, value)) => (key.into(), Some(value.into())),
                None => (option.into(), None),
            }),
        }
    }

    /// What an option that is none of a mount's is set to.
    fn value(&self, name: &str) -> Option<&str> {
        self.data.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref())
    }
}

/// A mount whose source has been opened, so that later steps cannot change what it is.
pub struct Prepared<'a> {
    mount: &'a Mount,
    options: Options,
    tree: Option<(OwnedFd, bool)>,
}

/// A bind with other owners (`idmap=uids=DISK-HERE-AMOUNT#...;gids=...`), which a process in a user namespace below the
/// caller's could not make: the caller does it for it.
pub fn shifted(mount: &Mount) -> Result<Option<(OwnedFd, bool)>, SyscallError> {
    let options = Options::parse(&mount.options);
    let Some(text) = options.value("idmap").filter(|_| mount.kind == "bind") else { return Ok(None) };
    let wrong =
        || SyscallError::new(format!("mount option idmap={text} of {}", mount.destination), Errno::INVAL);
    let mut maps = IdMaps::default();
    for part in text.split(';') {
        let (kind, list) = part.split_once('=').ok_or_else(wrong)?;
        let triple = |triple: &str| {
            let numbers: Vec<u32> = triple.split('-').map_while(|n| n.parse().ok()).collect();
            match numbers[..] {
                [disk, here, length] => Ok(Extent::new(disk, here, length)),
                _ => Err(wrong()),
            }
        };
        let extents = list.split('#').map(triple).collect::<Result<Vec<_>, _>>()?;
        let map = IdMap::new(extents).map_err(|_| wrong())?;
        match kind {
            "uids" => maps.uid = map,
            _ => maps.gid = map,
        }
    }
    let prepared = prepare(mount)?;
    let tree = prepared.tree.ok_or_else(wrong)?;
    shift_owners(&tree.0, &maps, Path::new(&mount.source))?;
    Ok(Some(tree))
}

/// The same with a source that is open already.
pub fn prepared<'a>(mount: &'a Mount, tree: &(OwnedFd, bool)) -> Result<Prepared<'a>, SyscallError> {
    let duplicate =
        rustix::io::fcntl_dupfd_cloexec(&tree.0, 3).map_err(|e| SyscallError::new("dup(mount)", e))?;
    Ok(Prepared { mount, options: Options::parse(&mount.options), tree: Some((duplicate, tree.1)) })
}

/// Opens the source of a bind; others have none yet.
pub fn prepare(mount: &Mount) -> Result<Prepared<'_>, SyscallError> {
    let mut options = Options::parse(&mount.options);
    if mount.destination == "/dev" {
        // (devices and other mounts are made in it first)
        options.set &= !attr::RDONLY;
    }
    let tree = match mount.kind.as_str() {
        "bind" => {
            let source = Path::new(&mount.source);
            if let Some(below) = options.value("subpath") {
                let (tree, is_dir) = clone_below(source, below, options.recursive)?;
                return Ok(Prepared { mount, options, tree: Some((tree, is_dir)) });
            }
            let is_dir = fs::metadata(source)
                .map_err(|e| {
                    let errno = Errno::from_io_error(&e).unwrap_or(Errno::IO);
                    SyscallError::new(
                        format!("stat({source:?}), to be mounted on {}", mount.destination),
                        errno,
                    )
                })?
                .is_dir();
            Some(match of_process(&mount.source) {
                Some((pid, path)) => clone_elsewhere(pid, path)?,
                None => (clone_tree(source, options.recursive)?, is_dir),
            })
        }
        _ => None,
    };
    Ok(Prepared { mount, options, tree })
}

/// A copy of the mount at a path below a directory: links that whoever writes to the directory has put there lead
/// nowhere else.
fn clone_below(directory: &Path, below: &str, recursive: bool) -> Result<(OwnedFd, bool), SyscallError> {
    let failed = |e| SyscallError::new(format!("openat2({directory:?}, {below:?}, RESOLVE_IN_ROOT)"), e);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(directory, flags, Mode::empty()).map_err(failed)?;
    let place = openat2(
        &root,
        relative(below),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
    .map_err(failed)?;
    let stat = rustix::fs::fstat(&place).map_err(failed)?;
    let is_dir = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    let tree = open_tree(place.as_fd(), "", flags)
        .map_err(|e| SyscallError::new(format!("open_tree({directory:?} {below:?}, OPEN_TREE_CLONE)"), e))?;
    Ok((tree, is_dir))
}

/// `/proc/PID/root/PATH`
fn of_process(source: &str) -> Option<(&str, &str)> {
    let (pid, rest) = source.strip_prefix("/proc/")?.split_once("/root/")?;
    pid.bytes().all(|b| b.is_ascii_digit()).then_some((pid, rest))
}

/// A copy of a mount in another process's mount namespace, which has to be entered for that.
pub fn clone_elsewhere(pid: &str, path: &str) -> Result<(OwnedFd, bool), SyscallError> {
    let open = |pid: &str| {
        let path = format!("/proc/{pid}/ns/mnt");
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| SyscallError::new(format!("open({path:?})"), e))
    };
    let (own, other) = (open("self")?, open(pid)?);
    let mount = [unroot_sys::process::Namespace::Mount].into_iter().collect();
    unroot_sys::ns::setns(other.as_fd(), mount)?;
    let tree = clone_below(Path::new("/"), path, false);
    unroot_sys::ns::setns(own.as_fd(), mount)?;
    tree
}

/// Makes a mount below the root.
pub fn make(root: &OwnedFd, prepared: &Prepared<'_>) -> Result<(), SyscallError> {
    let Prepared { mount, options, tree } = prepared;
    let (mounted, is_dir) = match tree {
        Some((tree, is_dir)) => {
            change(tree, options)?;
            (None, *is_dir)
        }
        None => (Some(new_filesystem(mount, options)?), true),
    };
    let tree = mounted.as_ref().or(tree.as_ref().map(|(fd, _)| fd)).expect("one of both");
    let copies = options.copy_up && is_dir && open_in(root, &mount.destination).is_ok();
    let target = match ensure(root, &mount.destination, is_dir) {
        Err(e) if options.optional && e.errno == Errno::ROFS => return Ok(()),
        other => other?,
    };
    if copies {
        copy_up(root, &mount.destination, tree, options)?;
    }
    attach(tree, &target, &format!("{} on {}", mount.kind, mount.destination))?;
    propagate(root, mount, options)
}

fn change(tree: &OwnedFd, options: &Options) -> Result<(), SyscallError> {
    if options.set | options.clear != 0 {
        set_attributes(tree.as_fd(), options.set, options.clear, false, None)?;
    }
    if options.recursive_set != 0 {
        set_attributes(tree.as_fd(), options.recursive_set, 0, true, None)?;
    }
    Ok(())
}

/// What is mounted stays the container's own unless another propagation was asked for.
fn propagate(root: &OwnedFd, mount: &Mount, options: &Options) -> Result<(), SyscallError> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    let propagation = match (mount.kind.as_str(), options.propagation) {
        ("bind", None) => private,
        (_, None) => return Ok(()),
        (_, Some(propagation)) => propagation,
    };
    let place = open_in(root, &mount.destination)?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&place));
    mount_change(path, propagation)
        .map_err(|e| SyscallError::new(format!("mount({}, {propagation:?})", mount.destination), e))
}

fn new_filesystem(mount: &Mount, options: &Options) -> Result<OwnedFd, SyscallError> {
    let kind = mount.kind.as_str();
    let failed = |step: &str, context: Option<&OwnedFd>, e| {
        let log = context.map(log_of).unwrap_or_default();
        SyscallError::new(format!("{step}({kind:?}) for {}{log}", mount.destination), e)
    };
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| failed("fsopen", None, e))?;
    if !mount.source.is_empty() {
        let _ = fsconfig_set_string(context.as_fd(), "source", mount.source.as_str());
    }
    for (key, value) in &options.data {
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), key.as_str(), value.as_str()),
            None => fsconfig_set_flag(context.as_fd(), key.as_str()),
        }
        .map_err(|e| {
            let value = value.as_ref().map(|v| format!("={v}")).unwrap_or_default();
            failed(&format!("mount option {key}{value}"), Some(&context), e)
        })?;
    }
    fsconfig_create(context.as_fd()).map_err(|e| failed("mount", Some(&context), e))?;
    let attributes = MountAttrFlags::from_bits_retain(options.set as u32);
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|e| failed("fsmount", Some(&context), e))
}

/// A handle on a path in the root; links are followed inside of it.
pub fn open_in(root: &OwnedFd, path: &str) -> Result<OwnedFd, SyscallError> {
    openat2(root, relative(path), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
        .map_err(|e| {
            SyscallError::new(format!("openat2({:?}, RESOLVE_IN_ROOT)", Path::new("/").join(path)), e)
        })
}

fn relative(path: &str) -> &str {
    let path = path.trim_start_matches('/');
    if path.is_empty() { "." } else { path }
}

/// A handle on a path in the root, made if it is missing: a directory or an empty file. A link that points to what
/// is not there yet has that made, inside of the root.
pub fn ensure(root: &OwnedFd, path: &str, is_dir: bool) -> Result<OwnedFd, SyscallError> {
    let mut path = PathBuf::from(relative(path));
    for _ in 0..MOST_LINKS {
        match open_in(root, &path.to_string_lossy()) {
            Err(e) if e.errno == Errno::NOENT => {}
            other => return other,
        }
        if let Some(behind) = make_missing(root, &path, is_dir)? {
            path = behind;
        }
    }
    Err(SyscallError::new(format!("openat2({path:?}, RESOLVE_IN_ROOT)"), Errno::LOOP))
}

/// As many links as the kernel follows in one path (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Makes what is missing of a path. Where a link on the way leads to nothing, that is the path to be made instead.
fn make_missing(root: &OwnedFd, path: &Path, is_dir: bool) -> Result<Option<PathBuf>, SyscallError> {
    let make = |parent: &OwnedFd, name: &std::ffi::OsStr, is_dir: bool| match is_dir {
        true => mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        false => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    };
    // most often the last part alone is missing
    if let (Some(Component::Normal(name)), Some(parent)) = (path.components().next_back(), path.parent())
        && open_in(root, &parent.to_string_lossy()).is_ok_and(|parent| make(&parent, name, is_dir).is_ok())
    {
        return Ok(None);
    }
    let mut parts = path.components().peekable();
    let mut made = PathBuf::new();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            // (`..` is the kernel's to resolve, never out of the root)
            made.push(part);
            continue;
        };
        let parent = open_in(root, &made.to_string_lossy())?;
        let before = made.clone();
        made.push(name);
        match make(&parent, name, parts.peek().is_some() || is_dir) {
            Ok(()) => {}
            Err(Errno::EXIST) => match open_in(root, &made.to_string_lossy()) {
                Err(e) if e.errno == Errno::NOENT => {
                    let link = rustix::fs::readlinkat(&parent, name, Vec::new())
                        .map_err(|e| SyscallError::new(format!("readlink({made:?}) in the container"), e))?;
                    let target = Path::new(std::ffi::OsStr::from_bytes(link.to_bytes()));
                    let from = if target.is_absolute() { PathBuf::from(".") } else { before };
                    let target = target.strip_prefix("/").unwrap_or(target);
                    return Ok(Some(from.join(target).join(parts.collect::<PathBuf>())));
                }
                other => drop(other?),
            },
            Err(e) => return Err(SyscallError::new(format!("make({made:?}) in the container"), e)),
        }
    }
    Ok(None)
}

/// Hides paths: a file behind /dev/null, a directory behind an empty one that nobody can write to.
pub fn mask(root: &OwnedFd, paths: &[String]) -> Result<(), SyscallError> {
    let mut empty = None;
    for path in paths {
        let target = match open_in(root, path) {
            Err(e) if matches!(e.errno, Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => continue,
            other => other?,
        };
        let is_dir = rustix::fs::fstat(&target)
            .is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode) == rustix::fs::FileType::Directory);
        let cover = match (is_dir, &empty) {
            (true, None) => empty_directory()?,
            (true, Some(empty)) => copy_of(empty)?,
            (false, _) => clone_tree(Path::new("/dev/null"), false)?,
        };
        attach(&cover, &target, &format!("mask {path}"))?;
        if is_dir {
            // (the one that is in place: to give one up that is not makes the kernel wait for all its readers)
            empty = Some(cover);
        }
    }
    Ok(())
}

fn empty_directory() -> Result<OwnedFd, SyscallError> {
    let options: Vec<String> =
        ["ro", "nosuid", "nodev", "noexec", "size=0k", "mode=0555"].map(String::from).into();
    let mount = Mount { destination: "a masked directory".into(), kind: "tmpfs".into(), ..Mount::default() };
    new_filesystem(&mount, &Options::parse(&options))
}

fn copy_of(mount: &OwnedFd) -> Result<OwnedFd, SyscallError> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(mount.as_fd(), "", flags).map_err(|e| SyscallError::new("open_tree(mask)", e))
}

/// Makes paths read-only, with what is mounted below.
pub fn read_only(root: &OwnedFd, paths: &[String]) -> Result<(), SyscallError> {
    for path in paths {
        let target = match open_in(root, path) {
            Err(e) if matches!(e.errno, Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => continue,
            other => other?,
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(target.as_fd(), "", flags)
            .map_err(|e| SyscallError::new(format!("open_tree({path:?})"), e))?;
        set_attributes(tree.as_fd(), attr::RDONLY, 0, true, None)?;
        attach(&tree, &target, &format!("read-only {path}"))?;
    }
    Ok(())
}

/// Copies what the image has at a path into a new tmpfs that will be mounted there.
fn copy_up(root: &OwnedFd, path: &str, new: &OwnedFd, options: &Options) -> Result<(), SyscallError> {
    let from = match openat2(
        root,
        relative(path),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    ) {
        Ok(from) => from,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(e) => return Err(SyscallError::new(format!("openat2({path:?})"), e)),
    };
    let to =
        rustix::fs::openat(new, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| SyscallError::new("open(tmpfs)", e))?;
    // (a start after the first one, of a volume that has its files)
    if !is_empty(&to).map_err(|e| SyscallError::new("read directory", e))? {
        return Ok(());
    }
    let failed = |e| SyscallError::new(format!("tmpcopyup of {path:?}"), e);
    copy_directory(&from, &to).map_err(failed)?;
    // (what was asked for goes before what the image has)
    let number = |name: &str, radix| options.value(name).and_then(|v| u32::from_str_radix(v, radix).ok());
    let (uid, gid) = (number("uid", 10).map(owner), number("gid", 10).map(group));
    if uid.is_some() || gid.is_some() {
        rustix::fs::fchown(&to, uid, gid).map_err(failed)?;
    }
    match number("mode", 8) {
        Some(mode) => rustix::fs::fchmod(&to, Mode::from_raw_mode(mode & 0o7777)).map_err(failed),
        None => Ok(()),
    }
}

fn is_empty(dir: &OwnedFd) -> Result<bool, Errno> {
    for entry in rustix::fs::Dir::read_from(dir)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Copies a directory's files, links and directories with owners, modes and times; nothing is followed.
pub fn copy_directory(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    use rustix::fs::{
        AtFlags, Dir, FileType, Timespec, Timestamps, chownat, fchmod, openat, readlinkat, statat, symlinkat,
        utimensat,
    };
    let own = rustix::fs::fstat(from)?;
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                let inner = openat(from, name, flags | OFlags::DIRECTORY, Mode::empty())?;
                copy_directory(&inner, &openat(to, name, flags | OFlags::DIRECTORY, Mode::empty())?)?;
            }
            FileType::RegularFile => {
                let source = openat(from, name, flags, Mode::empty())?;
                let copy = openat(
                    to,
                    name,
                    flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
                    Mode::from_raw_mode(0o600),
                )?;
                let (mut source, mut copy) = (fs::File::from(source), fs::File::from(copy));
                std::io::copy(&mut source, &mut copy)
                    .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
                rustix::fs::fchown(&copy, Some(owner(stat.st_uid)), Some(group(stat.st_gid)))?;
                fchmod(&copy, mode)?;
            }
            FileType::Symlink => {
                let target = readlinkat(from, name, Vec::new())?;
                symlinkat(&target, to, name)?;
                chownat(
                    to,
                    name,
                    Some(owner(stat.st_uid)),
                    Some(group(stat.st_gid)),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
            }
            kind @ FileType::Fifo => rustix::fs::mknodat(to, name, kind, mode, 0)?,
            _ => {}
        }
        let time = |sec: i64, nsec: u64| Timespec { tv_sec: sec, tv_nsec: nsec as _ };
        let times = Timestamps {
            last_access: time(stat.st_atime as i64, stat.st_atime_nsec as u64),
            last_modification: time(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
        };
        let _ = utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW);
    }
    rustix::fs::fchown(to, Some(owner(own.st_uid)), Some(group(own.st_gid)))?;
    fchmod(to, Mode::from_raw_mode(own.st_mode & 0o7777))
}

fn owner(uid: u32) -> rustix::fs::Uid {
    rustix::fs::Uid::from_raw(uid)
}

fn group(gid: u32) -> rustix::fs::Gid {
    rustix::fs::Gid::from_raw(gid)
}

/// The host's mounts do not hear of ours; whether ours hear of the host's ends with pivot_root.
pub fn stop_propagation() -> Result<(), SyscallError> {
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(|e| SyscallError::new("mount(\"/\", MS_REC|MS_SLAVE)", e))
}

/// As [`stop_propagation`], but for the one mount that a directory is on: what is mounted below it is this mount
/// namespace's own, and binds of other places can still be shared with the host.
pub fn stop_propagation_at(directory: &Path) -> Result<(), SyscallError> {
    let failed = |e: Errno| SyscallError::new(format!("mount({directory:?}, MS_SLAVE)"), e);
    let mount_of = |dir: &Path| {
        let flags = rustix::fs::AtFlags::empty();
        rustix::fs::statx(rustix::fs::CWD, dir, flags, rustix::fs::StatxFlags::MNT_ID)
            .map(|stat| stat.stx_mnt_id)
            .map_err(failed)
    };
    let real = directory.canonicalize().map_err(|e| failed(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
    let own = mount_of(&real)?;
    let mut top = real.as_path();
    while let Some(parent) = top.parent() {
        if mount_of(parent)? != own {
            break;
        }
        top = parent;
    }
    mount_change(top, MountPropagationFlags::DOWNSTREAM).map_err(failed)
}

/// Writes kernel settings through the container's own /proc.
pub fn write_sysctls<'a>(
    root: &OwnedFd,
    settings: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<(), SyscallError> {
    for (name, value) in settings {
        let path = format!("proc/sys/{}", name.replace('.', "/"));
        let failed = |e| SyscallError::new(format!("write {value:?} to /{path} (--sysctl {name})"), e);
        let open = |root: BorrowedFd<'_>| {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = openat2(
                root,
                path.as_str(),
                flags,
                Mode::empty(),
                ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
            )?;
            // (a volume may be there)
            let is_proc = rustix::fs::fstatfs(&file)?.f_type == rustix::fs::PROC_SUPER_MAGIC;
            if is_proc { Ok(file) } else { Err(Errno::NOENT) }
        };
        let file = match open(root.as_fd()) {
            // where the user mounts something else, the host's shows this process's namespaces as well
            Err(Errno::NOENT | Errno::LOOP) => {
                let host = crate::rootfs::open_path(Path::new("/"))?;
                open(host.as_fd()).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        rustix::io::write(&file, value.as_bytes()).map_err(failed)?;
    }
    Ok(())
}

/// Makes the current directory, a mount, the root, and lets go of the old one.
pub fn pivot(root: &OwnedFd) -> Result<(), SyscallError> {
    rustix::process::fchdir(root).map_err(|e| SyscallError::new("fchdir(rootfs)", e))?;
    rustix::process::pivot_root(".", ".").map_err(|e| SyscallError::new("pivot_root(\".\", \".\")", e))?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)
        .map_err(|e| SyscallError::new("umount2(\".\", MNT_DETACH)", e))?;
    rustix::process::chdir("/").map_err(|e| SyscallError::new("chdir(\"/\")", e))?;
    Ok(())
}
