//! clone3, fork and execve for a process that has one thread, and what goes with them.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::io::Errno;

use crate::SyscallError;

/// clone(2); the C library's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Namespaces to make, as for clone(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFlags(u64);

/// One kind of namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// user_namespaces(7)
    User,
    /// mount_namespaces(7)
    Mount,
    /// pid_namespaces(7)
    Pid,
    /// network_namespaces(7)
    Network,
    /// ipc_namespaces(7)
    Ipc,
    /// uts_namespaces(7)
    Uts,
    /// cgroup_namespaces(7)
    Cgroup,
}

impl Namespace {
    /// All kinds.
    pub const ALL: [Namespace; 7] = [
        Namespace::User,
        Namespace::Mount,
        Namespace::Pid,
        Namespace::Network,
        Namespace::Ipc,
        Namespace::Uts,
        Namespace::Cgroup,
    ];

    /// Its `CLONE_NEW*` bit.
    pub fn bit(self) -> u64 {
        let bit = match self {
            Namespace::User => libc::CLONE_NEWUSER,
            Namespace::Mount => libc::CLONE_NEWNS,
            Namespace::Pid => libc::CLONE_NEWPID,
            Namespace::Network => libc::CLONE_NEWNET,
            Namespace::Ipc => libc::CLONE_NEWIPC,
            Namespace::Uts => libc::CLONE_NEWUTS,
            Namespace::Cgroup => libc::CLONE_NEWCGROUP,
        };
        u64::from(bit.cast_unsigned())
    }

    /// Its file in /proc/PID/ns.
    pub fn file(self) -> &'static str {
        match self {
            Namespace::User => "user",
            Namespace::Mount => "mnt",
            Namespace::Pid => "pid",
            Namespace::Network => "net",
            Namespace::Ipc => "ipc",
            Namespace::Uts => "uts",
            Namespace::Cgroup => "cgroup",
        }
    }
}

impl NamespaceFlags {
    /// With one more.
    pub fn insert(&mut self, kind: Namespace) {
        self.0 |= kind.bit();
    }

    /// It holds this kind.
    pub fn contains(self, kind: Namespace) -> bool {
        self.0 & kind.bit() != 0
    }

    /// The `CLONE_NEW*` bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// No namespace at all.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Namespace> for NamespaceFlags {
    fn from_iter<I: IntoIterator<Item = Namespace>>(kinds: I) -> Self {
        let mut flags = Self::default();
        kinds.into_iter().for_each(|kind| flags.insert(kind));
        flags
    }
}

/// A child that was made.
#[derive(Debug)]
pub struct Child {
    /// Its number, as the parent sees it.
    pub pid: u32,
    /// A handle on it.
    pub pidfd: OwnedFd,
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    /// The caller.
    Parent(Child),
    /// The new process.
    Child,
}

/// Fails if this process has other threads: a fork would leave their locks held for ever.
pub fn assert_single_threaded() -> Result<(), SyscallError> {
    let tasks = fs::read_dir("/proc/self/task").map_or(1, |entries| entries.count());
    if tasks == 1 {
        Ok(())
    } else {
        Err(SyscallError::new(format!("fork of {tasks} threads"), Errno::DEADLK))
    }
}

/// fork(2) with a pidfd; the process must have one thread.
pub fn fork() -> Result<Fork, SyscallError> {
    clone(NamespaceFlags::default(), None)
}

