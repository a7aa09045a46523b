//! The engine's own user namespace: what makes an ordinary user's engine able to hold several ids.
//!
//! Rootless, a child that does nothing is born into a new user namespace, and newuidmap(1) and newgidmap(1) write its
//! map, side by side; they are the only programs with host privileges that ever run. All that takes as long as the rest
//! of a command, so it may begin before it is needed ([`prepare`]). The process (which has one thread) joins the
//! namespace, and the child ends. Id 0 inside is the user; the subordinate ranges follow from 1 on. The map is read back:
//! one that is not the one asked for is an error. From then on the code is the same as for root.
//!
//! No process is kept for the next command; the namespace may be (see `kept`).

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use unroot_sys::beside::{Child, Program};
use unroot_sys::ns::{setns, unshare};
use unroot_sys::path::find_program;
use unroot_sys::process::{Namespace, Strings, set_gid, set_uid};

use crate::observe::maps_of;
use crate::{Error, Extent, IdMap, IdMaps, SubIds, kept, names};

/// Who runs the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineUser {
    /// Id on the host.
    pub uid: u32,
    /// Primary group on the host.
    pub gid: u32,
    /// The host's name.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
}

/// Set in what runs under `unshare`, so that an engine inside knows who it is outside.
pub const UID_VARIABLE: &str = "_UNROOT_ROOTLESS_UID";
/// The group's.
pub const GID_VARIABLE: &str = "_UNROOT_ROOTLESS_GID";

impl EngineUser {
    /// Whoever runs this process.
    pub fn current() -> Self {
        let env_id = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let real = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (uid, gid) = match (env_id(UID_VARIABLE), env_id(GID_VARIABLE)) {
            (Some(uid), Some(gid)) if real.0 == 0 && !is_initial_map() => (uid, gid),
            _ => real,
        };
        Self::of(uid, gid)
    }

    /// Who that was before this process entered its engine's user namespace.
    pub fn outside() -> Self {
        let id = |map: fn(&IdMaps) -> &IdMap| maps_of("self").ok().and_then(|m| map(&m).to_outside(0));
        match rustix::process::geteuid().is_root() && !is_initial_map() {
            true => Self::of(id(|m| &m.uid).unwrap_or(0), id(|m| &m.gid).unwrap_or(0)),
            false => Self::current(),
        }
    }

    fn of(uid: u32, gid: u32) -> Self {
        let line = names::passwd_line(&uid.to_string());
        let field = |n: usize| line.as_deref().and_then(|l| l.split(':').nth(n)).filter(|f| !f.is_empty());
        let home = std::env::var_os("HOME").filter(|h| !h.is_empty()).map(PathBuf::from);
        Self {
            uid,
            gid,
            name: field(0).map_or_else(|| uid.to_string(), str::to_string),
            home: home.or_else(|| field(5).map(PathBuf::from)).unwrap_or_else(|| "/".into()),
        }
    }

    /// Not the host's root.
    pub fn is_rootless(&self) -> bool {
        self.uid != 0
    }
}

fn is_initial_map() -> bool {
    unroot_sys::path::read_proc("/proc/self/uid_map")
        .is_ok_and(|text| text.split_whitespace().collect::<Vec<_>>() == ["0", "0", "4294967295"])
}

/// The user namespace that the engine works in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EngineNamespace {
    /// Who runs it.
    pub user: EngineUser,
    /// It is a namespace of its own, not the host's.
    pub rootless: bool,
    /// Its maps, as they were read back: inside -> host.
    pub maps: IdMaps,
    /// It has only one id: there were no subordinate ranges, or nothing to apply them with.
    pub single_id: Option<String>,
    /// This process has made it, or found it by a process that is in it: it may be kept.
    #[serde(skip)]
    pub unkept: bool,
}

/// Enters the engine's user namespace. For root, and where we are in it already, there is nothing to do.
///
/// `existing` are processes of this user's that may live in such a namespace, a container's monitor: the first one
/// whose map is the one that would be made is joined, so that containers share their namespace. Before them all comes
/// the one that is `kept`.
pub fn enter(
    user: &EngineUser,
    kept: Option<&Path>,
    existing: impl IntoIterator<Item = u32>,
) -> Result<EngineNamespace, Error> {
    let effective = rustix::process::geteuid().as_raw();
    if effective == 0 {
        let maps = maps_of("self")?;
        return Ok(EngineNamespace {
            user: user.clone(),
            rootless: user.is_rootless(),
            maps,
            single_id: None,
            unkept: false,
        });
    }
    let coming = COMING.lock().ok().and_then(|mut coming| coming.take());
    let (wanted, single_id) = match &coming {
        Some(coming) => (coming.wanted.clone(), None),
        None => maps_for(user)?,
    };
    let is_kept = single_id.is_none() && coming.is_none() && kept.is_some_and(|f| kept::join(f, &wanted));
    let is_new = !is_kept && !join_existing(&wanted, existing);
    match (&single_id, coming) {
        _ if !is_new => {}
        (Some(_), _) => unshare_single(&wanted, user)?,
        (None, Some(coming)) => coming.join()?,
        (None, None) => Coming::begin(&wanted)?.join()?,
    }
    let maps = maps_of("self")?;
    if maps != wanted {
        kept.into_iter().for_each(kept::forget);
        return Err(Error::Invalid(format!(
            "the user namespace has not the map that was asked for: uid {:?}, not {:?}; gid {:?}, not {:?}",
            maps.uid, wanted.uid, maps.gid, wanted.gid
        )));
    }
    set_gid(0)?;
    set_uid(0)?;
    Ok(EngineNamespace { user: user.clone(), rootless: true, maps, single_id, unkept: !is_kept })
}

