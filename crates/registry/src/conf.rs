//! registries.conf (version 2), its drop-ins and the short-name cache, as containers-registries.conf(5).
//!
//! ```text
//! main file      $CONTAINERS_REGISTRIES_CONF | ~/.config/containers/registries.conf | /etc/containers/registries.conf
//! drop-ins       $CONTAINERS_REGISTRIES_CONF_DIR | (/etc/containers/ unless the user has an own main file) then
//!                ~/.config/containers/ registries.conf.d/*.conf, each directory sorted
//! alias cache    /var/cache/containers/short-name-aliases.conf (root) | ~/.cache/containers/...   written by others
//! ```
//!
//! Later files win: by key for scalars and aliases, by prefix for `[[registry]]` tables.

mod file;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::environment::UserEnvironment;
use crate::error::{Error, ErrorKind};
use crate::reference::{Reference, ShortName};

use file::{File, Registry};
pub(crate) use source::Source;

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
pub struct RegistriesConf {
    search: Vec<String>,
    search_origin: Option<PathBuf>,
    mode: ShortNameMode,
    helpers: Vec<String>,
    registries: BTreeMap<String, Registry>,
    aliases: BTreeMap<String, (Reference, PathBuf)>,
}

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
        if self.ask && self.mode == ShortNameMode::Enforcing {
            let message = "short-name resolution enforced but cannot prompt without a TTY";
            let names: Vec<_> = self.candidates.iter().map(Reference::to_string).collect();
            let hint = format!("write the full name, one of: {}", names.join(", "));
            return Err(Error::new(ErrorKind::ShortName, message).hinted(hint));
        }
        Ok(self.candidates)
    }
}

impl RegistriesConf {
    /// Reads the user's or the system's file, the drop-in directories and the alias cache. A missing file is empty.
    pub fn load(environment: &UserEnvironment) -> Result<Self, Error> {
        let files = Files::of(environment);
        let mut conf = Self::default();
        if let Some(main) = files.main_file()? {
            conf.merge(main, &files.main)?;
        }
        for directory in &files.drop_ins {
            for path in file::conf_files(directory)? {
                if let Some(drop_in) = file::read(&path)? {
                    conf.merge(drop_in, &path)?;
                }
            }
        }
        if let Some(cache) = files.cache
            && let Some(aliases) = file::read(&cache)?
        {
            conf.merge_aliases(aliases, &cache)?;
        }
        Ok(conf)
    }

