//! `doctor`: what on this host keeps containers from working, or will, each with its cause, what was read, and the command
//! that cures it. The same is asked when a command has failed in a way that one of the groups knows: then only what
//! matters is said, as the error's hint.
//!
//! A group is a function that looks and says what it found; what it decides by is a pure function of what was read.

mod cgroups;
mod ids;
mod listeners;
mod namespaces;
mod network;
mod registries;
mod session;
mod storage;

use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Good,
    /// To know.
    Note,
    /// It could not be looked at.
    Unknown,
    /// Something that users want will not work.
    Warning,
    /// Containers do not work.
    Broken,
}

/// Something to be written or run by root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fix {
    /// A setting of the kernel, now and after the next boot.
    Sysctl(String, String),
    /// A file and what is in it, and what is run then.
    File(PathBuf, String, Vec<String>),
    /// A program with arguments.
    Run(Vec<String>),
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// `ids`, `namespaces`, `storage`, `cgroups`, `network`, `session`, `registries`.
    pub group: String,
    /// `apparmor`
    pub id: String,
    /// How it is.
    pub health: Health,
    /// What that means.
    pub text: String,
    /// What was read.
    pub evidence: String,
    /// What cures it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cure: Option<String>,
    /// The same for root to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fix: Option<Fix>,
}

/// Findings of one group.
pub(crate) struct Group {
    name: &'static str,
    found: Vec<Finding>,
}

impl Group {
    fn new(name: &'static str) -> Self {
        Self { name, found: Vec::new() }
    }

    fn add(
        &mut self,
        id: &str,
        health: Health,
        text: impl Into<String>,
        evidence: impl Into<String>,
    ) -> &mut Finding {
        self.found.push(Finding {
            group: self.name.into(),
            id: id.into(),
            health,
            text: text.into(),
            evidence: evidence.into(),
            cure: None,
            fix: None,
        });
        let last = self.found.len() - 1;
        &mut self.found[last]
    }
}

impl Finding {
    fn cured_by(&mut self, cure: impl Into<String>) -> &mut Self {
        self.cure = Some(cure.into());
        self
    }

    fn fixed_by(&mut self, fix: Fix) -> &mut Self {
        self.cure.get_or_insert_with(|| format!("as root: {}", fix.text()));
        self.fix = Some(fix);
        self
    }
}

impl Fix {
    /// As a command line.
    pub fn text(&self) -> String {
        match self {
            Fix::Sysctl(name, value) => {
                let setting = match value.contains(' ') {
                    true => format!("'{name}={value}'"),
                    false => format!("{name}={value}"),
                };
                format!("sysctl -w {setting} && echo {setting} >>{SYSCTL_FILE}")
            }
            Fix::File(path, text, then) => {
                let escaped = text.replace('\\', "\\\\").replace('\n', "\\n").replace('\'', "'\\''");
                let then = if then.is_empty() { String::new() } else { format!(" && {}", then.join(" ")) };
                let dir = path.parent().unwrap_or(path).display();
                format!("mkdir -p {dir} && printf '{escaped}' >{}{then}", path.display())
            }
            Fix::Run(words) => words.join(" "),
        }
    }

    /// Does it; as root.
    pub fn apply(&self) -> Result<()> {
        let run = |words: &[String]| -> Result<()> {
            let [program, rest @ ..] = words else { return Ok(()) };
            let status = Command::new(program).args(rest).status().context(|| format!("exec {program}"))?;
            match status.success() {
                true => Ok(()),
                false => Err(Error::engine(format_args!("{}: {status}", words.join(" ")))),
            }
        };
        match self {
            Fix::Sysctl(name, value) => {
                let path = format!("/proc/sys/{}", name.replace('.', "/"));
                std::fs::write(&path, value).context(|| format!("write {value} to {path}"))?;
                let kept = std::fs::read_to_string(SYSCTL_FILE).unwrap_or_default();
                let others = kept.lines().filter(|l| !l.starts_with(&format!("{name}=")));
                let text: String = others.map(|l| format!("{l}\n")).collect();
                std::fs::write(SYSCTL_FILE, format!("{text}{name}={value}\n"))
                    .context(|| format!("write {SYSCTL_FILE}"))
            }
            Fix::File(path, text, then) => {
                let dir = path.parent().unwrap_or(path);
                std::fs::create_dir_all(dir).context(|| format!("mkdir {}", dir.display()))?;
                std::fs::write(path, text).context(|| format!("write {}", path.display()))?;
                run(then)
            }
            Fix::Run(words) => run(words),
        }
    }
}

