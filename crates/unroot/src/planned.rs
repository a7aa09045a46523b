//! `explain run ...`: a container that was not run yet. It is made as the command line says, with a program of ours that
//! only waits in place of the image's, looked at, and removed: nothing of the image runs, and nothing is guessed.
//!
//! `explain docker run ...`: the same, told as Docker's daemon would make it, which is root on the host.

use std::os::fd::OwnedFd;
use std::time::Duration;

use unroot_engine::images::Named;
use unroot_engine::spec::{Mount, MountKind};
use unroot_engine::{Engine, Record, State};
use unroot_explain::Facts;
use unroot_explain::doors::WAITING;
use unroot_explain::facts::{Seen, Supervisor, UserNamespace};
use unroot_idmap::{IdMap, IdMaps};
use unroot_sys::process::{Fork, exit_now, fork};

use crate::cli::{CliError, parse};
use crate::progress::Shown;
use crate::verbs::Verb;
use crate::{Global, run_flags};

/// What Docker gives a container that asks for nothing (moby, oci/caps/defaults.go lists the same).
const DOCKERS_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Whose command line it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Ours, and Podman's: both are the user who types it.
    Ours,
    /// Docker's: its daemon.
    Docker,
}

/// The facts of a command line that would run a container; none if the words are no such command line.
pub fn facts(global: &Global, words: &[String]) -> Result<Option<Facts>, CliError> {
    let (whose, rest) = match words.first().map(String::as_str) {
        Some("docker") => (Whose::Docker, &words[1..]),
        Some("podman" | "unroot") => (Whose::Ours, &words[1..]),
        _ => (Whose::Ours, words),
    };
    let rest = match rest {
        [group, rest @ ..] if group == "container" => rest,
        rest => rest,
    };
    let [verb, rest @ ..] = rest else { return Ok(None) };
    if !matches!(verb.as_str(), "run" | "create") {
        return Ok(None);
    }
    let known: &Verb = &crate::verbs::RUN;
    let args = parse(&(known.flags)(), rest, false)
        .map_err(|text| CliError::new(format!("{}: {text}", words[..words.len() - rest.len()].join(" "))))?;
    if args.rest.is_empty() && args.value("rootfs").is_none() && !args.is("rootfs") {
        return Err(CliError::new("explain run: it needs an image")
            .with_hint(format!("{} explain run [options] IMAGE, as for run", unroot_engine::program())));
    }
    let args = global.conf()?.fill(&args)?;
    let mut spec = run_flags::spec(&args, "run")?;
    global.complete(&mut spec)?;
    let mut engine = global.engine()?;
    engine.dirs.events.redirect(None);
    let program = engine.waiting_program()?;
    spec.files.mounts.push(Mount {
        kind: MountKind::Bind,
        source: program.to_string_lossy().into_owned(),
        target: WAITING.into(),
        options: vec!["ro".into()],
    });
    spec.name = None;
    spec.remove = false;
    spec.runtime = None;
    spec.process.entrypoint = Some(vec![WAITING.into()]);
    spec.process.command = Vec::new();
    spec.process.terminal = false;
    spec.process.interactive = false;
    spec.process.init = false;
    // (the host's ports are not taken for a look)
    spec.network.publish.clear();
    spec.network.publish_all = false;
    spec.log.driver = Some("none".into());
    spec.life.cidfile = None;
    spec.life.restart = unroot_engine::spec::Restart::No;
    if whose == Whose::Docker && spec.security.default_capabilities.is_none() {
        spec.security.default_capabilities = Some(DOCKERS_CAPABILITIES.map(String::from).into());
    }
    let privileged = spec.security.privileged;
    let options = run_flags::pull_options(&args)?;
    let mut facts = beside(|line| -> Result<(), CliError> {
        let created = engine.create(spec, &options, &Shown::new(true))?;
        let looked = start(&engine, &created.record, created.image).map(|pid| line.show(pid));
        let removed = engine.remove(&created.record, true, Some(0), true);
        looked?;
        Ok(removed?)
    })?;
    facts.planned = true;
    facts.comm = String::new();
    if whose == Whose::Docker {
        as_dockers(&mut facts, privileged);
    }
    Ok(Some(facts))
}

