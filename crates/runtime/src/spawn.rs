//! The first process of a container, from clone3 to execve.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use unroot_idmap::engine::{cure_of_missing_id, planned_maps};
use unroot_idmap::{EngineUser, IdMap, IdMaps, observe};
use unroot_sys::SyscallError;
use unroot_sys::ns::{loopback_up, setns};
use unroot_sys::process::{
    Child, Fork, Namespace, NamespaceFlags, Prctl, clone, clone_sibling, exit_now, prctl, set_gid,
    set_groups, set_uid,
};
use unroot_sys::socket::{receive_fd, send_fd};

use crate::process::{Ready, Stdio, set_oom_score, set_stdio, set_terminal};
use crate::rootfs::{Rootfs, attach, open_path};
use crate::spec::{Spec, User};
use crate::{Error, StartError, dev, mounts, seccomp};

/// The user namespace of a container.
#[derive(Clone, Debug)]
pub enum Userns {
    /// The caller's.
    Inherit,
    /// A new one with these maps, inside -> the caller's.
    New(IdMaps),
    /// One that is there, and its maps.
    Join(PathBuf, IdMaps),
}

impl Userns {
    /// Its maps, if it is not the caller's.
    fn maps(&self) -> Option<&IdMaps> {
        match self {
            Userns::Inherit => None,
            Userns::New(maps) | Userns::Join(_, maps) => Some(maps),
        }
    }
}

/// What to start.
#[derive(Debug)]
pub struct Request<'a> {
    /// What it is like.
    pub spec: &'a Spec,
    /// Where its root filesystem comes from.
    pub rootfs: Rootfs,
    /// A directory of the host on which the root filesystem is mounted, in the container's mount namespace alone.
    pub mount_point: PathBuf,
    /// Its user namespace.
    pub userns: Userns,
    /// The caller's ids: what ids of the container are checked against.
    pub engine_maps: &'a IdMaps,
    /// The caller is in the host's user namespace.
    pub engine_is_host: bool,
    /// The cgroup it is born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// System calls that are allowed.
    pub seccomp: seccomp::Profile,
    /// Descriptors that are handed on.
    pub preserved_fds: &'a [u32],
    /// setgroups(2) is allowed in the caller's user namespace.
    pub setgroups: bool,
    /// Device files of the root filesystem are none.
    pub no_devices: bool,
    /// Bring the loopback interface of a new network namespace up.
    pub loopback: bool,
}

/// A container's first process, which waits to be let go.
#[derive(Debug)]
pub struct Init {
    child: Child,
    socket: OwnedFd,
    terminal: bool,
    netns: Option<OwnedFd>,
}

/// Makes the process. Its namespaces exist when this returns, its root filesystem when [`Init::wait_ready`] does.
pub fn spawn(request: &Request<'_>, stdio: Stdio) -> Result<Init, Error> {
    let plan = Plan::new(request)?;
    let stdio = stdio.complete()?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| SyscallError::new("socketpair", e))?;
    let forked = match (&plan.join_user, &plan.join_pid) {
        (None, None) => clone(plan.new, request.cgroup)?,
        (user, pid) => clone_in(user.as_ref(), pid.as_ref(), plan.new, request.cgroup)?,
    };
    match forked {
        Fork::Parent(child) => {
            drop(theirs);
            // (later the child is another user, whose files in /proc are closed to us; one that joined a namespace is so
            // at once, and shows it itself)
            let netns = match &plan.join_user {
                None => fs::File::open(format!("/proc/{}/ns/net", child.pid)).ok().map(OwnedFd::from),
                Some(_) => receive_fd(ours.as_fd())?,
            };
            let mut init = Init { child, socket: ours, terminal: request.spec.process.terminal, netns };
            match &request.userns {
                Userns::Inherit => {}
                Userns::New(maps) => init.write_maps(maps)?,
                Userns::Join(..) => init.tell(b'm')?,
            }
            Ok(init)
        }
        Fork::Child => {
            drop(ours);
            if plan.join_user.is_some()
                && let Ok(own) = fs::File::open("/proc/self/ns/net")
            {
                let _ = send_fd(theirs.as_fd(), own.as_fd());
            }
            let error = plan.run(request, stdio, &theirs);
            let mut message = vec![b'E', error.exit_code];
            message.extend(error.text.as_bytes());
            let _ = rustix::net::send(&theirs, &message, rustix::net::SendFlags::NOSIGNAL);
            exit_now(1)
        }
    }
}

