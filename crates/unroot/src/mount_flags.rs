//! `--volume`, `--mount` and `--tmpfs`.

use unroot_engine::spec::{Mount, MountKind};

use crate::cli::{Args, CliError};

/// All mounts that were asked for.
pub fn all(args: &Args) -> Result<Vec<Mount>, CliError> {
    let mut mounts = Vec::new();
    for text in args.all("mount") {
        mounts.extend(mount(text)?);
    }
    for text in args.all("volume") {
        mounts.push(volume(text)?);
    }
    for text in args.all("tmpfs") {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let options = options.split(',').filter(|o| !o.is_empty()).map(str::to_string).collect();
        mounts.push(Mount {
            kind: MountKind::Tmpfs,
            source: String::new(),
            target: absolute(target)?,
            options,
        });
    }
    let mut all: Vec<Mount> = Vec::new();
    for mount in mounts {
        match all.iter().find(|m| m.target == mount.target) {
            None => all.push(mount),
            // the same twice is once
            Some(same) if *same == mount => {}
            Some(_) => return Err(CliError::new(format!("{}: duplicate mount destination", mount.target))),
        }
    }
    Ok(all)
}

fn absolute(target: &str) -> Result<String, CliError> {
    if !target.starts_with('/') {
        return Err(CliError::new(format!("invalid container path \"{target}\", must be an absolute path")));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

const BIND_OPTIONS: [&str; 31] = [
    "ro",
    "rw",
    "rro",
    "z",
    "Z",
    "U",
    "O",
    "bind",
    "rbind",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "copy",
    "nocopy",
    "noatime",
    "strictatime",
    "relatime",
    "nodiratime",
    "consistent",
    "cached",
];

fn check_options(options: &[String], text: &str) -> Result<Vec<String>, CliError> {
    for option in options {
        let known = BIND_OPTIONS.contains(&option.as_str())
            || option.starts_with("upperdir=")
            || option.starts_with("workdir=")
            || option.starts_with("subpath=");
        if !known {
            return Err(CliError::new(format!(
                "invalid option \"{option}\" in {text}: unknown mount option"
            )));
        }
    }
    if options.iter().any(|o| matches!(o.as_str(), "z" | "Z"))
        && std::path::Path::new("/sys/fs/selinux/enforce").exists()
    {
        return Err(CliError::new(format!("{text}: SELinux is on, and its labels (z, Z) are not there yet")));
    }
    Ok(options.iter().filter(|o| !matches!(o.as_str(), "consistent" | "cached")).cloned().collect())
}

/// `[SOURCE:]TARGET[:OPTIONS]`: a source with a slash is a path, else a volume's name.
fn volume(text: &str) -> Result<Mount, CliError> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => {
            return Err(CliError::new(format!(
                "incorrect volume format {text}, should be [host-dir:]ctr-dir[:option]"
            )));
        }
    };
    if parts.len() > 1 && source.is_empty() {
        return Err(CliError::new("host directory cannot be empty"));
    }
    if target.is_empty() {
        return Err(CliError::new("container directory cannot be empty"));
    }
    let options: Vec<String> = options.split(',').filter(|o| !o.is_empty()).map(str::to_string).collect();
    let options = check_options(&options, text)?;
    let is_path = source.starts_with('/') || source.starts_with('.');
    let source = match is_path {
        true => std::path::absolute(source).map_err(CliError::new)?.to_string_lossy().into_owned(),
        false => source.to_string(),
    };
    if !is_path && !source.is_empty() {
        unroot_engine::names::check(&source).map_err(|_| {
            CliError::new(format!(
                "volume name \"{source}\": names must match [a-zA-Z0-9][a-zA-Z0-9_.-]*: invalid argument"
            ))
        })?;
    }
    let kind = if is_path { MountKind::Bind } else { MountKind::Volume };
    Ok(Mount { kind, source, target: absolute(target)?, options })
}

