//! `idmap[=uids=DISK-HOST-AMOUNT#...;gids=...]`: a mount whose files have other owners than on disk, without changing them
//! (mount_setattr(2)). Without numbers an id on disk is the same id in the container; with `@` before a triple its second
//! number is the container's.

use unroot_idmap::{Extent, IdMap, IdMaps};

use crate::error::{Error, Result};

/// It is this option.
pub fn is_idmap(option: &str) -> bool {
    option == "idmap" || option.starts_with("idmap=")
}

/// The maps that an option means: on disk -> the engine's. `own` are those of the container, if it has any.
pub fn maps_of(option: &str, own: Option<&IdMaps>) -> Result<IdMaps> {
    let wrong = |why: &str| {
        Error::engine(format_args!(
            "invalid idmap option {option:?}: {why}: idmap=uids=DISK-HOST-AMOUNT[#...];gids=..."
        ))
    };
    let Some(text) = option.strip_prefix("idmap=") else {
        return own.cloned().ok_or_else(|| {
            Error::engine("idmap without numbers is for a container with a user namespace of its own")
                .with_hint("--uidmap, --userns=auto, or idmap=uids=DISK-HOST-AMOUNT;gids=DISK-HOST-AMOUNT")
        });
    };
    let (mut uid, mut gid) = (None, None);
    for part in text.split(';').filter(|p| !p.is_empty()) {
        match part.split_once('=') {
            Some(("uids", list)) => uid = Some(parse(list, own.map(|m| &m.uid)).map_err(|e| wrong(&e))?),
            Some(("gids", list)) => gid = Some(parse(list, own.map(|m| &m.gid)).map_err(|e| wrong(&e))?),
            _ => return Err(wrong("it has uids and gids")),
        }
    }
    match (uid, gid) {
        (Some(uid), Some(gid)) => Ok(IdMaps { uid, gid }),
        _ => Err(wrong("it has uids and gids, both")),
    }
}

fn parse(list: &str, own: Option<&IdMap>) -> std::result::Result<IdMap, String> {
    let mut extents = Vec::new();
    for triple in list.split('#') {
        let (relative, numbers) = match triple.strip_prefix('@') {
            Some(rest) => (true, rest),
            None => (false, triple),
        };
        let numbers: Vec<u32> = numbers.split('-').map_while(|n| n.parse().ok()).collect();
        let [disk, second, length] = numbers[..] else {
            return Err(format!("{triple:?} is not three numbers"));
        };
        let wanted = IdMap::new(vec![Extent::new(disk, second, length)]).map_err(|e| e.to_string())?;
        match (relative, own) {
            (false, _) => extents.extend(wanted.extents()),
            (true, None) => return Err("@ is for a container with a user namespace of its own".into()),
            (true, Some(own)) => {
                let outside = wanted.compose(own);
                if outside.len() != u64::from(length) {
                    return Err(format!("{triple:?}: the container has the ids {}", own.ranges()));
                }
                extents.extend(outside.extents());
            }
        }
    }
    IdMap::new(extents).map_err(|e| e.to_string())
}

/// The option with all its numbers, for whoever mounts.
pub fn settled(maps: &IdMaps) -> String {
    let list = |map: &IdMap| {
        let triple = |e: &Extent| format!("{}-{}-{}", e.inside, e.outside, e.length);
        map.extents().iter().map(triple).collect::<Vec<_>>().join("#")
    };
    format!("idmap=uids={};gids={}", list(&maps.uid), list(&maps.gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let map = IdMap::parse("0 1000 200").unwrap();
        let own = IdMaps { uid: map.clone(), gid: map };
        let text = |option: &str, own| maps_of(option, own).map(|m| settled(&m)).map_err(|e| e.to_string());
        assert_eq!(text("idmap", Some(&own)).unwrap(), "idmap=uids=0-1000-200;gids=0-1000-200");
        assert_eq!(
            text("idmap=uids=0-1-10#10-21-10;gids=0-100-10", None).unwrap(),
            "idmap=uids=0-1-10#10-21-10;gids=0-100-10"
        );
        assert_eq!(
            text("idmap=uids=@2000-1-1;gids=@2000-1-1", Some(&own)).unwrap(),
            "idmap=uids=2000-1001-1;gids=2000-1001-1"
        );
        for wrong in [
            "idmap=",
            "idmap=uids=1-2;gids=1-1-1",
            "idmap=uids=0-0-1",
            "idmap=x=1",
            "idmap=uids=@0-500-1;gids=@0-0-1",
        ] {
            assert!(text(wrong, Some(&own)).is_err(), "{wrong}");
        }
        assert!(text("idmap", None).unwrap_err().contains("user namespace of its own"));
    }
}