/// Makes a child in namespaces that are there, of which a process is only by birth: of the user namespace, so that the
/// child's other namespaces belong to it, or of the pid namespace. A first child joins them, makes a sibling, which is a
/// child of the caller's, and ends. The caller stays where it is, and so do those whom it makes later; the number of the
/// sibling is the one that the caller sees.
fn clone_in(
    user: Option<&OwnedFd>,
    pid: Option<&OwnedFd>,
    new: NamespaceFlags,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Fork, Error> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| SyscallError::new("socketpair", e))?;
    let join = || -> Result<Fork, SyscallError> {
        if let Some(pid) = pid {
            setns(pid.as_fd(), flags(&[Namespace::Pid]))?;
        }
        if let Some(user) = user {
            prctl(Prctl::Dumpable(false))?;
            setns(user.as_fd(), flags(&[Namespace::User]))?;
        }
        clone_sibling(new)
    };
    match clone(NamespaceFlags::default(), cgroup)? {
        Fork::Child => match join() {
            Ok(Fork::Child) => Ok(Fork::Child),
            Ok(Fork::Parent(second)) => {
                let _ = send_fd(theirs.as_fd(), second.pidfd.as_fd());
                let _ = rustix::io::write(&theirs, &second.pid.to_ne_bytes());
                exit_now(0)
            }
            Err(error) => {
                let _ = rustix::io::write(&theirs, format!("E{error}").as_bytes());
                exit_now(1)
            }
        },
        Fork::Parent(first) => {
            drop(theirs);
            let _ = waitid(WaitId::PidFd(first.pidfd.as_fd()), WaitIdOptions::EXITED);
            let pidfd = receive_fd(ours.as_fd())?;
            let mut said = [0; 512];
            let length = rustix::io::read(&ours, &mut said).unwrap_or(0);
            match (pidfd, <[u8; 4]>::try_from(&said[..length])) {
                (Some(pidfd), Ok(pid)) => Ok(Fork::Parent(Child { pid: u32::from_ne_bytes(pid), pidfd })),
                _ => Err(Error::Spec(format!(
                    "joining the container's namespaces: {}",
                    String::from_utf8_lossy(&said[..length])
                ))),
            }
        }
    }
}

/// The id that a process takes in a user namespace before it is the user's: root, where there is one.
fn first_id(map: &IdMap) -> u32 {
    match map.to_outside(0) {
        Some(_) => 0,
        None => map.extents().first().map_or(0, |e| e.inside),
    }
}

fn flags(kinds: &[Namespace]) -> NamespaceFlags {
    kinds.iter().copied().collect()
}

fn kind_of(name: &str) -> Result<Namespace, Error> {
    match name {
        "user" => Ok(Namespace::User),
        "mount" => Ok(Namespace::Mount),
        "pid" => Ok(Namespace::Pid),
        "network" => Ok(Namespace::Network),
        "ipc" => Ok(Namespace::Ipc),
        "uts" => Ok(Namespace::Uts),
        "cgroup" => Ok(Namespace::Cgroup),
        _ => Err(Error::Spec(format!("unknown namespace {name:?}"))),
    }
}

/// This process is in the namespace of a file.
fn is_own(path: &std::path::Path, kind: Namespace) -> bool {
    let own = fs::metadata(format!("/proc/self/ns/{}", kind.file()));
    use std::os::unix::fs::MetadataExt as _;
    own.ok()
        .zip(fs::metadata(path).ok())
        .is_some_and(|(own, other)| (own.dev(), own.ino()) == (other.dev(), other.ino()))
}

/// What the child needs and cannot make itself.
struct Plan {
    new: NamespaceFlags,
    join: Vec<(Namespace, OwnedFd)>,
    join_pid: Option<OwnedFd>,
    join_user: Option<OwnedFd>,
    /// Mounts of the spec, by their place in it, that the caller alone can make.
    shifted: Vec<(usize, (OwnedFd, bool))>,
    ready: Ready,
    last_cap: u32,
    root: Option<OwnedFd>,
    own_user_namespace: bool,
}

