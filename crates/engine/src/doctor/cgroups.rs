//! Control groups: whether limits can be had.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Fix, Group, Health};
use crate::engine::Engine;

const DROP_IN: &str = "/etc/systemd/system/user@.service.d/delegate.conf";

pub(super) fn look(engine: &Engine) -> Group {
    let mut group = Group::new("cgroups");
    let pure = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !pure {
        group
            .add(
                "version",
                Health::Warning,
                "control groups of version 2 are not all there are: limits do not work, all else does",
                "/sys/fs/cgroup/cgroup.controllers is not there",
            )
            .cured_by("boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line");
        return group;
    }
    group.add(
        "version",
        Health::Good,
        "control groups are of version 2",
        "/sys/fs/cgroup/cgroup.controllers",
    );
    let Some(file) = controllers_file(engine) else { return group };
    let text = fs::read_to_string(&file).unwrap_or_default();
    let missing = missing(&text);
    let evidence = format!("{}: {}", file.display(), text.trim());
    if missing.is_empty() {
        group.add(
            "controllers",
            Health::Good,
            "limits of memory, processors and processes can be had",
            evidence,
        );
        return group;
    }
    let text = format!(
        "limits by {} cannot be had: the controllers are not delegated to {}",
        missing.join(", "),
        engine.user.name
    );
    let finding = group.add("controllers", Health::Warning, text, evidence);
    match Path::new("/run/systemd/system").exists() && engine.user.is_rootless() {
        true => {
            let drop_in = "[Service]\nDelegate=cpu cpuset io memory pids\n".to_string();
            let reload = ["systemctl", "daemon-reload"].map(String::from).into();
            finding.fixed_by(Fix::File(DROP_IN.into(), drop_in, reload));
        }
        false => {
            finding.cured_by(format!(
                "as root: a group for {} with these controllers in its parent's cgroup.subtree_control; see cgroups(7)",
                engine.user.name
            ));
        }
    }
    group
}

/// What the user's containers may have: with systemd what its manager has, else what this process's group has.
fn controllers_file(engine: &Engine) -> Option<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let uid = engine.user.uid;
    let manager = base.join(format!("user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers"));
    if engine.user.is_rootless() && manager.exists() {
        return Some(manager);
    }
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|l| l.strip_prefix("0::"))?;
    Some(base.join(path.trim_start_matches('/')).join("cgroup.controllers"))
}

fn missing(controllers: &str) -> Vec<&'static str> {
    let has: Vec<&str> = controllers.split_whitespace().collect();
    ["cpu", "memory", "pids"].into_iter().filter(|c| !has.contains(c)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_not_delegated() {
        assert_eq!(super::missing("memory pids\n"), ["cpu"]);
        assert!(super::missing("cpuset cpu io memory pids").is_empty());
    }
}
