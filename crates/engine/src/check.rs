//! Damage of the store, found and cured: a layer that is damaged is fetched again alone; an image goes only if that
//! cannot be, and a container only if that is asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use unroot_store::{Damage, Image, Progress};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::images::PullOptions;
use crate::record::Record;
use crate::state::State;

/// What is looked at, and what is done.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Contents of layers are not read.
    pub quick: bool,
    /// Layers that no image has are damage once they are as old.
    pub unused_for: Duration,
}

/// What is wrong.
#[derive(Clone, Debug)]
pub enum Finding {
    /// With the store.
    Store(Damage),
    /// A container's image is not there.
    Container(Box<Record>, String),
}

/// What was done about it, a line each.
pub type Cured = Vec<String>;

impl Engine {
    /// Looks for damage.
    pub fn check(&self, check: Check) -> Result<Vec<Finding>> {
        self.enter()?;
        let damage = self.store.check(check.quick, check.unused_for).map_err(Error::engine)?;
        let mut all: Vec<Finding> = damage.into_iter().map(Finding::Store).collect();
        for record in self.containers()? {
            for id in self.images_of(&record) {
                if self.store.image_by_id(&id).ok().flatten().is_none() {
                    let why = format!("image missing: {id}");
                    all.push(Finding::Container(Box::new(record.clone()), why));
                }
            }
        }
        Ok(all)
    }

    /// Cures damage; with `force` also what costs containers.
    pub fn repair(&self, findings: &[Finding], force: bool, progress: &dyn Progress) -> Result<Cured> {
        let mut cured = Cured::new();
        let (mut layers, mut images) = (BTreeSet::new(), BTreeSet::new());
        for finding in findings {
            match finding {
                Finding::Store(Damage::Layer { diff_id, .. } | Damage::MissingLayer { diff_id, .. }) => {
                    layers.insert(diff_id.clone());
                }
                Finding::Store(Damage::Image { id, .. }) => drop(images.insert(id.clone())),
                Finding::Store(Damage::UnusedLayer { .. }) | Finding::Container(..) => {}
            }
        }
        for diff_id in layers {
            match self.fetch_again(&diff_id, progress) {
                Ok(name) => cured.push(format!("Fetched layer again: {diff_id} (of {name})")),
                Err(e) => {
                    progress.say(&format!("layer {diff_id} cannot be fetched again: {e}"));
                    let have = |i: &Image| i.layers.contains(&diff_id);
                    images.extend(self.store.all_images().0.into_iter().filter(have).map(|i| i.id));
                }
            }
        }
        for id in images {
            self.give_up_image(&id, force, &mut cured, progress)?;
        }
        for finding in findings.iter().filter(|_| force) {
            if let Finding::Container(record, _) = finding {
                self.remove(record, true, Some(0), true)?;
                cured.push(format!("Deleted damaged container: {}", record.id));
            }
        }
        self.store.collect(&[]).map_err(Error::engine)?;
        Ok(cured)
    }

    fn users_of_image(&self, id: &str) -> Result<Vec<Record>> {
        let mut users = self.containers()?;
        users.retain(|record| self.images_of(record).iter().any(|i| i == id));
        Ok(users)
    }

    /// Fetches a layer by a name of an image that has it; the name.
    fn fetch_again(&self, diff_id: &str, progress: &dyn Progress) -> Result<String> {
        let having = self.store.all_images().0.into_iter().filter(|i| i.layers.iter().any(|l| l == diff_id));
        let having: Vec<Image> = having.collect();
        for image in &having {
            for record in self.users_of_image(&image.id)? {
                if State::observe(&self.dirs, &record.id)?.is_live() {
                    return Err(Error::state(format_args!(
                        "container {} runs on it: stop it first",
                        record.name
                    )));
                }
            }
        }
        let mut last = Error::engine("no image that has it came from a registry");
        for image in &having {
            let names = self.names_of(&image.id);
            for name in names.iter().filter(|n| !n.starts_with("localhost/")) {
                let aside = self.store.set_layer_aside(diff_id).map_err(Error::engine)?;
                match self.pull(name, &PullOptions { retry: Some(0), ..PullOptions::default() }, progress) {
                    Ok(_) if self.store.layer(diff_id).is_some() => return Ok(name.clone()),
                    Ok(_) => last = Error::engine(format_args!("{name} is another image now")),
                    Err(e) => last = e,
                }
                aside.restore().map_err(Error::engine)?;
            }
        }
        Err(last)
    }

    fn give_up_image(&self, id: &str, force: bool, cured: &mut Cured, progress: &dyn Progress) -> Result<()> {
        let users = self.users_of_image(id)?;
        if !users.is_empty() && !force {
            let names: Vec<&str> = users.iter().map(|r| r.name.as_str()).collect();
            progress.say(&format!(
                "image {id} is left, since containers use it ({}): --force removes them, too",
                names.join(", ")
            ));
            return Ok(());
        }
        for record in users {
            self.remove(&record, true, Some(0), true)?;
            cured.push(format!("Deleted damaged container: {}", record.id));
        }
        self.store.remove_image(id).map_err(Error::engine)?;
        cured.push(format!("Deleted damaged image: {id}"));
        Ok(())
    }
}
