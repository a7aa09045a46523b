//! Trust: authorities, client certificates, and what speaks no TLS.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use unroot_registry::{Client, Credentials, Descriptor, Error, ErrorKind, Options, RegistriesConf};

use crate::server::{Reply, Server};
use crate::{LAYER, client, options, reference};

const CA: &str = include_str!("pem/ca.crt");
const SERVER_CERT: &str = include_str!("pem/server.cert");
const SERVER_KEY: &str = include_str!("pem/server.key");
const CLIENT_CERT: &str = include_str!("pem/client.cert");
const CLIENT_KEY: &str = include_str!("pem/client.key");
const NOBODYS_KEY: &str = include_str!("pem/nobody.key");

const SELF_SIGNED: [&str; 2] = [include_str!("pem/self-signed.cert"), include_str!("pem/self-signed.key")];
const EXPIRED: [&str; 2] = [include_str!("pem/expired.cert"), include_str!("pem/expired.key")];

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// A server's side; `mutual` asks for a client certificate of the test authority.
fn config(mutual: bool) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate(CA)).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder =
        if mutual { builder.with_client_cert_verifier(verifier) } else { builder.with_no_client_auth() };
    let key = PrivateKeyDer::from_pem_slice(SERVER_KEY.as_bytes()).unwrap();
    builder.with_single_cert(vec![certificate(SERVER_CERT)], key).unwrap()
}

/// A server whose own certificate is an authority's.
fn authority([cert, key]: [&str; 2]) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate(cert)], PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
        .unwrap()
}

#[test]
fn authorities_as_servers() {
    let trusted = |address: &str, pair: [&str; 2], authority_file: &str| {
        let server = Server::start_tls_on(address, authority(pair), |_, _| Reply::ok("x"));
        let (_directory, client) = certificates(&[("ca.crt", authority_file)]);
        get(&client, &server)
    };
    assert_eq!(trusted("127.0.0.1", SELF_SIGNED, SELF_SIGNED[0]).unwrap(), b"x");
    // trusted, but for another name; out of date; or not trusted
    for (address, pair, file) in [
        ("127.0.0.2", SELF_SIGNED, SELF_SIGNED[0]),
        ("127.0.0.1", EXPIRED, EXPIRED[0]),
        ("127.0.0.1", SELF_SIGNED, CA),
    ] {
        let error = trusted(address, pair, file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    }
}

fn https(mutual: bool) -> Server {
    Server::start_tls(config(mutual), |_, _| Reply::ok("x"))
}

fn get(client: &Client, server: &Server) -> Result<Vec<u8>, Error> {
    client.config(&reference(&server.name("a")), &Descriptor::of(LAYER, b"x"))
}

fn certificates(files: &[(&str, &str)]) -> (tempfile::TempDir, Client) {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), files);
    let client = Client::new(Options { cert_dir: Some(directory.path().into()), ..options() }).unwrap();
    (directory, client)
}

fn write(directory: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        fs::write(directory.join(name), text).unwrap();
    }
}

#[test]
fn unknown_authorities_are_refused() {
    let server = https(false);
    let error = get(&client(), &server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.to_string().ends_with("x509: certificate signed by unknown authority"), "{error}");
    assert!(error.hint().unwrap().contains(&format!("certs.d/{}/ca.crt", server.address)));
    assert!(error.hint().unwrap().contains("--tls-verify=false"));
    assert!(server.seen().is_empty());
}

#[test]
fn authorities_of_directories() {
    let server = https(false);
    let (_directory, client) = certificates(&[("ca.crt", CA)]);
    assert_eq!(get(&client, &server).unwrap(), b"x");
    let base = tempfile::tempdir().unwrap();
    let of_host = base.path().join(&server.address);
    fs::create_dir(&of_host).unwrap();
    write(&of_host, &[("ca.crt", CA)]);
    let certs_d = vec!["/no/such".into(), base.path().to_owned()];
    let client = Client::new(Options { certs_d, ..options() }).unwrap();
    assert_eq!(get(&client, &server).unwrap(), b"x");
}

#[test]
fn names_must_match() {
    // The certificate is for 127.0.0.1 and localhost.
    let server = Server::start_tls_on("127.0.0.2", config(false), |_, _| Reply::ok("x"));
    let (_directory, client) = certificates(&[("ca.crt", CA)]);
    let error = get(&client, &server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.to_string().contains("failed to verify certificate"), "{error}");
    assert!(error.hint().unwrap().starts_with("use a name that is in the certificate"));
    assert!(server.seen().is_empty());
}

