//! The id space of a host: its accounts, who has which subordinate ids, what containers hold of them, what is wrong with
//! that, and how many users still fit. Pure: [`Space::read`] alone looks at the host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::Serialize;

use crate::{IdMap, IdMaps, Ranges, observe};

/// Ids of a file's line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// `/etc/subuid`
    pub file: &'static str,
    /// Counted from 1.
    pub line: usize,
    /// Whose, as typed.
    pub owner: String,
    /// The first id.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl Line {
    /// The id after the last one.
    pub fn end(&self) -> u64 {
        self.first + self.count
    }

    fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its id.
    pub uid: u32,
    /// A person's: an id from 1000 on, and a shell.
    pub is_person: bool,
}

/// Ids that processes have in a user namespace of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The first id on the host.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// A container's name, or a process's number.
    pub by: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// To know.
    Note,
    /// Something will not work.
    Warning,
    /// One user may be another.
    Error,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad.
    pub weight: Weight,
    /// `overlap`, `short`, ...
    pub id: &'static str,
    /// What.
    pub text: String,
    /// What cures it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Space {
    /// By id.
    pub accounts: Vec<Account>,
    /// Lines of both files.
    pub lines: Vec<Line>,
    /// What is in use now.
    pub held: Vec<Held>,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
    /// So many users of 65536 ids fit where useradd(8) looks.
    pub fit_for_useradd: u64,
    /// So many fit in all.
    pub fit: u64,
    /// Where useradd(8) looks, and how many a user gets: login.defs(5).
    pub defaults: Defaults,
}

/// login.defs(5)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Defaults {
    /// SUB_UID_MIN
    pub min: u64,
    /// SUB_UID_MAX
    pub max: u64,
    /// SUB_UID_COUNT
    pub count: u64,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { min: 100_000, max: 600_100_000, count: 65536 }
    }
}

/// All ids but the last one, which stands for none.
pub const WHOLE: u64 = u32::MAX as u64;
/// As many as an image may use.
pub const USUAL: u64 = 65536;

/// Ranges that others give out without asking a file: systemd's (systemd.io/UIDS-GIDS).
pub const OTHERS: [(u64, u64, &str); 3] = [
    (61184, 65520, "systemd's dynamic users"),
    (65534, 65536, "nobody, and 16 bits' none"),
    (2_147_352_576, 2_147_418_112, "foreign files (systemd)"),
];

impl Space {
    /// Of this host. `named` are maps of containers, to the host, by name.
    pub fn read(named: &[(String, IdMap)]) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut space = Self::of(
            &text("/etc/passwd"),
            &text("/etc/subuid"),
            &text("/etc/subgid"),
            &text("/etc/login.defs"),
            held(named),
        );
        if crate::subids::nss_has_subids() {
            space.findings.push(Finding {
                weight: Weight::Note,
                id: "name-service",
                text: "nsswitch.conf has subordinate ids come from a name service too, which tells one user's at a time: they are not in this picture".into(),
                cure: Some("getsubids USER".into()),
            });
        }
        space
    }

    /// Of these files.
    pub fn of(passwd: &str, subuid: &str, subgid: &str, login_defs: &str, held: Vec<Held>) -> Self {
        let accounts = accounts(passwd);
        let mut findings = Vec::new();
        let mut lines = parse("/etc/subuid", subuid, &mut findings);
        lines.extend(parse("/etc/subgid", subgid, &mut findings));
        let defaults = defaults(login_defs);
        overlaps(&lines, &accounts, &mut findings);
        over_accounts(&lines, &accounts, &mut findings);
        owners(&lines, &accounts, &mut findings);
        findings.sort_by(|a, b| b.weight.cmp(&a.weight).then(a.id.cmp(b.id)));
        let mut space = Self { accounts, lines, held, findings, fit_for_useradd: 0, fit: 0, defaults };
        let places = |ranges: &Ranges| ranges.as_slice().iter().map(|(a, b)| (b - a) / USUAL).sum();
        let free = space.free();
        space.fit = places(&free);
        space.fit_for_useradd = places(&free.common(&Ranges::new([(defaults.min, defaults.max + 1)])));
        space
    }

    /// Ids that nobody has, from the first that useradd(8) gives on.
    pub fn free(&self) -> Ranges {
        let taken = self.lines.iter().map(|l| (l.first, l.end()));
        let accounts = self.accounts.iter().map(|a| (u64::from(a.uid), u64::from(a.uid) + 1));
        let others = OTHERS.iter().map(|(a, b, _)| (*a, *b));
        let held = self.held.iter().map(|h| (h.first, h.first + h.count));
        let busy = Ranges::new(taken.chain(accounts).chain(others).chain(held));
        Ranges::new([(self.defaults.min.min(100_000), WHOLE)]).without(&busy)
    }

    /// Where so many ids are free in a row: where useradd(8) would look first, else anywhere.
    pub fn place_for(&self, count: u64) -> Option<u64> {
        let free = self.free();
        let near = free.common(&Ranges::new([(self.defaults.min, self.defaults.max + 1)]));
        let found = near.first_with(count).or_else(|| free.first_with(count))?;
        found.as_slice().first().map(|(start, _)| *start)
    }

    /// The worst that was found.
    pub fn worst(&self) -> Option<Weight> {
        self.findings.iter().map(|f| f.weight).max()
    }

    /// An owner's ids of one file.
    pub fn of_owner(&self, name: &str, file: &str) -> Vec<&Line> {
        let uid = self.accounts.iter().find(|a| a.name == name).map(|a| a.uid.to_string());
        let is_own = |line: &&Line| line.owner == name || Some(&line.owner) == uid.as_ref();
        self.lines.iter().filter(|l| l.file == file).filter(is_own).collect()
    }
}

