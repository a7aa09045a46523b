//! The host's names for its ids: from the host's /etc/passwd and /etc/group, else from its NSS through getent(1).
//! Never from an image.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The host's name for a user id.
pub fn host_user(uid: u32) -> Option<String> {
    name_of("passwd", uid)
}

/// The host's name for a group id.
pub fn host_group(gid: u32) -> Option<String> {
    name_of("group", gid)
}

/// The host's passwd line of a user, by name or number.
pub fn passwd_line(key: &str) -> Option<String> {
    let of_file = |line: &&str| {
        let mut fields = line.split(':');
        fields.next() == Some(key) || fields.nth(1) == Some(key)
    };
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    text.lines().find(of_file).map(str::to_string).or_else(|| getent("passwd", key))
}

fn name_of(database: &'static str, id: u32) -> Option<String> {
    let number = id.to_string();
    let text = fs::read_to_string(format!("/etc/{database}")).unwrap_or_default();
    let line = text.lines().find(|line| line.split(':').nth(2) == Some(&number));
    let name = |line: &str| line.split(':').next().map(str::to_string);
    line.map_or_else(|| asked(database, id, || name(&getent(database, &number)?)), name)
}

/// What the name service said of an id: it takes a process to ask it.
fn asked(database: &'static str, id: u32, ask: impl FnOnce() -> Option<String>) -> Option<String> {
    static SAID: Mutex<BTreeMap<(&str, u32), Option<String>>> = Mutex::new(BTreeMap::new());
    let sources = sources(&fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default(), database);
    if sources.is_empty() || (sources == ["systemd"] && is_subordinate(id)) {
        return None;
    }
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    said.entry((database, id)).or_insert_with(ask).clone()
}

/// What nsswitch.conf(5) names beside the files that we have read.
fn sources(text: &str, database: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(database)?.trim_start().strip_prefix(':'));
    let words = lines.flat_map(str::split_whitespace);
    words.filter(|s| !matches!(*s, "files" | "compat") && !s.starts_with('[')).map(str::to_string).collect()
}

/// It is given away in /etc/subuid: systemd's own users (nss-systemd(8)) are elsewhere.
fn is_subordinate(id: u32) -> bool {
    let text = fs::read_to_string("/etc/subuid").unwrap_or_default();
    text.lines().any(|line| {
        let mut fields = line.split(':').skip(1).map_while(|f| f.trim().parse::<u32>().ok());
        let (first, count) = (fields.next(), fields.next());
        first.zip(count).is_some_and(|(first, count)| id.checked_sub(first).is_some_and(|n| n < count))
    })
}

fn getent(database: &str, key: &str) -> Option<String> {
    let output = Command::new("getent")
        .args([database, "--", key])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| text.lines().next().unwrap_or_default().to_string())
        .filter(|l| !l.is_empty())
}

#[cfg(test)]
mod tests {
    #[test]
    fn sources_beside_the_files() {
        let text = "# passwd: nis\npasswd:  files [NOTFOUND=return] systemd sss\ngroup: files\n";
        assert_eq!(super::sources(text, "passwd"), ["systemd", "sss"]);
        assert!(super::sources(text, "group").is_empty());
    }

    #[test]
    fn root_is_root() {
        assert_eq!(super::host_user(0).as_deref(), Some("root"));
        assert_eq!(super::host_group(0).as_deref(), Some("root"));
        assert_eq!(super::host_user(4_000_000_123), None);
    }
}
