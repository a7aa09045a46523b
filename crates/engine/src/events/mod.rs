//! Events: what happened to which object, when, and who did it.
//!
//! They are lines of JSON in one file, `root/events.log` (`events_logfile_path`), as Podman's file backend has them,
//! kept over boots. A line is appended by one write(2), so that writers need not wait for each other. When the file
//! would grow over its bound it is replaced by its second half between two events of type `system`, `log-rotation`;
//! writers hold a shared lock while they append, so a line is never written to the file that is being replaced.
//!
//! # For verbs
//! Whatever changes a state says so by one call; it never fails, for an event that cannot be written is no reason
//! to undo what it tells of:
//! ```ignore
//! engine.dirs.events.container("pause", &record);
//! engine.dirs.events.image("tag", &image.id, &name);
//! engine.dirs.events.volume("create", &name);
//! engine.dirs.events.emit(Event { kind: "network".into(), name, ..Event::new("create") });
//! ```

mod read;
mod who;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use unroot_monitor::log::{format_nanos, now};

pub use read::Follower;
pub use who::Who;

use crate::record::Record;

/// The bound of the file where none is configured.
const MAX_SIZE: u64 = 1_000_000;

/// What happened.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Event {
    /// How a container ended.
    #[serde(rename = "ContainerExitCode", skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What inspect shows of a container that was made, where containers.conf asks for it.
    #[serde(rename = "ContainerInspectData", skip_serializing_if = "String::is_empty")]
    pub inspect_data: String,
    /// The object's id.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The image of a container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// The object's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The network that a container was connected to.
    #[serde(rename = "network", skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// The pod of a container.
    #[serde(rename = "PodID", skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// What happened: `create`, `start`, `died`, ...
    pub status: String,
    /// When, RFC 3339.
    pub time: String,
    /// Kind of object: container, image, volume, network, pod, secret, system.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What a health check found.
    #[serde(rename = "health_status", skip_serializing_if = "String::is_empty")]
    pub health_status: String,
    /// How many health checks in a row have failed.
    #[serde(rename = "health_failing_streak", skip_serializing_if = "is_zero")]
    pub failing_streak: u32,
    /// What a health check printed, with `--health-log-destination=events_logger`.
    #[serde(rename = "health_log", skip_serializing_if = "String::is_empty")]
    pub health_log: String,
    /// Why it failed.
    #[serde(rename = "error", skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Labels, and what else there is to say.
    pub attributes: Option<BTreeMap<String, String>>,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Who>,
    /// Who a container's process is on the host: a name, or a number where the host has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host_user: String,
    /// Its id map as it was read, to the host.
    #[serde(rename = "IDMap", skip_serializing_if = "String::is_empty")]
    pub id_map: String,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Event {
    /// An event of now.
    pub fn new(status: &str) -> Self {
        Self { status: status.into(), time: format_nanos(now()), ..Self::default() }
    }

    /// One of a container, with its labels.
    pub fn of_container(status: &str, record: &Record) -> Self {
        Self {
            kind: "container".into(),
            id: record.id.clone(),
            name: record.name.clone(),
            image: record.image.as_ref().map(|i| i.name.clone()).unwrap_or_default(),
            pod: record.spec.pod.clone().unwrap_or_default(),
            attributes: Some(record.spec.labels.clone()),
            ..Self::new(status)
        }
    }

    /// When, nanoseconds since the epoch.
    pub fn nanos(&self) -> i64 {
        unroot_monitor::log::parse_time(&self.time).unwrap_or(0)
    }

    fn of_rotation(path: &Path, step: &str) -> Self {
        let attributes = BTreeMap::from([("io.podman.event.rotate".to_string(), step.to_string())]);
        Self {
            kind: "system".into(),
            name: path.to_string_lossy().into_owned(),
            attributes: Some(attributes),
            ..Self::new("log-rotation")
        }
    }

    fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Where events are written, and in whose name.
#[derive(Clone, Debug)]
pub struct Log {
    path: Option<PathBuf>,
    max_size: u64,
    /// `events_container_create_inspect_data`.
    pub with_inspect_data: bool,
    user: (u32, String),
    who: OnceLock<Who>,
    by_monitor: bool,
}

impl Log {
    /// The log of a user's engine.
    pub fn new(path: PathBuf, uid: u32, user: &str) -> Self {
        Self {
            path: Some(path),
            max_size: MAX_SIZE,
            with_inspect_data: false,
            user: (uid, user.into()),
            who: OnceLock::new(),
            by_monitor: false,
        }
    }

    /// Somewhere else; none writes nothing.
    pub fn redirect(&mut self, path: Option<PathBuf>) {
        self.path = path;
    }

    /// Bounds the file; 0 is without bound.
    pub fn limit(&mut self, bytes: u64) {
        self.max_size = bytes;
    }

    /// Where it is; none if there is none.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What events are attributed to; looked up once, which has to be before the user namespace is changed.
    pub fn who(&self) -> &Who {
        self.who.get_or_init(|| Who::of_this_process(self.user.0, &self.user.1))
    }

    /// The same for the process that keeps a container: what it tells of happened by itself.
    pub fn of_monitor(&self) -> Self {
        self.who();
        Self { by_monitor: true, ..self.clone() }
    }

    /// Something happened to a container.
    pub fn container(&self, status: &str, record: &Record) {
        self.emit(Event::of_container(status, record));
    }

    /// Something happened to an image; `name` as the user said it.
    pub fn image(&self, status: &str, id: &str, name: &str) {
        let (id, name) = (id.to_string(), name.to_string());
        self.emit(Event { kind: "image".into(), id, name, ..Event::new(status) });
    }

    /// Something happened to a volume.
    pub fn volume(&self, status: &str, name: &str) {
        self.emit(Event { kind: "volume".into(), name: name.into(), ..Event::new(status) });
    }

    /// Writes an event, signed.
    pub fn emit(&self, event: Event) {
        self.emit_all([event]);
    }

    /// Writes events that belong together, one after the other.
    pub fn emit_all(&self, events: impl IntoIterator<Item = Event>) {
        let Some(path) = &self.path else { return };
        let by = Some(Who { monitor: self.by_monitor, ..self.who().clone() });
        let lines = events.into_iter().flat_map(|event| Event { by: by.clone(), ..event }.line());
        if let Err(e) = self.append(path, &lines.collect::<Vec<u8>>()) {
            log::warn!("events: write {}: {e}", path.display());
        }
    }

    fn append(&self, path: &Path, lines: &[u8]) -> io::Result<()> {
        let mut rotates = self.max_size != 0;
        for _ in 0..100 {
            let mut file = open(path)?;
            lock_shared(&file);
            let size = file.metadata()?.len();
            if rotates && size + lines.len() as u64 > self.max_size {
                drop(file);
                // (what could not be rotated now will be at the next event)
                let _ = rotate(path, self.max_size, lines.len() as u64);
                rotates = false;
            } else if is_current(&file, path) {
                return file.write_all(lines);
            }
        }
        Err(io::Error::other("it is replaced again and again"))
    }
}

fn open(path: &Path) -> io::Result<File> {
    let open = || File::options().append(true).read(true).create(true).mode(0o600).open(path);
    match open() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
            open()
        }
        other => other,
    }
}

