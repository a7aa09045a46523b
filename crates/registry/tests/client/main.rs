//! The client against servers that lie, stall and break, and against Debian's docker-registry.

mod authentication;
mod blobs;
mod debian;
mod lists;
mod manifests;
mod mirrors;
mod server;
mod tls;
mod uploads;

use std::time::Duration;

use unroot_registry::manifest::{OCI_CONFIG, OCI_MANIFEST};
use unroot_registry::{Client, Descriptor, Options, Reference, Timeouts};

/// The media type of the test layers.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Short waits, two retries without pause.
fn options() -> Options {
    let short = Duration::from_millis(700);
    let timeouts =
        Timeouts { connect: Duration::from_secs(5), stall: short, small: short * 5, commit: short * 5 };
    Options {
        retry: 2,
        retry_delay: Some(Duration::from_millis(5)),
        certs_d: Vec::new(),
        timeouts,
        ..Options::default()
    }
}

fn client() -> Client {
    Client::new(options()).unwrap()
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// An image manifest of a config and layers.
fn manifest_of(config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let layers: Vec<_> = layers.iter().map(|layer| Descriptor::of(LAYER, layer)).collect();
    let document = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor::of(OCI_CONFIG, config),
        "layers": layers,
    });
    serde_json::to_vec(&document).unwrap()
}

/// Bytes that compress and repeat badly enough to show a wrong offset.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}
