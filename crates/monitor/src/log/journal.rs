//! Lines for the journal of systemd, by its native protocol (systemd.journal-fields(7), "Journal Native Protocol"):
//! a datagram a line, with the fields that Podman's containers have there.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::Stream;

const SOCKET: &str = "/run/systemd/journal/socket";

/// What the journal is told with each line.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `--log-opt tag=`.
    pub tag: String,
}

/// Where lines go.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    fields: Vec<u8>,
}

/// There is a journal.
pub fn is_there() -> bool {
    Path::new(SOCKET).exists()
}

impl Journal {
    /// Of the host.
    pub fn open(fields: &Fields) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        let mut text = Vec::new();
        let short = fields.id.get(..12).unwrap_or(&fields.id);
        let identifier = if fields.tag.is_empty() { &fields.name } else { &fields.tag };
        for (name, value) in [
            ("CONTAINER_ID", short),
            ("CONTAINER_ID_FULL", &fields.id),
            ("CONTAINER_NAME", &fields.name),
            ("CONTAINER_TAG", &fields.tag),
            ("SYSLOG_IDENTIFIER", identifier),
        ] {
            if !value.is_empty() {
                field(&mut text, name, value.as_bytes());
            }
        }
        Ok(Self { socket, fields: text })
    }

    /// The descriptor that it holds.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// A message for each line.
    pub fn write(&self, stream: Stream, data: &[u8]) -> io::Result<()> {
        for line in data.split_inclusive(|b| *b == b'\n') {
            let whole = line.strip_suffix(b"\n");
            let mut message = self.fields.clone();
            field(&mut message, "PRIORITY", if stream == Stream::Stdout { b"6" } else { b"3" });
            if whole.is_none() {
                field(&mut message, "CONTAINER_PARTIAL_MESSAGE", b"true");
            }
            field(&mut message, "MESSAGE", whole.unwrap_or(line));
            self.socket.send_to(&message, SOCKET)?;
        }
        Ok(())
    }
}

/// `NAME=value`, or with its length where there is an end of line in it.
fn field(message: &mut Vec<u8>, name: &str, value: &[u8]) {
    message.extend(name.bytes());
    if value.contains(&b'\n') {
        message.push(b'\n');
        message.extend((value.len() as u64).to_le_bytes());
    } else {
        message.push(b'=');
    }
    message.extend(value);
    message.push(b'\n');
}