    /// The configuration of one text, as if it were the only file.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let origin = Path::new("registries.conf");
        let mut conf = Self::default();
        conf.merge(file::parse(text, origin)?, origin)?;
        Ok(conf)
    }

    fn merge(&mut self, file: File, origin: &Path) -> Result<(), Error> {
        let in_file = |error: Error| error.context(format_args!("reading {}", origin.display()));
        if let Some(search) = &file.unqualified_search_registries {
            self.search = search
                .iter()
                .map(|name| file::search_registry(name))
                .collect::<Result<_, _>>()
                .map_err(in_file)?;
            self.search_origin = Some(origin.to_owned());
        }
        self.mode = file.mode().map_err(in_file)?.unwrap_or(self.mode);
        self.helpers = file.credential_helpers.clone().unwrap_or(std::mem::take(&mut self.helpers));
        for (prefix, registry) in file.registries().map_err(in_file)? {
            self.registries.insert(prefix, registry);
        }
        self.merge_aliases(file, origin)
    }

    fn merge_aliases(&mut self, file: File, origin: &Path) -> Result<(), Error> {
        for (name, value) in file.aliases {
            let alias = file::alias(&name, &value)
                .map_err(|error| error.context(format_args!("reading {}", origin.display())))?;
            match alias {
                Some(alias) => self.aliases.insert(name, (alias, origin.to_owned())),
                None => self.aliases.remove(&name),
            };
        }
        Ok(())
    }

    /// Registries that short names are looked for in, in order.
    pub fn unqualified_search_registries(&self) -> &[String] {
        &self.search
    }

    /// The short-name mode.
    pub fn short_name_mode(&self) -> ShortNameMode {
        self.mode
    }

    /// `credential-helpers`: where credentials are looked for, in order; empty means the auth.json files only.
    pub fn credential_helpers(&self) -> &[String] {
        &self.helpers
    }

    /// Candidates for a short name: its alias, else one per unqualified-search registry. Default tags are not added.
    pub fn resolve_short(&self, name: &ShortName) -> Result<Resolution, Error> {
        match self.aliases.get(name.path()) {
            Some((alias, origin)) => Ok(Resolution {
                candidates: vec![name.on_alias(alias)],
                description: format!("Resolved {:?} as an alias ({})", name.path(), origin.display()),
                ask: false,
                mode: self.mode,
            }),
            None => self.search_short(name),
        }
    }

    fn search_short(&self, name: &ShortName) -> Result<Resolution, Error> {
        if self.search.is_empty() {
            return Err(self.no_search_registries(name));
        }
        let on = |registry: &String| name.on_registry(registry);
        let candidates: Vec<Reference> = self
            .search
            .iter()
            .map(on)
            .collect::<Result<_, _>>()
            .map_err(|error| Error::new(ErrorKind::ShortName, format!("short-name {name}: {error}")))?;
        let origin = self.search_origin.as_deref().unwrap_or(Path::new("registries.conf"));
        Ok(Resolution {
            ask: candidates.len() > 1 && self.mode != ShortNameMode::Disabled,
            description: format!(
                "Resolving {:?} using unqualified-search registries ({})",
                name.path(),
                origin.display()
            ),
            candidates,
            mode: self.mode,
        })
    }

    fn no_search_registries(&self, name: &ShortName) -> Error {
        let lead = format!("short-name \"{name}\" did not resolve to an alias and no");
        let message = match &self.search_origin {
            Some(origin) => format!("{lead} unqualified-search registries are defined in {:?}", origin),
            None => format!("{lead} containers-registries.conf(5) was found"),
        };
        let hint = "write the full name, such as docker.io/library/NAME, or set unqualified-search-registries in registries.conf";
        Error::new(ErrorKind::ShortName, message).hinted(hint)
    }
}

/// Which files are read.
struct Files {
    main: PathBuf,
    main_required: bool,
    drop_ins: Vec<PathBuf>,
    cache: Option<PathBuf>,
}

impl Files {
    fn of(environment: &UserEnvironment) -> Self {
        let system = Path::new("/etc/containers");
        let user = environment.config_home.as_ref().map(|home| home.join("containers"));
        let user_main = user.as_ref().map(|user| user.join("registries.conf")).filter(|path| path.exists());
        let explicit = environment.registries_conf.clone();
        let own_main = explicit.is_none() && user_main.is_some();
        let drop_ins = match &environment.registries_conf_dir {
            Some(directory) => vec![directory.clone()],
            None => [(!own_main).then(|| system.to_owned()), user]
                .into_iter()
                .flatten()
                .map(|base| base.join("registries.conf.d"))
                .collect(),
        };
        Self {
            main_required: explicit.is_some(),
            main: explicit.or(user_main).unwrap_or_else(|| system.join("registries.conf")),
            drop_ins,
            cache: alias_cache(environment),
        }
    }

    fn main_file(&self) -> Result<Option<File>, Error> {
        let file = file::read(&self.main)?;
        if file.is_none() && self.main_required {
            let message = format!("open {}: no such file or directory", self.main.display());
            return Err(Error::new(ErrorKind::Config, message)
                .hinted("unset CONTAINERS_REGISTRIES_CONF or create the file"));
        }
        Ok(file)
    }
}

fn alias_cache(environment: &UserEnvironment) -> Option<PathBuf> {
    let base = match environment.rootless() {
        true => environment.cache_home.clone()?,
        false => PathBuf::from("/var/cache"),
    };
    Some(base.join("containers/short-name-aliases.conf"))
}

#[cfg(test)]
mod tests;
