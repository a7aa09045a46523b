//! Pushes against a server that breaks, lies and sends elsewhere.

use std::io::{self, Read};

use unroot_registry::{Client, Descriptor, ErrorKind, Options};

use crate::server::{Reply, Server};
use crate::{LAYER, client, noise, options, reference};

fn push(
    client: &Client,
    server: &Server,
    descriptor: &Descriptor,
    bytes: &[u8],
) -> Result<usize, unroot_registry::Error> {
    let mut opened = 0;
    let mut open = || -> io::Result<Box<dyn Read>> {
        opened += 1;
        Ok(Box::new(io::Cursor::new(bytes.to_vec())))
    };
    client.push_blob(&reference(&server.name("a")), descriptor, &mut open)?;
    Ok(opened)
}

/// A registry that takes uploads; `patch` answers their bytes.
fn registry(patch: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Server {
    let patches = std::sync::atomic::AtomicUsize::new(0);
    Server::start(move |seen, _| match seen.method.as_str() {
        "HEAD" => Reply::new(404),
        "POST" => Reply::new(202).header("Location", "/upload?state=1"),
        "PATCH" => patch(patches.fetch_add(1, std::sync::atomic::Ordering::SeqCst)),
        "PUT" => Reply::new(201),
        _ => Reply::new(405),
    })
}

#[test]
fn streams_and_commits() {
    let server = registry(|_| Reply::new(202).header("Location", "/upload?state=2"));
    let bytes = noise(300_000);
    let descriptor = Descriptor::of(LAYER, &bytes);
    assert_eq!(push(&client(), &server, &descriptor, &bytes).unwrap(), 1);
    let seen = server.seen();
    assert_eq!(seen[2].header("content-length"), Some("300000"));
    assert_eq!(seen[2].header("transfer-encoding"), None);
    assert!(seen[2].body == bytes);
    assert!(seen[3].is("PUT", &format!("/upload?state=2&digest=sha256%3A{}", descriptor.digest.hex())));
    assert_eq!(push(&client(), &server, &Descriptor::of(LAYER, b""), b"").unwrap(), 1);
}

#[test]
fn tries_again_from_the_start() {
    let server = registry(|count| match count {
        0 => Reply::hangup(),
        1 => Reply::new(503),
        _ => Reply::new(202).header("Location", "/upload?state=2"),
    });
    let bytes = noise(1000);
    assert_eq!(push(&client(), &server, &Descriptor::of(LAYER, &bytes), &bytes).unwrap(), 3);
}

/// A registry whose first upload breaks; `status` says what has arrived, `rest` answers what is sent then.
fn broken(
    status: impl Fn() -> Reply + Send + Sync + 'static,
    rest: impl Fn() -> Reply + Send + Sync + 'static,
) -> Server {
    let whole = std::sync::atomic::AtomicUsize::new(0);
    Server::start(move |seen, _| match (seen.method.as_str(), seen.header("content-range")) {
        ("HEAD", _) => Reply::new(404),
        ("POST", _) => Reply::new(202).header("Location", "/upload?state=1"),
        ("GET", _) => status(),
        ("PATCH", Some(_)) => rest(),
        ("PATCH", None) => match whole.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Reply::hangup(),
            _ => Reply::new(202).header("Location", "/upload?state=3"),
        },
        ("PUT", _) => Reply::new(201),
        _ => Reply::new(405),
    })
}

/// How often each of the requests of an upload came.
fn counts(server: &Server) -> Vec<usize> {
    let count = |method: &&str| server.seen().iter().filter(|seen| seen.method == *method).count();
    ["POST", "PATCH", "GET", "PUT"].iter().map(count).collect()
}

#[test]
fn goes_on_where_it_broke() {
    let status = || Reply::new(204).header("Range", "0-399").header("Location", "/upload?state=2");
    let server = broken(status, || Reply::new(202).header("Location", "/upload?state=3"));
    let bytes = noise(1000);
    let descriptor = Descriptor::of(LAYER, &bytes);
    assert_eq!(push(&client(), &server, &descriptor, &bytes).unwrap(), 2);
    assert_eq!(counts(&server), [1, 2, 1, 1]);
    let seen = server.seen();
    let rest = seen.iter().rfind(|seen| seen.method == "PATCH").unwrap();
    assert_eq!((rest.path.as_str(), rest.header("content-range")), ("/upload?state=2", Some("400-999")));
    assert!(rest.body == bytes[400..]);
    let end = format!("/upload?state=3&digest=sha256%3A{}", descriptor.digest.hex());
    assert!(seen.last().unwrap().is("PUT", &end));
}

