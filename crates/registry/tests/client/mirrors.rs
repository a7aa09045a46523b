//! registries.conf at work: order, fall back, blocked and insecure registries.

use unroot_registry::manifest::OCI_MANIFEST;
use unroot_registry::{Client, Credentials, Descriptor, ErrorKind, Options, Platform, RegistriesConf};

use crate::server::{Reply, Server};
use crate::{LAYER, manifest_of, noise, options, reference};

fn client_of(conf: &str) -> Client {
    Client::new(Options { conf: RegistriesConf::parse(conf).unwrap(), ..options() }).unwrap()
}

fn mirrored(primary: &str, mirrors: &[&str]) -> String {
    let mut conf =
        format!("[[registry]]\nprefix = 'example.com/app'\nlocation = '{primary}/real'\ninsecure = true\n");
    for mirror in mirrors {
        conf += &format!("[[registry.mirror]]\nlocation = '{mirror}/copy'\ninsecure = true\n");
    }
    conf
}

fn serving(image: &[u8]) -> Server {
    let image = image.to_vec();
    Server::start(move |seen, _| match seen.path.contains("/manifests/") {
        true => Reply::ok(image.clone()).header("Content-Type", OCI_MANIFEST),
        false => Reply::new(404),
    })
}

#[test]
fn the_first_mirror_that_has_it() {
    let image = manifest_of(b"{}", &[]);
    let (empty, full, primary) = (Server::start(|_, _| Reply::new(404)), serving(&image), serving(&image));
    let client = client_of(&mirrored(&primary.address, &["127.0.0.1:1", &empty.address, &full.address]));
    let name = reference("example.com/app/web:1");
    let resolved = client.resolve(&name, &Platform::host()).unwrap();
    assert!(
        resolved.reference.to_string().starts_with("example.com/app/web:1@sha256:"),
        "the logical name stays"
    );
    assert_eq!(full.seen()[0].path, "/v2/copy/web/manifests/1");
    assert!(primary.seen().is_empty());
}

#[test]
fn all_failures_are_listed() {
    let (mirror, primary) = (Server::start(|_, _| Reply::new(403)), Server::start(|_, _| Reply::new(404)));
    let client = client_of(&mirrored(&primary.address, &[&mirror.address]));
    let error = client.resolve(&reference("example.com/app/web"), &Platform::host()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    let (mirror, primary) = (&mirror.address, &primary.address);
    let start = format!(
        "initializing source docker://example.com/app/web:latest: (Mirrors also failed: [{mirror}/copy/web:latest: reading manifest latest in {mirror}/copy/web: "
    );
    assert!(text.starts_with(&start), "{text}");
    assert!(
        text.ends_with(&format!(
            "{primary}/real/web:latest: reading manifest latest in {primary}/real/web: manifest unknown"
        )),
        "{text}"
    );
}

#[test]
fn a_blob_goes_on_at_the_next_source() {
    let layer = noise(400_000);
    let image = manifest_of(b"{}", &[&layer]);
    let (manifest, half) = (image.clone(), layer.clone());
    let mirror =
        Server::start(move |seen, _| match (seen.path.contains("/manifests/"), seen.range_start()) {
            (true, _) => Reply::ok(manifest.clone()).header("Content-Type", OCI_MANIFEST),
            (false, None) => Reply::ok(half.clone()).cut(250_000),
            (false, Some(_)) => Reply::new(502),
        });
    let whole = layer.clone();
    let primary = Server::start(move |seen, _| match seen.range_start() {
        Some(start) => Reply::part(&whole, start),
        None => Reply::new(500),
    });
    let client = client_of(&mirrored(&primary.address, &[&mirror.address]));
    let resolved = client.resolve(&reference("example.com/app/web"), &Platform::host()).unwrap();
    let mut bytes = Vec::new();
    let mut reader = client.blob(&resolved.reference, &resolved.layers[0]).unwrap();
    std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
    assert!(bytes == layer);
    assert_eq!(primary.seen()[0].range_start(), Some(250_000));
}

#[test]
fn given_credentials_are_not_for_mirrors() {
    let challenge = |_: &crate::server::Seen, _| Reply::new(401).header("WWW-Authenticate", "Basic realm=x");
    let (mirror, primary) = (Server::start(challenge), Server::start(challenge));
    let conf = RegistriesConf::parse(&mirrored(&primary.address, &[&mirror.address])).unwrap();
    let client =
        Client::new(Options { conf, credentials: Credentials::parse("me:secret"), ..options() }).unwrap();
    let error = client.resolve(&reference("example.com/app/web"), &Platform::host()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(mirror.seen().iter().all(|seen| seen.header("authorization").is_none()));
    assert!(primary.seen().iter().any(|seen| seen.header("authorization").is_some()));
}

#[test]
fn blocked_registries_are_not_asked() {
    let server = Server::start(|_, _| Reply::ok("x"));
    let client = client_of(&format!("[[registry]]\nlocation = '{}'\nblocked = true", server.address));
    let name = reference(&server.name("a"));
    let blob = Descriptor::of(LAYER, b"x");
    assert_eq!(client.resolve(&name, &Platform::host()).unwrap_err().kind(), ErrorKind::Blocked);
    assert_eq!(client.blob(&name, &blob).unwrap_err().kind(), ErrorKind::Blocked);
    assert_eq!(client.tags(&name).unwrap_err().kind(), ErrorKind::Blocked);
    assert_eq!(client.has_blob(&name, &blob.digest).unwrap_err().kind(), ErrorKind::Blocked);
    assert_eq!(client.catalog(&server.address, 10).unwrap_err().kind(), ErrorKind::Blocked);
    assert!(server.seen().is_empty());
}
