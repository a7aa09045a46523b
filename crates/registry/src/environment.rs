//! The parts of the caller's environment that decide where configuration is looked for, as data.

use std::path::PathBuf;

/// Where this user's configuration lives. The library reads no environment variable outside
/// [`UserEnvironment::current`], so tests and servers choose their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserEnvironment {
    /// The user's id on the host: not 0 for a rootless engine, whatever its user namespace shows.
    pub uid: u32,
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`, else `~/.config`.
    pub config_home: Option<PathBuf>,
    /// `$XDG_CACHE_HOME`, else `~/.cache`.
    pub cache_home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `$CONTAINERS_REGISTRIES_CONF`.
    pub registries_conf: Option<PathBuf>,
    /// `$CONTAINERS_REGISTRIES_CONF_DIR`.
    pub registries_conf_dir: Option<PathBuf>,
    /// `$REGISTRY_AUTH_FILE`.
    pub registry_auth_file: Option<PathBuf>,
    /// `$DOCKER_CONFIG`, a directory.
    pub docker_config: Option<PathBuf>,
}

impl UserEnvironment {
    /// Reads the process's environment; `uid` and `home` are the engine user's on the host.
    pub fn current(uid: u32, home: PathBuf) -> Self {
        let config_home = variable("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
        let cache_home = variable("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        Self {
            uid,
            home: Some(home),
            config_home: Some(config_home),
            cache_home: Some(cache_home),
            runtime_dir: variable("XDG_RUNTIME_DIR"),
            registries_conf: variable("CONTAINERS_REGISTRIES_CONF"),
            registries_conf_dir: variable("CONTAINERS_REGISTRIES_CONF_DIR"),
            registry_auth_file: variable("REGISTRY_AUTH_FILE"),
            docker_config: variable("DOCKER_CONFIG"),
        }
    }

    /// The certs.d directories of containers-certs.d(5), the user's own first.
    pub fn certs_d(&self) -> Vec<PathBuf> {
        let own = self.config_home.as_ref().map(|home| home.join("containers/certs.d"));
        own.into_iter().chain(["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()]).collect()
    }

    /// Whether the engine's user is an ordinary one.
    pub fn rootless(&self) -> bool {
        self.uid != 0
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
