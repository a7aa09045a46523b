//! Networks: the helper that moves packets, ports below 1024, ping.

use std::os::unix::fs::PermissionsExt as _;

use unroot_idmap::engine::planned_maps;
use unroot_sys::path::find_program;

use super::{Fix, Group, Health, sysctl};
use crate::engine::Engine;

pub(super) fn look(engine: &Engine) -> Group {
    let mut group = Group::new("network");
    match find_program("pasta") {
        Some(path) => {
            group.add("pasta", Health::Good, "pasta is there", path.display().to_string());
        }
        None => {
            group
                .add(
                    "pasta",
                    Health::Broken,
                    "pasta is not installed: containers have no network but none and host",
                    "PATH",
                )
                .cured_by("install passt (Debian, Ubuntu: apt install passt; Fedora: dnf install passt)");
        }
    }
    tun(&mut group);
    super::listeners::look(&mut group, engine);
    if !engine.user.is_rootless() {
        return group;
    }
    if let Some(first) = sysctl("net.ipv4.ip_unprivileged_port_start").and_then(|v| v.parse().ok()) {
        ports(&mut group, first);
    }
    if let Some(range) = sysctl("net.ipv4.ping_group_range") {
        let gids = planned_maps(&engine.user)
            .map(|m| m.gid.extents().iter().map(|e| (e.outside, e.outside + (e.length - 1))).collect());
        ping(&mut group, &range, &gids.unwrap_or_else(|_| vec![(engine.user.gid, engine.user.gid)]));
    }
    group
}

fn tun(group: &mut Group) {
    let path = "/dev/net/tun";
    match std::fs::metadata(path) {
        Err(e) => {
            group
                .add(
                    "tun",
                    Health::Broken,
                    "there is no /dev/net/tun, which pasta needs",
                    format!("stat {path}: {e}"),
                )
                .cured_by("as root: modprobe tun; in a container: --device /dev/net/tun");
        }
        Ok(meta) if meta.permissions().mode() & 0o006 != 0o006 && !rustix::process::geteuid().is_root() => {
            let mode = format!("{:o}", meta.permissions().mode() & 0o777);
            group
                .add(
                    "tun",
                    Health::Broken,
                    "/dev/net/tun may not be opened by this user",
                    format!("mode {mode}"),
                )
                .fixed_by(Fix::Run(["chmod", "666", path].map(String::from).into()));
        }
        Ok(_) => {
            group.add("tun", Health::Good, "/dev/net/tun can be opened", path);
        }
    }
}

fn ports(group: &mut Group, first: u32) {
    if first <= 80 {
        group.add(
            "ports",
            Health::Good,
            "the web's ports can be published",
            format!("net.ipv4.ip_unprivileged_port_start={first}"),
        );
        return;
    }
    group
        .add(
            "ports",
            Health::Note,
            format!("ports below {first} cannot be published by an ordinary user"),
            format!("net.ipv4.ip_unprivileged_port_start={first}"),
        )
        .fixed_by(Fix::Sysctl("net.ipv4.ip_unprivileged_port_start".into(), "80".into()));
}

/// ping(8) without privileges opens a socket that the kernel gives to groups of a range: those that containers have.
fn ping(group: &mut Group, range: &str, gids: &[(u32, u32)]) {
    let mut bounds = range.split_whitespace().filter_map(|n| n.parse::<u64>().ok());
    let (Some(low), Some(high)) = (bounds.next(), bounds.next()) else { return };
    let inside = gids.iter().all(|(first, last)| u64::from(*first) >= low && u64::from(*last) <= high);
    let evidence = format!("net.ipv4.ping_group_range={low} {high}");
    if inside {
        group.add("ping", Health::Good, "ping works in containers", evidence);
        return;
    }
    let needed = gids.iter().fold((u32::MAX, 0), |(a, b), (first, last)| (a.min(*first), b.max(*last)));
    let text = format!(
        "ping does not work for all groups in containers, which are {}-{} on the host",
        needed.0, needed.1
    );
    group
        .add("ping", Health::Note, text, evidence)
        .fixed_by(Fix::Sysctl("net.ipv4.ping_group_range".into(), "0 2147483647".into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_judged() {
        let health = |act: &dyn Fn(&mut Group)| {
            let mut group = Group::new("network");
            act(&mut group);
            (group.found[0].health, group.found[0].text.clone())
        };
        assert_eq!(health(&|g| ports(g, 1024)).0, Health::Note);
        assert_eq!(health(&|g| ports(g, 80)).0, Health::Good);
        let gids = [(1000, 1000), (100_000, 165_535)];
        assert_eq!(health(&|g| ping(g, "0 2147483647", &gids)).0, Health::Good);
        let (bad, text) = health(&|g| ping(g, "1\t0", &gids));
        assert!(bad == Health::Note && text.contains("1000-165535"), "{text}");
    }
}
