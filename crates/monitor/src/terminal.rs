//! The user's terminal: raw while a container has it, and always given back as it was.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::termios::{
    OptionalActions, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

/// Raw until dropped.
pub struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Raw<'a> {
    /// Makes a terminal raw; none if it is none.
    pub fn enter(terminal: BorrowedFd<'a>) -> Option<Self> {
        let before = isatty(terminal).then(|| tcgetattr(terminal).ok())??;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw).ok()?;
        Some(Self { terminal, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Rows and columns.
pub fn size(terminal: impl AsFd) -> Option<(u16, u16)> {
    tcgetwinsize(terminal).ok().filter(|s| s.ws_row != 0 && s.ws_col != 0).map(|s| (s.ws_row, s.ws_col))
}

/// Sets rows and columns.
pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) {
    let _ = tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 });
}

/// Keys that detach, such as `ctrl-p,ctrl-q`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    seen: usize,
}

impl DetachKeys {
    /// A sequence of `ctrl-X` and single characters with commas between; empty for none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let key = |part: &str| match (part.as_bytes(), part.strip_prefix("ctrl-").map(str::as_bytes)) {
            ([byte], _) => Ok(*byte),
            (_, Some([letter @ b'a'..=b'z'])) => Ok(letter - b'a' + 1),
            (_, Some([letter @ b'A'..=b'Z'])) => Ok(letter - b'A' + 1),
            (_, Some([sign @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')])) => Ok(sign - b'@'),
            _ => Err(format!(
                "invalid detach keys {text:?}: they are ctrl-LETTER or single characters, with commas between"
            )),
        };
        let keys =
            if text.is_empty() { Vec::new() } else { text.split(',').map(key).collect::<Result<_, _>>()? };
        Ok(Self { keys, seen: 0 })
    }

    /// What of these bytes goes on to the container; none if they detach. Bytes that began the sequence and did
    /// not go on with it are handed on.
    pub fn filter(&mut self, input: &[u8]) -> Option<Vec<u8>> {
        if self.keys.is_empty() {
            return Some(input.to_vec());
        }
        let mut passed = Vec::with_capacity(input.len());
        for &byte in input {
            if byte == self.keys[self.seen] {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return None;
                }
                continue;
            }
            passed.extend(&self.keys[..self.seen]);
            self.seen = usize::from(byte == self.keys[0]);
            if self.seen == 0 {
                passed.push(byte);
            }
        }
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::DetachKeys;

    #[test]
    fn detach_keys() {
        let mut keys = DetachKeys::parse("ctrl-p,ctrl-q").unwrap();
        assert_eq!(keys.filter(b"a\x10b").unwrap(), b"a\x10b");
        assert_eq!(keys.filter(b"a\x10").unwrap(), b"a");
        assert_eq!(keys.filter(b"\x10").unwrap(), b"\x10");
        assert_eq!(keys.filter(b"\x11"), None);
        assert_eq!(DetachKeys::parse("").unwrap().filter(b"\x10\x11").unwrap(), b"\x10\x11");
        assert_eq!(DetachKeys::parse("ctrl-x,a").unwrap().filter(b"\x18a"), None);
        assert!(DetachKeys::parse("ctrl-").is_err());
        assert!(DetachKeys::parse("alt-x").is_err());
    }
}
