//! The host's names for its ids: from the host's /etc/passwd and /etc/group, else from its NSS through getent(1).
//! Never from an image.

use std::fs;
use std::process::{Command, Stdio};

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

fn name_of(database: &str, id: u32) -> Option<String> {
    let id = id.to_string();
    let text = fs::read_to_string(format!("/etc/{database}")).unwrap_or_default();
    let line = text.lines().find(|line| line.split(':').nth(2) == Some(&id)).map(str::to_string);
    let line = line.or_else(|| has_other_sources(database).then(|| getent(database, &id)).flatten())?;
    line.split(':').next().map(str::to_string)
}

/// nsswitch.conf(5) names more than the files that we have read.
fn has_other_sources(database: &str) -> bool {
    let text = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    text.lines().filter_map(|line| line.strip_prefix(database)?.trim_start().strip_prefix(':')).any(
        |sources| sources.split_whitespace().any(|s| !matches!(s, "files" | "compat") && !s.starts_with('[')),
    )
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
    fn root_is_root() {
        assert_eq!(super::host_user(0).as_deref(), Some("root"));
        assert_eq!(super::host_group(0).as_deref(), Some("root"));
        assert_eq!(super::host_user(4_000_000_123), None);
    }
}
