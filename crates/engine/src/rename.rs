//! `rename`: the new name is taken, the record says it, the old one is given back. Killed in between, a container has
//! two links; the one that its record does not say is nobody's ([`crate::record::claim_name`]).

use crate::dirs::write_json;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::names;
use crate::record::{Record, claim_name, release_name};

impl Engine {
    /// Gives a container another name.
    pub fn rename(&self, record: &Record, name: &str) -> Result<()> {
        let name = name.strip_prefix('/').unwrap_or(name);
        names::check(name)?;
        let _lock = Lock::take(&self.dirs, &record.id)?;
        let mut new = Record::read(&self.dirs, &record.id)?.ok_or_else(|| {
            Error::not_found(format_args!("no container with ID {} found: no such container", record.id))
        })?;
        if new.name == name {
            return Err(Error::engine(format_args!(
                "renaming a container with the same name as its current name: {name}: name already in use"
            )));
        }
        claim_name(&self.dirs, name, &new.id)?;
        let old = std::mem::replace(&mut new.name, name.to_string());
        if let Err(error) = write_json(&self.dirs.container(&new.id).join("container.json"), &new) {
            release_name(&self.dirs, name, &new.id);
            return Err(error);
        }
        release_name(&self.dirs, &old, &new.id);
        self.dirs.events.container("rename", &new);
        Ok(())
    }
}
