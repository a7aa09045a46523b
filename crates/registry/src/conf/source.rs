//! From a logical image name to the places that it may be read from: prefix match, rewriting, mirrors.

use super::RegistriesConf;
use super::file::{Mirror, MirrorPulls, Registry};
use crate::error::{Error, ErrorKind};
use crate::reference::Reference;

/// One place to read an image from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The name on that place.
    pub reference: Reference,
    /// Plain HTTP and unverified TLS are allowed.
    pub insecure: bool,
    /// Not the registry that the name says.
    pub mirror: bool,
}

impl RegistriesConf {
    /// Where to read `reference` from, mirrors first, the registry itself last. Blocked registries are an error.
    pub(crate) fn sources(&self, reference: &Reference) -> Result<Vec<Source>, Error> {
        let whole = Source { reference: reference.clone(), insecure: false, mirror: false };
        let Some((prefix, matched, registry)) = self.registry_of(&reference.to_string()) else {
            return Ok(vec![whole]);
        };
        if registry.blocked {
            return Err(blocked(reference, prefix));
        }
        let mut sources = Vec::new();
        for mirror in registry.mirrors.iter().filter(|mirror| serves(mirror, reference)) {
            let moved = rewrite(reference, matched, &mirror.location)?;
            sources.push(Source { reference: moved, insecure: mirror.insecure, mirror: true });
        }
        let moved = match registry.location.as_str() {
            "" => reference.clone(),
            location => rewrite(reference, matched, location)?,
        };
        sources.push(Source { reference: moved, insecure: registry.insecure, mirror: false });
        Ok(sources)
    }

    /// Where to write to: never a mirror, never rewritten.
    pub(crate) fn destination(&self, reference: &Reference) -> Result<Source, Error> {
        let registry = self.registry_of(&reference.to_string());
        match registry {
            Some((prefix, _, registry)) if registry.blocked => Err(blocked(reference, prefix)),
            found => {
                let insecure = found.is_some_and(|(_, _, registry)| registry.insecure);
                Ok(Source { reference: reference.clone(), insecure, mirror: false })
            }
        }
    }

    /// Whether a registry as a whole is insecure; an error if it is blocked.
    pub(crate) fn registry_insecure(&self, registry: &str) -> Result<bool, Error> {
        match self.registry_of(registry) {
            Some((prefix, _, found)) if found.blocked => Err(blocked(&registry, prefix)),
            found => Ok(found.is_some_and(|(_, _, found)| found.insecure)),
        }
    }

    /// Whether registries.conf allows plain HTTP and unverified TLS for this registry or image name.
    pub fn is_insecure(&self, name: &str) -> bool {
        self.registry_of(name).is_some_and(|(_, _, registry)| registry.insecure)
    }

    /// Whether registries.conf blocks this registry or image name.
    pub fn is_blocked(&self, name: &str) -> bool {
        self.registry_of(name).is_some_and(|(_, _, registry)| registry.blocked)
    }

    /// The table with the longest prefix of `name`, and how many bytes of `name` it covers.
    fn registry_of(&self, name: &str) -> Option<(&str, usize, &Registry)> {
        let covered =
            |(prefix, registry)| match_prefix(name, prefix).map(|length| (prefix, length, registry));
        let best =
            self.registries.iter().filter_map(|(prefix, registry)| covered((prefix.as_str(), registry)));
        best.max_by_key(|(prefix, _, _)| prefix.len())
    }
}

/// How many bytes of `name` the prefix covers: all of it up to a separator, or the whole host for a wildcard.
fn match_prefix(name: &str, prefix: &str) -> Option<usize> {
    let length = match prefix.strip_prefix('*') {
        Some(domain) => {
            let host = &name[..name.find(['/', ':', '@']).unwrap_or(name.len())];
            host.strip_suffix(domain).filter(|sub| !sub.is_empty()).map(|_| host.len())?
        }
        None => name.starts_with(prefix).then_some(prefix.len())?,
    };
    let separated = name[length..].is_empty() || name[length..].starts_with(['/', ':', '@']);
    separated.then_some(length)
}

fn serves(mirror: &Mirror, reference: &Reference) -> bool {
    match mirror.pulls {
        MirrorPulls::All => true,
        MirrorPulls::ByDigest => reference.digest().is_some(),
        MirrorPulls::ByTag => reference.digest().is_none(),
    }
}

fn rewrite(reference: &Reference, matched: usize, location: &str) -> Result<Reference, Error> {
    let text = format!("{location}{}", &reference.to_string()[matched..]);
    text.parse().map_err(|error| {
        Error::new(
            ErrorKind::Config,
            format!("rewriting {reference} to {text:?} as registries.conf says: {error}"),
        )
    })
}

fn blocked(reference: &dyn std::fmt::Display, prefix: &str) -> Error {
    let message = format!(
        "registry {prefix} is blocked in /etc/containers/registries.conf or /etc/containers/registries.conf.d: {reference}"
    );
    Error::new(ErrorKind::Blocked, message)
        .hinted(format!("remove `blocked = true` of prefix {prefix:?} from registries.conf"))
}