impl Plan {
    fn new(request: &Request<'_>) -> Result<Self, Error> {
        let spec = request.spec;
        let own_user_namespace = request.userns.maps().is_some();
        check_ids(request)?;
        let join_user = match &request.userns {
            Userns::Join(path, _) => {
                let file =
                    fs::File::open(path).map_err(|e| Error::Spec(format!("open {}: {e}", path.display())))?;
                Some(OwnedFd::from(file))
            }
            _ => None,
        };
        let (mut new, mut join, mut join_pid) = (NamespaceFlags::default(), Vec::new(), None);
        for namespace in &spec.linux.namespaces {
            let kind = kind_of(&namespace.kind)?;
            match &namespace.path {
                None => new.insert(kind),
                // (one that we are in already need not be joined, and where it is the host's may not)
                Some(path) if kind == Namespace::User || is_own(path, kind) => {}
                Some(path) => {
                    let file = fs::File::open(path)
                        .map_err(|e| Error::Spec(format!("open {}: {e}", path.display())))?;
                    match kind {
                        Namespace::Pid => join_pid = Some(file.into()),
                        _ => join.push((kind, file.into())),
                    }
                }
            }
        }
        if matches!(request.userns, Userns::New(_)) {
            new.insert(Namespace::User);
        }
        new.insert(Namespace::Mount);
        let mut shifted = Vec::new();
        for (n, mount) in spec.mounts.iter().enumerate() {
            shifted.extend(mounts::shifted(mount)?.map(|tree| (n, tree)));
        }
        // (a new user namespace allows it where the one around it does)
        let setgroups = request.setgroups;
        let filter = seccomp::compile(&request.seccomp, &spec.process.capabilities)?;
        let ready = Ready::new(&spec.process, filter, request.preserved_fds, setgroups)?;
        // with a user namespace of its own the child could not mount layers: the caller does it for it
        let root = own_user_namespace.then(|| request.rootfs.detached()).transpose()?;
        Ok(Self {
            new,
            join,
            join_pid,
            join_user,
            shifted,
            ready,
            last_cap: last_capability(),
            root,
            own_user_namespace,
        })
    }

    /// The life of the child until it is the user's program; returns why it did not become it.
    fn run(&self, request: &Request<'_>, stdio: [OwnedFd; 3], socket: &OwnedFd) -> StartError {
        match self.build(request, stdio, socket) {
            Ok(()) => self.ready.become_program(self.last_cap, socket.as_fd()),
            Err(error) => error,
        }
    }

    fn build(&self, request: &Request<'_>, stdio: [OwnedFd; 3], socket: &OwnedFd) -> Result<(), StartError> {
        let spec = request.spec;
        prctl(Prctl::ParentDeathSignal(9))?;
        if let Some(score) = spec.process.oom_score_adj {
            set_oom_score(score)?;
        }
        // opened here, in this mount namespace, and by the user that directory and sources belong to
        let mount_point = open_path(&request.mount_point)?;
        let prepare = |(n, mount)| match self.shifted.iter().find(|(at, _)| *at == n) {
            Some((_, tree)) => mounts::prepared(mount, tree),
            None => mounts::prepare(mount),
        };
        let prepared = spec.mounts.iter().enumerate().map(prepare).collect::<Result<Vec<_>, _>>()?;
        if let Some(maps) = request.userns.maps() {
            wait_for(socket, b'm')?;
            set_gid(first_id(&maps.gid))?;
            set_uid(first_id(&maps.uid))?;
            if !spec.process.keep_groups && request.setgroups {
                set_groups(&[])?;
            }
            prctl(Prctl::ParentDeathSignal(9))?;
        }
        rustix::process::setsid().map_err(|e| SyscallError::new("setsid", e))?;
        rustix::process::umask(rustix::fs::Mode::empty());
        for (kind, file) in &self.join {
            setns(file.as_fd(), flags(&[*kind]))?;
        }
        let root = self.build_root(request, &prepared, mount_point)?;
        let terminal = match spec.process.terminal {
            true => Some(dev::open_terminal(&root)?),
            false => None,
        };
        if let Some((_, slave)) = &terminal {
            dev::bind_console(&root, slave)?;
        }
        mounts::mask(&root, &spec.linux.masked_paths)?;
        mounts::read_only(&root, &spec.linux.readonly_paths)?;
        // (until here devices are made in it)
        for mount in
            spec.mounts.iter().filter(|m| m.destination == "/dev" && m.options.iter().any(|o| o == "ro"))
        {
            let dev = mounts::open_in(&root, &mount.destination)?;
            unroot_sys::mount::set_attributes(dev.as_fd(), unroot_sys::mount::attr::RDONLY, 0, false, None)?;
        }
        if request.no_devices {
            unroot_sys::mount::set_attributes(root.as_fd(), unroot_sys::mount::attr::NODEV, 0, false, None)?;
        }
        if spec.root.readonly {
            unroot_sys::mount::set_attributes(root.as_fd(), unroot_sys::mount::attr::RDONLY, 0, false, None)?;
        }
        mounts::pivot(&root)?;
        if let Some(name) = spec.hostname.as_ref().filter(|_| self.new.contains(Namespace::Uts)) {
            rustix::system::sethostname(name.as_bytes())
                .map_err(|e| SyscallError::new(format!("sethostname({name:?})"), e))?;
        }
        if request.loopback && self.new.contains(Namespace::Network) {
            loopback_up()?;
        }
        match &terminal {
            Some((master, slave)) => {
                send_fd(socket.as_fd(), master.as_fd())?;
                set_terminal(slave, spec.process.user.uid)?;
            }
            None => {
                rustix::io::write(socket, b"R").map_err(|e| SyscallError::new("write(socket)", e))?;
                set_stdio(stdio.each_ref())?;
                own_stdio(spec.process.user.uid);
            }
        }
        wait_for(socket, b'g')
    }