/// Begins to make the user namespace that [`enter`] will enter, unless this process has one already. What cannot be
/// made is left to `enter`, which says why.
pub fn prepare(user: &EngineUser) {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let Ok((wanted, None)) = maps_for(user) else { return };
    if let (Ok(begun), Ok(mut coming)) = (Coming::begin(&wanted), COMING.lock()) {
        *coming = Some(begun);
    }
}

/// The map that the engine of a user has, and the reason if it is of one id.
fn maps_for(user: &EngineUser) -> Result<(IdMaps, Option<String>), Error> {
    let subids = SubIds::of(&user.name, user.uid)?;
    Ok(match reason_for_one_id(&subids, user) {
        Some(reason) => (single_map(user), Some(reason)),
        None => (full_map(user, &subids)?, None),
    })
}

/// Joins the namespace of a process, if it is the one that would be made today.
fn join_existing(wanted: &IdMaps, existing: impl IntoIterator<Item = u32>) -> bool {
    existing.into_iter().any(|pid| {
        let Ok(file) = fs::File::open(format!("/proc/{pid}/ns/user")) else { return false };
        maps_of(&pid.to_string()).is_ok_and(|maps| maps == *wanted)
            && setns(file.as_fd(), [Namespace::User].into_iter().collect()).is_ok()
    })
}

fn reason_for_one_id(subids: &SubIds, user: &EngineUser) -> Option<String> {
    if subids.is_missing() {
        let file = if subids.uid.is_empty() { "/etc/subuid" } else { "/etc/subgid" };
        return Some(format!("{file} has no range for {} (uid {})", user.name, user.uid));
    }
    ["newuidmap", "newgidmap"]
        .into_iter()
        .find(|p| find_program(p).is_none())
        .map(|p| format!("{p} is not installed"))
}

/// What gives a user with one id its ranges.
pub fn cure_of_single_id(user: &EngineUser) -> String {
    if find_program("newuidmap").is_none() || find_program("newgidmap").is_none() {
        return "install newuidmap and newgidmap (Debian, Ubuntu: apt install uidmap; Fedora: dnf install shadow-utils)".into();
    }
    cure_of_missing_ranges(&user.name, 65536)
}

/// What gives a user's engine an id that its map lacks: so many more that it has one.
pub fn cure_of_missing_id(user: &EngineUser, map: &IdMap, id: u64) -> String {
    let has = map.extents().iter().map(|e| u64::from(e.inside) + u64::from(e.length)).max().unwrap_or(0);
    let more = (id + 1).saturating_sub(has).next_multiple_of(65536);
    if find_program("newuidmap").is_none() || find_program("newgidmap").is_none() {
        return cure_of_single_id(user);
    }
    let cure = cure_of_missing_ranges(&user.name, more);
    match () {
        () if !user.is_rootless() || first_free() + more >= u64::from(u32::MAX) => {
            "no host has so many ids to give away: the image has to be made with another owner (COPY --chown, or chown in it)".into()
        }
        () if more > 1 << 24 => format!(
            "{cure}; so high an id is often an accident of how the image was made (a user of a directory service): better chown it there"
        ),
        () => cure,
    }
}

/// The first id above all that are given away.
fn first_free() -> u64 {
    let taken = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let ends = text.lines().filter_map(|l| {
            let mut fields = l.split(':').skip(1).map_while(|f| f.parse::<u64>().ok());
            fields.next().zip(fields.next()).map(|(first, count)| first + count)
        });
        ends.max().unwrap_or(0)
    };
    taken("/etc/subuid").max(taken("/etc/subgid")).max(100_000)
}

/// The command that gives an account so many ids that nobody has.
pub fn cure_of_missing_ranges(name: &str, count: u64) -> String {
    let first = first_free();
    match names::passwd_line(name) {
        Some(_) => {
            let range = format!("{first}-{}", first + count - 1);
            format!("as root: usermod --add-subuids {range} --add-subgids {range} {name}")
        }
        // (usermod knows accounts only)
        None => format!("as root: echo {name}:{first}:{count} | tee -a /etc/subuid >>/etc/subgid"),
    }
}

