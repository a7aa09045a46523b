//! Images: a manifest, a configuration, and names that point to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{CWD, Dir, Mode, OFlags, openat, readlinkat};
use serde::{Deserialize, Serialize};

use crate::layer::is_digest;
use crate::{Call as _, Error, Result, Store, digest, entries, invalid, make_dir, write_new};

/// An image's configuration (OCI image spec, `config.md`), as far as it is used.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// For which processor.
    pub architecture: String,
    /// Of which variant.
    pub variant: Option<String>,
    /// For which system.
    pub os: String,
    /// How a container of it runs.
    #[serde(deserialize_with = "null_is_default")]
    pub config: Config,
    /// Its layers.
    pub rootfs: RootfsConfig,
    /// How it came about.
    #[serde(deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// What Docker adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Its layers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RootfsConfig {
    /// `layers`
    #[serde(rename = "type")]
    pub kind: String,
    /// The lowest first.
    pub diff_ids: Vec<String>,
}

/// How a container of an image runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    /// User, as `-u` has it.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp`
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Environment.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// What runs.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Its arguments.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Paths that get volumes.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Where it starts.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How it is asked to stop.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// How it is seen to be well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What a build from it does first.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
}

/// A health check of an image; times are nanoseconds, and what is 0 is the engine's default.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["CMD", ...]`, `["CMD-SHELL", ...]`, `["NONE"]`.
    #[serde(deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// From one to the next.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: u64,
    /// Longer is a failure.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// Until failures count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: u64,
    /// From one to the next while it starts.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: u64,
    /// So many failures make it unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A step of an image's making.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// It made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of its configuration, 64 hex digits.
    pub id: String,
    /// Digest of its manifest, `sha256:...`.
    pub digest: String,
    /// Its configuration.
    pub config: ImageConfig,
    /// Diff IDs, the lowest first.
    pub layers: Vec<String>,
    /// Bytes of its layers.
    pub size: u64,
    /// When it came here, nanoseconds since the epoch.
    pub stored: i64,
    /// Digests of what else names it: the index that it was chosen from, other manifests of the same configuration.
    pub digests: Vec<String>,
    /// It is no image but a list of images for several platforms.
    pub is_list: bool,
    /// The highest ids in it.
    pub max_ids: (u32, u32),
    /// All user and group ids in it, ascending; none if they are not known.
    pub ids: Option<(Vec<u32>, Vec<u32>)>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    digest: String,
    size: u64,
    stored: i64,
    max_uid: u32,
    max_gid: u32,
    #[serde(default)]
    ids: Option<(Vec<u32>, Vec<u32>)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    digests: Vec<String>,
    /// When the image was made, as its configuration says: so that a list of images reads one file of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<String>,
}

impl Record {
    fn into_image(self, id: &str, config: ImageConfig) -> Image {
        Image {
            id: id.into(),
            digest: self.digest,
            layers: config.rootfs.diff_ids.clone(),
            config,
            size: self.size,
            stored: self.stored,
            digests: self.digests,
            is_list: false,
            max_ids: (self.max_uid, self.max_gid),
            ids: self.ids,
        }
    }
}

