//! From what the HTTP library and the server say to one [`Error`]: kind, words, and whether to try again.

use std::io;
use std::time::Duration;

use serde::Deserialize;
use ureq::Body;
use ureq::http::{Response, StatusCode, header};

use super::backoff::PAUSE_MAX;
use super::body;
use crate::error::{Error, ErrorKind, Retry};
use crate::manifest::printable;

/// How much of an error's body is read.
const BODY_MAX: u64 = 64 << 10;
/// How long is waited for it.
const BODY_TIME: Duration = Duration::from_secs(5);

/// A server that was spoken TLS to and answered otherwise.
pub(super) const PLAIN_HTTP: &str = "http: server gave HTTP response to HTTPS client";

/// A request that got no answer. `host` is the registry as names have it.
pub(super) fn no_answer(call: &str, host: &str, error: ureq::Error) -> Error {
    match error {
        ureq::Error::Io(error) => broken(call, host, error),
        ureq::Error::Rustls(error) => tls(call, host, &error),
        ureq::Error::Timeout(which) => {
            Error::new(ErrorKind::Network, format!("{call}: timeout ({which})")).retrying(Retry::Backoff)
        }
        ureq::Error::HostNotFound => Error::new(ErrorKind::Network, format!("{call}: no such host")),
        ureq::Error::ConnectionFailed => {
            Error::new(ErrorKind::Network, format!("{call}: connection failed")).retrying(Retry::Backoff)
        }
        ureq::Error::LargeResponseHeader(..) => Error::new(ErrorKind::TooLarge, format!("{call}: {error}")),
        ureq::Error::Tls(reason) => Error::new(ErrorKind::Tls, format!("{call}: tls: {reason}")),
        error @ (ureq::Error::Protocol(_) | ureq::Error::Http(_) | ureq::Error::BadUri(_)) => {
            Error::new(ErrorKind::Protocol, format!("{call}: {}", printable(&error.to_string())))
        }
        error => Error::new(ErrorKind::Network, format!("{call}: {}", printable(&error.to_string()))),
    }
}

/// A connection that could not be made, or that broke.
pub(super) fn broken(call: &str, host: &str, error: io::Error) -> Error {
    if let Some(inner) = error.get_ref() {
        if let Some(reason) = inner.downcast_ref::<rustls::Error>() {
            return tls(call, host, reason);
        }
        if inner.is::<ureq::Error>() {
            let inner = error.into_inner().and_then(|inner| inner.downcast::<ureq::Error>().ok());
            return no_answer(call, host, inner.map_or(ureq::Error::ConnectionFailed, |inner| *inner));
        }
    }
    let text = printable(&error.to_string());
    // (as the system says it, without its number, in a sentence)
    let text = match (error.raw_os_error(), text.split_once(" (os error")) {
        (Some(_), Some((reason, _))) => reason.to_lowercase(),
        _ => text,
    };
    // The standard library has no kind for failed look-ups. Only a temporary one is worth another try.
    if text.contains("failed to lookup address") && !text.contains("emporary") {
        return Error::new(ErrorKind::Network, format!("{call}: no such host")).caused_by(error);
    }
    Error::new(ErrorKind::Network, format!("{call}: {text}")).retrying(Retry::Backoff).caused_by(error)
}

fn tls(call: &str, host: &str, error: &rustls::Error) -> Error {
    use rustls::CertificateError::{NotValidForName, NotValidForNameContext, UnknownIssuer};
    let insecure = format!(
        "use --tls-verify=false, or set insecure = true for it in registries.conf ([[registry]] location = {host:?})"
    );
    let (reason, hint) = match error {
        rustls::Error::InvalidMessage(_) => {
            (PLAIN_HTTP.to_owned(), format!("if {host} is meant to serve plain HTTP: {insecure}"))
        }
        rustls::Error::InvalidCertificate(UnknownIssuer) => (
            "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned(),
            format!("put its CA into /etc/containers/certs.d/{host}/ca.crt, or {insecure}"),
        ),
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => (
            format!("tls: failed to verify certificate: x509: {error}"),
            format!("use a name that is in the certificate, or {insecure}"),
        ),
        rustls::Error::InvalidCertificate(_) => {
            (format!("tls: failed to verify certificate: x509: {error}"), insecure)
        }
        other => (format!("tls: {other}"), insecure),
    };
    Error::new(ErrorKind::Tls, format!("{call}: {}", printable(&reason))).hinted(hint)
}

