//! Control groups, version 2 (cgroups(7), the kernel's cgroup-v2.rst).
//!
//! A container's group is made below the group that the engine is in, if the engine may write there: in a
//! delegated subtree, or as root. Processes and controllers exclude each other in one group, so the engine's own
//! group cannot give controllers to children while it has processes: what controllers there are is what its parent
//! has enabled for its children, and the container's group is made as its sibling when the parent can be written to.
//! Where systemd owns the tree it is asked for a scope of its own for the container ([`systemd`]); its supervisor moves
//! there, and makes the container's group beside itself. Where there is no such place there is no group; a limit that
//! was asked for is then an error.

pub mod systemd;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// What went wrong with a control group.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filesystem.
    #[error("{call}: {error}")]
    Io {
        /// What was tried.
        call: String,
        /// Why it failed.
        error: io::Error,
    },
    /// A limit that cannot be had.
    #[error("the limit {file}={value} cannot be applied: {reason}")]
    Limit {
        /// The file of the limit.
        file: String,
        /// What it would have been.
        value: String,
        /// Why not.
        reason: String,
    },
}

/// What cures missing delegation.
pub const DELEGATION_HINT: &str = "the controllers have to be delegated to this user: with systemd, Delegate=cpu cpuset io memory pids in \
     /etc/systemd/system/user@.service.d/delegate.conf, and systemctl daemon-reload; see cgroups(7)";

/// A limit: a file of the group and what is written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `memory.max`
    pub file: String,
    /// `67108864`
    pub value: String,
    /// It was asked for: if it cannot be had, that is an error.
    pub required: bool,
}

/// A container's group.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

/// Where version 2 is mounted; on a hybrid host beside the version 1 controllers.
fn mount_point() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<&'static str>> = OnceLock::new();
    let places = || ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter();
    FOUND.get_or_init(|| places().find(|p| Path::new(p).join("cgroup.procs").exists())).map(Path::new)
}

/// The group that this process is in.
fn own() -> Option<PathBuf> {
    let text = unroot_sys::path::read_proc("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|l| l.strip_prefix("0::"))?;
    Some(mount_point()?.join(path.trim_start_matches('/')))
}

/// Controllers that a container of this process would have.
pub fn controllers() -> Vec<String> {
    let text = own().and_then(|own| fs::read_to_string(own.join("cgroup.controllers")).ok());
    text.unwrap_or_default().split_whitespace().map(str::to_string).collect()
}

/// A systemd owns the tree that makes scopes for this user.
pub fn has_systemd(uid: u32) -> bool {
    systemd::Manager::of_user(uid).is_some()
}

/// Moves this process, the supervisor of a container, into a scope that systemd makes for the container, so that
/// [`Cgroup::create`] finds a place there. `false`: no systemd is there to be asked.
pub fn enter_scope(uid: u32, scope: &systemd::Scope<'_>) -> Result<bool, Error> {
    if own().is_some_and(|own| own.ends_with(Path::new(scope.name).join(SUPERVISOR))) {
        // (a health check of the container starts it again)
        return Ok(true);
    }
    let Some(mut manager) = systemd::Manager::of_user(uid) else { return Ok(false) };
    let failed = |error| Error::Io { call: format!("systemd: start {}", scope.name), error };
    match manager.start_scope(scope) {
        // (others of its pod may be in it)
        Err(error) if scope.shared => {
            return join_shared(&mut manager, scope.name).map(|()| true).map_err(|_| failed(error));
        }
        other => other.map_err(failed)?,
    }
    let Some(own) = own() else { return Ok(false) };
    // controllers are given to children by groups without processes
    let supervisor = own.join(SUPERVISOR);
    let write = |path: PathBuf, value: &str| {
        fs::write(&path, value)
            .map_err(|error| Error::Io { call: format!("write {}", path.display()), error })
    };
    fs::create_dir(&supervisor)
        .map_err(|error| Error::Io { call: format!("mkdir {}", supervisor.display()), error })?;
    write(supervisor.join("cgroup.procs"), "0")?;
    let controllers = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        write(own.join("cgroup.subtree_control"), &format!("+{controller}"))?;
    }
    Ok(true)
}

