//! Reading events, and going on as more come.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::{Event, is_current};

/// Longer lines are not ours.
const MAX_LINE: u64 = 4 << 20;

/// Reads a log of events as it grows, over rotations; what a rotation copied comes once.
pub struct Follower {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// The last line that was read; when the file is replaced, what comes after it there is new.
    last: Vec<u8>,
    /// The beginning of a line whose end is not there yet.
    begun: Vec<u8>,
}

impl Follower {
    /// From the beginning of the file, which may not be there yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.into(), file: None, last: Vec::new(), begun: Vec::new() }
    }

    /// All that are there and were not read yet.
    pub fn next_events(&mut self) -> Vec<Event> {
        let mut all = Vec::new();
        let mut replaced = false;
        loop {
            if self.file.is_none() {
                match File::open(&self.path) {
                    Ok(file) => self.file = Some(BufReader::new(file)),
                    Err(_) => return all,
                }
            }
            // (looked at before it is read: whoever writes to it now finds it current, too)
            let current = self.file.as_ref().is_some_and(|f| is_current(f.get_ref(), &self.path));
            let lines = self.lines();
            let seen = if replaced { lines.iter().rposition(|line| *line == self.last) } else { None };
            let new = &lines[seen.map_or(0, |n| n + 1)..];
            all.extend(new.iter().filter_map(|line| serde_json::from_slice::<Event>(line).ok()));
            self.last = lines.into_iter().next_back().unwrap_or(std::mem::take(&mut self.last));
            if current {
                return all;
            }
            self.file = None;
            self.begun.clear();
            replaced = true;
        }
    }

    fn lines(&mut self) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let Some(file) = &mut self.file else { return lines };
        loop {
            let left = MAX_LINE - self.begun.len() as u64;
            match file.by_ref().take(left).read_until(b'\n', &mut self.begun) {
                Ok(0) | Err(_) => return lines,
                Ok(_) if self.begun.last() == Some(&b'\n') || self.begun.len() as u64 >= MAX_LINE => {
                    lines.push(std::mem::take(&mut self.begun));
                }
                Ok(_) => {}
            }
        }
    }

    /// Waits until something is written, at most so long.
    pub fn wait(&self, most: Option<Duration>) -> io::Result<()> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir)?;
        let of_dir = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, dir, of_dir)?;
        let _ = inotify::add_watch(&watch, &self.path, inotify::WatchFlags::MODIFY);
        // what was written before the watch is seen at once; a second at most otherwise, whatever is missed
        let most = most.unwrap_or(Duration::MAX).min(Duration::from_secs(1));
        let grown = self.file.as_ref().is_none_or(|f| {
            let read = rustix::fs::tell(f.get_ref()).unwrap_or(0);
            f.get_ref().metadata().is_ok_and(|m| m.len() > read) || !is_current(f.get_ref(), &self.path)
        });
        let most = if grown && self.path.exists() { most.min(Duration::from_millis(10)) } else { most };
        let timeout = Timespec { tv_sec: most.as_secs() as i64, tv_nsec: most.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// All events of a file.
#[cfg(test)]
pub fn all(path: &Path) -> Vec<Event> {
    Follower::new(path).next_events()
}
