//! One request and its answer: scheme, credentials, redirects. No retries; those are the caller's.
//!
//! ```text
//! scheme      https; plain HTTP only for insecure registries (after https failed) and on this machine's loopback
//!             (after the server answered TLS with plain HTTP)
//! credentials what the server asked for before; on a 401 what it asks for now, once
//! redirects   GET and HEAD only, at most 5, never from https to http; Authorization stays at its origin
//! ```

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use ureq::{Agent, Body, SendBody};

use super::address::{resolve, same_host, same_origin};
use super::challenge::Challenge;
use super::failure;
use super::server::Server;
use super::token::{self, TokenKey};
use super::{Inner, Options, body};
use crate::auth::Credentials;
use crate::conf::Source;
use crate::error::{Error, ErrorKind, Retry};

const REDIRECTS_MAX: usize = 5;

/// The right to use a registry for something: a server, a name, scopes.
pub(super) struct Access<'a> {
    inner: &'a Inner,
    pub server: Arc<Server>,
    /// What credentials are looked up for.
    name: String,
    scopes: Vec<String>,
    /// `--creds` is meant for the registry that the user named, not for its mirrors.
    own_credentials: bool,
    /// Credentials that are being checked, instead of all others.
    given: Option<Credentials>,
}

/// A request without credentials.
pub(super) struct Request {
    pub method: Method,
    pub uri: Uri,
    pub headers: Vec<(HeaderName, String)>,
    /// How long to wait for the answer, where that is not the usual.
    pub patience: Option<Duration>,
}

/// A request's body.
pub(super) enum Payload<'a> {
    /// None.
    Empty,
    /// Bytes; they can be sent again.
    Bytes(&'a [u8]),
    /// A stream of a given length; it can be sent once.
    Stream(&'a mut dyn Read, u64),
    /// A stream that was sent.
    Spent,
}

/// What to ask for.
pub(super) struct Call {
    pub method: Method,
    pub at: At,
    pub headers: Vec<(HeaderName, String)>,
    pub patience: Option<Duration>,
}

/// Where to ask.
pub(super) enum At {
    /// A path on the server, the scheme as it turns out.
    Path(String),
    /// An address that the server gave.
    Url(Uri),
}

impl Call {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, At::Path(path.into()))
    }

    pub(super) fn new(method: Method, at: At) -> Self {
        Self { method, at, headers: Vec::new(), patience: None }
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn patient(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }
}

impl Request {
    /// `GET https://host/path`, without the query, which may be a signature.
    pub(super) fn describe(&self) -> String {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let authority = self.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        format!("{} {scheme}://{authority}{}", self.method, self.uri.path())
    }
}

/// An answer with the request that it belongs to.
pub(super) struct Reply {
    pub response: Response<Body>,
    pub uri: Uri,
    pub call: String,
    authorization: Option<String>,
    /// The registry's own answer, not that of a host it redirects to.
    at_home: bool,
}

impl Reply {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }
}

impl<'a> Access<'a> {
    /// Access to a repository for `actions` (`pull`, or `pull,push`).
    pub(super) fn repository(inner: &'a Inner, source: &Source, actions: &str) -> Result<Self, Error> {
        let (registry, path) = (source.reference.registry(), source.reference.repository());
        Ok(Self {
            inner,
            server: inner.server(registry, source.insecure)?,
            name: source.reference.name(),
            scopes: vec![format!("repository:{path}:{actions}")],
            own_credentials: !source.mirror,
            given: None,
        })
    }

    /// Access to a registry as a whole.
    pub(super) fn registry(inner: &'a Inner, registry: &str, scopes: Vec<String>) -> Result<Self, Error> {
        let insecure = inner.options.conf.registry_insecure(registry)?;
        let server = inner.server(registry, insecure)?;
        Ok(Self { inner, server, name: registry.to_owned(), scopes, own_credentials: true, given: None })
    }

    /// As the owner of these credentials.
    pub(super) fn acting_as(mut self, credentials: &Credentials) -> Self {
        self.given = Some(credentials.clone());
        self
    }

    /// With pull rights on another repository of the registry as well.
    pub(super) fn also_pull(mut self, repository: &str) -> Self {
        self.scopes.push(format!("repository:{repository}:pull"));
        self
    }

