//! Processes as the host's /proc has them, and which of them are a container's.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use unroot_sys::path::read_proc;

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    parent: u32,
    depth: usize,
    status: String,
    stat: OnceCell<(String, Vec<String>)>,
    pid_namespace: OnceCell<Option<PathBuf>>,
}

impl Process {
    /// Reads one; none if it has gone.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        let status = read_proc(&format!("/proc/{pid}/status")).ok()?;
        let mut process =
            Self { pid, parent: 0, depth: 0, status, stat: OnceCell::new(), pid_namespace: OnceCell::new() };
        process.parent = process.nth("PPid", 0);
        process.depth = process.field("NSpid").split_whitespace().count();
        Some(process)
    }

    /// What it calls itself, and the fields of proc_pid_stat(5) from 3 on.
    fn of_stat(&self) -> &(String, Vec<String>) {
        self.stat.get_or_init(|| {
            let text = read_proc(&format!("/proc/{}/stat", self.pid)).unwrap_or_default();
            let name = text.find('(').zip(text.rfind(')'));
            let Some((comm, rest)) = name.and_then(|(a, b)| Some((text.get(a + 1..b)?, text.get(b + 1..)?)))
            else {
                return Default::default();
            };
            (comm.to_string(), rest.split_whitespace().map(str::to_string).collect())
        })
    }

    /// What it calls itself.
    pub(crate) fn comm(&self) -> &str {
        &self.of_stat().0
    }

    /// Of proc_pid_status(5).
    pub(crate) fn field(&self, name: &str) -> &str {
        let value = |line: &'_ str| line.strip_prefix(name)?.strip_prefix(':').map(str::len);
        let found = self.status.lines().find_map(|line| Some((line, value(line)?)));
        found.map_or("", |(line, length)| line[line.len() - length..].trim())
    }

    /// The nth number of a field: of Uid and Gid real, effective, saved, filesystem.
    pub(crate) fn nth(&self, name: &str, n: usize) -> u32 {
        self.field(name).split_whitespace().nth(n).and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// Field of proc_pid_stat(5), counted from 3 on as there.
    pub(crate) fn stat(&self, n: usize) -> i64 {
        self.of_stat().1.get(n - 3).and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// R, S, Z ...
    pub(crate) fn state(&self) -> String {
        self.of_stat().1.first().cloned().unwrap_or_default()
    }

    /// Its number in the namespace that is so deep below ours; in the one it is in, if that is higher.
    pub(crate) fn at_depth(&self, name: &str, depth: usize) -> String {
        let numbers: Vec<&str> = self.field(name).split_whitespace().collect();
        numbers.get(depth.max(1) - 1).or(numbers.last()).unwrap_or(&"?").to_string()
    }

    /// How deep its pid namespace is below ours, which is 1.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Its parent on the host.
    pub(crate) fn parent(&self) -> u32 {
        self.parent
    }

    fn pid_namespace(&self) -> Option<&PathBuf> {
        let read = || fs::read_link(format!("/proc/{}/ns/pid", self.pid)).ok();
        self.pid_namespace.get_or_init(read).as_ref()
    }
}

/// All that this process can see.
pub(crate) struct Processes {
    all: Vec<Process>,
    by_pid: HashMap<u32, usize>,
}

impl Processes {
    /// Looks.
    pub(crate) fn read() -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let all: Vec<Process> =
            entries.filter_map(|e| Process::read(e.file_name().to_str()?.parse().ok()?)).collect();
        let by_pid = all.iter().enumerate().map(|(n, p)| (p.pid, n)).collect();
        Self { all, by_pid }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Process> {
        self.all.iter()
    }

    pub(crate) fn get(&self, pid: u32) -> Option<&Process> {
        self.by_pid.get(&pid).map(|n| &self.all[*n])
    }

    fn descends(&self, process: &Process, ancestor: u32) -> bool {
        let parents = std::iter::successors(Some(process), |p| self.get(p.parent));
        parents.take(64).any(|p| p.pid == ancestor)
    }

    /// Those processes of a container: those of its pid namespace and of those below; with the host's pid namespace,
    /// those of its cgroup, or that descend from its first process or see the same mounts (`exec`).
    pub(crate) fn of_container(
        &self,
        init: u32,
        shares_host_pids: bool,
        cgroup: Option<&str>,
    ) -> Vec<&Process> {
        let members = cgroup.filter(|_| shares_host_pids);
        let members = members.and_then(|c| unroot_cgroup::Cgroup::open(c.as_ref())).map(|c| c.processes());
        let mounts = mount_namespace(init).filter(|_| shares_host_pids && members.is_none());
        let first = self.get(init);
        let depth = first.map_or(1, Process::depth);
        let namespace = first.and_then(Process::pid_namespace);
        let is_member = |p: &&Process| match (shares_host_pids, &members) {
            (true, Some(members)) => members.contains(&p.pid),
            (true, None) => self.descends(p, init) || (mounts.is_some() && mount_namespace(p.pid) == mounts),
            (false, _) => match p.depth() {
                own if own < depth => false,
                own if own == depth => namespace.is_some() && p.pid_namespace() == namespace,
                _ => self.descends(p, init),
            },
        };
        let mut found: Vec<&Process> = self.iter().filter(is_member).collect();
        found.sort_by_key(|p| p.pid);
        found
    }
}

fn mount_namespace(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}
