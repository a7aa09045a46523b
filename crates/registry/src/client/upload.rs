//! One blob on its way out, going on where a broken connection left it.
//!
//! ```text
//! POST  blobs/uploads/                   202: Location
//! PATCH Location   (the bytes)           202: Location
//!   broken:  GET Location                204: Range: 0-LAST, Location    what has arrived
//!            PATCH Location              Content-Range: LAST+1-END       the rest
//!            a registry that does not know it any more, or answers nonsense: POST again
//! PUT   Location?digest=DIGEST           201
//! ```

use std::io::{self, Read};

use ureq::http::{Method, Uri, header};

use super::Inner;
use super::address::{resolve, with_query};
use super::backoff::Backoff;
use super::exchange::{Access, At, Call, Payload, Reply};
use super::push::{access, exists};
use crate::digest::Hasher;
use crate::error::{Error, ErrorKind, Retry};
use crate::manifest::Descriptor;
use crate::reference::Reference;

/// Opens the local bytes, from their start.
type Open<'a> = &'a mut dyn FnMut() -> io::Result<Box<dyn Read>>;

/// Bytes more than ever before with which a connection counts as having worked, so that the tries start anew.
const PROGRESS: u64 = 64 << 10;

/// Uploads a blob unless it is there.
pub(super) fn push_blob(
    inner: &Inner,
    repository: &Reference,
    descriptor: &Descriptor,
    open: Open,
) -> Result<(), Error> {
    let access = access(inner, repository)?;
    let mut upload = Upload { access: &access, repository, descriptor, open, address: None, furthest: 0 };
    let pushed = upload.run(Backoff::new(&inner.options));
    pushed.map_err(|error| {
        error.context(format_args!("writing blob {} to {}", descriptor.digest, repository.name()))
    })
}

struct Upload<'a> {
    access: &'a Access<'a>,
    repository: &'a Reference,
    descriptor: &'a Descriptor,
    open: Open<'a>,
    /// Where the registry takes it, once that has begun.
    address: Option<Uri>,
    /// The most that has ever arrived.
    furthest: u64,
}

impl Upload<'_> {
    fn run(&mut self, mut backoff: Backoff) -> Result<(), Error> {
        loop {
            let before = self.furthest;
            match self.attempt() {
                Ok(()) => return Ok(()),
                Err(error) if self.furthest >= before + PROGRESS => {
                    backoff.reset();
                    backoff.pause(error)?;
                }
                Err(error) => backoff.pause(error)?,
            }
        }
    }

    fn attempt(&mut self) -> Result<(), Error> {
        if exists(self.access, self.repository, &self.descriptor.digest)? {
            return Ok(());
        }
        let (address, arrived) = match self.arrived()? {
            Some(known) => known,
            None => (self.begin()?, 0),
        };
        self.furthest = self.furthest.max(arrived);
        self.address = Some(address.clone());
        self.rest(address, arrived).map_err(|error| {
            // (local faults are of the kind Digest)
            let refused = error.retry() == Retry::Never && error.kind() != ErrorKind::Digest;
            match arrived > 0 && refused {
                // A registry that does not take the rest is sent the whole.
                true => {
                    self.address = None;
                    error.retrying(Retry::Backoff)
                }
                false => error,
            }
        })
    }

    /// Sends what has not arrived, and ends the upload.
    fn rest(&mut self, address: Uri, arrived: u64) -> Result<(), Error> {
        let mut bytes = (self.open)().map_err(|error| local(self.descriptor, &error.to_string()))?;
        let mut checked = Checked::new(&mut *bytes, self.descriptor);
        checked.skip(arrived)?;
        let address = match arrived < self.descriptor.size {
            true => self.send(address, arrived, &mut checked)?,
            false => address,
        };
        checked.verify()?;
        self.commit(&address)
    }

    /// What the registry has of an upload that was begun before; none if there is no such upload.
    fn arrived(&self) -> Result<Option<(Uri, u64)>, Error> {
        let Some(address) = &self.address else { return Ok(None) };
        let reply = match self
            .access
            .expect(&Call::new(Method::GET, At::Url(address.clone())), &mut Payload::Empty)
        {
            Ok(reply) => reply,
            Err(error) if error.retry() == Retry::Never => return Ok(None),
            Err(error) => return Err(error),
        };
        let arrived =
            reply.header(header::RANGE).and_then(end_of_range).filter(|n| *n <= self.descriptor.size);
        let address = location(&reply).unwrap_or_else(|_| address.clone());
        Ok(arrived.map(|arrived| (address, arrived)))
    }

    fn begin(&self) -> Result<Uri, Error> {
        let start = format!("/v2/{}/blobs/uploads/", self.repository.repository());
        location(&self.access.expect(&Call::new(Method::POST, At::Path(start)), &mut Payload::Empty)?)
    }

    /// Sends all bytes from here on; where they are to be committed.
    fn send(&mut self, address: Uri, from: u64, checked: &mut Checked) -> Result<Uri, Error> {
        let mut patch = Call::new(Method::PATCH, At::Url(address))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .patient(self.access.options().timeouts.commit);
        if from > 0 {
            patch = patch.header(header::CONTENT_RANGE, format!("{from}-{}", self.descriptor.size - 1));
        }
        let sent = self.access.expect(&patch, &mut Payload::Stream(checked, self.descriptor.size - from));
        if let Some(fault) = checked.fault.take() {
            return Err(local(self.descriptor, &fault));
        }
        let address = location(&sent?)?;
        self.address = Some(address.clone());
        Ok(address)
    }

    fn commit(&self, address: &Uri) -> Result<(), Error> {
        let commit = with_query(&address.to_string(), &[("digest", self.descriptor.digest.as_str())]);
        let commit: Uri = commit
            .parse()
            .map_err(|_| Error::new(ErrorKind::Protocol, format!("{address}: bad upload address")))?;
        let put = Call::new(Method::PUT, At::Url(commit)).patient(self.access.options().timeouts.commit);
        self.access.expect(&put, &mut Payload::Bytes(&[])).map(drop)
    }
}