    pub(super) fn options(&self) -> &'a Options {
        &self.inner.options
    }

    /// Sends a call; a 401 is answered once with what the server asks for. Any status is `Ok`.
    pub(super) fn send(&self, call: &Call, payload: &mut Payload) -> Result<Reply, Error> {
        let first = self.send_known(call, payload)?;
        // A host that was redirected to has no say in where credentials go.
        let asked = first.status() == StatusCode::UNAUTHORIZED && first.at_home;
        if !asked || !self.can_do_better(&first)? {
            return Ok(first);
        }
        if let Payload::Spent = payload {
            let refused = failure::refused(&first.call, &self.server.host, first.response);
            return Err(refused.retrying(Retry::Backoff));
        }
        self.send_known(call, payload)
    }

    /// Sends a call and turns any status but success into an error.
    pub(super) fn expect(&self, call: &Call, payload: &mut Payload) -> Result<Reply, Error> {
        let reply = self.send(call, payload)?;
        if reply.status().is_success() { Ok(reply) } else { Err(self.refused(reply)) }
    }

    /// Reads a whole answer of at most `limit` bytes, within the time for small answers.
    pub(super) fn read_small(&self, reply: Reply, limit: u64) -> Result<Vec<u8>, Error> {
        let time = self.options().timeouts.small;
        body::read_all(&reply.call, &self.server.host, reply.response.into_body(), limit, time)
    }

    /// The error that an answer means.
    pub(super) fn refused(&self, reply: Reply) -> Error {
        failure::refused(&reply.call, &self.server.host, reply.response)
    }

    /// Learns from a 401; false if another try would be the same.
    fn can_do_better(&self, reply: &Reply) -> Result<bool, Error> {
        let headers = reply.response.headers().get_all(header::WWW_AUTHENTICATE);
        let Some(challenge) = Challenge::choose(headers.iter().filter_map(|value| value.to_str().ok()))
        else {
            return Ok(false);
        };
        let used = reply.authorization.as_deref();
        let better = match &challenge {
            Challenge::Basic => used.is_none() && self.credentials()?.is_some(),
            Challenge::Bearer { .. } => {
                let key = self.token_key(&challenge)?;
                if let (Some(key), Some(used)) = (&key, used) {
                    token::forget(&self.server, key, used);
                }
                key.is_some()
            }
        };
        self.server.learn_challenge(challenge);
        Ok(better)
    }

    fn credentials(&self) -> Result<Option<Credentials>, Error> {
        let options = &self.inner.options;
        if let Some(given) =
            self.given.as_ref().or(options.credentials.as_ref().filter(|_| self.own_credentials))
        {
            return Ok(Some(given.clone()));
        }
        self.server.credentials((self.name.clone(), self.own_credentials), || options.auth.lookup(&self.name))
    }

    fn token_key(&self, challenge: &Challenge) -> Result<Option<TokenKey>, Error> {
        let Challenge::Bearer { realm, service, scope, .. } = challenge else { return Ok(None) };
        let asked = || scope.iter().flat_map(|scope| scope.split(' ')).map(str::to_owned).collect();
        let scopes = if self.scopes.is_empty() { asked() } else { self.scopes.clone() };
        let credentials = self.credentials()?;
        Ok(Some(TokenKey { realm: realm.clone(), service: service.clone(), scopes, credentials }))
    }

    /// The `Authorization` for what the server is known to ask.
    fn authorization(&self) -> Result<Option<String>, Error> {
        match self.server.challenge() {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(self.credentials()?.and_then(|credentials| match credentials {
                Credentials::Password { username, password } => Some(token::basic(&username, &password)),
                Credentials::IdentityToken(_) => None,
            })),
            Some(challenge) => {
                let key = self.token_key(&challenge)?;
                key.map(|key| token::bearer(&self.server, &key)).transpose()
            }
        }
    }

    fn send_known(&self, call: &Call, payload: &mut Payload) -> Result<Reply, Error> {
        match &call.at {
            At::Url(uri) => self.follow(call, uri.clone(), payload),
            At::Path(path) => self.send_to_path(call, path, payload),
        }
    }

    /// Finds out which scheme the server speaks, if that is not known yet.
    fn send_to_path(&self, call: &Call, path: &str, payload: &mut Payload) -> Result<Reply, Error> {
        let server = &self.server;
        if let Some(scheme) = server.scheme() {
            return self.follow(call, self.uri(scheme, path)?, payload);
        }
        let first = self.follow(call, self.uri("https", path)?, payload);
        let refused = match first {
            Err(error) if self.may_use_http(&error) => error,
            other => {
                if other.is_ok() {
                    server.learn_scheme("https");
                }
                return other;
            }
        };
        let second = self.follow(call, self.uri("http", path)?, payload);
        match second {
            Ok(reply) => {
                server.learn_scheme("http");
                Ok(reply)
            }
            // Neither worked: the reason that is not "wrong scheme" is the one to act on.
            Err(_) if refused.kind() == ErrorKind::Tls && !failure::is_plain_http(&refused) => Err(refused),
            Err(error) => Err(error),
        }
    }

    fn may_use_http(&self, error: &Error) -> bool {
        let unreachable = matches!(error.kind(), ErrorKind::Tls | ErrorKind::Network);
        let on_loopback = self.server.loopback && self.inner.options.tls_verify.is_none();
        (self.server.insecure && unreachable) || (on_loopback && failure::is_plain_http(error))
    }

    fn uri(&self, scheme: &str, path: &str) -> Result<Uri, Error> {
        let text = format!("{scheme}://{}{path}", self.server.authority);
        text.parse().map_err(|error| {
            Error::new(ErrorKind::Config, format!("invalid registry address {text:?}: {error}"))
        })
    }

    /// Sends to an address and follows redirects.
    fn follow(&self, call: &Call, start: Uri, payload: &mut Payload) -> Result<Reply, Error> {
        // An address that the server gave counts by the scheme that the server itself is known to speak.
        let scheme = self.server.scheme().or(start.scheme_str()).unwrap_or("https");
        let home = self.uri(scheme, "/")?;
        let mut authorization = if same_origin(&start, &home) { self.authorization()? } else { None };
        self.check_downgrade(&home, &start)?;
        let mut uri = start;
        for _ in 0..=REDIRECTS_MAX {
            let reply = self.once(call, uri, authorization.clone(), &home, payload)?;
            let Some(next) = redirect(call, &reply)? else { return Ok(reply) };
            self.check_downgrade(&reply.uri, &next)?;
            if !same_origin(&home, &next) {
                authorization = None;
            }
            uri = next;
        }
        Err(Error::new(
            ErrorKind::Protocol,
            format!("{} {home}: more than {REDIRECTS_MAX} redirects", call.method),
        ))
    }

    fn once(
        &self,
        call: &Call,
        uri: Uri,
        authorization: Option<String>,
        home: &Uri,
        payload: &mut Payload,
    ) -> Result<Reply, Error> {
        let agent = if same_host(&uri, home) { &self.server.agent } else { &self.server.foreign };
        let mut headers = call.headers.clone();
        headers.extend(authorization.clone().map(|value| (header::AUTHORIZATION, value)));
        let request = Request { method: call.method.clone(), uri, headers, patience: call.patience };
        let response = run(agent, &self.server.host, &request, payload)?;
        let at_home = same_origin(&request.uri, home);
        Ok(Reply { call: request.describe(), uri: request.uri, response, authorization, at_home })
    }

    fn check_downgrade(&self, from: &Uri, to: &Uri) -> Result<(), Error> {
        let downgrade = from.scheme_str() == Some("https") && to.scheme_str() != Some("https");
        if !downgrade || self.server.insecure {
            return Ok(());
        }
        let message = format!(
            "{}://{} sends to plain HTTP at {}",
            from.scheme_str().unwrap_or_default(),
            self.server.host,
            to.host().unwrap_or_default()
        );
        Err(Error::new(ErrorKind::Tls, message)
            .hinted("registries that are not marked insecure may not leave TLS"))
    }
}

