//! The command's side of a monitor: the user's streams, terminal and signals.

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use unroot_sys::signal::{SignalSet, read_signal, set_mask, signal_fd};

use crate::client::WANTS_OUTPUT;
use crate::supervise::address;
use crate::terminal::{self, DetachKeys, Raw};
use crate::{Error, failed, frame};

pub use crate::supervise::wait_started;

/// How to attach.
pub struct Options<'a> {
    /// Hand standard input on.
    pub stdin: bool,
    /// The container has a terminal.
    pub terminal: bool,
    /// Show standard output.
    pub stdout: bool,
    /// Show standard error.
    pub stderr: bool,
    /// What detaches.
    pub detach_keys: DetachKeys,
    /// Signals that this process gets go to the container.
    pub forward: Option<&'a dyn Fn(i32)>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The container did.
    Exited(i32),
    /// The user did.
    Detached,
    /// Nobody reads our output any more.
    Broken,
}

/// Connects to a container's monitor, and waits until that says that the container has started.
pub fn connect_to(directory: &Path, wants_output: bool) -> Result<UnixStream, Error> {
    let mut stream = open(directory, SocketFlags::CLOEXEC)?;
    let mut hello = Vec::new();
    frame::push(&mut hello, b'h', &[if wants_output { WANTS_OUTPUT } else { 0 }]);
    stream.write_all(&hello).map_err(|_| Error::Lost)?;
    wait_started(&mut stream)?;
    Ok(stream)
}

fn open(directory: &Path, flags: SocketFlags) -> Result<UnixStream, Error> {
    let handle: OwnedFd =
        rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed(format!("open({directory:?})")))?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(failed("socket(AF_UNIX)"))?;
    connect(&socket, &address(&handle)?).map_err(failed(format!("connect({directory:?}/attach.sock)")))?;
    Ok(UnixStream::from(socket))
}

