//! `--volume`, `--mount` and `--tmpfs`.

use unroot_engine::spec::{Mount, MountKind};

use crate::cli::{Args, CliError};
use crate::glob;
use unroot_engine::volumes::idmap;

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
        let options: Vec<String> = options.split(',').filter(|o| !o.is_empty()).map(str::to_string).collect();
        check_memory(MountKind::Tmpfs, &options)?;
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
    if parts.is_empty() {
        return Err(CliError::new(format!(
            "invalid container path \"{target}\", must not be the root directory"
        )));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Options of which only one may be given, and how an error calls them.
const GROUPS: [(&[&str], &str); 7] = [
    (&["ro", "rw", "rro"], "'rw' or 'ro' option"),
    (&["z", "Z", "O"], "'z', 'Z', or 'O' option"),
    (&["suid", "nosuid"], "'nosuid' or 'suid' option"),
    (&["dev", "nodev"], "'nodev' or 'dev' option"),
    (&["exec", "noexec"], "'noexec' or 'exec' option"),
    (&["bind", "rbind"], "'bind' or 'rbind' option"),
    (&["copy", "nocopy"], "'copy' or 'nocopy' option"),
];

const PROPAGATIONS: [&str; 8] =
    ["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"];

/// Further ones.
const OTHERS: [&str; 8] =
    ["U", "noatime", "strictatime", "relatime", "nodiratime", "consistent", "cached", "delegated"];

fn check_options(options: &[String], text: &str) -> Result<Vec<String>, CliError> {
    let given = |names: &[&str]| options.iter().filter(|o| names.contains(&o.as_str())).count();
    let too_many = |what: &str| {
        Err(CliError::new(format!("invalid options {:?}, can only specify 1 {what}", options.join(", "))))
    };
    for option in options {
        let known = GROUPS.iter().any(|(names, _)| names.contains(&option.as_str()))
            || PROPAGATIONS.contains(&option.as_str())
            || OTHERS.contains(&option.as_str())
            || ["upperdir=", "workdir=", "subpath=", "volume-opt="].iter().any(|p| option.starts_with(p));
        if idmap::is_idmap(option) {
            if !rustix::process::geteuid().is_root() {
                return Err(CliError::new(format!(
                    "{text}: idmapped mounts take root: the kernel gives them to whoever owns the filesystem"
                ))
                .with_hint("--userns=keep-id, --uidmap and U give files to a container's users"));
            }
            continue;
        }
        if !known {
            return Err(CliError::new(format!("invalid option type {option:?} in {text}")));
        }
    }
    if let Some((_, what)) = GROUPS.iter().find(|(names, _)| given(names) > 1) {
        return too_many(what);
    }
    if given(&PROPAGATIONS) > 1 {
        return too_many("'[r]shared', '[r]private', '[r]slave' or '[r]unbindable' option");
    }
    if options.iter().any(|o| matches!(o.as_str(), "z" | "Z"))
        && std::path::Path::new("/sys/fs/selinux/enforce").exists()
    {
        return Err(CliError::new(format!("{text}: SELinux is on, and its labels (z, Z) are not there yet")));
    }
    let moot = |o: &String| matches!(o.as_str(), "consistent" | "cached" | "delegated");
    Ok(options.iter().filter(|o| !moot(o)).cloned().collect())
}

/// Options of a tmpfs.
fn check_memory(kind: MountKind, options: &[String]) -> Result<(), CliError> {
    for option in options {
        let flags = [
            "ro",
            "rw",
            "suid",
            "nosuid",
            "dev",
            "nodev",
            "exec",
            "noexec",
            "noatime",
            "relatime",
            "strictatime",
            "nodiratime",
            "tmpcopyup",
            "notmpcopyup",
            "noswap",
        ];
        // (a tmpfs has an owner, a ramfs has not)
        let owned = kind == MountKind::Tmpfs && option == "U";
        let values = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol"];
        let known = owned
            || flags.contains(&option.as_str())
            || PROPAGATIONS.contains(&option.as_str())
            || option.split_once('=').is_some_and(|(key, _)| values.contains(&key));
        if !known {
            return Err(CliError::new(format!("unknown mount option {option:?}: invalid mount option")));
        }
    }
    Ok(())
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
        true => full(source)?,
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

fn full(path: &str) -> Result<String, CliError> {
    Ok(std::path::absolute(path).map_err(CliError::new)?.to_string_lossy().into_owned())
}

/// `type=...,src=...,dst=...,...`
pub fn mount(text: &str) -> Result<Vec<Mount>, CliError> {
    let mut mount = Mount { kind: MountKind::Volume, ..Mount::default() };
    if let Some(kind) = text.split(',').find_map(|part| part.strip_prefix("type=")) {
        mount.kind = match kind {
            "bind" => MountKind::Bind,
            "volume" => MountKind::Volume,
            "tmpfs" => MountKind::Tmpfs,
            "ramfs" => MountKind::Ramfs,
            "devpts" => MountKind::Devpts,
            "glob" => MountKind::Glob,
            "image" => MountKind::Image,
            other => return Err(CliError::new(format!("invalid filesystem type \"{other}\""))),
        };
    }
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        option(&mut mount, part, key, value)?;
    }
    if mount.kind == MountKind::Glob {
        return globbed(&mount, text);
    }
    if mount.target.is_empty() {
        return Err(CliError::new("must set volume destination"));
    }
    match mount.kind {
        MountKind::Bind => {
            let source = if mount.source.is_empty() { &mount.target } else { &mount.source };
            mount.source = full(source)?;
        }
        MountKind::Image if mount.source.is_empty() => {
            return Err(CliError::new("must set source and destination for image volume"));
        }
        _ => {}
    }
    match mount.kind {
        MountKind::Bind | MountKind::Volume => mount.options = check_options(&mount.options, text)?,
        MountKind::Tmpfs | MountKind::Ramfs => check_memory(mount.kind, &mount.options)?,
        _ => {}
    }
    Ok(vec![mount])
}

fn option(mount: &mut Mount, part: &str, key: &str, value: &str) -> Result<(), CliError> {
    let on = matches!(value.to_ascii_lowercase().as_str(), "" | "true" | "1");
    let is_switch =
        matches!(key, "ro" | "readonly" | "rw" | "readwrite" | "bind-nonrecursive" | "U" | "chown");
    if is_switch && !on && !matches!(value.to_ascii_lowercase().as_str(), "false" | "0") {
        return Err(CliError::new(format!("{part}: {key} is true or false: invalid mount option")));
    }
    let memory = matches!(mount.kind, MountKind::Tmpfs | MountKind::Ramfs);
    let mut add = |option: String| mount.options.push(option);
    match key {
        "type" | "consistency" => {}
        "src" | "source" => mount.source = value.into(),
        "dst" | "destination" | "target" => mount.target = absolute(value)?,
        "ro" | "readonly" => add(if on { "ro" } else { "rw" }.into()),
        "rw" | "readwrite" => add(if on { "rw" } else { "ro" }.into()),
        "bind-propagation" => add(value.into()),
        "bind-nonrecursive" => add(if on { "bind" } else { "rbind" }.into()),
        "tmpfs-size" | "size" if memory => add(format!("size={value}")),
        "tmpfs-mode" | "mode" if memory || mount.kind == MountKind::Devpts => add(format!("mode={value}")),
        "subpath" | "volume-subpath" if mount.kind == MountKind::Volume => {
            add(format!("subpath={value}"));
        }
        "volume-opt" if mount.kind == MountKind::Volume => add(part.into()),
        "relabel" if matches!(value, "private" | "shared") => {
            add(if value == "private" { "Z" } else { "z" }.into());
        }
        "U" | "chown" if on => add("U".into()),
        "U" | "chown" => {}
        "uid" | "gid" if memory || mount.kind == MountKind::Devpts => add(part.into()),
        "max" | "ptmxmode" if mount.kind == MountKind::Devpts => add(part.into()),
        "notmpcopyup" | "tmpcopyup" | "noexec" | "nosuid" | "nodev" | "exec" | "suid" | "dev" | "rro"
        | "nocopy" | "copy" | "O" | "z" | "Z" => add(key.into()),
        "noswap" if memory && !rustix::process::geteuid().is_root() => {
            return Err(CliError::new(
                "the 'noswap' option is only allowed with rootful tmpfs mounts: must provide an argument for option",
            ));
        }
        "noswap" if memory => add(key.into()),
        key if PROPAGATIONS.contains(&key) => add(key.into()),
        _ => return Err(CliError::new(format!("{key}: invalid mount option"))),
    }
    Ok(())
}

/// All paths that match: each below the target by its own name, or where it is on the host.
fn globbed(mount: &Mount, text: &str) -> Result<Vec<Mount>, CliError> {
    if !mount.source.starts_with('/') {
        return Err(CliError::new(format!("{text}: a glob's source is an absolute path")));
    }
    let options = check_options(&mount.options, text)?;
    let found = glob::paths(&mount.source);
    if found.is_empty() {
        return Err(CliError::new(format!("no file paths matching glob \"{}\"", mount.source)));
    }
    let target = |path: &str| match mount.target.is_empty() {
        true => path.to_string(),
        false => format!("{}/{}", mount.target, path.rsplit('/').next().unwrap_or(path)),
    };
    let of = |path: &String| Mount {
        kind: MountKind::Bind,
        source: path.clone(),
        target: target(path),
        options: options.clone(),
    };
    Ok(found.iter().map(of).collect())
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
        assert!(of("/a:/b:bogus").starts_with("invalid option type \"bogus\""));
        assert!(
            of("/a:/b:ro,rw")
                .starts_with("invalid options \"ro, rw\", can only specify 1 'rw' or 'ro' option")
        );
        assert!(of("/a:/b:U,z,Z").contains("can only specify 1 'z', 'Z', or 'O' option"));
        assert!(of("/a:/b:shared,rslave").contains("can only specify 1 '[r]shared'"));
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
        assert_eq!(of("src=/a,dst=/b,type=bind"), "Bind /a /b ");
        assert_eq!(of("type=bind,dst=/b"), "Bind /b /b ");
        assert_eq!(of("type=tmpfs,dst=/t,tmpfs-size=1m"), "Tmpfs  /t size=1m");
        assert_eq!(of("type=bind,src=/a"), "must set volume destination");
        assert_eq!(of("type=nosuch,dst=/b"), "invalid filesystem type \"nosuch\"");
        assert_eq!(of("type=bind,src=/a,dst=/b,wat"), "wat: invalid mount option");
        let maybe = of("type=bind,src=/a,dst=/b,ro=maybe");
        assert_eq!(
            maybe, "ro=maybe: ro is true or false: invalid mount option",
            "not writable by a typing error"
        );
        assert_eq!(of("type=bind,src=/a,dst=/b,size=1m"), "size: invalid mount option");
        assert_eq!(of("type=tmpfs,dst=/b,copy"), "unknown mount option \"copy\": invalid mount option");
    }
}
