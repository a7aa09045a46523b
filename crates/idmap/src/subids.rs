//! Whose subordinate ids: /etc/subuid and /etc/subgid by name and by number, else what getsubids(1) says where
//! nsswitch.conf(5) has a `subid` line.

use std::fs;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::{Error, invalid};

/// Ranges of a user: first id, how many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubIds {
    /// User ids.
    pub uid: Vec<(u32, u32)>,
    /// Group ids.
    pub gid: Vec<(u32, u32)>,
}

impl SubIds {
    /// The ranges of a user.
    pub fn of(name: &str, uid: u32) -> Result<Self, Error> {
        let nss = nss_has_subids();
        let find = |file: &str, flag: &[&str]| match nss {
            true => getsubids(flag, name),
            false => from_file(file, name, uid),
        };
        Ok(Self { uid: find("/etc/subuid", &[])?, gid: find("/etc/subgid", &["-g"])? })
    }

    /// There is no range of either kind.
    pub fn is_missing(&self) -> bool {
        self.uid.is_empty() || self.gid.is_empty()
    }
}

fn from_file(file: &str, name: &str, uid: u32) -> Result<Vec<(u32, u32)>, Error> {
    match fs::read_to_string(file) {
        Ok(text) => parse(file, &text, name, uid),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => invalid(format!("read {file}: {e}")),
    }
}

/// Lines `NAME-OR-UID:FIRST:COUNT`. A broken line of this user's is an error; of others', theirs.
pub fn parse(file: &str, text: &str, name: &str, uid: u32) -> Result<Vec<(u32, u32)>, Error> {
    let mut ranges = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut fields = line.trim().split(':');
        let owner = fields.next().unwrap_or_default();
        if owner.is_empty() || (owner != name && owner != uid.to_string()) {
            continue;
        }
        let mut next = || fields.next().and_then(|f| f.parse::<u32>().ok());
        let range =
            next().zip(next()).filter(|(first, count)| *count > 0 && first.checked_add(*count).is_some());
        let Some(range) = range else {
            return invalid(format!("{file}:{}: not a range NAME:FIRST:COUNT: {line:?}", number + 1));
        };
        if !ranges.contains(&range) {
            ranges.push(range);
        }
    }
    Ok(ranges)
}

pub(crate) fn nss_has_subids() -> bool {
    fs::read_to_string("/etc/nsswitch.conf").is_ok_and(|text| {
        text.lines().any(|line| {
            line.strip_prefix("subid").is_some_and(|rest| {
                rest.trim_start().strip_prefix(':').is_some_and(|sources| sources.trim() != "files")
            })
        })
    })
}

/// `0: fatherlinux 100000 65536`
fn getsubids(flag: &[&str], name: &str) -> Result<Vec<(u32, u32)>, Error> {
    let output =
        Command::new("getsubids").args(flag).arg(name).stdin(Stdio::null()).output().map_err(|e| {
            Error::Cured {
                text: format!("exec getsubids, which nsswitch.conf's subid line asks for: {e}"),
                hint: "install it (Debian: uidmap, Fedora: shadow-utils-subid)".into(),
            }
        })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(2).map_while(|f| f.parse::<u32>().ok());
            fields.next().zip(fields.next())
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn by_name_and_by_number() {
        let text = "fred:165536:65536\nfatherlinux:100000:65536\n1000:400000:10\n# comment\n";
        assert_eq!(parse("f", text, "fatherlinux", 1000).unwrap(), [(100_000, 65536), (400_000, 10)]);
        assert_eq!(parse("f", text, "nobody", 7).unwrap(), []);
        assert!(parse("f", "a:1:x", "a", 1).is_err());
        assert!(parse("f", "a:4294967295:2", "a", 1).is_err());
    }
}
