//! An image of what a container has become: its own layer becomes one of an image, with the owners that the container
//! knows, and its configuration that of the image.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use unroot_store::merged::{Node, Style};
use unroot_store::{Config, Image, Layer, tree_tar};

use crate::changes;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::record::Record;
use crate::state::State;
use crate::trees::is_mount_point;

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// `--author`.
    pub author: Option<String>,
    /// `--change`, in order.
    pub changes: Vec<String>,
    /// `--config`: a configuration whose fields go before the container's.
    pub config: Option<Value>,
    /// `--format docker`.
    pub docker: bool,
    /// `--include-volumes`: the container's volumes are the image's.
    pub include_volumes: bool,
    /// `--message`.
    pub message: Option<String>,
    /// `--pause`: nothing runs in it meanwhile.
    pub pause: bool,
    /// `--squash`: all in one layer.
    pub squash: bool,
    /// The full name of the image.
    pub name: Option<String>,
}

impl Engine {
    /// Makes an image of a container.
    pub fn commit(&self, record: &Record, asked: &Commit) -> Result<Image> {
        self.enter()?;
        let base = match &record.image {
            Some(wanted) => self.store.image_by_id(&wanted.id).map_err(Error::engine)?,
            None => None,
        };
        let config = configuration(record, base.as_ref(), asked)?;
        let frozen = if asked.pause { Frozen::of(self, record)? } else { None };
        let lease = self.store.lease().map_err(Error::engine)?;
        let layer = self.layer_of(record, asked.squash || base.is_none());
        drop(frozen);
        let layer = layer?;
        let image = self.publish(record, base.filter(|_| !asked.squash).as_ref(), config, &layer, asked)?;
        drop(lease);
        self.dirs.events.container("commit", record);
        Ok(image)
    }

    /// Writes the tar of a layer and takes it in at once.
    fn layer_of(&self, record: &Record, whole: bool) -> Result<Layer> {
        let ids = self.id_check()?;
        let check = |path: &str, uid: u64, gid: u64| ids.check(path, uid, gid);
        let (reader, writer) = std::io::pipe().context(|| "pipe".into())?;
        let wanted = |path: &Path, node: &Node| !is_mount_point(path, node);
        let style = if whole { Style::Merged } else { Style::Layer };
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| self.store.ingest_layer(reader, None, &check));
            let written = self.with_container_tree(record, style, |tree| {
                let out = BufWriter::with_capacity(256 << 10, writer);
                tree_tar::write(tree, Path::new(""), out, &wanted).map_err(Error::engine)
            });
            let taken = taken.join().map_err(|_| Error::engine("commit: the layer's reader ended"))?;
            let taken = taken.map_err(|e| Error::engine(format_args!("commit {}: {e}", record.name)));
            // (why it could not be taken says more than that nobody read it)
            taken.and_then(|layer| written.map(|()| layer))
        })
    }

    fn publish(
        &self,
        record: &Record,
        base: Option<&Image>,
        config: Value,
        layer: &Layer,
        asked: &Commit,
    ) -> Result<Image> {
        let now = unroot_monitor::log::now();
        let created = unroot_monitor::log::format_nanos(now);
        let parent: Option<Value> = match base {
            Some(image) => {
                let bytes = self.store.config(&image.id).map_err(Error::engine)?;
                Some(serde_json::from_slice(&bytes).context(|| format!("image {}", image.id))?)
            }
            None => None,
        };
        let mut whole = parent.unwrap_or_else(|| {
            json!({"architecture": unroot_registry::Platform::host().architecture, "os": "linux", "history": [], "rootfs": {"type": "layers", "diff_ids": []}})
        });
        whole["config"] = config;
        whole["created"] = created.clone().into();
        if let Some(author) = &asked.author {
            whole["author"] = author.clone().into();
        }
        if asked.docker {
            whole["container"] = record.id.clone().into();
            whole["comment"] = asked.message.clone().unwrap_or_default().into();
        }
        let mut step = json!({"created": created, "created_by": record.spec.process.command.join(" ")});
        for (key, text) in [("comment", &asked.message), ("author", &asked.author)] {
            if let Some(text) = text {
                step[key] = text.clone().into();
            }
        }
        push(&mut whole["history"], step);
        push(&mut whole["rootfs"]["diff_ids"], layer.diff_id.clone().into());
        let diff_ids: Vec<String> = serde_json::from_value(whole["rootfs"]["diff_ids"].clone())
            .context(|| "image configuration".into())?;
        let config = serde_json::to_vec(&whole).context(|| "image configuration".into())?;
        let size = |diff_id: &str| self.store.layer(diff_id).map_or(0, |l| l.size);
        let mut manifest = unroot_store::manifest_of(&config, &diff_ids, size);
        if asked.docker {
            manifest = as_docker(&manifest)?;
        }
        self.store.put_image(&manifest, &config, asked.name.as_slice(), now).map_err(Error::engine)
    }

    /// Writes all files of a container as a tar.
    pub fn export(&self, record: &Record, into: impl std::io::Write) -> Result<()> {
        self.enter()?;
        let mut out = BufWriter::with_capacity(256 << 10, into);
        self.with_container_tree(record, Style::Merged, |tree| {
            tree_tar::write(tree, Path::new(""), &mut out, &|_, _| true).map_err(Error::engine)
        })?;
        out.flush().context(|| "write tar".into())?;
        self.dirs.events.container("export", record);
        Ok(())
    }
}

