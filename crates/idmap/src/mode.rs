//! Which user namespace a container gets: `--userns`, `--uidmap`, `--gidmap` (podman-run(1)).
//!
//! Maps here go from the container's ids to those of the engine's namespace: its id 0 is the user, the
//! subordinate ids follow from 1 on. As root the engine's namespace is the host's.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{EngineNamespace, Error, Extent, IdMap, IdMaps, SubIds, invalid};

/// `--userns`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UsernsMode {
    /// The engine's, unless maps are given.
    #[default]
    Default,
    /// The engine's.
    Host,
    /// The user is the same inside.
    KeepId {
        /// Id inside, if another one.
        uid: Option<u32>,
        /// Group inside, if another one.
        gid: Option<u32>,
        /// How many ids.
        size: Option<u32>,
    },
    /// The user is not in the container at all.
    NoMap,
    /// Ids that no other container has.
    Auto {
        /// How many.
        size: Option<u32>,
        /// Some of them fixed.
        uidmapping: Vec<String>,
        /// Some of them fixed.
        gidmapping: Vec<String>,
    },
    /// Another container's.
    Container(String),
    /// A file's.
    Ns(PathBuf),
    /// With the maps that are given.
    Private,
}

impl FromStr for UsernsMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (mode, options) = text.split_once(':').unwrap_or((text, ""));
        let has_options = text.contains(':');
        match mode {
            "" | "default" if !has_options => Ok(Self::Default),
            "host" if !has_options => Ok(Self::Host),
            "nomap" if !has_options => Ok(Self::NoMap),
            "private" if !has_options => Ok(Self::Private),
            "keep-id" => keep_id(options, has_options),
            "auto" => auto(options, has_options),
            "container" if !options.is_empty() => Ok(Self::Container(options.into())),
            "ns" if !options.is_empty() => Ok(Self::Ns(options.into())),
            _ => invalid(format!(
                "unrecognized namespace mode {text} passed to --userns (host, keep-id, nomap, auto, private, container:NAME, ns:PATH)"
            )),
        }
    }
}

fn options(text: &str, present: bool) -> impl Iterator<Item = (&str, &str)> {
    let parts = if present { text.split(',').collect() } else { Vec::new() };
    parts.into_iter().map(|part| part.split_once('=').unwrap_or((part, "")))
}

fn number(option: &str, value: &str) -> Result<u32, Error> {
    value.parse().map_err(|_| Error::Invalid(format!("--userns: {option}={value}: not a number of 32 bits")))
}

fn keep_id(text: &str, present: bool) -> Result<UsernsMode, Error> {
    let (mut uid, mut gid, mut size) = (None, None, None);
    for (key, value) in options(text, present) {
        match key {
            "uid" => uid = Some(number(key, value)?),
            "gid" => gid = Some(number(key, value)?),
            "size" => size = Some(number(key, value)?),
            _ => return invalid(format!("unknown option specified: \"{key}\"")),
        }
    }
    Ok(UsernsMode::KeepId { uid, gid, size })
}

fn auto(text: &str, present: bool) -> Result<UsernsMode, Error> {
    let (mut size, mut uidmapping, mut gidmapping) = (None, Vec::new(), Vec::new());
    for (key, value) in options(text, present) {
        match key {
            "size" => size = Some(number(key, value)?),
            "uidmapping" => uidmapping.push(value.into()),
            "gidmapping" => gidmapping.push(value.into()),
            _ => return invalid(format!("unknown option specified: \"{key}\"")),
        }
    }
    Ok(UsernsMode::Auto { size, uidmapping, gidmapping })
}

impl fmt::Display for UsernsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str(""),
            Self::Host => f.write_str("host"),
            Self::KeepId { .. } => f.write_str("keep-id"),
            Self::NoMap => f.write_str("nomap"),
            Self::Auto { .. } => f.write_str("auto"),
            Self::Container(name) => write!(f, "container:{name}"),
            Self::Ns(path) => write!(f, "ns:{}", path.display()),
            Self::Private => f.write_str("private"),
        }
    }
}

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct MapRequest {
    /// `--userns`.
    pub mode: UsernsMode,
    /// `--uidmap`.
    pub uidmap: Vec<String>,
    /// `--gidmap`.
    pub gidmap: Vec<String>,
    /// `--subuidname`.
    pub subuidname: Option<String>,
    /// `--subgidname`.
    pub subgidname: Option<String>,
}

