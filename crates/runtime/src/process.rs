//! The last steps of a process before it becomes the user's program, shared by the first process and `exec`.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;

use unroot_sys::error::describe;
use unroot_sys::process::{
    Prctl, Strings, close_from_three_but, execve, prctl, set_capabilities, set_gid, set_groups, set_rlimit,
    set_uid,
};
use unroot_sys::seccomp::Instruction;
use unroot_sys::{SyscallError, capability};

use crate::Error;
use crate::spec::Process;

/// Why a process did not start, as it is told to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// 125: the engine; 126: it cannot be executed; 127: it is not there.
    pub exit_code: u8,
    /// What failed.
    pub text: String,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for StartError {}

impl From<SyscallError> for StartError {
    fn from(error: SyscallError) -> Self {
        Self { exit_code: 125, text: error.to_string() }
    }
}

/// Everything that a process becomes, made ready before the fork.
#[derive(Debug)]
pub struct Ready {
    args: Strings,
    env: Strings,
    program: String,
    search: Vec<String>,
    cwd: String,
    make_cwd: bool,
    uid: u32,
    gid: u32,
    groups: Option<Vec<u32>>,
    umask: u32,
    bounding: u64,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
    rlimits: Vec<(u32, u64, u64)>,
    no_new_privileges: bool,
    seccomp: Option<Vec<Instruction>>,
    preserved: Vec<u32>,
    survives_parent: bool,
}

/// The bit set of capability names.
pub fn capability_bits(names: &[String]) -> Result<u64, Error> {
    names.iter().try_fold(0, |bits, name| {
        let short = name.strip_prefix("CAP_").unwrap_or(name);
        match capability::NAMES.iter().position(|known| *known == short) {
            Some(number) => Ok(bits | 1 << number),
            None => Err(Error::Spec(format!("unknown capability {name:?}"))),
        }
    })
}

const RLIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

fn rlimit_number(name: &str) -> Result<u32, Error> {
    let short = name.strip_prefix("RLIMIT_").unwrap_or(name);
    let found = RLIMITS.iter().position(|known| *known == short);
    found.map(|n| n as u32).ok_or_else(|| Error::Spec(format!("unknown resource limit {name:?}")))
}

impl Ready {
    /// Makes it ready. `setgroups` is whether the user namespace allows setgroups(2).
    pub fn new(
        process: &Process,
        seccomp: Option<Vec<Instruction>>,
        preserved: &[u32],
        setgroups: bool,
    ) -> Result<Self, Error> {
        let Some(program) = process.args.first().filter(|p| !p.is_empty()) else {
            return Err(Error::Start(StartError { exit_code: 127, text: "exec: \"\": executable file not found in $PATH: No such file or directory: OCI runtime attempted to invoke a command that was not found".into() }));
        };
        let path = process
            .env
            .iter()
            .rev()
            .find_map(|e| e.strip_prefix("PATH="))
            .unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let search = match program.contains('/') {
            true => Vec::new(),
            false => path.split(':').map(|dir| if dir.is_empty() { "." } else { dir }.to_string()).collect(),
        };
        let capabilities = &process.capabilities;
        let mut groups = process.user.additional_gids.clone();
        groups.dedup();
        Ok(Self {
            args: Strings::new(&process.args)?,
            env: Strings::new(&process.env)?,
            program: program.clone(),
            search,
            cwd: if process.cwd.is_empty() { "/".into() } else { process.cwd.clone() },
            make_cwd: process.make_cwd,
            uid: process.user.uid,
            gid: process.user.gid,
            groups: (setgroups && !process.keep_groups).then_some(groups),
            umask: process.user.umask.unwrap_or(0o022),
            bounding: capability_bits(&capabilities.bounding)?,
            effective: capability_bits(&capabilities.effective)?,
            permitted: capability_bits(&capabilities.permitted)?,
            inheritable: capability_bits(&capabilities.inheritable)?,
            ambient: capability_bits(&capabilities.ambient)?,
            rlimits: process
                .rlimits
                .iter()
                .map(|r| Ok((rlimit_number(&r.kind)?, r.soft, r.hard)))
                .collect::<Result<_, Error>>()?,
            no_new_privileges: process.no_new_privileges,
            seccomp,
            preserved: preserved.to_vec(),
            survives_parent: false,
        })
    }

    /// Goes on when the process that made it ends.
    pub fn surviving_parent(mut self) -> Self {
        self.survives_parent = true;
        self
    }

