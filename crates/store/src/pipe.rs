//! Decompression and hashing in a thread of their own, ahead of the extraction.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

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
    current: Vec<u8>,
    used: usize,
}

const CHUNK: usize = 256 << 10;

/// Starts the thread. Its result is there when the chunks have been read to their end.
pub fn decompress<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    source: impl Read + Send + 'scope,
    max_size: u64,
) -> (Chunks, ScopedJoinHandle<'scope, Option<Summary>>) {
    let (sender, receiver) = sync_channel(8);
    let thread = scope.spawn(move || work(source, max_size, &sender));
    (Chunks { receiver, current: Vec::new(), used: 0 }, thread)
}

fn work(source: impl Read, max_size: u64, sender: &SyncSender<io::Result<Vec<u8>>>) -> Option<Summary> {
    let mut hash = Sha256::new();
    let mut size = 0;
    let result = decoder(source).and_then(|mut decoder| {
        loop {
            let mut chunk = vec![0; CHUNK];
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
                return Err(io::Error::other(format!(
                    "more than {max_size} bytes uncompressed: a compression bomb, or a limit that is too low"
                )));
            }
            // (the reader may have had enough)
            sender.send(Ok(chunk)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
    });
    match result {
        Ok(()) => Some(Summary { diff_id: format!("sha256:{}", crate::hex(&hash.finalize())), size }),
        Err(error) => {
            let _ = sender.send(Err(error));
            None
        }
    }
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
                Ok(chunk) => (self.current, self.used) = (chunk?, 0),
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
