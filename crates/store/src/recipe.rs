//! Enough of a layer's tar to write it again bit for bit: all of it but the contents of files, which are in the files.
//!
//! ```text
//! layers/DIFF-ID/tar          zstd of records:  0 length(4) bytes         headers, padding, what follows the end
//!                                               1 length(2) path size(8)  so many bytes of this file
//! layers/DIFF-ID/kept/N       files that a later entry of the same layer replaced
//! layers/DIFF-ID/kept.json    [[records before, path, N], ...]            where those are looked for
//! ```
//! What is written again is hashed on its way, and its last bytes are handed on only if it is the layer that its name
//! says: a layer that was changed on disk is found, and never pushed or saved.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, renameat};
use sha2::{Digest as _, Sha256};
use unroot_sys::path::openat2;

use crate::{Call as _, Error, Result, Store, make_dir, write_new};

const FILE: &str = "tar";
const KEPT: &str = "kept";
const KEPT_LIST: &str = "kept.json";
const RAW: u8 = 0;
const CONTENT: u8 = 1;
/// Raw bytes are gathered up to here.
const GATHERED: usize = 64 << 10;

/// What a later entry replaced: before which record of contents, what, and its number in `kept`.
type Kept = (u64, PathBuf, u64);

/// Writes the recipe of a layer while its tar is read.
#[derive(Clone)]
pub struct Recorder(Rc<RefCell<Recording>>);

struct Recording {
    dir: PathBuf,
    out: BufWriter<zstd::stream::write::Encoder<'static, File>>,
    raw: Vec<u8>,
    is_on: bool,
    contents: u64,
    kept: Vec<Kept>,
    kept_dir: Option<OwnedFd>,
}

impl Recorder {
    /// In the directory of a layer that is being made.
    pub fn new(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let call = || format!("create {}", path.display());
        let out = zstd::stream::write::Encoder::new(File::create(&path).call(call)?, 1).call(call)?;
        Ok(Self(Rc::new(RefCell::new(Recording {
            dir: dir.into(),
            out: BufWriter::with_capacity(GATHERED, out),
            raw: Vec::with_capacity(2 * GATHERED),
            is_on: true,
            contents: 0,
            kept: Vec::new(),
            kept_dir: None,
        }))))
    }

    /// All that is read from here on is recorded.
    pub fn tape<R: Read>(&self, source: R) -> Tape<R> {
        Tape { source, recorder: self.clone() }
    }

    /// The bytes that are read meanwhile are those of this file.
    pub fn content<T>(&self, path: &Path, size: u64, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.0.borrow_mut().content(path, size)?;
        let result = read();
        self.0.borrow_mut().is_on = true;
        result
    }

    /// A later entry replaces this file or directory: it is put aside.
    pub fn keep(&self, parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
        let mut recording = self.0.borrow_mut();
        if recording.kept_dir.is_none() {
            let dir = recording.dir.join(KEPT);
            make_dir(&dir)?;
            let opened = openat(CWD, &dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            recording.kept_dir = Some(opened.call(|| format!("open {}", dir.display()))?);
        }
        let number = recording.kept.len() as u64;
        if let Some(dir) = &recording.kept_dir {
            renameat(parent, name, dir, number.to_string())
                .call(|| format!("rename layer entry {path:?}"))?;
        }
        let before = recording.contents;
        recording.kept.push((before, path.into(), number));
        Ok(())
    }

    /// All was read.
    pub fn finish(self) -> Result<()> {
        let recording = Rc::try_unwrap(self.0)
            .map_err(|_| Error::Invalid("the layer is still being read".into()))?
            .into_inner();
        let Recording { dir, mut out, raw, kept, .. } = recording;
        write_raw(&mut out, &raw)
            .and_then(|()| out.into_inner().map_err(io::IntoInnerError::into_error)?.finish().map(drop))
            .call(|| format!("write {}", dir.join(FILE).display()))?;
        if !kept.is_empty() {
            let shown: Vec<(u64, &[u8], u64)> =
                kept.iter().map(|(n, p, k)| (*n, p.as_os_str().as_bytes(), *k)).collect();
            let data = serde_json::to_vec(&shown).map_err(|e| Error::Invalid(e.to_string()))?;
            write_new(&dir.join(KEPT_LIST), &data)?;
        }
        Ok(())
    }
}

impl Recording {
    fn content(&mut self, path: &Path, size: u64) -> io::Result<()> {
        write_raw(&mut self.out, &self.raw)?;
        self.raw.clear();
        let path = path.as_os_str().as_bytes();
        let length = u16::try_from(path.len()).map_err(io::Error::other)?;
        self.out.write_all(&[CONTENT])?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(path)?;
        self.out.write_all(&size.to_le_bytes())?;
        self.contents += 1;
        self.is_on = false;
        Ok(())
    }

    fn passed(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_on {
            self.raw.extend_from_slice(bytes);
            if self.raw.len() >= GATHERED {
                write_raw(&mut self.out, &self.raw)?;
                self.raw.clear();
            }
        }
        Ok(())
    }
}

fn write_raw(out: &mut impl Write, raw: &[u8]) -> io::Result<()> {
    if raw.is_empty() {
        return Ok(());
    }
    let length = u32::try_from(raw.len()).map_err(io::Error::other)?;
    out.write_all(&[RAW])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(raw)
}

/// A tar that is read, and recorded.
pub struct Tape<R> {
    source: R,
    recorder: Recorder,
}

impl<R: Read> Read for Tape<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.recorder.0.borrow_mut().passed(&buffer[..length])?;
        Ok(length)
    }
}