    /// Becomes the program. Returns only if that failed; `socket`, by which that is told, is still open then.
    pub fn become_program(&self, last_cap: u32, socket: BorrowedFd<'_>) -> StartError {
        match self.last_steps(last_cap, socket) {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn last_steps(
        &self,
        last_cap: u32,
        socket: BorrowedFd<'_>,
    ) -> Result<std::convert::Infallible, StartError> {
        // from here on paths of the container are looked up, which may lead to /proc/self/fd: nothing of the host's is
        // open any more; and while this is still our program, no process of the container may look into it
        close_from_three_but(&self.preserved, socket);
        prctl(Prctl::Dumpable(false))?;
        for (resource, soft, hard) in &self.rlimits {
            set_rlimit(*resource, *soft, *hard).map_err(|e| StartError {
                exit_code: 125,
                text: format!(
                    "{e} (RLIMIT_{}): the hard limit cannot be raised",
                    RLIMITS[*resource as usize]
                ),
            })?;
        }
        let _ = unroot_sys::process::new_session_keyring();
        rustix::process::umask(Mode::from_raw_mode(self.umask));
        for cap in (0..=last_cap).filter(|cap| self.bounding & (1 << cap) == 0) {
            prctl(Prctl::DropBounding(cap))?;
        }
        prctl(Prctl::KeepCaps(true))?;
        if let Some(groups) = &self.groups {
            set_groups(groups)?;
        }
        set_gid(self.gid)?;
        self.chdir()?;
        set_uid(self.uid)?;
        // a filter needs CAP_SYS_ADMIN or no_new_privs: without the latter it has to come before capabilities go
        if self.no_new_privileges {
            prctl(Prctl::NoNewPrivs)?;
        } else {
            let all = (1u64 << (last_cap + 1)) - 1;
            set_capabilities(all & self.permitted_now(all), all & self.permitted_now(all), self.inheritable)?;
            self.load_seccomp()?;
        }
        set_capabilities(self.effective, self.permitted, self.inheritable)?;
        if self.ambient != 0 {
            (0..=last_cap)
                .filter(|cap| self.ambient & (1 << cap) != 0)
                .try_for_each(|cap| prctl(Prctl::RaiseAmbient(cap)))?;
        }
        let program = self.find()?;
        prctl(Prctl::ParentDeathSignal(if self.survives_parent { 0 } else { 9 }))?;
        unroot_sys::signal::reset();
        if self.no_new_privileges {
            self.load_seccomp()?;
        }
        let errno = execve(&program, &self.args, &self.env);
        Err(self.cannot_execute(&program.to_string_lossy(), errno))
    }

    /// What this thread was left with by the change of user (KeepCaps keeps what it had).
    fn permitted_now(&self, all: u64) -> u64 {
        let sets = rustix::thread::capabilities(None);
        sets.map_or(all, |sets| sets.permitted.bits())
    }

    fn load_seccomp(&self) -> Result<(), StartError> {
        match &self.seccomp {
            Some(program) => Ok(unroot_sys::seccomp::load(program, false)?),
            None => Ok(()),
        }
    }

    /// The working directory; made if it is missing.
    fn chdir(&self) -> Result<(), StartError> {
        let go = || rustix::process::chdir(self.cwd.as_str());
        let failed = |e| StartError {
            exit_code: 126,
            text: match e {
                Errno::NOENT => format!("workdir {:?} does not exist on container", self.cwd),
                e => format!("chdir({:?}): {}: the working directory", self.cwd, describe(e)),
            },
        };
        match go() {
            Err(Errno::NOENT) if self.make_cwd => {
                std::fs::create_dir_all(&self.cwd)
                    .map_err(|e| failed(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
                let _ = rustix::fs::chown(
                    self.cwd.as_str(),
                    Some(rustix::fs::Uid::from_raw(self.uid)),
                    Some(rustix::fs::Gid::from_raw(self.gid)),
                );
                go().map_err(failed)?;
            }
            other => other.map_err(failed)?,
        }
        // (a descriptor that was handed on may be of a directory outside: getcwd(2) says "(unreachable)" then)
        match rustix::process::getcwd(Vec::new()) {
            Ok(path) if path.to_bytes().starts_with(b"/") => Ok(()),
            _ => Err(StartError {
                exit_code: 126,
                text: format!("chdir({:?}): the working directory is outside of the container", self.cwd),
            }),
        }
    }

    fn find(&self) -> Result<CString, StartError> {
        let c_string = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
        if self.search.is_empty() {
            return Ok(c_string(Path::new(&self.program)));
        }
        let mut denied = None;
        for dir in &self.search {
            let path = Path::new(dir).join(&self.program);
            match is_executable(&path) {
                Ok(()) => return Ok(c_string(&path)),
                Err(Errno::ACCESS) => denied = Some(path),
                Err(_) => {}
            }
        }
        Err(match denied {
            Some(path) => self.cannot_execute(&path.to_string_lossy(), Errno::ACCESS),
            None => StartError {
                exit_code: 127,
                text: format!(
                    "executable file `{}` not found in $PATH: No such file or directory: OCI runtime attempted to invoke a command that was not found (exec: \"{}\": executable file not found in $PATH)",
                    self.program, self.program
                ),
            },
        })
    }

    fn cannot_execute(&self, path: &str, errno: Errno) -> StartError {
        let text = format!("open executable `{path}`: {}", describe(errno));
        match errno {
            Errno::NOENT if rustix::fs::access(path, Access::EXISTS).is_ok() => StartError {
                exit_code: 127,
                text: format!(
                    "exec {path}: No such file or directory: the file is there, so its interpreter (the `#!` line's, or the dynamic loader) is not: OCI runtime attempted to invoke a command that was not found"
                ),
            },
            Errno::NOENT | Errno::NOTDIR => StartError {
                exit_code: 127,
                text: format!(
                    "executable file `{path}` not found: No such file or directory: OCI runtime attempted to invoke a command that was not found (exec: {path:?}: stat {path}: no such file or directory)"
                ),
            },
            Errno::ACCESS | Errno::PERM | Errno::ISDIR => StartError {
                exit_code: 126,
                text: format!(
                    "{text}: OCI permission denied (exec: {path:?}: permission denied){}",
                    why_not_executed(path)
                ),
            },
            Errno::NOEXEC => StartError {
                exit_code: 126,
                text: format!(
                    "exec {path}: Exec format error: it is neither a program of this machine nor a script with a `#!` line"
                ),
            },
            _ => StartError { exit_code: 126, text: format!("execve({path:?}): {}", describe(errno)) },
        }
    }
}

/// What of the filesystem forbids it.
fn why_not_executed(path: &str) -> &'static str {
    match rustix::fs::statvfs(path) {
        Ok(stat) if stat.f_flag.contains(StatVfsMountFlags::NOEXEC) => {
            ": it is on a filesystem that is mounted noexec\nhint: as root: mount -o remount,exec on its mount; or have the files where programs may run"
        }
        _ => "",
    }
}

fn is_executable(path: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::statat(rustix::fs::CWD, path, AtFlags::empty())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// `oom_score_adj` of this process; by a /proc that is not the container's.
pub fn set_oom_score(score: i32) -> Result<(), StartError> {
    std::fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(|e| StartError {
        exit_code: 125,
        text: format!(
            "write {score} to /proc/self/oom_score_adj: {e}: only a privileged process may lower it"
        ),
    })
}

/// Standard input, output and error of a process without a terminal.
#[derive(Debug, Default)]
pub struct Stdio {
    /// 0
    pub stdin: Option<OwnedFd>,
    /// 1
    pub stdout: Option<OwnedFd>,
    /// 2
    pub stderr: Option<OwnedFd>,
}

impl Stdio {
    /// What is missing becomes /dev/null: the host's, as nobody knows what a container has there.
    pub fn complete(self) -> Result<[OwnedFd; 3], SyscallError> {
        let null = || {
            rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| SyscallError::new("open(\"/dev/null\")", e))
        };
        let or_null = |fd: Option<OwnedFd>| fd.map_or_else(null, Ok);
        Ok([or_null(self.stdin)?, or_null(self.stdout)?, or_null(self.stderr)?])
    }
}

/// Makes these descriptors 0, 1 and 2.
pub fn set_stdio(stdio: [&OwnedFd; 3]) -> Result<(), SyscallError> {
    let failed = |e| SyscallError::new("dup2(stdio)", e);
    // (above 2, so that no one of them is in the way of another)
    let pick = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(failed);
    let [stdin, stdout, stderr] = [pick(stdio[0])?, pick(stdio[1])?, pick(stdio[2])?];
    rustix::stdio::dup2_stdin(stdin.as_fd()).map_err(failed)?;
    rustix::stdio::dup2_stdout(stdout.as_fd()).map_err(failed)?;
    rustix::stdio::dup2_stderr(stderr.as_fd()).map_err(failed)
}

/// The terminal becomes the session's, and 0, 1 and 2.
pub fn set_terminal(slave: &OwnedFd, uid: u32) -> Result<(), SyscallError> {
    rustix::process::ioctl_tiocsctty(slave).map_err(|e| SyscallError::new("ioctl(TIOCSCTTY)", e))?;
    let _ = rustix::fs::fchown(slave, Some(rustix::fs::Uid::from_raw(uid)), None);
    set_stdio([slave; 3])
}
