//! Secrets in containers: `--secret`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use unroot_idmap::IdMaps;

use crate::dirs::{Dirs, make_dir, write_file};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::record::Record;

/// How a container gets a secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretKind {
    /// A file.
    #[default]
    Mount,
    /// A variable.
    Env,
}

/// A secret of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SecretUse {
    /// Name or id, as typed; the name once the container is made.
    pub name: String,
    /// Its id once the container is made.
    pub id: String,
    /// File or variable.
    pub kind: SecretKind,
    /// Path in the container, or the variable's name.
    pub target: String,
    /// The file's owner in the container.
    pub uid: u32,
    /// The file's group in the container.
    pub gid: u32,
    /// The file's mode.
    pub mode: u32,
}

impl SecretUse {
    fn file(&self, dir: &Path, n: usize) -> PathBuf {
        dir.join("secrets").join(format!("{n}-{}", self.id))
    }
}

impl Engine {
    /// Copies the secrets of a container into its directory, which is being made.
    pub(crate) fn take_secrets(&self, record: &mut Record, dir: &Path) -> Result<()> {
        let secrets = self.dirs.secrets();
        for (n, wanted) in record.spec.secrets.iter_mut().enumerate() {
            let secret = secrets.find(&wanted.name)?;
            wanted.name = secret.name.clone();
            wanted.id = secret.id.clone();
            if wanted.target.is_empty() {
                wanted.target = secret.name.clone();
            }
            if wanted.kind == SecretKind::Mount && !wanted.target.starts_with('/') {
                wanted.target = format!("/run/secrets/{}", wanted.target);
            }
            make_dir(&dir.join("secrets"))?;
            let file = wanted.file(dir, n);
            write_file(&file, &secrets.data(&secret)?, 0o600)?;
            if wanted.kind == SecretKind::Mount {
                give(&file, wanted, record.maps.as_ref())?;
            }
        }
        Ok(())
    }
}

/// Makes it the file of whom it is for.
fn give(file: &Path, wanted: &SecretUse, maps: Option<&IdMaps>) -> Result<()> {
    let outside =
        |what: &str, id: u32, map: Option<&unroot_idmap::IdMap>| match map.map(|m| (m.to_outside(id), m)) {
            None => Ok(id),
            Some((Some(id), _)) => Ok(id),
            Some((None, map)) => Err(Error::engine(format_args!(
                "--secret {}: {what}={id} has no id on the host: the container's user namespace has {}",
                wanted.name,
                map.ranges()
            ))),
        };
    let uid = outside("uid", wanted.uid, maps.map(|m| &m.uid))?;
    let gid = outside("gid", wanted.gid, maps.map(|m| &m.gid))?;
    chown(file, Some(uid), Some(gid))
        .context(|| format!("--secret {}: chown to {uid}:{gid}", wanted.name))?;
    fs::set_permissions(file, fs::Permissions::from_mode(wanted.mode))
        .context(|| format!("--secret {}: chmod", wanted.name))
}

/// Files of a container's secrets: on the host, and in the container.
pub(crate) fn files(dirs: &Dirs, record: &Record) -> Vec<(PathBuf, String)> {
    let dir = dirs.container(&record.id);
    let mounts = record.spec.secrets.iter().enumerate().filter(|(_, s)| s.kind == SecretKind::Mount);
    mounts.map(|(n, s)| (s.file(&dir, n), s.target.clone())).collect()
}

/// Variables of a container's secrets.
pub(crate) fn variables(dirs: &Dirs, record: &Record) -> Result<Vec<(String, String)>> {
    let dir = dirs.container(&record.id);
    let variables = record.spec.secrets.iter().enumerate().filter(|(_, s)| s.kind == SecretKind::Env);
    variables
        .map(|(n, s)| {
            let data = fs::read(s.file(&dir, n)).context(|| format!("read secret {}", s.name))?;
            let text = String::from_utf8(data).ok().filter(|t| !t.contains('\0'));
            let text = text.ok_or_else(|| {
                Error::engine(format_args!("secret {}: its data cannot be a variable's value", s.name))
            })?;
            Ok((s.target.clone(), text))
        })
        .collect()
}
