//! Files that the engine makes for a container and mounts into it: names of hosts, users, and a mark.

use std::fs;
use std::path::Path;

use unroot_network::files::{Resolv, hosts, resolv_conf};
use unroot_network::{DNS_FORWARD, HOST_ADDRESS, Mode};

use crate::dirs::make_file;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::spec::{Mount, MountKind, Namespace};
use crate::users::{ResolvedUser, RootView, name_of_gid, name_of_uid};

/// Writes them; each with its path in the container.
pub fn write(
    engine: &Engine,
    record: &Record,
    network: &Mode,
    run_dir: &Path,
    view: &RootView,
    user: &ResolvedUser,
) -> Result<Vec<(String, String)>> {
    let spec = &record.spec;
    let mut files = Vec::new();
    let taken = |path: &str| spec.files.mounts.iter().any(|m| m.target == path);
    let mut put = |name: &str, path: &str, text: &str, mode: u32| -> Result<()> {
        if taken(path) {
            return Ok(());
        }
        make_file(&run_dir.join(name), text.as_bytes(), mode)?;
        own(record, &run_dir.join(name));
        files.push((name.to_string(), path.to_string()));
        Ok(())
    };
    if spec.network.dns.iter().all(|d| d != "none") {
        put("resolv.conf", "/etc/resolv.conf", &resolver(engine, record, network)?, 0o644)?;
    }
    if !spec.network.no_hosts {
        put("hosts", "/etc/hosts", &hosts_text(engine, record, network, view)?, 0o644)?;
    }
    let host_name = engine.host_name_of(record);
    if !spec.process.no_hostname {
        put("hostname", "/etc/hostname", &format!("{host_name}\n"), 0o644)?;
    }
    // (a directory of the host's is not written to)
    let kept = |m: &Mount| m.target == "/run" && matches!(m.kind, MountKind::Bind | MountKind::Volume);
    if !spec.files.mounts.iter().any(kept) {
        put("containerenv", "/run/.containerenv", &mark(engine, record), 0o644)?;
    }
    if spec.process.passwd.unwrap_or(true) {
        for (name, path, text) in accounts(engine, record, view, user) {
            put(name, path, &text, 0o644)?;
        }
    }
    if let Some(zone) = &spec.process.timezone {
        put("localtime", "/etc/localtime", "", 0o644)?;
        let path = if zone == "local" {
            "/etc/localtime".to_string()
        } else {
            format!("/usr/share/zoneinfo/{zone}")
        };
        let data = match zone.contains("..") {
            true => return Err(Error::engine(format_args!("invalid timezone {zone:?}"))),
            false => fs::read(&path).map_err(|e| {
                Error::engine(format_args!("finding timezone: open {path}: {}", crate::plan::reason(&e)))
            })?,
        };
        make_file(&run_dir.join("localtime"), &data, 0o644)?;
        own(record, &run_dir.join("localtime"));
    }
    if let Some(list) = &spec.files.default_mounts {
        for (n, (source, target)) in default_mounts(list)?.into_iter().enumerate() {
            if taken(&target) {
                continue;
            }
            let copy = run_dir.join(format!("default-{n}"));
            let _ = crate::remove::remove_tree(&copy);
            copy_for_container(record, Path::new(&source), &copy)?;
            files.push((format!("default-{n}"), target));
        }
    }
    Ok(files)
}

/// mounts.conf: lines `HOST[:CONTAINER]`; those whose host path is not there are left out.
fn default_mounts(list: &Path) -> Result<Vec<(String, String)>> {
    let text = match fs::read_to_string(list) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| {
            Error::engine(format_args!("open {}: {}", list.display(), crate::plan::reason(&e)))
        })?,
    };
    let lines = text.lines().map(str::trim).filter(|l| l.starts_with('/'));
    let pairs = lines.map(|l| l.split_once(':').unwrap_or((l, l)));
    let there = pairs.filter(|(source, _)| Path::new(source).exists());
    Ok(there.map(|(source, target)| (source.to_string(), target.to_string())).collect())
}

/// A copy of a file or a tree of the host, as the container's root's.
fn copy_for_container(record: &Record, source: &Path, copy: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |e: std::io::Error| {
        Error::engine(format_args!("copy {}: {}", source.display(), crate::plan::reason(&e)))
    };
    let meta = fs::metadata(source).map_err(failed)?;
    if meta.is_dir() {
        fs::create_dir_all(copy).map_err(failed)?;
        for entry in fs::read_dir(source).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            copy_for_container(record, &source.join(&name), &copy.join(&name))?;
        }
    } else if meta.is_file() {
        fs::copy(source, copy).map_err(failed)?;
    } else {
        return Ok(());
    }
    fs::set_permissions(copy, fs::Permissions::from_mode(meta.permissions().mode() & 0o777))
        .map_err(failed)?;
    own(record, copy);
    Ok(())
}

