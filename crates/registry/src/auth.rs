//! Credentials: auth.json files and credential helpers, as containers-auth.json(5).

use std::fmt;
use std::path::{Path, PathBuf};

use crate::environment::UserEnvironment;
use crate::error::Error;

/// What proves who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user name and password (or access token).
    Password {
        /// The user name.
        username: String,
        /// The password.
        password: String,
    },
    /// An OAuth2 refresh token (`identitytoken` in auth.json).
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "Password({username:?}, ...)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(...)"),
        }
    }
}

/// Where credentials are looked for, in order. Files are read at each look-up, so that a `login` in between counts.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    _files: Vec<PathBuf>,
}

impl Auth {
    /// The search order of containers-auth.json(5); `authfile` (`--authfile`) or `$REGISTRY_AUTH_FILE` replace it.
    pub fn load(authfile: Option<&Path>, environment: &UserEnvironment) -> Result<Self, Error> {
        let _ = (authfile, environment);
        unimplemented!()
    }

    /// Looks nowhere.
    pub fn none() -> Self {
        Self::default()
    }

    /// Credentials for `registry/repository` (or a bare registry): the most specific key wins.
    pub fn lookup(&self, name: &str) -> Result<Option<Credentials>, Error> {
        let _ = name;
        unimplemented!()
    }

    /// The file that `login` writes: the first of the search order.
    pub fn writable(authfile: Option<&Path>, environment: &UserEnvironment) -> PathBuf {
        let _ = (authfile, environment);
        unimplemented!()
    }
}

/// Stores credentials under `key` in an auth.json file (mode 0600, replaced by rename), or in the helper that the file names for it.
pub fn store(file: &Path, key: &str, credentials: &Credentials) -> Result<(), Error> {
    let _ = (file, key, credentials);
    unimplemented!()
}

/// Removes the credentials under `key`; false if there were none.
pub fn remove(file: &Path, key: &str) -> Result<bool, Error> {
    let _ = (file, key);
    unimplemented!()
}