/// The maps that this user's engine has, inside -> host, as the files say; nothing is entered.
pub fn planned_maps(user: &EngineUser) -> Result<IdMaps, Error> {
    match user.is_rootless() {
        true => maps_for(user).map(|(maps, _)| maps),
        false => Ok(IdMaps::identity()),
    }
}

fn single_map(user: &EngineUser) -> IdMaps {
    let one = |id| IdMap::new(vec![Extent::new(0, id, 1)]).unwrap_or_default();
    IdMaps { uid: one(user.uid), gid: one(user.gid) }
}

fn full_map(user: &EngineUser, subids: &SubIds) -> Result<IdMaps, Error> {
    let of = |own: u32, ranges: &[(u32, u32)]| {
        let mut extents = vec![Extent::new(0, own, 1)];
        let mut inside = 1;
        for (first, count) in ranges {
            extents.push(Extent::new(inside, *first, *count));
            inside += count;
        }
        IdMap::new(extents)
    };
    Ok(IdMaps { uid: of(user.uid, &subids.uid)?, gid: of(user.gid, &subids.gid)? })
}

/// A user namespace that is being made, while this process does other things.
struct Coming {
    wanted: IdMaps,
    /// Is in it until somebody else is.
    holder: Child,
    helpers: [Helper; 2],
}

static COMING: Mutex<Option<Coming>> = Mutex::new(None);

impl Coming {
    fn begin(wanted: &IdMaps) -> Result<Self, Error> {
        let holder = Child::waiting([Namespace::User].into_iter().collect()).map_err(refused_namespace)?;
        let helpers = [
            Helper::start("newuidmap", holder.pid, &wanted.uid)?,
            Helper::start("newgidmap", holder.pid, &wanted.gid)?,
        ];
        Ok(Self { wanted: wanted.clone(), holder, helpers })
    }

    fn join(self) -> Result<(), Error> {
        let failures: Vec<String> = self.helpers.into_iter().filter_map(|h| h.finish().err()).collect();
        if !failures.is_empty() {
            return Err(refused_map(&failures.join("; "), &self.wanted));
        }
        setns(self.holder.pidfd.as_fd(), [Namespace::User].into_iter().collect()).map_err(refused_namespace)
    }
}

/// A program that writes one of the maps.
struct Helper {
    name: &'static str,
    program: Program,
}

impl Helper {
    fn start(name: &'static str, target: u32, map: &IdMap) -> Result<Self, Error> {
        let program = find_program(name).ok_or_else(|| Error::Invalid(format!("{name} is not installed")))?;
        let mut arguments = vec![name.to_string(), target.to_string()];
        for e in map.extents() {
            arguments.extend([e.inside, e.outside, e.length].map(|n| n.to_string()));
        }
        Ok(Self { name, program: Program::start(&program, Strings::new(&arguments)?)? })
    }

    fn finish(self) -> Result<(), String> {
        match self.program.finish() {
            (Some(0), _) => Ok(()),
            (_, said) if said.is_empty() => Err(format!("{}: ended without a word", self.name)),
            (_, said) => Err(format!("{}: {said}", self.name)),
        }
    }
}

fn unshare_single(wanted: &IdMaps, user: &EngineUser) -> Result<(), Error> {
    unshare([Namespace::User].into_iter().collect()).map_err(refused_namespace)?;
    for (file, text) in [
        ("setgroups", "deny".to_string()),
        ("uid_map", wanted.uid.to_string()),
        ("gid_map", wanted.gid.to_string()),
    ] {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|e| refused_map(&format!("write /proc/self/{file} for {}: {e}", user.name), wanted))?;
    }
    Ok(())
}

fn sysctl(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok().map(|t| t.trim().to_string())
}

/// Which gate refused a user namespace.
fn refused_namespace(error: unroot_sys::SyscallError) -> Error {
    let exe = std::env::current_exe().unwrap_or_default();
    let hint = if sysctl("user.max_user_namespaces").as_deref() == Some("0") {
        "user.max_user_namespaces is 0; as root: sysctl -w user.max_user_namespaces=15000".to_string()
    } else if sysctl("kernel.unprivileged_userns_clone").as_deref() == Some("0") {
        "kernel.unprivileged_userns_clone is 0; as root: sysctl -w kernel.unprivileged_userns_clone=1".into()
    } else if sysctl("kernel.apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        apparmor_cure(&exe)
    } else if error.errno == Errno::NOSPC {
        "all user namespaces that user.max_user_namespaces allows are in use, or they are nested too deep"
            .into()
    } else {
        "no sysctl forbids it: a seccomp filter of an outer container, or a hardened unit, may".into()
    };
    Error::Cured { text: format!("creating the user namespace: {error}"), hint }
}

