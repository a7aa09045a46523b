//! Credentials: auth.json files and credential helpers, as containers-auth.json(5).
//!
//! ```text
//! --authfile | $REGISTRY_AUTH_FILE                                   if given, only this one
//! $XDG_RUNTIME_DIR/containers/auth.json | /run/containers/UID/...    the one that `login` writes
//! ~/.config/containers/auth.json
//! $DOCKER_CONFIG/config.json | ~/.docker/config.json
//! ~/.dockercfg
//! ```
//!
//! In each file `credHelpers` of the registry wins, then the most specific key of `auths`
//! (`quay.io/org/app` before `quay.io/org` before `quay.io`), then `credsStore`.

mod file;
mod helper;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::environment::UserEnvironment;
use crate::error::{Error, ErrorKind};

pub use file::{remove, remove_all, store};

/// The name in `credential-helpers` of registries.conf that means the auth.json files.
const AUTH_FILES: &str = "containers-auth.json";

/// What proves who asks.
#[derive(Clone, PartialEq, Eq, Hash)]
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

impl Credentials {
    /// `USER:PASSWORD` as `--creds` takes it.
    pub fn parse(text: &str) -> Option<Self> {
        let (username, password) = text.split_once(':')?;
        let filled = !username.is_empty() && !password.is_empty();
        filled.then(|| Self::Password { username: username.to_owned(), password: password.to_owned() })
    }
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
    files: Vec<PathBuf>,
    helpers: Vec<String>,
}

impl Auth {
    /// The search order above. An `authfile` (`--authfile`) that does not exist is an error.
    pub fn load(authfile: Option<&Path>, environment: &UserEnvironment) -> Result<Self, Error> {
        if let Some(path) = authfile
            && let Err(error) = path.metadata()
        {
            let message = format!("checking authfile: stat {}: {error}", path.display());
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(Self { files: search_order(authfile, environment), helpers: Vec::new() })
    }

    /// Looks nowhere.
    pub fn none() -> Self {
        Self::default()
    }

    /// Also asks the helpers that registries.conf names as `credential-helpers`, in their order.
    pub fn with_helpers(mut self, helpers: &[String]) -> Self {
        self.helpers = helpers.to_vec();
        self
    }

    /// Credentials for `registry/repository` (or a bare registry): the most specific key wins.
    pub fn lookup(&self, name: &str) -> Result<Option<Credentials>, Error> {
        if self.helpers.is_empty() {
            return self.lookup_files(name);
        }
        for helper in &self.helpers {
            let found = match helper.as_str() {
                AUTH_FILES => self.lookup_files(name)?,
                program => helper::get_for(program, host_of(name))?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn lookup_files(&self, name: &str) -> Result<Option<Credentials>, Error> {
        for path in &self.files {
            let found = file::read(path)?.map(|file| file.lookup(name, path)).transpose()?.flatten();
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The file that `login` writes: the first of the search order.
    pub fn writable(authfile: Option<&Path>, environment: &UserEnvironment) -> PathBuf {
        search_order(authfile, environment).swap_remove(0)
    }
}

fn search_order(authfile: Option<&Path>, environment: &UserEnvironment) -> Vec<PathBuf> {
    if let Some(only) = authfile.or(environment.registry_auth_file.as_deref()) {
        return vec![only.to_owned()];
    }
    let runtime = match &environment.runtime_dir {
        Some(directory) => directory.clone(),
        None => PathBuf::from(format!("/run/containers/{}", environment.uid)),
    };
    let below_runtime = if environment.runtime_dir.is_some() { "containers/auth.json" } else { "auth.json" };
    let docker =
        environment.docker_config.clone().or(environment.home.as_ref().map(|home| home.join(".docker")));
    let mut files = vec![runtime.join(below_runtime)];
    files.extend(environment.config_home.as_ref().map(|config| config.join("containers/auth.json")));
    files.extend(docker.map(|docker| docker.join("config.json")));
    files.extend(environment.home.as_ref().map(|home| home.join(file::DOCKERCFG)));
    files
}

/// The registry of an image name or of an auth.json key, which old Docker clients wrote as an URL.
fn host_of(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match bare.split('/').next().unwrap_or(bare) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests;
