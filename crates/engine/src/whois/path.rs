//! Of a file: who owns it inside and outside, and which containers have it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Answer, Asker, Inside, Known, Outside};
use crate::error::{Error, Result};
use crate::spec::MountKind;

/// Whose a file is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PathAnswer {
    /// The file, its directory's links followed, its own not.
    pub path: PathBuf,
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Its owner on the host.
    pub user: Outside,
    /// Its group on the host.
    pub group: Outside,
    /// Owner and group in the containers that have the file; where none has it, in those whose map has the owner.
    pub inside: Vec<OwnerInside>,
    /// Where it is mounted.
    pub mounted: Vec<MountedIn>,
}

/// Owner and group in a container.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerInside {
    /// Its owner.
    pub user: Inside,
    /// Its group.
    pub group: Inside,
}

/// A container that has the file.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MountedIn {
    /// The container's name.
    pub container: String,
    /// Its path there.
    pub path: PathBuf,
    /// It cannot be written to there.
    pub read_only: bool,
    /// The container runs.
    pub running: bool,
    /// How it comes there: `bind`, `volume NAME`, `root` (`--rootfs`), `layer` (the container's own).
    pub by: String,
}

/// The file itself below its real directory.
fn real(path: &Path) -> std::io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => {
            let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            Ok(dir.canonicalize()?.join(name))
        }
        _ => path.canonicalize(),
    }
}

impl Asker<'_> {
    pub(super) fn path(&self, word: &str) -> Result<Answer> {
        let failed = |e: std::io::Error| {
            let error = Error::engine(format_args!("stat {word}: {}", crate::plan::reason(&e)));
            match e.kind() {
                std::io::ErrorKind::PermissionDenied if self.engine.user.is_rootless() => {
                    error.with_hint(format_args!(
                        "{0} unshare ls -ld {word}, or {0} own --list of a directory above",
                        crate::program()
                    ))
                }
                _ => error,
            }
        };
        let path = real(Path::new(word)).map_err(failed)?;
        let meta = path.symlink_metadata().map_err(failed)?;
        let mounted: Vec<MountedIn> = self.known.iter().flat_map(|k| self.places(k, &path)).collect();
        let has_it = |k: &&Known| mounted.is_empty() || mounted.iter().any(|m| m.container == k.record.name);
        let inside = self.known.iter().filter(has_it).filter_map(|k| {
            let there = |id: Option<u32>, name: Option<String>| Inside {
                container: k.record.name.clone(),
                engine: "unroot".into(),
                id,
                name,
            };
            let (uid, gid) = (k.maps.uid.to_inside(meta.uid()), k.maps.gid.to_inside(meta.gid()));
            // (the host's own numbers say nothing of a container that does not have the file)
            (!mounted.is_empty() || uid.is_some_and(|uid| uid != meta.uid())).then(|| OwnerInside {
                user: there(uid, uid.and_then(|u| k.user(u))),
                group: there(gid, gid.and_then(|g| k.group(g))),
            })
        });
        let inside = inside.collect();
        Ok(Answer::Path(PathAnswer {
            mode: meta.mode(),
            user: self.outside_user(meta.uid()),
            group: self.outside_group(meta.gid()),
            path,
            inside,
            mounted,
        }))
    }

    fn places(&self, known: &Known, path: &Path) -> Vec<MountedIn> {
        let record = &known.record;
        let place = |source: &Path, target: &Path, read_only: bool, by: String| {
            let source = source.canonicalize().unwrap_or_else(|_| source.into());
            let rest = path.strip_prefix(&source).ok()?;
            let inside = if rest.as_os_str().is_empty() { target.into() } else { target.join(rest) };
            Some(MountedIn {
                container: record.name.clone(),
                path: inside,
                read_only,
                running: known.state.is_live(),
                by,
            })
        };
        let read_only = |target: &str| {
            let mount = record.spec.files.mounts.iter().find(|m| m.target == target);
            mount.is_some_and(|m| m.options.iter().any(|o| o == "ro" || o == "readonly"))
        };
        let binds = record.spec.files.mounts.iter().filter(|m| m.kind == MountKind::Bind);
        let mut all: Vec<MountedIn> = binds
            .filter_map(|m| place(m.source.as_ref(), m.target.as_ref(), read_only(&m.target), "bind".into()))
            .collect();
        all.extend(record.volumes.iter().filter_map(|v| {
            place(&v.path, v.target.as_ref(), read_only(&v.target), format!("volume {}", v.name))
        }));
        if let crate::spec::Root::Directory { path: root, .. } = &record.spec.root {
            all.extend(place(root, Path::new("/"), false, "root".into()));
        }
        let upper = self.engine.dirs.container(&record.id).join("upper");
        all.extend(place(&upper, Path::new("/"), record.spec.files.read_only, "layer".into()));
        all
    }
}
