//! Where images and containers are.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, XattrFlags};

use super::{Group, Health};
use crate::engine::Engine;

pub(super) fn look(engine: &Engine) -> Group {
    let mut group = Group::new("storage");
    let root = &engine.dirs.root;
    let Some(there) = nearest(root) else { return group };
    let shown = there.display().to_string();
    kind(&mut group, &there);
    flags(&mut group, &there, root);
    space(&mut group, &there);
    if let Ok(meta) = std::fs::metadata(&there)
        && engine.user.is_rootless()
        && there == *root
        // (in the engine's own namespace the user is root)
        && meta.uid() != rustix::process::geteuid().as_raw()
    {
        group
            .add(
                "owner",
                Health::Broken,
                format!(
                    "{shown} belongs to uid {}, not to {}: was a command run with sudo?",
                    meta.uid(),
                    engine.user.name
                ),
                format!("stat {shown}"),
            )
            .cured_by(format!("as root: chown -R {}: {shown}", engine.user.name));
    }
    attributes(&mut group, &there);
    group
}

/// The directory, or the first around it that is there.
fn nearest(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|p| p.is_dir()).map(Path::to_path_buf)
}

/// What is known of kinds of filesystems.
fn judge_kind(magic: u64, rootless: bool) -> (&'static str, Health, &'static str) {
    match magic {
        0xef53 => ("ext4", Health::Good, ""),
        0x5846_5342 => ("XFS", Health::Good, ""),
        0x9123_683e => ("btrfs", Health::Good, ""),
        0x0102_1994 => ("tmpfs", Health::Note, "images are gone after a boot"),
        0xf2f5_2010 => ("f2fs", Health::Good, ""),
        0x2fc1_2fc1 => ("ZFS", Health::Note, "overlays on it need OpenZFS 2.2"),
        0x6969 if rootless => (
            "NFS",
            Health::Broken,
            "the server does not know subordinate ids: files of users in containers cannot be made",
        ),
        0x6969 => ("NFS", Health::Warning, "overlays have no upper directory on it"),
        0x0bd0_0bd0 => ("Lustre", Health::Broken, "it does not know subordinate ids"),
        0x4750_4653 => ("GPFS", Health::Broken, "it does not know subordinate ids"),
        0xf15f => ("eCryptfs", Health::Broken, "overlays have no upper directory on it"),
        0x794c_7630 => (
            "an overlay",
            Health::Broken,
            "overlays have no upper directory on another overlay, as in a container without a volume",
        ),
        0x6573_5546 => ("FUSE", Health::Warning, "whether it takes other users' files is its own matter"),
        0x4d44 => ("FAT", Health::Broken, "it has no owners"),
        0xff53_4d42 | 0xfe53_4d42 => ("SMB", Health::Broken, "it has no owners"),
        0x0102_1997 => ("9p", Health::Broken, "it has no user attributes and no other users' files"),
        _ => ("a filesystem that is not known here", Health::Note, ""),
    }
}

fn kind(group: &mut Group, dir: &Path) {
    let Ok(stat) = rustix::fs::statfs(dir) else {
        group.add("filesystem", Health::Unknown, format!("{} cannot be looked at", dir.display()), "statfs");
        return;
    };
    let magic = stat.f_type as u64 & 0xffff_ffff;
    let (name, health, why) = judge_kind(magic, !rustix::process::geteuid().is_root());
    let text = match why {
        "" => format!("{} is on {name}", dir.display()),
        why => format!("{} is on {name}: {why}", dir.display()),
    };
    let finding = group.add("filesystem", health, text, format!("statfs: {magic:#x}"));
    if health >= Health::Warning {
        finding.cured_by("--root DIR, or XDG_DATA_HOME, on a filesystem of this machine (ext4, XFS, btrfs)");
    }
}

fn flags(group: &mut Group, dir: &Path, root: &Path) {
    let Ok(stat) = rustix::fs::statvfs(dir) else { return };
    let remount = |option: &str| {
        format!(
            "as root: mount -o remount,{option} on its mount, or --root DIR elsewhere than {}",
            root.display()
        )
    };
    for (flag, name, what, opposite) in [
        (StatVfsMountFlags::RDONLY, "ro", "nothing can be written there", "rw"),
        (
            StatVfsMountFlags::NOEXEC,
            "noexec",
            "programs in volumes and in --rootfs there cannot be run: execve says \"permission denied\"",
            "exec",
        ),
        (StatVfsMountFlags::NODEV, "nodev", "device nodes of images do not work there", "dev"),
        (StatVfsMountFlags::NOSUID, "nosuid", "sudo and ping of images get no privilege", "suid"),
    ] {
        if stat.f_flag.contains(flag) {
            let health = match name {
                "ro" => Health::Broken,
                _ => Health::Note,
            };
            let text = format!("{} is mounted {name}: {what}", dir.display());
            group.add(name, health, text, format!("statvfs {}", dir.display())).cured_by(remount(opposite));
        }
    }
}

fn space(group: &mut Group, dir: &Path) {
    let Ok(stat) = rustix::fs::statvfs(dir) else { return };
    let free = stat.f_bavail * stat.f_frsize;
    let evidence = format!("{} MB and {} inodes are free", free / 1_000_000, stat.f_favail);
    let inodes = stat.f_files > 0 && stat.f_favail < 10_000;
    match free < 500_000_000 || inodes {
        true => group
            .add("space", Health::Warning, format!("{} is nearly full", dir.display()), evidence)
            .cured_by("unroot rmi of images that no container needs, or a larger filesystem"),
        false => group.add("space", Health::Good, format!("{} has room", dir.display()), evidence),
    };
}

/// Whiteouts of layers and what overlayfs is told of an ordinary user's are user attributes.
fn attributes(group: &mut Group, dir: &Path) {
    let path = dir.join(format!(".unroot-doctor-{}", std::process::id()));
    let Ok(_) = std::fs::create_dir(&path) else { return };
    let set = rustix::fs::setxattr(&path, "user.overlay.opaque", b"y", XattrFlags::empty());
    let _ = std::fs::remove_dir(&path);
    match set {
        Ok(()) => {
            group.add("attributes", Health::Good, "it has user attributes", "setxattr user.overlay.opaque");
        }
        Err(e) => {
            group
                .add(
                    "attributes",
                    Health::Broken,
                    "it has no user attributes, which layers need",
                    format!("setxattr user.overlay.opaque: {e}"),
                )
                .cured_by("--root DIR on ext4, XFS or btrfs; a tmpfs has them since Linux 6.6");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_homes_are_told() {
        assert_eq!(judge_kind(0x6969, true).1, Health::Broken);
        assert_eq!(judge_kind(0xef53, true).1, Health::Good);
        assert_eq!(judge_kind(0x794c_7630, false).1, Health::Broken);
    }
}
