//! `--network`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{Error, invalid};

/// Which network a container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Loopback alone.
    None,
    /// The host's.
    Host,
    /// One of its own through pasta(1), with options of the user.
    Pasta(Vec<String>),
    /// Another container's.
    Container(String),
    /// A file's.
    Ns(PathBuf),
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (mode, rest) = text.split_once(':').unwrap_or((text, ""));
        match (mode, rest) {
            ("none", "") => Ok(Self::None),
            ("host", "") => Ok(Self::Host),
            ("" | "private" | "default" | "pasta", "") => Ok(Self::Pasta(Vec::new())),
            ("pasta", options) => Ok(Self::Pasta(options.split(',').map(str::to_string).collect())),
            ("container", name) if !name.is_empty() => Ok(Self::Container(name.into())),
            ("container", _) => {
                invalid("must provide container ID or name when specifying container network mode")
            }
            ("ns", path) if !path.is_empty() => Ok(Self::Ns(path.into())),
            ("ns", _) => invalid("must provide a path to a namespace when specifying \"ns:\""),
            ("bridge", _) => invalid(
                "--network=bridge: bridge networks are not there yet; there are none, host, private, pasta[:OPTIONS], container:NAME, ns:PATH",
            ),
            ("slirp4netns", _) => invalid(
                "--network=slirp4netns: slirp4netns is not supported, pasta takes its place: --network=pasta",
            ),
            _ => invalid(format!("unable to find network with name or ID {text}: network not found")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Pasta(_) => f.write_str("pasta"),
            Self::Container(name) => write!(f, "container:{name}"),
            Self::Ns(path) => write!(f, "ns:{}", path.display()),
        }
    }
}
