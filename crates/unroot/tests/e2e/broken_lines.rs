//! Registries behind lines that break: pushes and pulls go on where they were.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::host::{Host, IMAGE};
use crate::registry::Registry;

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

/// A registry that only takes pushes, keeps what has arrived of one that broke, and breaks the first.
struct Keeper {
    port: u16,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    uploads: Vec<Vec<u8>>,
    blobs: HashMap<String, Vec<u8>>,
    /// Where the rest of an upload began.
    resumed: Vec<usize>,
    has_broken: bool,
}

impl Keeper {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let kept = Arc::<Mutex<Kept>>::default();
        let all = kept.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = all.clone();
                thread::spawn(move || while answer(&stream, &kept).is_some() {});
            }
        });
        Self { port, kept }
    }
}

/// Answers one request; none if the line is to end.
fn answer(mut stream: &TcpStream, kept: &Mutex<Kept>) -> Option<()> {
    let mut first = [0];
    if stream.peek(&mut first).ok()? == 1 && first[0] == 0x16 {
        // (as Go's server answers who speaks TLS)
        let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request.\n");
        return None;
    }
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let upload = path.strip_prefix("/up/").and_then(|rest| rest.split('?').next()?.parse::<usize>().ok());
    let mut say = |head: String| {
        stream.write_all(format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n").as_bytes()).ok()
    };
    match (method.as_str(), upload) {
        ("HEAD", _) => say("404 none".into()),
        ("POST", _) => {
            let mut kept = kept.lock().unwrap();
            kept.uploads.push(Vec::new());
            say(format!("202 begun\r\nLocation: /up/{}", kept.uploads.len() - 1))
        }
        ("PATCH", Some(n)) => {
            let breaks = length > CUT && !std::mem::replace(&mut kept.lock().unwrap().has_broken, true);
            let mut body = Vec::new();
            reader.take(if breaks { CUT } else { length } as u64).read_to_end(&mut body).ok()?;
            let mut kept = kept.lock().unwrap();
            if let Some(range) = headers.get("content-range") {
                kept.resumed.push(range.split('-').next()?.parse().ok()?);
            }
            kept.uploads[n].extend(body);
            if breaks {
                let _ = stream.shutdown(Shutdown::Both);
                return None;
            }
            say(format!("202 taken\r\nLocation: /up/{n}"))
        }
        ("GET", Some(n)) => {
            let arrived = kept.lock().unwrap().uploads[n].len();
            say(format!("204 this\r\nLocation: /up/{n}\r\nRange: 0-{}", arrived - 1))
        }
        ("PUT", Some(n)) => {
            let mut kept = kept.lock().unwrap();
            let blob = std::mem::take(&mut kept.uploads[n]);
            let digest = unroot_store::digest(&blob);
            let is_right = path.ends_with(digest.trim_start_matches("sha256:"));
            kept.blobs.insert(digest, blob);
            say(if is_right { "201 there".into() } else { "400 another digest".into() })
        }
        ("PUT", None) => {
            reader.take(length as u64).read_to_end(&mut Vec::new()).ok()?;
            say("201 there".into())
        }
        _ => say("405 no".into()),
    }
}

#[test]
fn a_push_goes_on_where_it_broke() {
    let host = Host::new();
    let keeper = Keeper::start();
    host.unroot(["push", "-q", IMAGE, &format!("127.0.0.1:{}/a:1", keeper.port)]).ok();
    let kept = keeper.kept.lock().unwrap();
    assert_eq!(kept.resumed, [CUT], "only the rest was sent again");
    assert_eq!(kept.blobs.len(), 2, "the layer and the config");
}