/// Maps of this engine's containers, and of every other process that has a map of its own, each map once.
fn held(named: &[(String, IdMap)]) -> Vec<Held> {
    let mut all = Vec::new();
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut add = |by: &str, map: &IdMap| {
        if known.insert(map.to_string()) {
            for extent in map.extents().iter().filter(|e| e.length != u32::MAX) {
                all.push(Held { first: extent.outside.into(), count: extent.length.into(), by: by.into() });
            }
        }
    };
    named.iter().for_each(|(name, map)| add(name, map));
    live_maps().iter().for_each(|(name, maps)| add(name, &maps.uid));
    all.sort_by_key(|h| h.first);
    all
}

/// Maps of processes that have one of their own, whatever engine made them, each once.
pub fn live_maps() -> Vec<(String, IdMaps)> {
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut all = Vec::new();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in pids.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()) {
        let Ok(maps) = observe::maps_of(&pid.to_string()) else { continue };
        if maps != IdMaps::identity() && known.insert(format!("{}{}", maps.uid, maps.gid)) {
            all.push((format!("process {pid}"), maps));
        }
    }
    all
}

fn accounts(passwd: &str) -> Vec<Account> {
    let mut all: Vec<Account> = passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let (name, uid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
            let shell = fields.nth(3).unwrap_or_default();
            let logs_in = !shell.ends_with("nologin") && !shell.ends_with("/false");
            Some(Account { name: name.into(), uid, is_person: (1000..60_001).contains(&uid) && logs_in })
        })
        .collect();
    all.sort_by_key(|a| a.uid);
    all
}