/// Where an answer to GET or HEAD says to go.
fn redirect(call: &Call, reply: &Reply) -> Result<Option<Uri>, Error> {
    let redirects = matches!(reply.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let safe = call.method == Method::GET || call.method == Method::HEAD;
    match reply.header(header::LOCATION).filter(|_| redirects && safe) {
        Some(location) => resolve(&reply.uri, location).map(Some),
        None => Ok(None),
    }
}

/// Sends one request as it is.
pub(super) fn run(
    agent: &Agent,
    host: &str,
    request: &Request,
    payload: &mut Payload,
) -> Result<Response<Body>, Error> {
    let call = request.describe();
    let bad = |error: ureq::http::Error| Error::new(ErrorKind::Protocol, format!("{call}: {error}"));
    let mut builder = ureq::http::Request::builder().method(request.method.clone()).uri(request.uri.clone());
    for (name, value) in &request.headers {
        let value = HeaderValue::from_str(value).map_err(|_| {
            Error::new(ErrorKind::Protocol, format!("{call}: header {name} has an invalid value"))
        })?;
        builder = builder.header(name, value);
    }
    let answer = match std::mem::replace(payload, Payload::Spent) {
        Payload::Empty => {
            *payload = Payload::Empty;
            let has_body = request.method == Method::POST || request.method == Method::PUT;
            match has_body {
                true => send(
                    agent,
                    request,
                    builder.body(SendBody::from_reader(&mut io::empty())).map_err(bad)?,
                    Some(0),
                ),
                false => send(agent, request, builder.body(SendBody::none()).map_err(bad)?, None),
            }
        }
        Payload::Bytes(bytes) => {
            *payload = Payload::Bytes(bytes);
            let mut reader = bytes;
            send(
                agent,
                request,
                builder.body(SendBody::from_reader(&mut reader)).map_err(bad)?,
                Some(bytes.len() as u64),
            )
        }
        Payload::Stream(reader, length) => {
            send(agent, request, builder.body(SendBody::from_reader(reader)).map_err(bad)?, Some(length))
        }
        Payload::Spent => Err(ureq::Error::Io(io::Error::other("the body was sent already"))),
    };
    answer.map_err(|error| failure::no_answer(&call, host, error))
}

fn send(
    agent: &Agent,
    request: &Request,
    mut message: ureq::http::Request<SendBody<'_>>,
    length: Option<u64>,
) -> Result<Response<Body>, ureq::Error> {
    if let Some(length) = length {
        message.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    match request.patience {
        None => agent.run(message),
        Some(patience) => {
            let patient = agent
                .configure_request(message)
                .timeout_recv_response(Some(patience))
                .timeout_per_read(Some(patience));
            agent.run(patient.build())
        }
    }
}
