//! Sets of ids as ranges: what is free, and what is laid upon what.

use crate::{Error, Extent, IdMap};

/// Disjoint ranges `[start, end)`, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Of any ranges.
    pub fn new(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut sorted: Vec<(u64, u64)> = ranges.into_iter().filter(|(start, end)| start < end).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (start, end) in sorted {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Self(merged)
    }

    /// The ids inside of extents.
    pub fn inside<'a>(extents: impl IntoIterator<Item = &'a Extent>) -> Self {
        Self::new(extents.into_iter().map(|e| (e.inside.into(), u64::from(e.inside) + u64::from(e.length))))
    }

    /// The ids outside.
    pub fn outside<'a>(extents: impl IntoIterator<Item = &'a Extent>) -> Self {
        Self::new(extents.into_iter().map(|e| (e.outside.into(), u64::from(e.outside) + u64::from(e.length))))
    }

    /// What these have and the others have not.
    pub fn without(&self, others: &Ranges) -> Self {
        let mut left = Vec::new();
        for &(mut start, end) in &self.0 {
            for &(from, to) in &others.0 {
                if to > start && from < end {
                    left.push((start, from.max(start)));
                    start = to.min(end);
                }
            }
            left.push((start, end));
        }
        Self::new(left)
    }

    /// What both have.
    pub fn common(&self, others: &Ranges) -> Self {
        self.without(&self.without(others))
    }

    /// How many ids.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges.
    pub fn as_slice(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Only the first range that holds so many ids, if there is one.
    pub fn first_with(&self, count: u64) -> Option<Self> {
        let range = self.0.iter().find(|(start, end)| end - start >= count)?;
        Some(Self(vec![*range]))
    }

    /// A map of the one id after the other, as far as both go: these are inside, the others outside.
    pub fn laid_on(&self, outside: &Ranges) -> Vec<Extent> {
        let (mut inside, mut outside) = (self.0.iter().copied(), outside.0.iter().copied());
        let (mut a, mut b) = (inside.next(), outside.next());
        let mut extents = Vec::new();
        while let (Some((a_start, a_end)), Some((b_start, b_end))) = (a, b) {
            let length = (a_end - a_start).min(b_end - b_start);
            // (ids are 32 bits: whoever made the ranges had no others)
            let id = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            extents.push(Extent::new(id(a_start), id(b_start), id(length)));
            a = Some((a_start + length, a_end)).filter(|(start, end)| start < end).or_else(|| inside.next());
            b = Some((b_start + length, b_end)).filter(|(start, end)| start < end).or_else(|| outside.next());
        }
        extents
    }
}

/// The lines of a map as the kernel takes them from around it: none goes over the border of two lines of the map
/// around it, and all are one page at most (user_namespaces(7)).
pub fn lines_for_kernel(map: &IdMap, around: &IdMap) -> Result<String, Error> {
    let mut text = String::new();
    for extent in map.extents() {
        let (mut inside, mut outside, mut left) = (extent.inside, extent.outside, extent.length);
        while left > 0 {
            let room = around.extents().iter().find_map(|e| {
                let offset = outside.checked_sub(e.inside)?;
                (offset < e.length).then(|| e.length - offset)
            });
            let length = room.unwrap_or(left).min(left);
            text += &format!("{inside} {outside} {length}\n");
            left -= length;
            if left > 0 {
                inside += length;
                outside += length;
            }
        }
    }
    let lines = text.lines().count();
    if lines > crate::map::MAX_EXTENTS || text.len() >= 4096 {
        return Err(Error::Cured {
            text: format!(
                "the id map has {lines} lines of {} bytes; the kernel takes {} lines and 4095 bytes at most",
                text.len(),
                crate::map::MAX_EXTENTS
            ),
            hint: "fewer and longer ranges: in /etc/subuid and /etc/subgid, or in --uidmap and --gidmap"
                .into(),
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(list: &[(u64, u64)]) -> Ranges {
        Ranges::new(list.iter().copied())
    }

    #[test]
    fn sets() {
        let all = ranges(&[(0, 10), (20, 30)]);
        assert_eq!(all.without(&ranges(&[(5, 25)])), ranges(&[(0, 5), (25, 30)]));
        assert_eq!(all.without(&ranges(&[(2, 3), (4, 5), (29, 90)])).len(), 17);
        assert_eq!(all.common(&ranges(&[(5, 25)])), ranges(&[(5, 10), (20, 25)]));
        assert_eq!(ranges(&[(0, 2), (1, 5), (5, 6), (9, 9)]), ranges(&[(0, 6)]));
    }

    #[test]
    fn one_on_the_other() {
        let extents = ranges(&[(0, 5), (10, 12)]).laid_on(&ranges(&[(100, 103), (200, 210)]));
        let shown: Vec<_> = extents.iter().map(|e| (e.inside, e.outside, e.length)).collect();
        assert_eq!(shown, [(0, 100, 3), (3, 200, 2), (10, 202, 2)]);
    }

    #[test]
    fn lines_end_where_those_around_end() {
        let around = IdMap::parse("0 1000 1\n1 100000 65536").unwrap();
        let map = IdMap::parse("0 0 1000").unwrap();
        assert_eq!(lines_for_kernel(&map, &around).unwrap(), "0 0 1\n1 1 999\n");
        let long = (0..340u32).map(|n| Extent::new(n, 3_000_000_000 + 2 * n, 1)).collect();
        let refused = lines_for_kernel(&IdMap::new(long).unwrap(), &IdMap::identity()).unwrap_err();
        assert!(refused.to_string().contains("4095"), "{refused}");
    }
}
