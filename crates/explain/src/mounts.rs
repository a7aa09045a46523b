//! What is mounted in a process's root, and which of it is the host's.

use std::fs;

use serde::Serialize;

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

/// A line of proc_pid_mountinfo(5).
#[derive(Debug)]
struct Line {
    device: String,
    root: String,
    target: String,
    options: Vec<String>,
    kind: String,
    super_options: Vec<String>,
}

fn parse(text: &str) -> Vec<Line> {
    let words = |text: &str| text.split(',').map(str::to_string).collect();
    text.lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut fields = before.split(' ').skip(2);
            let (device, root, target, options) =
                (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            let mut after = after.split(' ');
            let kind = after.next()?;
            Some(Line {
                device: device.into(),
                root: unescape(root),
                target: unescape(target),
                options: words(options),
                kind: kind.into(),
                super_options: words(after.nth(1).unwrap_or_default()),
            })
        })
        .collect()
}

/// `\040` is a space.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let code = more
            .get(..3)
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        match (first, code) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                rest = &more[3..];
            }
            _ => {
                out.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// As many as the kernel lets a mount namespace have (fs.mount-max).
const MOST: usize = 100_000;

/// The mounts of a process.
pub fn of(pid: u32) -> Seen<Vec<Mount>> {
    let path = format!("/proc/{pid}/mountinfo");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) => return Seen::Unknown(format!("read {path}: {e}")),
    };
    let host = parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
    let all = parse(&text).into_iter().take(MOST).map(|line| {
        let source = source(&line, &host);
        let is_socket = source.as_ref().is_some_and(|path| {
            use std::os::unix::fs::FileTypeExt as _;
            fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
        });
        let on = |name: &str| line.options.iter().any(|o| o == name);
        Mount {
            read_only: on("ro") || line.super_options.iter().any(|o| o == "ro"),
            idmapped: on("idmapped"),
            options: ["nosuid", "nodev", "noexec"].iter().filter(|o| on(o)).map(|o| o.to_string()).collect(),
            target: clean(&line.target),
            kind: clean(&line.kind),
            source: source.map(|s| clean(&s)),
            is_socket,
        }
    });
    Seen::Known(all.collect())
}

/// Where the host sees the same directory: a mount of the same filesystem that shows what is above it.
fn source(line: &Line, host: &[Line]) -> Option<String> {
    if matches!(&*line.kind, "proc" | "sysfs" | "cgroup" | "cgroup2" | "devpts" | "mqueue" | "overlay") {
        return None;
    }
    let mut best: Option<(usize, String)> = None;
    for mount in host.iter().filter(|m| m.device == line.device) {
        let rest = match mount.root.as_str() {
            "/" => Some(line.root.as_str()),
            root => line.root.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/')),
        };
        let Some(rest) = rest else { continue };
        let path = format!("{}{}", mount.target.trim_end_matches('/'), rest.trim_end_matches('/'));
        let path = if path.is_empty() { "/".to_string() } else { path };
        if best.as_ref().is_none_or(|(length, _)| mount.root.len() > *length) {
            best = Some((mount.root.len(), path));
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
        let host = parse(HOST);
        let of = |line: &str| source(&parse(line)[0], &host);
        assert_eq!(of("1 0 254:0 /home/fred /data rw - ext4 /dev/vda rw").as_deref(), Some("/home/fred"));
        assert_eq!(of("1 0 254:0 / /host rw - ext4 /dev/vda rw").as_deref(), Some("/"));
        assert_eq!(
            of("1 0 0:25 /docker.sock /var/run/docker.sock rw - tmpfs tmpfs rw").as_deref(),
            Some("/run/docker.sock")
        );
        assert_eq!(of("1 0 254:0 /srv/a\\040b/c /x rw - ext4 /dev/vda rw").as_deref(), Some("/mnt/c"));
        assert_eq!(of("1 0 0:99 / /tmp rw - tmpfs tmpfs rw"), None);
        assert_eq!(of("1 0 254:0 / / rw - overlay overlay rw"), None);
        assert_eq!(unescape("a\\134b\\"), "a\\b\\");
    }
}