/// Waits for whoever rotates, which takes a moment: but not for one that was stopped in the middle of it.
fn lock_shared(file: &File) {
    for _ in 0..100 {
        if flock(file, FlockOperation::NonBlockingLockShared).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn is_current(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(own), Ok(there)) => (own.dev(), own.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Replaces the file by its second half, unless somebody is writing to it or has just done that.
fn rotate(path: &Path, max_size: u64, more: u64) -> io::Result<()> {
    let mut file = open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    let size = file.metadata()?.len();
    if !is_current(&file, path) || size + more <= max_size {
        return Ok(());
    }
    file.seek(io::SeekFrom::Start(size / 2))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest)?;
    // the first line is a part of one
    let kept = rest.iter().position(|b| *b == b'\n').map_or(&[][..], |n| &rest[n + 1..]);
    let mut text = Event::of_rotation(path, "begin").line();
    text.extend(kept);
    text.extend(Event::of_rotation(path, "end").line());
    let mut new = path.as_os_str().to_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut written = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    written.write_all(&text)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("unroot-events-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir.join("events.log")
    }

    #[test]
    fn the_file_is_bounded_and_nothing_new_is_lost() {
        let path = place("bounded");
        let mut log = Log::new(path.clone(), 1000, "me");
        log.limit(5000);
        let mut follower = Follower::new(&path);
        let mut seen = Vec::new();
        for n in 0..200 {
            log.volume("create", &format!("v{n}"));
            assert!(fs::metadata(&path).unwrap().len() < 6000);
            seen.extend(follower.next_events().into_iter().filter(|e| e.kind == "volume").map(|e| e.name));
        }
        assert_eq!(seen, (0..200).map(|n| format!("v{n}")).collect::<Vec<_>>());
        let events = read::all(&path);
        assert_eq!(events[0].status, "log-rotation");
        assert_eq!(events.last().unwrap().name, "v199");
        assert_eq!(events.last().unwrap().by.as_ref().unwrap().user, "me");
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn many_writers() {
        let path = place("writers");
        let mut log = Log::new(path.clone(), 0, "root");
        log.limit(1 << 20);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let log = &log;
                scope.spawn(move || (0..50).for_each(|m| log.volume("create", &format!("v{n}-{m}"))));
            }
        });
        assert_eq!(read::all(&path).len(), 400);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn nothing_is_written_where_there_is_no_log() {
        let path = place("none");
        let mut log = Log::new(path.clone(), 0, "root");
        log.redirect(None);
        log.volume("create", "v");
        assert!(!path.exists());
    }
}
