//! 401s: tokens, Basic, refusals, and where credentials must not go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use unroot_registry::{Auth, Client, Credentials, Descriptor, ErrorKind, Options, UserEnvironment};

use crate::server::{Reply, Seen, Server};
use crate::{LAYER, client, options, reference};

fn with_credentials(text: &str) -> Client {
    Client::new(Options { credentials: Credentials::parse(text), ..options() }).unwrap()
}

/// A registry that wants the token `wanted` of its own `/token`, which answers with `answer`.
fn token_registry(
    wanted: &'static str,
    answer: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
) -> Server {
    let tokens = AtomicUsize::new(0);
    Server::start(move |seen, _| {
        if seen.path.starts_with("/token") {
            return answer(seen, tokens.fetch_add(1, Ordering::SeqCst));
        }
        match seen.header("authorization") {
            Some(authorization) if authorization == format!("Bearer {wanted}") => Reply::ok("x"),
            _ => {
                let realm = format!("http://{}/token", seen.header("host").unwrap());
                let challenge =
                    format!("Bearer realm=\"{realm}\",service=\"test service\",scope=\"repository:a:pull\"");
                Reply::new(401).header("WWW-Authenticate", challenge)
            }
        }
    })
}

fn get(client: &Client, server: &Server) -> Result<Vec<u8>, unroot_registry::Error> {
    client.config(&reference(&server.name("a")), &Descriptor::of(LAYER, b"x"))
}

#[test]
fn anonymous_token_once_for_many_threads() {
    let server = token_registry("t", |_, _| Reply::ok(r#"{"token":"t","expires_in":300}"#));
    let client = client();
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| assert_eq!(get(&client, &server).unwrap(), b"x"));
        }
    });
    assert_eq!(server.count("/token"), 1);
    let asked = server.seen().into_iter().find(|seen| seen.path.starts_with("/token")).unwrap();
    assert_eq!(asked.path, "/token?service=test%20service&scope=repository%3Aa%3Apull");
    assert_eq!(asked.header("authorization"), None);
}

