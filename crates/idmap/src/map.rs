//! Maps of ids between a user namespace and the one around it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, invalid};

/// A line of a map: `length` ids from `inside` on are those from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub length: u32,
}

impl Extent {
    /// A line of a map.
    pub fn new(inside: u32, outside: u32, length: u32) -> Self {
        Self { inside, outside, length }
    }
}

/// The kernel takes no more lines in one map (user_namespaces(7)).
pub const MAX_EXTENTS: usize = 340;

/// A map: extents that overlap neither inside nor outside, ordered by `inside`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap(Vec<Extent>);

/// Users and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Of user ids.
    pub uid: IdMap,
    /// Of group ids.
    pub gid: IdMap,
}

impl IdMap {
    /// Every id is itself: the initial user namespace's.
    pub fn identity() -> Self {
        Self(vec![Extent::new(0, 0, u32::MAX)])
    }

    /// A map of these lines; neighbours that continue each other become one.
    pub fn new(mut extents: Vec<Extent>) -> Result<Self, Error> {
        extents.retain(|e| e.length != 0);
        extents.sort_by_key(|e| e.inside);
        for extent in &extents {
            if extent.inside.checked_add(extent.length).is_none()
                || extent.outside.checked_add(extent.length).is_none()
            {
                return invalid(format!("id map {extent:?}: ids are 32 bits"));
            }
        }
        let mut merged: Vec<Extent> = Vec::new();
        for extent in extents {
            match merged.last_mut() {
                Some(last) if last.inside + last.length > extent.inside => {
                    return invalid(format!("id map: container id {} is mapped twice", extent.inside));
                }
                Some(last)
                    if last.inside + last.length == extent.inside
                        && last.outside + last.length == extent.outside =>
                {
                    last.length += extent.length;
                }
                _ => merged.push(extent),
            }
        }
        let mut by_outside: Vec<_> = merged.iter().collect();
        by_outside.sort_by_key(|e| e.outside);
        if let Some(pair) = by_outside.windows(2).find(|p| p[0].outside + p[0].length > p[1].outside) {
            return invalid(format!("id map: outside id {} is mapped twice", pair[1].outside));
        }
        if merged.len() > MAX_EXTENTS {
            return invalid(format!("id map has {} lines, the kernel takes {MAX_EXTENTS}", merged.len()));
        }
        Ok(Self(merged))
    }

    /// From the text of `/proc/PID/uid_map`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let line = |line: &str| {
            let numbers: Vec<u32> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
            match numbers[..] {
                [inside, outside, length] => Ok(Extent::new(inside, outside, length)),
                _ => invalid(format!("not a line of an id map: {line:?}")),
            }
        };
        Self::new(text.lines().map(line).collect::<Result<_, _>>()?)
    }

    /// Its lines.
    pub fn extents(&self) -> &[Extent] {
        &self.0
    }

    /// No id at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ids it has.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|e| u64::from(e.length)).sum()
    }

    /// What an id inside is outside.
    pub fn to_outside(&self, inside: u32) -> Option<u32> {
        self.0
            .iter()
            .find(|e| inside >= e.inside && inside - e.inside < e.length)
            .map(|e| e.outside + (inside - e.inside))
    }

    /// What an id outside is inside.
    pub fn to_inside(&self, outside: u32) -> Option<u32> {
        self.0
            .iter()
            .find(|e| outside >= e.outside && outside - e.outside < e.length)
            .map(|e| e.inside + (outside - e.outside))
    }

    /// The map from outside to inside.
    pub fn inverse(&self) -> IdMap {
        let turned = self.0.iter().map(|e| Extent::new(e.outside, e.inside, e.length)).collect();
        // a valid map is one in both directions
        Self::new(turned).unwrap_or_default()
    }

    /// The map through this one and then the one around it: inside -> outer's outside. Ids that the outer one
    /// lacks are left out.
    pub fn compose(&self, outer: &IdMap) -> IdMap {
        let mut extents = Vec::new();
        for inner in &self.0 {
            for around in &outer.0 {
                let start = inner.outside.max(around.inside);
                let end = (inner.outside + inner.length).min(around.inside + around.length);
                if start < end {
                    let (inside, outside) =
                        (inner.inside + (start - inner.outside), around.outside + (start - around.inside));
                    extents.push(Extent::new(inside, outside, end - start));
                }
            }
        }
        // parts of two valid maps cannot overlap
        Self::new(extents).unwrap_or_default()
    }

    /// The ranges inside, as a message has them: `0-65536`.
    pub fn ranges(&self) -> String {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for extent in &self.0 {
            let last = extent.inside + (extent.length - 1);
            match ranges.last_mut() {
                Some(range) if range.1.checked_add(1) == Some(extent.inside) => range.1 = last,
                _ => ranges.push((extent.inside, last)),
            }
        }
        let text =
            ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(", ");
        if text.is_empty() { "none".into() } else { text }
    }
}

/// As the kernel takes and prints it, a line an extent.
impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|e| writeln!(f, "{} {} {}", e.inside, e.outside, e.length))
    }
}

impl IdMaps {
    /// Every id is itself.
    pub fn identity() -> Self {
        Self { uid: IdMap::identity(), gid: IdMap::identity() }
    }

    /// Through both.
    pub fn compose(&self, outer: &IdMaps) -> IdMaps {
        IdMaps { uid: self.uid.compose(&outer.uid), gid: self.gid.compose(&outer.gid) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(text: &str) -> IdMap {
        IdMap::parse(text).unwrap()
    }

    #[test]
    fn the_article_s_map() {
        let map = map("0 1000 1\n1 100000 65536\n");
        assert_eq!(
            [map.to_outside(0), map.to_outside(5), map.to_outside(65536)],
            [Some(1000), Some(100004), Some(165535)]
        );
        assert_eq!(map.to_outside(65537), None);
        assert_eq!(map.to_inside(100998), Some(999));
        assert_eq!(map.ranges(), "0-65536");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["0 0 2\n1 5 1", "0 5 2\n9 6 1", "4294967295 0 2", "0 1", "a b c"] {
            assert!(IdMap::parse(text).is_err(), "{text}");
        }
    }

    fn any_map() -> impl Strategy<Value = IdMap> {
        proptest::collection::vec((0u32..2000, 0u32..2000, 0u32..200), 0..6)
            .prop_filter_map("overlaps", |extents| {
                IdMap::new(extents.into_iter().map(|(i, o, l)| Extent::new(i, o, l)).collect()).ok()
            })
    }

    proptest! {
        #[test]
        fn printing_and_parsing(map in any_map()) {
            prop_assert_eq!(IdMap::parse(&map.to_string()).unwrap(), map);
        }

        #[test]
        fn there_and_back(map in any_map(), id in 0u32..2500) {
            if let Some(outside) = map.to_outside(id) {
                prop_assert_eq!(map.to_inside(outside), Some(id));
            }
        }

        #[test]
        fn composition_is_one_after_the_other(inner in any_map(), outer in any_map(), id in 0u32..2500) {
            let expected = inner.to_outside(id).and_then(|middle| outer.to_outside(middle));
            prop_assert_eq!(inner.compose(&outer).to_outside(id), expected);
        }
    }
}
