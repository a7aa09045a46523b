//! A scope of systemd for a container: the place in the tree of control groups that systemd, which owns the tree,
//! hands over to the user (org.freedesktop.systemd1(5), systemd.scope(5), cgroup delegation).
//!
//! The manager is asked directly, on its private socket, as systemctl(1) does: the system's as root, the user's own
//! otherwise. One method call of the D-Bus protocol (the D-Bus specification, "Message Protocol") needs no library.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long systemd may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Messages that are longer are not systemd's.
const LONGEST: usize = 1 << 20;

const DESTINATION: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";

/// What a scope is like.
#[derive(Clone, Debug)]
pub struct Scope<'a> {
    /// `unroot-ID.scope`
    pub name: &'a str,
    /// For people.
    pub description: &'a str,
    /// Several supervisors are in it, those of a pod: it may be there already.
    pub shared: bool,
    /// Below another slice than the usual one.
    pub slice: Option<&'a str>,
    /// How systemd asks its processes to end, when the scope is stopped or the host goes down.
    pub stop_signal: i32,
    /// When it kills them.
    pub stop_timeout: Duration,
}

/// A manager of systemd that can be asked.
#[derive(Debug)]
pub struct Manager {
    socket: UnixStream,
    serial: u32,
    /// The unit below which scopes are made.
    slice: &'static str,
}

impl Manager {
    /// The manager of this user (of the host: 0 is the system's), if the host runs systemd and it answers.
    pub fn of_user(uid: u32) -> Option<Self> {
        if !Path::new("/run/systemd/system").exists() {
            return None;
        }
        let path = match uid {
            0 => PathBuf::from("/run/systemd/private"),
            _ => {
                let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
                runtime.unwrap_or_else(|| format!("/run/user/{uid}").into()).join("systemd/private")
            }
        };
        let slice = if uid == 0 { "machine.slice" } else { "user.slice" };
        Self::connect(&path, uid, slice).ok()
    }

