//! What is configured for registries.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use unroot_registry::{RegistriesConf, UserEnvironment};
use unroot_sys::path::find_program;

use super::{Group, Health};
use crate::engine::Engine;

pub(super) fn look(engine: &Engine) -> Group {
    let mut group = Group::new("registries");
    let environment = UserEnvironment::current(engine.user.uid, engine.user.home.clone());
    match RegistriesConf::load(&environment) {
        Ok(_) => {
            group.add(
                "registries.conf",
                Health::Good,
                "registries.conf can be read",
                "/etc/containers/registries.conf",
            );
        }
        Err(e) => {
            let cure = e.hint().map_or_else(|| "correct the file that is named".into(), str::to_string);
            group.add("registries.conf", Health::Broken, e.to_string(), "registries.conf").cured_by(cure);
        }
    }
    for file in auth_files(engine) {
        credentials(&mut group, &file);
    }
    group
}

fn auth_files(engine: &Engine) -> Vec<PathBuf> {
    let env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let mut files = vec![
        engine.user.home.join(".config/containers/auth.json"),
        engine.user.home.join(".docker/config.json"),
    ];
    files.extend(env("REGISTRY_AUTH_FILE"));
    files.extend(env("XDG_RUNTIME_DIR").map(|d| d.join("containers/auth.json")));
    files.retain(|f| f.is_file());
    files
}

fn credentials(group: &mut Group, file: &std::path::Path) {
    let shown = file.display().to_string();
    let Ok(text) = std::fs::read_to_string(file) else {
        group
            .add("credentials", Health::Warning, format!("{shown} cannot be read"), shown.clone())
            .cured_by(format!("chmod 600 {shown}, as its owner"));
        return;
    };
    let value: serde_json::Value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(e) => {
            group
                .add(
                    "credentials",
                    Health::Broken,
                    format!("{shown} is no JSON: no pull that needs a password works"),
                    e.to_string(),
                )
                .cured_by(format!("correct or remove {shown}, and log in again"));
            return;
        }
    };
    let mode = std::fs::metadata(file).map_or(0, |m| m.permissions().mode());
    if mode & 0o077 != 0 && value["auths"].as_object().is_some_and(|a| !a.is_empty()) {
        group
            .add(
                "credentials",
                Health::Warning,
                format!("others can read the passwords in {shown}"),
                format!("mode {:o}", mode & 0o777),
            )
            .cured_by(format!("chmod 600 {shown}"));
    }
    let stores =
        value["credHelpers"].as_object().into_iter().flat_map(|h| h.values()).chain(value.get("credsStore"));
    for helper in stores.filter_map(|v| v.as_str()).filter(|h| !h.is_empty()) {
        let program = format!("docker-credential-{helper}");
        if find_program(&program).is_none() {
            group
                .add(
                    "helper",
                    Health::Warning,
                    format!("{shown} has passwords come from {program}, which is not installed"),
                    shown.clone(),
                )
                .cured_by(format!("install {program}, or remove it from {shown}"));
        }
    }
}