/// Joins a scope that somebody else has just made, once its supervisor's group is there.
fn join_shared(manager: &mut systemd::Manager, name: &str) -> io::Result<()> {
    let mut last = Ok(());
    for _ in 0..50 {
        last = manager.join_scope(name, &format!("/{SUPERVISOR}"));
        if last.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    last
}

/// A process that hangs in the kernel is frozen when it comes back from there.
const FREEZE_MILLISECONDS: u32 = 10_000;

/// The group of the supervisor in a container's scope.
const SUPERVISOR: &str = "supervisor";

/// Groups whose names begin so are pods': those of their containers are in them, and the last one takes it along.
pub const POD_PREFIX: &str = "unroot-pod-";

/// The group of a pod.
#[derive(Debug)]
pub struct Pod<'a> {
    /// [`POD_PREFIX`] and its id.
    pub name: &'a str,
    /// Where it is, if it is there already.
    pub place: Option<&'a Path>,
    /// Limits of all its containers together.
    pub settings: &'a [Setting],
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

impl Cgroup {
    /// Moves this process beside the container in its scope, if it is in one, so that it may make processes there.
    pub fn approach(&self, uid: u32) -> Result<(), Error> {
        let Some(place) = self.scope() else { return Ok(()) };
        let Some(scope) = place.file_name().and_then(|n| n.to_str()) else { return Ok(()) };
        if own().is_some_and(|own| own.parent() == Some(place)) {
            return Ok(());
        }
        let Some(mut manager) = systemd::Manager::of_user(uid) else { return Ok(()) };
        manager
            .join_scope(scope, &format!("/{SUPERVISOR}"))
            .map_err(|error| Error::Io { call: format!("systemd: join {scope}"), error })
    }

    /// The scope of systemd that it is in, by itself or with its pod.
    pub fn scope(&self) -> Option<&Path> {
        let is_scope = |p: &&Path| p.extension().is_some_and(|e| e == "scope");
        self.path.ancestors().skip(1).take(2).find(is_scope)
    }

    /// Makes a group for a container; none if there is no place for one. `parent` is `--cgroup-parent`.
    pub fn create(parent: Option<&str>, id: &str) -> Result<Option<Self>, Error> {
        for place in places(parent)? {
            let path = place.join(name_of(id));
            if made(&path) {
                return Ok(Some(Self { path }));
            }
        }
        Ok(None)
    }

    /// Makes a group for a container of a pod, in the pod's, which is made as well if it is not there. `parent` is the
    /// pod's.
    pub fn create_in(pod: &Pod<'_>, parent: Option<&str>, id: &str) -> Result<Option<Self>, Error> {
        let places = match pod.place {
            Some(place) => vec![place.to_path_buf()],
            None => places(parent)?.into_iter().map(|place| place.join(pod.name)).collect(),
        };
        for place in places {
            // (the last container of the pod may just take it along)
            for _ in 0..20 {
                if !made(&place) {
                    break;
                }
                let group = Self { path: place.clone() };
                group.apply(pod.settings).inspect_err(|_| drop(fs::remove_dir(&place)))?;
                let controllers = fs::read_to_string(place.join("cgroup.controllers")).unwrap_or_default();
                for controller in controllers.split_whitespace() {
                    let _ = fs::write(place.join("cgroup.subtree_control"), format!("+{controller}"));
                }
                let path = place.join(name_of(id));
                if made(&path) {
                    return Ok(Some(Self { path }));
                }
            }
        }
        Ok(None)
    }

    /// One that a container has left whose supervisor was killed before it could say where it is; `pod` is its pod's id.
    pub fn lost(parent: Option<&str>, pod: Option<&str>, id: &str) -> Option<Self> {
        let pod = pod.map(|pod| format!("{POD_PREFIX}{pod}"));
        let below = |place: PathBuf| [pod.as_ref().map(|pod| place.join(pod)), Some(place)];
        let mut all = places(parent).ok()?.into_iter().flat_map(below).flatten();
        all.find_map(|place| Self::open(&place.join(name_of(id))))
    }

    /// One that is there.
    pub fn open(path: &Path) -> Option<Self> {
        path.is_dir().then(|| Self { path: path.into() })
    }

    /// Its path below the mount point, as runtime specs name it.
    pub fn below_mount_point(&self) -> Option<String> {
        let below = self.path.strip_prefix(mount_point()?).ok()?;
        Some(format!("/{}", below.display()))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A handle on its directory, for a process to be born in it.
    pub fn handle(&self) -> Result<OwnedFd, Error> {
        use rustix::fs::{Mode, OFlags};
        rustix::fs::open(&self.path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| Error::Io { call: format!("open {}", self.path.display()), error: e.into() })
    }

    /// Applies limits.
    pub fn apply(&self, settings: &[Setting]) -> Result<(), Error> {
        for setting in settings {
            let path = self.path.join(&setting.file);
            if let Err(error) = fs::write(&path, &setting.value)
                && setting.required
            {
                return Err(Error::Limit {
                    file: setting.file.clone(),
                    value: setting.value.clone(),
                    reason: self.reason(setting, &error),
                });
            }
        }
        Ok(())
    }

    fn reason(&self, setting: &Setting, error: &io::Error) -> String {
        let path = self.path.join(&setting.file);
        let controller = setting.file.split('.').next().unwrap_or_default();
        let controllers = fs::read_to_string(self.path.join("cgroup.controllers")).unwrap_or_default();
        if !path.exists() && !controllers.split_whitespace().any(|c| c == controller) {
            let parent = self.path.parent().unwrap_or(&self.path).join("cgroup.subtree_control");
            return format!(
                "the cgroup controller \"{controller}\" is not available: {} lacks it",
                parent.display()
            );
        }
        format!("write {}: {error}", path.display())
    }

    /// Processes in it and below.
    pub fn processes(&self) -> Vec<u32> {
        let mut all = Vec::new();
        let mut todo = vec![self.path.clone()];
        while let Some(dir) = todo.pop() {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            all.extend(text.lines().filter_map(|l| l.parse::<u32>().ok()));
            todo.extend(children(&dir));
        }
        all
    }

    /// It ran out of memory.
    pub fn was_oom_killed(&self) -> bool {
        let text = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        text.lines().filter_map(|l| l.strip_prefix("oom_kill ")).any(|n| n.trim() != "0")
    }

    /// The most processes that it may have, if one that joins it would be too many (with whoever makes it).
    pub fn full(&self) -> Option<u64> {
        let (now, most) = (self.number("pids.current")?, self.number("pids.max")?);
        (now + 2 > most).then_some(most)
    }

    /// The least that a file says of this group and those above it: what holds of limits like `memory.max`.
    pub fn least(&self, file: &str) -> Option<u64> {
        let mount = mount_point()?;
        let above = self.path.ancestors().take_while(|dir| *dir != mount);
        above.filter_map(|dir| number(&dir.join(file))).min()
    }

    /// A file that is one number; none if it is not there, or says `max`.
    pub fn number(&self, file: &str) -> Option<u64> {
        number(&self.path.join(file))
    }

    /// Freezes or thaws it, and waits until it is.
    pub fn freeze(&self, frozen: bool) -> Result<(), Error> {
        let file = self.path.join("cgroup.freeze");
        let write = |value: &str| {
            fs::write(&file, value)
                .map_err(|error| Error::Io { call: format!("write {}", file.display()), error })
        };
        let wanted = if frozen { "frozen 1" } else { "frozen 0" };
        write(if frozen { "1" } else { "0" })?;
        for _ in 0..FREEZE_MILLISECONDS {
            let events = fs::read_to_string(self.path.join("cgroup.events")).unwrap_or_default();
            if events.lines().any(|line| line == wanted) || events.is_empty() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if frozen {
            write("0")?;
        }
        let call = format!("wait for \"{wanted}\" in {}", self.path.join("cgroup.events").display());
        Err(Error::Io { call, error: io::ErrorKind::TimedOut.into() })
    }

    /// Ends what is left in it, and removes it.
    pub fn remove(self) -> Result<(), Error> {
        let mut last = None;
        for _ in 0..200 {
            match remove_tree(&self.path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => last = Some(e),
                _ => {
                    self.leave_pod();
                    return Ok(());
                }
            }
            let _ = fs::write(self.path.join("cgroup.kill"), "1");
            std::thread::sleep(Duration::from_millis(5));
        }
        let error = last.unwrap_or_else(|| io::ErrorKind::TimedOut.into());
        Err(Error::Io { call: format!("rmdir {}", self.path.display()), error })
    }

    /// A pod's group that has no others in it goes, too.
    fn leave_pod(&self) {
        let is_pod = |p: &&Path| {
            p.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(POD_PREFIX.as_bytes()))
        };
        if let Some(pod) = self.path.parent().filter(is_pod) {
            let _ = fs::remove_dir(pod);
        }
    }
}

/// A directory is there.
fn made(dir: &Path) -> bool {
    match fs::create_dir(dir) {
        Ok(()) => true,
        Err(e) => e.kind() == io::ErrorKind::AlreadyExists,
    }
}

fn name_of(id: &str) -> String {
    format!("unroot-{id}")
}

/// Where a container's group may be, the best place first. `parent` is `--cgroup-parent`.
fn places(parent: Option<&str>) -> Result<Vec<PathBuf>, Error> {
    let Some(mount) = mount_point() else { return Ok(Vec::new()) };
    if let Some(parent) = parent {
        let dir = mount.join(parent.trim_start_matches('/'));
        fs::create_dir_all(&dir)
            .map_err(|error| Error::Io { call: format!("mkdir {}", dir.display()), error })?;
        return Ok(vec![dir]);
    }
    let Some(own) = own() else { return Ok(Vec::new()) };
    // controllers reach a sibling of ours, not a child
    let above = own.parent().filter(|p| p.starts_with(mount)).map(Path::to_path_buf);
    Ok(above.into_iter().chain([own]).collect())
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_comes_and_goes() {
        let Ok(Some(group)) = Cgroup::create(None, "test-of-the-crate") else {
            println!("left out: this user may not make control groups here");
            return;
        };
        let path = group.path().to_path_buf();
        assert!(path.is_dir() && group.processes().is_empty() && !group.was_oom_killed());
        let missing = Setting { file: "nosuch.max".into(), value: "1".into(), required: true };
        let text = group.apply(std::slice::from_ref(&missing)).unwrap_err().to_string();
        assert!(text.contains("nosuch.max=1") && text.contains("cgroup.subtree_control"), "{text}");
        group.apply(&[Setting { required: false, ..missing }]).unwrap();
        group.remove().unwrap();
        assert!(!path.exists());
    }
}
