//! registries.conf (version 2), its drop-ins and the short-name cache, as containers-registries.conf(5).

use crate::environment::UserEnvironment;
use crate::error::Error;
use crate::reference::{Reference, ShortName};

/// What a short name without an alias means when several registries could have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShortNameMode {
    /// Ask on a terminal; without one refuse.
    Enforcing,
    /// Ask on a terminal; without one try all.
    #[default]
    Permissive,
    /// Try all, never ask.
    Disabled,
}

/// The merged configuration.
#[derive(Clone, Debug, Default)]
pub struct RegistriesConf {}

/// What a short name may stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// In the order to try.
    pub candidates: Vec<Reference>,
    /// For progress output: `Resolved "alpine" as an alias (/etc/containers/registries.conf.d/shortnames.conf)`.
    pub description: String,
    /// Several candidates and the mode wants the user to choose one on a terminal.
    pub ask: bool,
    mode: ShortNameMode,
}

impl Resolution {
    /// The candidates to try where nobody can be asked; an error in enforcing mode if there are several.
    pub fn unattended(self) -> Result<Vec<Reference>, Error> {
        let _ = self.mode;
        unimplemented!()
    }
}

impl RegistriesConf {
    /// Reads the user's or the system's file, the drop-in directories and the alias cache. A missing file is empty.
    pub fn load(environment: &UserEnvironment) -> Result<Self, Error> {
        let _ = environment;
        unimplemented!()
    }

    /// Registries that short names are looked for in, in order.
    pub fn unqualified_search_registries(&self) -> &[String] {
        unimplemented!()
    }

    /// The short-name mode.
    pub fn short_name_mode(&self) -> ShortNameMode {
        unimplemented!()
    }

    /// Candidates for a short name: its alias, else one per unqualified-search registry. Default tags are not added.
    pub fn resolve_short(&self, name: &ShortName) -> Result<Resolution, Error> {
        let _ = name;
        unimplemented!()
    }

    /// Whether registries.conf allows plain HTTP and unverified TLS for this name.
    pub fn is_insecure(&self, name: &str) -> bool {
        let _ = name;
        unimplemented!()
    }
}