/// The highest ids that an image uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdNeed {
    /// Of users.
    pub uid: u32,
    /// Of groups.
    pub gid: u32,
}

/// The user namespace that a container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerUserns {
    /// The engine's.
    Engine,
    /// A new one below it.
    New(IdMaps),
    /// A file's.
    Join(PathBuf),
    /// Another container's.
    JoinContainer(String),
}

/// The user namespace, and for keep-id who the process is if nobody is named.
pub type Choice = (ContainerUserns, Option<(u32, u32)>);

/// Chooses; `taken` are the maps of containers that have their own.
pub fn container_userns(
    request: &MapRequest,
    engine: &EngineNamespace,
    need: IdNeed,
    taken: &[IdMaps],
) -> Result<Choice, Error> {
    let maps_given = !request.uidmap.is_empty()
        || !request.gidmap.is_empty()
        || request.subuidname.is_some()
        || request.subgidname.is_some();
    if maps_given {
        return match request.mode {
            UsernsMode::Default | UsernsMode::Private => {
                Ok((ContainerUserns::New(given_maps(request, engine)?), None))
            }
            _ => invalid("--userns and --uidmap/--gidmap/--subuidname/--subgidname are mutually exclusive"),
        };
    }
    let rootless_only = |mode: &str| match engine.rootless {
        true => Ok(()),
        false => invalid(format!("{mode} is only supported in rootless mode")),
    };
    match &request.mode {
        UsernsMode::Default | UsernsMode::Host => Ok((ContainerUserns::Engine, None)),
        UsernsMode::Container(name) => Ok((ContainerUserns::JoinContainer(name.clone()), None)),
        UsernsMode::Ns(path) => Ok((ContainerUserns::Join(path.clone()), None)),
        UsernsMode::Private => invalid("--userns=private needs --uidmap or --gidmap"),
        UsernsMode::KeepId { uid, gid, size } => {
            rootless_only("keep-id")?;
            let (uid, gid) = (uid.unwrap_or(engine.user.uid), gid.unwrap_or(engine.user.gid));
            let maps = IdMaps {
                uid: keep(uid, ids(&engine.maps.uid), *size)?,
                gid: keep(gid, ids(&engine.maps.gid), *size)?,
            };
            Ok((ContainerUserns::New(maps), Some((uid, gid))))
        }
        UsernsMode::NoMap => {
            rootless_only("nomap")?;
            let without = |map: &IdMap| match ids(map) {
                0 | 1 => invalid("nomap needs subordinate ids, of which this user has none"),
                n => IdMap::new(vec![Extent::new(0, 1, n - 1)]),
            };
            Ok((
                ContainerUserns::New(IdMaps {
                    uid: without(&engine.maps.uid)?,
                    gid: without(&engine.maps.gid)?,
                }),
                None,
            ))
        }
        UsernsMode::Auto { size, uidmapping, gidmapping } => {
            let (pool_uid, pool_gid) = pools(engine)?;
            let taken_uid: Vec<_> = taken.iter().map(|t| &t.uid).collect();
            let taken_gid: Vec<_> = taken.iter().map(|t| &t.gid).collect();
            let maps = IdMaps {
                uid: disjoint(*size, need.uid, &pool_uid, &taken_uid, uidmapping, &engine.maps.uid)?,
                gid: disjoint(*size, need.gid, &pool_gid, &taken_gid, gidmapping, &engine.maps.gid)?,
            };
            Ok((ContainerUserns::New(maps), None))
        }
    }
}

/// How many ids the engine's namespace has from 0 on.
fn ids(map: &IdMap) -> u32 {
    u32::try_from(map.len()).unwrap_or(u32::MAX)
}

