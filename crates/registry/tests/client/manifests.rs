//! Choosing a manifest, and refusing what is no image or not the right bytes.

use unroot_registry::manifest::{DOCKER_LIST, OCI_INDEX, OCI_MANIFEST};
use unroot_registry::{Descriptor, Digest, ErrorKind, Platform};

use crate::server::{Reply, Server};
use crate::{client, manifest_of, reference};

/// Serves documents under tags and digests.
fn serving(documents: Vec<(&'static str, Vec<u8>, &'static str)>) -> Server {
    Server::start(move |seen, _| {
        let wanted = seen.path.rsplit('/').next().unwrap_or_default();
        let found =
            documents.iter().find(|(tag, body, _)| *tag == wanted || Digest::sha256(body).as_str() == wanted);
        match found {
            Some((_, body, media_type)) => Reply::ok(body.clone()).header("Content-Type", *media_type),
            None => {
                Reply::new(404).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown tag"}]}"#)
            }
        }
    })
}

fn index_of(entries: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let entries: Vec<_> = entries
        .iter()
        .map(|(platform, media_type, body)| Descriptor {
            platform: (!platform.is_empty()).then(|| platform.parse().unwrap()),
            ..Descriptor::of(media_type, body)
        })
        .collect();
    serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}))
        .unwrap()
}

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