/// Whether the server spoke, but not TLS.
pub(super) fn is_plain_http(error: &Error) -> bool {
    error.kind() == ErrorKind::Tls && error.to_string().ends_with(PLAIN_HTTP)
}

#[derive(Deserialize)]
struct ErrorList {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// An answer whose status is no success.
pub(super) fn refused(call: &str, host: &str, response: Response<Body>) -> Error {
    let status = response.status();
    let asked = retry_after(&response);
    let reason = reason(response);
    let (kind, retry) = match status.as_u16() {
        401 => (ErrorKind::Unauthorized, Retry::Never),
        403 => (ErrorKind::Denied, Retry::Never),
        404 | 410 => (ErrorKind::NotFound, Retry::Never),
        429 => (ErrorKind::RateLimited, asked.map_or(Retry::Backoff, Retry::After)),
        408 | 500 | 502 | 503 | 504 => (ErrorKind::Network, asked.map_or(Retry::Backoff, Retry::After)),
        501 | 505..=599 => (ErrorKind::Network, Retry::Never),
        _ => (ErrorKind::Protocol, Retry::Never),
    };
    let error = Error::new(kind, format!("{call}: {}", worded(kind, status, &reason))).retrying(retry);
    match (kind, asked) {
        (ErrorKind::Unauthorized | ErrorKind::Denied, _) => {
            error.hinted(format!("log in with an account that may do this: unroot login {host}"))
        }
        (ErrorKind::RateLimited, Some(pause)) if pause > PAUSE_MAX => {
            error.hinted(format!("the registry asks to come back in {} seconds", pause.as_secs()))
        }
        (ErrorKind::RateLimited, _) => {
            error.hinted(format!("try later, or log in for a higher limit: unroot login {host}"))
        }
        _ => error,
    }
}

fn worded(kind: ErrorKind, status: StatusCode, reason: &str) -> String {
    let number = status.as_u16();
    match (kind, reason) {
        (ErrorKind::Unauthorized, "") => "unauthorized: authentication required".to_owned(),
        (ErrorKind::Denied, "") => "requested access to the resource is denied".to_owned(),
        (ErrorKind::RateLimited, "") => "toomanyrequests: too many requests to registry".to_owned(),
        (
            ErrorKind::NotFound | ErrorKind::Unauthorized | ErrorKind::Denied | ErrorKind::RateLimited,
            reason,
        ) if !reason.is_empty() => reason.to_owned(),
        (_, "") => format!("status {number} {}", status.canonical_reason().unwrap_or_default()),
        (_, reason) => format!("status {number}: {reason}"),
    }
}

/// `code: message` of the first error in the body, as the distribution specification shapes them.
fn reason(response: Response<Body>) -> String {
    let text = body::read_beginning(response.into_body(), BODY_MAX, BODY_TIME);
    let Ok(ErrorList { errors }) = serde_json::from_slice(&text) else { return String::new() };
    let Some(first) = errors.into_iter().next() else { return String::new() };
    let code = printable(&first.code).to_ascii_lowercase().replace('_', " ");
    let message = printable(&first.message);
    match (code.as_str(), message.as_str()) {
        (code, message) if message.is_empty() || message.eq_ignore_ascii_case(code) => code.to_owned(),
        ("", message) => message.to_owned(),
        (code, message) => format!("{code}: {message}"),
    }
}

/// `Retry-After` in seconds; a date counts as not given.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}
