//! proc_pid_mountinfo(5): what is mounted where.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// `MAJOR:MINOR` of the filesystem.
    pub device: String,
    /// What of the filesystem is mounted.
    pub root: PathBuf,
    /// Where, below the root of the process.
    pub target: PathBuf,
    /// The mount's own options, `rw,nosuid`.
    pub options: String,
    /// Kind of filesystem.
    pub kind: String,
    /// The filesystem's options.
    pub super_options: String,
}

impl Mounted {
    /// The mount itself has an option.
    pub fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|o| o == option)
    }
}

/// The mounts of a process, `self` too.
pub fn of(pid: &str) -> io::Result<Vec<Mounted>> {
    let mut table = Vec::with_capacity(16 << 10);
    File::open(format!("/proc/{pid}/mountinfo"))?.read_to_end(&mut table)?;
    Ok(parse(&table))
}

/// Lines that are none are left out.
pub fn parse(table: &[u8]) -> Vec<Mounted> {
    table.split(|b| *b == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mounted> {
    let text = |word: &[u8]| String::from_utf8_lossy(&unescape(word)).into_owned();
    let path = |word: &[u8]| PathBuf::from(OsString::from_vec(unescape(word)));
    let mut words = line.split(|b| *b == b' ').skip(2);
    let (device, root, target, options) = (words.next()?, words.next()?, words.next()?, words.next()?);
    // (so many optional fields, and a dash)
    let mut after = words.skip_while(|word| *word != b"-").skip(1);
    let kind = after.next()?;
    Some(Mounted {
        device: text(device),
        root: path(root),
        target: path(target),
        options: text(options),
        kind: text(kind),
        super_options: text(after.nth(1).unwrap_or_default()),
    })
}

/// `\040` is a space.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        let code = (*first == b'\\').then(|| more.get(..3)).flatten();
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(code.unwrap_or(*first));
        rest = if code.is_some() { &more[3..] } else { more };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let table = b"36 35 98:0 /mnt1 /a\\040b rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\nbroken\n40 1 0:5 / /x ro - tmpfs none\n";
        let found = parse(table);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].target.to_str(), found[0].kind.as_str()), (Some("/a b"), "ext3"));
        assert_eq!((found[0].root.to_str(), found[0].device.as_str()), (Some("/mnt1"), "98:0"));
        assert_eq!(found[0].super_options, "rw,errors=continue");
        assert!(found[0].has("noatime") && !found[0].has("errors=continue"));
        assert_eq!((found[1].kind.as_str(), found[1].super_options.as_str()), ("tmpfs", ""));
        assert_eq!(unescape(b"a\\134b\\"), b"a\\b\\");
        assert!(of("self").unwrap().iter().any(|m| m.target.to_str() == Some("/")));
    }
}
