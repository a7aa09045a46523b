//! Registries behind lines that break: pushes and pulls go on where they were.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::host::{Host, IMAGE};
use crate::registry::Registry;
use crate::server::{Reply, Seen, Server};

/// After this many bytes in one direction the first connection that gets so far is cut.
const CUT: usize = 300_000;

/// Two directions of a line to a registry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// A line to a registry on loopback that breaks once, or never, and remembers the requests.
struct Line {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Line {
    fn to(registry: &Registry, breaks: Option<Way>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heads, breaks) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(breaks)));
        let (log, target) = (heads.clone(), registry.port);
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let far = TcpStream::connect(("127.0.0.1", target)).unwrap();
                let (log, b) = (log.clone(), breaks.clone());
                let (from, to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                thread::spawn(move || carry(from, to, Way::Up, &b, &log));
                let (log, b) = (Arc::default(), breaks.clone());
                thread::spawn(move || carry(far, near, Way::Down, &b, &log));
            }
        });
        Self { port, heads }
    }

    /// How many requests have a line that contains all of these.
    fn count(&self, parts: &[&str]) -> usize {
        let heads = self.heads.lock().unwrap();
        heads.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }
}

/// Carries bytes until one side ends, or the line breaks.
fn carry(
    mut from: TcpStream,
    mut to: TcpStream,
    way: Way,
    breaks: &Mutex<Option<Way>>,
    log: &Mutex<Vec<String>>,
) {
    let (mut carried, mut buffer) = (0, [0; 16 << 10]);
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        carried += length;
        let text = String::from_utf8_lossy(&buffer[..length]);
        let told = |line: &&str| line.contains(" HTTP/1.1") || line.to_lowercase().starts_with("range:");
        log.lock().unwrap().extend(text.lines().filter(told).map(str::to_owned));
        let is_cut = carried > CUT && {
            let mut breaks = breaks.lock().unwrap();
            breaks.take_if(|breaking| *breaking == way).is_some()
        };
        if is_cut || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn a_pull_goes_on_where_it_broke() {
    let host = Host::empty();
    let registry = Registry::start(&host);
    registry.push(&host, "big", false);
    let line = Line::to(&registry, Some(Way::Down));
    let name = format!("127.0.0.1:{}/big:1", line.port);
    let pulled = host.unroot(["pull", &name]);
    assert!(pulled.err.contains("Failed, retrying in"), "{}", pulled.err);
    pulled.ok();
    assert_eq!(line.count(&["ange: bytes="]), 1, "the rest was asked for");
    assert_eq!(
        host.unroot(["run", "--rm", "--network=none", &name, "sh", "-c", "echo $FROM"]).ok(),
        "registry"
    );
}

#[test]
fn a_push_survives_a_broken_line() {
    let host = Host::new();
    let registry = Registry::start(&host);
    let line = Line::to(&registry, Some(Way::Up));
    let pushed = host.unroot(["push", IMAGE, &format!("127.0.0.1:{}/a:1", line.port)]);
    assert!(pushed.err.contains("Failed, retrying in"), "{}", pushed.err);
    pushed.ok();
    assert_eq!(line.count(&["GET /v2/a/blobs/uploads/"]), 1, "what has arrived was asked for");
    let name = format!("127.0.0.1:{}/a:1", registry.port);
    assert_eq!(host.unroot(["run", "--rm", "--network=none", &name, "echo", "whole"]).ok(), "whole");
}

#[test]
fn what_a_registry_has_is_not_sent() {
    let host = Host::new();
    let registry = Registry::start(&host);
    let line = Line::to(&registry, None);
    let at = |name: &str| format!("127.0.0.1:{}/{name}", line.port);
    host.unroot(["push", "-q", IMAGE, &at("a:1")]).ok();
    assert_eq!(line.count(&["PATCH "]), 2, "a layer and the config");
    host.unroot(["push", "-q", IMAGE, &at("a:2")]).ok();
    assert_eq!(line.count(&["PATCH "]), 2, "both are there");
    host.unroot(["tag", IMAGE, &at("a:2")]).ok();
    host.unroot(["push", "-q", IMAGE, &at("b:1")]).ok();
    assert_eq!(line.count(&["POST /v2/b/blobs/uploads/?", "from=a "]), 1, "the layer is taken over");
    assert_eq!(line.count(&["PATCH /v2/b/"]), 1, "only the config is sent");
    host.unroot(["rmi", "-f", &at("a:2"), IMAGE]).ok();
    assert_eq!(host.unroot(["run", "--rm", "--network=none", &at("b:1"), "echo", "whole"]).ok(), "whole");
}

/// What a registry that only takes pushes keeps of them, also of one that broke; it breaks the first that is long.
#[derive(Default)]
struct Kept {
    uploads: Vec<Vec<u8>>,
    blobs: HashMap<String, Vec<u8>>,
    /// Where the rest of an upload began.
    resumed: Vec<usize>,
    has_broken: bool,
}

impl Kept {
    fn answer(&mut self, request: &Seen) -> Reply {
        let number = |rest: &str| rest.split('?').next()?.parse::<usize>().ok();
        let upload = request.path.strip_prefix("/up/").and_then(number);
        let at = |status, n| Reply::new(status).header("Location", format!("/up/{n}"));
        match (request.method.as_str(), upload) {
            ("HEAD", _) => Reply::new(404),
            ("POST", _) => {
                self.uploads.push(Vec::new());
                at(202, self.uploads.len() - 1)
            }
            ("PATCH", Some(n)) => {
                let breaks = request.body.len() > CUT && !std::mem::replace(&mut self.has_broken, true);
                if let Some(range) = request.header("content-range") {
                    self.resumed.push(range.split('-').next().unwrap().parse().unwrap());
                }
                let arrived = if breaks { &request.body[..CUT] } else { &request.body };
                self.uploads[n].extend(arrived);
                if breaks { Reply::hangup() } else { at(202, n) }
            }
            ("GET", Some(n)) => at(204, n).header("Range", format!("0-{}", self.uploads[n].len() - 1)),
            ("PUT", Some(n)) => {
                let blob = std::mem::take(&mut self.uploads[n]);
                let digest = unroot_store::digest(&blob);
                let is_right = request.path.ends_with(digest.trim_start_matches("sha256:"));
                self.blobs.insert(digest, blob);
                Reply::new(if is_right { 201 } else { 400 })
            }
            ("PUT", None) => Reply::new(201),
            _ => Reply::new(405),
        }
    }
}

#[test]
fn a_push_goes_on_where_it_broke() {
    let host = Host::new();
    let kept = Arc::<Mutex<Kept>>::default();
    let all = kept.clone();
    let server = Server::start(move |request, _| all.lock().unwrap().answer(request));
    host.unroot(["push", "-q", IMAGE, &server.name("a:1")]).ok();
    let kept = kept.lock().unwrap();
    assert_eq!(kept.resumed, [CUT], "only the rest was sent again");
    assert_eq!(kept.blobs.len(), 2, "the layer and the config");
}
