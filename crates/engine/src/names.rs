//! Ids and names of containers.

use crate::error::{Context as _, Error, Result};

const FIRST: [&str; 64] = [
    "amber", "ancient", "autumn", "brave", "bright", "calm", "careful", "cedar", "clear", "clever",
    "coastal", "copper", "cosmic", "crisp", "curious", "daring", "dawn", "eager", "early", "earnest", "fair",
    "fearless", "fleet", "gentle", "glad", "golden", "graceful", "grand", "hardy", "honest", "humble",
    "indigo", "jolly", "keen", "kind", "lively", "lucid", "lunar", "mellow", "mighty", "misty", "modest",
    "noble", "northern", "patient", "plucky", "proud", "quick", "quiet", "radiant", "ready", "rustic",
    "scarlet", "serene", "silver", "sincere", "solar", "steady", "sunny", "swift", "tidy", "tranquil",
    "vivid", "witty",
];

const SECOND: [&str; 64] = [
    "acorn", "anchor", "badger", "beacon", "birch", "brook", "canyon", "comet", "coral", "crane", "delta",
    "dolphin", "dune", "eagle", "ember", "falcon", "fern", "finch", "fjord", "forest", "fox", "garnet",
    "glacier", "harbor", "hawk", "heron", "island", "ivy", "juniper", "kestrel", "lagoon", "lantern",
    "larch", "lark", "lynx", "maple", "marten", "meadow", "mesa", "moth", "nebula", "oak", "orchid",
    "osprey", "otter", "owl", "pebble", "pine", "plover", "quartz", "raven", "reef", "river", "robin",
    "salmon", "sparrow", "spruce", "summit", "swan", "thistle", "tiger", "valley", "willow", "wren",
];

fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .context(|| "getrandom".into())?;
    }
    Ok(bytes)
}

/// 64 hex digits.
pub fn new_id() -> Result<String> {
    Ok(unroot_store::hex(&random_bytes::<32>()?))
}

/// `steady_heron`
pub fn random() -> String {
    let [a, b] = random_bytes::<2>().unwrap_or([7, 7]);
    format!("{}_{}", FIRST[usize::from(a) % 64], SECOND[usize::from(b) % 64])
}

/// Refuses what is no name.
pub fn check(name: &str) -> Result<()> {
    match unroot_store_name(name) {
        true => Ok(()),
        false => Err(Error::engine("names must match [a-zA-Z0-9][a-zA-Z0-9_.-]*: invalid argument")),
    }
}

fn unroot_store_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && name.len() <= 255
}
