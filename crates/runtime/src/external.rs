//! A container made by another OCI runtime (crun, runc, ...): it gets the same spec as a bundle, through the
//! command line that all of them have (<https://github.com/opencontainers/runtime-tools/blob/master/docs/command-line-interface.md>).
//!
//! The caller is in a mount namespace of its own, in which the root filesystem is mounted for the runtime, and becomes
//! the parent of the container's process, which the runtime leaves behind.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio as Streams};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use unroot_idmap::{IdMap, IdMaps};
use unroot_sys::SyscallError;
use unroot_sys::process::{Child, Prctl, prctl};

use crate::process::Stdio;
use crate::rootfs::{Rootfs, attach, open_path};
use crate::spec::{Mapping, Spec};
use crate::{Error, StartError, seccomp};

/// What to make, with what.
#[derive(Debug)]
pub struct Request<'a> {
    /// The runtime.
    pub program: &'a Path,
    /// Its own flags.
    pub flags: &'a [String],
    /// What the container is like.
    pub spec: &'a Spec,
    /// Where its root filesystem comes from.
    pub rootfs: &'a Rootfs,
    /// The directory that becomes the bundle.
    pub bundle: &'a Path,
    /// Its id.
    pub id: &'a str,
    /// Ids of a user namespace of its own.
    pub maps: Option<&'a IdMaps>,
    /// Its cgroup, below the mount point; none for the caller's.
    pub cgroup: Option<&'a str>,
    /// System calls that are allowed.
    pub seccomp: &'a seccomp::Profile,
}

/// A container that a runtime has made, and that waits to be started.
#[derive(Debug)]
pub struct Made {
    child: Child,
    terminal: Option<OwnedFd>,
    runtime: Runtime,
}

/// How a runtime is called for one container.
#[derive(Clone, Debug)]
pub struct Runtime {
    program: PathBuf,
    flags: Vec<String>,
    bundle: PathBuf,
    id: String,
}

fn failed(text: impl std::fmt::Display) -> Error {
    Error::Start(StartError { exit_code: 125, text: text.to_string() })
}

impl Runtime {
    /// Of a container.
    pub fn new(program: &Path, flags: &[String], bundle: &Path, id: &str) -> Self {
        Self { program: program.into(), flags: flags.to_vec(), bundle: bundle.into(), id: id.into() }
    }

    fn log(&self) -> PathBuf {
        self.bundle.join("runtime.log")
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        // (its own state would be in a directory of the host that an ordinary user may not write to)
        command.arg("--root").arg(self.bundle.join("runtime")).arg("--log").arg(self.log());
        command.args(&self.flags).arg(verb).current_dir(&self.bundle);
        command
    }

    /// What a failed call says, as an error with the code of what it means.
    fn error(&self, verb: &str, output: &Output) -> Error {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = log.lines().rfind(|l| !l.trim().is_empty());
        let line = line.or_else(|| said.lines().find(|l| !l.trim().is_empty())).map(|l| message(l.trim()));
        let text = line.unwrap_or_else(|| output.status.to_string());
        let has = |words: &[&str]| words.iter().any(|w| text.to_lowercase().contains(w));
        let exit_code = match () {
            () if has(&["executable file not found", "not found in $path", "no such file or directory"]) => {
                127
            }
            () if has(&[
                "permission denied",
                "operation not permitted",
                "exec format error",
                "open executable",
                "unrecognized option",
                "flag provided but",
            ]) =>
            {
                126
            }
            () => 125,
        };
        let name = self.program.display();
        Error::Start(StartError { exit_code, text: format!("OCI runtime {name}: {verb}: {text}") })
    }

    /// Frees what the runtime keeps of a container; its processes are killed.
    pub fn delete(&self) {
        let _ = self.command("delete").arg("--force").arg(&self.id).stdin(Streams::null()).output();
    }
}

/// The text of a log line: what follows `msg=` in runc's, all of crun's but its time.
fn message(line: &str) -> String {
    let quoted = line.split_once("msg=\"").map(|(_, rest)| rest.trim_end_matches('"').replace("\\\"", "\""));
    let after_time = || match line.split_once(": ") {
        Some((time, rest)) if time.starts_with("20") => rest.to_string(),
        _ => line.to_string(),
    };
    quoted.unwrap_or_else(after_time)
}

