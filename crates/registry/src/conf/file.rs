//! One registries.conf file: its TOML shape and the checks on its values.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ShortNameMode;
use crate::error::{Error, ErrorKind};
use crate::reference::{Name, Reference, check_registry};

const FILE_MAX: u64 = 4 << 20;

/// A file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct File {
    pub unqualified_search_registries: Option<Vec<String>>,
    pub credential_helpers: Option<Vec<String>>,
    pub short_name_mode: Option<String>,
    #[serde(default)]
    registry: Vec<RegistryTable>,
    #[serde(default)]
    pub aliases: BTreeMap<String, String>,
    /// Version 1 of the format.
    registries: Option<toml::Table>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RegistryTable {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    pull_from_mirror: Option<String>,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: String,
}

/// A checked `[[registry]]` table; its key is the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registry {
    /// What replaces the prefix; empty leaves the name as it is.
    pub location: String,
    pub insecure: bool,
    pub blocked: bool,
    pub mirrors: Vec<Mirror>,
}

/// A checked mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    pub location: String,
    pub insecure: bool,
    pub pulls: MirrorPulls,
}

/// Which pulls a mirror serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MirrorPulls {
    All,
    ByDigest,
    ByTag,
}

/// The directory's `*.conf` files, sorted; none if it is missing.
pub(super) fn conf_files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error: io::Error| config(format!("reading {}: {error}", directory.display()));
    let entries = match fs::read_dir(directory) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "conf") && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads and parses a file; `None` if it is missing.
pub(super) fn read(path: &Path) -> Result<Option<File>, Error> {
    let failed = |error: io::Error| config(format!("reading {}: {error}", path.display()));
    let file = match fs::File::open(path) {
        Err(error) if is_absent(&error) => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_MAX {
        return Err(config(format!("reading {}: larger than {FILE_MAX} bytes", path.display())));
    }
    parse(&text, path).map(Some)
}

/// A directory on the way that is a file or not there.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Parses a file's text.
pub(super) fn parse(text: &str, path: &Path) -> Result<File, Error> {
    let file: File =
        toml::from_str(text).map_err(|error| config(format!("parsing {}: {error}", path.display())))?;
    if file.registries.is_some() {
        let message = format!(
            "parsing {}: the version 1 format ([registries.search] ...) is not supported",
            path.display()
        );
        return Err(config(message).hinted(
            "write unqualified-search-registries and [[registry]] tables, see containers-registries.conf(5)",
        ));
    }
    Ok(file)
}

impl File {
    pub(super) fn mode(&self) -> Result<Option<ShortNameMode>, Error> {
        match self.short_name_mode.as_deref() {
            None | Some("") => Ok(None),
            Some("enforcing") => Ok(Some(ShortNameMode::Enforcing)),
            Some("permissive") => Ok(Some(ShortNameMode::Permissive)),
            Some("disabled") => Ok(Some(ShortNameMode::Disabled)),
            Some(other) => Err(config(format!("invalid short-name mode: {other:?}"))),
        }
    }

    /// The tables by prefix; the first of several with one prefix counts.
    pub(super) fn registries(&self) -> Result<BTreeMap<String, Registry>, Error> {
        let mut all = BTreeMap::new();
        for table in &self.registry {
            let (prefix, registry) = table.check()?;
            all.entry(prefix).or_insert(registry);
        }
        Ok(all)
    }
}

impl RegistryTable {
    fn check(&self) -> Result<(String, Registry), Error> {
        let location = parse_location(&self.location)?;
        let prefix = if self.prefix.is_empty() { location.clone() } else { parse_prefix(&self.prefix)? };
        if prefix.is_empty() {
            return Err(config("invalid condition: both location and prefix are unset"));
        }
        if location.is_empty() && !prefix.starts_with("*.") {
            let message =
                "invalid condition: location is unset and prefix is not in the format: *.example.com";
            return Err(config(message));
        }
        if self.pull_from_mirror.as_ref().is_some_and(|value| !value.is_empty()) {
            return Err(config(format!(
                "pull-from-mirror must not be set for a non-mirror registry {prefix:?}"
            )));
        }
        let mirrors = self.mirror.iter().map(|mirror| mirror.check(&prefix, self.mirror_by_digest_only));
        let mirrors = mirrors.collect::<Result<_, _>>()?;
        Ok((prefix, Registry { location, insecure: self.insecure, blocked: self.blocked, mirrors }))
    }
}

impl MirrorTable {
    fn check(&self, prefix: &str, digest_only: bool) -> Result<Mirror, Error> {
        let location = parse_location(&self.location)?;
        if location.is_empty() {
            return Err(config(format!("invalid condition: mirror location is unset (registry {prefix:?})")));
        }
        let pulls = match (self.pull_from_mirror.as_str(), digest_only) {
            ("", true) => MirrorPulls::ByDigest,
            (_, true) => {
                return Err(config(format!(
                    "cannot set mirror-by-digest-only for the registry {prefix:?} and pull-from-mirror for its mirror {location:?} at the same time"
                )));
            }
            ("" | "all", false) => MirrorPulls::All,
            ("digest-only", false) => MirrorPulls::ByDigest,
            ("tag-only", false) => MirrorPulls::ByTag,
            (other, false) => {
                return Err(config(format!(
                    "unsupported pull-from-mirror value {other:?} for mirror {location:?}"
                )));
            }
        };
        Ok(Mirror { location, insecure: self.insecure, pulls })
    }
}

/// A `host[:port][/path]` without a scheme and without slashes at its end.
fn parse_location(text: &str) -> Result<String, Error> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return Err(config(format!("invalid location {text:?}: URI schemes are not supported")));
    }
    let trimmed = text.trim_end_matches('/');
    let host = trimmed.split('/').next().unwrap_or_default();
    match trimmed.is_empty() || check_registry(host).is_ok() {
        true => Ok(trimmed.to_owned()),
        false => Err(config(format!("invalid location {text:?}: want HOST[:PORT][/PATH]"))),
    }
}

