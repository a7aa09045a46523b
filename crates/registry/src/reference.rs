//! Image names: the distribution reference grammar and its normalisation.
//!
//! ```text
//! reference  = name [":" tag] ["@" digest]
//! name       = [registry "/"] path-component *("/" path-component)
//! registry   = host [":" port]                   has a '.', a ':' or is "localhost"; else the name is short
//! ```
//!
//! A [`Reference`] always has a registry. A name without one is a [`ShortName`], and only registries.conf says what it
//! stands for: the types keep anyone from forgetting to ask. [`Reference::parse_normalized`] applies the old rule
//! (`alpine` is `docker.io/library/alpine`) where that is wanted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, DigestError};

const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;
const DEFAULT_REGISTRY: &str = "docker.io";
const LEGACY_REGISTRY: &str = "index.docker.io";

/// Why a text is no image name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// Upper case letters in the repository.
    #[error("invalid reference format: repository name must be lowercase")]
    Uppercase,
    /// Registry and repository are longer than 255 characters.
    #[error("repository name must not be more than {NAME_MAX} characters")]
    TooLong,
    /// 64 hex digits, which would be mistaken for an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// The part after `@` is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A name without a registry where one is needed.
    #[error("short name {0:?} has no registry: write it as REGISTRY/{0}")]
    Short(String),
    /// A registry that is no `host[:port]`.
    #[error("invalid registry {0:?}: want HOST[:PORT]")]
    Registry(String),
    /// A tag outside of `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
    #[error("invalid tag format")]
    Tag,
}

/// A full image name: registry, repository, and maybe a tag, a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A name without a registry, such as `alpine:3`; [`RegistriesConf`](crate::RegistriesConf) resolves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortName {
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// What a user typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// It names its registry.
    Full(Reference),
    /// It does not.
    Short(ShortName),
}

impl Name {
    /// Tells full names from short ones.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let parts = Parts::split(text)?;
        match parts.registry {
            Some(_) => parts.full().map(Self::Full),
            None => parts.short().map(Self::Short),
        }
    }
}

impl Reference {
    /// Parses a name; one without a registry gets `docker.io`, and `library/` where the Hub means that.
    pub fn parse_normalized(text: &str) -> Result<Self, ParseError> {
        let mut parts = Parts::split(text)?;
        parts.registry.get_or_insert(DEFAULT_REGISTRY);
        parts.full()
    }

