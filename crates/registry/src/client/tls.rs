//! Whom to trust: the system's certificate authorities plus those of the registry's certs.d directory.
//!
//! containers-certs.d(5): `host[:port]/*.crt` are certificate authorities, `NAME.cert` with `NAME.key` is a client
//! certificate.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::Options;
use crate::error::{Error, ErrorKind};

/// The certificates of one registry.
#[derive(Default)]
pub(super) struct Certificates {
    authorities: Vec<Certificate<'static>>,
    client: Option<ClientCert>,
}

/// The system's certificate authorities, read at most once.
#[derive(Default)]
pub(super) struct SystemRoots(OnceLock<Vec<Certificate<'static>>>);

impl SystemRoots {
    fn get(&self) -> &[Certificate<'static>] {
        // Unreadable parts of the store are not fatal: a server whose authority is missing is refused by name.
        self.0.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
        })
    }
}

impl Certificates {
    /// Reads `--cert-dir`, else the first certs.d directory that has the host.
    pub(super) fn load(options: &Options, host: &str) -> Result<Self, Error> {
        let directory = match &options.cert_dir {
            Some(directory) => Some(directory.clone()),
            None => options.certs_d.iter().map(|base| base.join(host)).find(|path| path.is_dir()),
        };
        directory.map_or_else(|| Ok(Self::default()), |directory| Self::read(&directory))
    }

    fn read(directory: &Path) -> Result<Self, Error> {
        let mut found = Self::default();
        for path in files(directory)? {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => found.authorities.extend(certificates(&path)?),
                Some("cert") => found.set_client(&path)?,
                Some("key") if !path.with_extension("cert").exists() => {
                    let message = format!(
                        "missing client certificate {} for key {}",
                        path.with_extension("cert").display(),
                        path.display()
                    );
                    return Err(Error::new(ErrorKind::Config, message));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    fn set_client(&mut self, path: &Path) -> Result<(), Error> {
        if self.client.is_none() {
            self.client = Some(client_certificate(path)?);
        }
        Ok(())
    }

    /// Whether a client certificate would be shown to the registry.
    pub(super) fn has_client(&self) -> bool {
        self.client.is_some()
    }

    /// The TLS settings; without verification no authority is read.
    pub(super) fn settings(&self, verify: bool, show_client: bool, system: &SystemRoots) -> TlsConfig {
        let roots = if verify { [system.get(), &self.authorities].concat() } else { Vec::new() };
        TlsConfig::builder()
            .root_certs(RootCerts::from(roots))
            .disable_verification(!verify)
            .client_cert(self.client.clone().filter(|_| show_client))
            .build()
    }
}

/// The directory's files, sorted; none if it is missing or not ours to read.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return Ok(Vec::new());
        }
        other => other.map_err(|error| broken(directory, &error))?,
    };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.sort();
    Ok(files)
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Error> {
    let mut found = Vec::new();
    for item in parse_pem(&read(path)?) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| broken(path, &error))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(broken(path, &"no PEM certificate in it"));
    }
    Ok(found)
}

fn client_certificate(path: &Path) -> Result<ClientCert, Error> {
    let key_path = path.with_extension("key");
    if !key_path.exists() {
        let message = format!("missing key {} for client certificate {}", key_path.display(), path.display());
        return Err(
            Error::new(ErrorKind::Config, message).hinted("CA certificates should use the extension .crt")
        );
    }
    let chain = certificates(path)?;
    let pem = read(&key_path)?;
    let key = PrivateKey::from_pem(&pem).map_err(|error| broken(&key_path, &error))?;
    check_pair(&chain, &pem).map_err(|error| broken(path, &error))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

/// The HTTP library takes a bad pair for a programming error and panics, so it is tried here.
fn check_pair(chain: &[Certificate<'static>], key: &[u8]) -> Result<(), rustls::Error> {
    let chain = chain.iter().map(|certificate| CertificateDer::from(certificate.der().to_vec())).collect();
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|error| rustls::Error::General(error.to_string()))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map(drop)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| broken(path, &error))
}

fn broken(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Config, format!("reading {}: {error}", path.display()))
}
