//! Who did it: what the kernel knows of the process that runs the command, none of which it can change itself.

use serde::{Deserialize, Serialize};

/// Whoever caused an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Who {
    /// Their id on the host: the real user of the command.
    pub uid: u32,
    /// The host's name for it.
    pub user: String,
    /// The id that they logged in with, which su and sudo keep; none where the kernel was not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// The terminal of the command.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tty: String,
    /// The service, or the scope of the session, that the command is in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// The command's process.
    pub pid: u32,
    /// It happened by itself: told by the monitor of a container that they started.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub monitor: bool,
}

impl Who {
    /// This process's; ids are those of the namespace that it is in now.
    pub fn of_this_process(uid: u32, user: &str) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            uid,
            user: user.into(),
            // (inside of a user namespace it would be a number of that)
            login_uid: (read("/proc/self/uid_map").split_whitespace().eq(["0", "0", "4294967295"]))
                .then(|| read("/proc/self/loginuid").trim().parse().ok())
                .flatten()
                .filter(|id| *id != u32::MAX),
            tty: terminal(),
            unit: unit_of(&read("/proc/self/cgroup")),
            pid: std::process::id(),
            monitor: false,
        }
    }
}

fn terminal() -> String {
    let names = (0..3).filter_map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok());
    names
        .filter_map(|path| path.to_str()?.strip_prefix("/dev/").map(str::to_string))
        .find(|name| name.starts_with("pts/") || name.starts_with("tty"))
        .unwrap_or_default()
}

/// The last unit in the path of a control group.
fn unit_of(cgroups: &str) -> String {
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    paths.filter_map(|path| path.rsplit('/').find(is_unit)).next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn units() {
        for (cgroup, unit) in [
            ("0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"),
            ("0::/system.slice/web.service/inner\n", "web.service"),
            ("1:name=systemd:/x.service\n0::/\n", "x.service"),
            ("0::/\n", ""),
        ] {
            assert_eq!(super::unit_of(cgroup), unit);
        }
    }
}