/// Where an upload goes on.
pub(super) fn location(reply: &Reply) -> Result<Uri, Error> {
    let missing = || Error::new(ErrorKind::Protocol, format!("{}: the answer has no Location", reply.call));
    resolve(&reply.uri, reply.header(header::LOCATION).ok_or_else(missing)?)
}

/// How many bytes `0-LAST` is. `0-0` is one, or none: registries differ.
fn end_of_range(range: &str) -> Option<u64> {
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let last: u64 = range.strip_prefix("0-")?.parse().ok()?;
    last.checked_add(1).filter(|_| last > 0)
}

fn local(descriptor: &Descriptor, reason: &str) -> Error {
    Error::new(ErrorKind::Digest, format!("reading the local blob {}: {reason}", descriptor.digest))
}

/// The local bytes on their way out, counted and hashed.
struct Checked<'a> {
    stream: &'a mut dyn Read,
    descriptor: &'a Descriptor,
    hasher: Hasher,
    sent: u64,
    fault: Option<String>,
}

impl<'a> Checked<'a> {
    fn new(stream: &'a mut dyn Read, descriptor: &'a Descriptor) -> Self {
        Self { stream, descriptor, hasher: Hasher::new(descriptor.digest.algorithm()), sent: 0, fault: None }
    }

    /// Reads what has arrived already.
    fn skip(&mut self, count: u64) -> Result<(), Error> {
        let skipped = io::copy(&mut self.by_ref().take(count), &mut io::sink());
        skipped.map(drop).map_err(|error| local(self.descriptor, &error.to_string()))
    }

    /// All bytes, no more, and the right ones.
    fn verify(self) -> Result<(), Error> {
        let more =
            self.stream.read(&mut [0; 1]).map_err(|error| local(self.descriptor, &error.to_string()))?;
        if more > 0 || self.sent != self.descriptor.size {
            return Err(local(self.descriptor, &format!("it does not have {} bytes", self.descriptor.size)));
        }
        let actual = self.hasher.finish();
        match actual == self.descriptor.digest {
            true => Ok(()),
            false => Err(local(self.descriptor, &format!("the content has digest {actual}"))),
        }
    }

    fn read_checked(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.descriptor.size - self.sent).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let count = self.stream.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::Error::other(format!(
                "it ends after {} of {} bytes",
                self.sent, self.descriptor.size
            )));
        }
        self.hasher.update(&buffer[..count]);
        self.sent += count as u64;
        Ok(count)
    }
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.read_checked(buffer);
        if let Err(error) = &result {
            self.fault = Some(error.to_string());
        }
        result
    }
}
