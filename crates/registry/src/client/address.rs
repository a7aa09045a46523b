//! URLs: resolving a `Location`, comparing origins, encoding queries.

use ureq::http::Uri;

use crate::error::{Error, ErrorKind};
use crate::manifest::printable;

/// The longest URL that is followed.
const URL_MAX: usize = 8 << 10;

/// Resolves a `Location` or `Link` against the URL that it was an answer to. Only http and https come out.
pub(super) fn resolve(base: &Uri, location: &str) -> Result<Uri, Error> {
    let bad = || Error::new(ErrorKind::Protocol, format!("{base}: bad Location {:?}", printable(location)));
    let scheme = base.scheme_str().unwrap_or("https");
    let authority = base.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let location = location.split('#').next().unwrap_or_default();
    let text = if location.contains("://") && !location.starts_with(['/', '?']) {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{location}")
    };
    let uri: Uri = if text.len() <= URL_MAX { text.parse().map_err(|_| bad())? } else { return Err(bad()) };
    let usable = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@') && !authority.host().is_empty());
    if usable { Ok(uri) } else { Err(bad()) }
}

/// Whether credentials for one may go to the other: same scheme, host and port.
pub(super) fn same_origin(one: &Uri, other: &Uri) -> bool {
    one.scheme() == other.scheme() && same_host(one, other)
}

/// Whether two addresses name one server, whatever the scheme.
pub(super) fn same_host(one: &Uri, other: &Uri) -> bool {
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    host(one) == host(other) && port(one) == port(other)
}

fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 })
}

/// Whether the host is this machine by name or number.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `path?key=value&...` with values encoded; a path that has a query gets more of it.
pub(super) fn with_query(url: &str, pairs: &[(&str, &str)]) -> String {
    let query: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
    match (query.is_empty(), url.contains('?')) {
        (true, _) => url.to_owned(),
        (_, true) => format!("{url}&{}", query.join("&")),
        (_, false) => format!("{url}?{}", query.join("&")),
    }
}

/// `application/x-www-form-urlencoded` pairs.
pub(super) fn form(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
    pairs.join("&")
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| if unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(location: &str) -> String {
        let base = "https://r.io:5000/v2/a/blobs/x?y=z".parse().unwrap();
        resolve(&base, location).map_or_else(|error| error.to_string(), |uri| uri.to_string())
    }

    #[test]
    fn locations() {
        assert_eq!(resolved("https://cdn.io/x?sig=%2F"), "https://cdn.io/x?sig=%2F");
        assert_eq!(resolved("//cdn.io/x"), "https://cdn.io/x");
        assert_eq!(resolved("/v2/b?u=http://q"), "https://r.io:5000/v2/b?u=http://q");
        assert_eq!(resolved("w"), "https://r.io:5000/v2/a/blobs/w");
        assert_eq!(resolved("?n=1"), "https://r.io:5000/v2/a/blobs/x?n=1");
        for bad in ["file:///etc/passwd", "https://user:pw@r.io/", "https://", "ht tp://x", "gopher://x/"] {
            assert!(resolved(bad).contains("bad Location"), "{bad}: {}", resolved(bad));
        }
        assert!(resolved(&"x".repeat(9000)).contains("bad Location"));
    }

    #[test]
    fn origins() {
        let same = |one: &str, other: &str| same_origin(&one.parse().unwrap(), &other.parse().unwrap());
        assert!(same("https://R.io/a", "https://r.io:443/b"));
        assert!(!same("https://r.io/", "http://r.io/"));
        assert!(!same("https://r.io/", "https://r.io:444/"));
        assert!(!same("https://r.io/", "https://r.io.evil.org/"));
    }

    #[test]
    fn loopback_and_queries() {
        assert!(is_loopback("localhost:5000") && is_loopback("127.3.2.1") && is_loopback("[::1]:5"));
        assert!(!is_loopback("localhost.evil.org") && !is_loopback("128.0.0.1"));
        assert_eq!(with_query("/u?_state=x", &[("digest", "sha256:ab")]), "/u?_state=x&digest=sha256%3Aab");
        assert_eq!(form(&[("a", "b c&d")]), "a=b%20c%26d");
    }
}
