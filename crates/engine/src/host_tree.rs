//! `--rootfs DIR:O` where other filesystems are mounted below DIR, as they are below `/`.
//!
//! An overlay shows one filesystem: what is mounted below its lower directory is not in it, and in a user namespace the
//! kernel refuses such a directory, since it would show what the mounts cover (clone_private_mount()). So the root is
//! put together of parts:
//!
//! ```text
//! /            overlay of a skeleton: directories that have mounts below them, links
//! /usr /etc..  overlays of the directories that have none; all write to their place in the container's one layer
//! /var/lib/x   the same for what is mounted there
//! /var/file    read-only binds: files beside mounts
//! ```
//! Filesystems of the kernel's (proc, sysfs, devices ...) are left out: a container has its own.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use unroot_runtime::spec::Mount;
use unroot_sys::mountinfo::{self, Mounted};

use crate::dirs::make_dir;
use crate::error::{Context as _, Result};

/// Kinds of filesystems that show the kernel (proc_filesystems(5), `nodev`), and files of namespaces.
const OF_THE_KERNEL: [&str; 22] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "resctrl",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// What the root is put together of; paths are relative to it.
#[derive(Debug, Default, PartialEq)]
struct Parts {
    directories: Vec<PathBuf>,
    links: Vec<(PathBuf, PathBuf)>,
    files: Vec<PathBuf>,
    overlays: Vec<PathBuf>,
}

/// Where a container keeps what belongs to its root.
pub struct Places {
    /// The container's own layer.
    pub upper: PathBuf,
    /// Work directories of the parts.
    pub works: PathBuf,
    /// The skeleton, made anew for each start.
    pub skeleton: PathBuf,
}

/// Puts the root together: the mounts that make it of the skeleton. None if nothing is mounted below the directory.
pub fn assemble(dir: &Path, places: &Places, read_only: bool) -> Result<Option<Vec<Mount>>> {
    let dir = &fs::canonicalize(dir).context(|| format!("--rootfs {}", dir.display()))?;
    let mounted = mountinfo::of("self").context(|| "read /proc/self/mountinfo".into())?;
    if !has_below(dir, &mounted) {
        return Ok(None);
    }
    let mut parts = Parts::default();
    collect(dir, Path::new(""), &mounted, &mut parts);
    make_skeleton(dir, &places.skeleton, &parts)?;
    let mut mounts = Vec::new();
    for (n, part) in parts.overlays.iter().enumerate() {
        let (upper, work) = (places.upper.join(part), places.works.join(n.to_string()));
        make_like(&dir.join(part), &places.upper, part)?;
        make_dir(&work)?;
        let mut options = vec![
            format!("lowerdir+={}", dir.join(part).display()),
            format!("upperdir={}", upper.display()),
            format!("workdir={}", work.display()),
        ];
        options.extend(["userxattr", "volatile", "nodev"].map(String::from));
        options.extend(read_only.then(|| "ro".to_string()));
        mounts.push(mount(part, "overlay", "overlay", options));
    }
    for part in &parts.files {
        let options = ["bind", "rprivate", "ro", "nodev"].map(String::from).to_vec();
        mounts.push(mount(part, "bind", &dir.join(part).to_string_lossy(), options));
    }
    Ok(Some(mounts))
}

fn mount(part: &Path, kind: &str, source: &str, options: Vec<String>) -> Mount {
    let destination = Path::new("/").join(part).to_string_lossy().into_owned();
    Mount { destination, kind: kind.into(), source: source.into(), options }
}

fn has_below(dir: &Path, mounted: &[Mounted]) -> bool {
    mounted.iter().any(|m| m.target != dir && m.target.starts_with(dir))
}

fn collect(dir: &Path, part: &Path, mounted: &[Mounted], parts: &mut Parts) {
    if !has_below(dir, mounted) {
        parts.overlays.push(part.into());
        return;
    }
    if !part.as_os_str().is_empty() {
        parts.directories.push(part.into());
    }
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, part) = (entry.path(), part.join(entry.file_name()));
        let Ok(kind) = entry.file_type() else { continue };
        let top = mounted.iter().rev().find(|m| m.target == path);
        let of_the_kernel = top.is_some_and(|m| OF_THE_KERNEL.contains(&m.kind.as_str()));
        if kind.is_dir() && of_the_kernel {
            parts.directories.push(part);
        } else if kind.is_dir() {
            collect(&path, &part, mounted, parts);
        } else if kind.is_symlink() {
            parts.links.extend(fs::read_link(&path).ok().map(|target| (part, target)));
        } else if kind.is_file() && !of_the_kernel {
            parts.files.push(part);
        }
    }
}

fn make_skeleton(dir: &Path, skeleton: &Path, parts: &Parts) -> Result<()> {
    let _ = fs::remove_dir_all(skeleton);
    make_dir(skeleton)?;
    set_mode(skeleton, 0o755)?;
    for part in parts.directories.iter().chain(&parts.overlays) {
        make_like(&dir.join(part), skeleton, part)?;
    }
    for part in &parts.files {
        let file = skeleton.join(part);
        fs::write(&file, b"").context(|| format!("write {}", file.display()))?;
    }
    for (part, target) in &parts.links {
        let link = skeleton.join(part);
        std::os::unix::fs::symlink(target, &link).context(|| format!("symlink {}", link.display()))?;
    }
    Ok(())
}

/// A directory below another one with the mode of a third, and its owner where that may be given.
fn make_like(original: &Path, base: &Path, part: &Path) -> Result<()> {
    let place = base.join(part);
    if place.is_dir() {
        return Ok(());
    }
    if let Some(parent) = part.parent().filter(|p| !p.as_os_str().is_empty()) {
        let above = original.parent().unwrap_or(original);
        make_like(above, base, parent)?;
    }
    fs::create_dir(&place).context(|| format!("mkdir {}", place.display()))?;
    if let Ok(meta) = fs::metadata(original) {
        let _ = std::os::unix::fs::chown(&place, Some(meta.uid()), Some(meta.gid()));
        set_mode(&place, meta.mode() & 0o7777)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .context(|| format!("chmod {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let base = std::env::temp_dir().join(format!("unroot-host-tree-{}", std::process::id()));
        for dir in ["usr/bin", "var/lib/db", "var/log", "proc"] {
            fs::create_dir_all(base.join(dir)).unwrap();
        }
        fs::write(base.join("var/file"), "").unwrap();
        std::os::unix::fs::symlink("usr/bin", base.join("bin")).unwrap();
        let at = |at: &str, kind: &str| Mounted {
            device: String::new(),
            root: "/".into(),
            target: base.join(at),
            options: String::new(),
            kind: kind.into(),
            super_options: String::new(),
        };
        let mounted =
            [at("", "ext4"), at("var/lib/db", "xfs"), at("proc", "proc"), at("proc/sys/x", "binfmt_misc")];
        let mut found = Parts::default();
        collect(&base, Path::new(""), &mounted, &mut found);
        let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect::<Vec<_>>();
        let expected = Parts {
            directories: paths(&["proc", "var", "var/lib"]),
            links: vec![("bin".into(), "usr/bin".into())],
            files: paths(&["var/file"]),
            overlays: paths(&["usr", "var/lib/db", "var/log"]),
        };
        assert_eq!(found, expected);
        assert!(!has_below(&base.join("usr"), &mounted));
        fs::remove_dir_all(base).unwrap();
    }
}
