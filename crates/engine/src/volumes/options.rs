//! `volume create --opt`: what the local driver knows.

use std::path::Path;

use unroot_store::Volume;

use crate::error::{Error, Result};
use crate::plan::reason;

/// Takes the options in.
pub fn parse(volume: &mut Volume, options: &[String]) -> Result<()> {
    for text in options {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        match key {
            "type" | "device" | "copy" | "nocopy" => drop(volume.options.insert(key.into(), value.into())),
            "o" => parse_o(volume, value)?,
            "uid" | "gid" => parse_o(volume, text)?,
            _ => {
                return Err(Error::engine(format_args!(
                    "invalid mount option {key} for driver 'local': invalid argument"
                )));
            }
        }
    }
    check(volume)
}

/// `o=uid=1000,size=2m,nodev`
fn parse_o(volume: &mut Volume, text: &str) -> Result<()> {
    for option in text.split(',').filter(|o| !o.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let id = || {
            value.parse::<u32>().map_err(|_| {
                Error::engine(format_args!(
                    "cannot convert {} {value:?} to integer: invalid argument",
                    key.to_uppercase()
                ))
            })
        };
        match key {
            "uid" => volume.uid = Some(id()?),
            "gid" => volume.gid = Some(id()?),
            "nocopy" | "copy" => drop(volume.options.insert(key.into(), String::new())),
            _ => {}
        }
    }
    let all = volume.options.entry("o".into()).or_default();
    *all = [all.as_str(), text].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(",");
    Ok(())
}

fn check(volume: &Volume) -> Result<()> {
    let device = volume.device();
    match volume.kind() {
        None => {
            if let Some(option) = volume.mount_options().iter().find(|o| is_bound(o)) {
                return Err(Error::engine(format_args!(
                    "volume {}: {option}: a bound for a plain volume needs project quotas, which are not there yet",
                    volume.name
                ))
                .with_hint("-o type=tmpfs bounds one in memory"));
            }
            Ok(())
        }
        Some("bind") => match Path::new(device).metadata() {
            _ if device.is_empty() => {
                Err(Error::engine("type=bind needs a device: -o device=DIRECTORY: invalid argument"))
            }
            Ok(_) => Ok(()),
            Err(e) => Err(Error::engine(format_args!(
                "invalid volume option device for driver 'local': faccessat {device}: {}",
                reason(&e)
            ))),
        },
        _ => Ok(()),
    }
}

/// It bounds the size of a plain volume.
fn is_bound(option: &str) -> bool {
    option.starts_with("size=") || option.starts_with("inodes=")
}

/// What of `o` is for the mount.
pub fn of_mount(volume: &Volume) -> Vec<String> {
    let own = |o: &String| {
        matches!(o.as_str(), "nocopy" | "copy" | "noquota" | "bind" | "rbind") || o.starts_with("timeout=")
    };
    let is_tmpfs = volume.kind() == Some("tmpfs");
    let owner = |o: &String| o.starts_with("uid=") || o.starts_with("gid=");
    volume.mount_options().into_iter().filter(|o| !own(o) && (is_tmpfs || !owner(o))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> std::result::Result<Volume, String> {
        let mut volume = Volume { name: "v".into(), ..Volume::default() };
        let options: Vec<String> = options.iter().map(|o| o.to_string()).collect();
        parse(&mut volume, &options).map(|()| volume).map_err(|e| e.to_string())
    }

    #[test]
    fn options() {
        let volume = of(&["type=tmpfs", "device=tmpfs", "o=size=2M,uid=7", "o=nodev"]).unwrap();
        assert_eq!((volume.kind(), volume.uid), (Some("tmpfs"), Some(7)));
        assert_eq!(of_mount(&volume), ["size=2M", "uid=7", "nodev"]);
        let bind = of(&["type=none", "o=bind,ro", "device=/"]).unwrap();
        assert_eq!((bind.kind(), of_mount(&bind)), (Some("bind"), vec!["ro".to_string()]));
        assert_eq!(
            of(&["foo=bar"]).unwrap_err(),
            "invalid mount option foo for driver 'local': invalid argument"
        );
        assert!(
            of(&["type=bind", "device=/bogus"])
                .unwrap_err()
                .ends_with("faccessat /bogus: no such file or directory")
        );
        assert!(of(&["o=uid=x"]).unwrap_err().contains("to integer"));
        assert!(of(&["o=size=1m"]).unwrap_err().contains("project quotas"));
    }
}
