//! Small bodies as a whole: bounded in bytes and in time, whatever the server does.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::Body;

use super::failure;
use crate::error::{Error, ErrorKind, Retry};

/// Why reading ended.
enum End {
    Whole,
    Limit,
    Time,
}

/// Reads all of a body; more than `limit` bytes or a longer `time` are errors.
pub(super) fn read_all(
    call: &str,
    host: &str,
    body: Body,
    limit: u64,
    time: Duration,
) -> Result<Vec<u8>, Error> {
    let announced = body.content_length().unwrap_or(0);
    let (bytes, end) = match announced > limit {
        true => (Vec::new(), End::Limit),
        false => read(body, limit, time).map_err(|(_, error)| failure::broken(call, host, error))?,
    };
    match end {
        End::Whole => Ok(bytes),
        End::Limit => {
            Err(Error::new(ErrorKind::TooLarge, format!("{call}: the answer is larger than {limit} bytes")))
        }
        End::Time => {
            let message = format!("{call}: timeout (the answer takes too long)");
            Err(Error::new(ErrorKind::Network, message).retrying(Retry::Backoff))
        }
    }
}

/// Reads what comes of a body, for the words of an error: no more than `limit` and `time` allow.
pub(super) fn read_beginning(body: Body, limit: u64, time: Duration) -> Vec<u8> {
    read(body, limit, time).map_or_else(|(bytes, _)| bytes, |(bytes, _)| bytes)
}

/// What was read, with how it ended or why it failed. It can be a chunk longer than the limit.
fn read(body: Body, limit: u64, time: Duration) -> Result<(Vec<u8>, End), (Vec<u8>, io::Error)> {
    let end = Instant::now() + time;
    let mut reader = body.into_reader();
    let (mut bytes, mut chunk) = (Vec::new(), [0; 16 << 10]);
    loop {
        match reader.read(&mut chunk) {
            Err(error) => return Err((bytes, error)),
            Ok(0) => return Ok((bytes, End::Whole)),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
        if bytes.len() as u64 > limit {
            return Ok((bytes, End::Limit));
        }
        if Instant::now() > end {
            return Ok((bytes, End::Time));
        }
    }
}