fn apparmor_cure(exe: &std::path::Path) -> String {
    let profile = apparmor_profile(&exe.display().to_string()).replace('\n', "\\n");
    format!(
        "AppArmor forbids it (kernel.apparmor_restrict_unprivileged_userns=1); as root: \
         printf '{profile}' >/etc/apparmor.d/unroot && apparmor_parser -r /etc/apparmor.d/unroot"
    )
}

/// A profile that lets a program make user namespaces, and forbids nothing.
pub fn apparmor_profile(program: &str) -> String {
    format!(
        "abi <abi/4.0>,\ninclude <tunables/global>\nprofile unroot {program} flags=(unconfined) {{\n  userns,\n}}\n"
    )
}

/// Which gate refused the map.
fn refused_map(said: &str, wanted: &IdMaps) -> Error {
    let hint = if no_new_privs() {
        "no_new_privs is set on this process, so newuidmap has no privileges: in a systemd unit, NoNewPrivileges=no".to_string()
    } else if let Some(problem) = ["newuidmap", "newgidmap"].into_iter().find_map(unprivileged) {
        problem
    } else if said.contains("not allowed") || said.contains("Target") {
        "the ranges in /etc/subuid and /etc/subgid have to be this user's, by login name or uid; see subuid(5)".into()
    } else if sysctl("kernel.apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        apparmor_cure(&std::env::current_exe().unwrap_or_default())
    } else if let Some((first, last, outer)) = outside_of_outer(wanted) {
        format!(
            "the user namespace around this has the ids {outer} only, not {first}-{last}: a range of those in /etc/subuid and /etc/subgid here, or a longer map outside"
        )
    } else {
        "inside another container its user namespace has to map the ranges of /etc/subuid and /etc/subgid, too".into()
    };
    Error::Cured { text: format!("writing the id map: {said}"), hint }
}

/// A range that the namespace around this process lacks, and what that has. It was left by now, but the parent is there.
fn outside_of_outer(wanted: &IdMaps) -> Option<(u32, u32, String)> {
    let text = fs::read_to_string(format!("/proc/{}/uid_map", rustix::process::getppid()?)).ok()?;
    let outer: Vec<(u32, u32)> = text
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map_while(|n| n.parse::<u32>().ok());
            let (first, _, length) = (numbers.next()?, numbers.next()?, numbers.next()?);
            Some((first, first + (length - 1)))
        })
        .collect();
    let has = |id: u32| outer.iter().any(|(first, last)| (*first..=*last).contains(&id));
    let lacking = wanted.uid.extents().iter().map(|e| (e.outside, e.outside + (e.length - 1)));
    let (first, last) = lacking.into_iter().find(|(first, last)| !has(*first) || !has(*last))?;
    let shown: Vec<String> = outer.iter().map(|(first, last)| format!("{first}-{last}")).collect();
    Some((first, last, shown.join(", ")))
}

/// execve(2) grants this process nothing.
pub fn no_new_privs() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|s| s.contains("NoNewPrivs:\t1"))
}

fn unprivileged(name: &str) -> Option<String> {
    let (text, cure, _) = helper_problem(name)?;
    Some(format!("{text}; {cure}"))
}

/// Why a helper has no privileges, what cures it, and the same as a command: it is not there, has neither setuid nor file
/// capabilities, or is on a nosuid mount.
pub fn helper_problem(name: &str) -> Option<(String, String, Option<Vec<String>>)> {
    use std::os::unix::fs::MetadataExt as _;
    let Some(path) = find_program(name) else {
        let cure = "install it (Debian, Ubuntu: apt install uidmap; Fedora: dnf install shadow-utils)";
        return Some((format!("{name} is not installed"), cure.into(), None));
    };
    let shown = path.display().to_string();
    let meta = fs::metadata(&path).ok()?;
    // (seen from a namespace without a map root is the overflow id)
    let setuid = meta.mode() & 0o4000 != 0 && matches!(meta.uid(), 0 | 65534);
    let capable = rustix::fs::getxattr(&path, "security.capability", &mut [0u8; 64][..]).is_ok();
    if !setuid && !capable {
        let command = vec!["chmod".to_string(), "u+s".into(), shown.clone()];
        let text = format!("{shown} is neither setuid root nor has it file capabilities");
        return Some((text, format!("as root: {}", command.join(" ")), Some(command)));
    }
    let flags = rustix::fs::statvfs(&path).ok()?.f_flag;
    flags.contains(rustix::fs::StatVfsMountFlags::NOSUID).then(|| {
        let cure = "as root: mount -o remount,suid on its mount, or install it elsewhere";
        (format!("{shown} is on a filesystem mounted nosuid"), cure.into(), None)
    })
}
