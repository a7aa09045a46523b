//! Namespaces, and the gates before them: settings of the kernel, security modules, filters of what is around this.

use unroot_idmap::engine::apparmor_profile;
use unroot_sys::ns::unshare;
use unroot_sys::process::Namespace;

use super::{Fix, Group, Health, probe, sysctl};
use crate::engine::Engine;

pub(super) fn look(engine: &Engine) -> Group {
    let mut group = Group::new("namespaces");
    let user = probe(|| unshare([Namespace::User].into_iter().collect()));
    let rootless = engine.user.is_rootless();
    gates(&mut group, &Gates::read(), user.is_ok());
    match user {
        Ok(()) => {
            group.add("user", Health::Good, "user namespaces can be made", "unshare(CLONE_NEWUSER)");
        }
        Err(errno) if group.found.iter().all(|f| f.health < Health::Broken) => {
            let text = "no setting forbids user namespaces, but they cannot be made: a seccomp filter of a container or a hardened unit around this may";
            let health = if rootless { Health::Broken } else { Health::Warning };
            group
                .add("user", health, text, format!("unshare(CLONE_NEWUSER): {errno}; {}", filters()))
                .cured_by("in a container: --security-opt seccomp=unconfined, or a profile that allows unshare and clone; in a unit: RestrictNamespaces=no");
        }
        Err(_) => {}
    }
    for (kind, name) in [
        ("mnt", "mount"),
        ("pid", "pid"),
        ("net", "network"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("cgroup", "cgroup"),
    ] {
        let setting = format!("user.max_{kind}_namespaces");
        if sysctl(&setting).as_deref() == Some("0") {
            let text = format!("{name} namespaces cannot be made");
            group
                .add(kind, Health::Broken, text, format!("{setting}=0"))
                .fixed_by(Fix::Sysctl(setting, "15000".into()));
        }
    }
    masked_proc(&mut group);
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match kernel >= (5, 14) {
        true => group.add("kernel", Health::Good, "the kernel is new enough", release),
        false => group
            .add("kernel", Health::Broken, "the kernel is too old: containers need Linux 5.14", release)
            .cured_by("a newer kernel"),
    };
    group
}

fn filters() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let count =
        status.lines().find_map(|l| l.strip_prefix("Seccomp_filters:")).unwrap_or(" ?").trim().to_string();
    format!("{count} seccomp filters on this process")
}

/// What decides whether an ordinary user may make a user namespace.
#[derive(Debug, Default)]
struct Gates {
    most: Option<String>,
    clone: Option<String>,
    apparmor: Option<String>,
    label: String,
    program: String,
}

impl Gates {
    fn read() -> Self {
        let label = std::fs::read_to_string("/proc/self/attr/apparmor/current")
            .or_else(|_| std::fs::read_to_string("/proc/self/attr/current"));
        Self {
            most: sysctl("user.max_user_namespaces"),
            clone: sysctl("kernel.unprivileged_userns_clone"),
            apparmor: sysctl("kernel.apparmor_restrict_unprivileged_userns"),
            label: label.unwrap_or_default().trim_matches(['\0', '\n']).to_string(),
            program: std::env::current_exe().map_or("unroot".into(), |p| p.display().to_string()),
        }
    }
}

fn gates(group: &mut Group, gates: &Gates, works: bool) {
    if gates.most.as_deref() == Some("0") {
        group
            .add(
                "max-user-namespaces",
                Health::Broken,
                "user namespaces are forbidden",
                "user.max_user_namespaces=0",
            )
            .fixed_by(Fix::Sysctl("user.max_user_namespaces".into(), "15000".into()));
    }
    if gates.clone.as_deref() == Some("0") {
        let health = if works { Health::Note } else { Health::Broken };
        group
            .add(
                "userns-clone",
                health,
                "ordinary users may not make user namespaces",
                "kernel.unprivileged_userns_clone=0",
            )
            .fixed_by(Fix::Sysctl("kernel.unprivileged_userns_clone".into(), "1".into()));
    }
    // (with a profile that allows it the label is that profile's)
    if gates.apparmor.as_deref() == Some("1")
        && (gates.label.is_empty() || gates.label.starts_with("unconfined"))
    {
        let health = if works { Health::Note } else { Health::Broken };
        let profile = apparmor_profile(&gates.program);
        let path = "/etc/apparmor.d/unroot";
        let load = ["apparmor_parser", "-r", path].map(String::from).into();
        group
            .add(
                "apparmor",
                health,
                format!(
                    "AppArmor takes a user namespace's rights from programs without a profile, as {} is",
                    gates.program
                ),
                "kernel.apparmor_restrict_unprivileged_userns=1",
            )
            .fixed_by(Fix::File(path.into(), profile, load));
    }
}

/// A new /proc may not show more than the one that is there (the kernel's mount_too_revealing).
fn masked_proc(group: &mut Group) {
    let mounted = unroot_sys::mountinfo::of("self").unwrap_or_default();
    let masks: Vec<String> = mounted
        .iter()
        .filter(|m| {
            m.target
                .strip_prefix("/proc/")
                .is_ok_and(|rest| !rest.as_os_str().is_empty() && !rest.starts_with("sys/fs/binfmt_misc"))
        })
        .map(|m| m.target.display().to_string())
        .collect();
    if let [first, ..] = &masks[..] {
        group
            .add(
                "proc",
                Health::Broken,
                "parts of /proc are masked here, as in a container: a container in it cannot have a /proc of its own",
                format!("{first} and {} more are mounted over", masks.len() - 1),
            )
            .cured_by("run what is around this with --security-opt unmask=/proc/*; or here: --pid=host -v /proc:/proc");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(gate: Gates, works: bool) -> Vec<(String, Health)> {
        let mut group = Group::new("namespaces");
        gates(&mut group, &gate, works);
        group.found.iter().map(|f| (f.id.clone(), f.health)).collect()
    }

    #[test]
    fn each_gate_is_named() {
        let one = |text: &str| Some(text.to_string());
        assert_eq!(
            judged(Gates { most: one("0"), ..Gates::default() }, false),
            [("max-user-namespaces".into(), Health::Broken)]
        );
        assert_eq!(
            judged(Gates { clone: one("0"), ..Gates::default() }, false),
            [("userns-clone".into(), Health::Broken)]
        );
        let ubuntu = |label: &str| Gates {
            apparmor: one("1"),
            label: label.into(),
            program: "/home/u/unroot".into(),
            ..Gates::default()
        };
        assert_eq!(judged(ubuntu("unconfined"), false), [("apparmor".into(), Health::Broken)]);
        assert_eq!(judged(ubuntu("unroot (unconfined)"), true), []);
        let mut group = Group::new("namespaces");
        gates(&mut group, &ubuntu("unconfined"), false);
        let cure = group.found[0].cure.clone().unwrap();
        assert!(
            cure.contains("profile unroot /home/u/unroot flags=(unconfined)")
                && cure.contains("apparmor_parser -r"),
            "{cure}"
        );
        assert_eq!(
            judged(
                Gates { most: one("1000"), clone: one("1"), apparmor: one("0"), ..Gates::default() },
                true
            ),
            []
        );
    }
}