fn defaults(login_defs: &str) -> Defaults {
    let value = |name: &str| {
        login_defs.lines().find_map(|l| l.trim().strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    let usual = Defaults::default();
    Defaults {
        min: value("SUB_UID_MIN").unwrap_or(usual.min),
        max: value("SUB_UID_MAX").unwrap_or(usual.max),
        count: value("SUB_UID_COUNT").unwrap_or(usual.count),
    }
}

fn parse(file: &'static str, text: &str, findings: &mut Vec<Finding>) -> Vec<Line> {
    let mut lines = Vec::new();
    for (n, text) in text.lines().enumerate() {
        if text.trim().is_empty() || text.trim().starts_with('#') {
            continue;
        }
        let fields: Vec<&str> = text.trim().split(':').collect();
        let range = match fields[..] {
            [owner, first, count] if !owner.is_empty() => {
                first.parse::<u64>().ok().zip(count.parse::<u64>().ok()).map(|r| (owner, r))
            }
            _ => None,
        };
        let fits = |(first, count): (u64, u64)| {
            count > 0 && first.checked_add(count).is_some_and(|e| e <= WHOLE + 1)
        };
        match range.filter(|(_, range)| fits(*range)) {
            Some((owner, (first, count))) => {
                lines.push(Line { file, line: n + 1, owner: owner.into(), first, count });
            }
            None => findings.push(Finding {
                weight: Weight::Error,
                id: "line",
                text: format!("{file}:{}: not a range NAME:FIRST:COUNT of 32 bits: {text:?}", n + 1),
                cure: Some(format!("as root: edit line {} of {file}", n + 1)),
            }),
        }
    }
    lines
}

/// The name for which an owner stands.
fn name_of<'a>(owner: &'a str, accounts: &'a [Account]) -> &'a str {
    let by_number = owner.parse().ok().and_then(|uid: u32| accounts.iter().find(|a| a.uid == uid));
    by_number.map_or(owner, |a| &a.name)
}

fn overlaps(lines: &[Line], accounts: &[Account], findings: &mut Vec<Finding>) {
    for (n, a) in lines.iter().enumerate() {
        for b in lines[n + 1..].iter().filter(|b| b.file == a.file) {
            let (first, end) = (a.first.max(b.first), a.end().min(b.end()));
            if first >= end {
                continue;
            }
            let (one, other) = (name_of(&a.owner, accounts), name_of(&b.owner, accounts));
            let place = format!("{} and {}", a.place(), b.place());
            let text = match one == other {
                true => format!(
                    "{place}: {one} has the ids {first}-{} twice: no map with both is possible",
                    end - 1
                ),
                false => format!(
                    "{place}: {one} and {other} both have the ids {first}-{}: what is in a container of the one may signal processes and read files of the other's",
                    end - 1
                ),
            };
            let cure = match one == other {
                true => format!("as root: delete {}", b.place()),
                false => {
                    let flag = if a.file == "/etc/subuid" { "subuids" } else { "subgids" };
                    let range = format!("{}-{}", b.first, b.end() - 1);
                    format!(
                        "stop containers of {other}, then as root: usermod --del-{flag} {range} {other} && {} ids allocate {other}",
                        "unroot"
                    )
                }
            };
            findings.push(Finding { weight: Weight::Error, id: "overlap", text, cure: Some(cure) });
        }
    }
}

fn over_accounts(lines: &[Line], accounts: &[Account], findings: &mut Vec<Finding>) {
    for line in lines.iter().filter(|l| l.file == "/etc/subuid") {
        let inside = |a: &&Account| (line.first..line.end()).contains(&a.uid.into());
        let mut names = accounts.iter().filter(inside).map(|a| format!("{} ({})", a.name, a.uid));
        let Some(first) = names.next() else { continue };
        let more = names.count();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        findings.push(Finding {
            weight: Weight::Error,
            id: "account",
            text: format!(
                "{}: the range of {} has the id of the account {first}{more}: a container of {}'s may act as it",
                line.place(),
                line.owner,
                name_of(&line.owner, accounts)
            ),
            cure: Some(format!("as root: move the range of {}: delete {}, then unroot ids allocate {0}", line.owner, line.place())),
        });
    }
}

fn owners(lines: &[Line], accounts: &[Account], findings: &mut Vec<Finding>) {
    let mut of: BTreeMap<&str, [(u64, usize); 2]> = BTreeMap::new();
    for line in lines {
        let n = usize::from(line.file == "/etc/subgid");
        let (count, number) = of.entry(name_of(&line.owner, accounts)).or_default()[n];
        of.entry(name_of(&line.owner, accounts)).or_default()[n] = (count + line.count, number + 1);
    }
    let mut add =
        |weight, id, text: String, cure: Option<String>| findings.push(Finding { weight, id, text, cure });
    for (owner, [(uids, uid_lines), (gids, gid_lines)]) in &of {
        let allocate = format!("as root: unroot ids allocate {owner}");
        if *uids == 0 || *gids == 0 {
            let (has, lacks) =
                if *uids == 0 { ("/etc/subgid", "/etc/subuid") } else { ("/etc/subuid", "/etc/subgid") };
            let text =
                format!("{owner} has a range in {has} and none in {lacks}: its containers have one id only");
            add(Weight::Warning, "one-file", text, Some(allocate));
        } else if *uids.min(gids) < USUAL {
            let text = format!(
                "{owner} has {uids} user and {gids} group ids: images with ids up to 65535, nobody's 65534 among them, do not fit"
            );
            add(Weight::Warning, "short", text, Some(allocate));
        }
        if uid_lines.max(gid_lines) > &339 {
            let text = format!(
                "{owner} has {} lines: a map has 340 at most, one of them the user itself",
                uid_lines.max(gid_lines)
            );
            add(Weight::Error, "lines", text, Some("as root: fewer and longer ranges".into()));
        }
        let known = accounts.iter().any(|a| a.name == **owner) || *owner == "containers";
        if !known {
            let text = format!(
                "{owner} is no account in /etc/passwd: it may be of a name service, or was deleted and its ids are still reserved"
            );
            add(Weight::Note, "unknown", text, None);
        }
    }
    for account in accounts.iter().filter(|a| a.is_person && !of.contains_key(a.name.as_str())) {
        let text = format!("{} has no subordinate ids: its containers have one id only", account.name);
        let cure = format!("as root: unroot ids allocate {}", account.name);
        add(Weight::Note, "none", text, Some(cure));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nfatherlinux:x:1000:1000::/home/f:/bin/bash\nfred:x:1001:1001::/home/fred:/bin/bash\nann:x:1002:1002::/h:/bin/sh\nbig:x:200000:1::/:/usr/sbin/nologin\n";

    fn space(subuid: &str, subgid: &str) -> Space {
        Space::of(PASSWD, subuid, subgid, "", Vec::new())
    }

    fn found<'a>(space: &'a Space, id: &str) -> Vec<&'a Finding> {
        space.findings.iter().filter(|f| f.id == id).collect()
    }

    #[test]
    fn a_good_host() {
        let file = "fatherlinux:100000:65536\n1001:300000:65536\n# comment\n";
        let space = space(file, file);
        assert_eq!(space.worst(), Some(Weight::Note), "{:?}", space.findings);
        assert!(found(&space, "none")[0].text.starts_with("ann has no subordinate ids"));
        assert_eq!(space.place_for(65536), Some(200_001));
        assert_eq!(space.place_for(1000), Some(165_536));
        assert!(space.fit > 65_000 && space.fit < 65_536, "{}", space.fit);
        assert_eq!(space.of_owner("fred", "/etc/subuid").len(), 1);
    }

    #[test]
    fn what_is_wrong() {
        let bad = space(
            "fatherlinux:100000:65536\nfred:165000:65536\nann:200000:10\nbroken\nold:4294967295:2\ngone:500000:65536\n",
            "fatherlinux:100000:65536\nfatherlinux:100000:10\nann:1:10\n",
        );
        let overlap = found(&bad, "overlap");
        assert_eq!(overlap.len(), 3);
        assert!(
            overlap[0].text.contains(
                "/etc/subuid:1 and /etc/subuid:2: fatherlinux and fred both have the ids 165000-165535"
            ),
            "{}",
            overlap[0].text
        );
        assert!(overlap[0].cure.as_ref().unwrap().contains("usermod --del-subuids 165000-230535 fred"));
        assert!(overlap[2].text.contains("twice"));
        assert!(found(&bad, "account").iter().any(|f| f.text.contains("big (200000)")));
        assert_eq!(found(&bad, "line").len(), 2);
        assert!(found(&bad, "short")[0].text.starts_with("ann has 10 user and 10 group ids"));
        assert_eq!(found(&bad, "one-file").len(), 2);
        assert_eq!(found(&bad, "unknown").len(), 1);
        assert_eq!(bad.worst(), Some(Weight::Error));
    }
}