    /// The registry, `host[:port]`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path below the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// With tag `latest` if there is neither a tag nor a digest.
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// With another tag, and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ParseError> {
        if !is_tag(tag) {
            return Err(ParseError::Tag);
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// With another digest; the tag stays.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Only registry and repository.
    pub fn without_tag_and_digest(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    /// Only the digest, if there is one, else as it is: the form that is asked of a registry.
    pub fn without_tag_if_digest(&self) -> Self {
        Self { tag: self.tag.clone().filter(|_| self.digest.is_none()), ..self.clone() }
    }
}

impl ShortName {
    /// The path, without tag and digest.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The full name on `registry`.
    pub fn on_registry(&self, registry: &str) -> Result<Reference, ParseError> {
        check_registry(registry)?;
        let parts = Parts {
            registry: Some(registry),
            path: &self.path,
            tag: self.tag(),
            digest: self.digest.clone(),
        };
        parts.full()
    }

    /// The full name with an alias' registry and repository.
    pub fn on_alias(&self, alias: &Reference) -> Reference {
        Reference { tag: self.tag.clone(), digest: self.digest.clone(), ..alias.clone() }
    }
}

/// Checks a registry's `host[:port]`, as `login` and registries.conf name them.
pub fn check_registry(text: &str) -> Result<(), ParseError> {
    if is_registry(text) { Ok(()) } else { Err(ParseError::Registry(text.to_owned())) }
}

/// A name's parts, the registry only where the text names one.
struct Parts<'a> {
    registry: Option<&'a str>,
    path: &'a str,
    tag: Option<&'a str>,
    digest: Option<Digest>,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, ParseError> {
        if is_image_id(text) {
            return Err(ParseError::LooksLikeId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
            None => (text, None),
        };
        let (registry, rest) = split_registry(rest);
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let parts = Self { registry, path, tag, digest };
        parts.check()?;
        Ok(parts)
    }

    fn check(&self) -> Result<(), ParseError> {
        if self.path.chars().any(char::is_uppercase) {
            return Err(ParseError::Uppercase);
        }
        let valid = self.registry.is_none_or(is_registry)
            && self.path.split('/').all(is_path_component)
            && self.tag.is_none_or(is_tag);
        if valid { Ok(()) } else { Err(ParseError::Format) }
    }

    fn full(self) -> Result<Reference, ParseError> {
        let registry = match self.registry {
            None => return Err(ParseError::Short(self.path.to_owned())),
            Some(LEGACY_REGISTRY) => DEFAULT_REGISTRY,
            Some(registry) => registry,
        };
        let on_hub_without_owner = registry == DEFAULT_REGISTRY && !self.path.contains('/');
        let prefix = if on_hub_without_owner { "library/" } else { "" };
        let repository = format!("{prefix}{}", self.path);
        if registry.len() + 1 + repository.len() > NAME_MAX {
            return Err(ParseError::TooLong);
        }
        let tag = self.tag.map(str::to_owned);
        Ok(Reference { registry: registry.to_owned(), repository, tag, digest: self.digest })
    }

    fn short(self) -> Result<ShortName, ParseError> {
        if self.path.len() > NAME_MAX {
            return Err(ParseError::TooLong);
        }
        Ok(ShortName { path: self.path.to_owned(), tag: self.tag.map(str::to_owned), digest: self.digest })
    }
}

/// The first component is a registry if it could not be a path: a dot, a colon, or `localhost`.
fn split_registry(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest)) if looks_like_registry(first) => (Some(first), rest),
        _ => (None, text),
    }
}

fn looks_like_registry(component: &str) -> bool {
    component == "localhost" || component.contains(['.', ':'])
}

fn parse_digest(text: &str) -> Result<Digest, ParseError> {
    let hex = text.split_once(':').map(|(_, hex)| hex);
    match hex {
        Some(hex) if hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(text.parse()?),
        _ => Err(ParseError::Format),
    }
}

fn is_image_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            return is_ipv6(address) && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    !host.is_empty() && host.split('.').all(is_host_label) && port.is_none_or(is_port)
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<std::net::Ipv6Addr>().is_ok()
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn is_host_label(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !word(*first) || !word(*last) {
        return false;
    }
    bytes.split(|byte| word(*byte)).all(|separator| match separator {
        b"" | b"." | b"_" | b"__" => true,
        other => other.iter().all(|byte| *byte == b'-'),
    })
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = text.bytes();
    text.len() <= TAG_MAX
        && bytes.next().is_some_and(word)
        && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

impl FromStr for Reference {
    type Err = ParseError;

    /// A full name; a short one is [`ParseError::Short`].
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Parts::split(text)?.full()
    }
}

impl FromStr for ShortName {
    type Err = ParseError;

    /// A short name; a full one is [`ParseError::Format`].
    fn from_str(text: &str) -> Result<Self, ParseError> {
        match Name::parse(text)? {
            Name::Short(name) => Ok(name),
            Name::Full(_) => Err(ParseError::Format),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        write_suffix(f, self.tag(), self.digest())
    }
}

impl fmt::Display for ShortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        write_suffix(f, self.tag(), self.digest())
    }
}

