//! Layers as they leave: their tar as it came, compressed. The same tar makes the same bytes on any number of
//! processors: it is cut into pieces of one size, each compressed by itself.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use flate2::{Compress, Compression as Level, Crc, FlushCompress};
use sha2::{Digest as _, Sha256};

use crate::layer::{Blob, Compression};
use crate::{Call as _, Error, Progress, Result, Store, Temporary, hex, invalid};

/// How layers are to be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// By what.
    pub compression: Compression,
    /// How hard; none is the usual.
    pub level: Option<i32>,
}

impl Encoding {
    /// Checks the level: gzip 1 to 9, zstd 1 to 20.
    pub fn new(compression: Compression, level: Option<i32>) -> Result<Self> {
        let range = match compression {
            Compression::None => 0..=0,
            Compression::Gzip => 1..=9,
            Compression::Zstd => 1..=20,
        };
        match level {
            Some(level) if !range.contains(&level) => invalid(format!(
                "compression level {level}: {} has the levels {} to {}",
                compression.name(),
                range.start(),
                range.end()
            )),
            _ => Ok(Self { compression, level }),
        }
    }
}

/// A layer that is ready to leave.
pub struct Encoded {
    /// What it is there.
    pub blob: Blob,
    diff_id: String,
    place: Option<(PathBuf, Temporary)>,
}

impl Encoded {
    /// Its bytes.
    pub fn open(&self, store: &Store) -> Result<Box<dyn Read>> {
        match &self.place {
            None => Ok(Box::new(store.layer_tar(&self.diff_id)?)),
            Some((path, _)) => Ok(Box::new(File::open(path).call(|| format!("open {}", path.display()))?)),
        }
    }
}

impl Store {
    /// Makes a layer ready to leave; `n` is its number for whoever watches.
    pub fn encode(
        &self,
        diff_id: &str,
        encoding: Encoding,
        n: usize,
        progress: &dyn Progress,
    ) -> Result<Encoded> {
        let layer =
            self.layer(diff_id).ok_or_else(|| Error::Invalid(format!("layer {diff_id} is not here")))?;
        if encoding.compression == Compression::None {
            let blob = Blob { digest: diff_id.into(), size: layer.size, compression: Compression::None };
            return Ok(Encoded { blob, diff_id: diff_id.into(), place: None });
        }
        let temporary = self.temporary()?;
        let path = temporary.path().join("blob");
        let call = || format!("write {}", path.display());
        let mut out = Counted { out: File::create(&path).call(call)?, hash: Sha256::new(), size: 0 };
        let mut tar = Told { tar: self.layer_tar(diff_id)?, n, progress };
        let written = match encoding.compression {
            Compression::Zstd => in_pieces(&mut tar, &mut out, 4 << 20, &|piece| {
                zstd::bulk::compress(piece, encoding.level.unwrap_or(3))
            }),
            _ => gzip(&mut tar, &mut out, encoding.level),
        };
        written.call(|| format!("compress layer {diff_id}"))?;
        let digest = format!("sha256:{}", hex(&out.hash.finalize()));
        let blob = Blob { digest, size: out.size, compression: encoding.compression };
        if encoding.level.is_none() {
            self.note_blob(diff_id, &blob)?;
        }
        Ok(Encoded { blob, diff_id: diff_id.into(), place: Some((path, temporary)) })
    }
}

struct Told<'a, R> {
    tar: R,
    n: usize,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.tar.read(buffer)?;
        self.progress.advance(self.n, length as u64);
        Ok(length)
    }
}

struct Counted {
    out: File,
    hash: Sha256,
    size: u64,
}

impl Write for Counted {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let length = self.out.write(buffer)?;
        self.hash.update(&buffer[..length]);
        self.size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// One deflate stream of pieces that end at whole bytes (RFC 1952, RFC 1951 section 3.2.4).
fn gzip(source: &mut impl Read, out: &mut impl Write, level: Option<i32>) -> io::Result<()> {
    out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])?;
    let level = Level::new(level.map_or(6, i32::unsigned_abs));
    let mut crc = CrcOf { source, crc: Crc::new() };
    in_pieces(&mut crc, out, 1 << 20, &|piece| deflate(piece, level))?;
    let crc = crc.crc;
    // (a last, empty block with fixed codes)
    out.write_all(&[0x03, 0x00])?;
    out.write_all(&crc.sum().to_le_bytes())?;
    out.write_all(&crc.amount().to_le_bytes())
}

struct CrcOf<'a, R> {
    source: &'a mut R,
    crc: Crc,
}

impl<R: Read> Read for CrcOf<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.crc.update(&buffer[..length]);
        Ok(length)
    }
}

fn deflate(piece: &[u8], level: Level) -> io::Result<Vec<u8>> {
    let mut compress = Compress::new(level, false);
    let mut out = Vec::with_capacity(piece.len() / 2 + 1024);
    loop {
        let at = usize::try_from(compress.total_in()).map_err(io::Error::other)?;
        compress.compress_vec(&piece[at..], &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
        let is_done = compress.total_in() == piece.len() as u64 && out.len() < out.capacity();
        if is_done {
            return Ok(out);
        }
        out.reserve(out.capacity());
    }
}

/// Compresses pieces of one size, as many at once as there are processors, and writes them in their order.
fn in_pieces(
    source: &mut impl Read,
    out: &mut impl Write,
    size: usize,
    compress: &(dyn Fn(&[u8]) -> io::Result<Vec<u8>> + Sync),
) -> io::Result<()> {
    let at_once = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
    let mut pieces: Vec<Vec<u8>> = (0..at_once).map(|_| Vec::with_capacity(size)).collect();
    loop {
        let mut filled = 0;
        for piece in &mut pieces {
            piece.clear();
            source.take(size as u64).read_to_end(piece)?;
            filled += usize::from(!piece.is_empty());
            if piece.len() < size {
                break;
            }
        }
        let done = std::thread::scope(|scope| {
            let threads: Vec<_> =
                pieces[..filled].iter().map(|piece| scope.spawn(move || compress(piece))).collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|_| Err(io::Error::other("a thread ended"))))
                .collect::<Vec<_>>()
        });
        for piece in done {
            out.write_all(&piece?)?;
        }
        if pieces[..filled].last().is_none_or(|p| p.len() < size) || filled < at_once {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_of_any_size() {
        for size in [0, 1, 1000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20] {
            let data: Vec<u8> = (0..size).map(|n: usize| (n * n / 97) as u8).collect();
            let mut packed = Vec::new();
            gzip(&mut &data[..], &mut packed, None).unwrap();
            let mut again = Vec::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut again).unwrap();
            assert!(again == data, "{size}");
        }
    }
}