    fn connect(path: &Path, uid: u32, slice: &'static str) -> io::Result<Self> {
        let mut socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let identity: String = uid.to_string().bytes().map(|b| format!("{b:02x}")).collect();
        socket.write_all(format!("\0AUTH EXTERNAL {identity}\r\nBEGIN\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 1024 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        match line.starts_with(b"OK ") {
            true => Ok(Self { socket, serial: 0, slice }),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    /// Makes a scope that is delegated to the user, with this process in it, and waits until it is in it.
    pub fn start_scope(&mut self, scope: &Scope<'_>) -> io::Result<()> {
        let before = fs::read_to_string("/proc/self/cgroup")?;
        let mut body = Body::default();
        body.string(scope.name);
        body.string("fail");
        body.array(8, |body| {
            let mut property = |name: &str, signature: &str, value: &dyn Fn(&mut Body)| {
                body.align(8);
                body.string(name);
                body.signature(signature);
                value(body);
            };
            property("Description", "s", &|b| b.string(scope.description));
            property("Slice", "s", &|b| b.string(scope.slice.unwrap_or(self.slice)));
            property("Delegate", "b", &|b| b.number(1));
            property("TasksMax", "t", &|b| b.long(u64::MAX));
            property("KillSignal", "i", &|b| b.number(scope.stop_signal.cast_unsigned()));
            // (none at all would be for ever)
            let timeout = scope.stop_timeout.max(Duration::from_millis(100)).as_micros();
            property("TimeoutStopUSec", "t", &|b| b.long(timeout as u64));
            property("CollectMode", "s", &|b| b.string("inactive-or-failed"));
            property("PIDs", "au", &|b| b.array(4, |b| b.number(std::process::id())));
        });
        body.array(8, |_| {});
        self.call("StartTransientUnit", "ssa(sv)a(sa(sv))", &body)?;
        // the job is done when we are there
        let begin = Instant::now();
        while fs::read_to_string("/proc/self/cgroup")? == before {
            if begin.elapsed() > PATIENCE {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the scope was not started in time"));
            }
            std::thread::sleep(Duration::from_micros(300));
        }
        Ok(())
    }

    /// Moves this process into a group below a scope.
    pub fn join_scope(&mut self, name: &str, below: &str) -> io::Result<()> {
        let mut body = Body::default();
        body.string(name);
        body.string(below);
        body.array(4, |b| b.number(std::process::id()));
        self.call("AttachProcessesToUnit", "ssau", &body)
    }

    fn call(&mut self, member: &str, signature: &str, body: &Body) -> io::Result<()> {
        self.serial += 1;
        self.socket.write_all(&message(self.serial, member, signature, body))?;
        loop {
            let (header, body) = self.receive()?;
            match (header.kind, header.reply_to == Some(self.serial)) {
                (2, true) => return Ok(()),
                (3, true) => {
                    let name = header.error.unwrap_or_default();
                    let text = Reader { bytes: &body, at: 0 }.string().unwrap_or_default();
                    return Err(io::Error::other(format!("{member}: {text} ({name})")));
                }
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> io::Result<(Header, Vec<u8>)> {
        let mut start = [0; 16];
        self.socket.read_exact(&mut start)?;
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not a message of D-Bus");
        let number =
            |at: usize| u32::from_le_bytes(start[at..at + 4].try_into().unwrap_or_default()) as usize;
        let (body, fields) = (number(4), number(12));
        if start[0] != b'l' || body > LONGEST || fields > LONGEST {
            return Err(invalid());
        }
        let mut bytes = start.to_vec();
        bytes.resize((16 + fields).next_multiple_of(8) + body, 0);
        self.socket.read_exact(&mut bytes[16..])?;
        let body = bytes.split_off(bytes.len() - body);
        Ok((Header::read(&bytes, 16 + fields).ok_or_else(invalid)?, body))
    }
}

/// What matters of a message's header.
#[derive(Debug, Default, PartialEq, Eq)]
struct Header {
    kind: u8,
    reply_to: Option<u32>,
    error: Option<String>,
}

impl Header {
    fn read(bytes: &[u8], end: usize) -> Option<Self> {
        let mut header = Self { kind: bytes[1], ..Self::default() };
        let mut reader = Reader { bytes: bytes.get(..end)?, at: 16 };
        while reader.at < end {
            reader.at = reader.at.next_multiple_of(8);
            let code = reader.byte()?;
            let length = reader.byte()?;
            let signature = reader.take(usize::from(length) + 1)?;
            match signature {
                b"s\0" | b"o\0" => {
                    let text = reader.string()?;
                    if code == 4 {
                        header.error = Some(text);
                    }
                }
                b"g\0" => {
                    let length = reader.byte()?;
                    reader.take(usize::from(length) + 1)?;
                }
                b"u\0" => {
                    let number = reader.number()?;
                    if code == 5 {
                        header.reply_to = Some(number);
                    }
                }
                _ => return None,
            }
        }
        Some(header)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.at = self.at.next_multiple_of(4);
        self.take(4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
    }

    fn string(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        let text = self.take(length)?;
        self.take(1)?;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

/// Values in D-Bus' format, little endian.
#[derive(Debug, Default)]
struct Body(Vec<u8>);

impl Body {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn long(&mut self, number: u64) {
        self.align(8);
        self.0.extend(number.to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.0.extend(text.bytes().chain([0]));
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.bytes().chain([0]));
    }

    /// An array whose elements are aligned so; its length does not count the padding before the first.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.number(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let begin = self.0.len();
        elements(self);
        let length = (self.0.len() - begin) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

fn message(serial: u32, member: &str, signature: &str, body: &Body) -> Vec<u8> {
    let mut all = Body(vec![b'l', 1, 0, 1]);
    all.number(body.0.len() as u32);
    all.number(serial);
    all.array(8, |all| {
        let mut field = |code: u8, kind: &str, value: &str| {
            all.align(8);
            all.0.push(code);
            all.signature(kind);
            match kind {
                "g" => all.signature(value),
                _ => all.string(value),
            }
        };
        field(1, "o", OBJECT);
        field(2, "s", INTERFACE);
        field(3, "s", member);
        field(6, "s", DESTINATION);
        field(8, "g", signature);
    });
    all.align(8);
    all.0.extend(&body.0);
    all.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_laid_out_as_the_specification_says() {
        let mut body = Body::default();
        body.string("a.scope");
        body.array(8, |b| {
            b.align(8);
            b.string("PIDs");
            b.signature("au");
            b.array(4, |b| b.number(7));
        });
        assert_eq!(&body.0[..12], b"\x07\0\0\0a.scope\0");
        assert_eq!(
            &body.0[12..16],
            24u32.to_le_bytes(),
            "the padding before the first element is not counted"
        );
        assert_eq!(&body.0[16..], b"\x04\0\0\0PIDs\0\x02au\0\0\0\0\x04\0\0\0\x07\0\0\0");
        let bytes = message(3, "Get", "s", &body);
        assert_eq!(bytes[..4], [b'l', 1, 0, 1]);
        assert_eq!((bytes.len() - body.0.len()) % 8, 0);
        assert!(bytes.ends_with(&body.0));
    }

    #[test]
    fn an_error_is_read_and_nonsense_is_not() {
        let mut all = Body(vec![b'l', 3, 0, 1]);
        all.number(0);
        all.number(9);
        all.array(8, |all| {
            all.align(8);
            all.0.push(5);
            all.signature("u");
            all.number(4);
            all.align(8);
            all.0.push(4);
            all.signature("s");
            all.string("org.example.Error");
        });
        let end = all.0.len();
        let header = Header::read(&all.0, end).unwrap();
        assert_eq!(header, Header { kind: 3, reply_to: Some(4), error: Some("org.example.Error".into()) });
        for cut in 17..end {
            assert_eq!(Header::read(&all.0[..cut], end), None);
        }
    }
}