impl Store {
    /// The tar of a layer as it came. The last read fails if the layer is not what it was.
    pub fn layer_tar(&self, diff_id: &str) -> Result<LayerTar> {
        let dir = self.layer_dir(diff_id);
        let path = dir.join(FILE);
        let file = File::open(&path).call(|| format!("open {}", path.display()))?;
        let decoder = zstd::stream::read::Decoder::new(file).call(|| format!("read {}", path.display()))?;
        let open = |name: &str| {
            openat(CWD, dir.join(name), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .call(|| format!("open {}", dir.join(name).display()))
        };
        let kept = read_kept(&dir)?;
        Ok(LayerTar {
            diff_id: diff_id.into(),
            recipe: BufReader::with_capacity(GATHERED, decoder),
            diff: open("diff")?,
            kept_dir: if kept.is_empty() { None } else { Some(open(KEPT)?) },
            kept,
            contents: 0,
            hash: Sha256::new(),
            now: Now::Between,
            is_done: false,
        })
    }
}

/// By path: before which record, and the number.
type Replaced = HashMap<PathBuf, Vec<(u64, u64)>>;

fn read_kept(dir: &Path) -> Result<Replaced> {
    let path = dir.join(KEPT_LIST);
    let data = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        other => other.call(|| format!("read {}", path.display()))?,
    };
    let list: Vec<(u64, Vec<u8>, u64)> =
        serde_json::from_slice(&data).map_err(|e| Error::Invalid(format!("{}: {e}", path.display())))?;
    let mut all = Replaced::new();
    for (before, path, number) in list {
        all.entry(PathBuf::from(OsStr::from_bytes(&path))).or_default().push((before, number));
    }
    Ok(all)
}

/// A layer's tar, put together from its recipe and its files.
pub struct LayerTar {
    diff_id: String,
    recipe: BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>,
    diff: OwnedFd,
    kept_dir: Option<OwnedFd>,
    kept: Replaced,
    contents: u64,
    hash: Sha256,
    now: Now,
    is_done: bool,
}

enum Now {
    Between,
    Raw(u64),
    Content(File, PathBuf, u64),
}

impl LayerTar {
    fn damaged(&self, why: impl std::fmt::Display) -> io::Error {
        io::Error::other(format!("layer {} is damaged: {why}", self.diff_id))
    }

    /// Opens the next piece; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        let mut kind = [0];
        if self.recipe.read(&mut kind)? == 0 {
            return Ok(false);
        }
        self.now = match kind[0] {
            RAW => Now::Raw(u32::from_le_bytes(self.array()?).into()),
            CONTENT => {
                let mut path = vec![0; usize::from(u16::from_le_bytes(self.array()?))];
                self.recipe.read_exact(&mut path)?;
                let size = u64::from_le_bytes(self.array()?);
                let path = PathBuf::from(OsStr::from_bytes(&path));
                let file = self.open(&path).map_err(|e| self.damaged(format!("open {path:?}: {e}")))?;
                self.contents += 1;
                Now::Content(file, path, size)
            }
            other => return Err(self.damaged(format!("its recipe has a record of kind {other}"))),
        };
        Ok(true)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.recipe.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The file of this path as it was at this point of the tar.
    fn open(&self, path: &Path) -> io::Result<File> {
        let (root, place) = match (self.replaced(path), &self.kept_dir) {
            (Some(place), Some(dir)) => (dir, place),
            _ => (&self.diff, path.to_path_buf()),
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        Ok(openat2(root, &place, flags, Mode::empty(), resolve)?.into())
    }

    fn replaced(&self, path: &Path) -> Option<PathBuf> {
        let above = path.ancestors().filter(|_| !self.kept.is_empty());
        let covering = above.filter_map(|above| {
            let (_, number) = self.kept.get(above)?.iter().find(|(before, _)| *before > self.contents)?;
            Some((*number, Path::new(&number.to_string()).join(path.strip_prefix(above).ok()?)))
        });
        // (the first one after this record: a directory may have been put aside with what was in it, or after it)
        let (_, place) = covering.min_by_key(|(number, _)| *number)?;
        Some(place.components().collect())
    }

    fn read_piece(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (length, left) = match &mut self.now {
            Now::Between => return Ok(0),
            Now::Raw(left) => ((&mut self.recipe).take(*left).read(buffer)?, left),
            Now::Content(file, _, left) => (file.take(*left).read(buffer)?, left),
        };
        *left -= length as u64;
        if *left == 0 {
            self.now = Now::Between;
        } else if length == 0 {
            let what = match &self.now {
                Now::Content(_, path, left) => format!("{path:?} is {left} bytes too short"),
                _ => "its recipe breaks off".into(),
            };
            return Err(self.damaged(what));
        }
        Ok(length)
    }
}

impl Read for LayerTar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.is_done || buffer.is_empty() {
                return Ok(0);
            }
            if matches!(self.now, Now::Between) && !self.advance()? {
                self.is_done = true;
                let found = format!("sha256:{}", crate::hex(&self.hash.clone().finalize()));
                return if found == self.diff_id {
                    Ok(0)
                } else {
                    Err(self.damaged(format!("its files have digest {found}")))
                };
            }
            let length = self.read_piece(buffer)?;
            if length > 0 {
                self.hash.update(&buffer[..length]);
                return Ok(length);
            }
        }
    }
}
