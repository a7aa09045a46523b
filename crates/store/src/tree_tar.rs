//! Files as a tar, and back: `volume export` and `import`, `export`, layers of `commit`. Nothing is followed: each
//! directory is opened below the one before it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fgetxattr, flistxattr, fstat, openat, readlinkat};
use tar::{Builder, EntryType, Header};

use crate::extract::Extractor;
pub use crate::extract::Unpack;
use crate::layer::IdCheck;
use crate::merged::{Node, Part, Style, Tree};
use crate::{Call as _, Result, pipe};

/// Writes a tar of what is in a directory, names sorted; sockets are left out.
pub fn export(dir: &Path, into: impl Write) -> Result<()> {
    let part = Part { dir: dir.into(), owners: None };
    write(&Tree::open(&[part], Style::Plain)?, Path::new("."), into, &|_, _| true)
}

/// Writes a tar of a tree: names below `top` and sorted, times in whole seconds, so that the same files make the same
/// bytes. What `wanted` does not want is left out. In a tree that is a layer, what it removes and hides is said as in
/// layers of images: `.wh.NAME`, `.wh..wh..opq`.
pub fn write(
    tree: &Tree<'_>,
    top: &Path,
    into: impl Write,
    wanted: &dyn Fn(&Path, &Node) -> bool,
) -> Result<()> {
    let mut export = Export {
        tar: Builder::new(into),
        links: HashMap::new(),
        is_layer: tree.style() == Style::Layer,
        wanted,
    };
    export
        .entry(Path::new("./"), &tree.node()?, EntryType::Directory, tree.handle())
        .call(|| "write tar".into())?;
    export.directory(tree, top)?;
    export.tar.into_inner().and_then(|mut out| out.flush()).call(|| "write tar".into())
}

/// Writes a tar of one thing in a directory, under a name; `None` is all that is in the directory, and not itself.
pub fn write_one(tree: &Tree<'_>, one: Option<(&OsStr, &OsStr)>, into: impl Write) -> Result<()> {
    let mut export =
        Export { tar: Builder::new(into), links: HashMap::new(), is_layer: false, wanted: &|_, _| true };
    match one {
        Some((name, shown)) => export.one(tree, Path::new(shown), &tree.entry(name)?)?,
        None => export.directory(tree, Path::new(""))?,
    }
    export.tar.into_inner().and_then(|mut out| out.flush()).call(|| "write tar".into())
}

/// Unpacks a tar over what is in an open directory, as [`import`] does.
pub fn unpack(dir: OwnedFd, source: impl Read, how: &Unpack<'_>) -> Result<()> {
    let all = |_: &str, _: u64, _: u64| Ok(());
    let mut extractor = Extractor::over(dir, &all, how);
    let mut plain = pipe::decompressed(source).call(|| "read tar".into())?;
    extractor.extract(&mut plain)?;
    extractor.finish()?;
    io::copy(&mut plain, &mut io::sink()).call(|| "read tar".into()).map(drop)
}

/// A stream begins as a tar does, compressed or not: what was read to see that comes again.
pub fn peek<'a>(source: impl Read + 'a) -> io::Result<Option<Box<dyn Read + 'a>>> {
    let mut plain = pipe::decompressed(source)?;
    let mut start = Vec::with_capacity(512);
    (&mut plain).take(512).read_to_end(&mut start)?;
    let sum = |range: std::ops::Range<usize>| start[range].iter().map(|b| u32::from(*b)).sum::<u32>();
    let is_tar = start.len() == 512 && {
        // (the sum's own field counts as blanks)
        let found = sum(0..148) + 8 * u32::from(b' ') + sum(156..512);
        Header::from_byte_slice(&start).cksum().is_ok_and(|stated| stated == found)
            || start.iter().all(|b| *b == 0)
    };
    Ok(is_tar.then(|| Box::new(io::Cursor::new(start).chain(plain)) as Box<dyn Read + 'a>))
}

/// Unpacks a tar, compressed or not, over what is in a directory. It may be hostile: nothing leads out of the
/// directory, and devices are left out.
pub fn import(dir: &Path, source: impl Read, ids: IdCheck<'_>) -> Result<()> {
    let mut extractor = Extractor::plain(dir, ids)?;
    let mut plain = pipe::decompressed(source).call(|| "read tar".into())?;
    extractor.extract(&mut plain)?;
    extractor.finish().map(drop)
}

struct Export<'a, W: Write> {
    tar: Builder<W>,
    /// Files of several names: where the first one is.
    links: HashMap<(u64, u64), PathBuf>,
    is_layer: bool,
    wanted: &'a dyn Fn(&Path, &Node) -> bool,
}

