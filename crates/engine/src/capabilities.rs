//! Which capabilities a process gets: the default set, `--cap-add`, `--cap-drop`, `--privileged`.

use unroot_runtime::spec::Capabilities;
use unroot_sys::capability;

use crate::error::{Error, Result};
use crate::spec::Security;

/// What containers get unless they ask for other ones.
pub const DEFAULT: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// `net_raw` or `CAP_NET_RAW` as `NET_RAW`.
fn normal(name: &str) -> Result<String> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    match short == "ALL" || capability::NAMES.contains(&short) {
        true => Ok(short.to_string()),
        false => Err(Error::engine(format_args!(
            "unknown capability {name:?} to add or drop: see capabilities(7)"
        ))),
    }
}

/// The sets of a process; `last` is the highest capability that the kernel has, `available` what the engine has.
pub fn sets(security: &Security, privileged: bool, uid: u32, available: u64) -> Result<Capabilities> {
    let (add, drop) = (&security.cap_add, &security.cap_drop);
    let privileged = privileged || security.privileged;
    let add = add.iter().map(|n| normal(n)).collect::<Result<Vec<_>>>()?;
    let drop = drop.iter().map(|n| normal(n)).collect::<Result<Vec<_>>>()?;
    if let Some(both) = add.iter().find(|name| *name != "ALL" && drop.contains(name)) {
        return Err(Error::engine(format_args!("capability \"CAP_{both}\" cannot be dropped and added")));
    }
    let all = || {
        capability::NAMES
            .iter()
            .enumerate()
            .filter(|(n, _)| available & (1 << n) != 0)
            .map(|(_, name)| name.to_string())
    };
    let adds_all = add.iter().any(|n| n == "ALL");
    let mut bounding: Vec<String> = match (privileged || adds_all, drop.iter().any(|n| n == "ALL")) {
        (_, true) if adds_all => {
            return Err(Error::engine("adding all caps and dropping all caps not allowed"));
        }
        (_, true) => Vec::new(),
        (true, false) => all().collect(),
        (false, false) => match &security.default_capabilities {
            Some(names) => names.iter().map(|n| normal(n)).collect::<Result<_>>()?,
            None => DEFAULT.iter().map(|n| n.to_string()).collect(),
        },
    };
    bounding.retain(|name| !drop.contains(name));
    for name in add.iter().filter(|n| *n != "ALL") {
        if !bounding.contains(name) {
            bounding.push(name.clone());
        }
    }
    bounding.retain(|name| all().any(|known| known == *name));
    let named = |names: &[String]| names.iter().map(|n| format!("CAP_{n}")).collect::<Vec<_>>();
    let bounding_named = named(&bounding);
    if uid == 0 {
        let effective = bounding_named.clone();
        return Ok(Capabilities {
            bounding: bounding_named,
            permitted: effective.clone(),
            effective,
            ..Capabilities::default()
        });
    }
    // an ordinary user keeps what was added by name, over execve too
    let own = match adds_all {
        true => bounding_named.clone(),
        false => named(&add.into_iter().filter(|n| bounding.contains(n)).collect::<Vec<_>>()),
    };
    Ok(Capabilities {
        bounding: bounding_named,
        effective: own.clone(),
        permitted: own.clone(),
        inheritable: own.clone(),
        ambient: own,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effective(add: &[&str], drop: &[&str], uid: u32) -> Vec<String> {
        let list = |names: &[&str]| names.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let security = Security { cap_add: list(add), cap_drop: list(drop), ..Security::default() };
        sets(&security, false, uid, (1 << 41) - 1).unwrap().effective
    }

    #[test]
    fn choices() {
        assert_eq!(effective(&[], &[], 0).len(), 11);
        assert_eq!(effective(&["net_raw"], &["all"], 0), ["CAP_NET_RAW"]);
        assert_eq!(effective(&[], &["CAP_CHOWN"], 0).len(), 10);
        assert_eq!(effective(&["all"], &["chown"], 0).len(), 40);
        assert_eq!(effective(&[], &[], 5), [""; 0]);
        assert_eq!(effective(&["net_raw"], &[], 5), ["CAP_NET_RAW"]);
        let refused = |add: &str, drop: &str| {
            let (cap_add, cap_drop) = (vec![add.to_string()], vec![drop.to_string()]);
            sets(&Security { cap_add, cap_drop, ..Security::default() }, false, 0, 1).is_err()
        };
        assert!(refused("nosuch", "chown") && refused("chown", "chown"));
        let fewer = Security { default_capabilities: Some(vec!["CAP_KILL".into()]), ..Security::default() };
        assert_eq!(sets(&fewer, false, 0, (1 << 41) - 1).unwrap().effective, ["CAP_KILL"]);
    }
}
