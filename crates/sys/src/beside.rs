//! Children that share this process's memory for as long as they do next to nothing: no page table is copied for them,
//! and no page of this process has to be copied after them, as after a fork.

use std::ffi::CString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};

use crate::SyscallError;
use crate::process::{NamespaceFlags, Strings};
use crate::signal::{SignalSet, set_mask};

type Entry = extern "C" fn(*mut libc::c_void) -> libc::c_int;

/// What a child runs on and reads: it stays where it is until the child has ended or become another program.
struct Frame {
    stack: Box<[u128; 1024]>,
    parent: libc::pid_t,
    program: CString,
    pointers: Vec<*const libc::c_char>,
    _pointed_to: Strings,
    stderr: libc::c_int,
}

// SAFETY: its pointers point to texts on the heap that it owns itself.
unsafe impl Send for Frame {}

/// A child and its memory: dropped, it is killed and waited for.
pub struct Child {
    /// Its number.
    pub pid: u32,
    /// A handle on it.
    pub pidfd: OwnedFd,
    _frame: Box<Frame>,
}

impl std::fmt::Debug for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Child").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Child {
    /// One in new namespaces, which does nothing but wait to be killed, and ends with this process.
    pub fn waiting(namespaces: NamespaceFlags) -> Result<Self, SyscallError> {
        Self::clone(namespaces, wait_to_be_killed, CString::default(), Strings::default(), None)
    }

    /// One that becomes another program.
    fn program(path: &Path, arguments: Strings, stderr: BorrowedFd<'_>) -> Result<Self, SyscallError> {
        use std::os::unix::ffi::OsStrExt as _;
        let program = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| SyscallError::new("execve: a path with a NUL byte", Errno::INVAL))?;
        Self::clone(NamespaceFlags::default(), become_program, program, arguments, Some(stderr))
    }

    fn clone(
        namespaces: NamespaceFlags,
        entry: Entry,
        program: CString,
        arguments: Strings,
        stderr: Option<BorrowedFd<'_>>,
    ) -> Result<Self, SyscallError> {
        let mut frame = Box::new(Frame {
            stack: Box::new([0; 1024]),
            parent: rustix::process::getpid().as_raw_nonzero().get(),
            pointers: arguments.pointers(),
            program,
            _pointed_to: arguments,
            stderr: stderr.map_or(-1, |fd| fd.as_raw_fd()),
        });
        // (a handler would run in memory that is not the child's)
        let mask = set_mask(SignalSet::ALL);
        let flags = libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD | namespaces.bits() as libc::c_int;
        let mut pidfd: libc::c_int = -1;
        let top = frame.stack.as_mut_ptr_range().end;
        let pointer = &raw mut *frame;
        // SAFETY: the stack is the child's alone and, like the frame that it reads, it lives until the child has been
        // waited for (`drop`). `entry` makes system calls and writes to no memory but that stack. `pidfd` is written
        // before clone(2) returns.
        let pid = unsafe { libc::clone(entry, top.cast(), flags, pointer.cast(), &raw mut pidfd) };
        let error = (pid == -1).then(|| SyscallError::last(format!("clone({flags:#x})")));
        set_mask(mask);
        if let Some(error) = error {
            return Err(error);
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Self { pid: pid.cast_unsigned(), pidfd, _frame: frame })
    }

    /// Waits until it ends; none if that was waited for before.
    pub fn wait(&self) -> Option<WaitIdStatus> {
        let id = WaitId::PidFd(self.pidfd.as_fd());
        rustix::io::retry_on_intr(|| waitid(id.clone(), WaitIdOptions::EXITED)).ok()?
    }
}

/// Another program, with no environment; its standard error is read, what else it has is this process's. Unless it has
/// privileges of its own it ends with this thread; what it starts in turn does not.
#[derive(Debug)]
pub struct Program {
    child: Child,
    errors: OwnedFd,
}

impl Program {
    /// Starts it.
    pub fn start(path: &Path, arguments: Strings) -> Result<Self, SyscallError> {
        let (errors, stderr) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| SyscallError::new("pipe2", e))?;
        Ok(Self { child: Child::program(path, arguments, stderr.as_fd())?, errors })
    }

    /// Waits until it ends, or goes into the background: its exit code, none if it was killed, and what it said.
    pub fn finish(self) -> (Option<i32>, String) {
        let Self { child, errors } = self;
        let mut said = Vec::new();
        // (more than that is nobody's to read, and writing it ends the program)
        let _ = File::from(errors).take(64 << 10).read_to_end(&mut said);
        let code = child.wait().and_then(|status| status.exit_status());
        (code, String::from_utf8_lossy(&said).trim().to_string())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        self.wait();
    }
}

extern "C" fn wait_to_be_killed(frame: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the frame lives as long as this process; system calls with numbers only.
    unsafe {
        let parent = (*frame.cast::<Frame>()).parent;
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        while libc::getppid() == parent {
            libc::syscall(libc::SYS_ppoll, 0usize, 0usize, 0usize, 0usize, 0usize);
        }
        0
    }
}

extern "C" fn become_program(frame: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the frame, with the texts that its pointers point to, lives until this process is another program;
    // `pointers` ends with a null pointer, and an environment that is null is an empty one for Linux.
    unsafe {
        let frame = &*frame.cast::<Frame>();
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let orphaned = libc::getppid() != frame.parent;
        if orphaned || libc::syscall(libc::SYS_dup3, frame.stderr, 2, 0) == -1 {
            libc::_exit(126);
        }
        // (programs expect to find it as a shell leaves it, and this one ignores it)
        let (as_default, size) = ([0u64; 4], size_of::<SignalSet>());
        libc::syscall(libc::SYS_rt_sigaction, libc::SIGPIPE, &raw const as_default, 0usize, size);
        let none = SignalSet::default();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, 0usize, size);
        libc::syscall(libc::SYS_execve, frame.program.as_ptr(), frame.pointers.as_ptr(), 0usize);
        libc::_exit(127)
    }
}
