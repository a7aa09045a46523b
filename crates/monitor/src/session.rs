//! A process of `exec` without a terminal: its streams are the command's own, without a monitor in between.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use unroot_sys::signal::{SignalSet, read_signal, set_mask, signal_fd};

use crate::attach::{Outcome, broken, write_all};
use crate::pump::{Input, READ_SIZE};
use crate::supervise::exit_code;
use crate::{Error, failed};

/// Our ends and the process's ends of its streams.
pub struct Ends {
    /// Ours: standard input.
    pub stdin: Option<OwnedFd>,
    /// Ours: standard output and error.
    pub outputs: [Option<OwnedFd>; 2],
    /// Its.
    pub process: [Option<OwnedFd>; 3],
}

/// Pipes for a process without a terminal.
pub fn pipes(stdin: bool) -> Result<Ends, Error> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(failed("pipe2"));
    let (input_read, input_write) =
        if stdin { pipe().map(|(r, w)| (Some(r), Some(w)))? } else { (None, None) };
    let (out_read, out_write) = pipe()?;
    let (err_read, err_write) = pipe()?;
    for fd in [&out_read, &err_read] {
        let _ = rustix::io::ioctl_fionbio(fd, true);
    }
    Ok(Ends {
        stdin: input_write,
        outputs: [Some(out_read), Some(err_read)],
        process: [input_read, Some(out_write), Some(err_write)],
    })
}

/// How to go along with a process.
pub struct Options<'a> {
    /// Hand standard input on.
    pub stdin: bool,
    /// Signals that this process gets go to the other.
    pub forward: &'a dyn Fn(i32),
}

/// Goes along with a child until it ends; its exit code.
pub fn run(
    process: &OwnedFd,
    stdin: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
    options: Options<'_>,
) -> Result<Outcome, Error> {
    let input = Input::pipe(stdin);
    let caught = SignalSet::of(&[1, 2, 3, 10, 12, 15]);
    let before = set_mask(caught);
    let signals = signal_fd(caught)?;
    let stdin_open = options.stdin;
    let result = Session { process, outputs, input, signals, options, stdin_open }.run();
    set_mask(before);
    result
}

struct Session<'a> {
    process: &'a OwnedFd,
    outputs: [Option<OwnedFd>; 2],
    input: Input,
    signals: OwnedFd,
    options: Options<'a>,
    stdin_open: bool,
}

impl Session<'_> {
    fn run(mut self) -> Result<Outcome, Error> {
        if !self.options.stdin {
            self.input.end();
        }
        let mut buffer = vec![0; READ_SIZE];
        loop {
            let ready = self.wait();
            while let Some(signal) = read_signal(self.signals.as_fd()) {
                (self.options.forward)(signal);
            }
            if ready[3] {
                self.read_stdin(&mut buffer);
            }
            self.input.flush();
            for n in 0..2 {
                if ready[1 + n]
                    && let Err(errno) = self.read_output(n, &mut buffer)
                {
                    return broken(errno);
                }
            }
            if ready[0] {
                return self.finish(&mut buffer);
            }
        }
    }

    /// process, stdout, stderr, our stdin
    fn wait(&self) -> [bool; 4] {
        let stdin = io::stdin();
        let mut places = vec![0];
        let mut fds = vec![PollFd::new(self.process, PollFlags::IN)];
        for (n, fd) in self.outputs.iter().enumerate().filter_map(|(n, fd)| Some((n, fd.as_ref()?))) {
            fds.push(PollFd::new(fd, PollFlags::IN));
            places.push(1 + n);
        }
        if self.stdin_open && !self.input.is_full() {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
            places.push(3);
        }
        fds.push(PollFd::new(&self.signals, PollFlags::IN));
        if let Some(fd) = self.input.blocked() {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT));
        }
        let _ = poll(&mut fds, None);
        let mut ready = [false; 4];
        for (place, fd) in places.into_iter().zip(&fds) {
            ready[place] = !fd.revents().is_empty();
        }
        ready
    }

    fn read_stdin(&mut self, buffer: &mut [u8]) {
        match rustix::io::read(io::stdin(), &mut *buffer) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(0) | Err(_) => {
                self.stdin_open = false;
                self.input.end();
            }
            Ok(length) => self.input.push(&buffer[..length]),
        }
    }

    fn read_output(&mut self, n: usize, buffer: &mut [u8]) -> Result<bool, Errno> {
        let Some(fd) = &self.outputs[n] else { return Ok(false) };
        match rustix::io::read(fd, &mut *buffer) {
            Err(Errno::INTR) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Ok(0) | Err(_) => {
                self.outputs[n] = None;
                Ok(false)
            }
            Ok(length) if n == 0 => write_all(io::stdout().as_fd(), &buffer[..length]).map(|()| true),
            Ok(length) => write_all(io::stderr().as_fd(), &buffer[..length]).map(|()| true),
        }
    }

    fn finish(mut self, buffer: &mut [u8]) -> Result<Outcome, Error> {
        let status =
            waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED).map_err(failed("waitid"))?;
        for n in 0..2 {
            while self.read_output(n, buffer).unwrap_or(false) {}
        }
        Ok(Outcome::Exited(status.map_or(255, |status| exit_code(&status))))
    }
}
