//! `--userns=auto`: ids that no other container has.
//!
//! The pool is the user's subordinate ids; as root those of the user "containers". What other containers hold is what
//! their records say, so a range is free as soon as its container is removed. The size is what the image needs: all ids
//! of its files and of its /etc/passwd and /etc/group, the few that are far above the rest one by one.

use std::collections::BTreeSet;

use crate::lines::{Side, fixed};
use crate::ranges::Ranges;
use crate::{EngineNamespace, Error, Extent, IdMap, IdMaps, SubIds};

/// The ids that an image uses.
#[derive(Clone, Debug, Default)]
pub struct IdNeed {
    /// Of users.
    pub uids: BTreeSet<u32>,
    /// Of groups.
    pub gids: BTreeSet<u32>,
}

/// A container that has ids of its own.
#[derive(Clone, Debug)]
pub struct Holder {
    /// What it is called.
    pub name: String,
    /// Which.
    pub maps: IdMaps,
}

/// What was asked for.
pub(crate) struct Wanted<'a> {
    /// How many.
    pub size: Option<u32>,
    /// Some of them fixed.
    pub uidmapping: &'a [String],
    /// Some of them fixed.
    pub gidmapping: &'a [String],
}

/// As many as the least of containers get; where the pool has room for many, as many as most images may use.
const LEAST: u32 = 1024;
const ROOMY: u32 = 65536;

/// Ids up to here are taken with all below them.
const NEAR: u32 = 10_000;

/// Ids beyond are mapped one by one, as long as they are few.
const MOST_FAR: usize = 100;

/// The maps.
pub(crate) fn maps(
    wanted: &Wanted<'_>,
    engine: &EngineNamespace,
    need: &IdNeed,
    holders: &[Holder],
) -> Result<IdMaps, Error> {
    let (uids, gids) = pools(engine)?;
    let held =
        |of: fn(&IdMaps) -> &IdMap| Ranges::outside(holders.iter().flat_map(|h| of(&h.maps).extents()));
    let one = |pool: &Ranges, held: Ranges, need: &BTreeSet<u32>, fixed: &[Extent]| {
        let targets = match wanted.size {
            Some(size) => Ranges::new([(0, size.into())]),
            None => targets(need, pool.len()),
        };
        disjoint(&targets, pool, &held, fixed).ok_or_else(|| exhausted(&targets, pool, &held, holders))
    };
    let fixed_uids = fixed(wanted.uidmapping, &engine.maps.uid, Side::Uid)?;
    let fixed_gids = fixed(wanted.gidmapping, &engine.maps.gid, Side::Gid)?;
    Ok(IdMaps {
        uid: IdMap::new(one(&uids, held(|m| &m.uid), &need.uids, &fixed_uids)?)?,
        gid: IdMap::new(one(&gids, held(|m| &m.gid), &need.gids, &fixed_gids)?)?,
    })
}

/// Ranges of the engine's namespace that containers with ids of their own share.
fn pools(engine: &EngineNamespace) -> Result<(Ranges, Ranges), Error> {
    if engine.rootless {
        let rest = |map: &IdMap| Ranges::inside(map.extents()).without(&Ranges::new([(0, 1)]));
        return Ok((rest(&engine.maps.uid), rest(&engine.maps.gid)));
    }
    let pool = SubIds::of("containers", u32::MAX)?;
    if pool.is_missing() {
        let file = if pool.uid.is_empty() { "/etc/subuid" } else { "/etc/subgid" };
        return Err(Error::Cured {
            text: format!(
                "cannot find mappings for user \"containers\": no subuid ranges found for user \"containers\" in {file}; \
                 they are the pool that containers of root's with --userns=auto share"
            ),
            hint: crate::engine::cure_of_missing_ranges("containers", 1 << 20),
        });
    }
    let ranges = |list: &[(u32, u32)]| {
        Ranges::new(
            list.iter().map(|(first, count)| (u64::from(*first), u64::from(*first) + u64::from(*count))),
        )
    };
    // (in a namespace that has not all ids, only those that it has)
    let available = |map: &IdMap| Ranges::inside(map.extents());
    Ok((
        ranges(&pool.uid).common(&available(&engine.maps.uid)),
        ranges(&pool.gid).common(&available(&engine.maps.gid)),
    ))
}

