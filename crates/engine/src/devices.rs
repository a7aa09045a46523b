//! Which devices a container may use: those it has, and what `--device-cgroup-rule` adds.
//!
//! Root on the host could open any device whose node it finds or makes. So the root filesystem of a rootful
//! container is mounted without devices unless it may make them, and its control group has a filter of devices. In a
//! rootless container the kernel opens no device but those that are bound into it.

use std::os::fd::BorrowedFd;

use unroot_runtime::spec::{Mount, Spec};
use unroot_sys::bpf::{DeviceRule, MAKE, READ, WRITE, restrict_devices};

use crate::error::{Error, Result};
use crate::spec::ContainerSpec;

/// May be made everywhere, and used: null, zero, full, random, urandom, tty, console, ptmx, pts.
const USUAL: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// `TYPE MAJOR:MINOR ACCESS`, each number may be `*`.
pub fn parse_rule(text: &str) -> Result<DeviceRule> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [kind, numbers, access] = words[..] else {
        return Err(Error::engine(format_args!(
            "invalid device cgroup rule requires type, major:Minor, and access rules: {text:?}"
        )));
    };
    let block = match kind {
        "a" => None,
        "b" => Some(true),
        "c" => Some(false),
        other => {
            return Err(Error::engine(format_args!("invalid device type in device-access-add: {other}")));
        }
    };
    let number = |text: &str| match text {
        "*" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| Error::engine(format_args!("strconv.ParseUint: parsing {text:?}: invalid syntax"))),
    };
    let (major, minor) = numbers.split_once(':').unwrap_or((numbers, "*"));
    Ok(DeviceRule { block, major: number(major)?, minor: number(minor)?, access: access_bits(access)? })
}

fn access_bits(text: &str) -> Result<u8> {
    text.chars().try_fold(0, |bits, c| match c {
        'r' => Ok(bits | READ),
        'w' => Ok(bits | WRITE),
        'm' => Ok(bits | MAKE),
        other => Err(Error::engine(format_args!("invalid device access in device-access-add: {other}"))),
    })
}

/// All that a container may use.
fn rules(asked: &ContainerSpec, planned: &Spec) -> Result<Vec<DeviceRule>> {
    let usual =
        USUAL.map(|(major, minor)| DeviceRule { block: Some(false), major: Some(major), minor, access: 7 });
    let mut all = vec![DeviceRule { block: None, major: None, minor: None, access: MAKE }];
    all.extend(usual);
    for device in &planned.linux.devices {
        let wanted = asked.files.devices.iter().find(|d| d.target.to_string_lossy() == device.path);
        let access = wanted.map_or(Ok(7), |d| access_bits(&d.permissions))?;
        all.push(DeviceRule {
            block: Some(device.kind == "b"),
            major: Some(device.major),
            minor: Some(device.minor),
            access: if access == 0 { 7 } else { access },
        });
    }
    for text in &asked.files.device_cgroup_rules {
        all.push(parse_rule(text)?);
    }
    Ok(all)
}

/// The container may make devices.
pub fn may_make(planned: &Spec) -> bool {
    planned.process.capabilities.bounding.iter().any(|c| c == "CAP_MKNOD")
}

/// A mount of the host's files in which a device is one, though nobody said so.
fn shows_devices(mount: &Mount) -> bool {
    let says = |name: &str| mount.options.iter().any(|o| o == name);
    matches!(mount.kind.as_str(), "bind" | "overlay") && !says("nodev") && !says("dev")
}

/// Where there is no control group for a filter, devices of the host are none in what is mounted from it.
pub fn without_devices(planned: &Spec) -> Spec {
    let mut spec = planned.clone();
    for mount in spec.mounts.iter_mut().filter(|mount| shows_devices(mount)) {
        mount.options.extend(["nodev", "rnodev"].map(String::from));
    }
    spec
}

/// In a rootful container's control group: the filter, before any process is in it.
pub fn restrict(asked: &ContainerSpec, planned: &Spec, cgroup: Option<BorrowedFd<'_>>) -> Result<()> {
    if asked.security.privileged {
        return Ok(());
    }
    let makes = may_make(planned) || !asked.files.device_cgroup_rules.is_empty();
    let needed = makes || planned.mounts.iter().any(shows_devices);
    let done = match cgroup {
        Some(cgroup) => restrict_devices(cgroup, &rules(asked, planned)?).map_err(|e| e.to_string()),
        None => Err("there is no control group of version 2 to attach it to".into()),
    };
    match done {
        Err(why) if makes => Err(Error::engine(format_args!(
            "the container may make devices, and which ones it may use cannot be restricted: {why}"
        ))
        .with_hint("leave CAP_MKNOD out, or use --privileged if it may use all devices of the host")),
        Err(why) if needed => Err(Error::engine(format_args!(
            "the container sees directories of the host, and which devices in them it may use cannot be restricted: {why}"
        ))
        .with_hint("give these mounts the option nodev; or dev, if it may use all devices there")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let rule = parse_rule("b 7:* rmw").unwrap();
        assert_eq!(rule, DeviceRule { block: Some(true), major: Some(7), minor: None, access: 7 });
        assert_eq!(parse_rule("a 7 r").unwrap(), DeviceRule { block: None, access: READ, ..rule });
        for wrong in ["b 7:* rmX", "b 7:2", "x 7:* r", "a a:* r", ""] {
            assert!(parse_rule(wrong).is_err(), "{wrong}");
        }
    }
}
