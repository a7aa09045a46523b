//! Limits: from numbers of the command line to files of the control group; and what the engine itself has.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use unroot_cgroup::Setting;
use unroot_runtime::spec::Device;

use crate::error::{Error, Result};
use crate::spec::Limits;

/// `64m`, `1.5g`, `100` (bytes), `10b`.
pub fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let factor: u64 = match unit {
        "" | "b" => 1,
        "k" | "kb" | "ki" | "kib" => 1 << 10,
        "m" | "mb" | "mi" | "mib" => 1 << 20,
        "g" | "gb" | "gi" | "gib" => 1 << 30,
        "t" | "tb" | "ti" | "tib" => 1 << 40,
        "p" | "pb" => 1 << 50,
        _ => return None,
    };
    match number.parse::<u64>() {
        Ok(number) => number.checked_mul(factor),
        Err(_) => number.parse::<f64>().ok().filter(|n| n.is_finite()).map(|n| (n * factor as f64) as u64),
    }
}

/// A size with units of a thousand, as logs have it: `10m`, `1.5gb`.
pub fn parse_decimal_size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let factor = match text[end..].to_ascii_lowercase().as_str() {
        "" | "b" => 1u64,
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        _ => return None,
    };
    text[..end].parse::<f64>().ok().map(|n| (n * factor as f64).round() as u64)
}

/// What is written to the control group.
pub fn settings(limits: &Limits) -> Result<Vec<Setting>> {
    let mut all = Vec::new();
    let mut set = |file: &str, value: String| all.push(Setting { file: file.into(), value, required: true });
    if let Some(memory) = limits.memory {
        set("memory.max", memory.to_string());
    }
    match (limits.memory_swap, limits.memory) {
        (Some(-1), _) => set("memory.swap.max", "max".into()),
        (Some(total), Some(memory)) => match u64::try_from(total).ok().and_then(|t| t.checked_sub(memory)) {
            Some(swap) => set("memory.swap.max", swap.to_string()),
            None => return Err(Error::engine("minimum memoryswap limit should be larger than memory limit")),
        },
        (Some(_), None) => {
            return Err(Error::engine("you should always set the memory limit when using memoryswap limit"));
        }
        // (as much again, where the kernel counts it)
        (None, Some(memory)) => {
            all.push(Setting { file: "memory.swap.max".into(), value: memory.to_string(), required: false })
        }
        (None, None) => {}
    }
    let mut set = |file: &str, value: String| all.push(Setting { file: file.into(), value, required: true });
    if let Some(low) = limits.memory_reservation {
        set("memory.low", low.to_string());
    }
    if limits.memory_swappiness.is_some_and(|s| s != -1) {
        return Err(Error::engine("--memory-swappiness: cgroup v2 has no such limit"));
    }
    if limits.cpu_rt_period.is_some() || limits.cpu_rt_runtime.is_some() {
        return Err(Error::engine("--cpu-rt-period, --cpu-rt-runtime: cgroup v2 has no such limit"));
    }
    if limits.oom_kill_disable {
        return Err(Error::engine("--oom-kill-disable: cgroup v2 has no such setting"));
    }
    let period = limits.cpu_period.unwrap_or(100_000);
    if let Some(cpus) = limits.cpus {
        set("cpu.max", format!("{} 100000", (cpus * 100_000.0) as u64));
    } else if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
        let quota = limits.cpu_quota.filter(|q| *q > 0).map_or("max".into(), |q| q.to_string());
        set("cpu.max", format!("{quota} {period}"));
    }
    if let Some(shares) = limits.cpu_shares.filter(|s| *s != 0) {
        set("cpu.weight", weight_of_shares(shares).to_string());
    }
    for (file, value) in [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)] {
        if let Some(value) = value {
            set(file, value.clone());
        }
    }
    if let Some(weight) = limits.blkio_weight.filter(|w| *w != 0) {
        set("io.weight", format!("default {}", io_weight(weight.into())));
    }
    for (kind, list) in [
        ("rbps", &limits.device_read_bps),
        ("wbps", &limits.device_write_bps),
        ("riops", &limits.device_read_iops),
        ("wiops", &limits.device_write_iops),
    ] {
        for text in list {
            let (path, rate) = text
                .rsplit_once(':')
                .ok_or_else(|| Error::engine(format_args!("bad format: {text}: it is PATH:RATE")))?;
            let (major, minor) = block_device(path)?;
            let rate = parse_size(rate)
                .ok_or_else(|| Error::engine(format_args!("invalid rate for device: {text}")))?;
            set("io.max", format!("{major}:{minor} {kind}={rate}"));
        }
    }
    for text in &limits.blkio_weight_device {
        let weight = text.rsplit_once(':').and_then(|(path, w)| Some((path, w.parse::<u64>().ok()?)));
        let Some((path, weight @ 10..=1000)) = weight else {
            return Err(Error::engine(format_args!("bad format: {text}: it is PATH:WEIGHT, 10 to 1000")));
        };
        let (major, minor) = block_device(path)?;
        set("io.weight", format!("{major}:{minor} {}", io_weight(weight)));
    }
    for (file, value) in &limits.cgroup_conf {
        set(file, value.clone());
    }
    match limits.pids {
        // (no limit is what there is where none can be had)
        Some(..=0) => all.push(Setting { file: "pids.max".into(), value: "max".into(), required: false }),
        Some(limit) => set("pids.max", limit.to_string()),
        None => all.push(Setting { file: "pids.max".into(), value: "2048".into(), required: false }),
    }
    Ok(all)
}

