//! The files of containers and images as trees, without mounting them: what `export`, `diff` and `commit` read.

use std::path::{Path, PathBuf};

use unroot_store::Image;
use unroot_store::merged::{Change, Node, Part, Style, Tree, changes};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::spec::Root;

/// What the engine itself makes in a container, which is no change of the container's.
const MADE_BY_ENGINE: [&str; 11] = [
    "/dev",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/proc",
    "/run",
    "/run/.containerenv",
    "/run/notify",
    "/run/secrets",
    "/sys",
];

/// An image or a container.
pub enum Object {
    /// This container.
    Container(Box<Record>),
    /// This image.
    Image(Box<Image>),
}

/// It is an empty place that the engine made to mount something on; `path` is below `/` or relative.
pub fn is_mount_point(path: &Path, node: &Node) -> bool {
    let is_one =
        MADE_BY_ENGINE.iter().any(|made| path.strip_prefix("/").unwrap_or(path) == Path::new(&made[1..]));
    is_one && (node.kind() == rustix::fs::FileType::Directory || node.stat.st_size == 0)
}

impl Engine {
    /// A container or image by name or id; with `only` just one of them.
    pub fn object(&self, name: &str) -> Result<Object> {
        match self.find(name) {
            Ok(record) => Ok(Object::Container(Box::new(record))),
            Err(error) => match self.local_image(name)? {
                Some(named) => Ok(Object::Image(Box::new(named.image))),
                None if error.kind() == crate::ErrorKind::NotFound => {
                    Err(Error::not_found(format_args!("{name} not found: layer not known")))
                }
                None => Err(error),
            },
        }
    }

    /// The container's own layer, and what it is on.
    fn directories(&self, record: &Record) -> Result<(Option<PathBuf>, Vec<PathBuf>)> {
        let upper = self.dirs.container(&record.id).join("upper");
        match (&record.image, &record.spec.root) {
            (Some(wanted), _) => {
                let image = self.store.image_by_id(&wanted.id).map_err(Error::engine)?;
                let image = image.ok_or_else(|| {
                    Error::not_found(format_args!(
                        "image {} of container {} is gone: image not known",
                        wanted.name, record.name
                    ))
                })?;
                Ok((Some(upper), self.store.lower_dirs(&image)))
            }
            (None, Root::Directory { path, overlay: true, .. }) => Ok((Some(upper), vec![path.clone()])),
            (None, Root::Directory { path, .. }) => Ok((None, vec![path.clone()])),
            (None, Root::Empty) => Ok((None, vec![upper])),
            (None, Root::Image(name)) => {
                Err(Error::engine(format_args!("container {}: image {name} is not known", record.name)))
            }
        }
    }

    /// Shows what a container has: all that is in it, or with [`Style::Layer`] its own layer. The engine has entered
    /// its namespace; owners are the container's.
    pub fn with_container_tree<T>(
        &self,
        record: &Record,
        style: Style,
        act: impl FnOnce(&Tree<'_>) -> Result<T>,
    ) -> Result<T> {
        let shift = |uid: u32, gid: u32| {
            let Some(maps) = &record.maps else { return Some((uid, gid)) };
            Some((maps.uid.to_inside(uid)?, maps.gid.to_inside(gid)?))
        };
        let (upper, lower) = self.directories(record)?;
        let own_root = record.image.is_none();
        let part = |dir: PathBuf, shifted: bool| Part { dir, owners: shifted.then_some(&shift) };
        let lower = lower.into_iter().map(|dir| part(dir, own_root));
        let parts: Vec<Part<'_>> = match (upper, style) {
            (Some(upper), Style::Layer) => vec![part(upper, true)],
            (upper, _) => upper.into_iter().map(|u| part(u, true)).chain(lower).collect(),
        };
        act(&Tree::open(&parts, style).map_err(Error::engine)?)
    }

    /// Shows what an image has, without its top-most layers.
    fn with_image_tree<T>(
        &self,
        image: &Image,
        without: usize,
        act: impl FnOnce(&Tree<'_>) -> Result<T>,
    ) -> Result<T> {
        let dirs = self.store.lower_dirs(image).into_iter().skip(without);
        let mut parts: Vec<Part<'_>> = dirs.map(|dir| Part { dir, owners: None }).collect();
        // (an image without a layer has an empty tree)
        let empty = self.store.temporary().map_err(Error::engine)?;
        if parts.is_empty() {
            parts.push(Part { dir: empty.path().into(), owners: None });
        }
        act(&Tree::open(&parts, Style::Merged).map_err(Error::engine)?)
    }

    fn with_tree<T>(&self, object: &Object, act: impl FnOnce(&Tree<'_>) -> Result<T>) -> Result<T> {
        match object {
            Object::Container(record) => self.with_container_tree(record, Style::Merged, act),
            Object::Image(image) => self.with_image_tree(image, 0, act),
        }
    }

    /// What is different in a container or image from another one, or from what it was made of.
    pub fn changes(&self, object: &Object, base: Option<&Object>) -> Result<Vec<(Change, PathBuf)>> {
        self.enter()?;
        let mut found = self.with_tree(object, |new| {
            let compare = |old: &Tree<'_>| changes(new, old).map_err(Error::engine);
            match (base, object) {
                (Some(base), _) => self.with_tree(base, compare),
                (None, Object::Image(image)) => self.with_image_tree(image, 1, compare),
                (None, Object::Container(record)) => {
                    let (upper, lower) = self.directories(record)?;
                    if upper.is_none() {
                        return Ok(Vec::new());
                    }
                    let parts: Vec<Part<'_>> =
                        lower.into_iter().map(|dir| Part { dir, owners: None }).collect();
                    compare(&Tree::open(&parts, Style::Merged).map_err(Error::engine)?)
                }
            }
        })?;
        let container = |o: &Object| matches!(o, Object::Container(_));
        if container(object) || base.is_some_and(container) {
            found.retain(|(_, path)| !MADE_BY_ENGINE.iter().any(|made| path == Path::new(made)));
        }
        Ok(found)
    }
}