#[test]
fn password_goes_to_the_token_server_only() {
    let server = token_registry("t", |seen, _| match seen.header("authorization") {
        Some("Basic bWU6c2VjcmV0") => Reply::ok(r#"{"access_token":"t"}"#),
        _ => Reply::new(401),
    });
    assert_eq!(get(&with_credentials("me:secret"), &server).unwrap(), b"x");
    assert!(server.seen().iter().all(|seen| seen.path.starts_with("/token")
        || !seen.header("authorization").is_some_and(|value| value.starts_with("Basic"))));
    let error = get(&with_credentials("me:wrong"), &server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(
        error.to_string().contains("unable to retrieve auth token: invalid username/password"),
        "{error}"
    );
    assert!(!error.to_string().contains("wrong"));
}

#[test]
fn expired_tokens_are_renewed() {
    // The first token is refused as soon as it is used, the second is good.
    let server =
        token_registry("1", |_, count| Reply::ok(format!(r#"{{"token":"{count}","expires_in":300}}"#)));
    let client = client();
    let error = get(&client, &server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.hint().unwrap().contains("unroot login 127.0.0.1:"));
    assert_eq!(get(&client, &server).unwrap(), b"x", "each request may renew once");
    let short = token_registry("t", |_, _| Reply::ok(r#"{"token":"t","expires_in":0.01}"#));
    assert!(get(&client, &short).is_ok());
    thread::sleep(std::time::Duration::from_millis(20));
    assert!(get(&client, &short).is_ok());
    assert!(short.count("/token") >= 2);
}

#[test]
fn identity_tokens_are_posted() {
    let server = token_registry("t", |seen, _| {
        let body = String::from_utf8(seen.body.clone()).unwrap();
        match seen.is("POST", "/token")
            && body.contains("grant_type=refresh_token&refresh_token=refresh%2Bme")
        {
            true => Reply::ok(r#"{"access_token":"t"}"#),
            false => Reply::new(400),
        }
    });
    let credentials = Some(Credentials::IdentityToken("refresh+me".into()));
    let client = Client::new(Options { credentials, ..options() }).unwrap();
    assert_eq!(get(&client, &server).unwrap(), b"x");
}

#[test]
fn odd_token_servers() {
    for (realm, reason) in [
        ("file:///etc/passwd", "it is no URL"),
        ("http://registry.example.com/token", "clear text"),
        ("ftp://registry.example.com/token", "not https"),
        ("/token", "no absolute URL"),
        ("https://me:pw@registry.example.com/", "no absolute URL"),
    ] {
        let server = Server::start(move |_, _| {
            Reply::new(401).header("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
        });
        let error = get(&client(), &server).unwrap_err();
        assert!(error.to_string().contains(reason), "{realm}: {error}");
    }
    for body in ["", "{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#, r#"{"token":7}"#] {
        let server = token_registry("t", move |_, _| Reply::ok(body));
        assert_eq!(get(&client(), &server).unwrap_err().kind(), ErrorKind::Protocol, "{body}");
    }
    let endless = token_registry("t", |_, _| Reply::ok("").endless());
    assert_eq!(get(&client(), &endless).unwrap_err().kind(), ErrorKind::TooLarge);
    let redirecting = token_registry("t", |_, _| Reply::redirect("http://127.0.0.1:1/"));
    assert_eq!(get(&client(), &redirecting).unwrap_err().kind(), ErrorKind::Protocol);
}

#[test]
fn basic() {
    let server = Server::start(|seen, _| match seen.header("authorization") {
        Some("Basic bWU6c2VjcmV0") => Reply::ok("x"),
        _ => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"r\""),
    });
    let good = with_credentials("me:secret");
    assert_eq!(get(&good, &server).unwrap(), b"x");
    assert_eq!(get(&good, &server).unwrap(), b"x");
    assert_eq!(server.seen().len(), 3, "the second request knows what is asked for");
    for client in [client(), with_credentials("me:wrong")] {
        assert_eq!(get(&client, &server).unwrap_err().kind(), ErrorKind::Unauthorized);
    }
}

#[test]
fn unknown_schemes_are_refused() {
    let server = Server::start(|_, _| Reply::new(401).header("WWW-Authenticate", "Negotiate"));
    assert_eq!(get(&with_credentials("a:b"), &server).unwrap_err().kind(), ErrorKind::Unauthorized);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn denials_keep_the_registrys_words() {
    let words =
        r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied\u001b[2J"}]}"#;
    let server = Server::start(move |_, _| Reply::new(403).body(words));
    let error = get(&client(), &server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().ends_with("denied: requested access to the resource is denied[2J"), "{error}");
}

#[test]
fn auth_json_by_repository() {
    let server = Arc::new(Server::start(|seen, _| match seen.header("authorization") {
        // one:1 for a/one, two:2 for the rest
        Some("Basic b25lOjE=") if seen.path.starts_with("/v2/a/one/") => Reply::ok("x"),
        Some("Basic dHdvOjI=") if seen.path.starts_with("/v2/a/two/") => Reply::ok("x"),
        _ => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"r\""),
    }));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("auth.json");
    let host = &server.address;
    let text =
        format!(r#"{{"auths":{{"{host}/a/one":{{"auth":"b25lOjE="}},"{host}":{{"auth":"dHdvOjI="}}}}}}"#);
    std::fs::write(&file, text).unwrap();
    let auth = Auth::load(Some(&file), &UserEnvironment::default()).unwrap();
    let client = Client::new(Options { auth, ..options() }).unwrap();
    let blob = Descriptor::of(LAYER, b"x");
    for name in ["a/one", "a/two"] {
        assert_eq!(client.config(&reference(&server.name(name)), &blob).unwrap(), b"x");
    }
}

#[test]
fn login() {
    let server = Server::start(|seen, _| match (seen.path.as_str(), seen.header("authorization")) {
        ("/v2/", Some("Basic bWU6c2VjcmV0")) => Reply::ok("{}"),
        _ => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"r\""),
    });
    let client = client();
    client.login(&server.address, &Credentials::parse("me:secret").unwrap()).unwrap();
    let error = client.login(&server.address, &Credentials::parse("me:wrong").unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert_eq!(error.to_string(), format!("logging into \"{}\": invalid username/password", server.address));
    assert_eq!(
        client.login("a b", &Credentials::parse("a:b").unwrap()).unwrap_err().kind(),
        ErrorKind::Config
    );
}

#[test]
fn redirect_targets_cannot_ask_for_credentials() {
    let thief = Server::start(|_, _| Reply::ok(r#"{"token":"t"}"#));
    let realm = format!("http://{}/token", thief.address);
    let storage = Server::start(move |_, _| {
        Reply::new(401).header("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
    });
    let target = format!("http://{}/blob", storage.address);
    let server = Server::start(move |_, _| Reply::redirect(target.clone()));
    assert_eq!(get(&with_credentials("me:secret"), &server).unwrap_err().kind(), ErrorKind::Unauthorized);
    assert!(thief.seen().is_empty());
    assert!(storage.seen().iter().all(|seen| seen.header("authorization").is_none()));
}