/// Ids below `id` are shifted by one, `id` is the user, those above are themselves.
fn keep(id: u32, available: u32, size: Option<u32>) -> Result<IdMap, Error> {
    let available = size.map_or(available, |size| size.min(available));
    let mut extents = vec![Extent::new(id, 0, 1)];
    let below = id.min(available - 1);
    extents.push(Extent::new(0, 1, below));
    if available - 1 > id {
        extents.push(Extent::new(id + 1, id + 1, available - 1 - id));
    }
    IdMap::new(extents)
}

/// Ranges of the engine's namespace that containers with ids of their own share.
fn pools(engine: &EngineNamespace) -> Result<(Vec<(u32, u32)>, Vec<(u32, u32)>), Error> {
    if engine.rootless {
        let rest = |map: &IdMap| vec![(1, ids(map).saturating_sub(1))];
        return Ok((rest(&engine.maps.uid), rest(&engine.maps.gid)));
    }
    let pool = SubIds::of("containers", u32::MAX)?;
    if pool.is_missing() {
        return Err(Error::Cured {
            text: "--userns=auto as root: /etc/subuid and /etc/subgid have no range for the user \"containers\", which is the pool that such containers share".into(),
            hint: "echo containers:2147483648:1073741824 | tee -a /etc/subuid >>/etc/subgid   (any range that nobody has)".into(),
        });
    }
    Ok((pool.uid, pool.gid))
}

/// Ids that nobody has: the first gap of the pool that is large enough.
fn disjoint(
    size: Option<u32>,
    need: u32,
    pool: &[(u32, u32)],
    taken: &[&IdMap],
    fixed: &[String],
    engine: &IdMap,
) -> Result<IdMap, Error> {
    let whole: u64 = pool.iter().map(|(_, count)| u64::from(*count)).sum();
    let usual = if whole >= 16 * 65536 { 65536 } else { 1024 };
    let fixed = fixed.iter().map(|text| Line::parse(text)?.extent(engine)).collect::<Result<Vec<_>, _>>()?;
    let size = size.unwrap_or_else(|| usual.max(need.saturating_add(1)));
    for (first, count) in pool {
        let mut busy: Vec<(u32, u32)> = taken
            .iter()
            .flat_map(|map| map.extents())
            .map(|e| (e.outside, e.outside + e.length))
            .chain(fixed.iter().map(|e| (e.outside, e.outside + e.length)))
            .collect();
        busy.sort_unstable();
        let mut start = *first;
        for (from, to) in busy.into_iter().chain([(first + count, u32::MAX)]) {
            if from >= start && from - start >= size && start + size <= first + count {
                return carve(vec![Extent::new(0, start, size)], &fixed);
            }
            start = start.max(to.min(first + count));
        }
    }
    let held: u64 = taken.iter().map(|map| map.len()).sum();
    Err(Error::Cured {
        text: format!("--userns=auto: no {size} unused ids in a row: the pool has {whole}, other containers hold {held} of them"),
        hint: "a smaller --userns=auto:size=N, a longer range in /etc/subuid and /etc/subgid, or removing containers that hold ids".into(),
    })
}

/// A line of --uidmap.
struct Line {
    add: bool,
    users: bool,
    groups: bool,
    inside: u32,
    outside: u32,
    on_host: bool,
    length: u32,
}

impl Line {
    /// `[+ug]CONTAINER:[@]FROM[:AMOUNT]`
    fn parse(text: &str) -> Result<Self, Error> {
        let broken = || {
            Error::Invalid(format!("invalid ID map {text:?}: it is [+ug]CONTAINER_ID:[@]FROM_ID[:AMOUNT]"))
        };
        let digits = text.find(|c: char| c.is_ascii_digit()).ok_or_else(broken)?;
        let (flags, rest) = text.split_at(digits);
        if !flags.chars().all(|c| "+ug".contains(c)) {
            return Err(broken());
        }
        let fields: Vec<&str> = rest.split(':').collect();
        let (inside, from, amount) = match fields[..] {
            [inside, from] => (inside, from, "1"),
            [inside, from, amount] => (inside, from, amount),
            _ => return Err(broken()),
        };
        let id = |field: &str| field.parse::<u32>().map_err(|_| broken());
        let both = !flags.contains(['u', 'g']);
        Ok(Self {
            add: flags.contains('+'),
            users: both || flags.contains('u'),
            groups: both || flags.contains('g'),
            inside: id(inside)?,
            outside: id(from.trim_start_matches('@'))?,
            on_host: from.starts_with('@'),
            length: id(amount)?,
        })
    }