fn push(list: &mut Value, entry: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(entry),
        None => *list = json!([entry]),
    }
}

/// The container's configuration, with what it was made with and what was asked for.
fn configuration(record: &Record, base: Option<&Image>, asked: &Commit) -> Result<Value> {
    let mut config = base.map(|i| i.config.config.clone()).unwrap_or_default();
    let spec = &record.spec;
    let process = &spec.process;
    process.unset_env.iter().for_each(|name| config.env.retain(|e| e.split('=').next() != Some(name)));
    process.env.iter().for_each(|(name, value)| changes::set_env(&mut config.env, name, value));
    if !process.command.is_empty() || process.entrypoint.is_some() {
        config.cmd.clone_from(&process.command);
    }
    config.entrypoint = process.entrypoint.clone().unwrap_or(config.entrypoint);
    config.user = process.user.clone().unwrap_or(config.user);
    config.working_dir = process.workdir.clone().unwrap_or(config.working_dir);
    config.labels.clone_from(&spec.labels);
    if let Some(signal) = spec.life.stop_signal {
        config.stop_signal = unroot_sys::signal::name(signal as i32);
    }
    let exposed =
        spec.network.expose.iter().map(|p| if p.contains('/') { p.clone() } else { format!("{p}/tcp") });
    config.exposed_ports.extend(exposed.map(|p| (p, json!({}))));
    for port in record.published() {
        config.exposed_ports.insert(format!("{}/{}", port.container, port.protocol), json!({}));
    }
    if asked.include_volumes {
        config.volumes.extend(record.volumes.iter().map(|v| (v.target.clone(), json!({}))));
    }
    if let Some(given) = &asked.config {
        config = with(&config, given)?;
    }
    for change in &asked.changes {
        changes::apply(&mut config, change).map_err(Error::engine)?;
    }
    serde_json::to_value(config).context(|| "image configuration".into())
}

/// A configuration in which fields of another one are set.
fn with(config: &Config, given: &Value) -> Result<Config> {
    let mut all = serde_json::to_value(config).context(|| "image configuration".into())?;
    let fields = given.as_object().ok_or_else(|| Error::engine("--config: it is no JSON object"))?;
    for (name, value) in fields.iter().filter(|(_, v)| !v.is_null()) {
        all[name] = value.clone();
    }
    serde_json::from_value(all).context(|| "--config".into())
}

/// The same manifest with Docker's names of what is in it.
fn as_docker(manifest: &[u8]) -> Result<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(manifest).context(|| "manifest".into())?;
    value["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json".into();
    value["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
    for layer in value["layers"].as_array_mut().into_iter().flatten() {
        layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar".into();
    }
    serde_json::to_vec(&value).context(|| "manifest".into())
}

/// The processes of a container stand still until it is dropped.
struct Frozen(unroot_cgroup::Cgroup);

impl Frozen {
    /// None if nothing runs in it, or it stands still already.
    fn of(engine: &Engine, record: &Record) -> Result<Option<Self>> {
        let state = State::observe(&engine.dirs, &record.id)?;
        if !state.is_live() || state.status == crate::Status::Paused {
            return Ok(None);
        }
        let cgroup = state.run.as_ref().and_then(|r| r.cgroup.clone()).ok_or_else(|| {
            Error::engine(format_args!(
                "container {} has no cgroup of its own and cannot be paused",
                record.name
            ))
            .with_hint("leave out --pause")
        })?;
        let path = Path::new(&cgroup);
        let Some(group) = unroot_cgroup::Cgroup::open(path) else { return Ok(None) };
        let frozen = Self(group);
        frozen.0.freeze(true).map_err(Error::engine)?;
        Ok(Some(frozen))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(e) = self.0.freeze(false) {
            log::error!("{e}");
        }
    }
}
