//! Subordinate ids, and the helpers that apply them.

use unroot_idmap::engine::{cure_of_missing_ranges, cure_of_single_id, helper_problem, no_new_privs};
use unroot_idmap::space::{Space, Weight};
use unroot_idmap::{SubIds, observe};

use super::{Fix, Group, Health};
use crate::engine::Engine;

pub(super) fn look(engine: &Engine) -> Group {
    let mut group = Group::new("ids");
    let user = &engine.user;
    let name = if user.is_rootless() { user.name.as_str() } else { "containers" };
    ranges(&mut group, engine, name);
    let space = Space::read(&[]);
    for finding in space.findings.iter().filter(|f| f.weight == Weight::Error) {
        group.add(finding.id, Health::Warning, &finding.text, "/etc/subuid, /etc/subgid").cure =
            finding.cure.clone();
    }
    if !user.is_rootless() {
        return group;
    }
    for helper in ["newuidmap", "newgidmap"] {
        match helper_problem(helper) {
            None => {
                group.add(helper, Health::Good, format!("{helper} has the privilege that it needs"), helper);
            }
            Some((text, cure, fix)) => {
                let finding = group.add(helper, Health::Broken, text, helper);
                finding.cured_by(cure);
                finding.fix = fix.map(Fix::Run);
            }
        }
    }
    if no_new_privs() {
        group
            .add(
                "no-new-privs",
                Health::Broken,
                "no_new_privs is set on this process, so newuidmap and newgidmap get no privilege",
                "/proc/self/status NoNewPrivs: 1",
            )
            .cured_by(
                "in the systemd unit: NoNewPrivileges=no; else start it without setpriv --no-new-privs",
            );
    }
    nested(&mut group, engine);
    group
}

/// Who has which.
fn ranges(group: &mut Group, engine: &Engine, name: &str) {
    let rootless = engine.user.is_rootless();
    let uid = if rootless { engine.user.uid } else { u32::MAX };
    let subids = match SubIds::of(name, uid) {
        Ok(subids) => subids,
        Err(error) => {
            let cure = error.hint().map(str::to_string);
            group.add("source", Health::Broken, error.to_string(), "/etc/nsswitch.conf subid").cure = cure;
            return;
        }
    };
    let count = |list: &[(u32, u32)]| list.iter().map(|(_, n)| u64::from(*n)).sum::<u64>();
    let (uids, gids) = (count(&subids.uid), count(&subids.gid));
    let evidence = format!("{name}: {uids} user ids, {gids} group ids");
    let program = std::env::current_exe().map_or("unroot".into(), |p| p.display().to_string());
    let allocate = |count: u64| {
        Fix::Run([&program, "ids", "allocate", "-n", &count.to_string(), name].map(String::from).into())
    };
    match (uids.min(gids), rootless) {
        (0, true) => {
            let text = format!(
                "{name} has no subordinate ids: containers have one id only, and images with other owners do not fit"
            );
            let finding = group.add("ranges", Health::Broken, text, evidence);
            finding.cured_by(cure_of_single_id(&engine.user)).fixed_by(allocate(65536));
        }
        (0, false) => {
            let text = "there is no pool for root's --userns=auto";
            let finding = group.add("pool", Health::Note, text, evidence);
            finding.cured_by(cure_of_missing_ranges(name, 1 << 20)).fixed_by(allocate(1 << 20));
        }
        (1..65536, _) => {
            let text =
                format!("{name} has fewer than 65536 subordinate ids: images with nobody's 65534 do not fit");
            group.add("ranges", Health::Warning, text, evidence).fixed_by(allocate(65536));
        }
        _ => {
            group.add("ranges", Health::Good, format!("{name} has enough subordinate ids"), evidence);
        }
    }
}

/// In a container the ranges have to be in its map, too.
fn nested(group: &mut Group, engine: &Engine) {
    let Ok(outer) = observe::maps_of("self") else { return };
    // (in the engine's own namespace there is nothing to be said of what is around it)
    if outer == unroot_idmap::IdMaps::identity() || rustix::process::geteuid().is_root() {
        return;
    }
    let Ok(subids) = SubIds::of(&engine.user.name, engine.user.uid) else { return };
    let shown = outer.uid.ranges();
    let available = unroot_idmap::Ranges::inside(outer.uid.extents());
    let missing = subids.uid.iter().find(|(first, count)| {
        let range = unroot_idmap::Ranges::new([(u64::from(*first), u64::from(*first) + u64::from(*count))]);
        !range.without(&available).is_empty()
    });
    if let Some((first, count)) = missing {
        group
            .add(
                "outer-map",
                Health::Broken,
                format!("the container around this has not the ids {first}-{}, which /etc/subuid gives to {}", first + (count - 1), engine.user.name),
                format!("/proc/self/uid_map: {shown}"),
            )
            .cured_by(format!("in this container, a range of {shown} in /etc/subuid and /etc/subgid; or a larger map outside"));
    }
}
