//! The engine's user namespace between commands, with no process in it.
//!
//! A namespace lives as long as something refers to it. A shared memory segment does, by the credentials that it was
//! made with: one byte in the user's name, which goes at the next boot, or when the user logs out (`RemoveIPC` of
//! logind.conf(5)). Linux 6.18 finds the namespace again by a file handle, which means no other one until the next boot.
//! A file in the run directory has both, with the maps. What is not as it says there, on other kernels too, is as if
//! there were no file: the namespace is made anew.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use unroot_sys::keep::{Handle, Segment};
use unroot_sys::ns::setns;
use unroot_sys::path::read_proc;
use unroot_sys::process::Namespace;

use crate::{Extent, IdMap, IdMaps};

/// What the file says. Lines of words: `boot ID`, `segment ID`, `handle KIND HEX`, and `uid` and `gid` with a map's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    boot: String,
    segment: Segment,
    /// None: this kernel does not find it again, so there is no use in keeping another one.
    handle: Option<Handle>,
    maps: IdMaps,
}

/// Joins the kept namespace, if it has these maps. The caller's ids are not changed yet.
pub fn join(file: &Path, wanted: &IdMaps) -> bool {
    let Some(kept) = Kept::read(file) else { return false };
    let (Some(handle), true) = (&kept.handle, kept.maps == *wanted) else { return false };
    let Ok(own) = File::open("/proc/self/ns/user") else { return false };
    let found = handle.open(own.as_fd());
    found.is_ok_and(|found| setns(found.as_fd(), [Namespace::User].into_iter().collect()).is_ok())
}

/// Keeps the namespace that this process is in, unless one with these maps is kept. What cannot be is made anew each
/// time: that is no error.
pub fn keep(file: &Path, maps: &IdMaps) {
    let Ok(mut file) = File::options().read(true).write(true).create(true).truncate(false).open(file) else {
        return;
    };
    // (somebody else keeps one at this moment)
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return;
    }
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    let (Some(boot), Ok(own)) = (boot(), File::open("/proc/self/ns/user")) else { return };
    let mut handle = Handle::of(own.as_fd()).ok();
    if let Some(before) = Kept::parse(&text).filter(|kept| kept.boot == boot) {
        let Some(found) = before.handle.as_ref().map(|handle| handle.open(own.as_fd()).is_ok()) else {
            return;
        };
        if before.maps == *maps && before.segment.is_there() {
            if found {
                return;
            }
            // (what holds it is there, and yet it is not found: so it will be with another one)
            handle = None;
        }
        before.segment.remove();
    }
    let segment = match handle {
        Some(_) => Segment::new().ok(),
        None => Some(Segment(-1)),
    };
    let Some(segment) = segment else { return };
    let text = Kept { boot, segment, handle, maps: maps.clone() }.text();
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
    if written.is_err() {
        segment.remove();
    }
}

/// Keeps none any more.
pub fn forget(file: &Path) {
    if let Some(kept) = Kept::read(file) {
        kept.segment.remove();
    }
    let _ = fs::remove_file(file);
}

fn boot() -> Option<String> {
    read_proc("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_string())
}

impl Kept {
    /// What a file of this boot says.
    fn read(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        Self::parse(&text).filter(|kept| Some(&kept.boot) == boot().as_ref())
    }

    fn text(&self) -> String {
        let hex = |data: &[u8]| data.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let lines = |name: &str, map: &IdMap| -> String {
            let line = |e: &Extent| format!("{name} {} {} {}\n", e.inside, e.outside, e.length);
            map.extents().iter().map(line).collect()
        };
        let handle = self.handle.as_ref().map(|h| format!("handle {} {}\n", h.kind, hex(&h.data)));
        let (uid, gid) = (lines("uid", &self.maps.uid), lines("gid", &self.maps.gid));
        format!("boot {}\nsegment {}\n{}{uid}{gid}", self.boot, self.segment.0, handle.unwrap_or_default())
    }

    fn parse(text: &str) -> Option<Self> {
        let (mut boot, mut segment, mut handle) = (None, None, None);
        let (mut uid, mut gid) = (Vec::new(), Vec::new());
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["boot", id] => boot = Some(id.to_string()),
                ["segment", id] => segment = Some(Segment(id.parse().ok()?)),
                ["handle", kind, hex] => {
                    let byte = |n: usize| u8::from_str_radix(hex.get(2 * n..2 * n + 2)?, 16).ok();
                    let data = (0..hex.len() / 2).map(byte).collect::<Option<Vec<u8>>>()?;
                    handle = Some(Handle { kind: kind.parse().ok()?, data });
                }
                [name @ ("uid" | "gid"), inside, outside, length] => {
                    let number = |text: &str| text.parse().ok();
                    let extent = Extent::new(number(inside)?, number(outside)?, number(length)?);
                    if name == "uid" { uid.push(extent) } else { gid.push(extent) }
                }
                _ => return None,
            }
        }
        let maps = IdMaps { uid: IdMap::new(uid).ok()?, gid: IdMap::new(gid).ok()? };
        Some(Self { boot: boot?, segment: segment?, handle, maps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        let map = |own| IdMap::new(vec![Extent::new(0, own, 1), Extent::new(1, 100_000, 65536)]).unwrap();
        let handle = Some(Handle { kind: 241, data: vec![0, 0x1f, 0xff] });
        let maps = IdMaps { uid: map(1000), gid: map(1001) };
        Kept { boot: "a-b".into(), segment: Segment(7), handle, maps }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Kept::parse(&kept().text()), Some(kept()));
        let without = Kept { handle: None, segment: Segment(-1), ..kept() };
        assert_eq!(Kept::parse(&without.text()), Some(without));
    }

    #[test]
    fn half_a_file_is_none() {
        let text = kept().text();
        for end in 0..text.len() - 1 {
            assert_ne!(Kept::parse(&text[..end]), Some(kept()), "{end}");
        }
        assert_eq!(Kept::parse("boot x\nsegment y\n"), None);
    }
}
