//! Bearer tokens: fetched once per scope, shared by all threads, renewed before they expire.
//!
//! Source: Docker's "Token Authentication Specification" and its OAuth2 variant for refresh tokens.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::http::{Method, Uri, header};

use super::address::{form, is_loopback, same_host, with_query};
use super::exchange::{Payload, Request, run};
use super::server::{Server, lock};
use super::{body, failure};
use crate::auth::Credentials;
use crate::error::{Error, ErrorKind};
use crate::manifest::printable;

const BODY_MAX: u64 = 1 << 20;
const BODY_TIME: Duration = Duration::from_secs(30);
const TOKEN_MAX: usize = 32 << 10;
/// The specification's default where a server does not say how long a token lives.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);
const CLIENT_ID: &str = "unroot";

/// What a token is good for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    pub realm: String,
    pub service: Option<String>,
    pub scopes: Vec<String>,
    pub credentials: Option<Credentials>,
}

/// The place of one token.
pub(super) type Slot = Mutex<Option<Token>>;

pub(super) struct Token {
    value: String,
    renew: Instant,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<f64>,
}

/// The `Authorization` value for Basic.
pub(super) fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

/// The `Authorization` value with a token for `key`, from the cache or the token server.
pub(super) fn bearer(server: &Server, key: &TokenKey) -> Result<String, Error> {
    let slot = server.slot(key.clone());
    let mut token = lock(&slot);
    if let Some(token) = token.as_ref().filter(|token| Instant::now() < token.renew) {
        return Ok(format!("Bearer {}", token.value));
    }
    let fresh = fetch(server, key)?;
    let value = format!("Bearer {}", fresh.value);
    *token = Some(fresh);
    Ok(value)
}

/// Drops the token that the registry refused, unless another thread has renewed it already.
pub(super) fn forget(server: &Server, key: &TokenKey, refused: &str) {
    let slot = server.slot(key.clone());
    let mut token = lock(&slot);
    if token.as_ref().is_some_and(|token| refused.strip_prefix("Bearer ") == Some(&token.value)) {
        *token = None;
    }
}

fn fetch(server: &Server, key: &TokenKey) -> Result<Token, Error> {
    let realm = check_realm(server, &key.realm)?;
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    pairs.extend(key.service.as_deref().map(|service| ("service", service)));
    pairs.extend(key.scopes.iter().map(|scope| ("scope", scope.as_str())));
    let answer = match &key.credentials {
        Some(Credentials::IdentityToken(refresh)) => {
            pairs.extend([
                ("grant_type", "refresh_token"),
                ("refresh_token", refresh),
                ("client_id", CLIENT_ID),
            ]);
            let body = form(&pairs);
            let form_type = "application/x-www-form-urlencoded".to_owned();
            ask(
                server,
                Method::POST,
                realm,
                vec![(header::CONTENT_TYPE, form_type)],
                &mut Payload::Bytes(body.as_bytes()),
            )?
        }
        Some(Credentials::Password { username, password }) => {
            pairs.push(("account", username));
            let authorization = vec![(header::AUTHORIZATION, basic(username, password))];
            ask(server, Method::GET, extended(&realm, &pairs)?, authorization, &mut Payload::Empty)?
        }
        None => ask(server, Method::GET, extended(&realm, &pairs)?, Vec::new(), &mut Payload::Empty)?,
    };
    answer.into_token().ok_or_else(|| bad_realm(server, &key.realm, "the answer has no usable token"))
}

/// Only an absolute URL, and no plain HTTP that the registry itself is not allowed.
fn check_realm(server: &Server, realm: &str) -> Result<Uri, Error> {
    let uri: Uri = realm.parse().map_err(|_| bad_realm(server, realm, "it is no URL"))?;
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    match uri.scheme_str() {
        _ if authority.is_empty() || authority.contains('@') => {
            Err(bad_realm(server, realm, "it is no absolute URL"))
        }
        Some("https") => Ok(uri),
        Some("http") if server.insecure || (server.loopback && is_loopback(authority)) => Ok(uri),
        Some("http") => Err(bad_realm(server, realm, "it would send credentials in clear text")),
        _ => Err(bad_realm(server, realm, "its scheme is not https")),
    }
}

fn extended(realm: &Uri, pairs: &[(&str, &str)]) -> Result<Uri, Error> {
    let text = with_query(&realm.to_string(), pairs);
    text.parse()
        .map_err(|_| Error::new(ErrorKind::Protocol, format!("{realm}: the token request is no valid URL")))
}

fn ask(
    server: &Server,
    method: Method,
    uri: Uri,
    headers: Vec<(header::HeaderName, String)>,
    payload: &mut Payload,
) -> Result<Answer, Error> {
    let home: Uri = format!("https://{}", server.authority).parse().unwrap_or_default();
    let agent = if same_host(&uri, &home) { &server.agent } else { &server.foreign };
    let request = Request { method, uri, headers, patience: None };
    let call = request.describe();
    let response = run(agent, &server.host, &request, payload)?;
    if !response.status().is_success() {
        let refused = failure::refused(&call, &server.host, response);
        return Err(match refused.kind() {
            ErrorKind::Unauthorized | ErrorKind::Denied => {
                refused.context("unable to retrieve auth token: invalid username/password")
            }
            _ => refused.context("unable to retrieve auth token"),
        });
    }
    let text = body::read_all(&call, &server.host, response.into_body(), BODY_MAX, BODY_TIME)?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::new(ErrorKind::Protocol, format!("{call}: parsing the token: {error}")))
}

impl Answer {
    fn into_token(self) -> Option<Token> {
        let filled = |text: &String| !text.is_empty();
        let value = self.token.filter(filled).or(self.access_token.filter(filled))?;
        let printable = value.len() <= TOKEN_MAX && value.bytes().all(|byte| byte.is_ascii_graphic());
        let seconds = self.expires_in.filter(|seconds| seconds.is_finite() && *seconds > 0.0);
        let life = seconds
            .map_or(DEFAULT_LIFE, |seconds| Duration::from_secs_f64(seconds.min(LIFE_MAX.as_secs_f64())));
        // Renewed early, so that none expires on its way.
        printable.then(|| Token { value, renew: Instant::now() + life.mul_f64(0.8) })
    }
}

fn bad_realm(server: &Server, realm: &str, reason: &str) -> Error {
    let realm = printable(realm);
    Error::new(
        ErrorKind::Protocol,
        format!("registry {} asks for a token of {realm:?}: {reason}", server.host),
    )
}
