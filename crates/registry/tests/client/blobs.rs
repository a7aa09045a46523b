//! Blobs: resumed, bounded, verified, redirected, shared by threads.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use unroot_registry::{Client, Descriptor, Error, ErrorKind};

use crate::server::{Reply, Seen, Server};
use crate::{LAYER, client, noise, options, reference};

fn read(client: &Client, server: &Server, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut reader = client.blob(&reference(&server.name("a:1")), descriptor)?;
    match reader.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => {
            assert!(Error::of_io(&error).is_some());
            assert!(reader.read(&mut [0; 8]).is_err(), "a failed reader stays failed");
            Err(error.downcast().unwrap())
        }
    }
}

fn fails(server: &Server, content: &[u8]) -> ErrorKind {
    read(&client(), server, &Descriptor::of(LAYER, content)).unwrap_err().kind()
}

/// Serves the content by `Range`, except what `first` does with the first request.
fn resumable(content: &[u8], first: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> Server {
    let content = content.to_vec();
    Server::start(move |seen: &Seen, before| match (before, seen.range_start()) {
        (0, _) => first(Reply::ok(content.clone())),
        (_, Some(start)) => Reply::part(&content, start),
        (_, None) => Reply::ok(content.clone()),
    })
}

#[test]
fn resumes_after_a_cut_and_a_stall() {
    let content = noise(700_000);
    for server in
        [resumable(&content, |reply| reply.cut(300_000)), resumable(&content, |reply| reply.stall(300_000))]
    {
        let bytes = read(&client(), &server, &Descriptor::of(LAYER, &content)).unwrap();
        assert!(bytes == content);
        assert_eq!(server.seen()[1].range_start(), Some(300_000));
        assert_eq!(server.seen().len(), 2);
    }
}

#[test]
fn resumes_without_range() {
    let content = noise(500_000);
    let body = content.clone();
    let server = Server::start(move |_, before| match before {
        0 => Reply::ok(body.clone()).cut(400_000),
        _ => Reply::ok(body.clone()),
    });
    assert!(read(&client(), &server, &Descriptor::of(LAYER, &content)).unwrap() == content);
}

#[test]
fn a_wrong_range_is_refused() {
    let content = noise(100_000);
    let body = content.clone();
    let server = Server::start(move |_, before| match before {
        0 => Reply::ok(body.clone()).cut(50_000),
        _ => Reply::part(&body, 40_000),
    });
    assert_eq!(fails(&server, &content), ErrorKind::Protocol);
    let body = content.clone();
    let unasked = Server::start(move |_, _| Reply::part(&body, 10));
    assert_eq!(fails(&unasked, &content), ErrorKind::Protocol);
}

#[test]
fn tries_end() {
    let content = noise(100_000);
    let body = content.clone();
    // Each connection brings some bytes, but too few to count as progress.
    let server = Server::start(move |seen, _| match seen.range_start() {
        Some(start) => Reply::part(&body, start).cut(100),
        None => Reply::ok(body.clone()).cut(100),
    });
    let error = read(&client(), &server, &Descriptor::of(LAYER, &content)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().starts_with("reading blob sha256:"), "{error}");
    assert_eq!(server.seen().len(), 3, "two retries");
    let body = content.clone();
    let progress = Server::start(move |seen, _| {
        let start = seen.range_start().unwrap_or(0);
        let reply = if start == 0 { Reply::ok(body.clone()) } else { Reply::part(&body, start) };
        reply.cut((body.len() - start).min(70_000))
    });
    let long = noise(100_000);
    assert!(read(&client(), &progress, &Descriptor::of(LAYER, &long)).unwrap() == long);
}

#[test]
fn lies_about_size_and_digest() {
    let content = noise(10_000);
    let mut flipped = content.clone();
    flipped[9_999] ^= 1;
    let server = Server::start(move |_, _| Reply::ok(flipped.clone()));
    let mut reader = client().blob(&reference(&server.name("a")), &Descriptor::of(LAYER, &content)).unwrap();
    let mut handed = 0;
    let error = loop {
        match reader.read(&mut [0; 4096]) {
            Ok(count) => handed += count,
            Err(error) => break error,
        }
    };
    assert_eq!(Error::of_io(&error).unwrap().kind(), ErrorKind::Digest);
    assert!(handed < 10_000, "the last byte must not be handed on");

    let longer = [&content[..], b"!"].concat();
    let (announced, chunked) = (longer.clone(), longer);
    assert_eq!(
        fails(&Server::start(move |_, _| Reply::ok(announced.clone())), &content),
        ErrorKind::TooLarge
    );
    assert_eq!(
        fails(&Server::start(move |_, _| Reply::ok(chunked.clone()).chunked()), &content),
        ErrorKind::TooLarge
    );
    assert_eq!(fails(&Server::start(|_, _| Reply::ok("").endless()), &[b' '; 100]), ErrorKind::TooLarge);
    let shorter = content[..9_000].to_vec();
    assert_eq!(fails(&Server::start(move |_, _| Reply::ok(shorter.clone())), &content), ErrorKind::Digest);
}

#[test]
fn a_trickle_is_a_stall() {
    let content = noise(1000);
    let body = content.clone();
    let server = Server::start(move |_, _| Reply::ok(body.clone()).drip());
    let start = Instant::now();
    assert_eq!(fails(&server, &content), ErrorKind::Network);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn the_empty_blob_needs_no_server() {
    let server = Server::start(|_, _| Reply::hangup());
    assert_eq!(read(&client(), &server, &Descriptor::of(LAYER, b"")).unwrap(), b"");
    let lie = Descriptor { size: 0, ..Descriptor::of(LAYER, b"x") };
    assert_eq!(read(&client(), &server, &lie).unwrap_err().kind(), ErrorKind::Digest);
}

#[test]
fn configs_are_bounded() {
    let server = Server::start(|_, _| Reply::ok("{}"));
    let name = reference(&server.name("a"));
    assert_eq!(client().config(&name, &Descriptor::of("x", b"{}")).unwrap(), b"{}");
    let huge = Descriptor { size: 9 << 20, ..Descriptor::of("x", b"{}") };
    assert_eq!(client().config(&name, &huge).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn redirects_lose_credentials_at_another_host() {
    let content = noise(1000);
    let body = content.clone();
    let storage = Server::start(move |_, _| Reply::ok(body.clone()));
    let target = format!("http://{}/signed?x=1", storage.address);
    let server = Server::start(move |seen, _| match (seen.path.as_str(), seen.header("authorization")) {
        (_, None) => Reply::new(401).header("WWW-Authenticate", "Basic realm=x"),
        ("/v2/a/here", _) => Reply::redirect(target.clone()),
        _ => Reply::redirect("/v2/a/here"),
    });
    let credentials = unroot_registry::Credentials::parse("me:secret");
    let client = Client::new(unroot_registry::Options { credentials, ..options() }).unwrap();
    assert!(read(&client, &server, &Descriptor::of(LAYER, &content)).unwrap() == content);
    let last = server.seen().pop().unwrap();
    assert_eq!((last.path.as_str(), last.header("authorization").is_some()), ("/v2/a/here", true));
    assert_eq!(storage.seen().len(), 1);
    assert_eq!(storage.seen()[0].header("authorization"), None);
    // The same machine by another name is another host as well.
    let other_name = server.address.replace("127.0.0.1", "localhost");
    let hop = Server::start(move |seen, _| match seen.header("authorization") {
        None => Reply::new(401).header("WWW-Authenticate", "Basic realm=x"),
        Some(_) => Reply::redirect(format!("http://{other_name}/v2/a/blobs/x")),
    });
    let before = server.seen().len();
    assert!(read(&client, &hop, &Descriptor::of(LAYER, &content)).is_err());
    assert_eq!(server.seen()[before].header("authorization"), None);
}

#[test]
fn redirect_loops_and_odd_targets_end() {
    let looping = Server::start(|_, _| Reply::redirect("/again"));
    assert_eq!(fails(&looping, b"x"), ErrorKind::Protocol);
    assert_eq!(looping.seen().len(), 6);
    for target in ["file:///etc/passwd", "http://", "gopher://127.0.0.1/", "http://me:pw@127.0.0.1/"] {
        let server = Server::start(move |_, _| Reply::redirect(target));
        assert_eq!(fails(&server, b"x"), ErrorKind::Protocol, "{target}");
    }
}

#[test]
fn redirects_keep_the_range() {
    let content = noise(300_000);
    let storage = resumable(&content, |reply| reply.cut(200_000));
    let target = format!("http://{}/x", storage.address);
    let server = Server::start(move |_, _| Reply::redirect(target.clone()));
    assert!(read(&client(), &server, &Descriptor::of(LAYER, &content)).unwrap() == content);
    assert_eq!(storage.seen()[1].range_start(), Some(200_000));
    assert_eq!(server.seen().len(), 2, "a signed address may have expired, so the registry is asked again");
}

#[test]
fn server_errors_are_tried_again() {
    let content = noise(1000);
    let body = content.clone();
    let server = Server::start(move |_, before| match before {
        0 => Reply::new(503),
        1 => Reply::hangup(),
        _ => Reply::ok(body.clone()),
    });
    assert!(read(&client(), &server, &Descriptor::of(LAYER, &content)).unwrap() == content);
    let never = Server::start(|_, _| Reply::new(500));
    assert_eq!(fails(&never, b"x"), ErrorKind::Network);
    assert_eq!(never.seen().len(), 3);
    let forbidden = Server::start(|_, _| Reply::new(403));
    assert_eq!(fails(&forbidden, b"x"), ErrorKind::Denied);
    assert_eq!(forbidden.seen().len(), 1);
}

#[test]
fn too_many_requests() {
    let content = noise(10);
    let body = content.clone();
    let server = Server::start(move |_, before| match before {
        0 => Reply::new(429).header("Retry-After", "1"),
        _ => Reply::ok(body.clone()),
    });
    let start = Instant::now();
    assert!(read(&client(), &server, &Descriptor::of(LAYER, &content)).is_ok());
    assert!(start.elapsed() >= Duration::from_secs(1));
    let hours = Server::start(|_, _| Reply::new(429).header("Retry-After", "7200"));
    let error = read(&client(), &hours, &Descriptor::of(LAYER, b"x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert!(error.hint().unwrap().contains("7200 seconds"));
    assert_eq!(hours.seen().len(), 1);
}

#[test]
fn nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = client().blob(&reference(&format!("{address}/a")), &Descriptor::of(LAYER, b"x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn many_threads_share_one_client() {
    static WRONG: AtomicUsize = AtomicUsize::new(0);
    let blobs: Vec<Vec<u8>> = (1..=24).map(|size| noise(size * 10_007)).collect();
    let served = blobs.clone();
    let server = Server::start(move |seen, _| {
        let blob =
            served.iter().find(|blob| seen.path.ends_with(Descriptor::of(LAYER, blob).digest.as_str()));
        blob.map_or(Reply::new(404), |blob| Reply::ok(blob.clone()))
    });
    let client = client();
    thread::scope(|scope| {
        for blob in &blobs {
            let (client, server) = (&client, &server);
            scope.spawn(move || {
                let read = read(client, server, &Descriptor::of(LAYER, blob));
                WRONG.fetch_add(usize::from(!read.is_ok_and(|bytes| bytes == *blob)), Ordering::Relaxed);
            });
        }
    });
    assert_eq!(WRONG.load(Ordering::Relaxed), 0);
}
