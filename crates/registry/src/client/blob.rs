//! A blob as a stream that survives broken connections and ends only with the right bytes.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::BodyReader;
use ureq::http::{StatusCode, header};

use super::backoff::Backoff;
use super::exchange::{Access, Call, Payload, Reply};
use super::server::lock;
use super::{Client, failure};
use crate::conf::Source;
use crate::digest::Hasher;
use crate::error::{Error, ErrorKind, Retry};
use crate::manifest::{CONFIG_MAX, Descriptor};
use crate::reference::Reference;

/// Progress after which a connection counts as having worked, so that the tries start anew.
const PROGRESS: u64 = 64 << 10;
/// A connection that is slower than this over the time of two stalls counts as stalled.
const BYTES_PER_SECOND_MIN: u64 = 256;

/// A blob as it arrives.
///
/// It reconnects with `Range` after a broken or stalled connection, turns to the next source when one gives up, and
/// compares size and digest before it hands the last byte on: a reader that gets all bytes and `Ok(0)` has the right ones.
///
/// Errors are [`io::Error`]s that hold an [`Error`]; [`Error::of_io`] gets it back. For progress wrap the reader.
pub struct BlobReader {
    client: Client,
    descriptor: Descriptor,
    /// The one in use first.
    sources: Vec<Source>,
    given_up: Vec<String>,
    connection: Option<Connection>,
    backoff: Backoff,
    received: u64,
    since_break: u64,
    hasher: Hasher,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Complete,
    Failed,
}

struct Connection {
    body: BodyReader<'static>,
    call: String,
    host: String,
    /// Bytes at the start that are had already, from a server without `Range`.
    skip: u64,
    waited: Duration,
    bytes: u64,
}