/// Files belong to the container's root.
fn own(record: &Record, path: &Path) {
    if let Some(maps) = &record.maps {
        let _ = std::os::unix::fs::chown(path, maps.uid.to_outside(0), maps.gid.to_outside(0));
    }
}

impl Engine {
    /// The name of a container's host: its own, the host's, or that of the container whose uts namespace it is in.
    pub fn host_name_of(&self, record: &Record) -> String {
        match (&record.spec.process.hostname, &record.spec.namespaces.uts) {
            (Some(name), _) => name.clone(),
            (None, Namespace::Host) => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            (None, Namespace::Container(other)) if *other != record.id => {
                self.find(other).map_or_else(|_| record.short_id().to_string(), |r| self.host_name_of(&r))
            }
            (None, _) => record.short_id().to_string(),
        }
    }

    /// The container whose network one has, and whose published ports lead to it.
    pub fn network_owner(&self, record: &Record) -> Record {
        let mut owner = record.clone();
        // (they cannot be in a circle, but for files that somebody has changed)
        for _ in 0..8 {
            let other = owner.spec.network.mode.as_deref().and_then(|m| m.strip_prefix("container:"));
            match other.and_then(|id| self.find(id).ok()) {
                Some(other) => owner = other,
                None => break,
            }
        }
        owner
    }
}

fn resolver(engine: &Engine, record: &Record, network: &Mode) -> Result<String> {
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    // systemd-resolved's stub is on the host's loopback; its own file has the servers behind it
    let behind = || fs::read_to_string("/run/systemd/resolve/resolv.conf").ok();
    let stub = host.lines().any(|l| l.trim() == "nameserver 127.0.0.53");
    let shares_loopback = *network == Mode::Host;
    let host = if stub && !shares_loopback { behind().unwrap_or(host) } else { host };
    let dns = &record.spec.network;
    let is_own = !(dns.dns.is_empty() && dns.dns_search.is_empty() && dns.dns_options.is_empty());
    // (who shares a network has its name servers, too, but for what it was given itself)
    if let (Mode::Container(other), false) = (network, is_own)
        && let Ok(theirs) =
            fs::read_to_string(engine.dirs.run_container(&engine.find(other)?.id).join("resolv.conf"))
    {
        return Ok(theirs);
    }
    Ok(resolv_conf(&Resolv {
        host: &host,
        servers: &dns.dns,
        search: &dns.dns_search,
        options: &dns.dns_options,
        forwarder: match network {
            Mode::Pasta(options) => {
                Some(unroot_network::value_of(options, &["--dns-forward"]).unwrap_or(DNS_FORWARD))
            }
            _ => None,
        },
        shares_loopback,
    }))
}

fn hosts_text(engine: &Engine, record: &Record, network: &Mode, view: &RootView) -> Result<String> {
    let spec = &record.spec;
    let base = match spec.files.hosts_file.as_deref() {
        None | Some("") => fs::read_to_string("/etc/hosts").unwrap_or_default(),
        Some("none") => String::new(),
        Some("image") => String::from_utf8_lossy(&view.read("/etc/hosts").unwrap_or_default()).into_owned(),
        Some(path) => fs::read_to_string(path)
            .map_err(|e| Error::engine(format_args!("failed to read {path}: {}", crate::plan::reason(&e))))?,
    };
    let host_address = match network {
        Mode::Pasta(_) => Some(HOST_ADDRESS.to_string()),
        Mode::Host => Some("127.0.0.1".into()),
        _ => None,
    };
    let mut added = Vec::new();
    for text in &spec.network.add_hosts {
        let (names, ip) = text.split_once(':').ok_or_else(|| {
            Error::engine(format_args!("bad format for add-host: {text:?}: it is NAME[;NAME]:IP"))
        })?;
        let ip = match (ip, &host_address) {
            ("host-gateway", Some(address)) => address.clone(),
            ("host-gateway", None) => {
                return Err(Error::engine(
                    "unable to replace \"host-gateway\" of host entry: host containers internal IP address is empty",
                ));
            }
            (ip, _) => ip.to_string(),
        };
        added.push((ip, names.split(';').map(str::to_string).collect()));
    }
    let name = engine.host_name_of(record);
    let own_names = [name.as_str(), record.name.as_str()];
    let address = match network {
        Mode::Pasta(_) => own_address(),
        Mode::None => Some("127.0.0.1".into()),
        Mode::Container(other) => return shared_hosts(engine, other, &added, &base),
        Mode::Host | Mode::Ns(_) => None,
    };
    let own = address.as_deref().map(|a| (a, &own_names[..]));
    Ok(hosts(&base, &added, host_address.as_deref(), own))
}

