//! `--uidmap`, `--gidmap`, `--subuidname`, `--subgidname`: lines of a map as they are typed (podman-run(1)).
//!
//! `[+ug]CONTAINER:[@]FROM[:AMOUNT]`. Lines are taken one after the other; one with `+` takes its ids, on both sides,
//! from those before it. Where the first one of an ordinary user's has `+`, what is left of the user's ids fills the
//! container's from 0 on. `@` names ids of the host. With only one of the two flags its lines are for users and groups,
//! but those that `u` or `g` keep to one.

use crate::mode::MapRequest;
use crate::ranges::Ranges;
use crate::{EngineNamespace, Error, Extent, IdMap, IdMaps, SubIds, invalid};

/// Users or groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Users.
    Uid,
    /// Groups.
    Gid,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Uid => "UID",
            Side::Gid => "GID",
        }
    }
}

/// One line.
struct Line {
    extends: bool,
    users: bool,
    groups: bool,
    extent: Extent,
    on_host: bool,
}

impl Line {
    fn parse(text: &str, side: Side) -> Result<Self, Error> {
        let broken = || {
            Error::Invalid(format!(
                "initializing ID mappings: {} setting is malformed expected [\"[+ug]uint32:[@]uint32[:uint32]\"] : [{text:?}]",
                side.name()
            ))
        };
        let digits = text.find(|c: char| c.is_ascii_digit()).ok_or_else(broken)?;
        let (flags, rest) = text.split_at(digits);
        if let Some(unknown) = flags.chars().find(|c| !"+ug".contains(*c)) {
            return invalid(format!("invalid mapping: [{}]. Unknown flag {unknown}", text.replace(':', " ")));
        }
        let fields: Vec<&str> = rest.split(':').collect();
        let (inside, from, amount) = match fields[..] {
            [inside, from] => (inside, from, "1"),
            [inside, from, amount] => (inside, from, amount),
            _ => return Err(broken()),
        };
        let id = |field: &str| {
            let plain = field.bytes().all(|b| b.is_ascii_digit());
            field.parse::<u32>().ok().filter(|_| plain).ok_or_else(broken)
        };
        let both = !flags.contains(['u', 'g']);
        Ok(Self {
            extends: flags.contains('+'),
            users: both || flags.contains('u'),
            groups: both || flags.contains('g'),
            extent: Extent::new(id(inside)?, id(from.strip_prefix('@').unwrap_or(from))?, id(amount)?),
            on_host: from.starts_with('@'),
        })
    }

    fn is_for(&self, side: Side) -> bool {
        match side {
            Side::Uid => self.users,
            Side::Gid => self.groups,
        }
    }

    /// Its extents to the ids of the engine's namespace.
    fn extents(&self, engine: &IdMap, side: Side) -> Result<Vec<Extent>, Error> {
        let wanted = self.extent;
        if wanted.length == 0 {
            return Ok(Vec::new());
        }
        match self.on_host {
            true => from_host(wanted, engine, side),
            false => Ok(vec![wanted]),
        }
    }
}

/// Ids of the host as those of the engine's namespace.
pub(crate) fn from_host(wanted: Extent, engine: &IdMap, side: Side) -> Result<Vec<Extent>, Error> {
    let found = IdMap::new(vec![wanted])?.compose(&engine.inverse());
    let missing = Ranges::outside([&wanted]).without(&Ranges::outside(engine.extents()));
    let first = missing.as_slice().first().map(|(first, _)| first);
    match first {
        None => Ok(found.extents().to_vec()),
        Some(id) => Err(Error::Invalid(format!(
            "parent ID {} {id} is not mapped/delegated: of the host's ids this user has {}",
            side.name(),
            engine.inverse().ranges()
        ))),
    }
}

/// Every extent is of ids that the engine's namespace has.
pub(crate) fn check_outside(extents: &[Extent], engine: &IdMap) -> Result<(), Error> {
    let available = Ranges::inside(engine.extents());
    for extent in extents {
        let missing = Ranges::outside([extent]).without(&available);
        if let Some((first, _)) = missing.as_slice().first() {
            let inside = u64::from(extent.inside) + (first - u64::from(extent.outside));
            return invalid(format!(
                "id map {}:{}:{}: container id {inside} would be id {first} of the engine's namespace, which has the ids {}",
                extent.inside,
                extent.outside,
                extent.length,
                engine.ranges()
            ));
        }
    }
    Ok(())
}

