//! The session of whoever runs the engine.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Fix, Group, Health};
use crate::engine::Engine;

pub(super) fn look(engine: &Engine) -> Group {
    let mut group = Group::new("session");
    if !engine.user.is_rootless() {
        return group;
    }
    runtime_dir(&mut group, engine);
    home(&mut group, engine);
    let managed = Path::new("/run/systemd/system").exists();
    let name = &engine.user.name;
    let lingers = Path::new("/var/lib/systemd/linger").join(name).exists();
    if managed {
        match lingers {
            true => group.add(
                "linger",
                Health::Good,
                format!("containers of {name} go on when {name} logs out"),
                "/var/lib/systemd/linger",
            ),
            false => group
                .add(
                    "linger",
                    Health::Note,
                    format!("containers of {name} end when {name} logs out"),
                    "/var/lib/systemd/linger",
                )
                .cured_by(format!("loginctl enable-linger {name}"))
                .fixed_by(Fix::Run(["loginctl", "enable-linger", name].map(String::from).into())),
        };
        let bus = PathBuf::from(format!("/run/user/{}/bus", engine.user.uid));
        if !bus.exists() {
            group
                .add("bus", Health::Note, "systemd's manager of this user does not answer, as under su, sudo or cron: limits cannot be had", format!("{} is not there", bus.display()))
                .cured_by(format!("log in (machinectl shell {name}@), or loginctl enable-linger {name}"));
        }
    }
    group
}

fn runtime_dir(group: &mut Group, engine: &Engine) {
    let uid = engine.user.uid;
    let fallback = engine.dirs.run.display().to_string();
    let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty()).map(PathBuf::from) else {
        group
            .add(
                "runtime-dir",
                Health::Note,
                format!("XDG_RUNTIME_DIR is not set: {fallback} is used"),
                "XDG_RUNTIME_DIR",
            )
            .cured_by(format!("log in, or export XDG_RUNTIME_DIR=/run/user/{uid} where that is there"));
        return;
    };
    match std::fs::metadata(&dir) {
        Ok(meta) if meta.uid() == uid => {
            group.add("runtime-dir", Health::Good, "there is a runtime directory", dir.display().to_string());
        }
        Ok(meta) => {
            let text = format!(
                "XDG_RUNTIME_DIR belongs to uid {}, not to {}: {fallback} is used, where other commands may not look",
                meta.uid(),
                engine.user.name
            );
            group.add("runtime-dir", Health::Warning, text, dir.display().to_string()).cured_by(format!(
                "export XDG_RUNTIME_DIR=/run/user/{uid}, or unset XDG_RUNTIME_DIR (su - sets it right)"
            ));
        }
        Err(e) => {
            group
                .add(
                    "runtime-dir",
                    Health::Warning,
                    format!("XDG_RUNTIME_DIR is not there: {fallback} is used"),
                    format!("stat {}: {e}", dir.display()),
                )
                .cured_by(format!("log in, or loginctl enable-linger {}", engine.user.name));
        }
    }
}

fn home(group: &mut Group, engine: &Engine) {
    let home = &engine.user.home;
    match std::fs::metadata(home) {
        Ok(meta) if meta.uid() == engine.user.uid => {}
        Ok(meta) => {
            let text = format!(
                "the home directory belongs to uid {}, not to {}, as under sudo -E",
                meta.uid(),
                engine.user.name
            );
            group
                .add("home", Health::Warning, text, home.display().to_string())
                .cured_by(format!("HOME of {}: su - {0}, or sudo -i -u {0}", engine.user.name));
        }
        Err(e) => {
            group
                .add(
                    "home",
                    Health::Broken,
                    "the home directory is not there",
                    format!("stat {}: {e}", home.display()),
                )
                .cured_by("HOME=DIR, or --root DIR and --runroot DIR");
        }
    }
}