impl BlobReader {
    pub(super) fn open(
        client: Client,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Self, Error> {
        let inner = &client.inner;
        let mut sources = inner.options.conf.sources(&reference.clone().or_latest())?;
        if let Some(preferred) = lock(&inner.preferred).get(&reference.name()).cloned() {
            let same = |source: &Source| source.reference.name() == preferred.reference.name();
            sources.retain(|source| !same(source));
            sources.insert(0, preferred);
        }
        let mut reader = Self {
            backoff: Backoff::new(&inner.options),
            hasher: Hasher::new(descriptor.digest.algorithm()),
            descriptor: descriptor.clone(),
            client,
            sources,
            given_up: Vec::new(),
            connection: None,
            received: 0,
            since_break: 0,
            state: State::Reading,
        };
        match descriptor.size {
            0 => reader.finish()?,
            _ => reader.connect()?,
        }
        Ok(reader)
    }

    /// Bytes handed on so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Connects at the current position, with as many tries and sources as there are.
    fn connect(&mut self) -> Result<(), Error> {
        loop {
            match self.connect_once() {
                Ok(connection) => {
                    self.connection = Some(connection);
                    return Ok(());
                }
                Err(error) => self.recover(error)?,
            }
        }
    }

    /// Waits before the next try, or turns to the next source; fails if there is neither.
    fn recover(&mut self, error: Error) -> Result<(), Error> {
        self.connection = None;
        self.since_break = 0;
        let Err(error) = self.backoff.pause(error) else { return Ok(()) };
        if self.sources.len() > 1 {
            let source = self.sources.remove(0);
            self.given_up.push(format!("[{}: {error}]", source.reference));
            self.backoff = Backoff::new(&self.client.inner.options);
            return Ok(());
        }
        self.state = State::Failed;
        let error = match self.given_up.is_empty() {
            true => error,
            false => error.context(format_args!("(Mirrors also failed: {})", self.given_up.join(" "))),
        };
        Err(error.context(format_args!("reading blob {}", self.descriptor.digest)))
    }

    fn connect_once(&self) -> Result<Connection, Error> {
        let source = &self.sources[0];
        let access = Access::repository(&self.client.inner, source, "pull")?;
        let path = format!("/v2/{}/blobs/{}", source.reference.repository(), self.descriptor.digest);
        let mut call = Call::get(path);
        if self.received > 0 {
            call = call.header(header::RANGE, format!("bytes={}-", self.received));
        }
        let reply = access.send(&call, &mut Payload::Empty)?;
        let skip = match reply.status() {
            StatusCode::OK => self.whole(&reply)?,
            StatusCode::PARTIAL_CONTENT if self.received > 0 => self.part(&reply)?,
            status if status.is_success() => {
                return Err(Error::new(
                    ErrorKind::Protocol,
                    format!("{}: unexpected status {status}", reply.call),
                ));
            }
            _ => return Err(access.refused(reply)),
        };
        Ok(Connection {
            body: reply.response.into_body().into_reader(),
            call: reply.call,
            host: access.server.host.clone(),
            skip,
            waited: Duration::ZERO,
            bytes: 0,
        })
    }

    /// An answer with the whole blob: its start is skipped if it was had before.
    fn whole(&self, reply: &Reply) -> Result<u64, Error> {
        let size = self.descriptor.size;
        match reply.response.body().content_length() {
            Some(length) if length > size => Err(too_large(&reply.call, size)),
            Some(length) if length < size => {
                let message = format!("{}: the content has {length} bytes, not {size}", reply.call);
                Err(Error::new(ErrorKind::Digest, message))
            }
            _ => Ok(self.received),
        }
    }

    /// An answer with the rest: it must start where it was asked to.
    fn part(&self, reply: &Reply) -> Result<u64, Error> {
        let range = reply.header(header::CONTENT_RANGE).unwrap_or_default();
        let expected = format!("bytes {}-{}/", self.received, self.descriptor.size - 1);
        let total = range.strip_prefix(&expected);
        match total.is_some_and(|total| total == "*" || total.parse() == Ok(self.descriptor.size)) {
            true => Ok(0),
            false => Err(Error::new(
                ErrorKind::Protocol,
                format!("{}: answers a request for bytes {}- with {range:?}", reply.call, self.received),
            )),
        }
    }

    /// Reads what comes next, or `None` if it was only skipped.
    fn advance(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Error> {
        let left = self.descriptor.size - self.received;
        let stall = self.client.inner.options.timeouts.stall;
        let Some(connection) = &mut self.connection else { return self.connect().map(|()| None) };
        if connection.skip > 0 {
            let mut scratch = [0; 16 << 10];
            let most = scratch.len().min(usize::try_from(connection.skip).unwrap_or(usize::MAX));
            let count = connection.read(&mut scratch[..most], stall)?;
            connection.skip -= count as u64;
            return Ok(None);
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = connection.read(&mut buffer[..most], stall)?;
        self.hasher.update(&buffer[..count]);
        self.received += count as u64;
        self.since_break += count as u64;
        if self.since_break >= PROGRESS {
            self.backoff.reset();
        }
        Ok(Some(count))
    }

    /// All bytes are there: are they the right ones, and no more?
    fn finish(&mut self) -> Result<(), Error> {
        self.state = State::Failed;
        if let Some(mut connection) = self.connection.take() {
            // Also takes the end of a chunked body off the connection, which can then be used again.
            let more = connection.body.read(&mut [0; 1]).unwrap_or(0);
            if more > 0 {
                return Err(too_large(&connection.call, self.descriptor.size));
            }
        }
        let actual = self.hasher.clone().finish();
        if actual != self.descriptor.digest {
            let message = format!("reading blob {}: the content has digest {actual}", self.descriptor.digest);
            return Err(Error::new(ErrorKind::Digest, message));
        }
        self.state = State::Complete;
        Ok(())
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        loop {
            match self.advance(buffer) {
                Ok(None) => {}
                Ok(Some(count)) => {
                    if self.received == self.descriptor.size {
                        self.finish()?;
                    }
                    return Ok(count);
                }
                Err(error) if self.state == State::Failed => return Err(error),
                Err(error) => self.recover(error)?,
            }
        }
    }
}

impl Connection {
    /// Reads at least one byte; an early end and a trickle are failures that another connection may cure.
    fn read(&mut self, buffer: &mut [u8], stall: Duration) -> Result<usize, Error> {
        let start = Instant::now();
        let count = self.body.read(buffer).map_err(|error| failure::broken(&self.call, &self.host, error))?;
        self.waited += start.elapsed();
        self.bytes += count as u64;
        let network = |reason: &str| {
            Error::new(ErrorKind::Network, format!("{}: {reason}", self.call)).retrying(Retry::Backoff)
        };
        if count == 0 {
            return Err(network("unexpected EOF"));
        }
        if self.waited >= stall * 2 {
            if self.bytes < self.waited.as_secs().max(1) * BYTES_PER_SECOND_MIN {
                return Err(network("the connection is too slow to go on with"));
            }
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        Ok(count)
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.state {
            State::Complete => Ok(0),
            _ if buffer.is_empty() => Ok(0),
            State::Reading => self.read_some(buffer).map_err(|error| {
                self.state = State::Failed;
                error.into()
            }),
            State::Failed => {
                let message = format!("reading blob {}: it has failed before", self.descriptor.digest);
                Err(Error::new(ErrorKind::Network, message).into())
            }
        }
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobReader({}, {} of {})", self.descriptor.digest, self.received, self.descriptor.size)
    }
}

fn too_large(call: &str, size: u64) -> Error {
    Error::new(ErrorKind::TooLarge, format!("{call}: the content is larger than its {size} bytes"))
}

/// Reads an image configuration as a whole.
pub(super) fn read_config(
    client: Client,
    reference: &Reference,
    descriptor: &Descriptor,
) -> Result<Vec<u8>, Error> {
    if descriptor.size > CONFIG_MAX {
        let message = format!(
            "reading blob {}: it has {} bytes, more than {CONFIG_MAX}",
            descriptor.digest, descriptor.size
        );
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    let mut bytes = Vec::new();
    let mut reader = BlobReader::open(client, reference, descriptor)?;
    let read = reader.read_to_end(&mut bytes);
    read.map(|_| bytes).map_err(|error| match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::new(ErrorKind::Network, format!("reading blob {}: {error}", descriptor.digest)),
    })
}
