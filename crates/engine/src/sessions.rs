//! Detached `exec` sessions: each has a directory with its process, as long as that lives.
//!
//! `containers/ID/exec/SESSION/exec_pid`; those whose process has ended are removed by whoever looks next.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};

use crate::dirs::{Dirs, make_dir, read_json, write_json};
use crate::error::{Error, Result};
use crate::record::is_id;
use crate::state::ProcessRef;

/// Notes a session.
pub fn note(dirs: &Dirs, container: &str, session: &str, process: &OwnedFd) -> Result<()> {
    let dir = dirs.container(container).join("exec").join(session);
    let gone = || Error::engine("the process of the session has ended already");
    let Some(process) = pid_of(process).and_then(ProcessRef::of) else { return Err(gone()) };
    make_dir(&dir)?;
    write_json(&dir.join("exec_pid"), &process)
}

/// The number of a process, as long as that lives (proc_pid_fdinfo(5)).
pub fn pid_of(process: &OwnedFd) -> Option<u32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
}

/// Forgets a session that has ended.
pub fn forget(dirs: &Dirs, container: &str, session: &str) -> Result<()> {
    let dir = dirs.container(container).join("exec").join(session);
    if !is_id(session) || !dir.exists() {
        return Err(Error::not_found(format_args!(
            "no exec session with ID {session} found in container {container}: no such exec session"
        )));
    }
    match living(dirs, container).iter().any(|s| s == session) {
        true => Err(Error::state(format_args!("exec session {session} runs: its process has not ended"))),
        false => Ok(()),
    }
}

/// Ids of the sessions that live.
pub fn living(dirs: &Dirs, container: &str) -> Vec<String> {
    let entries = fs::read_dir(dirs.container(container).join("exec")).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok()).filter(|name| is_id(name));
    names
        .filter(|session| {
            let dir = dirs.container(container).join("exec").join(session);
            let process = read_json::<ProcessRef>(&dir.join("exec_pid")).ok().flatten();
            let lives = process.is_some_and(|p| p.is_alive());
            if !lives {
                let _ = fs::remove_dir_all(dir);
            }
            lives
        })
        .collect()
}