/// An image's record, in as few calls as can be: there may be hundreds.
fn read_record(dir: &OwnedFd, id: &str) -> Option<Vec<u8>> {
    let file =
        openat(dir, format!("{id}/image.json"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut data = Vec::with_capacity(4096);
    loop {
        data.reserve(1);
        let room = data.capacity() - data.len();
        // (only the end of a file makes a read short)
        if rustix::io::read(&file, rustix::buffer::spare_capacity(&mut data)).ok()? < room {
            return Some(data);
        }
    }
}

/// 64 hex digits.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A name as a file's.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

fn unescape(name: &str) -> String {
    name.replace("%2F", "/").replace("%25", "%")
}

impl Store {
    pub(crate) fn image_dir(&self, id: &str) -> PathBuf {
        self.images_dir().join(id)
    }

    /// The image of this id.
    pub fn image_by_id(&self, id: &str) -> Result<Option<Image>> {
        let dir = self.image_dir(id);
        let read = |file: &str| match fs::read(dir.join(file)) {
            Ok(data) => Ok(Some(data)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).call(|| format!("read {}", dir.join(file).display())),
        };
        let broken = |e| Error::Invalid(format!("image {id}: {e}: remove it with rmi -f and pull it again"));
        let Some(config) = read("config.json")? else { return self.list_by_id(id) };
        let Some(record) = read("image.json")? else { return Ok(None) };
        let config: ImageConfig = serde_json::from_slice(&config).map_err(broken)?;
        let record: Record = serde_json::from_slice(&record).map_err(broken)?;
        Ok(Some(record.into_image(id, config)))
    }

    /// The same with nothing of its configuration but when it was made, and without its layers.
    fn listed_image(&self, dir: &OwnedFd, id: &str) -> Result<Option<Image>> {
        match read_record(dir, id).and_then(|data| serde_json::from_slice::<Record>(&data).ok()) {
            Some(mut record) if record.created.is_some() => {
                let created = record.created.take();
                Ok(Some(record.into_image(id, ImageConfig { created, ..ImageConfig::default() })))
            }
            _ => self.image_by_id(id),
        }
    }

    /// There is an image of this id.
    pub fn has_image(&self, id: &str) -> bool {
        self.image_dir(id).exists()
    }

    /// The id that a full name stands for.
    pub fn id_of_name(&self, name: &str) -> Option<String> {
        let target = fs::read_link(self.names_dir().join(escape(name))).ok()?;
        Some(target.file_name()?.to_str()?.to_string())
    }

    /// The image of a full name, `registry/repository:tag`.
    pub fn image_by_name(&self, name: &str) -> Result<Option<Image>> {
        match self.id_of_name(name) {
            Some(id) => self.image_by_id(&id),
            None => Ok(None),
        }
    }

    /// Ids that begin so, with or without `sha256:` before.
    pub fn ids_with_prefix(&self, prefix: &str) -> Vec<String> {
        let prefix = prefix.trim_start_matches("sha256:");
        self.image_ids().into_iter().filter(|id| id.starts_with(prefix)).collect()
    }

    fn image_ids(&self) -> Vec<String> {
        entries(&self.images_dir())
            .into_iter()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .filter(|name| is_id(name))
            .collect()
    }

    /// All images that can be read, the newest first; and those that cannot, with the reason.
    pub fn all_images(&self) -> (Vec<Image>, Vec<(String, String)>) {
        self.each_image(&|id| self.image_by_id(id))
    }

    /// The same for a list: with nothing of their configurations but when they were made, and without their layers.
    pub fn listed_images(&self) -> (Vec<Image>, Vec<(String, String)>) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat(CWD, self.images_dir(), flags, Mode::empty()) {
            Ok(dir) => self.each_image(&|id| self.listed_image(&dir, id)),
            Err(_) => self.all_images(),
        }
    }

    fn each_image(
        &self,
        read: &dyn Fn(&str) -> Result<Option<Image>>,
    ) -> (Vec<Image>, Vec<(String, String)>) {
        let (mut all, mut broken) = (Vec::new(), Vec::new());
        for id in self.image_ids() {
            match read(&id) {
                Ok(Some(image)) => all.push(image),
                // (it may have been removed a moment ago)
                Ok(None) if !self.image_dir(&id).exists() => {}
                Ok(None) => broken.push((id, "its config.json or image.json is not there".into())),
                Err(e) => broken.push((id, e.to_string())),
            }
        }
        all.sort_by(|a, b| b.config.created.cmp(&a.config.created).then(b.stored.cmp(&a.stored)));
        (all, broken)
    }

    /// All images that can be read, the newest first.
    pub fn images(&self) -> Result<Vec<Image>> {
        Ok(self.all_images().0)
    }

    /// All names and the ids they stand for.
    pub fn names(&self) -> Vec<(String, String)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(dir) = openat(CWD, self.names_dir(), flags, Mode::empty()) else { return Vec::new() };
        let Ok(found) = Dir::read_from(&dir) else { return Vec::new() };
        let mut all: Vec<(String, String)> = found
            .flatten()
            .filter_map(|entry| {
                let target = readlinkat(&dir, entry.file_name(), Vec::with_capacity(128)).ok()?;
                let id = target.to_str().ok()?.strip_prefix("../")?;
                Some((unescape(entry.file_name().to_str().ok()?), id.to_string()))
            })
            .collect();
        all.sort();
        all
    }

    /// The manifest as it came.
    pub fn manifest(&self, id: &str) -> Result<Vec<u8>> {
        let path = self.image_dir(id).join("manifest.json");
        fs::read(&path).call(|| format!("read {}", path.display()))
    }

    /// The configuration as it came.
    pub fn config(&self, id: &str) -> Result<Vec<u8>> {
        let path = self.image_dir(id).join("config.json");
        fs::read(&path).call(|| format!("read {}", path.display()))
    }

    /// Stores an image whose layers are all here, under these names; the caller holds a [`Lease`](crate::Lease).
    pub fn put_image(&self, manifest: &[u8], config: &[u8], names: &[String], now: i64) -> Result<Image> {
        let id = digest(config).trim_start_matches("sha256:").to_string();
        let parsed: ImageConfig = serde_json::from_slice(config)
            .map_err(|e| Error::Invalid(format!("image configuration: {e}")))?;
        let (mut size, mut max_uid, mut max_gid) = (0, 0, 0);
        let mut ids = Some((BTreeSet::new(), BTreeSet::new()));
        for diff_id in &parsed.rootfs.diff_ids {
            let layer = is_digest(diff_id).then(|| self.layer(diff_id)).flatten();
            let layer =
                layer.ok_or_else(|| Error::Invalid(format!("image {id}: layer {diff_id} is not here")))?;
            size += layer.size;
            max_uid = max_uid.max(layer.max_uid);
            max_gid = max_gid.max(layer.max_gid);
            ids = ids.zip(layer.ids).map(|((mut uids, mut gids), layer)| {
                uids.extend(layer.0);
                gids.extend(layer.1);
                (uids, gids)
            });
        }
        if self.image_by_id(&id).ok().flatten().is_none() {
            let ids = ids.map(|(uids, gids)| (uids.into_iter().collect(), gids.into_iter().collect()));
            let digest = digest(manifest);
            let (digests, created) = (Vec::new(), parsed.created.clone());
            let record =
                Record { format: 1, digest, size, stored: now, max_uid, max_gid, ids, digests, created };
            let record = serde_json::to_vec(&record).map_err(|e| Error::Invalid(e.to_string()))?;
            let files = [("manifest.json", manifest), ("config.json", config), ("image.json", &record)];
            self.publish(&id, &files, names)?;
        }
        let named = self
            .add_digest(&id, &digest(manifest))
            .and_then(|()| names.iter().try_for_each(|name| self.tag(&id, name)));
        let image = self.image_by_id(&id)?;
        named.and(image.ok_or_else(|| Error::Invalid(String::new()))).map_err(|error| {
            // (whoever removes images looks at names, and may have seen this one at once)
            match self.has_image(&id) {
                true => error,
                false => Error::Invalid(format!("image {id} was removed as it was stored")),
            }
        })
    }

    /// Makes the directory of an image by one rename.
    pub(crate) fn publish(&self, id: &str, files: &[(&str, &[u8])], names: &[String]) -> Result<()> {
        let temporary = self.temporary()?;
        let inner = temporary.path().join("image");
        make_dir(&inner)?;
        for (name, data) in files {
            write_new(&inner.join(name), data)?;
        }
        make_dir(&self.images_dir())?;
        self.unsettled_image(id)?;
        // (an image is never there without its name, or whoever prunes would take it)
        for name in names.iter().filter(|n| self.id_of_name(n).is_none()) {
            self.point(id, name)?;
        }
        let place = self.image_dir(id);
        if fs::rename(&inner, &place).is_ok() {
            return Ok(());
        }
        // somebody else was faster, or what is there is broken
        if self.image_by_id(id).ok().flatten().is_none() {
            let _ = fs::rename(&place, temporary.path().join("broken"));
            fs::rename(&inner, &place).call(|| format!("rename image {id}"))?;
        }
        Ok(())
    }

    /// Another digest names the image, too.
    pub fn add_digest(&self, id: &str, digest: &str) -> Result<()> {
        let path = self.image_dir(id).join("image.json");
        let data = fs::read(&path).call(|| format!("read {}", path.display()))?;
        let mut record: Record =
            serde_json::from_slice(&data).map_err(|e| Error::Invalid(format!("{}: {e}", path.display())))?;
        if record.digest == digest || record.digests.iter().any(|d| d == digest) {
            return Ok(());
        }
        record.digests.push(digest.into());
        let data = serde_json::to_vec(&record).map_err(|e| Error::Invalid(e.to_string()))?;
        let temporary = self.temporary()?;
        let new = temporary.path().join("image.json");
        write_new(&new, &data)?;
        fs::rename(&new, &path).call(|| format!("write {}", path.display()))
    }

    /// Points a name at an image; what it stood for before loses it.
    pub fn tag(&self, id: &str, name: &str) -> Result<()> {
        self.point(id, name)?;
        if !self.image_dir(id).exists() {
            self.untag(name)?;
            return invalid(format!("image {id} was removed as it was named {name}"));
        }
        let path = self.image_dir(id).join("names");
        let known = fs::read_to_string(&path).unwrap_or_default();
        if known.lines().any(|line| line == name) {
            return Ok(());
        }
        fs::File::options()
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, format!("{name}\n").as_bytes()))
            .call(|| format!("write {}", path.display()))
    }

    /// All names that an image ever had, the first one first.
    pub fn past_names(&self, id: &str) -> Vec<String> {
        let text = fs::read_to_string(self.image_dir(id).join("names")).unwrap_or_default();
        text.lines().map(str::to_string).collect()
    }

    fn point(&self, id: &str, name: &str) -> Result<()> {
        if name.is_empty() || escape(name).len() > 240 {
            return invalid(format!("image name {name:?} is too long for a file's name"));
        }
        make_dir(&self.names_dir())?;
        let temporary = self.temporary()?;
        let link = temporary.path().join("name");
        std::os::unix::fs::symlink(format!("../{id}"), &link)
            .call(|| format!("symlink {}", link.display()))?;
        fs::rename(&link, self.names_dir().join(escape(name))).call(|| format!("name image {name}"))
    }

    /// Names of images that are not there any more go.
    pub(crate) fn sweep_names(&self) {
        for (name, id) in self.names() {
            if !self.image_dir(&id).exists() {
                let _ = self.untag(&name);
            }
        }
    }

    /// Takes a name away.
    pub fn untag(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.names_dir().join(escape(name))) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.call(|| format!("untag {name}")),
        }
    }

    /// Removes an image with all its names. Its layers go with [`Store::collect`].
    pub fn remove_image(&self, id: &str) -> Result<()> {
        self.remove_image_unless(id, &|| false).map(drop)
    }

    /// The same unless it is used, which is looked for when it is out of its place already: whoever begins to use it
    /// at the same moment either is seen, or sees that it has gone. Says whether it was removed.
    pub fn remove_image_unless(&self, id: &str, is_used: &dyn Fn() -> bool) -> Result<bool> {
        let doomed = self.temporary()?;
        let (place, aside) = (self.image_dir(id), doomed.path().join("image"));
        match fs::rename(&place, &aside) {
            // (somebody else was faster)
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other.call(|| format!("remove image {id}"))?,
        }
        if is_used() {
            fs::rename(&aside, &place).call(|| format!("put image {id} back"))?;
            return Ok(false);
        }
        for (name, owner) in self.names() {
            if owner == id {
                self.untag(&name)?;
            }
        }
        Ok(true)
    }

    /// Bytes of an image's records.
    pub fn records_size(&self, id: &str) -> u64 {
        entries(&self.image_dir(id)).iter().filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
    }

    /// Directories of an image's layers for overlayfs, the top-most first.
    pub fn lower_dirs(&self, image: &Image) -> Vec<PathBuf> {
        image.layers.iter().rev().map(|diff_id| self.layer_dir(diff_id).join("diff")).collect()
    }

    /// The first layer that is missing.
    pub fn missing_layer<'a>(&self, image: &'a Image) -> Option<&'a String> {
        image.layers.iter().find(|diff_id| !self.layer_dir(diff_id).join("diff").is_dir())
    }
}