const SYSCTL_FILE: &str = "/etc/sysctl.d/60-unroot.conf";

/// The groups, and the words of errors that each knows.
type Look = fn(&Engine) -> Group;
const GROUPS: [(Look, &[&str]); 7] = [
    (
        ids::look,
        &["uid_map", "gid_map", "newuidmap", "newgidmap", "the id map", "has no id on the host", "chown to"],
    ),
    (namespaces::look, &["user namespace", "unshare(", "clone3(", "mount(\"proc\"", "fsopen(\"proc\""]),
    (
        storage::look,
        &[
            "(\"overlay\"",
            "(overlay,",
            "user attributes",
            "setxattr",
            "No space left",
            "Read-only file system",
            "Disk quota",
            "rename layer",
        ],
    ),
    (cgroups::look, &["the limit ", "/sys/fs/cgroup"]),
    (network::look, &["pasta", "/dev/net/tun", "network namespace"]),
    (session::look, &["/run/user/", "runtime directory", "XDG_RUNTIME_DIR"]),
    (registries::look, &["registries.conf", "auth.json", "credential"]),
];

/// Everything that is found. The engine's namespace is not entered.
pub fn examine(engine: &Engine) -> Vec<Finding> {
    GROUPS.iter().flat_map(|(look, _)| look(engine).found).collect()
}

/// Why a command failed with this text, as far as a group knows: what is broken, and its cure.
pub fn reason_of(engine: &Engine, error: &str) -> Option<String> {
    let groups = GROUPS.iter().filter(|(_, words)| words.iter().any(|word| error.contains(word)));
    let found = groups.flat_map(|(look, _)| look(engine).found);
    let worst = found.filter(|f| f.health >= Health::Warning && f.cure.is_some()).max_by_key(|f| f.health)?;
    Some(format!("{} ({}); {}", worst.text, worst.evidence, worst.cure.unwrap_or_default()))
}

/// A setting of the kernel.
fn sysctl(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(text.trim().to_string())
}

/// What a child process says of something that changes it.
fn probe(
    act: impl FnOnce() -> std::result::Result<(), unroot_sys::SyscallError>,
) -> std::result::Result<(), rustix::io::Errno> {
    use std::os::fd::AsFd as _;
    use unroot_sys::process::{Fork, assert_single_threaded, exit_now, fork};
    match assert_single_threaded().and_then(|()| fork()) {
        Err(e) => Err(e.errno),
        Ok(Fork::Child) => match act() {
            Ok(()) => exit_now(0),
            Err(e) => exit_now(e.errno.raw_os_error().clamp(1, 254)),
        },
        Ok(Fork::Parent(child)) => {
            let options = rustix::process::WaitIdOptions::EXITED;
            let ended = rustix::process::waitid(rustix::process::WaitId::PidFd(child.pidfd.as_fd()), options);
            match ended.ok().flatten().and_then(|s| s.exit_status()) {
                Some(0) => Ok(()),
                Some(errno) => Err(rustix::io::Errno::from_raw_os_error(errno)),
                None => Err(rustix::io::Errno::IO),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fix_is_a_command_too() {
        let fix = Fix::Sysctl("net.ipv4.ip_unprivileged_port_start".into(), "80".into());
        assert_eq!(
            fix.text(),
            "sysctl -w net.ipv4.ip_unprivileged_port_start=80 && echo net.ipv4.ip_unprivileged_port_start=80 >>/etc/sysctl.d/60-unroot.conf"
        );
        let fix = Fix::File("/etc/x/y".into(), "a\nb'\n".into(), vec!["true".into()]);
        assert_eq!(fix.text(), "mkdir -p /etc/x && printf 'a\\nb'\\''\\n' >/etc/x/y && true");
    }
}
