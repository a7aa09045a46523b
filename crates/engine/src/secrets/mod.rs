//! Secrets: small data that containers get, and that no inspect shows unless it is asked to.
//!
//! ```text
//! secrets/ID/secret.json    what is known of it
//! secrets/ID/data           the data itself, with the file driver; mode 0600
//! secrets/=NAME -> ID       a symlink, made exclusively; no name holds a `=`
//! ```
//! A secret is there when its name points to it. A container gets a copy as it is made, in its own directory: what
//! becomes of the secret later is not its concern.

mod driver;
mod uses;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use driver::Driver;
pub use uses::{SecretKind, SecretUse};
pub(crate) use uses::{files, variables};

use crate::dirs::{Dirs, make_dir, read_json, write_json};
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::events::Event;

/// Data may have so many bytes.
const MAX_SIZE: usize = 512_000;

/// A secret, without its data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Secret {
    /// How to read it.
    pub format: u32,
    /// 25 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// Who keeps the data.
    pub driver: Driver,
    /// When it was made, nanoseconds since the epoch.
    pub created: i64,
}

/// What becomes of a name that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfThere {
    /// An error.
    Fail,
    /// The old one is kept.
    Keep,
    /// The new one takes its place.
    Replace,
}

/// All secrets of an engine.
#[derive(Debug)]
pub struct Secrets<'a> {
    dirs: &'a Dirs,
}

impl Dirs {
    /// Its secrets.
    pub fn secrets(&self) -> Secrets<'_> {
        Secrets { dirs: self }
    }
}

impl Secrets<'_> {
    /// `root/secrets`
    pub fn dir(&self) -> PathBuf {
        self.dirs.root.join("secrets")
    }

    fn of(&self, id: &str) -> PathBuf {
        self.dir().join(id)
    }

    /// Makes one; its id.
    pub fn create(
        &self,
        name: &str,
        data: &[u8],
        labels: BTreeMap<String, String>,
        driver: Driver,
        if_there: IfThere,
    ) -> Result<String> {
        check_name(name)?;
        if data.is_empty() || data.len() >= MAX_SIZE {
            return Err(Error::engine(format_args!(
                "secret data must be larger than 0 and less than {MAX_SIZE} bytes"
            )));
        }
        let old = self.by_name(name)?;
        match (&old, if_there) {
            (Some(_), IfThere::Fail) => return Err(in_use(name)),
            (Some(old), IfThere::Keep) => return Ok(old.id.clone()),
            _ => {}
        }
        let id = crate::names::new_id()?[..25].to_string();
        let created = unroot_monitor::log::now();
        let secret = Secret { format: 1, id: id.clone(), name: name.into(), labels, driver, created };
        make_dir(&self.of(&id))?;
        let published = secret
            .driver
            .store(&self.of(&id), &id, data)
            .and_then(|()| write_json(&self.of(&id).join("secret.json"), &secret))
            .and_then(|()| self.publish(name, &id, if_there));
        if let Err(error) = published {
            let _ = secret.driver.delete(&self.of(&id), &id);
            let _ = fs::remove_dir_all(self.of(&id));
            return Err(error);
        }
        if let Some(old) = old {
            self.discard(&old)?;
        }
        self.tell("create", &secret);
        Ok(id)
    }

    fn publish(&self, name: &str, id: &str, if_there: IfThere) -> Result<()> {
        let link = self.dir().join(format!("={name}"));
        match symlink(id, &link) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                // (the name of one whose maker was killed is free)
                if if_there != IfThere::Replace && self.by_name(name)?.is_some() {
                    return Err(in_use(name));
                }
                let new = self.dir().join(format!("={id}.new"));
                symlink(id, &new)
                    .and_then(|()| fs::rename(&new, &link))
                    .context(|| format!("rename {}", link.display()))
            }
            Err(e) => Err(e).context(|| format!("symlink {}", link.display())),
        }
    }

    fn by_name(&self, name: &str) -> Result<Option<Secret>> {
        if name.contains(['/', '=']) {
            return Ok(None);
        }
        match fs::read_link(self.dir().join(format!("={name}"))) {
            Ok(id) => read_json(&self.of(&id.to_string_lossy()).join("secret.json")),
            Err(_) => Ok(None),
        }
    }

    /// All, by name.
    pub fn list(&self) -> Result<Vec<Secret>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(self.dir()).into_iter().flatten().flatten() {
            if let Some(name) = entry.file_name().to_string_lossy().strip_prefix('=') {
                all.extend(self.by_name(name)?);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|a, b| a.id == b.id);
        Ok(all)
    }

    /// One by name, id or the beginning of an id.
    pub fn find(&self, wanted: &str) -> Result<Secret> {
        let missing =
            || Error::not_found(format_args!("no secret with name or id \"{wanted}\": no such secret"));
        if let Some(secret) = self.by_name(wanted)? {
            return Ok(secret);
        }
        let mut found = self.list()?;
        found.retain(|s| !wanted.is_empty() && s.id.starts_with(wanted));
        match found.len() {
            0 => Err(missing()),
            1 => Ok(found.remove(0)),
            _ => Err(Error::engine(format_args!("more than one secret with id prefix {wanted}"))),
        }
    }

    /// Its data.
    pub fn data(&self, secret: &Secret) -> Result<Vec<u8>> {
        secret.driver.lookup(&self.of(&secret.id), &secret.id)
    }

    /// Removes one.
    pub fn remove(&self, secret: &Secret) -> Result<()> {
        secret.driver.delete(&self.of(&secret.id), &secret.id)?;
        let link = self.dir().join(format!("={}", secret.name));
        if fs::read_link(&link).is_ok_and(|id| id.as_os_str() == secret.id.as_str()) {
            fs::remove_file(&link).context(|| format!("remove {}", link.display()))?;
        }
        self.tell("remove", secret);
        fs::remove_dir_all(self.of(&secret.id)).context(|| format!("remove secret {}", secret.name))
    }

    /// One whose name another one has taken.
    fn discard(&self, secret: &Secret) -> Result<()> {
        secret.driver.delete(&self.of(&secret.id), &secret.id)?;
        fs::remove_dir_all(self.of(&secret.id)).context(|| format!("remove secret {}", secret.id))
    }

    fn tell(&self, status: &str, secret: &Secret) {
        let (id, name) = (secret.id.clone(), secret.name.clone());
        self.dirs.events.emit(Event { kind: "secret".into(), id, name, ..Event::new(status) });
    }
}

fn in_use(name: &str) -> Error {
    Error::new(ErrorKind::InUse, format_args!("{name}: secret name in use"))
}

fn check_name(name: &str) -> Result<()> {
    match (1..=253).contains(&name.len()) && !name.contains(['=', '/', ',', '\0']) {
        true => Ok(()),
        false => Err(Error::engine(format_args!(
            "secret name {name:?} can not include '=', '/', ',', or the '\\0' (NULL) and be between 1 and 253 characters: invalid secret name"
        ))),
    }
}