impl<W: Write> Export<'_, W> {
    fn directory(&mut self, tree: &Tree<'_>, path: &Path) -> Result<()> {
        if self.is_layer && tree.is_opaque() {
            self.mark(&path.join(".wh..wh..opq"))?;
        }
        for node in tree.entries(path)?.values() {
            let at = path.join(&node.name);
            if (self.wanted)(&at, node) {
                self.one(tree, &at, node)?;
            }
        }
        Ok(())
    }

    /// An empty file whose name says it all.
    fn mark(&mut self, at: &Path) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mtime(0);
        self.tar.append_data(&mut header, at, io::empty()).call(|| format!("export {}", at.display()))
    }

    fn one(&mut self, tree: &Tree<'_>, at: &Path, node: &Node) -> Result<()> {
        let call = || format!("export {}", at.display());
        let (dir, name, stat) = (tree.dir_of(node), &node.name, &node.stat);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match node.kind() {
            FileType::Directory => {
                let inner = tree.enter(name)?;
                let mut shown = at.as_os_str().to_os_string();
                shown.push("/");
                self.entry(Path::new(&shown), node, EntryType::Directory, inner.handle()).call(call)?;
                self.directory(&inner, at)
            }
            FileType::RegularFile => {
                if stat.st_nlink > 1
                    && let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)).cloned()
                {
                    let mut header = header(node, EntryType::Link);
                    return self.tar.append_link(&mut header, at, &first).call(call);
                }
                self.links.insert((stat.st_dev, stat.st_ino), at.into());
                let file = openat(dir, name, flags, Mode::empty()).call(call)?;
                self.attributes(&file).call(call)?;
                let mut header = header(node, EntryType::Regular);
                let size = fstat(&file).call(call)?.st_size as u64;
                header.set_size(size);
                // (it may be written to meanwhile: so many bytes, and no more or less)
                let data = File::from(file).take(size).chain(io::repeat(0)).take(size);
                self.tar.append_data(&mut header, at, data).call(call)
            }
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new()).call(call)?;
                let mut header = header(node, EntryType::Symlink);
                self.tar.append_link(&mut header, at, OsStr::from_bytes(target.as_bytes())).call(call)
            }
            FileType::CharacterDevice if self.is_layer && node.is_whiteout() => {
                let mut mark = std::ffi::OsString::from(".wh.");
                mark.push(name);
                self.mark(&at.with_file_name(mark))
            }
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                let mut header = header(
                    node,
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

    fn entry(&mut self, at: &Path, node: &Node, kind: EntryType, file: &OwnedFd) -> io::Result<()> {
        self.attributes(file)?;
        let mut header = header(node, kind);
        self.tar.append_data(&mut header, at, io::empty())
    }

    /// Extended attributes of the entry that comes next: the users' own, and capabilities of programs.
    fn attributes(&mut self, file: &OwnedFd) -> io::Result<()> {
        let mut names = vec![0; 64 << 10];
        let Ok(length) = flistxattr(file, &mut names[..]) else { return Ok(()) };
        let mut found = Vec::new();
        for name in names[..length].split(|b| *b == 0).filter_map(|n| std::str::from_utf8(n).ok()) {
            if !(name.starts_with("user.") || name == CAPABILITY) || name.starts_with("user.overlay.") {
                continue;
            }
            let mut value = vec![0; 64 << 10];
            if let Ok(length) = fgetxattr(file, name, &mut value[..]) {
                value.truncate(length);
                if name == CAPABILITY {
                    value = of_any_root(value);
                }
                found.push((format!("SCHILY.xattr.{name}"), value));
            }
        }
        found.sort();
        match found.is_empty() {
            true => Ok(()),
            false => self.tar.append_pax_extensions(found.iter().map(|(k, v)| (k.as_str(), &v[..]))),
        }
    }
}

const CAPABILITY: &str = "security.capability";

/// Capabilities of a program in a user namespace name its root (revision 3 of capabilities(7)); in an archive they are
/// those of whoever is root where it is unpacked: revision 2, without the id at the end.
fn of_any_root(mut value: Vec<u8>) -> Vec<u8> {
    if value.len() == 24 && value[3] == 3 {
        value.truncate(20);
        value[3] = 2;
    }
    value
}

fn header(node: &Node, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(node.stat.st_mode & 0o7777);
    header.set_uid(node.owner.0.into());
    header.set_gid(node.owner.1.into());
    header.set_mtime(u64::try_from(node.stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}