    fn build_root(
        &self,
        request: &Request<'_>,
        prepared: &[mounts::Prepared<'_>],
        mount_point: OwnedFd,
    ) -> Result<OwnedFd, StartError> {
        let spec = request.spec;
        // (the sources of binds are copied by now: one that is to be shared with the host still is)
        mounts::stop_propagation()?;
        let made;
        let root = match &self.root {
            Some(root) => root,
            None => {
                made = request.rootfs.detached()?;
                &made
            }
        };
        attach(root, &mount_point, &format!("rootfs on {}", request.mount_point.display()))?;
        let root =
            rustix::io::fcntl_dupfd_cloexec(root, 3).map_err(|e| SyscallError::new("dup(rootfs)", e))?;
        for mount in prepared {
            mounts::make(&root, mount)?;
        }
        let in_user_namespace = self.own_user_namespace || !request.engine_is_host;
        if spec.mounts.iter().any(|m| m.destination == "/dev" && m.kind == "tmpfs") {
            dev::populate(&root, in_user_namespace)?;
        }
        dev::add(&root, &spec.linux.devices, in_user_namespace)?;
        mounts::write_sysctls(&root, spec.linux.sysctl.iter())?;
        Ok(root)
    }
}

/// Pipes belong to the process's user, so that it can open /dev/stdout again.
fn own_stdio(uid: u32) {
    if uid == 0 {
        return;
    }
    let uid = rustix::fs::Uid::from_raw(uid);
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let is_pipe = rustix::fs::fstat(fd)
            .is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode) == rustix::fs::FileType::Fifo);
        if is_pipe {
            let _ = rustix::fs::fchown(fd, Some(uid), None);
        }
    }
}

fn last_capability() -> u32 {
    unroot_sys::path::read_proc("/proc/sys/kernel/cap_last_cap")
        .ok()
        .and_then(|t| t.trim().parse().ok())
        .unwrap_or(40)
}

/// Rule 4: an id that the container's map lacks is refused with three numbers.
fn check_ids(request: &Request<'_>) -> Result<(), Error> {
    let maps = match request.userns.maps() {
        Some(maps) => maps.compose(request.engine_maps),
        None => request.engine_maps.clone(),
    };
    check_user(&request.spec.process.user, &maps)
}

