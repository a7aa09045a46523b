//! What the kernel says of a process's ids: never what was asked for.

use std::fs;

use crate::{Error, IdMap, IdMaps};

/// The maps of a process (`self` too), inside -> the reader's own user namespace.
pub fn maps_of(pid: &str) -> Result<IdMaps, Error> {
    Ok(IdMaps { uid: read(pid, "uid_map")?, gid: read(pid, "gid_map")? })
}

fn read(pid: &str, file: &str) -> Result<IdMap, Error> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).map_err(|e| Error::Invalid(format!("read {path}: {e}")))?;
    IdMap::parse(&text)
}
