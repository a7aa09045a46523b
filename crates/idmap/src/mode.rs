//! Which user namespace a container gets: `--userns`, `--uidmap`, `--gidmap` (podman-run(1)).
//!
//! Maps here go from the container's ids to those of the engine's namespace: its id 0 is the user, the
//! subordinate ids follow from 1 on. As root the engine's namespace is the host's.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::auto::{self, Holder, IdNeed, Wanted};
use crate::{EngineNamespace, Error, Extent, IdMap, IdMaps, invalid, lines};

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

/// Chooses; `holders` are the containers that have ids of their own.
pub fn container_userns(
    request: &MapRequest,
    engine: &EngineNamespace,
    need: &IdNeed,
    holders: &[Holder],
) -> Result<Choice, Error> {
    let maps_given = !request.uidmap.is_empty()
        || !request.gidmap.is_empty()
        || request.subuidname.is_some()
        || request.subgidname.is_some();
    if maps_given {
        return match request.mode {
            UsernsMode::Default | UsernsMode::Private => {
                Ok((ContainerUserns::New(lines::given_maps(request, engine)?), None))
            }
            _ => invalid("--userns and --uidmap/--gidmap/--subuidname/--subgidname are mutually exclusive"),
        };
    }
    match &request.mode {
        UsernsMode::Default | UsernsMode::Host => Ok((ContainerUserns::Engine, None)),
        UsernsMode::Container(name) => Ok((ContainerUserns::JoinContainer(name.clone()), None)),
        UsernsMode::Ns(path) => Ok((ContainerUserns::Join(path.clone()), None)),
        UsernsMode::Private => invalid("--userns=private needs --uidmap or --gidmap"),
        UsernsMode::KeepId { uid, gid, size } if !engine.rootless => {
            if size.is_some() {
                return invalid("--userns=keep-id:size= is only supported in rootless mode");
            }
            // (root is root inside: all ids, in a namespace of the container's own)
            let user = (uid.unwrap_or(0), gid.unwrap_or(0));
            Ok((ContainerUserns::New(lines::itself(&engine.maps)?), Some(user)))
        }
        UsernsMode::KeepId { uid, gid, size } => {
            let (uid, gid) = (uid.unwrap_or(engine.user.uid), gid.unwrap_or(engine.user.gid));
            let maps = IdMaps {
                uid: keep(uid, ids(&engine.maps.uid), *size)?,
                gid: keep(gid, ids(&engine.maps.gid), *size)?,
            };
            Ok((ContainerUserns::New(maps), Some((uid, gid))))
        }
        UsernsMode::NoMap => {
            if !engine.rootless {
                return invalid("nomap is only supported in rootless mode");
            }
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
            let wanted = Wanted { size: *size, uidmapping, gidmapping };
            let maps = auto::maps(&wanted, engine, need, holders)?;
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
            unkept: false,
        }
    }

    fn choose(mode: &str, uidmap: &[&str], taken: &[IdMaps]) -> Result<Choice, Error> {
        let request = MapRequest {
            mode: mode.parse()?,
            uidmap: uidmap.iter().map(|s| s.to_string()).collect(),
            ..MapRequest::default()
        };
        let holders: Vec<Holder> =
            taken.iter().map(|maps| Holder { name: "other".into(), maps: maps.clone() }).collect();
        container_userns(&request, &engine(), &IdNeed::default(), &holders)
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
        assert_eq!(uid_map("auto:size=3,uidmapping=1:@100005:1", &[]), "0 1 1, 1 6 1, 2 2 1");
    }

    #[test]
    fn given_lines() {
        assert_eq!(uid_map("", &["0:1:500"]), "0 1 500");
        assert_eq!(uid_map("", &["0:0:1", "5:@100004:1"]), "0 0 1, 5 5 1");
        assert_eq!(uid_map("", &["+1000:0:1"]), "0 1 1000, 1000 0 1, 1001 1001 64536");
        assert_eq!(uid_map("", &["0:0:65000", "+100000:1:1"]), "0 0 1, 2 2 64998, 100000 1 1");
        assert_eq!(uid_map("", &["0:@165535:1", "5:@1000"]), "0 65536 1, 5 0 1");
        assert_eq!(uid_map("", &["u7:8:2"]), "7 8 2");
        assert_eq!(uid_map("", &["g7:8:2"]), "0 0 65537");
        assert!(choose("", &["x0:1:1"], &[]).unwrap_err().to_string().contains("Unknown flag x"));
        assert!(choose("", &["0:@99:1"], &[]).unwrap_err().to_string().contains("100000-165535"));
        assert!(choose("", &["0:1:10", "5:20:1"], &[]).unwrap_err().to_string().contains("mapped twice"));
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