/// The later extent wins over the earlier ones, on both sides.
pub(crate) fn insert(extents: Vec<Extent>, new: Extent) -> Vec<Extent> {
    let free_inside = extents.into_iter().flat_map(|old| minus(old, new.inside, new.length, |e| e.inside));
    let mut left: Vec<Extent> =
        free_inside.flat_map(|old| minus(old, new.outside, new.length, |e| e.outside)).collect();
    left.push(new);
    left
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

/// Everything that is free of the engine's ids, on the container's ids that are free, from 0 on.
pub(crate) fn fill(mut extents: Vec<Extent>, engine: &IdMap) -> Vec<Extent> {
    let ids = Ranges::new([(0, 1 << 32)]).without(&Ranges::inside(&extents));
    let free = Ranges::inside(engine.extents()).without(&Ranges::outside(&extents));
    extents.extend(ids.laid_on(&free));
    extents
}

/// The maps that were given.
pub(crate) fn given_maps(request: &MapRequest, engine: &EngineNamespace) -> Result<IdMaps, Error> {
    let (uid, gid) = (&request.uidmap, &request.gidmap);
    let uid_texts = if uid.is_empty() { gid } else { uid };
    let gid_texts = if gid.is_empty() { uid } else { gid };
    let (subuid, subgid) = (&request.subuidname, &request.subgidname);
    let ranges = |name: Option<&String>, side| name.map(|n| ranges_of(n, side)).transpose();
    let subuids = ranges(subuid.as_ref().or(subgid.as_ref()), Side::Uid)?;
    let subgids = ranges(subgid.as_ref().or(subuid.as_ref()), Side::Gid)?;
    let mut uid = build(uid_texts, Side::Uid, engine, &engine.maps.uid, subuids)?;
    let mut gid = build(gid_texts, Side::Gid, engine, &engine.maps.gid, subgids)?;
    // one that has no line of its own is not to be empty
    for (map, around) in [(&mut uid, &engine.maps.uid), (&mut gid, &engine.maps.gid)] {
        if map.is_empty() {
            *map = IdMap::new(fill(Vec::new(), around))?;
        }
    }
    Ok(IdMaps { uid, gid })
}

/// Every id that the engine's namespace has, as itself.
pub(crate) fn itself(engine: &IdMaps) -> Result<IdMaps, Error> {
    let one = |map: &IdMap| {
        IdMap::new(map.extents().iter().map(|e| Extent::new(e.inside, e.inside, e.length)).collect())
    };
    Ok(IdMaps { uid: one(&engine.uid)?, gid: one(&engine.gid)? })
}

fn ranges_of(name: &str, side: Side) -> Result<Vec<(u32, u32)>, Error> {
    let subids = SubIds::of(name, u32::MAX)?;
    let (found, file) = match side {
        Side::Uid => (subids.uid, "/etc/subuid"),
        Side::Gid => (subids.gid, "/etc/subgid"),
    };
    match found.is_empty() {
        true => invalid(format!(
            "no {} ranges found for user {name:?} in {file}",
            file.trim_start_matches("/etc/")
        )),
        false => Ok(found),
    }
}

fn build(
    texts: &[String],
    side: Side,
    engine: &EngineNamespace,
    around: &IdMap,
    named: Option<Vec<(u32, u32)>>,
) -> Result<IdMap, Error> {
    let mut extents = Vec::new();
    let mut inside = 0;
    for (first, count) in named.into_iter().flatten() {
        extents.extend(from_host(Extent::new(inside, first, count), around, side)?);
        inside += count;
    }
    let mut fills = false;
    for text in texts.iter().flat_map(|t| t.split(',')).filter(|t| !t.is_empty()) {
        let line = Line::parse(text, side)?;
        for extent in line.extents(around, side)?.into_iter().filter(|_| line.is_for(side)) {
            fills |= line.extends && extents.is_empty() && engine.rootless;
            match line.extends {
                true => extents = insert(extents, extent),
                false => extents.push(extent),
            }
        }
    }
    check_outside(&extents, around)?;
    IdMap::new(if fills { fill(extents, around) } else { extents })
}

/// Lines of `--userns=auto:uidmapping=`.
pub(crate) fn fixed(texts: &[String], engine: &IdMap, side: Side) -> Result<Vec<Extent>, Error> {
    let mut extents = Vec::new();
    for text in texts {
        extents.extend(Line::parse(text, side)?.extents(engine, side)?);
    }
    check_outside(&extents, engine)?;
    Ok(extents)
}