/// Tells a container's monitor that what the container is to be like has changed. It may itself wait for what the
/// caller has locked, so nothing is waited for.
pub fn tell_update(directory: &Path) -> Result<(), Error> {
    let mut stream = open(directory, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let mut message = Vec::new();
    frame::push(&mut message, b'u', b"");
    stream.write_all(&message).map_err(|_| Error::Lost)
}

/// Has the process let go that waits; what comes then, comes on the same stream.
pub fn let_go(stream: &mut UnixStream) -> Result<(), Error> {
    let mut message = Vec::new();
    frame::push(&mut message, b'g', b"");
    stream.write_all(&message).map_err(|_| Error::Lost)?;
    wait_started(stream).map(drop)
}

/// Waits for the exit code, and shows nothing.
pub fn wait_exit(stream: UnixStream) -> Result<i32, Error> {
    let quiet = Options {
        stdin: false,
        terminal: false,
        stdout: false,
        stderr: false,
        detach_keys: DetachKeys::default(),
        forward: None,
    };
    match run(stream, quiet)? {
        Outcome::Exited(code) => Ok(code),
        Outcome::Detached | Outcome::Broken => Err(Error::Lost),
    }
}

/// Signals that are not handed on: those that cannot be, and those about this process itself.
const OWN: [i32; 12] = [4, 5, 7, 8, 9, 11, 13, 17, 19, 20, 23, 28];
const SIGWINCH: i32 = 28;

/// Is attached until the container ends or the user detaches.
pub fn run(stream: UnixStream, mut options: Options<'_>) -> Result<Outcome, Error> {
    let stdin = io::stdin();
    let _raw = (options.terminal && options.stdin).then(|| Raw::enter(stdin.as_fd())).flatten();
    let mut caught = SignalSet::of(&[SIGWINCH]);
    if options.forward.is_some() {
        caught = SignalSet::ALL.without(&OWN.map(|n| if n == SIGWINCH { 9 } else { n }));
    }
    let before = set_mask(caught.without(&[9, 19]));
    let signals = signal_fd(caught)?;
    let result = Attached {
        stream,
        signals,
        incoming: Vec::new(),
        outgoing: Vec::new(),
        options: &mut options,
        stdin_open: true,
    }
    .run();
    set_mask(before);
    result
}

struct Attached<'a, 'b> {
    stream: UnixStream,
    signals: OwnedFd,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    options: &'a mut Options<'b>,
    stdin_open: bool,
}

impl Attached<'_, '_> {
    fn run(mut self) -> Result<Outcome, Error> {
        self.stdin_open = self.options.stdin;
        if self.options.terminal {
            self.tell_size();
        }
        let mut buffer = vec![0; 64 << 10];
        loop {
            self.flush()?;
            let [from_monitor, from_stdin, signal] = self.wait();
            if signal {
                self.hear_signals();
            }
            if from_stdin && !self.read_stdin(&mut buffer) {
                return Ok(Outcome::Detached);
            }
            if from_monitor && let Some(outcome) = self.read_monitor(&mut buffer)? {
                return Ok(outcome);
            }
        }
    }

    fn wait(&self) -> [bool; 3] {
        let mut events = PollFlags::IN;
        events.set(PollFlags::OUT, !self.outgoing.is_empty());
        let stdin = io::stdin();
        let mut fds = vec![PollFd::new(&self.stream, events), PollFd::new(&self.signals, PollFlags::IN)];
        if self.stdin_open && self.outgoing.len() < 64 << 10 {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        let _ = poll(&mut fds, None);
        let is = |n: usize| {
            fds.get(n)
                .is_some_and(|fd| fd.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR))
        };
        [is(0), is(2), is(1)]
    }

    fn tell_size(&mut self) {
        if let Some((rows, columns)) = terminal::size(io::stdin()).or_else(|| terminal::size(io::stdout())) {
            let data: Vec<u8> = rows.to_le_bytes().into_iter().chain(columns.to_le_bytes()).collect();
            frame::push(&mut self.outgoing, b'w', &data);
        }
    }

    fn hear_signals(&mut self) {
        while let Some(signal) = read_signal(self.signals.as_fd()) {
            match (signal, self.options.forward) {
                (SIGWINCH, _) if self.options.terminal => self.tell_size(),
                (SIGWINCH, _) => {}
                (signal, Some(forward)) => forward(signal),
                (_, None) => {}
            }
        }
    }

    /// False if the user detached.
    fn read_stdin(&mut self, buffer: &mut [u8]) -> bool {
        match rustix::io::read(io::stdin(), &mut *buffer) {
            Ok(0) => {
                self.stdin_open = false;
                frame::push(&mut self.outgoing, b'z', &[]);
            }
            Ok(length) => {
                let data = match self.options.terminal {
                    true => self.options.detach_keys.filter(&buffer[..length]),
                    false => Some(buffer[..length].to_vec()),
                };
                match data {
                    Some(data) => frame::push(&mut self.outgoing, b'i', &data),
                    None => return false,
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            // (EIO: a terminal that we are in the background of)
            Err(_) => {
                self.stdin_open = false;
                frame::push(&mut self.outgoing, b'z', &[]);
            }
        }
        true
    }

    fn flush(&mut self) -> Result<(), Error> {
        while !self.outgoing.is_empty() {
            let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
            match rustix::net::send(&self.stream, &self.outgoing, flags) {
                Ok(n) => drop(self.outgoing.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                // the monitor is ending; what it said last is still to be read
                Err(_) => self.outgoing.clear(),
            }
        }
        Ok(())
    }

    fn read_monitor(&mut self, buffer: &mut [u8]) -> Result<Option<Outcome>, Error> {
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.stream, &mut *buffer)) {
            Ok(0) | Err(_) => return Err(Error::Lost),
            Ok(length) => self.incoming.extend(&buffer[..length]),
        }
        let mut used = 0;
        let mut outcome = None;
        while let Ok(Some((kind, data, length))) = frame::next(&self.incoming[used..]) {
            let written = match kind {
                b'o' if self.options.stdout => write_all(io::stdout().as_fd(), data),
                b'e' if self.options.stderr => write_all(io::stderr().as_fd(), data),
                b'q' => {
                    let code = data.try_into().map_or(255, i32::from_le_bytes);
                    outcome = Some(Outcome::Exited(code));
                    Ok(())
                }
                _ => Ok(()),
            };
            if let Err(errno) = written {
                return broken(errno).map(Some);
            }
            used += length;
        }
        self.incoming.drain(..used);
        Ok(outcome)
    }
}

/// Our output cannot be written: nobody reads it any more, or, say, a full disk.
pub fn broken(errno: Errno) -> Result<Outcome, Error> {
    match errno {
        Errno::PIPE => Ok(Outcome::Broken),
        errno => Err(failed("write(output)")(errno)),
    }
}

/// Writes all, and waits where the descriptor does not block.
pub fn write_all(fd: std::os::fd::BorrowedFd<'_>, mut data: &[u8]) -> Result<(), Errno> {
    while !data.is_empty() {
        match rustix::io::write(fd, data) {
            Ok(n) => data = &data[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
