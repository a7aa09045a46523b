//! The monitor process: forked from the command, it starts the container and stays until all about its end is
//! recorded.

use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
    socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use unroot_sys::process::{Fork, close_all_but, exit_now, fork as fork_process};
use unroot_sys::signal::{SignalSet, set_mask};

use crate::asked::Asked;
use crate::checks::{Checks, Schedule};
use crate::client::{Client, LOSSLESS, Said, WANTS_OUTPUT};
use crate::log::{Stream, Writer};
use crate::notify::Proxy;
use crate::pump::{Input, READ_SIZE};
use crate::{Error, failed, frame, terminal};

/// Where a container's standard input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdin {
    /// It is empty.
    Null,
    /// Those who attach.
    Attached,
}

/// How to keep a container.
pub struct Config {
    /// Directory in which `attach.sock` is made.
    pub directory: PathBuf,
    /// The log.
    pub log: Writer,
    /// Where standard input comes from.
    pub stdin: Stdin,
    /// It has a terminal.
    pub terminal: bool,
    /// The container gets the caller's own streams; nothing is logged.
    pub passthrough: bool,
    /// It is killed after this.
    pub timeout: Option<Duration>,
    /// The caller wants the output.
    pub attached: bool,
    /// Where what the container says of itself by `notify/notify.sock` is handed on to.
    pub notify: Option<PathBuf>,
    /// Descriptors that the container gets each time that it is started.
    pub kept: Vec<OwnedFd>,
}

/// The container's ends of its streams.
pub struct StdioEnds {
    /// 0
    pub stdin: Option<OwnedFd>,
    /// 1
    pub stdout: Option<OwnedFd>,
    /// 2
    pub stderr: Option<OwnedFd>,
}

/// A process that waits to be let go, which somebody asks for by a frame `g`.
pub trait Held {
    /// What it holds open.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;
    /// Lets it go, or says why it cannot be: exit code and text.
    fn go(self: Box<Self>) -> Result<(), (u8, String)>;
}

/// A container that was started.
pub struct Started<'a> {
    /// Its first process.
    pub pidfd: OwnedFd,
    /// The number of that.
    pub pid: u32,
    /// The master of its terminal.
    pub terminal: Option<OwnedFd>,
    /// It waits to be let go.
    pub held: Option<Box<dyn Held + 'a>>,
    /// Somebody else manages the monitor's control group.
    pub asked: Option<Asked>,
}

/// How its first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its code, or 128 + signal.
    pub code: i32,
    /// Nanoseconds since the epoch.
    pub finished: i64,
    /// Whoever manages the monitor's control group has asked for it: nothing is to be started any more.
    pub asked: bool,
}

/// Forks the monitor. In it, `start` makes the container with the ends it is given; its failure goes to the caller
/// as exit code and text. After the container's end `finish` records and cleans, and says after which time the
/// container is to be started again, if at all; neither may hold descriptors from one call to the next. `last` is what
/// nobody needs to wait for: it comes when everyone who waits for the end was told of it.
/// Returns in the caller, with the socket to the monitor, on which [`wait_started`] is to be called next.
pub fn fork<'a>(
    config: Config,
    start: impl FnMut(StdioEnds) -> Result<Started<'a>, (u8, String)>,
    finish: impl FnMut(Exit) -> Option<Duration>,
    last: impl FnOnce(),
    checks: Checks<'a>,
) -> Result<UnixStream, Error> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(failed("socketpair"))?;
    // blocked from before the fork on: a signal for the command's process group is not for the monitor
    let mask = set_mask(SignalSet::ALL);
    match fork_process() {
        Err(error) => {
            set_mask(mask);
            Err(error.into())
        }
        Ok(Fork::Parent(_)) => {
            set_mask(mask);
            Ok(UnixStream::from(ours))
        }
        Ok(Fork::Child) => {
            drop(ours);
            let _ = rustix::process::setsid();
            live(config, theirs, start, finish, Schedule::new(checks));
            last();
            exit_now(0)
        }
    }
}

