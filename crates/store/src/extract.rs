//! A layer's tar becomes a directory as overlayfs has it. The archive is hostile: every path is resolved below the
//! directory by the kernel (openat2, RESOLVE_IN_ROOT), nothing is made through a link that leads out, and ids are
//! looked at before anything of an entry is written.
//!
//! Whiteouts become overlayfs' own: `.wh.NAME` a character device 0:0, `.wh..wh..opq` the attribute
//! `user.overlay.opaque`, which unprivileged mounts (`userxattr`) honour. Devices cannot be made in a user namespace;
//! there they are left out, as other engines do: containers get their devices from the engine.

mod file;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags, chmodat, chownat, fchmod,
    fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};
use unroot_sys::path::openat2;

use crate::layer::IdCheck;
use crate::recipe::Recorder;
use crate::removal::remove_in;
use crate::{Call as _, Error, Result, invalid};
use file::{BUFFER, Finisher, Made, Meta, SPARSE, times};

/// Entries of one layer.
const MAX_ENTRIES: u64 = 20_000_000;

/// How a tar that is no layer is unpacked.
pub struct Unpack<'a> {
    /// Whose a file becomes, of what the tar says; or why it cannot.
    pub owner: &'a dyn Fn(u32, u32) -> std::result::Result<(u32, u32), String>,
    /// A directory may be replaced by something else, and something else by a directory.
    pub overwrite: bool,
    /// What the directory is called in errors.
    pub shown: &'a Path,
}

/// Extracts one layer.
pub struct Extractor<'a> {
    root: OwnedFd,
    ids: IdCheck<'a>,
    parent: Option<(PathBuf, OwnedFd)>,
    directory_times: HashMap<PathBuf, i64>,
    can_make_devices: bool,
    /// It is a layer: `.wh.` names are whiteouts.
    is_layer: bool,
    /// Takes down what makes the tar again.
    recorder: Option<Recorder>,
    /// A link leads to the current directory.
    is_linked: bool,
    how: Option<&'a Unpack<'a>>,
    /// Permissions that a file has when it is made with them: neither umask nor an ACL takes them away.
    kept_mode: u32,
    /// A directory gives its group to what is made in it.
    gives_group: bool,
    buffer: Vec<u8>,
    finisher: Option<Finisher>,
    entries: u64,
    max_uid: u32,
    max_gid: u32,
    uids: BTreeSet<u32>,
    gids: BTreeSet<u32>,
}

/// What was in a layer.
pub struct Contents {
    /// How many entries.
    pub entries: u64,
    /// The highest user id.
    pub max_uid: u32,
    /// The highest group id.
    pub max_gid: u32,
    /// All of them, if they are few.
    pub ids: Option<(Vec<u32>, Vec<u32>)>,
}

/// So many ids of a layer are kept in mind.
const MOST_IDS: usize = 1000;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC).union(OFlags::RDONLY);

impl<'a> Extractor<'a> {
    /// Into an empty directory, with what makes the tar again taken down.
    pub fn new(dir: &Path, recorder: Recorder, ids: IdCheck<'a>) -> Result<Self> {
        let root = openat(CWD, dir, DIRECTORY, Mode::empty()).call(|| format!("open {}", dir.display()))?;
        // (as other engines have it, where a layer says nothing of its root)
        fchmod(&root, Mode::from_raw_mode(0o555)).call(|| "fchmod".into())?;
        let kept_mode = kept_mode(&root)?;
        Ok(Self { recorder: Some(recorder), kept_mode, ..Self::of(root, ids, true) })
    }

    /// Files that are no layer, over what is in a directory; devices are left out.
    pub fn plain(dir: &Path, ids: IdCheck<'a>) -> Result<Self> {
        let root = openat(CWD, dir, DIRECTORY, Mode::empty()).call(|| format!("open {}", dir.display()))?;
        Ok(Self::of(root, ids, false))
    }

