//! A container that failed, and directories of the host that its user may not use: most often the one has to do with the
//! other ("Permission denied" in a bind mount of an image that is not root's).

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use unroot_explain::access::Identity;

use crate::engine::Engine;
use crate::error::Result;
use crate::record::Record;
use crate::spec::{Mount, MountKind};
use crate::users::ResolvedUser;
use crate::volumes::owners::is_precious;

impl Engine {
    /// What the container's user may not do in its bind mounts, and what gives it that.
    pub fn denied_binds(&self, record: &Record) -> Result<Vec<String>> {
        let binds: Vec<&Mount> = record
            .spec
            .files
            .mounts
            .iter()
            .filter(|m| m.kind == MountKind::Bind && !has(m, "idmap"))
            .collect();
        if binds.is_empty() || record.spec.security.privileged {
            return Ok(Vec::new());
        }
        let namespace = self.enter()?.clone();
        let image = self.image_of(record)?;
        let view = self.root_view(&record.spec, image.as_ref(), None)?;
        let config = image.map(|i| i.image.config.config).unwrap_or_default();
        let user = self.process_user(record, &view, &config)?;
        let Some(identity) = identity(record, &user) else { return Ok(Vec::new()) };
        let on_host = namespace.maps.uid.to_outside(identity.uid).unwrap_or(identity.uid);
        let said =
            binds.into_iter().filter_map(|mount| denied(mount, record, &user, &identity, on_host, self));
        Ok(said.collect())
    }
}

fn has(mount: &Mount, option: &str) -> bool {
    mount.options.iter().any(|o| o.split('=').next() == Some(option))
}

/// Whom the kernel shows where an id has no number (overflowuid).
const NOBODY: u32 = 65534;

/// Who the process is to the engine.
fn identity(record: &Record, user: &ResolvedUser) -> Option<Identity> {
    let Some(maps) = &record.maps else {
        return Some(Identity {
            uid: user.uid,
            gid: user.gid,
            groups: user.groups.clone(),
            overrides: false,
        });
    };
    let gids = user.groups.iter().filter_map(|gid| maps.gid.to_outside(*gid));
    Some(Identity {
        uid: maps.uid.to_outside(user.uid)?,
        gid: maps.gid.to_outside(user.gid)?,
        groups: gids.collect(),
        overrides: false,
    })
}

fn denied(
    mount: &Mount,
    record: &Record,
    user: &ResolvedUser,
    identity: &Identity,
    on_host: u32,
    engine: &Engine,
) -> Option<String> {
    let path = Path::new(&mount.source);
    let meta = std::fs::metadata(path).ok()?;
    let access = identity.access(path)?;
    let is_read_only = has(mount, "ro") || has(mount, "O") || has(mount, "U");
    // (files are mostly mounted to be read)
    let verb = match access {
        a if !a.read => "read",
        a if !a.write && !is_read_only && meta.is_dir() => "write to",
        _ => return None,
    };
    let rootless = engine.user.is_rootless();
    // (in the engine's namespace its user is 0, and who is nobody in it is the kernel's overflow id)
    let is_own = rootless && meta.uid() == 0;
    let is_stranger = rootless && meta.uid() == NOBODY;
    let is_inside =
        record.maps.as_ref().map_or(!is_stranger, |maps| maps.uid.to_inside(meta.uid()).is_some());
    // (its root may do all to files of those whom it has)
    if user.uid == 0 && is_inside {
        return None;
    }
    let owner = match is_own {
        true => engine.user.name.clone(),
        false if is_stranger => "somebody outside of the container's ids".into(),
        false => format!("uid {}", meta.uid()),
    };
    let cure = match is_own {
        true => format!(
            "--userns=keep-id:uid={},gid={} makes it {owner}, or with the option U ({}:{}:U) the files become the user's",
            user.uid, user.gid, mount.source, mount.target
        ),
        false if is_precious(path) => "give it a directory of its own".into(),
        false => format!("as its owner: setfacl -m u:{on_host}:rwx {}", mount.source),
    };
    Some(format!(
        "uid {} of the container, {on_host} on the host, may not {verb} {} (of {owner}, mode {:o}), which it has at {}: {cure}",
        user.uid,
        mount.source,
        meta.mode() & 0o7777,
        mount.target
    ))
}
