//! Manifests and indexes of registries, and configurations of images.
#![no_main]

use unroot_registry::{Digest, Manifest};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for kind in ["application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"] {
        let digest = Digest::sha256(bytes);
        let _ = Manifest { bytes: bytes.to_vec(), media_type: kind.into(), digest }.entries();
    }
    let _ = serde_json::from_slice::<unroot_store::ImageConfig>(bytes);
});
