//! A layer: what is taken in can be written again bit for bit, and nothing is outside of the store.
#![no_main]

use std::io::Read as _;

libfuzzer_sys::fuzz_target!(|tar: &[u8]| {
    let base = std::env::temp_dir().join(format!("unroot-fuzz-{}", std::process::id()));
    let store = unroot_store::Store::new(&base.join("store"));
    if let Ok(layer) = store.ingest_layer(tar, None, &|_, _, _| Ok(())) {
        let mut again = Vec::new();
        store.layer_tar(&layer.diff_id).unwrap().read_to_end(&mut again).unwrap();
        assert_eq!(unroot_store::digest(&again), layer.diff_id);
    }
    assert_eq!(std::fs::read_dir(&base).map_or(1, |found| found.count()), 1, "something beside the store");
    let _ = unroot_store::remove_tree(&base);
});