    fn extent(&self, engine: &IdMap) -> Result<Extent, Error> {
        let outside = match self.on_host {
            false => self.outside,
            true => engine.to_inside(self.outside).ok_or_else(|| {
                Error::Invalid(format!(
                    "host id {} is not one of this user's: its ids are {engine:?}",
                    self.outside
                ))
            })?,
        };
        let last = outside.checked_add(self.length.saturating_sub(1));
        if self.length == 0
            || last.and_then(|last| engine.to_outside(last)).is_none()
            || engine.to_outside(outside).is_none()
        {
            return invalid(format!(
                "id map {}:{outside}:{}: container id {} would be id {outside} of the engine's namespace, which has the ids {}",
                self.inside,
                self.length,
                self.inside,
                engine.ranges()
            ));
        }
        Ok(Extent::new(self.inside, outside, self.length))
    }
}

/// The later extents win over the earlier ones, on both sides.
fn carve(base: Vec<Extent>, over: &[Extent]) -> Result<IdMap, Error> {
    let mut extents = base;
    for new in over {
        extents =
            extents.into_iter().flat_map(|old| minus(old, new.inside, new.length, |e| e.inside)).collect();
        extents =
            extents.into_iter().flat_map(|old| minus(old, new.outside, new.length, |e| e.outside)).collect();
        extents.push(*new);
    }
    IdMap::new(extents)
}

/// What is left of an extent without a range, seen from one side.
fn minus(old: Extent, from: u32, length: u32, side: impl Fn(&Extent) -> u32) -> Vec<Extent> {
    let (start, end) = (u64::from(side(&old)), u64::from(side(&old)) + u64::from(old.length));
    let (cut_start, cut_end) =
        (u64::from(from).clamp(start, end), (u64::from(from) + u64::from(length)).clamp(start, end));
    let part = |offset: u64, length: u64| {
        Extent::new(old.inside + offset as u32, old.outside + offset as u32, length as u32)
    };
    let mut left = vec![part(0, cut_start - start)];
    if cut_end < end {
        left.push(part(cut_end - start, end - cut_end));
    }
    left.retain(|e| e.length != 0);
    left
}

fn given_maps(request: &MapRequest, engine: &EngineNamespace) -> Result<IdMaps, Error> {
    let parse = |texts: &[String]| texts.iter().map(|text| Line::parse(text)).collect::<Result<Vec<_>, _>>();
    let (mut uid, mut gid) = (parse(&request.uidmap)?, parse(&request.gidmap)?);
    // a line may be for both; and where one side has none, it is as the other
    let copied_to_gid: Vec<Line> =
        parse(&request.uidmap)?.into_iter().filter(|l| l.groups && (gid.is_empty() || !l.users)).collect();
    let copied_to_uid: Vec<Line> =
        parse(&request.gidmap)?.into_iter().filter(|l| l.users && (uid.is_empty() || !l.groups)).collect();
    uid.retain(|l| l.users);
    gid.retain(|l| l.groups);
    uid.extend(copied_to_uid);
    gid.extend(copied_to_gid);
    let named = |name: &Option<String>| name.as_deref().map(|n| SubIds::of(n, u32::MAX)).transpose();
    let (subuid, subgid) = (named(&request.subuidname)?, named(&request.subgidname)?);
    let (subuid, subgid) = (subuid.clone().or_else(|| subgid.clone()), subgid.or(subuid));
    Ok(IdMaps {
        uid: build(&uid, &engine.maps.uid, subuid.as_ref().map(|s| &s.uid[..]), &request.subuidname)?,
        gid: build(&gid, &engine.maps.gid, subgid.as_ref().map(|s| &s.gid[..]), &request.subgidname)?,
    })
}