#[test]
fn all_had_arrived() {
    let status = || Reply::new(204).header("Range", "0-999");
    let server = broken(status, || Reply::new(500));
    let bytes = noise(1000);
    push(&client(), &server, &Descriptor::of(LAYER, &bytes), &bytes).unwrap();
    assert_eq!(counts(&server), [1, 1, 1, 1]);
}

#[test]
fn begins_anew_where_nothing_is_known() {
    let bytes = noise(1000);
    for range in ["0-0", "0-1000", "5-9", "0-18446744073709551615", "x", ""] {
        let server = broken(move || Reply::new(204).header("Range", range), || Reply::new(500));
        push(&client(), &server, &Descriptor::of(LAYER, &bytes), &bytes).unwrap();
        assert_eq!(counts(&server), [2, 2, 1, 1], "{range}");
    }
    let server = broken(|| Reply::new(404), || Reply::new(500));
    push(&client(), &server, &Descriptor::of(LAYER, &bytes), &bytes).unwrap();
    assert_eq!(counts(&server), [2, 2, 1, 1]);
    let refusing = broken(|| Reply::new(204).header("Range", "0-399"), || Reply::new(416));
    push(&client(), &refusing, &Descriptor::of(LAYER, &bytes), &bytes).unwrap();
    assert_eq!(counts(&refusing), [2, 3, 1, 1]);
}

#[test]
fn uploads_that_never_get_further_end() {
    let server = broken(|| Reply::new(204).header("Range", "0-399"), Reply::hangup);
    let bytes = noise(1000);
    let error = push(&client(), &server, &Descriptor::of(LAYER, &bytes), &bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    assert_eq!(counts(&server), [1, 3, 2, 0], "two retries");
}

#[test]
fn local_bytes_are_checked() {
    let server = registry(|_| Reply::new(202).header("Location", "/upload?state=2"));
    let bytes = noise(1000);
    let descriptor = Descriptor::of(LAYER, &bytes);
    for wrong in [noise(999), noise(1001), vec![0; 1000]] {
        let error = push(&client(), &server, &descriptor, &wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Digest, "{error}");
        assert!(error.to_string().contains("reading the local blob"), "{error}");
    }
    assert!(!server.seen().iter().any(|seen| seen.method == "PUT"), "nothing wrong is committed");
}

#[test]
fn uploads_elsewhere_lose_credentials() {
    let storage = registry(|_| Reply::new(202).header("Location", "/upload?state=2"));
    let target = format!("http://{}/upload", storage.address);
    let server = Server::start(move |seen, _| match (seen.header("authorization"), seen.method.as_str()) {
        (None, _) => Reply::new(401).header("WWW-Authenticate", "Basic realm=x"),
        (_, "HEAD") => Reply::new(404),
        _ => Reply::new(202).header("Location", target.clone()),
    });
    let credentials = unroot_registry::Credentials::parse("me:secret");
    let client = Client::new(Options { credentials, ..options() }).unwrap();
    push(&client, &server, &Descriptor::of(LAYER, b"x"), b"x").unwrap();
    assert_eq!(storage.seen().len(), 2);
    assert!(storage.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[test]
fn redirected_posts_are_not_followed() {
    let server = Server::start(|seen, _| match seen.method.as_str() {
        "HEAD" => Reply::new(404),
        _ => Reply::redirect("/elsewhere"),
    });
    let error = push(&client(), &server, &Descriptor::of(LAYER, b"x"), b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert_eq!(server.count("/elsewhere"), 0);
}

#[test]
fn manifests_are_compared() {
    let server = Server::start(|_, _| {
        Reply::new(201).header("Docker-Content-Digest", Descriptor::of("", b"other").digest.as_str())
    });
    let error = client().push_manifest(&reference(&server.name("a:1")), "x", b"{}").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Digest);
    let wrong = reference(&server.name("a")).with_digest(Descriptor::of("", b"other").digest);
    assert_eq!(client().push_manifest(&wrong, "x", b"{}").unwrap_err().kind(), ErrorKind::Digest);
    assert_eq!(server.seen().len(), 1);
}