/// `type=...,src=...,dst=...,...`
fn mount(text: &str) -> Result<Vec<Mount>, CliError> {
    let mut mount = Mount { kind: MountKind::Volume, ..Mount::default() };
    let mut has_type = false;
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let on = matches!(value, "" | "true" | "1");
        match key {
            "type" => {
                has_type = true;
                mount.kind = match value {
                    "bind" => MountKind::Bind,
                    "volume" => MountKind::Volume,
                    "tmpfs" => MountKind::Tmpfs,
                    "ramfs" => MountKind::Ramfs,
                    "devpts" => MountKind::Devpts,
                    "glob" => MountKind::Glob,
                    other => return Err(CliError::new(format!("invalid filesystem type \"{other}\""))),
                }
            }
            "src" | "source" => mount.source = value.into(),
            "dst" | "destination" | "target" => mount.target = absolute(value)?,
            "ro" | "readonly" => mount.options.push(if on { "ro" } else { "rw" }.into()),
            "rw" => mount.options.push(if on { "rw" } else { "ro" }.into()),
            "bind-propagation" => mount.options.push(value.into()),
            "bind-nonrecursive" => mount.options.push("bind".into()),
            "tmpfs-size" | "size" => mount.options.push(format!("size={value}")),
            "tmpfs-mode" | "mode" => mount.options.push(format!("mode={value}")),
            "subpath" | "volume-subpath" if mount.kind == MountKind::Volume => {
                mount.options.push(format!("subpath={value}"));
            }
            "relabel" => mount.options.push(if value == "private" { "Z" } else { "z" }.into()),
            "U" | "chown" => mount.options.extend(on.then(|| "U".into())),
            "notmpcopyup" | "tmpcopyup" | "noexec" | "nosuid" | "nodev" | "exec" | "suid" | "dev" | "rro"
            | "nocopy" | "copy" => mount.options.push(key.into()),
            "uid" | "gid" | "max" | "ptmxmode"
                if matches!(mount.kind, MountKind::Devpts | MountKind::Tmpfs) =>
            {
                mount.options.push(part.into())
            }
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" | "unbindable"
            | "runbindable" => mount.options.push(key.into()),
            "consistency" => {}
            _ => return Err(CliError::new(format!("{key}: invalid mount option"))),
        }
    }
    let _ = has_type;
    if mount.kind == MountKind::Glob {
        return glob(&mount, text);
    }
    if mount.target.is_empty() {
        return Err(CliError::new("must set volume destination"));
    }
    if mount.kind == MountKind::Bind {
        if mount.source.is_empty() {
            return Err(CliError::new("must set source for bind mounts"));
        }
        mount.source =
            std::path::absolute(&mount.source).map_err(CliError::new)?.to_string_lossy().into_owned();
    }
    if matches!(mount.kind, MountKind::Bind | MountKind::Volume) {
        mount.options = check_options(&mount.options, text)?;
    }
    Ok(vec![mount])
}

/// All paths that match, each below the target by its own name.
fn glob(mount: &Mount, text: &str) -> Result<Vec<Mount>, CliError> {
    let (dir, pattern) = mount
        .source
        .rsplit_once('/')
        .ok_or_else(|| CliError::new(format!("{text}: a glob's source is an absolute path")))?;
    let entries = std::fs::read_dir(if dir.is_empty() { "/" } else { dir })
        .map_err(|e| CliError::new(format!("{text}: read {dir}: {e}")))?;
    let mut found: Vec<String> = entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|name| {
            unroot_engine::plan::glob(pattern, name) && (!name.starts_with('.') || pattern.starts_with('.'))
        })
        .collect();
    found.sort();
    if found.is_empty() {
        return Err(CliError::new(format!("no file paths matching glob \"{}\"", mount.source)));
    }
    let target = |name: &str| match mount.target.is_empty() {
        true => format!("{dir}/{name}"),
        false => format!("{}/{name}", mount.target),
    };
    Ok(found
        .iter()
        .map(|name| Mount {
            kind: MountKind::Bind,
            source: format!("{dir}/{name}"),
            target: target(name),
            options: mount.options.clone(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let of = |text: &str| {
            volume(text)
                .map(|m| format!("{:?} {} {} {}", m.kind, m.source, m.target, m.options.join(",")))
                .unwrap_or_else(|e| e.text.unwrap())
        };
        assert_eq!(of("/a:/b:ro,rshared"), "Bind /a /b ro,rshared");
        assert_eq!(of("vol:/b/../c"), "Volume vol /c ");
        assert_eq!(of("/b"), "Volume  /b ");
        assert_eq!(of(":/b"), "host directory cannot be empty");
        assert_eq!(of("/a:b"), "invalid container path \"b\", must be an absolute path");
        assert!(of("/a:/b:bogus").contains("bogus"));
        assert!(of("a:b:c:d").starts_with("incorrect volume format"));
    }

    #[test]
    fn mounts() {
        let of = |text: &str| {
            mount(text)
                .map(|m| {
                    format!("{:?} {} {} {}", m[0].kind, m[0].source, m[0].target, m[0].options.join(","))
                })
                .unwrap_or_else(|e| e.text.unwrap())
        };
        assert_eq!(of("type=bind,src=/a,dst=/b,readonly"), "Bind /a /b ro");
        assert_eq!(of("type=tmpfs,dst=/t,tmpfs-size=1m"), "Tmpfs  /t size=1m");
        assert_eq!(of("type=bind,src=/a"), "must set volume destination");
        assert_eq!(of("type=nosuch,dst=/b"), "invalid filesystem type \"nosuch\"");
        assert_eq!(of("type=bind,src=/a,dst=/b,wat"), "wat: invalid mount option");
    }
}