/// clone3(2) without shared memory: new namespaces, born in a cgroup if one is given.
pub fn clone(namespaces: NamespaceFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork, SyscallError> {
    clone_with(namespaces.bits(), libc::SIGCHLD as u64, cgroup)
}

/// The same, but the new process is a child of the caller's own parent.
pub fn clone_sibling(namespaces: NamespaceFlags) -> Result<Fork, SyscallError> {
    clone_with(namespaces.bits() | u64::from(libc::CLONE_PARENT.cast_unsigned()), 0, None)
}

fn clone_with(flags: u64, exit_signal: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork, SyscallError> {
    debug_assert!(assert_single_threaded().is_ok());
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all zero is a valid clone_args: no flags, no pointers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | u64::from(libc::CLONE_PIDFD.cast_unsigned());
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = exit_signal;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of all memory and goes on from here. The
    // process has one thread (asserted by callers that may have more), so no lock is held by a thread that is not
    // in the child. `args` lives through the call; `pidfd` is written in the parent only.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(SyscallError::last(format!("clone3({:#x})", args.flags))),
        0 => Ok(Fork::Child),
        // SAFETY: the kernel has just made this descriptor for us.
        pid => Ok(Fork::Parent(Child { pid: pid as u32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })),
    }
}

/// Arguments of an execve, made ready.
#[derive(Debug, Default)]
pub struct Strings {
    owned: Vec<CString>,
}

impl Strings {
    /// From texts; one with a NUL byte is refused.
    pub fn new<S: AsRef<[u8]>>(texts: impl IntoIterator<Item = S>) -> Result<Self, SyscallError> {
        let owned = texts.into_iter().map(|t| CString::new(t.as_ref())).collect::<Result<Vec<_>, _>>();
        owned
            .map(|owned| Self { owned })
            .map_err(|_| SyscallError::new("execve: a text with a NUL byte", Errno::INVAL))
    }

    pub(crate) fn pointers(&self) -> Vec<*const libc::c_char> {
        self.owned.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    }
}

/// execve(2); returns only if it failed.
pub fn execve(path: &CStr, argv: &Strings, env: &Strings) -> Errno {
    let (argv, env) = (argv.pointers(), env.pointers());
    // SAFETY: both are arrays of pointers to NUL-terminated strings, ended by a null pointer, and live through the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Ends the process at once: no destructors, no buffers written. For a forked child.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from 3 on but those listed, by number or by handle. For a process that becomes another
/// program next: the owners of what is closed are never used or dropped in it.
pub fn close_from_three_but(numbers: &[u32], handle: BorrowedFd<'_>) {
    let mut keep: Vec<u32> = numbers.to_vec();
    keep.extend([0, 1, 2, handle.as_raw_fd().cast_unsigned()]);
    close_all_but_numbers(keep);
}

/// Closes every descriptor but those listed. For a forked child that goes on without exec and will never touch
/// what its parent had opened: their owners must not be dropped in it (they are leaked by `exit_now`).
pub fn close_all_but(keep: &[BorrowedFd<'_>]) {
    close_all_but_numbers(keep.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect());
}

fn close_all_but_numbers(mut keep: Vec<u32>) {
    keep.sort_unstable();
    let mut first = 0;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > first {
            // SAFETY: callers vouch that no owner of these descriptors is used or dropped in this process.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd - u32::from(fd != u32::MAX), 0) };
        }
        first = fd.saturating_add(1);
    }
}

/// Takes a descriptor that this process was started with, by number; none if it is not open.
pub fn inherited(number: i32) -> Option<OwnedFd> {
    // SAFETY: fcntl only asks; a descriptor that is open and above standard error belongs to nobody yet, since the
    // callers ask at start, before any other is opened.
    unsafe { (libc::fcntl(number, libc::F_GETFD) != -1).then(|| OwnedFd::from_raw_fd(number)) }
}

/// personality(2).
pub fn set_personality(persona: u64) -> Result<(), SyscallError> {
    // SAFETY: takes a number.
    let done = unsafe { libc::personality(persona) };
    if done == -1 { Err(SyscallError::last(format!("personality({persona:#x})"))) } else { Ok(()) }
}

/// Joins a new, empty session keyring, so that the caller's keys stay out of the container. It has no name of its own:
/// one with a name may be there already, and somebody else's.
pub fn new_session_keyring() -> Result<(), SyscallError> {
    let none: *const libc::c_char = std::ptr::null();
    // SAFETY: no name is given.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, none) };
    if done == -1 { Err(SyscallError::last("keyctl(KEYCTL_JOIN_SESSION_KEYRING)")) } else { Ok(()) }
}

/// Capabilities of the calling thread: effective, permitted, inheritable, as bit sets.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Result<(), SyscallError> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let half = |shift: u32| Data {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 of the interface takes a header and two data structs of this layout.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(SyscallError::last("capset")) }
}

/// prctl(2) with numbers only.
pub fn prctl(option: Prctl) -> Result<(), SyscallError> {
    let (number, a, b) = match option {
        Prctl::DropBounding(cap) => (libc::PR_CAPBSET_DROP, u64::from(cap), 0),
        Prctl::RaiseAmbient(cap) => (libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(cap)),
        Prctl::ClearAmbient => (libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0),
        Prctl::KeepCaps(keep) => (libc::PR_SET_KEEPCAPS, u64::from(keep), 0),
        Prctl::NoNewPrivs => (libc::PR_SET_NO_NEW_PRIVS, 1, 0),
        Prctl::Dumpable(yes) => (libc::PR_SET_DUMPABLE, u64::from(yes), 0),
        Prctl::ParentDeathSignal(signal) => (libc::PR_SET_PDEATHSIG, signal as u64, 0),
        Prctl::ChildSubreaper => (libc::PR_SET_CHILD_SUBREAPER, 1, 0),
    };
    // SAFETY: these options take numbers, no pointers.
    let done = unsafe { libc::prctl(number, a, b, 0u64, 0u64) };
    if done == -1 { Err(SyscallError::last(format!("prctl({option:?})"))) } else { Ok(()) }
}

/// What [`prctl`] can do.
#[derive(Clone, Copy, Debug)]
pub enum Prctl {
    /// Drop a capability from the bounding set.
    DropBounding(u32),
    /// Raise an ambient capability.
    RaiseAmbient(u32),
    /// Clear the ambient set.
    ClearAmbient,
    /// Keep permitted capabilities over a change of user.
    KeepCaps(bool),
    /// execve grants nothing any more.
    NoNewPrivs,
    /// Others may look into /proc/PID of this one.
    Dumpable(bool),
    /// Get this signal when the parent ends.
    ParentDeathSignal(i32),
    /// Become the parent of orphans below.
    ChildSubreaper,
}

/// setgroups(2) with the kernel's own semantics, for the calling thread.
pub fn set_groups(groups: &[u32]) -> Result<(), SyscallError> {
    // SAFETY: a pointer and its length.
    let done = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(SyscallError::last(format!("setgroups({groups:?})"))) }
}