/// The same, for a map of the container's ids to the host's.
pub(crate) fn check_user(user: &User, maps: &IdMaps) -> Result<(), Error> {
    let check = |what: &str, id: u32, map: &IdMap, planned: fn(&IdMaps) -> &IdMap| {
        if map.to_outside(id).is_some() {
            return Ok(());
        }
        let outside: Vec<String> =
            map.extents().iter().map(|e| format!("{}-{}", e.outside, e.outside + (e.length - 1))).collect();
        let engine = EngineUser::outside();
        let cure = match planned_maps(&engine) {
            Ok(all) if planned(&all) == map => cure_of_missing_id(&engine, map, id.into()),
            _ => format!(
                "a map that has it: --uidmap and --gidmap, or --userns=MODE:size={}",
                u64::from(id) + 1
            ),
        };
        let text = format!(
            "setup user: {what} {id} of the container has no id on the host: the container's map has {what}s {}, which are {} on the host\nhint: {cure}",
            map.ranges(),
            outside.join(", ")
        );
        Err(Error::Start(StartError { exit_code: 126, text }))
    };
    check("uid", user.uid, &maps.uid, |m| &m.uid)?;
    check("gid", user.gid, &maps.gid, |m| &m.gid)?;
    user.additional_gids.iter().try_for_each(|gid| check("gid", *gid, &maps.gid, |m| &m.gid))
}

fn wait_for(socket: &OwnedFd, word: u8) -> Result<(), StartError> {
    let mut byte = [0];
    match rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut byte)) {
        Ok(1) if byte[0] == word => Ok(()),
        // the caller gave up: nobody is there to hear of it
        _ => Err(StartError { exit_code: 125, text: "the engine went away".into() }),
    }
}

impl Init {
    /// Its number, for paths in /proc and for people.
    pub fn pid(&self) -> u32 {
        self.child.pid
    }

    /// Its network namespace.
    pub fn network_namespace(&self) -> Option<BorrowedFd<'_>> {
        self.netns.as_ref().map(|fd| fd.as_fd())
    }

    /// What it holds open.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let own = [self.child.pidfd.as_fd(), self.socket.as_fd()];
        own.into_iter().chain(self.network_namespace()).collect()
    }

    /// A handle on it.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    fn tell(&self, word: u8) -> Result<(), SyscallError> {
        rustix::net::send(&self.socket, &[word], rustix::net::SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(|e| SyscallError::new("send(container)", e))
    }

    fn write_maps(&mut self, maps: &IdMaps) -> Result<(), Error> {
        let pid = self.pid();
        let around = observe::maps_of("self")?;
        for (file, map, around) in [("uid_map", &maps.uid, &around.uid), ("gid_map", &maps.gid, &around.gid)]
        {
            let path = format!("/proc/{pid}/{file}");
            let lines = unroot_idmap::ranges::lines_for_kernel(map, around)?;
            fs::write(&path, &lines)
                .map_err(|e| Error::Spec(format!("write {path}: {e}; the map was {lines:?}")))?;
        }
        let observed = observe::maps_of(&pid.to_string())?;
        if observed != *maps {
            return Err(Error::Spec(format!(
                "the container's id map is {observed:?}, not {maps:?} as asked"
            )));
        }
        Ok(self.tell(b'm')?)
    }

    /// Waits until its root filesystem is made; the master of its terminal, if it has one.
    pub fn wait_ready(&mut self) -> Result<Option<OwnedFd>, Error> {
        if self.terminal {
            let mut first = [0; 1];
            let peeked = rustix::io::retry_on_intr(|| {
                rustix::net::recv(&self.socket, &mut first, rustix::net::RecvFlags::PEEK)
            });
            if matches!(peeked, Ok((1, _))) && first[0] == b'f' {
                return Ok(receive_fd(self.socket.as_fd())?);
            }
        }
        match self.read_message()? {
            None => Ok(None),
            Some(error) => Err(Error::Start(error)),
        }
    }

    /// Lets it go, and waits until it is the user's program.
    pub fn start(self) -> Result<Child, Error> {
        self.tell(b'g')?;
        match self.read_message()? {
            None => Ok(self.child),
            Some(error) => Err(Error::Start(error)),
        }
    }

    /// `R` or the end is well; `E` is an error.
    fn read_message(&self) -> Result<Option<StartError>, SyscallError> {
        let mut message = [0; 4096];
        let got = rustix::io::retry_on_intr(|| rustix::io::read(&self.socket, &mut message))
            .map_err(|e| SyscallError::new("read(container)", e))?;
        Ok(match &message[..got] {
            [b'E', code, text @ ..] => {
                Some(StartError { exit_code: *code, text: String::from_utf8_lossy(text).into_owned() })
            }
            _ => None,
        })
    }
}