    /// Files that are no layer, over what is in an open directory; devices are left out.
    pub fn over(root: OwnedFd, ids: IdCheck<'a>, how: &'a Unpack<'a>) -> Self {
        Self { how: Some(how), ..Self::of(root, ids, false) }
    }

    fn of(root: OwnedFd, ids: IdCheck<'a>, is_layer: bool) -> Self {
        Self {
            root,
            ids,
            parent: None,
            directory_times: HashMap::new(),
            can_make_devices: is_layer,
            is_layer,
            recorder: None,
            is_linked: false,
            how: None,
            kept_mode: 0,
            gives_group: false,
            buffer: Vec::new(),
            finisher: None,
            entries: 0,
            max_uid: 0,
            max_gid: 0,
            // (a layer that does not say has a root of root's)
            uids: BTreeSet::from([0]),
            gids: BTreeSet::from([0]),
        }
    }

    /// What was in it.
    pub fn finish(mut self) -> Result<Contents> {
        self.finisher.take().map_or(Ok(()), Finisher::finish)?;
        for (path, mtime) in &self.directory_times {
            let times = times(*mtime, 0);
            if let Ok(dir) = self.open_dir(path) {
                let _ = futimens(&dir, &times);
            }
        }
        let few = self.uids.len() < MOST_IDS && self.gids.len() < MOST_IDS;
        let ids = few.then(|| (self.uids.into_iter().collect(), self.gids.into_iter().collect()));
        Ok(Contents { entries: self.entries, max_uid: self.max_uid, max_gid: self.max_gid, ids })
    }

    /// All of an archive, and what follows it.
    pub fn extract(&mut self, source: &mut dyn Read) -> Result<()> {
        let mut source: Box<dyn Read> = match &self.recorder {
            Some(recorder) => Box::new(recorder.tape(source)),
            None => Box::new(source),
        };
        self.extract_entries(&mut source)?;
        // (it counts for a layer's digest, and whoever writes to a pipe wants it read to its end)
        io::copy(&mut source, &mut io::sink()).call(|| "read layer".into()).map(drop)
    }