/// To the kernel this id says "as it is".
const NO_CHANGE: u32 = u32::MAX;

/// setresgid(2) to one group, for the calling thread.
pub fn set_gid(gid: u32) -> Result<(), SyscallError> {
    if gid == NO_CHANGE {
        return Err(SyscallError::new(format!("setresgid({gid}, {gid}, {gid})"), Errno::INVAL));
    }
    // SAFETY: takes numbers.
    let done = unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) };
    if done == 0 { Ok(()) } else { Err(SyscallError::last(format!("setresgid({gid}, {gid}, {gid})"))) }
}

/// setresuid(2) to one user, for the calling thread.
pub fn set_uid(uid: u32) -> Result<(), SyscallError> {
    if uid == NO_CHANGE {
        return Err(SyscallError::new(format!("setresuid({uid}, {uid}, {uid})"), Errno::INVAL));
    }
    // SAFETY: takes numbers.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    if done == 0 { Ok(()) } else { Err(SyscallError::last(format!("setresuid({uid}, {uid}, {uid})"))) }
}

/// setrlimit(2) by the kernel's number of the resource; `u64::MAX` is unlimited.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<(), SyscallError> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let none: *const libc::rlimit64 = std::ptr::null();
    // SAFETY: pid 0 is this process; the new limit lives through the call; no old one is asked for.
    let done = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, none) };
    if done == 0 { Ok(()) } else { Err(SyscallError::last(format!("setrlimit({resource}, {soft}, {hard})"))) }
}
