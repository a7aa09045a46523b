//! An HTTP server that does what a test tells it, however wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// With the query.
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path == path
    }

    /// The first byte that a `Range` asks for.
    pub fn range_start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Whole,
    /// The head announces all, the connection ends after so many bytes.
    Cut(usize),
    /// ... or says nothing more.
    Stall(usize),
    /// The body is chunked and never ends.
    Endless,
    /// A chunked body that ends.
    Chunked,
    /// A byte now and then.
    Drip,
    /// No answer at all.
    Hangup,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), fate: Fate::Whole }
    }

    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new(200) }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn redirect(location: impl Into<String>) -> Self {
        Self::new(307).header("Location", location)
    }

    /// The rest of `body` from `start`, as an answer to `Range`.
    pub fn part(body: &[u8], start: usize) -> Self {
        let range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
        Self::new(206).header("Content-Range", range).body(&body[start..])
    }

    pub fn cut(self, after: usize) -> Self {
        Self { fate: Fate::Cut(after), ..self }
    }

    pub fn stall(self, after: usize) -> Self {
        Self { fate: Fate::Stall(after), ..self }
    }

    pub fn endless(self) -> Self {
        Self { fate: Fate::Endless, ..self }
    }

    pub fn chunked(self) -> Self {
        Self { fate: Fate::Chunked, ..self }
    }

    pub fn drip(self) -> Self {
        Self { fate: Fate::Drip, ..self }
    }

    pub fn hangup() -> Self {
        Self { fate: Fate::Hangup, ..Self::new(0) }
    }

    /// Writes the reply; false if the connection is to end.
    fn write(&self, stream: &mut dyn Write, head_only: bool) -> std::io::Result<bool> {
        if self.fate == Fate::Hangup {
            return Ok(false);
        }
        let mut head = format!("HTTP/1.1 {} Test\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        match self.fate {
            Fate::Endless | Fate::Chunked => head += "Transfer-Encoding: chunked\r\n\r\n",
            _ => head += &format!("Content-Length: {}\r\n\r\n", self.body.len()),
        }
        stream.write_all(head.as_bytes())?;
        if head_only {
            return Ok(true);
        }
        match self.fate {
            Fate::Cut(after) => stream.write_all(&self.body[..after])?,
            Fate::Stall(after) => {
                stream.write_all(&self.body[..after])?;
                stream.flush()?;
                thread::sleep(Duration::from_secs(3));
            }
            Fate::Endless => {
                // Far beyond any limit, but not for ever.
                for _ in 0..4096 {
                    write!(stream, "4000\r\n")?;
                    stream.write_all(&[b' '; 0x4000])?;
                    write!(stream, "\r\n")?;
                }
            }
            Fate::Chunked => {
                write!(stream, "{:x}\r\n", self.body.len())?;
                stream.write_all(&self.body)?;
                write!(stream, "\r\n0\r\n\r\n")?;
            }
            Fate::Drip => {
                for byte in self.body.iter().take(40) {
                    stream.write_all(&[*byte])?;
                    stream.flush()?;
                    thread::sleep(Duration::from_millis(100));
                }
            }
            Fate::Whole | Fate::Hangup => stream.write_all(&self.body)?,
        }
        stream.flush()?;
        Ok(matches!(self.fate, Fate::Whole | Fate::Chunked))
    }
}

type Handler = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

/// A server on a port of its own. It ends with the test's process.
pub struct Server {
    /// `127.0.0.1:PORT`
    pub address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Plain HTTP; the handler also gets how many requests came before.
    pub fn start(handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::launch("127.0.0.1", None, Arc::new(handler))
    }

    /// HTTPS.
    pub fn start_tls(
        config: ServerConfig,
        handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_tls_on("127.0.0.1", config, handler)
    }

    /// HTTPS on another loopback address.
    pub fn start_tls_on(
        ip: &str,
        config: ServerConfig,
        handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::launch(ip, Some(Arc::new(config)), Arc::new(handler))
    }

    fn launch(ip: &str, tls: Option<Arc<ServerConfig>>, handler: Arc<Handler>) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Else each answer waits for the acknowledgement of its head.
                let _ = stream.set_nodelay(true);
                let (tls, log, handler) = (tls.clone(), log.clone(), handler.clone());
                thread::spawn(move || match tls {
                    None => serve_plain(stream, &log, &*handler),
                    Some(config) => {
                        let connection = ServerConnection::new(config).unwrap();
                        serve(StreamOwned::new(connection, stream), &log, &*handler);
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn count(&self, path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path.split('?').next() == Some(path)).count()
    }

    /// `127.0.0.1:PORT/name`
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

/// As Go's server, answers a TLS hello with words.
fn serve_plain(mut stream: TcpStream, log: &Mutex<Vec<Seen>>, handler: &Handler) {
    let mut first = [0];
    if !matches!(stream.peek(&mut first), Ok(1)) {
        return;
    }
    if first[0] == 0x16 {
        let _ = stream
            .write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n");
        return;
    }
    serve(stream, log, handler);
}

fn serve<S: Read + Write>(stream: S, log: &Mutex<Vec<Seen>>, handler: &Handler) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream) {
        let before = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        let reply = handler(&request, before);
        if !matches!(reply.write(stream.get_mut(), request.method == "HEAD"), Ok(true)) {
            return;
        }
    }
}

fn read_request(stream: &mut impl BufRead) -> Option<Seen> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
            None => break,
        }
    }
    let mut request = Seen { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    stream.take(length).read_to_end(&mut request.body).ok()?;
    Some(request)
}