/// Waits for the container's start; its pid.
pub fn wait_started(socket: &mut UnixStream) -> Result<u32, Error> {
    let mut header = [0; 5];
    socket.read_exact(&mut header).map_err(|_| Error::Lost)?;
    let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
    let mut data = vec![0; length.min(frame::MAX)];
    socket.read_exact(&mut data).map_err(|_| Error::Lost)?;
    match (header[0], &data[..]) {
        (b'S', &[a, b, c, d]) => Ok(u32::from_le_bytes([a, b, c, d])),
        (b'X', [exit_code, text @ ..]) => {
            Err(Error::Start { exit_code: *exit_code, text: String::from_utf8_lossy(text).into_owned() })
        }
        _ => Err(Error::Lost),
    }
}

struct Pipes {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

fn pipes(config: &Config) -> Result<(StdioEnds, Pipes), Error> {
    let mut ends = StdioEnds { stdin: None, stdout: None, stderr: None };
    let mut ours = Pipes { stdin: None, stdout: None, stderr: None };
    if config.terminal {
        return Ok((ends, ours));
    }
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(failed("pipe2"));
    if config.passthrough {
        let copy = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(failed("dup"));
        ends.stdin = Some(copy(rustix::stdio::stdin())?);
        ends.stdout = Some(copy(rustix::stdio::stdout())?);
        ends.stderr = Some(copy(rustix::stdio::stderr())?);
        return Ok((ends, ours));
    }
    if config.stdin == Stdin::Attached {
        let (read, write) = pipe()?;
        (ends.stdin, ours.stdin) = (Some(read), Some(write));
    }
    let (read, write) = pipe()?;
    (ours.stdout, ends.stdout) = (Some(read), Some(write));
    let (read, write) = pipe()?;
    (ours.stderr, ends.stderr) = (Some(read), Some(write));
    for fd in [&ours.stdin, &ours.stdout, &ours.stderr].into_iter().flatten() {
        let _ = rustix::io::ioctl_fionbio(fd, true);
    }
    Ok((ends, ours))
}

fn live<'a>(
    mut config: Config,
    socket: OwnedFd,
    mut start: impl FnMut(StdioEnds) -> Result<Started<'a>, (u8, String)>,
    mut finish: impl FnMut(Exit) -> Option<Duration>,
    mut schedule: Schedule<'a>,
) {
    let refuse = |code: u8, text: &str| {
        let mut message = Vec::new();
        let data: Vec<u8> = [code].into_iter().chain(text.bytes()).collect();
        frame::push(&mut message, b'X', &data);
        let _ = rustix::net::send(&socket, &message, rustix::net::SendFlags::NOSIGNAL);
    };
    let made = pipes(&config).and_then(|pipes| Ok((pipes, listeners(&config)?)));
    let ((ends, streams), sockets) = match made {
        Ok(made) => made,
        Err(error) => return refuse(125, &error.to_string()),
    };
    if let Err(error) = leave_stdio() {
        return refuse(125, &error.to_string());
    }
    let started = match start(ends) {
        Ok(started) => started,
        Err((code, text)) => return refuse(code, &text),
    };
    let mut first = Some(socket);
    let mut next = Some((streams, sockets, started));
    while let Some((streams, sockets, started)) = next.take() {
        schedule.begin();
        let mut monitor = Monitor::new(&mut config, streams, sockets, started, schedule);
        monitor.keep_only_own(first.as_ref(), &config.kept);
        if let Some(socket) = first.take() {
            let flags = if config.attached { WANTS_OUTPUT | LOSSLESS } else { LOSSLESS };
            monitor.clients.push(Client::new(socket, flags));
            let pid = monitor.pid.to_le_bytes();
            monitor.clients[0].queue(b'S', &pid);
        }
        let exit = monitor.run();
        let pause = finish(exit);
        monitor.say_goodbye(exit);
        let Some(pause) = pause else { return };
        match &mut monitor.asked {
            Some(asked) => {
                if asked.wait(pause) {
                    return;
                }
            }
            None => std::thread::sleep(pause),
        }
        config.log = monitor.log;
        schedule = monitor.schedule;
        // (nobody waits for an answer any more: what fails now, `start` has recorded)
        let Ok((ends, streams)) = pipes(&config) else { return };
        let Ok(sockets) = listeners(&config) else { return };
        let Ok(started) = start(ends) else { return };
        next = Some((streams, sockets, started));
    }
}

