//! Where things are on disk, and how they are written.
//!
//! ```text
//! root   $XDG_DATA_HOME/unroot | /var/lib/unroot        kept
//!   images/ layers/ volumes/                            the store's
//!   events.log                                          what happened, and who did it
//!   names/NAME -> ID                                    a symlink, made exclusively: a name is taken once
//!   containers/ID/container.json                        what was asked for and what it was resolved to
//!   containers/ID/{upper,work}                          the container's own layer
//!   pods/ID/pod.json                                    see `pod`
//!   containers/ID/ctr.log  exit.json  ran              (the directory itself is flocked, see `lock`)
//! run    $XDG_RUNTIME_DIR/unroot | /run/unroot          forgotten at boot
//!   containers/ID/state.json                            exists while the container has a process
//!   containers/ID/{attach.sock,hosts,resolv.conf,...}
//! ```
//!
//! A directory is published by one rename; a file is replaced by one rename. Whoever reads must bear that what
//! it sees is half gone.

use std::fs;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Context as _, Error, Result};
use crate::events::Log;

/// The two trees of an engine.
#[derive(Clone, Debug)]
pub struct Dirs {
    /// Kept over boots.
    pub root: PathBuf,
    /// Forgotten at boot.
    pub run: PathBuf,
    /// Where containers and their names are: `root`, or `static_dir` of containers.conf.
    pub kept: PathBuf,
    /// Where what happens is told.
    pub events: Log,
    /// The file that tells of the user namespace which is there between commands: one for a user, whatever the trees.
    pub userns: Option<PathBuf>,
}

impl Dirs {
    /// The trees for a user, or as overridden.
    pub fn locate(
        (uid, user): (u32, &str),
        home: &Path,
        root: Option<PathBuf>,
        run: Option<PathBuf>,
    ) -> Result<Self> {
        let env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let root = match root {
            Some(dir) => dir,
            None if uid == 0 => "/var/lib/unroot".into(),
            None => env("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share")).join("unroot"),
        };
        let session = env("XDG_RUNTIME_DIR").filter(|dir| uid != 0 && owned(dir, uid));
        let userns = session.as_ref().map(|dir| dir.join("unroot/userns"));
        let run = match run {
            Some(dir) => dir,
            None if uid == 0 => "/run/unroot".into(),
            None => match &session {
                Some(dir) => dir.join("unroot"),
                None => private_runtime_dir(uid)?.join("unroot"),
            },
        };
        for dir in [&root, &run] {
            if !dir.is_absolute() {
                return Err(Error::engine(format_args!("{}: must be an absolute path", dir.display())));
            }
        }
        let events = Log::new(root.join("events.log"), uid, user);
        Ok(Self { kept: root.clone(), root, run, events, userns })
    }

    /// `root/containers`.
    pub fn containers(&self) -> PathBuf {
        self.kept.join("containers")
    }

    /// `root/containers/ID`.
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// `run/containers/ID`.
    pub fn run_container(&self, id: &str) -> PathBuf {
        self.run.join("containers").join(id)
    }

    /// `root/names`.
    pub fn names(&self) -> PathBuf {
        self.kept.join("names")
    }
}

/// A session may lack a runtime directory (su, cron): then a private one of the user's own, which nobody else
/// can have made.
fn private_runtime_dir(uid: u32) -> Result<PathBuf> {
    let login = PathBuf::from(format!("/run/user/{uid}"));
    if owned(&login, uid) {
        return Ok(login);
    }
    let dir = PathBuf::from(format!("/tmp/unroot-run-{uid}"));
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Ok(()) => Ok(dir),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && owned(&dir, uid) => Ok(dir),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(Error::engine(format_args!(
            "{}: belongs to somebody else, or others may write to it",
            dir.display()
        ))
        .with_hint("set XDG_RUNTIME_DIR to a directory of your own with mode 0700")),
        Err(e) => Err(Error::engine(format_args!("mkdir {}: {e}", dir.display()))),
    }
}

/// A real directory of this user's that nobody else may write to. Inside the engine's namespace the user is 0.
fn owned(dir: &Path, uid: u32) -> bool {
    fs::symlink_metadata(dir).is_ok_and(|m| {
        m.is_dir()
            && (m.uid() == uid || m.uid() == rustix::process::geteuid().as_raw())
            && m.mode() & 0o022 == 0
    })
}

/// Makes a directory and its parents, for the owner alone.
pub fn make_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).context(|| {
        match dir.ancestors().find(|d| d.is_symlink() && !d.exists()) {
            Some(link) => {
                format!("mkdir {}: {} is a link to what is not there", dir.display(), link.display())
            }
            None => format!("mkdir {}", dir.display()),
        }
    })
}

/// Replaces a file in one step.
pub fn write_file(path: &Path, data: &[u8], mode: u32) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", rustix::process::getpid().as_raw_nonzero()));
    let new = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(data)?;
        fs::rename(&new, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&new))).context(|| format!("write {}", path.display()))
}

/// Writes a file that nobody reads yet.
pub fn make_file(path: &Path, data: &[u8], mode: u32) -> Result<()> {
    let open = || fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    open().and_then(|mut file| file.write_all(data)).context(|| format!("write {}", path.display()))
}

/// Replaces a JSON file in one step.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let data = serde_json::to_vec(value).context(|| format!("write {}", path.display()))?;
    write_file(path, &data, 0o600)
}

/// Reads a JSON file; none if it is not there.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(data) => serde_json::from_slice(&data).map(Some).context(|| format!("read {}", path.display())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::engine(format_args!("read {}: {e}", path.display()))),
    }
}
