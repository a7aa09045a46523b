//! Whose an id is on the host: an account, a subordinate id of one, or nobody's. The host's own files and name service
//! are asked, never an image.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;
use unroot_idmap::names;

/// A line of /etc/subuid or /etc/subgid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The user, by the name that the line has (or the name of the number that it has).
    pub owner: String,
    /// The first id.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Range {
    /// It has the id.
    pub fn contains(&self, id: u32) -> bool {
        id.checked_sub(self.first).is_some_and(|offset| offset < self.count)
    }

    /// Its last id.
    pub fn last(&self) -> u32 {
        self.first.saturating_add(self.count - 1)
    }
}

/// Whose an id is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Owner {
    /// An account of the host.
    Account {
        /// Its name.
        name: String,
    },
    /// A subordinate id.
    Subordinate {
        /// Whose.
        owner: String,
        /// Counted from the first id of the range.
        offset: u32,
    },
    /// No account has it, and nobody has it as a subordinate id.
    Nobody,
}

/// The host's ids.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Accounts of /etc/passwd; others are found by asking for them.
    pub accounts: BTreeMap<u32, Account>,
    /// /etc/subuid.
    pub subuids: Vec<Range>,
    /// /etc/subgid.
    pub subgids: Vec<Range>,
}

/// An account of /etc/passwd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its home.
    pub home: String,
    /// It can log in.
    pub has_shell: bool,
}

impl Host {
    /// Reads it.
    pub fn read() -> Self {
        let accounts = accounts(&fs::read_to_string("/etc/passwd").unwrap_or_default());
        let ranges = |file: &str| ranges(&fs::read_to_string(file).unwrap_or_default(), &accounts);
        let (subuids, subgids) = (ranges("/etc/subuid"), ranges("/etc/subgid"));
        Self { accounts, subuids, subgids }
    }

    /// Whose a user id is.
    pub fn owner_of_uid(&self, uid: u32) -> Owner {
        let known = self.accounts.get(&uid).map(|a| a.name.clone());
        self.owner(uid, &self.subuids, known.or_else(|| names::host_user(uid)))
    }

    /// Whose a group id is.
    pub fn owner_of_gid(&self, gid: u32) -> Owner {
        self.owner(gid, &self.subgids, names::host_group(gid))
    }

    fn owner(&self, id: u32, ranges: &[Range], name: Option<String>) -> Owner {
        match (name, ranges.iter().find(|r| r.contains(id))) {
            (Some(name), _) => Owner::Account { name },
            (None, Some(range)) => {
                Owner::Subordinate { owner: range.owner.clone(), offset: id - range.first }
            }
            (None, None) => Owner::Nobody,
        }
    }
}

fn accounts(passwd: &str) -> BTreeMap<u32, Account> {
    let mut all = BTreeMap::new();
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, _, _, home, shell] = fields[..] else { continue };
        let Ok(uid) = uid.parse() else { continue };
        let has_shell = !shell.ends_with("/nologin") && !shell.ends_with("/false");
        all.entry(uid).or_insert_with(|| Account { name: name.into(), home: home.into(), has_shell });
    }
    all
}

/// The lines of /etc/subuid that are ranges.
fn ranges(text: &str, accounts: &BTreeMap<u32, Account>) -> Vec<Range> {
    let mut all = Vec::new();
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let (Some(owner), Some(first), Some(count)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (Ok(first), Ok(count)) = (first.parse::<u32>(), count.parse::<u32>()) else { continue };
        if owner.is_empty() || owner.starts_with('#') || count == 0 {
            continue;
        }
        let named = owner.parse().ok().and_then(|uid: u32| accounts.get(&uid)).map(|a| a.name.clone());
        all.push(Range { owner: named.unwrap_or_else(|| owner.to_string()), first, count });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn host() -> Host {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nfatherlinux:x:1000:1000::/home/fatherlinux:/bin/bash\ndaemon:x:1:1::/:/usr/sbin/nologin\n";
        let accounts = accounts(passwd);
        let subuids = ranges("fatherlinux:100000:65536\n# no\n1000:300000:10\nbroken\nx:1:0\n", &accounts);
        Host { accounts, subgids: subuids.clone(), subuids }
    }

    #[test]
    fn owners() {
        let host = host();
        assert_eq!(host.subuids.len(), 2);
        assert_eq!(host.subuids[1].owner, "fatherlinux");
        let subordinate = |offset| Owner::Subordinate { owner: "fatherlinux".into(), offset };
        assert_eq!(host.owner_of_uid(0), Owner::Account { name: "root".into() });
        assert_eq!(host.owner_of_uid(100_998), subordinate(998));
        assert_eq!(host.owner_of_uid(165_535), subordinate(65_535));
        assert_eq!(host.owner_of_uid(300_009), subordinate(9));
        assert_eq!(host.owner_of_uid(4_000_000_000), Owner::Nobody);
        assert!(host.accounts[&1000].has_shell && !host.accounts[&1].has_shell);
    }
}
