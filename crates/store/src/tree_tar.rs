//! A directory's files as a tar, and back: `volume export` and `import`. Nothing is followed: each directory is
//! opened below the one before it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, fstat, openat, readlinkat, statat,
};
use tar::{Builder, EntryType, Header};

use crate::extract::Extractor;
use crate::layer::IdCheck;
use crate::{Call as _, Result, pipe};

/// Writes a tar of what is in a directory, names sorted; sockets are left out.
pub fn export(dir: &Path, into: impl Write) -> Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let root = openat(CWD, dir, flags, Mode::empty()).call(|| format!("open {}", dir.display()))?;
    let mut export = Export { tar: Builder::new(into), links: HashMap::new() };
    let stat = fstat(&root).call(|| format!("stat {}", dir.display()))?;
    export.entry(Path::new("./"), &stat, EntryType::Directory, &root).call(|| "write tar".into())?;
    export.directory(&root, Path::new("."))?;
    export.tar.into_inner().and_then(|mut out| out.flush()).call(|| "write tar".into())
}

/// Unpacks a tar, compressed or not, over what is in a directory. It may be hostile: nothing leads out of the
/// directory, and devices are left out.
pub fn import(dir: &Path, source: impl Read, ids: IdCheck<'_>) -> Result<()> {
    let mut extractor = Extractor::plain(dir, ids)?;
    let mut plain = pipe::decompressed(source).call(|| "read tar".into())?;
    extractor.extract(&mut plain)?;
    extractor.finish()?;
    // (a pipe is read to its end, or whoever writes to it would be killed)
    io::copy(&mut plain, &mut io::sink()).call(|| "read tar".into()).map(drop)
}

struct Export<W: Write> {
    tar: Builder<W>,
    /// Files of several names: where the first one is.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Export<W> {
    fn directory(&mut self, dir: &OwnedFd, path: &Path) -> Result<()> {
        let failed = |path: &Path| format!("export {}", path.display());
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).call(|| failed(path))? {
            let name = entry.call(|| failed(path))?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort();
        for name in names {
            let name = OsStr::from_bytes(&name);
            let at = path.join(name);
            let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(rustix::io::Errno::NOENT) => continue,
                stat => stat.call(|| failed(&at))?,
            };
            self.one(dir, name, &at, &stat)?;
        }
        Ok(())
    }

    fn one(&mut self, dir: &OwnedFd, name: &OsStr, at: &Path, stat: &Stat) -> Result<()> {
        let call = || format!("export {}", at.display());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let open = |more| openat(dir, name, flags | more, Mode::empty());
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let inner = open(OFlags::DIRECTORY).call(call)?;
                let mut shown = at.as_os_str().to_os_string();
                shown.push("/");
                self.entry(Path::new(&shown), stat, EntryType::Directory, &inner).call(call)?;
                self.directory(&inner, at)
            }
            FileType::RegularFile => {
                if stat.st_nlink > 1
                    && let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)).cloned()
                {
                    let mut header = header(stat, EntryType::Link);
                    return self.tar.append_link(&mut header, at, &first).call(call);
                }
                self.links.insert((stat.st_dev, stat.st_ino), at.into());
                let file = open(OFlags::empty()).call(call)?;
                self.attributes(&file).call(call)?;
                let mut header = header(stat, EntryType::Regular);
                let size = fstat(&file).call(call)?.st_size as u64;
                header.set_size(size);
                // (it may be written to meanwhile: so many bytes, and no more or less)
                let data = File::from(file).take(size).chain(io::repeat(0)).take(size);
                self.tar.append_data(&mut header, at, data).call(call)
            }
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new()).call(call)?;
                let mut header = header(stat, EntryType::Symlink);
                self.tar.append_link(&mut header, at, OsStr::from_bytes(target.as_bytes())).call(call)
            }
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                let mut header = header(
                    stat,
                    match kind {
                        FileType::Fifo => EntryType::Fifo,
                        FileType::CharacterDevice => EntryType::Char,
                        _ => EntryType::Block,
                    },
                );
                if kind != FileType::Fifo {
                    header.set_device_major(rustix::fs::major(stat.st_rdev)).call(call)?;
                    header.set_device_minor(rustix::fs::minor(stat.st_rdev)).call(call)?;
                }
                self.tar.append_data(&mut header, at, io::empty()).call(call)
            }
            _ => Ok(()),
        }
    }

    fn entry(&mut self, at: &Path, stat: &Stat, kind: EntryType, file: &OwnedFd) -> io::Result<()> {
        self.attributes(file)?;
        let mut header = header(stat, kind);
        self.tar.append_data(&mut header, at, io::empty())
    }

    /// Extended attributes of the entry that comes next: the users' own, and capabilities of programs.
    fn attributes(&mut self, file: &OwnedFd) -> io::Result<()> {
        let mut names = vec![0; 64 << 10];
        let Ok(length) = flistxattr(file, &mut names[..]) else { return Ok(()) };
        let mut found = Vec::new();
        for name in names[..length].split(|b| *b == 0).filter_map(|n| std::str::from_utf8(n).ok()) {
            if !(name.starts_with("user.") || name == "security.capability") {
                continue;
            }
            let mut value = vec![0; 64 << 10];
            if let Ok(length) = fgetxattr(file, name, &mut value[..]) {
                value.truncate(length);
                found.push((format!("SCHILY.xattr.{name}"), value));
            }
        }
        match found.is_empty() {
            true => Ok(()),
            false => self.tar.append_pax_extensions(found.iter().map(|(k, v)| (k.as_str(), &v[..]))),
        }
    }
}

fn header(stat: &Stat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}
