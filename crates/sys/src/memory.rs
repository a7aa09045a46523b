//! Memory that a process which waits for a long time does not need.

use std::fs;

/// Gives back what the kernel can bring again, and what is free in the heap: code and constants that a process was
/// started with but does not use any more are read from their file again if it does (madvise(2), MADV_DONTNEED).
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it releases free memory of the heap, and takes no pointers.
    unsafe {
        libc::malloc_trim(0);
    }
    let Ok(maps) = fs::read_to_string("/proc/self/smaps") else { return };
    let mut current: Option<(usize, usize)> = None;
    for line in maps.lines() {
        if let Some(range) = mapping(line) {
            current = range;
            continue;
        }
        let anonymous = line.strip_prefix("Anonymous:").map(str::trim);
        let Some((start, length)) = current.filter(|_| anonymous == Some("0 kB")) else { continue };
        // SAFETY: the mapping is a file's, it cannot be written to and no page of it ever was: what is read from it
        // after this is what was read before.
        unsafe {
            libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
        }
    }
}

/// The first line of a mapping; `Some(None)` is one that is none of a file's or can be written to.
fn mapping(line: &str) -> Option<Option<(usize, usize)>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text: &str| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let permissions = words.next()?;
    let inode = words.nth(2)?;
    let is_fixed = permissions.starts_with('r') && !permissions.contains('w') && permissions.ends_with('p');
    Some((is_fixed && inode != "0").then_some((start, end - start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_smaps() {
        assert_eq!(mapping("1000-3000 r-xp 00000000 fe:00 17 /bin/x"), Some(Some((0x1000, 0x2000))));
        assert_eq!(mapping("1000-3000 rw-p 00000000 fe:00 17 /bin/x"), Some(None));
        assert_eq!(mapping("1000-3000 r--p 00000000 00:00 0 [vvar]"), Some(None));
        assert_eq!(mapping("Rss:                  12 kB"), None);
    }

    /// What is given back is what it was.
    #[test]
    fn constants_stay() {
        let text = |n: u32| format!("{n}: {:?}", mapping("1000-3000 r-xp 00000000 fe:00 17 /bin/x"));
        let before = text(5);
        give_back();
        assert_eq!(text(5), before);
    }
}
