//! What files of the host an id may read or write, by their owners and modes (path_resolution(7)). Nothing is opened.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::Serialize;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// User id on the host.
    pub uid: u32,
    /// Group id on the host.
    pub gid: u32,
    /// Supplementary groups on the host.
    pub groups: Vec<u32>,
    /// It has CAP_DAC_OVERRIDE over the host.
    pub overrides: bool,
}

/// What it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Access {
    /// Read the file, list the directory.
    pub read: bool,
    /// Change it.
    pub write: bool,
}

impl Identity {
    /// The three bits that hold for it.
    fn bits(&self, uid: u32, gid: u32, mode: u32) -> u32 {
        match () {
            () if self.uid == uid => mode >> 6 & 7,
            () if self.gid == gid || self.groups.contains(&gid) => mode >> 3 & 7,
            () => mode & 7,
        }
    }

    /// What it may do to a path of the host; none if that cannot be told: it is not there, has an access control
    /// list, or we may not look ourselves.
    pub fn access(&self, path: &Path) -> Option<Access> {
        if self.overrides {
            return fs::symlink_metadata(path).ok().map(|_| Access { read: true, write: true });
        }
        let real = fs::canonicalize(path).ok()?;
        for dir in real.ancestors().skip(1) {
            let meta = fs::metadata(dir).ok()?;
            if self.bits(meta.uid(), meta.gid(), meta.mode()) & 1 == 0 {
                return Some(Access { read: false, write: false });
            }
        }
        let meta = fs::metadata(&real).ok()?;
        let mut value = [0; 4];
        if rustix::fs::getxattr(&real, c"system.posix_acl_access", &mut value[..])
            != Err(rustix::io::Errno::NODATA)
            && rustix::fs::getxattr(&real, c"system.posix_acl_access", &mut value[..])
                != Err(rustix::io::Errno::OPNOTSUPP)
        {
            return None;
        }
        let bits = self.bits(meta.uid(), meta.gid(), meta.mode());
        Some(Access { read: bits & 4 != 0, write: bits & 2 != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_class_that_fits_decides() {
        let fred = Identity { uid: 1000, gid: 1000, groups: vec![27], overrides: false };
        assert_eq!(fred.bits(1000, 0, 0o407), 4);
        assert_eq!(fred.bits(0, 27, 0o060), 6);
        assert_eq!(fred.bits(0, 1000, 0o016), 1);
        assert_eq!(fred.bits(0, 0, 0o755), 5);
    }

    #[test]
    fn paths() {
        let nobody = Identity { uid: 4_000_000, gid: 4_000_000, groups: vec![], overrides: false };
        let root = Identity { overrides: true, uid: 0, gid: 0, groups: vec![] };
        assert_eq!(nobody.access(Path::new("/etc/passwd")), Some(Access { read: true, write: false }));
        assert_eq!(root.access(Path::new("/etc/passwd")), Some(Access { read: true, write: true }));
        assert_eq!(nobody.access(Path::new("/nosuch")), None);
    }
}
