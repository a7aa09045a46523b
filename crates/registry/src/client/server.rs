//! One registry server as all threads of a client share it: connections, scheme, challenge, tokens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _, TcpConnector};
use ureq::{Agent, Proxy};

use super::Options;
use super::address::is_loopback;
use super::challenge::Challenge;
use super::tls::{Certificates, SystemRoots};
use super::token::{Slot, TokenKey};
use super::trust::Tls;
use crate::auth::Credentials;
use crate::error::{Error, ErrorKind};

/// Who serves the Hub's names.
const HUB_NAME: &str = "docker.io";
const HUB_SERVER: &str = "registry-1.docker.io";

/// A registry server.
pub(super) struct Server {
    /// The registry as names have it.
    pub host: String,
    /// Plain HTTP and unverified certificates are allowed.
    pub insecure: bool,
    /// On this machine, where plain HTTP cannot be listened to from outside.
    pub loopback: bool,
    /// Where requests go: `host[:port]`.
    pub authority: String,
    /// Connections to the server itself.
    pub agent: Agent,
    /// Connections to where it redirects: the same trust, but no client certificate.
    pub foreign: Agent,
    learned: Mutex<Learned>,
    tokens: Mutex<HashMap<TokenKey, Arc<Slot>>>,
    credentials: Mutex<HashMap<(String, bool), Option<Credentials>>>,
}

/// What the first answers told.
#[derive(Clone, Default)]
struct Learned {
    scheme: Option<&'static str>,
    challenge: Option<Challenge>,
}

impl Server {
    pub(super) fn new(
        host: &str,
        insecure: bool,
        options: &Options,
        roots: &SystemRoots,
    ) -> Result<Self, Error> {
        let certificates = Certificates::load(options, host)?;
        let agent = agent(options, &certificates, host, !insecure, true, roots)?;
        let foreign = match certificates.has_client() {
            true => self::agent(options, &certificates, host, !insecure, false, roots)?,
            false => agent.clone(),
        };
        Ok(Self {
            host: host.to_owned(),
            insecure,
            loopback: is_loopback(host),
            authority: if host == HUB_NAME { HUB_SERVER } else { host }.to_owned(),
            agent,
            foreign,
            learned: Mutex::default(),
            tokens: Mutex::default(),
            credentials: Mutex::default(),
        })
    }

    /// The scheme that worked before.
    pub(super) fn scheme(&self) -> Option<&'static str> {
        lock(&self.learned).scheme
    }

    pub(super) fn learn_scheme(&self, scheme: &'static str) {
        lock(&self.learned).scheme.get_or_insert(scheme);
    }

    /// What the server asked for before.
    pub(super) fn challenge(&self) -> Option<Challenge> {
        lock(&self.learned).challenge.clone()
    }

    pub(super) fn learn_challenge(&self, challenge: Challenge) {
        lock(&self.learned).challenge = Some(challenge);
    }

    /// The place of a token; threads that need the same one wait there for the first to fetch it.
    pub(super) fn slot(&self, key: TokenKey) -> Arc<Slot> {
        lock(&self.tokens).entry(key).or_default().clone()
    }

    /// Credentials for a name, asked for once.
    pub(super) fn credentials(
        &self,
        key: (String, bool),
        look_up: impl FnOnce() -> Result<Option<Credentials>, Error>,
    ) -> Result<Option<Credentials>, Error> {
        let mut known = lock(&self.credentials);
        if let Some(found) = known.get(&key) {
            return Ok(found.clone());
        }
        let found = look_up()?;
        known.insert(key, found.clone());
        Ok(found)
    }
}

fn agent(
    options: &Options,
    certificates: &Certificates,
    host: &str,
    verify: bool,
    show_client: bool,
    roots: &SystemRoots,
) -> Result<Agent, Error> {
    let tls = Tls(certificates.settings(verify, show_client, roots)?);
    let connector = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default()).chain(tls);
    let timeouts = options.timeouts;
    // A proxy cannot reach this machine's loopback.
    let proxy = if is_loopback(host) { None } else { Proxy::try_from_env() };
    if let Some(socks) = proxy
        .as_ref()
        .filter(|proxy| !matches!(proxy.protocol(), ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https))
    {
        let text = format!("proxy {}: SOCKS proxies are not supported", socks.uri());
        return Err(
            Error::new(ErrorKind::Config, text).hinted("set HTTPS_PROXY to an HTTP proxy, or unset it")
        );
    }
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(&options.user_agent)
        .proxy(proxy)
        // No bound on look-ups: it would need a thread, and the engine forks.
        .timeout_connect(Some(timeouts.connect))
        .timeout_send_request(Some(timeouts.stall))
        .timeout_recv_response(Some(timeouts.stall))
        .timeout_per_read(Some(timeouts.stall))
        .timeout_per_write(Some(timeouts.stall))
        .max_idle_connections_per_host(16)
        .max_idle_connections(32)
        .build();
    Ok(Agent::with_parts(config, connector, DefaultResolver::default()))
}

/// A panic in another thread leaves these maps whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