fn build(
    lines: &[Line],
    engine: &IdMap,
    named: Option<&[(u32, u32)]>,
    name: &Option<String>,
) -> Result<IdMap, Error> {
    let extents = lines.iter().map(|line| line.extent(engine)).collect::<Result<Vec<_>, _>>()?;
    if let Some(ranges) = named {
        let name = name.as_deref().unwrap_or("the same user");
        if ranges.is_empty() {
            return invalid(format!("no subordinate ids of {name} in /etc/subuid or /etc/subgid"));
        }
        let mut inside = 0;
        let mut all = Vec::new();
        for (first, count) in ranges {
            let line = Line {
                add: false,
                users: true,
                groups: true,
                inside,
                outside: *first,
                on_host: true,
                length: *count,
            };
            all.push(line.extent(engine)?);
            inside += count;
        }
        return carve(all, &extents);
    }
    let base = if lines.iter().any(|l| l.add) { vec![Extent::new(0, 0, ids(engine))] } else { Vec::new() };
    carve(base, &extents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EngineUser;

    fn engine() -> EngineNamespace {
        let map = IdMap::parse("0 1000 1\n1 100000 65536").unwrap();
        EngineNamespace {
            user: EngineUser { uid: 1000, gid: 1000, name: "fatherlinux".into(), home: "/".into() },
            rootless: true,
            maps: IdMaps { uid: map.clone(), gid: map },
            single_id: None,
        }
    }

    fn choose(mode: &str, uidmap: &[&str], taken: &[IdMaps]) -> Result<Choice, Error> {
        let request = MapRequest {
            mode: mode.parse()?,
            uidmap: uidmap.iter().map(|s| s.to_string()).collect(),
            ..MapRequest::default()
        };
        container_userns(&request, &engine(), IdNeed::default(), taken)
    }

    fn uid_map(mode: &str, uidmap: &[&str]) -> String {
        match choose(mode, uidmap, &[]).unwrap().0 {
            ContainerUserns::New(maps) => maps.uid.to_string().trim().replace('\n', ", "),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn modes() {
        assert_eq!(uid_map("", &[]), "Engine");
        assert_eq!(uid_map("keep-id", &[]), "0 1 1000, 1000 0 1, 1001 1001 64536");
        assert_eq!(uid_map("keep-id:uid=0", &[]), "0 0 65537");
        assert_eq!(choose("keep-id:uid=200,gid=210", &[], &[]).unwrap().1, Some((200, 210)));
        assert_eq!(uid_map("nomap", &[]), "0 1 65536");
        assert_eq!(uid_map("auto", &[]), "0 1 1024");
        assert_eq!(uid_map("auto:size=8192", &[]), "0 1 8192");
    }

    #[test]
    fn given_lines() {
        assert_eq!(uid_map("", &["0:1:500"]), "0 1 500");
        assert_eq!(uid_map("", &["0:0:1", "5:@100004:1"]), "0 0 1, 5 5 1");
        assert_eq!(uid_map("", &["+1000:0:1"]), "1 1 999, 1000 0 1, 1001 1001 64536");
        assert!(choose("", &["0:70000:1"], &[]).unwrap_err().to_string().contains("0-65536"));
        assert!(choose("keep-id", &["0:1:1"], &[]).is_err());
    }

    #[test]
    fn auto_ranges_are_disjoint() {
        let mut taken = Vec::new();
        for _ in 0..64 {
            let (ContainerUserns::New(maps), _) = choose("auto", &[], &taken).unwrap() else { panic!() };
            for other in &taken {
                for extent in maps.uid.extents() {
                    assert_eq!(IdMap::to_inside(&other.uid, extent.outside), None);
                }
            }
            taken.push(maps);
        }
        let full = choose("auto", &[], &taken).unwrap_err().to_string();
        assert!(full.contains("65536") && full.contains("1024"), "{full}");
        taken.remove(10);
        assert!(choose("auto", &[], &taken).is_ok());
    }

    #[test]
    fn nonsense() {
        for mode in ["keep", "host:1", "keep-id:", "keep-id:x=1", "auto:size=x", "container:", "ns:"] {
            assert!(mode.parse::<UsernsMode>().is_err(), "{mode}");
        }
    }
}