/// The ids inside.
fn targets(need: &BTreeSet<u32>, pool: u64) -> Ranges {
    let usual = if pool >= 16 * u64::from(ROOMY) { ROOMY } else { LEAST };
    let near = need.iter().rev().find(|id| **id <= NEAR).map_or(0, |id| id + 1).max(usual);
    let far: Vec<u32> = need.iter().copied().filter(|id| *id >= near).collect();
    let whole = match far.last() {
        Some(last) if far.len() > MOST_FAR => u64::from(*last) + 1,
        _ => near.into(),
    };
    let single = far.iter().map(|id| (u64::from(*id), u64::from(*id) + 1));
    Ranges::new(single.chain([(0, whole)]))
}

/// The first gap of the pool that is large enough, else pieces of several.
fn disjoint(targets: &Ranges, pool: &Ranges, held: &Ranges, fixed: &[Extent]) -> Option<Vec<Extent>> {
    let targets = targets.without(&Ranges::inside(fixed));
    let free = pool.without(held).without(&Ranges::outside(fixed));
    if free.len() < targets.len() {
        return None;
    }
    let place = free.first_with(targets.len()).unwrap_or(free);
    let mut extents = targets.laid_on(&place);
    extents.extend(fixed);
    Some(extents)
}

fn exhausted(targets: &Ranges, pool: &Ranges, held: &Ranges, holders: &[Holder]) -> Error {
    let (size, whole) = (targets.len(), pool.len());
    let free = pool.without(held).len();
    let mut biggest: Vec<(u64, &str)> = holders
        .iter()
        .map(|h| (Ranges::outside(h.maps.uid.extents()).common(pool).len(), h.name.as_str()))
        .collect();
    biggest.retain(|(count, _)| *count > 0);
    biggest.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let shown: Vec<String> = biggest.iter().take(5).map(|(count, name)| format!("{name} {count}")).collect();
    let more = biggest.len().saturating_sub(5);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let hold = if shown.is_empty() {
        "no container holds any".into()
    } else {
        format!("containers hold: {}{more}", shown.join(", "))
    };
    let biggest = biggest.first().map_or("", |(_, name)| name);
    let program = "unroot";
    Error::Cured {
        text: format!(
            "not enough unused IDs in user namespace: --userns=auto needs {size}, the pool has {whole}, of which {free} are free; {hold}"
        ),
        hint: match biggest {
            "" => "a smaller --userns=auto:size=N, or longer ranges in /etc/subuid and /etc/subgid".into(),
            name => format!(
                "{program} rm {name}, or make it again with a size (--userns=keep-id:size=N, auto:size=N), or longer ranges in /etc/subuid and /etc/subgid"
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sized_by_the_image() {
        let need = |ids: &[u32]| ids.iter().copied().collect::<BTreeSet<u32>>();
        let of = |ids: &[u32], pool| targets(&need(ids), pool).as_slice().to_vec();
        assert_eq!(of(&[0, 5], 65536), [(0, 1024)]);
        assert_eq!(of(&[0, 3000, 65534], 65536), [(0, 3001), (65534, 65535)]);
        assert_eq!(of(&[0], 1 << 24), [(0, 65536)]);
        let many: Vec<u32> = (0..200).map(|n| 20_000 + n).collect();
        assert_eq!(of(&many, 65536), [(0, 20_200)]);
    }

    #[test]
    fn pieces_where_no_gap_is_large_enough() {
        let pool = Ranges::new([(1, 101), (201, 301)]);
        let targets = Ranges::new([(0, 150)]);
        let map = IdMap::new(disjoint(&targets, &pool, &Ranges::default(), &[]).unwrap()).unwrap();
        assert_eq!(map.to_string(), "0 1 100\n100 201 50\n");
        assert!(disjoint(&Ranges::new([(0, 201)]), &pool, &Ranges::default(), &[]).is_none());
        let fixed = [Extent::new(1, 50, 1)];
        let map =
            IdMap::new(disjoint(&Ranges::new([(0, 3)]), &pool, &Ranges::default(), &fixed).unwrap()).unwrap();
        assert_eq!(map.to_string(), "0 1 1\n1 50 1\n2 2 1\n");
    }
}