/// 0, 1 and 2 become /dev/null: whoever reads the command's output must not wait for the monitor.
fn leave_stdio() -> Result<(), Error> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open(\"/dev/null\")"))?;
    rustix::stdio::dup2_stdin(&null).map_err(failed("dup2"))?;
    rustix::stdio::dup2_stdout(&null).map_err(failed("dup2"))?;
    rustix::stdio::dup2_stderr(&null).map_err(failed("dup2"))
}

/// The socket's address, through a handle on its directory: paths longer than an address can hold work, too.
pub fn address(directory: &OwnedFd) -> Result<SocketAddrUnix, Error> {
    let path = format!("/proc/self/fd/{}/attach.sock", std::os::fd::AsRawFd::as_raw_fd(directory));
    SocketAddrUnix::new(path).map_err(failed("sockaddr_un"))
}

/// For those who attach, and for what the container says of itself.
fn listeners(config: &Config) -> Result<(OwnedFd, Option<Proxy>), Error> {
    let notify = config.notify.as_ref().map(|target| Proxy::listen(&config.directory, target));
    Ok((listener(&config.directory)?, notify.transpose()?))
}

fn listener(directory: &std::path::Path) -> Result<OwnedFd, Error> {
    let handle =
        rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed(format!("open({directory:?})")))?;
    let _ = rustix::fs::unlinkat(&handle, "attach.sock", rustix::fs::AtFlags::empty());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(failed("socket(AF_UNIX)"))?;
    bind(&socket, &address(&handle)?).map_err(failed(format!("bind({directory:?}/attach.sock)")))?;
    listen(&socket, 64).map_err(failed("listen(attach.sock)"))?;
    Ok(socket)
}

/// A container that has run for so long will run for longer.
const SLIM_AFTER: Duration = Duration::from_secs(2);

struct Monitor<'a> {
    log: Writer,
    outputs: [Option<OwnedFd>; 2],
    terminal: Option<OwnedFd>,
    input: Input,
    listener: OwnedFd,
    clients: Vec<Client>,
    process: OwnedFd,
    pid: u32,
    deadline: Option<Instant>,
    timed_out: bool,
    asked: Option<Asked>,
    /// Asked to end, it has until then.
    ends: Option<Instant>,
    schedule: Schedule<'a>,
    notify: Option<Proxy>,
    held: Option<Box<dyn Held + 'a>>,
    /// When the memory that only the start needed is given back.
    slims: Option<Instant>,
    /// It could not be let go: what its exit code is to be.
    failed: Option<i32>,
}