#[test]
fn unverified_where_allowed() {
    let server = https(false);
    let client = Client::new(Options { tls_verify: Some(false), ..options() }).unwrap();
    assert_eq!(get(&client, &server).unwrap(), b"x");
    let conf = RegistriesConf::parse(&format!("[[registry]]\nlocation='{}'\ninsecure=true", server.address))
        .unwrap();
    let insecure = Client::new(Options { conf: conf.clone(), ..options() }).unwrap();
    assert_eq!(get(&insecure, &server).unwrap(), b"x");
    let strict = Client::new(Options { conf, tls_verify: Some(true), ..options() }).unwrap();
    assert_eq!(get(&strict, &server).unwrap_err().kind(), ErrorKind::Tls);
}

#[test]
fn client_certificates() {
    let server = https(true);
    let all = [("ca.crt", CA), ("client.cert", CLIENT_CERT), ("client.key", CLIENT_KEY)];
    assert_eq!(get(&certificates(&all).1, &server).unwrap(), b"x");
    assert!(get(&certificates(&all[..1]).1, &server).is_err());
    assert!(server.seen().len() == 1);
    let error = |files: &[(&str, &str)]| get(&certificates(files).1, &server).unwrap_err();
    let missing = error(&all[..2]);
    assert!(
        missing.to_string().contains("missing key") && missing.hint().unwrap().contains(".crt"),
        "{missing}"
    );
    assert!(error(&[all[2]]).to_string().contains("missing client certificate"));
    let mixed = error(&[all[1], ("client.key", NOBODYS_KEY)]);
    assert_eq!(mixed.kind(), ErrorKind::Config);
    assert_eq!(error(&[("ca.crt", "no PEM")]).kind(), ErrorKind::Config);
    assert_eq!(error(&[all[1], ("client.key", "no PEM")]).kind(), ErrorKind::Config);
}

#[test]
fn client_certificates_stay_at_their_registry() {
    let storage = https(true);
    let target = format!("https://{}/blob", storage.address);
    let server = Server::start_tls(config(true), move |_, _| Reply::redirect(target.clone()));
    let (_directory, client) =
        certificates(&[("ca.crt", CA), ("client.cert", CLIENT_CERT), ("client.key", CLIENT_KEY)]);
    assert!(get(&client, &server).is_err());
    assert!(!server.seen().is_empty() && storage.seen().is_empty());
}

#[test]
fn plain_http_is_named_and_cured() {
    let plain = Server::start(|_, _| Reply::ok("x"));
    let strict = Client::new(Options { tls_verify: Some(true), ..options() }).unwrap();
    let error = get(&strict, &plain).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.to_string().contains("http: server gave HTTP response to HTTPS client"), "{error}");
    assert!(error.hint().unwrap().contains("insecure = true"), "{:?}", error.hint());
    assert!(plain.seen().is_empty());
    let insecure = Client::new(Options { tls_verify: Some(false), ..options() }).unwrap();
    assert_eq!(get(&insecure, &plain).unwrap(), b"x");
    assert_eq!(get(&client(), &plain).unwrap(), b"x", "loopback");
}

#[test]
fn tls_is_not_left() {
    let plain = Server::start(|_, _| Reply::ok("x"));
    let target = format!("http://{}/x", plain.address);
    let redirect = target.clone();
    let server = Server::start_tls(config(false), move |_, _| Reply::redirect(redirect.clone()));
    let (_directory, client) = certificates(&[("ca.crt", CA)]);
    let error = get(&client, &server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");

    let realm = Server::start_tls(config(false), move |_, _| {
        Reply::new(401).header("WWW-Authenticate", "Bearer realm=\"http://registry.example.com/token\"")
    });
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &[("ca.crt", CA)]);
    let credentials = Credentials::parse("me:secret");
    let options = Options { cert_dir: Some(directory.path().into()), credentials, ..options() };
    let error = get(&Client::new(options).unwrap(), &realm).unwrap_err();
    assert!(error.to_string().contains("clear text"), "{error}");
    assert!(plain.seen().is_empty());
}

#[test]
fn uploads_do_not_leave_tls() {
    let server = Server::start_tls(config(false), |seen, _| {
        let host = seen.header("host").unwrap();
        match (seen.method.as_str(), seen.header("authorization")) {
            (_, None) => Reply::new(401).header("WWW-Authenticate", "Basic realm=x"),
            ("HEAD", _) => Reply::new(404),
            _ => Reply::new(202).header("Location", format!("http://{host}/upload")),
        }
    });
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &[("ca.crt", CA)]);
    let credentials = Credentials::parse("me:secret");
    let options = Options { cert_dir: Some(directory.path().into()), credentials, ..options() };
    let mut open = || -> std::io::Result<Box<dyn std::io::Read>> { Ok(Box::new(&b"x"[..])) };
    let name = reference(&server.name("a"));
    let pushed = Client::new(options).unwrap().push_blob(&name, &Descriptor::of(LAYER, b"x"), &mut open);
    let error = pushed.unwrap_err();
    assert!(error.to_string().contains("plain HTTP"), "{error}");
}
