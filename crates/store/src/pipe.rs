//! Decompression and hashing in one thread, ahead of the extraction in another one.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel as unbounded, sync_channel};

use sha2::{Digest as _, Sha256};

/// What the thread found out about a stream.
pub struct Summary {
    /// Digest of the uncompressed bytes.
    pub diff_id: String,
    /// How many there were.
    pub size: u64,
}

/// The uncompressed bytes, as they come.
pub struct Chunks {
    receiver: Receiver<io::Result<Vec<u8>>>,
    /// Buffers go back to be filled again: there are never more than the channel has places, and two.
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    used: usize,
}

const CHUNK: usize = 256 << 10;

/// Both ends: one thread feeds, another one reads.
pub fn channel() -> (Feed, Chunks) {
    let (sender, receiver) = sync_channel(8);
    let (empty, emptied) = unbounded();
    (Feed { sender, emptied }, Chunks { receiver, empty, current: Vec::new(), used: 0 })
}

/// Where uncompressed bytes go.
pub struct Feed {
    sender: SyncSender<io::Result<Vec<u8>>>,
    emptied: Receiver<Vec<u8>>,
}

impl Feed {
    /// Uncompresses and hashes a stream to its end; none if it broke off, which the reader is told, or if the reader
    /// has had enough.
    pub fn run(self, source: impl Read, max_size: u64) -> Option<Summary> {
        work(source, max_size, &self)
    }
}

fn work(source: impl Read, max_size: u64, feed: &Feed) -> Option<Summary> {
    let mut hash = Sha256::new();
    let mut size = 0;
    let result = decoder(source).and_then(|mut decoder| {
        loop {
            let mut chunk = feed.emptied.try_recv().unwrap_or_default();
            chunk.resize(CHUNK, 0);
            let mut filled = 0;
            while filled < CHUNK {
                match decoder.read(&mut chunk[filled..]) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            if filled == 0 {
                return Ok(());
            }
            chunk.truncate(filled);
            hash.update(&chunk);
            size += filled as u64;
            if size > max_size {
                return Err(too_large(max_size));
            }
            // (the reader may have had enough)
            feed.sender.send(Ok(chunk)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
    });
    match result {
        Ok(()) => Some(Summary { diff_id: format!("sha256:{}", crate::hex(&hash.finalize())), size }),
        Err(error) => {
            let _ = feed.sender.send(Err(error));
            None
        }
    }
}

/// Of what has more bytes than the store takes.
pub fn too_large(max_size: u64) -> io::Error {
    io::Error::other(format!(
        "more than {max_size} bytes uncompressed: a compression bomb, or max_layer_size in containers.conf is too low"
    ))
}

/// It begins like something compressed.
pub fn is_compressed(start: &[u8]) -> bool {
    matches!(
        start,
        [0x1f, 0x8b, ..]
            | [0x28, 0xb5, 0x2f, 0xfd, ..]
            | [0x42, 0x5a, 0x68, ..]
            | [0xfd, 0x37, 0x7a, 0x58, ..]
    )
}

/// By the first bytes: gzip, zstd, or as it is.
fn decoder<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(CHUNK, source);
    let start = source.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
        [0x42, 0x5a, 0x68, ..] => {
            return Err(io::Error::other("bzip2 compression: only gzip and zstd are known"));
        }
        [0xfd, 0x37, 0x7a, 0x58, ..] => {
            return Err(io::Error::other("xz compression: only gzip and zstd are known"));
        }
        _ => Box::new(source),
    })
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.current.len() {
            match self.receiver.recv() {
                Ok(chunk) => {
                    let read = std::mem::replace(&mut self.current, chunk?);
                    self.used = 0;
                    if read.capacity() > 0 {
                        let _ = self.empty.send(read);
                    }
                }
                Err(_) => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len() - self.used);
        buffer[..length].copy_from_slice(&self.current[self.used..self.used + length]);
        self.used += length;
        Ok(length)
    }
}

/// Reads a stream to its end, uncompressed.
pub fn decompressed<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    decoder(source)
}