#[test]
fn picks_the_best_variant() {
    let (v6, v7) = (manifest_of(b"{\"v\":6}", &[b"six"]), manifest_of(b"{\"v\":7}", &[b"seven"]));
    let index = index_of(&[("linux/arm/v6", OCI_MANIFEST, &v6), ("linux/arm/v7", OCI_MANIFEST, &v7)]);
    let server = serving(vec![
        ("1", index.clone(), OCI_INDEX),
        ("", v6.clone(), OCI_MANIFEST),
        ("-", v7.clone(), OCI_MANIFEST),
    ]);
    let name = reference(&server.name("a/b:1"));
    let resolved = client().resolve(&name, &platform("linux/arm/v8")).unwrap();
    assert_eq!(resolved.manifest, v7);
    assert_eq!(resolved.manifest_digest, Digest::sha256(&v7));
    assert_eq!(resolved.index_digest, Some(Digest::sha256(&index)));
    assert_eq!(resolved.reference.to_string(), format!("{name}@{}", Digest::sha256(&index)));
    assert_eq!(resolved.layers, [Descriptor::of(crate::LAYER, b"seven")]);
    assert_eq!(client().resolve(&name, &platform("linux/arm/v6")).unwrap().manifest, v6);
    let error = client().resolve(&name, &platform("linux/s390x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Platform);
    assert!(error.hint().unwrap().contains("linux/arm/v6, linux/arm/v7"), "{:?}", error.hint());
}

#[test]
fn nested_indexes_end() {
    let image = manifest_of(b"{}", &[]);
    let one = index_of(&[("linux/amd64", OCI_MANIFEST, &image)]);
    let two = index_of(&[("", OCI_INDEX, &one)]);
    let three = index_of(&[("", OCI_INDEX, &two)]);
    let server = serving(vec![
        ("one", one, OCI_INDEX),
        ("two", two, OCI_INDEX),
        ("three", three, OCI_INDEX),
        ("", image.clone(), OCI_MANIFEST),
    ]);
    let resolve =
        |tag: &str| client().resolve(&reference(&server.name(&format!("a:{tag}"))), &platform("linux/amd64"));
    assert_eq!(resolve("two").unwrap().manifest, image);
    let error = resolve("three").unwrap_err();
    assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("nested"), "{error}");
}

#[test]
fn missing_manifests_are_unknown() {
    let server = serving(vec![]);
    let name = server.name("a");
    let error = client().resolve(&reference(&name), &Platform::host()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        format!(
            "initializing source docker://{name}:latest: reading manifest latest in {name}: manifest unknown"
        )
    );
    assert_eq!(server.seen().len(), 1, "a 404 is not tried again");
}

#[test]
fn digests_hold_for_manifests() {
    let (right, wrong) = (manifest_of(b"{}", &[b"right"]), manifest_of(b"{}", &[b"wrong"]));
    let (body, announced) = (wrong.clone(), Digest::sha256(&right));
    let server = Server::start(move |_, _| {
        Reply::ok(body.clone())
            .header("Content-Type", OCI_MANIFEST)
            .header("Docker-Content-Digest", announced.as_str())
    });
    let by_digest = reference(&server.name(&format!("a@{}", Digest::sha256(&right))));
    assert_eq!(client().manifest(&by_digest).unwrap_err().kind(), ErrorKind::Digest);
    let by_tag = reference(&server.name("a:1"));
    assert_eq!(client().manifest(&by_tag).unwrap_err().kind(), ErrorKind::Digest);
    // A tag beside a digest is not asked for.
    let both = reference(&server.name(&format!("a:1@{}", Digest::sha256(&wrong))));
    let unannounced = serving(vec![("x", wrong.clone(), OCI_MANIFEST)]);
    let both_there = reference(&both.to_string().replace(&server.address, &unannounced.address));
    assert_eq!(client().manifest(&both_there).unwrap().bytes, wrong);
}

#[test]
fn an_index_that_lies_about_sizes() {
    let image = manifest_of(b"{}", &[]);
    let mut text = String::from_utf8(index_of(&[("linux/amd64", OCI_MANIFEST, &image)])).unwrap();
    text = text.replace(&format!("\"size\":{}", image.len()), "\"size\":7");
    let huge = text.replace("\"size\":7", "\"size\":99999999999");
    let server = serving(vec![
        ("small", text.into_bytes(), OCI_INDEX),
        ("huge", huge.into_bytes(), OCI_INDEX),
        ("", image, OCI_MANIFEST),
    ]);
    let kind = |tag: &str| {
        let name = reference(&server.name(&format!("a:{tag}")));
        client().resolve(&name, &platform("linux/amd64")).unwrap_err().kind()
    };
    assert_eq!(kind("small"), ErrorKind::Digest);
    assert_eq!(kind("huge"), ErrorKind::TooLarge);
}

#[test]
fn endless_and_huge_manifests_are_cut_off() {
    let endless = Server::start(|_, _| Reply::ok("").endless());
    let error = client().manifest(&reference(&endless.name("a"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    let huge = Server::start(|_, _| Reply::ok(vec![b' '; 5 << 20]));
    assert_eq!(client().manifest(&reference(&huge.name("a"))).unwrap_err().kind(), ErrorKind::TooLarge);
    let header = Server::start(|_, _| Reply::ok("").header("X", "y".repeat(1 << 20)));
    let error = client().manifest(&reference(&header.name("a"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    let drip = Server::start(|_, _| Reply::ok("{".repeat(1000)).drip());
    let error = client().manifest(&reference(&drip.name("a"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
}

#[test]
fn schema_1_and_artifacts_are_named() {
    let old = br#"{"schemaVersion":1,"fsLayers":[],"name":"a"}"#.to_vec();
    let chart = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "layers": [],
        "config": Descriptor::of("application/vnd.cncf.helm.config.v1+json", b"{}"),
    }))
    .unwrap();
    let list = br#"{"schemaVersion":2,"manifests":null}"#.to_vec();
    let server = serving(vec![
        ("old", old, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        ("chart", chart, OCI_MANIFEST),
        ("null", list, DOCKER_LIST),
        ("html", b"<html>sign in</html>".to_vec(), "text/html"),
    ]);
    let error = |tag: &str| {
        let name = reference(&server.name(&format!("a:{tag}")));
        client().resolve(&name, &Platform::host()).unwrap_err()
    };
    assert!(error("old").to_string().contains("schema 1"));
    assert!(
        error("chart").to_string().contains("artifact with a config of type \"application/vnd.cncf.helm")
    );
    assert_eq!(error("null").kind(), ErrorKind::Protocol);
    assert_eq!(error("html").kind(), ErrorKind::Protocol);
}

#[test]
fn manifests_follow_redirects() {
    let image = manifest_of(b"{}", &[]);
    let body = image.clone();
    let other = Server::start(move |_, _| Reply::ok(body.clone()).header("Content-Type", OCI_MANIFEST));
    let target = format!("http://{}/elsewhere", other.address);
    let server = Server::start(move |_, _| Reply::redirect(target.clone()));
    assert_eq!(client().manifest(&reference(&server.name("pause:3"))).unwrap().bytes, image);
    assert_eq!(other.seen()[0].header("accept"), server.seen()[0].header("accept"));
}
