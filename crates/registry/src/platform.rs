//! Which variant of a multi-platform image fits: operating system, architecture, CPU variant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A platform as OCI image indexes name them (Go's names): `linux/amd64`, `linux/arm/v7`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`, `windows`, ...
    #[serde(default)]
    pub os: String,
    /// `amd64`, `arm64`, `arm`, `riscv64`, ...
    #[serde(default)]
    pub architecture: String,
    /// `v7`, `v8`, ... where the architecture has variants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text that is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {0:?}: want OS/ARCHITECTURE[/VARIANT] such as linux/arm64/v8")]
pub struct PlatformError(String);

impl Platform {
    /// The platform that this program was built for.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// A platform with the architecture's usual names (`x86_64`, `aarch64`, `armhf`, ...) turned into Go's.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, implied) = canonical_architecture(architecture);
        let variant = variant.filter(|variant| !variant.is_empty()).or(implied).map(canonical_variant);
        Self { os: os.to_ascii_lowercase(), architecture, variant }
    }

    /// How well an index entry for `offered` serves a request for `self`: smaller is better, `None` does not run here.
    ///
    /// A CPU runs code for older variants of its architecture; no variant means the architecture's baseline.
    pub fn fitness(&self, offered: &Platform) -> Option<u32> {
        let offered = Self::new(&offered.os, &offered.architecture, offered.variant.as_deref());
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let (wanted, got) = (self.level(), offered.level());
        match (&self.variant, &offered.variant) {
            (None, None) => Some(0),
            (wanted_name, got_name) if wanted_name == got_name => Some(0),
            (None, Some(_)) if self.architecture == "arm" => Some(64 - got.min(63)),
            _ if got <= wanted => Some(1 + wanted - got),
            _ => None,
        }
    }

    /// The variant as a number; without a variant the one that every CPU of the architecture is.
    fn level(&self) -> u32 {
        let baseline = match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 5,
            _ => 1,
        };
        let number = self.variant.as_deref().and_then(|variant| variant.trim_start_matches('v').parse().ok());
        number.unwrap_or(baseline)
    }
}

/// Go's name, and the variant that a distribution's name implies.
fn canonical_architecture(name: &str) -> (String, Option<&'static str>) {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "x86_64" | "x86-64" => ("amd64".into(), None),
        "aarch64" => ("arm64".into(), None),
        "armhf" | "armv7l" => ("arm".into(), Some("v7")),
        "armel" | "armv6l" => ("arm".into(), Some("v6")),
        "i386" | "i686" | "x86" => ("386".into(), None),
        "powerpc64" => ("ppc64le".into(), None),
        "loongarch64" => ("loong64".into(), None),
        _ => (lower, None),
    }
}

fn canonical_variant(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    if lower.starts_with(|first: char| first.is_ascii_digit()) { format!("v{lower}") } else { lower }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// `os/architecture[/variant]`; a single word is an architecture of `linux`.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let valid = |part: &&str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if !parts.iter().all(valid) {
            return Err(PlatformError(text.to_owned()));
        }
        match parts[..] {
            ["linux"] => Ok(Self::host()),
            [architecture] => Ok(Self::new("linux", architecture, None)),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(PlatformError(text.to_owned())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitness(wanted: &str, offered: &str) -> Option<u32> {
        wanted.parse::<Platform>().unwrap().fitness(&offered.parse().unwrap())
    }

    #[test]
    fn names_of_distributions_become_gos() {
        assert_eq!("linux/x86_64".parse::<Platform>().unwrap().to_string(), "linux/amd64");
        assert_eq!("linux/armhf".parse::<Platform>().unwrap().to_string(), "linux/arm/v7");
        assert_eq!("arm64".parse::<Platform>().unwrap().to_string(), "linux/arm64");
        assert!("linux//x".parse::<Platform>().is_err());
        assert!("".parse::<Platform>().is_err());
        assert!("a/b/c/d".parse::<Platform>().is_err());
    }

    #[test]
    fn older_variants_run_newer_do_not() {
        assert_eq!(fitness("linux/arm64", "linux/arm64/v8"), Some(1));
        assert_eq!(fitness("linux/arm64/v8", "linux/arm64"), Some(1));
        assert!(fitness("linux/arm/v7", "linux/arm/v6") < fitness("linux/arm/v7", "linux/arm/v5"));
        assert_eq!(fitness("linux/arm/v6", "linux/arm/v7"), None);
        assert_eq!(fitness("linux/amd64", "linux/amd64/v3"), None);
        assert_eq!(fitness("linux/amd64/v3", "linux/amd64"), Some(3));
        assert_eq!(fitness("linux/amd64", "linux/arm64"), None);
        assert!(fitness("linux/arm", "linux/arm/v7") < fitness("linux/arm", "linux/arm/v6"));
    }
}
