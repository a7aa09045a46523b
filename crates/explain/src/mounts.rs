//! What is mounted in a process's root, and which of it is the host's.

use std::fs;

use serde::Serialize;
use unroot_sys::mountinfo::{self, Mounted};

use crate::facts::{Seen, clean};

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// Where, inside.
    pub target: String,
    /// Kind of filesystem.
    pub kind: String,
    /// What it is on the host, where it is a part of the host's tree.
    pub source: Option<String>,
    /// It cannot be written to.
    pub read_only: bool,
    /// `nosuid`, `nodev`, `noexec`, those that are on.
    pub options: Vec<String>,
    /// Its ids are shifted (mount_setattr(2)).
    pub idmapped: bool,
    /// What is mounted here is a socket, where that could be seen.
    pub is_socket: bool,
}

/// As many as the kernel lets a mount namespace have (fs.mount-max).
const MOST: usize = 100_000;

/// The mounts of a process.
pub fn of(pid: u32) -> Seen<Vec<Mount>> {
    let mounted = match mountinfo::of(&pid.to_string()) {
        Ok(mounted) => mounted,
        Err(e) => return Seen::Unknown(format!("read /proc/{pid}/mountinfo: {e}")),
    };
    let host = mountinfo::of("self").unwrap_or_default();
    let all = mounted.into_iter().take(MOST).map(|line| {
        let source = source(&line, &host);
        let is_socket = source.as_ref().is_some_and(|path| {
            use std::os::unix::fs::FileTypeExt as _;
            fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
        });
        Mount {
            read_only: line.has("ro") || line.super_options.split(',').any(|o| o == "ro"),
            idmapped: line.has("idmapped"),
            options: ["nosuid", "nodev", "noexec"]
                .iter()
                .filter(|o| line.has(o))
                .map(|o| o.to_string())
                .collect(),
            target: clean(&line.target.to_string_lossy()),
            kind: clean(&line.kind),
            source: source.map(|s| clean(&s)),
            is_socket,
        }
    });
    Seen::Known(all.collect())
}

/// Where the host sees the same directory: a mount of the same filesystem that shows what is above it.
fn source(line: &Mounted, host: &[Mounted]) -> Option<String> {
    if matches!(&*line.kind, "proc" | "sysfs" | "cgroup" | "cgroup2" | "devpts" | "mqueue" | "overlay") {
        return None;
    }
    let mut best: Option<(usize, String)> = None;
    for mount in host.iter().filter(|m| m.device == line.device) {
        let Ok(rest) = line.root.strip_prefix(&mount.root) else { continue };
        let path = match rest.as_os_str().is_empty() {
            true => mount.target.clone(),
            false => mount.target.join(rest),
        };
        let length = mount.root.as_os_str().len();
        if best.as_ref().is_none_or(|(longest, _)| length > *longest) {
            best = Some((length, path.to_string_lossy().into_owned()));
        }
    }
    best.map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n30 22 0:25 / /run rw,nosuid - tmpfs tmpfs rw\n40 22 254:0 /srv/a\\040b /mnt rw - ext4 /dev/vda rw\n";

    #[test]
    fn sources() {
        let host = mountinfo::parse(HOST.as_bytes());
        let of = |line: &str| source(&mountinfo::parse(line.as_bytes())[0], &host);
        assert_eq!(of("1 0 254:0 /home/fred /data rw - ext4 /dev/vda rw").as_deref(), Some("/home/fred"));
        assert_eq!(of("1 0 254:0 / /host rw - ext4 /dev/vda rw").as_deref(), Some("/"));
        assert_eq!(
            of("1 0 0:25 /docker.sock /var/run/docker.sock rw - tmpfs tmpfs rw").as_deref(),
            Some("/run/docker.sock")
        );
        assert_eq!(of("1 0 254:0 /srv/a\\040b/c /x rw - ext4 /dev/vda rw").as_deref(), Some("/mnt/c"));
        assert_eq!(of("1 0 0:99 / /tmp rw - tmpfs tmpfs rw"), None);
        assert_eq!(of("1 0 254:0 / / rw - overlay overlay rw"), None);
    }
}