fn parse_prefix(text: &str) -> Result<String, Error> {
    match text.strip_prefix("*.") {
        Some(domain) if !domain.contains(['/', ':', '@', '*']) => {
            parse_location(domain).map(|domain| format!("*.{domain}"))
        }
        Some(_) => Err(config(format!("invalid prefix {text:?}: a wildcard is only allowed as *.DOMAIN"))),
        None => {
            let base = text.split(['@']).next().unwrap_or_default();
            parse_location(base).map(|_| text.trim_end_matches('/').to_owned())
        }
    }
}

/// An entry of unqualified-search-registries.
pub(super) fn search_registry(text: &str) -> Result<String, Error> {
    let location = parse_location(text)?;
    match location.is_empty() {
        true => Err(config(format!("invalid unqualified-search-registries entry {text:?}"))),
        false => Ok(location),
    }
}

/// An alias' value; `None` if it is empty, which erases the alias.
pub(super) fn alias(name: &str, value: &str) -> Result<Option<Reference>, Error> {
    match Name::parse(name) {
        Ok(Name::Short(short)) if short.tag().is_none() && short.digest().is_none() => {}
        Ok(_) => {
            return Err(config(format!(
                "invalid short name {name:?}: must not contain registry, tag or digest"
            )));
        }
        Err(error) => return Err(config(format!("cannot parse short name: {name:?}: {error}"))),
    }
    if value.is_empty() {
        return Ok(None);
    }
    let alias: Reference =
        value.parse().map_err(|error| config(format!("parsing alias {value:?}: {error}")))?;
    if alias.tag().is_some() || alias.digest().is_some() {
        return Err(config(format!("invalid alias {value:?}: must not contain tag or digest")));
    }
    Ok(Some(alias))
}

fn config(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}