/// The maker's end of the line to who looks.
struct Line {
    pid: OwnedFd,
    seen: OwnedFd,
}

impl Line {
    /// Says which process it is, and waits until it was looked at.
    fn show(&self, pid: u32) {
        let _ = rustix::io::write(&self.pid, &pid.to_ne_bytes());
        let _ = rustix::io::read(&self.seen, &mut [0]);
    }
}

/// Facts of the process that a child of ours makes: rootless, its maker is in a user namespace, in which the kernel
/// would tell ids by another map; we stay in the host's.
fn beside(make: impl FnOnce(&Line) -> Result<(), CliError>) -> Result<Facts, CliError> {
    let pipe = || {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|e| CliError::new(format!("pipe: {e}")))
    };
    let (pid, told) = pipe()?;
    let (seen, done) = pipe()?;
    match fork().map_err(CliError::new)? {
        Fork::Child => {
            drop((pid, done));
            let made = make(&Line { pid: told, seen });
            exit_now(made.map_or_else(|error| crate::report(&error).into(), |()| 0))
        }
        Fork::Parent(child) => {
            drop((told, seen));
            let mut number = [0; 4];
            let facts = match rustix::io::read(&pid, &mut number) {
                Ok(4) => Some(Facts::of(u32::from_ne_bytes(number))),
                _ => None,
            };
            drop(done);
            let process = rustix::process::Pid::from_raw(child.pid.cast_signed());
            let ended = rustix::process::waitpid(process, rustix::process::WaitOptions::empty());
            let ended = ended.map_err(|e| CliError::new(format!("waitpid({}): {e}", child.pid)))?;
            let code = ended.and_then(|(_, status)| status.exit_status()).unwrap_or(125);
            match facts {
                Some(facts) if code == 0 => facts.map_err(|e| CliError::new(format!("read /proc: {e}"))),
                _ => Err(CliError::silent(code as u8)),
            }
        }
    }
}

/// Starts it, and waits until the waiting program is it: between its making and execve(2) a process is still as
/// privileged as its maker.
fn start(engine: &Engine, record: &Record, image: Option<Named>) -> Result<u32, CliError> {
    engine.start(record, image, false)?;
    for _ in 0..200 {
        let state = State::observe(&engine.dirs, &record.id)?;
        let Some(process) = state.process() else { break };
        let program = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        if program.starts_with(WAITING.as_bytes()) {
            return Ok(process.pid);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(CliError::new("the container that was made for a look did not start"))
}

/// The same container made by Docker's daemon as root: the ids inside are the host's.
fn as_dockers(facts: &mut Facts, privileged: bool) {
    let inside = |map: Option<&IdMap>, id: u32| map.and_then(|m| m.to_inside(id)).unwrap_or(id);
    let maps = facts.maps.known().cloned();
    let (uids, gids) = (maps.as_ref().map(|m| &m.uid), maps.as_ref().map(|m| &m.gid));
    facts.uid = facts.uid.map(|id| inside(uids, id));
    facts.gid = facts.gid.map(|id| inside(gids, id));
    facts.groups = facts.groups.iter().map(|id| inside(gids, *id)).collect();
    let remapped =
        std::fs::read_to_string("/etc/docker/daemon.json").is_ok_and(|t| t.contains("userns-remap"));
    if remapped {
        let why = "Docker's daemon has userns-remap in /etc/docker/daemon.json: its ranges are not read";
        facts.maps = Seen::Unknown(why.into());
        facts.user_namespace = Seen::Unknown(why.into());
    } else {
        facts.maps = Seen::Known(IdMaps::identity());
        facts.user_namespace =
            Seen::Known(UserNamespace { inode: 0xefff_fffd, is_hosts: true, owner: Some(0), depth: 0 });
    }
    if privileged {
        facts.devices = unroot_explain::facts::devices("self");
    }
    facts.supervisor = Some(Supervisor { engine: "Docker".into(), pid: 0, comm: "dockerd".into(), uid: 0 });
}