    fn extract_entries(&mut self, source: &mut dyn Read) -> Result<()> {
        let mut archive = Archive::new(source);
        archive.set_ignore_zeros(false);
        let entries = archive.entries().call(|| "read layer".into())?;
        for entry in entries {
            let mut entry = entry.call(|| format!("read layer after {} entries", self.entries))?;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return invalid(format!("layer has more than {MAX_ENTRIES} entries"));
            }
            self.entry(&mut entry)?;
        }
        Ok(())
    }

    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<()> {
        let raw = entry.path_bytes().into_owned();
        let path = clean(&raw)?;
        let shown = path.display().to_string();
        let meta = self.meta(entry, &shown)?;
        let Some(name) = path.file_name() else { return self.root_entry(entry, &meta) };
        let parent = path.parent().unwrap_or(Path::new(""));
        self.enter(parent)?;
        if let Some(rest) = name.as_bytes().strip_prefix(b".wh.").filter(|_| self.is_layer) {
            return self.whiteout(rest, &shown);
        }
        let what = if self.is_layer { "layer entry" } else { "entry" };
        self.make(entry, &path, name, &meta).map_err(|e| match e {
            Error::Io { call, error } => Error::Io { call: format!("{what} {shown:?}: {call}"), error },
            other => other,
        })
    }

    fn meta<R: Read>(&mut self, entry: &mut Entry<'_, R>, shown: &str) -> Result<Meta> {
        let header = entry.header();
        let number =
            |what: &str, value: io::Result<u64>| value.call(|| format!("layer entry {shown:?}: {what}"));
        let (mut uid, mut gid) = (number("uid", header.uid())?, number("gid", header.gid())?);
        let mode = header.mode().call(|| format!("layer entry {shown:?}: mode"))? & 0o7777;
        let mut mtime = header.mtime().unwrap_or(0).cast_signed();
        let (mut nanos, mut xattrs) = (0, Vec::new());
        if let Some(extensions) =
            entry.pax_extensions().call(|| format!("layer entry {shown:?}: pax header"))?
        {
            for extension in extensions {
                let extension = extension.call(|| format!("layer entry {shown:?}: pax header"))?;
                let (Ok(key), value) = (extension.key(), extension.value_bytes()) else { continue };
                let text = std::str::from_utf8(value).unwrap_or_default();
                match key {
                    "uid" => {
                        uid = text
                            .parse()
                            .map_err(|_| Error::Invalid(format!("layer entry {shown:?}: uid {text:?}")))?
                    }
                    "gid" => {
                        gid = text
                            .parse()
                            .map_err(|_| Error::Invalid(format!("layer entry {shown:?}: gid {text:?}")))?
                    }
                    "mtime" => (mtime, nanos) = pax_time(text),
                    _ => {
                        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                            xattrs.push((name.to_string(), value.to_vec()));
                        }
                    }
                }
            }
        }
        (self.ids)(shown, uid, gid).map_err(Error::Ids)?;
        let narrow = |id: u64| {
            u32::try_from(id)
                .map_err(|_| Error::Invalid(format!("layer entry {shown:?}: id {id} has more than 32 bits")))
        };
        let (uid, gid) = (narrow(uid)?, narrow(gid)?);
        let (uid, gid) = match self.how {
            Some(how) => (how.owner)(uid, gid).map_err(|e| Error::Ids(format!("{shown}: {e}")))?,
            None => (uid, gid),
        };
        self.max_uid = self.max_uid.max(uid);
        self.max_gid = self.max_gid.max(gid);
        if self.uids.len() < MOST_IDS && self.gids.len() < MOST_IDS {
            self.uids.insert(uid);
            self.gids.insert(gid);
        }
        Ok(Meta { uid, gid, mode: Some(mode), mtime, nanos, xattrs })
    }

    /// `./` itself: the root's own mode and owner.
    fn root_entry<R: Read>(&mut self, entry: &Entry<'_, R>, meta: &Meta) -> Result<()> {
        if entry.header().entry_type() == EntryType::Directory {
            let gets_owner = self.gets_owner(meta);
            file::dress(&self.root, meta, gets_owner)?;
            self.note_gifts(meta);
            self.directory_times.insert(PathBuf::new(), meta.mtime);
        }
        Ok(())
    }

    fn open_dir(&self, path: &Path) -> std::result::Result<OwnedFd, Errno> {
        self.open_resolved(path, ResolveFlags::NO_MAGICLINKS)
    }

    fn open_resolved(&self, path: &Path, resolve: ResolveFlags) -> std::result::Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(&self.root, path, DIRECTORY, Mode::empty(), ResolveFlags::IN_ROOT | resolve)
    }

    /// Makes the directory of the next entry the current one, and what is missing on the way to it.
    fn enter(&mut self, path: &Path) -> Result<()> {
        if self.parent.as_ref().is_some_and(|(known, _)| known == path) {
            return Ok(());
        }
        self.is_linked = false;
        let mut opened = self.open_resolved(path, ResolveFlags::NO_SYMLINKS);
        if opened.as_ref().is_err_and(|e| *e == Errno::LOOP) {
            self.is_linked = true;
            opened = self.open_dir(path);
        }
        let dir = match opened {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_path(path)?,
            Err(e) => return Err(e).call(|| format!("layer: open directory {path:?}")),
        };
        self.parent = Some((path.into(), dir));
        Ok(())
    }

    fn make_path(&self, path: &Path) -> Result<OwnedFd> {
        let mut done = PathBuf::new();
        for part in path.components() {
            let parent = self.open_dir(&done).call(|| format!("layer: open directory {done:?}"))?;
            done.push(part);
            let name = part.as_os_str();
            match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => {}
                Err(Errno::EXIST) => {
                    // a file where a directory has to be, or a link that leads nowhere: the later entry wins
                    if self.open_dir(&done).is_err() {
                        self.clear(&parent, name)?;
                        mkdirat(&parent, name, Mode::from_raw_mode(0o755))
                            .call(|| format!("layer: mkdir {done:?}"))?;
                    }
                }
                Err(e) => return Err(e).call(|| format!("layer: mkdir {done:?}")),
            }
        }
        self.open_dir(path).call(|| format!("layer: open directory {path:?}"))
    }

    fn current(&self) -> &OwnedFd {
        self.parent.as_ref().map_or(&self.root, |(_, dir)| dir)
    }

    fn whiteout(&mut self, name: &[u8], shown: &str) -> Result<()> {
        if name == b".wh..opq" {
            return fsetxattr(self.current(), "user.overlay.opaque", b"y", XattrFlags::empty())
                .call(|| format!("setxattr user.overlay.opaque for {shown:?}: the filesystem of the store has to have user attributes"));
        }
        if name.starts_with(b".wh.") {
            return Ok(()); // AUFS' own bookkeeping
        }
        if matches!(name, b"" | b"." | b"..") {
            return invalid(format!("layer entry {shown:?}: a whiteout of nothing"));
        }
        let name = OsStr::from_bytes(name);
        self.clear(self.current(), name)?;
        mknodat(self.current(), name, FileType::CharacterDevice, Mode::empty(), 0).call(|| {
            format!("mknod of a whiteout for {shown:?}: the filesystem of the store has to allow it")
        })
    }

    /// Where a directory is below the root, whatever links led to it.
    fn real_dir(&self, dir: &OwnedFd) -> Result<PathBuf> {
        let path = |fd: &OwnedFd| {
            let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
            std::fs::read_link(&link).call(|| format!("readlink {link}"))
        };
        let (dir, root) = (path(dir)?, path(&self.root)?);
        dir.strip_prefix(&root)
            .map(Path::to_path_buf)
            .map_err(|_| Error::Invalid(format!("layer: {} is not below {}", dir.display(), root.display())))
    }

    /// Whatever has this name goes: a later entry wins. What it was is needed to write the tar again.
    fn clear(&self, dir: &OwnedFd, name: &OsStr) -> Result<()> {
        if let Some(recorder) = &self.recorder {
            match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return Ok(()),
                Err(e) => return Err(e).call(|| format!("layer: stat {name:?}")),
                Ok(stat) => {
                    let kind = FileType::from_raw_mode(stat.st_mode);
                    if matches!(kind, FileType::RegularFile | FileType::Directory) {
                        let path = self.real_dir(dir)?.join(name);
                        return recorder.keep(dir, name, &path);
                    }
                }
            }
        }
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {
                self.may_replace(name)?;
                remove_in(dir, name).call(|| format!("layer: remove directory {name:?}"))
            }
            Err(e) => Err(e).call(|| format!("layer: unlink {name:?}")),
        }
    }

    /// A directory and something else are in each other's way.
    fn may_replace(&self, name: &OsStr) -> Result<()> {
        match self.how.filter(|how| !how.overwrite) {
            None => Ok(()),
            Some(how) => {
                let parent = self.parent.as_ref().map_or(Path::new(""), |(path, _)| path);
                let path = how.shown.join(parent).join(name);
                invalid(format!(
                    "error creating {path:?}: one of a directory and another file is there: file exists"
                ))
            }
        }
    }

    fn make<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        path: &Path,
        name: &OsStr,
        meta: &Meta,
    ) -> Result<()> {
        match entry.header().entry_type() {
            EntryType::Directory => return self.directory(path, name, meta),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                return self.file(entry, path, name, meta);
            }
            EntryType::XGlobalHeader => return Ok(()),
            _ => {}
        }
        let link_target = || -> Result<Vec<u8>> {
            entry
                .link_name_bytes()
                .map(|l| l.into_owned())
                .ok_or_else(|| Error::Invalid(format!("layer entry {path:?}: a link without a target")))
        };
        match entry.header().entry_type() {
            EntryType::Symlink => {
                let target = link_target()?;
                self.clear(self.current(), name)?;
                symlinkat(OsStr::from_bytes(&target), self.current(), name).call(|| "symlink".into())?;
            }
            EntryType::Link => return self.hard_link(&link_target()?, path, name),
            kind @ (EntryType::Char | EntryType::Block | EntryType::Fifo) => {
                self.clear(self.current(), name)?;
                let number = |n: io::Result<Option<u32>>| n.ok().flatten().unwrap_or(0);
                let device =
                    makedev(number(entry.header().device_major()), number(entry.header().device_minor()));
                if !self.special(kind, name, device)? {
                    return Ok(());
                }
                let mode = Mode::from_raw_mode(meta.mode.unwrap_or(0));
                chmodat(self.current(), name, mode, AtFlags::empty()).call(|| "chmod".into())?;
            }
            kind => return invalid(format!("layer entry {path:?}: unknown type {kind:?}")),
        }
        chownat(
            self.current(),
            name,
            Some(Uid::from_raw(meta.uid)),
            Some(Gid::from_raw(meta.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .call(|| format!("chown {}:{}", meta.uid, meta.gid))?;
        utimensat(self.current(), name, &times(meta.mtime, meta.nanos), AtFlags::SYMLINK_NOFOLLOW)
            .call(|| "utimensat".into())
    }

    /// False if it cannot be had here.
    fn special(&mut self, kind: EntryType, name: &OsStr, device: u64) -> Result<bool> {
        let kind = match kind {
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        if kind != FileType::Fifo && !self.can_make_devices {
            return Ok(false);
        }
        match mknodat(self.current(), name, kind, Mode::from_raw_mode(0o600), device) {
            Ok(()) => Ok(true),
            Err(Errno::PERM) if kind != FileType::Fifo => {
                self.can_make_devices = false;
                Ok(false)
            }
            Err(e) => Err(e).call(|| format!("mknod {kind:?}")),
        }
    }

    fn directory(&mut self, path: &Path, name: &OsStr, meta: &Meta) -> Result<()> {
        let open = |parent: &OwnedFd| openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
        let dir = match mkdirat(self.current(), name, Mode::from_raw_mode(0o700)) {
            Ok(()) => open(self.current()),
            Err(Errno::EXIST) => match open(self.current()) {
                Ok(dir) => Ok(dir),
                Err(_) => {
                    self.may_replace(name)?;
                    self.clear(self.current(), name)?;
                    mkdirat(self.current(), name, Mode::from_raw_mode(0o700)).call(|| "mkdir".into())?;
                    open(self.current())
                }
            },
            Err(e) => Err(e),
        }
        .call(|| "mkdir".into())?;
        file::dress(&dir, meta, self.gets_owner(meta))?;
        self.note_gifts(meta);
        self.directory_times.insert(path.into(), meta.mtime);
        Ok(())
    }

    /// What a directory decides on what is made in it.
    fn note_gifts(&mut self, meta: &Meta) {
        if meta.mode.is_some_and(|mode| mode & 0o2000 != 0) {
            self.gives_group = true;
        }
        // (a default ACL)
        if meta.xattrs.iter().any(|(name, _)| name.starts_with("system.")) {
            self.kept_mode = 0;
        }
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        path: &Path,
        name: &OsStr,
        meta: &Meta,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // (all but a few files are made with the mode that they get)
        let asked = meta.mode.unwrap_or(0o600);
        let is_made_so = asked & !self.kept_mode == 0 && !self.gets_owner(meta) && meta.xattrs.is_empty();
        let mode = Mode::from_raw_mode(if is_made_so { asked } else { 0o600 });
        let open = |parent: &OwnedFd| openat(parent, name, flags, mode);
        let fd = match open(self.current()) {
            Err(Errno::EXIST) => match self.clear(self.current(), name) {
                // (something is mounted on it, as on /etc/hosts of a container: it is written to)
                Err(Error::Io { error, .. }) if !self.is_layer && is_busy(&error) => {
                    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    openat(self.current(), name, flags, Mode::empty())
                }
                cleared => {
                    cleared?;
                    open(self.current())
                }
            },
            other => other,
        }
        .call(|| "create".into())?;
        let meta = if is_made_so { Meta { mode: None, ..meta.clone() } } else { meta.clone() };
        let mut made = Made { path: path.into(), file: fd.into(), gets_owner: self.gets_owner(&meta), meta };
        let is_sparse = entry.header().entry_type() == EntryType::GNUSparse;
        if self.is_layer && !is_sparse && entry.size() <= file::SMALL {
            let mut content = Vec::new();
            let size = entry.size();
            self.recorded(path, size, || entry.read_to_end(&mut content).map(|n| n as u64))?;
            return self.finisher.get_or_insert_with(Finisher::start).add(made, content);
        }
        let (holes, size) = (is_sparse || entry.size() >= SPARSE, entry.size());
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(BUFFER, 0);
        let mut copy = || file::copy(entry, &mut made.file, &mut buffer, holes);
        match is_sparse {
            true => copy().call(|| "write".into()).map(drop)?,
            false => self.recorded(path, size, copy)?,
        }
        self.buffer = buffer;
        made.finish()
    }

    /// Reads what the entry of a file has, and sees that it is all.
    fn recorded(&self, path: &Path, size: u64, mut read: impl FnMut() -> io::Result<u64>) -> Result<()> {
        let copied = match &self.recorder {
            // (through a link the file may have another name tomorrow: such contents stay in the recipe)
            Some(recorder) if size > 0 && !self.is_linked => recorder.content(path, size, read),
            _ => read(),
        };
        match copied.call(|| "write".into())? == size {
            true => Ok(()),
            false => invalid(format!("layer entry {path:?}: the tar breaks off before its {size} bytes")),
        }
    }

    /// (what a layer brings is new, and root's)
    fn gets_owner(&self, meta: &Meta) -> bool {
        (meta.uid, meta.gid) != (0, 0) || !self.is_layer || self.gives_group
    }

    fn hard_link(&mut self, target: &[u8], path: &Path, name: &OsStr) -> Result<()> {
        let target = clean(target)?;
        let Some(target_name) = target.file_name() else {
            return invalid(format!("layer entry {path:?}: a hard link to the root"));
        };
        let dir = self.open_dir(target.parent().unwrap_or(Path::new("")));
        let dir = dir.call(|| format!("hard link to {target:?}"))?;
        self.clear(self.current(), name)?;
        linkat(&dir, target_name, self.current(), name, AtFlags::empty())
            .call(|| format!("hard link to {target:?}, which has to be earlier in the same layer"))
    }
}

/// Permissions that a file below an empty directory gets if it is made with all.
fn kept_mode(dir: &OwnedFd) -> Result<u32> {
    let name = "probe";
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let probe = openat(dir, name, flags, Mode::from_raw_mode(0o777)).call(|| "create".into())?;
    unlinkat(dir, name, AtFlags::empty()).call(|| "unlink".into())?;
    Ok(rustix::fs::fstat(&probe).call(|| "fstat".into())?.st_mode & 0o777)
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BUSY.raw_os_error())
}

/// `1700000000.123456789`
fn pax_time(text: &str) -> (i64, i64) {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos = format!("{fraction:0<9}").get(..9).and_then(|f| f.parse().ok()).unwrap_or(0);
    (seconds.parse().unwrap_or(0), nanos)
}

/// A path below the root: no `..` above it, no root, no `.`.
pub fn clean(raw: &[u8]) -> Result<PathBuf> {
    if raw.contains(&0) {
        return invalid("layer entry with a NUL byte in its name");
    }
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(raw)).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                if !path.pop() {
                    return invalid(format!(
                        "layer entry {:?} leads out of the image",
                        String::from_utf8_lossy(raw)
                    ));
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(path)
}
