//! What a container uses: numbers of its control group (the kernel's cgroup-v2.rst), and of its network namespace.

use std::fs;
use std::path::Path;

use unroot_cgroup::{Cgroup, DELEGATION_HINT};
use unroot_monitor::log::now;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::state::State;

/// Numbers of one moment; those of a container that does not run are all zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// When they were read, nanoseconds since the epoch.
    pub time: i64,
    /// When the container started, nanoseconds since the epoch.
    pub started: i64,
    /// CPU time in all, nanoseconds.
    pub cpu: u64,
    /// CPU time in the kernel, nanoseconds.
    pub system: u64,
    /// Memory in use, bytes.
    pub memory: u64,
    /// The least of its limit, those of the groups that it is in and what the host has, bytes.
    pub memory_limit: u64,
    /// Bytes read from and written to block devices.
    pub block: (u64, u64),
    /// Bytes received and sent, but those of the loopback interface.
    pub network: (u64, u64),
    /// Processes and threads.
    pub pids: u64,
}

impl Stats {
    /// The share of one CPU since an earlier moment, or since the start; in percent.
    pub fn cpu_percent(&self, before: Option<&Self>) -> f64 {
        let (time, cpu) = before.map_or((self.started, 0), |b| (b.time, b.cpu));
        match self.time - time {
            ..=0 => 0.0,
            nanos => self.cpu.saturating_sub(cpu) as f64 / nanos as f64 * 100.0,
        }
    }

    /// The share of the memory that it may use, in percent.
    pub fn memory_percent(&self) -> f64 {
        if self.memory_limit == 0 { 0.0 } else { self.memory as f64 / self.memory_limit as f64 * 100.0 }
    }
}

impl Engine {
    /// What a container uses now; none if it does not run.
    pub fn stats(&self, record: &Record) -> Result<Option<Stats>> {
        let state = State::observe(&self.dirs, &record.id)?;
        let Some(run) = state.run.as_ref().filter(|_| state.is_live()) else { return Ok(None) };
        let group = run.cgroup.as_ref().and_then(|path| Cgroup::open(path.as_ref())).ok_or_else(|| {
            Error::engine(format_args!(
                "container {} has no control group of its own, which is what its numbers are read of",
                record.name
            ))
            .with_hint(DELEGATION_HINT)
        })?;
        let mut stats = of_group(&group);
        stats.started = run.started;
        stats.network = network(&format!("/proc/{}/net/dev", run.process.pid));
        Ok(Some(stats))
    }
}

fn of_group(group: &Cgroup) -> Stats {
    let path = group.path();
    let cpu = fs::read_to_string(path.join("cpu.stat")).unwrap_or_default();
    let micros = |name: &str| value_of(&cpu, name).unwrap_or(0) * 1000;
    // (without the controllers the same is known of the processes one by one)
    let processes = || group.processes();
    let memory =
        group.number("memory.current").unwrap_or_else(|| processes().into_iter().map(resident).sum());
    let total = host_memory();
    Stats {
        time: now(),
        cpu: micros("usage_usec"),
        system: micros("system_usec"),
        memory,
        memory_limit: group.least("memory.max").map_or(total, |limit| limit.min(total)),
        block: block(&fs::read_to_string(path.join("io.stat")).unwrap_or_default()),
        pids: group.number("pids.current").unwrap_or_else(|| processes().into_iter().map(threads).sum()),
        ..Stats::default()
    }
}

/// `NAME value` lines.
fn value_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// `8:0 rbytes=1 wbytes=2 ...` a device.
fn block(text: &str) -> (u64, u64) {
    let sum = |name: &str| -> u64 {
        text.split_whitespace().filter_map(|w| w.strip_prefix(name)?.parse::<u64>().ok()).sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

fn network(path: &str) -> (u64, u64) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let interfaces = text.lines().filter_map(|line| line.split_once(':'));
    interfaces.filter(|(name, _)| name.trim() != "lo").fold((0, 0), |(received, sent), (_, numbers)| {
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        (received + numbers.first().unwrap_or(&0), sent + numbers.get(8).unwrap_or(&0))
    })
}

fn status(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:") * 1024
}

fn threads(pid: u32) -> u64 {
    status(pid, "Threads:")
}

fn host_memory() -> u64 {
    let text = fs::read_to_string(Path::new("/proc/meminfo")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_files() {
        assert_eq!(value_of("usage_usec 12\nuser_usec 7\n", "user_usec"), Some(7));
        assert_eq!(block("8:0 rbytes=10 wbytes=5 rios=1\n8:16 rbytes=1 wbytes=2 rios=1\n"), (11, 7));
        let second = 1_000_000_000;
        let first = Stats { time: second, started: 0, cpu: 500_000_000, ..Stats::default() };
        let later = Stats { time: 3 * second, cpu: 1_500_000_000, ..first };
        assert_eq!((first.cpu_percent(None), later.cpu_percent(Some(&first))), (50.0, 50.0));
        let half = Stats { memory: 1, memory_limit: 2, ..Stats::default() };
        assert_eq!((half.memory_percent(), Stats::default().memory_percent()), (50.0, 0.0));
    }
}