/// Lets the runtime make a container.
pub fn create(request: &Request<'_>, stdio: Stdio) -> Result<Made, Error> {
    let runtime = Runtime::new(request.program, request.flags, request.bundle, request.id);
    let root = request.bundle.join("rootfs");
    fs::create_dir_all(&root).map_err(|e| failed(format_args!("mkdir {}: {e}", root.display())))?;
    // (an earlier start's is below it)
    let _ = rustix::mount::unmount(&root, rustix::mount::UnmountFlags::DETACH);
    attach(&request.rootfs.detached()?, &open_path(&root)?, &format!("rootfs on {}", root.display()))?;
    let config = request.bundle.join("config.json");
    let document = serde_json::to_vec(&complete(request)?).map_err(failed)?;
    fs::write(&config, document).map_err(|e| failed(format_args!("write {}: {e}", config.display())))?;
    // the container's process becomes ours when the runtime ends
    prctl(Prctl::ChildSubreaper)?;
    let _ = fs::remove_file(runtime.log());
    let pid_file = request.bundle.join("runtime.pid");
    let mut command = runtime.command("create");
    command.arg("--bundle").arg(request.bundle).arg("--pid-file").arg(&pid_file);
    let console = match request.spec.process.terminal {
        true => Some(console_socket(request.bundle)?),
        false => None,
    };
    if let Some((_, path)) = &console {
        command.arg("--console-socket").arg(path);
    }
    let stream = |fd: Option<OwnedFd>| fd.map_or_else(Streams::null, Streams::from);
    command
        .arg(request.id)
        .stdin(stream(stdio.stdin))
        .stdout(stream(stdio.stdout))
        .stderr(stream(stdio.stderr));
    let status =
        command.status().map_err(|e| failed(format_args!("exec {}: {e}", request.program.display())))?;
    // (its copies of the container's streams would keep them open)
    drop(command);
    if !status.success() {
        // (its standard error was the container's; what it has against its flags it says again)
        let again = runtime.command("--version").stdin(Streams::null()).output();
        let stderr = again.ok().filter(|o| !o.status.success()).map(|o| o.stderr).unwrap_or_default();
        let error = runtime.error("create", &Output { status, stdout: Vec::new(), stderr });
        runtime.delete();
        return Err(error);
    }
    let terminal = console.map(|(socket, _)| take_console(&socket)).transpose()?;
    let pid: Option<i32> = fs::read_to_string(&pid_file).ok().and_then(|t| t.trim().parse().ok());
    let gone = || failed(format_args!("{} has left no process of the container", request.program.display()));
    let pid = pid.and_then(Pid::from_raw).ok_or_else(gone)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
    Ok(Made { child: Child { pid: pid.as_raw_nonzero().get().cast_unsigned(), pidfd }, terminal, runtime })
}

fn console_socket(bundle: &Path) -> Result<(OwnedFd, PathBuf), Error> {
    let call = |what: &'static str| move |e| SyscallError::new(what, e);
    // (relative to the bundle, where the runtime is: an address has no place for long paths)
    let handle = open_path(bundle)?;
    let name = PathBuf::from("console.sock");
    let _ = fs::remove_file(bundle.join(&name));
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(call("socket(AF_UNIX)"))?;
    let place = format!("/proc/self/fd/{}/console.sock", std::os::fd::AsRawFd::as_raw_fd(&handle));
    let address = SocketAddrUnix::new(place).map_err(call("sockaddr_un"))?;
    bind(&socket, &address).map_err(call("bind(console.sock)"))?;
    listen(&socket, 1).map_err(call("listen(console.sock)"))?;
    Ok((socket, name))
}

fn take_console(socket: &OwnedFd) -> Result<OwnedFd, Error> {
    let connection = accept_with(socket, SocketFlags::CLOEXEC)
        .map_err(|e| SyscallError::new("accept(console.sock)", e))?;
    unroot_sys::socket::receive_fd(connection.as_fd())?
        .ok_or_else(|| failed("the runtime has sent no terminal"))
}

/// The spec with what our own runtime is told otherwise.
fn complete(request: &Request<'_>) -> Result<serde_json::Value, Error> {
    let mut spec = request.spec.clone();
    spec.root.path = "rootfs".into();
    // (what is used here was in it, and older runtimes refuse newer numbers)
    spec.oci_version = "1.0.2".into();
    if let Some(maps) = request.maps {
        let around = unroot_idmap::observe::maps_of("self")?;
        spec.linux.uid_mappings = mappings(&maps.uid, &around.uid)?;
        spec.linux.gid_mappings = mappings(&maps.gid, &around.gid)?;
    }
    spec.linux.seccomp = seccomp::document(request.seccomp, &spec.process.capabilities)?;
    for mount in &mut spec.mounts {
        mount.options.retain(|o| o != "optional");
        if mount.kind == "overlay" {
            mount.options.iter_mut().for_each(|o| *o = o.replace("lowerdir+=", "lowerdir="));
        }
    }
    if spec.process.keep_groups {
        spec.annotations.insert("run.oci.keep_original_groups".into(), "1".into());
    }
    let mut document = serde_json::to_value(&spec).map_err(failed)?;
    if let Some(cgroup) = request.cgroup {
        document["linux"]["cgroupsPath"] = cgroup.into();
    }
    Ok(document)
}

/// A map as the kernel takes it.
fn mappings(map: &IdMap, around: &IdMap) -> Result<Vec<Mapping>, Error> {
    let text = unroot_idmap::ranges::lines_for_kernel(map, around)?;
    let line = |line: &str| {
        let mut numbers = line.split(' ').filter_map(|n| n.parse().ok());
        Some(Mapping { container_id: numbers.next()?, host_id: numbers.next()?, size: numbers.next()? })
    };
    Ok(text.lines().filter_map(line).collect())
}

impl Made {
    /// What it holds open.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        [self.handle()].into_iter().chain(self.terminal.as_ref().map(|fd| fd.as_fd())).collect()
    }

    /// A handle on it.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.pid
    }

    /// The master of its terminal.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Lets it go.
    pub fn start(self) -> Result<Child, Error> {
        let output = self.runtime.command("start").arg(&self.runtime.id).stdin(Streams::null()).output();
        let output =
            output.map_err(|e| failed(format_args!("exec {}: {e}", self.runtime.program.display())))?;
        if output.status.success() {
            return Ok(self.child);
        }
        let error = self.runtime.error("start", &output);
        self.runtime.delete();
        Err(error)
    }
}
