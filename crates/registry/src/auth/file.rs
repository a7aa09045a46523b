//! One auth.json file (or Docker's config.json, or the old .dockercfg): look-ups and changes.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Credentials, helper, host_of};
use crate::error::{Error, ErrorKind};

/// The file name of Docker's oldest format, which is the `auths` object alone.
pub(super) const DOCKERCFG: &str = ".dockercfg";
const FILE_MAX: u64 = 4 << 20;

/// The parts that are read.
#[derive(Debug, Default, Deserialize)]
pub(super) struct AuthFile {
    auths: Option<BTreeMap<String, Entry>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Entry {
    auth: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
}

/// Reads a file; `None` if it is missing.
pub(super) fn read(path: &Path) -> Result<Option<AuthFile>, Error> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    let parsed = if path.file_name().is_some_and(|name| name == DOCKERCFG) {
        serde_json::from_str(&text).map(|auths| AuthFile { auths: Some(auths), ..AuthFile::default() })
    } else {
        serde_json::from_str(&text)
    };
    parsed.map(Some).map_err(|error| config(path, "parsing", &error))
}

fn read_text(path: &Path) -> Result<Option<String>, Error> {
    let file = match fs::File::open(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        other => other.map_err(|error| config(path, "opening", &error))?,
    };
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text).map_err(|error| config(path, "reading", &error))?;
    // `touch auth.json` is a usual way to make one.
    Ok(Some(if text.trim().is_empty() { "{}".to_owned() } else { text }))
}

impl AuthFile {
    pub(super) fn lookup(&self, name: &str, path: &Path) -> Result<Option<Credentials>, Error> {
        let host = host_of(name);
        if let Some(program) = self.helpers.as_ref().and_then(|helpers| helpers.get(host)) {
            return helper::get_for(program, host);
        }
        if let Some((key, entry)) = self.entry(name, host)
            && let Some(found) = entry.credentials().map_err(|reason| bad_entry(path, key, reason))?
        {
            return Ok(Some(found));
        }
        match self.store.as_deref() {
            None | Some("") => Ok(None),
            Some(program) => helper::get_for(program, host),
        }
    }

    /// The most specific key, then any key that means the same host (`https://index.docker.io/v1/`).
    fn entry(&self, name: &str, host: &str) -> Option<(&str, &Entry)> {
        let auths = self.auths.as_ref()?;
        let exact = specific_to_general(name).find_map(|key| auths.get_key_value(key));
        let same_host = |(key, _): &(&String, &Entry)| is_host_key(key) && host_of(key) == host;
        exact.or_else(|| auths.iter().find(same_host)).map(|(key, entry)| (key.as_str(), entry))
    }
}

/// `a.b/c/d`, `a.b/c`, `a.b`.
fn specific_to_general(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.rsplit_once('/').map(|(parent, _)| parent))
}

/// A host, with or without scheme; a path only as the version suffix that old clients wrote.
fn is_host_key(key: &str) -> bool {
    let has_scheme = key.starts_with("https://") || key.starts_with("http://");
    has_scheme || !key.contains('/')
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        if let Some(token) = self.identity_token.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Credentials::IdentityToken(token.clone())));
        }
        let Some(auth) = self.auth.as_deref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let bytes = STANDARD.decode(auth.trim()).map_err(|_| "`auth` is not base64")?;
        let text = String::from_utf8(bytes).map_err(|_| "`auth` is not UTF-8")?;
        let (username, password) = text.split_once(':').ok_or("`auth` is not USER:PASSWORD")?;
        // Docker once padded passwords with NULs.
        let password = password.trim_matches('\0').to_owned();
        Ok(Some(Credentials::Password { username: username.to_owned(), password }))
    }
}

/// Stores credentials under `key` in an auth.json file (mode 0600, replaced by rename), or in the helper that the file
/// names for the key's registry. All else in the file stays.
pub fn store(path: &Path, key: &str, credentials: &Credentials) -> Result<(), Error> {
    let mut document = read_document(path)?;
    if let Some(program) = helper_for(&document, key) {
        return helper::store(&program, host_of(key), credentials);
    }
    let entry = match credentials {
        Credentials::Password { username, password } => {
            json!({ "auth": STANDARD.encode(format!("{username}:{password}")) })
        }
        Credentials::IdentityToken(token) => json!({ "identitytoken": token }),
    };
    let auths = document.entry("auths").or_insert_with(|| json!({}));
    match auths.as_object_mut() {
        Some(auths) => auths.insert(key.to_owned(), entry),
        None => {
            return Err(Error::new(
                ErrorKind::Config,
                format!("parsing {}: `auths` is no object", path.display()),
            ));
        }
    };
    write_document(path, &document)
}

/// Removes the credentials under `key`; false if there were none.
pub fn remove(path: &Path, key: &str) -> Result<bool, Error> {
    let mut document = read_document(path)?;
    if let Some(program) = helper_for(&document, key) {
        return helper::erase(&program, host_of(key));
    }
    let auths = document.get_mut("auths").and_then(Value::as_object_mut);
    let removed = auths.and_then(|auths| auths.shift_remove(key)).is_some();
    if removed {
        write_document(path, &document)?;
    }
    Ok(removed)
}

/// Removes all credentials of the file, and those that its helpers keep for the registries in it.
pub fn remove_all(path: &Path) -> Result<(), Error> {
    let mut document = read_document(path)?;
    let keys: Vec<String> = ["auths", "credHelpers"]
        .iter()
        .filter_map(|part| document.get(*part).and_then(Value::as_object))
        .flat_map(|entries| entries.keys().cloned())
        .collect();
    for key in keys {
        if let Some(program) = helper_for(&document, &key) {
            helper::erase(&program, host_of(&key))?;
        }
    }
    document.insert("auths".into(), json!({}));
    write_document(path, &document)
}

fn helper_for(document: &Map<String, Value>, key: &str) -> Option<String> {
    let helpers = document.get("credHelpers").and_then(Value::as_object);
    let own = helpers.and_then(|helpers| helpers.get(host_of(key)));
    let program = own.or_else(|| document.get("credsStore"))?.as_str()?;
    (!program.is_empty()).then(|| program.to_owned())
}

fn read_document(path: &Path) -> Result<Map<String, Value>, Error> {
    let text = read_text(path)?.unwrap_or_else(|| "{}".to_owned());
    serde_json::from_str(&text).map_err(|error| config(path, "parsing", &error))
}

fn write_document(path: &Path, document: &Map<String, Value>) -> Result<(), Error> {
    let failed = |error: io::Error| config(path, "writing", &error);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = directory.join(name);
    let mut text = serde_json::to_vec_pretty(document).map_err(|error| config(path, "writing", &error))?;
    text.push(b'\n');
    let written = write_private(&temporary, &text).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(failed)
}

fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)
}

fn bad_entry(path: &Path, key: &str, reason: &str) -> Error {
    let message = format!("reading {}: entry {key:?}: {reason}", path.display());
    Error::new(ErrorKind::Config, message).hinted("log in again, or remove the entry")
}

fn config(path: &Path, verb: &str, error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Config, format!("{verb} {}: {error}", path.display()))
}