/// Containers that share a network share their names of hosts.
fn shared_hosts(engine: &Engine, other: &str, added: &[(String, Vec<String>)], base: &str) -> Result<String> {
    let record = engine.find(other)?;
    let theirs = fs::read_to_string(engine.dirs.run_container(&record.id).join("hosts"))
        .unwrap_or_else(|_| base.to_string());
    Ok(hosts(&theirs, added, None, None))
}

/// pasta gives the container the host's own address: that of the way out.
fn own_address() -> Option<String> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // (nothing is sent: connect only asks the routing table)
    socket.connect("198.51.100.254:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then(|| ip.to_string())
}

/// What containers are told about the engine: little for ordinary ones.
fn mark(engine: &Engine, record: &Record) -> String {
    let image = record.image.as_ref();
    let rootless = u8::from(engine.user.is_rootless());
    if !record.spec.security.privileged {
        return String::new();
    }
    format!(
        "engine=\"{}-{}\"\nname=\"{}\"\nid=\"{}\"\nimage=\"{}\"\nimageid=\"{}\"\nrootless={rootless}\n",
        crate::program(),
        env!("CARGO_PKG_VERSION"),
        record.name,
        record.id,
        image.map_or("", |i| &i.name),
        image.map_or("", |i| &i.id),
    )
}

/// /etc/passwd and /etc/group with a line for a user that they lack.
fn accounts(
    engine: &Engine,
    record: &Record,
    view: &RootView,
    user: &ResolvedUser,
) -> Vec<(&'static str, &'static str, String)> {
    let mut files = Vec::new();
    let process = &record.spec.process;
    let text = |path: &str| view.read(path).map(|data| String::from_utf8_lossy(&data).into_owned());
    let mut passwd_file = None;
    if let Some(passwd) = view.passwd() {
        let keeps_user = record.default_user.is_some_and(|(uid, _)| uid == user.uid);
        let host_name = engine.user.name.clone();
        let name = if keeps_user { host_name } else { user.uid.to_string() };
        let home = user.home.clone().unwrap_or_else(|| "/".into());
        if name_of_uid(&passwd, user.uid).is_none() {
            let gid = user.gid;
            let line = match &process.passwd_entry {
                Some(entry) => entry
                    .replace("$USERNAME", &name)
                    .replace("$UID", &user.uid.to_string())
                    .replace("$GID", &gid.to_string())
                    .replace("$HOME", &home)
                    .replace("$NAME", &format!("{name} user")),
                None => format!(
                    "{name}:*:{}:{gid}:{}:{home}:/bin/sh",
                    user.uid,
                    if keeps_user { name.clone() } else { "container user".into() }
                ),
            };
            passwd_file = Some(with_line(&passwd, &line));
        } else if view.has_host_users() {
            passwd_file = Some(passwd);
        }
    }
    files.extend(passwd_file.map(|text| ("passwd", "/etc/passwd", text)));
    if let Some(groups) = text("/etc/group").filter(|text| name_of_gid(text, user.gid).is_none()) {
        let gid = user.gid.to_string();
        // (who is in it, as they were asked for)
        let asked = process.user.as_deref().and_then(|u| u.split(':').next()).unwrap_or_default();
        let line = match (&process.group_entry, &process.user, record.default_user) {
            (Some(entry), ..) => entry
                .replace("$GROUPNAME", &engine.user.name)
                .replace("$GID", &gid)
                .replace("$USERLIST", &engine.user.name),
            (None, Some(_), _) => format!("{gid}:x:{gid}:{asked}"),
            (None, None, Some(_)) => {
                let name = unroot_idmap::names::host_group(engine.user.gid).unwrap_or_else(|| gid.clone());
                format!("{name}:x:{gid}:{}", engine.user.name)
            }
            (None, None, None) => return files,
        };
        files.push(("group", "/etc/group", with_line(&groups, &line)));
    }
    files
}

fn with_line(text: &str, line: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{}\n", line.trim_end())
}
