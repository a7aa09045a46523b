//! The service manager around a container: sd_notify(3) and socket activation, sd_listen_fds(3).
//!
//! | `--sdnotify` | who says READY=1 | when |
//! |---|---|---|
//! | container | the container, through its monitor | when it likes |
//! | conmon | the command | as the container has started |
//! | healthy | the command | as its first health check has passed |
//! | ignore | nobody | |
//!
//! In all but the last the command names the monitor as the main process.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use unroot_monitor::notify::send;

use crate::dirs::Dirs;
use crate::error::{Error, Result};
use crate::health::{HEALTHY, Report};
use crate::record::Record;
use crate::state::State;

/// Where the container finds its socket.
pub const SOCKET: &str = "/run/notify/notify.sock";

/// The modes.
pub const MODES: [&str; 4] = ["container", "conmon", "healthy", "ignore"];

/// A container's mode.
pub fn mode(record: &Record) -> &str {
    record.spec.process.sdnotify.as_deref().unwrap_or("container")
}

/// The service manager's socket: of whoever starts the container, else of whoever made it.
pub fn socket(record: &Record) -> Option<PathBuf> {
    if mode(record) == "ignore" {
        return None;
    }
    let own = std::env::var_os("NOTIFY_SOCKET").filter(|v| !v.is_empty()).map(PathBuf::from);
    let first = record.spec.process.notify_socket.as_ref().map(PathBuf::from).filter(|p| p.exists());
    own.or(first)
}

/// The socket for the container itself.
pub fn proxied(record: &Record) -> Option<PathBuf> {
    socket(record).filter(|_| mode(record) == "container")
}

/// What was asked for can be had.
pub fn check(mode: Option<&str>, has_check: bool) -> Result<()> {
    match mode {
        Some("healthy") if !has_check => Err(Error::engine(
            "invalid argument: sdnotify policy \"healthy\" requires a healthcheck to be set",
        )),
        _ => Ok(()),
    }
}

/// The container has started: says so, and with `healthy` waits until it is well. A service manager that does not
/// listen is not our concern.
pub fn tell(dirs: &Dirs, record: &Record, attached: bool) -> Result<()> {
    let Some(socket) = socket(record) else { return Ok(()) };
    let Some(run) = State::observe(dirs, &record.id)?.run else { return Ok(()) };
    let ready = if mode(record) == "conmon" { "\nREADY=1" } else { "" };
    say(&socket, &format!("MAINPID={}{ready}", run.monitor.pid));
    if mode(record) != "healthy" {
        return Ok(());
    }
    let (dirs, record) = (dirs.clone(), record.clone());
    let wait = move || {
        if is_well(&dirs, &record) {
            say(&socket, "READY=1");
        }
    };
    match attached {
        // (its output is shown meanwhile)
        true => drop(std::thread::spawn(wait)),
        false => wait(),
    }
    Ok(())
}

fn say(socket: &Path, message: &str) {
    if let Err(e) = send(socket, message) {
        log::warn!("sd_notify: {e}");
    }
}

/// Waits until it is, or has ended.
fn is_well(dirs: &Dirs, record: &Record) -> bool {
    loop {
        if Report::read(dirs, record).is_some_and(|r| r.status == HEALTHY) {
            return true;
        }
        if !State::observe(dirs, &record.id).is_ok_and(|s| s.is_live()) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sockets that this process was started with.
#[derive(Debug, Default)]
pub struct Activation {
    /// Their numbers: from 3 on.
    pub numbers: Vec<u32>,
    /// `LISTEN_FDNAMES`
    names: Option<OsString>,
}

static ACTIVATION: OnceLock<Activation> = OnceLock::new();

/// Looks for sockets of a service manager; once, at the start of the program, before it opens anything.
pub fn remember_sockets() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if let Some(count) = number("LISTEN_FDS")
        && number("LISTEN_PID") == Some(std::process::id())
    {
        let is_open = |fd: &u32| Path::new(&format!("/proc/self/fd/{fd}")).exists();
        let numbers = (3..3 + count.min(1024)).take_while(is_open).collect();
        let _ = ACTIVATION.set(Activation { numbers, names: std::env::var_os("LISTEN_FDNAMES") });
    }
}

/// The sockets, for a container to have.
pub fn sockets() -> &'static Activation {
    ACTIVATION.get_or_init(Activation::default)
}

impl Activation {
    /// What tells the container of them: it is process 1 in its namespace.
    pub fn variables(&self) -> Vec<(String, String)> {
        if self.numbers.is_empty() {
            return Vec::new();
        }
        let mut all = vec![
            ("LISTEN_PID".to_string(), "1".to_string()),
            ("LISTEN_FDS".to_string(), self.numbers.len().to_string()),
        ];
        all.extend(
            self.names.as_ref().map(|n| ("LISTEN_FDNAMES".to_string(), n.to_string_lossy().into_owned())),
        );
        all
    }
}

/// Descriptors that the monitor keeps for further starts.
pub(crate) fn kept(numbers: &[u32]) -> Vec<OwnedFd> {
    numbers.iter().filter_map(|n| unroot_sys::process::inherited(i32::try_from(*n).ok()?)).collect()
}
