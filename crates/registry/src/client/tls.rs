//! Whom to trust: the system's certificate authorities plus those of the registry's certs.d directory.
//!
//! containers-certs.d(5): `host[:port]/*.crt` are certificate authorities, `NAME.cert` with `NAME.key` is a client
//! certificate.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::{Options, trust};
use crate::error::{Error, ErrorKind};

/// The certificates of one registry.
#[derive(Default)]
pub(super) struct Certificates {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// The system's certificate authorities, read at most once.
#[derive(Default)]
pub(super) struct SystemRoots(OnceLock<Vec<CertificateDer<'static>>>);

impl SystemRoots {
    fn get(&self) -> &[CertificateDer<'static>] {
        // Unreadable parts of the store are not fatal: a server whose authority is missing is refused by name.
        self.0.get_or_init(|| rustls_native_certs::load_native_certs().certs)
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
    pub(super) fn settings(
        &self,
        verify: bool,
        show_client: bool,
        system: &SystemRoots,
    ) -> Result<Arc<ClientConfig>, Error> {
        let failed = |error: rustls::Error| Error::new(ErrorKind::Config, format!("tls: {error}"));
        let verifier: Arc<dyn ServerCertVerifier> = match verify {
            true => trust::verifier([system.get(), &self.authorities].concat()).map_err(failed)?,
            false => Arc::new(trust::Anybody(ring::default_provider())),
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match self.client.as_ref().filter(|_| show_client) {
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(failed)?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
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

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| broken(path, &error))?;
    match found.is_empty() {
        true => Err(broken(path, &"no PEM certificate in it")),
        false => Ok(found),
    }
}

fn client_certificate(path: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let key_path = path.with_extension("key");
    if !key_path.exists() {
        let message = format!("missing key {} for client certificate {}", key_path.display(), path.display());
        return Err(
            Error::new(ErrorKind::Config, message).hinted("CA certificates should use the extension .crt")
        );
    }
    let chain = certificates(path)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&key_path)?).map_err(|error| broken(&key_path, &error))?;
    CertifiedKey::from_der(chain.clone(), key.clone_key(), &ring::default_provider())
        .map_err(|error| broken(path, &error))?;
    Ok((chain, key))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| broken(path, &error))
}

fn broken(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Config, format!("reading {}: {error}", path.display()))
}