impl<'a> Monitor<'a> {
    fn new(
        config: &mut Config,
        pipes: Pipes,
        (listener, notify): (OwnedFd, Option<Proxy>),
        started: Started<'a>,
        schedule: Schedule<'a>,
    ) -> Self {
        let (outputs, input) = match &started.terminal {
            Some(master) => {
                let _ = rustix::io::ioctl_fionbio(master, true);
                let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).ok();
                (
                    [copy(master), None],
                    Input::terminal(copy(master).filter(|_| config.stdin == Stdin::Attached)),
                )
            }
            None => ([pipes.stdout, pipes.stderr], Input::pipe(pipes.stdin)),
        };
        Self {
            log: std::mem::take(&mut config.log),
            outputs,
            terminal: started.terminal,
            input,
            listener,
            clients: Vec::new(),
            process: started.pidfd,
            pid: started.pid,
            deadline: config.timeout.map(|t| Instant::now() + t),
            timed_out: false,
            asked: started.asked,
            ends: None,
            schedule,
            notify,
            held: started.held,
            slims: Some(Instant::now() + SLIM_AFTER),
            failed: None,
        }
    }

    /// Whatever else the command had open is closed.
    fn keep_only_own(&self, socket: Option<&OwnedFd>, kept: &[OwnedFd]) {
        let mut keep: Vec<BorrowedFd<'_>> = vec![
            rustix::stdio::stdin(),
            rustix::stdio::stdout(),
            rustix::stdio::stderr(),
            self.listener.as_fd(),
            self.process.as_fd(),
        ];
        keep.extend(socket.map(|fd| fd.as_fd()));
        keep.extend(self.outputs.iter().flatten().map(|fd| fd.as_fd()));
        keep.extend(self.terminal.as_ref().map(|fd| fd.as_fd()));
        keep.extend(self.input.descriptor());
        keep.extend(self.log.descriptors());
        keep.extend(self.schedule.child());
        keep.extend(self.notify.as_ref().map(Proxy::descriptor));
        keep.extend(self.asked.as_ref().map(Asked::descriptor));
        keep.extend(self.held.iter().flat_map(|held| held.descriptors()));
        keep.extend(kept.iter().map(|fd| fd.as_fd()));
        close_all_but(&keep);
    }

    /// Until the first process has ended and what it printed has been read.
    fn run(&mut self) -> Exit {
        let mut buffer = vec![0; READ_SIZE];
        loop {
            self.clients.iter_mut().filter(|c| c.has_output()).for_each(Client::flush);
            self.clients.retain(|c| !c.gone);
            let ready = self.wait();
            if ready.exited {
                // (its last words)
                self.notify.iter().for_each(Proxy::forward);
                let exit = self.reap();
                for _ in 0..1 << 16 {
                    if !self.read_outputs(&mut buffer, [true, true]) {
                        break;
                    }
                }
                return exit;
            }
            self.read_outputs(&mut buffer, ready.outputs);
            if ready.listener {
                self.accept();
            }
            let (mut said, mut asks) = (Vec::new(), None);
            for (n, (client, readable)) in self.clients.iter_mut().zip(ready.clients).enumerate() {
                if readable {
                    let before = said.len();
                    client.read(&mut said);
                    if said[before..].iter().any(|s| matches!(s, Said::Go)) {
                        asks = Some(n);
                    }
                }
            }
            said.into_iter().for_each(|said| self.hear(said));
            if let Some(client) = asks {
                self.let_go(client);
            }
            self.input.flush();
            if let Some(notify) = &self.notify {
                notify.forward();
            }
            if ready.checked {
                self.schedule.reap();
            }
            if let Some(asked) = self.asked.as_mut().filter(|_| ready.asked)
                && asked.is_heard()
            {
                self.ends = self.ends.or(Instant::now().checked_add(asked.grace));
            }
            self.mind_time();
        }
    }

    fn wait(&self) -> Ready {
        let now = Instant::now();
        let held_back = self.clients.iter().any(|c| c.flags & WANTS_OUTPUT != 0 && c.is_full());
        let outputs: Vec<(usize, &OwnedFd)> = match held_back {
            true => Vec::new(),
            false => self.outputs.iter().enumerate().filter_map(|(n, fd)| Some((n, fd.as_ref()?))).collect(),
        };
        let mut fds =
            vec![PollFd::new(&self.process, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        fds.extend(outputs.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)));
        for client in &self.clients {
            let mut events = PollFlags::empty();
            events.set(PollFlags::IN, !self.input.is_full());
            events.set(PollFlags::OUT, client.has_output());
            fds.push(PollFd::new(&client.socket, events));
        }
        if let Some(fd) = self.input.blocked() {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT));
        }
        fds.extend(self.notify.iter().map(|n| PollFd::from_borrowed_fd(n.descriptor(), PollFlags::IN)));
        let asked = fds.len();
        fds.extend(self.asked.iter().map(|a| PollFd::from_borrowed_fd(a.descriptor(), PollFlags::IN)));
        if let Some(fd) = self.schedule.child() {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        let stuck = held_back.then(|| Duration::from_secs(1));
        let deadlines =
            self.deadline.into_iter().chain(self.ends).chain(self.slims).chain(self.schedule.due());
        let left = deadlines.map(|d| d.saturating_duration_since(now)).chain(stuck).min();
        let left = left.map(|l| Timespec { tv_sec: l.as_secs() as i64, tv_nsec: l.subsec_nanos().into() });
        if let Err(e) = poll(&mut fds, left.as_ref())
            && e != Errno::INTR
        {
            std::thread::sleep(Duration::from_millis(10)); // out of memory: nothing else to do
        }
        let any = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let mut ready = Ready { exited: any(&fds[0]), listener: any(&fds[1]), ..Ready::default() };
        ready.asked = self.asked.is_some() && any(&fds[asked]);
        ready.checked = self.schedule.child().is_some() && fds.last().is_some_and(any);
        for ((n, _), fd) in outputs.iter().zip(&fds[2..]) {
            ready.outputs[*n] = any(fd);
        }
        let first = 2 + outputs.len();
        ready.clients = fds[first..first + self.clients.len()]
            .iter()
            .map(|fd| fd.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR))
            .collect();
        ready
    }

    /// Reads what there is from the outputs; says whether there was something.
    fn read_outputs(&mut self, buffer: &mut [u8], ready: [bool; 2]) -> bool {
        let mut some = false;
        for (n, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            let Some(fd) = self.outputs[n].as_ref().filter(|_| ready[n]) else { continue };
            match rustix::io::read(fd, &mut *buffer) {
                Ok(0) => self.outputs[n] = None,
                Ok(length) => {
                    some = true;
                    self.log.write(stream, &buffer[..length]);
                    let kind = if stream == Stream::Stdout { b'o' } else { b'e' };
                    for client in self.clients.iter_mut().filter(|c| c.flags & WANTS_OUTPUT != 0) {
                        client.queue(kind, &buffer[..length]);
                        client.flush();
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                // (a terminal whose slaves are all closed: EIO, until somebody opens one again)
                Err(Errno::IO) if self.terminal.is_some() => self.outputs[n] = None,
                Err(_) => self.outputs[n] = None,
            }
        }
        some
    }

    fn accept(&mut self) {
        if let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC) {
            let mut client = Client::new(socket, 0);
            client.queue(b'S', &self.pid.to_le_bytes());
            self.clients.push(client);
        }
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Input(data) => self.input.push(&data),
            Said::EndOfInput => self.input.end(),
            Said::Update => self.schedule.ask(),
            Said::Go => {}
            Said::Size(rows, columns) => {
                if let Some(master) = &self.terminal {
                    terminal::set_size(master, rows, columns);
                }
            }
        }
    }

    /// Lets the process go that waits, and tells who has asked for it.
    fn let_go(&mut self, client: usize) {
        let Some(held) = self.held.take() else { return };
        match held.go() {
            Ok(()) => {
                self.schedule.begin();
                self.clients[client].queue(b'S', &self.pid.to_le_bytes());
            }
            Err((code, text)) => {
                self.failed = Some(code.into());
                let data: Vec<u8> = [code].into_iter().chain(text.bytes()).collect();
                self.clients[client].queue(b'X', &data);
            }
        }
    }

    fn mind_time(&mut self) {
        let now = Instant::now();
        self.clients.retain(|c| !c.is_stuck(now));
        if self.deadline.is_some_and(|d| now >= d) {
            self.deadline = None;
            self.timed_out = true;
            let _ = rustix::process::pidfd_send_signal(&self.process, rustix::process::Signal::KILL);
        }
        if self.ends.is_some_and(|at| now >= at) {
            self.ends = None;
            let _ = rustix::process::pidfd_send_signal(&self.process, rustix::process::Signal::KILL);
        }
        if self.slims.is_some_and(|at| now >= at) {
            self.slims = None;
            unroot_sys::memory::give_back();
        }
        self.schedule.mind(now);
    }

    fn reap(&mut self) -> Exit {
        let code = loop {
            match waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED) {
                Ok(Some(status)) => break exit_code(&status),
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => break 255,
            }
        };
        // as Podman has it for a container that --timeout ended
        let code = if self.timed_out { -1 } else { self.failed.unwrap_or(code) };
        let asked = self.asked.as_mut().is_some_and(Asked::is_heard);
        Exit { code, finished: crate::log::now(), asked }
    }

    /// Everybody gets what is left, and the exit code.
    fn say_goodbye(&mut self, exit: Exit) {
        let deadline = Instant::now() + Duration::from_secs(10);
        self.accept();
        self.clients.iter_mut().for_each(|c| c.queue(b'q', &exit.code.to_le_bytes()));
        loop {
            self.clients.iter_mut().for_each(Client::flush);
            self.clients.retain(|c| !c.gone && c.has_output());
            if Instant::now() > deadline {
                self.clients.retain(|c| c.flags & LOSSLESS != 0);
            }
            if self.clients.is_empty() {
                return;
            }
            let mut fds: Vec<_> =
                self.clients.iter().map(|c| PollFd::new(&c.socket, PollFlags::OUT)).collect();
            let _ = poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }));
        }
    }
}

#[derive(Default)]
struct Ready {
    exited: bool,
    checked: bool,
    asked: bool,
    listener: bool,
    outputs: [bool; 2],
    clients: Vec<bool>,
}

/// As a shell has it: 128 + signal for a killed process.
pub fn exit_code(status: &rustix::process::WaitIdStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    }
}