fn write_suffix(f: &mut fmt::Formatter<'_>, tag: Option<&str>, digest: Option<&Digest>) -> fmt::Result {
    if let Some(tag) = tag {
        write!(f, ":{tag}")?;
    }
    digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn normal(text: &str) -> String {
        Reference::parse_normalized(text).map_or_else(|error| error.to_string(), |name| name.to_string())
    }

    #[test]
    fn normalisation() {
        assert_eq!(normal("alpine"), "docker.io/library/alpine");
        assert_eq!(normal("me/app:1"), "docker.io/me/app:1");
        assert_eq!(normal("docker.io/alpine"), "docker.io/library/alpine");
        assert_eq!(normal("index.docker.io/alpine"), "docker.io/library/alpine");
        assert_eq!(normal("localhost/x"), "localhost/x");
        assert_eq!(normal("localhost:5000/x:y"), "localhost:5000/x:y");
        assert_eq!(normal("[::1]:5000/x"), "[::1]:5000/x");
        assert_eq!(normal("quay.io/a/b.c__d--e/f"), "quay.io/a/b.c__d--e/f");
        assert_eq!(normal(&format!("x.y/z:t@{DIGEST}")), format!("x.y/z:t@{DIGEST}"));
    }

    #[test]
    fn errors_are_podmans() {
        assert_eq!(normal(""), "invalid reference format");
        assert_eq!(normal("a:b:c"), "invalid reference format");
        assert_eq!(normal("x.y/a//b"), "invalid reference format");
        assert_eq!(normal("-x"), "invalid reference format");
        assert_eq!(normal("a___b"), "invalid reference format");
        assert_eq!(normal("a@sha256:12"), "invalid reference format");
        assert_eq!(normal("x.y:123456/a"), "invalid reference format");
        for upper in ["Alpine", "Foo/bar", "x.y/Foo", "É"] {
            assert_eq!(normal(upper), "invalid reference format: repository name must be lowercase");
        }
        assert_eq!(normal(&format!("a@sha256:{}", "0".repeat(40))), "invalid checksum digest length");
        assert_eq!(normal(&"a".repeat(256)), "repository name must not be more than 255 characters");
        assert!(normal(&"0".repeat(64)).contains("64-byte hexadecimal"));
        assert_eq!(normal(&format!("a:{}", "t".repeat(129))), "invalid reference format");
    }

    #[test]
    fn short_and_full_names_differ() {
        assert!(matches!(Name::parse("alpine:3"), Ok(Name::Short(_))));
        assert!(matches!(Name::parse("a/b"), Ok(Name::Short(_))));
        assert!(matches!(Name::parse("a.b/c"), Ok(Name::Full(_))));
        assert_eq!("alpine".parse::<Reference>(), Err(ParseError::Short("alpine".into())));
        let short: ShortName = "fedora:40".parse().unwrap();
        assert_eq!(short.on_registry("docker.io").unwrap().to_string(), "docker.io/library/fedora:40");
        let alias = "registry.fedoraproject.org/fedora".parse().unwrap();
        assert_eq!(short.on_alias(&alias).to_string(), "registry.fedoraproject.org/fedora:40");
    }

    /// Deterministic nonsense: nothing panics, and what is accepted is printed so that it reads the same.
    #[test]
    fn nonsense() {
        let pieces = [
            "a",
            "B",
            "0",
            ".",
            ":",
            "/",
            "@",
            "_",
            "-",
            "localhost",
            "[::1]",
            "é",
            " ",
            "sha256:",
            DIGEST,
            "\0",
        ];
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize
        };
        let mut accepted = 0;
        for _ in 0..40_000 {
            let text: String = (0..next() % 8).map(|_| pieces[next() % pieces.len()]).collect();
            if let Ok(name) = Reference::parse_normalized(&text) {
                assert_eq!(name.to_string().parse(), Ok(name), "{text}");
                accepted += 1;
            }
            if let Ok(Name::Short(name)) = Name::parse(&text) {
                assert_eq!(name.to_string().parse(), Ok(name), "{text}");
            }
        }
        assert!(accepted > 500, "{accepted}");
    }
}