/// Numbers of a block device.
fn block_device(path: &str) -> Result<(u32, u32)> {
    use std::os::unix::fs::FileTypeExt as _;
    let meta = fs::metadata(path)
        .map_err(|e| Error::engine(format_args!("stat {path}: {}", crate::plan::reason(&e))))?;
    match meta.file_type().is_block_device() {
        true => Ok((rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()))),
        false => Err(Error::engine(format_args!("{path}: not a block device"))),
    }
}

/// A weight of version 1, 10 to 1000, as one of version 2.
fn io_weight(weight: u64) -> u64 {
    1 + weight.saturating_sub(10) * 9999 / 990
}

/// Shares of version 1 as a weight (runtime-spec's formula).
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Resource limits of this process: name, soft, hard.
pub fn host_rlimits() -> Vec<(String, u64, u64)> {
    use rustix::process::{Resource, getrlimit};
    [("nofile", Resource::Nofile), ("nproc", Resource::Nproc)]
        .into_iter()
        .map(|(name, resource)| {
            let limit = getrlimit(resource);
            (name.to_string(), limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX))
        })
        .collect()
}

/// Capabilities that a container may get: all of a new user namespace, else what this process has.
pub fn own_capabilities(in_user_namespace: bool) -> u64 {
    let last: u32 = unroot_sys::path::read_proc("/proc/sys/kernel/cap_last_cap")
        .ok()
        .and_then(|t| t.trim().parse().ok())
        .unwrap_or(40);
    let all = (1 << (last + 1)) - 1;
    match in_user_namespace {
        true => all,
        false => rustix::thread::capabilities(None).map_or(all, |sets| sets.permitted.bits()),
    }
}

/// `thermal_throttle` of each CPU, where they have one.
pub fn thermal_throttles() -> Vec<String> {
    const CPUS: &str = "/sys/devices/system/cpu";
    if !Path::new(CPUS).join("cpu0/thermal_throttle").exists() {
        return Vec::new();
    }
    let names =
        fs::read_dir(CPUS).into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
    let cpus = names.filter(|n| n.strip_prefix("cpu").is_some_and(|n| n.parse::<u32>().is_ok()));
    cpus.map(|cpu| format!("{CPUS}/{cpu}/thermal_throttle")).collect()
}

/// The host's devices, for `--privileged`: a user's not its terminals, nobody's what a container has of its own.
pub fn host_devices(rootless: bool) -> Vec<Device> {
    let own = [
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "console",
        "ptmx",
        "pts",
        "shm",
        "mqueue",
        "fd",
        "stdin",
        "stdout",
        "stderr",
        "core",
        ".lxc",
        ".lxd-mounts",
        "termination-log",
    ];
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let wanted = entries.filter(|e| {
        let name = e.file_name().to_string_lossy().into_owned();
        let is_terminal = name.strip_prefix("tty").is_some_and(|n| n.chars().all(|c| c.is_ascii_digit()));
        let is_link = e.file_type().is_ok_and(|t| t.is_symlink());
        let hidden = is_link || (is_terminal && rootless) || own.contains(&name.as_str());
        !hidden
    });
    wanted.filter_map(|e| crate::plan::device_of(&e.path(), &e.path()).ok()).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, size) in [("64m", 64 << 20), ("10b", 10), ("1.5k", 1536), ("7", 7), ("1G", 1 << 30)] {
            assert_eq!(parse_size(text), Some(size), "{text}");
        }
        for text in ["", "64x", "m", "-1", "1e5q"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn files() {
        let limits = Limits {
            memory: Some(100),
            memory_swap: Some(150),
            cpus: Some(0.5),
            pids: Some(-1),
            ..Limits::default()
        };
        let texts: Vec<String> =
            settings(&limits).unwrap().iter().map(|s| format!("{}={}", s.file, s.value)).collect();
        assert_eq!(texts, ["memory.max=100", "memory.swap.max=50", "cpu.max=50000 100000", "pids.max=max"]);
        assert!(settings(&Limits { memory_swap: Some(1), memory: Some(2), ..Limits::default() }).is_err());
        assert_eq!(weight_of_shares(1024), 39);
    }
}
