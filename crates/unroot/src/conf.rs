//! containers.conf(5): what flags are when they are not given.
//!
//! Files, a later one changes an earlier: `/usr/share/containers/containers.conf`, `/etc/containers/containers.conf`,
//! `/etc/containers/containers.conf.d/*.conf`, the same two below `$XDG_CONFIG_HOME` (`~/.config`).
//! `$CONTAINERS_CONF` stands for all of these; modules (`--module`) and `$CONTAINERS_CONF_OVERRIDE` come after whatever was
//! read. A list with `{append=true}` is added to that of earlier files, and so are those of later files, until one says
//! `{append=false}`.
//!
//! A setting is the default of a flag ([`FLAGS`]), so it is checked, and means, what the flag does.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use unroot_engine::spec::ContainerSpec;

use crate::cli::{Args, CliError};

/// The name of our own runtime.
pub const OWN_RUNTIME: &str = "unroot";

/// Section, key, flag, and what of the value the flag gets.
const FLAGS: &[(&str, &str, &str, Form)] = &[
    ("containers", "annotations", "annotation", Form::First),
    ("containers", "base_hosts_file", "hosts-file", Form::Unless),
    ("containers", "cgroupns", "cgroupns", Form::Unless),
    ("containers", "cgroups", "cgroups", Form::Unless),
    ("containers", "default_ulimits", "ulimit", Form::First),
    ("containers", "devices", "device", Form::First),
    ("containers", "dns_options", "dns-option", Form::Unless),
    ("containers", "dns_searches", "dns-search", Form::Unless),
    ("containers", "dns_servers", "dns", Form::Unless),
    ("containers", "env_host", "env-host", Form::Unless),
    ("containers", "http_proxy", "http-proxy", Form::Unless),
    ("containers", "init", "init", Form::Unless),
    ("containers", "ipcns", "ipc", Form::Unless),
    ("containers", "log_driver", "log-driver", Form::Unless),
    ("containers", "log_size_max", "log-opt", Form::Prefixed("max-size=")),
    ("containers", "log_tag", "log-opt", Form::Prefixed("tag=")),
    ("containers", "mounts", "mount", Form::First),
    ("containers", "netns", "network", Form::Unless),
    ("containers", "no_hosts", "no-hosts", Form::Unless),
    ("containers", "no_hostname", "no-hostname", Form::Unless),
    ("containers", "oom_score_adj", "oom-score-adj", Form::Unless),
    ("containers", "pidns", "pid", Form::Unless),
    ("containers", "pids_limit", "pids-limit", Form::Unless),
    ("containers", "privileged", "privileged", Form::Unless),
    ("containers", "read_only", "read-only", Form::Unless),
    ("containers", "seccomp_profile", "security-opt", Form::Prefixed("seccomp=")),
    ("containers", "shm_size", "shm-size", Form::Unless),
    ("containers", "tz", "tz", Form::Unless),
    ("containers", "umask", "umask", Form::Unless),
    ("containers", "userns", "userns", Form::Unless),
    ("containers", "utsns", "uts", Form::Unless),
    ("containers", "volumes", "volume", Form::First),
    ("engine", "detach_keys", "detach-keys", Form::Unless),
    ("engine", "image_volume_mode", "image-volume", Form::Unless),
    ("engine", "init_path", "init-path", Form::Program),
    ("engine", "pull_policy", "pull", Form::Unless),
    ("engine", "retry", "retry", Form::Unless),
    ("engine", "retry_delay", "retry-delay", Form::Unless),
    ("engine", "stop_timeout", "stop-timeout", Form::Unless),
];

/// Flags that say themselves which user namespace it is.
const MAP_FLAGS: [&str; 5] = ["uidmap", "gidmap", "subuidname", "subgidname", "pod"];

/// How a setting becomes a flag's value.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// The flag's, unless it is given.
    Unless,
    /// A list, before what is given: a later one changes an earlier.
    First,
    /// The same with something before it.
    Prefixed(&'static str),
    /// As [`Form::Unless`], if such a file is there: other engines' own programs are named in their files.
    Program,
}

/// What the files say, together.
#[derive(Clone, Debug, Default)]
pub struct Conf {
    tables: Table,
}

impl Conf {
    /// Reads the files of this process's user.
    pub fn load(modules: &[String]) -> Result<Self, CliError> {
        let mut conf = Self::default();
        for file in files() {
            conf.add(&file)?;
        }
        for name in modules {
            conf.add(&module(name)?)?;
        }
        if let Some(file) = variable("CONTAINERS_CONF_OVERRIDE") {
            conf.add(&file)?;
        }
        Ok(conf)
    }

    fn add(&mut self, file: &Path) -> Result<(), CliError> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => {
                let reason = unroot_engine::plan::reason(&e);
                return Err(CliError::new(format!("reading containers.conf {}: {reason}", file.display())));
            }
        };
        let table: Table = text.parse().map_err(|e: toml::de::Error| {
            CliError::new(format!("reading containers.conf {}: {}", file.display(), e.message()))
        })?;
        merge(&mut self.tables, table);
        Ok(())
    }

    fn get(&self, section: &str, key: &str) -> Option<&Value> {
        self.tables.get(section)?.as_table()?.get(key)
    }

    /// A setting's elements as texts; one for what is no list.
    pub fn texts(&self, section: &str, key: &str) -> Result<Vec<String>, CliError> {
        let wrong = || {
            CliError::new(format!("containers.conf: [{section}] {key}: a text, a number or a list of them"))
        };
        let one = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            Value::Integer(number) => Ok(number.to_string()),
            Value::Boolean(bool) => Ok(bool.to_string()),
            _ => Err(wrong()),
        };
        match self.get(section, key) {
            None => Ok(Vec::new()),
            Some(Value::Array(all)) => all.iter().filter(|v| !v.is_table()).map(one).collect(),
            Some(Value::Table(all)) => {
                all.iter().map(|(name, value)| Ok(format!("{name}={}", one(value)?))).collect()
            }
            Some(value) => Ok(vec![one(value)?]),
        }
    }

    /// A list in a table of a section.
    pub fn texts_of(&self, section: &str, table: &str, key: &str) -> Result<Vec<String>, CliError> {
        let inner = self.get(section, table).and_then(|t| t.get(key)).cloned();
        let tables = inner.map(|value| Table::from_iter([(key.to_string(), value)]));
        let only = Table::from_iter([(table.to_string(), Value::Table(tables.unwrap_or_default()))]);
        Self { tables: only }.texts(table, key)
    }

    /// The OCI runtime: its name, and its program; none for our own. `asked` goes before `[engine] runtime`.
    pub fn runtime(&self, asked: Option<&str>) -> Result<(String, Option<String>), CliError> {
        // (which is other engines' setting: theirs is not asked for by whoever has it in a file that both read)
        let configured = self.text("engine", "runtime")?.filter(|name| name == OWN_RUNTIME);
        let name = asked.map(str::to_string).or(configured).unwrap_or_else(|| OWN_RUNTIME.into());
        if name == OWN_RUNTIME {
            return Ok((name, None));
        }
        if name.contains('/') {
            return match Path::new(&name).is_file() {
                true => Ok((name.clone(), Some(name))),
                false => Err(CliError::new(format!("--runtime {name}: no such file"))),
            };
        }
        let listed = self.texts_of("engine", "runtimes", &name)?;
        let path = std::env::var("PATH").unwrap_or_default();
        let searched = path.split(':').map(|dir| format!("{dir}/{name}"));
        match listed.into_iter().chain(searched).find(|file| Path::new(file).is_file()) {
            Some(file) => Ok((name, Some(file))),
            None => Err(CliError::new(format!("default OCI runtime \"{name}\" not found: invalid argument"))
                .with_hint(format!("install {name}, or leave --runtime out"))),
        }
    }

    /// A setting that is one text; an empty one counts as none.
    pub fn text(&self, section: &str, key: &str) -> Result<Option<String>, CliError> {
        Ok(self.texts(section, key)?.pop().filter(|t| !t.is_empty()))
    }

    /// What is no flag's default.
    pub fn complete(&self, spec: &mut ContainerSpec) -> Result<(), CliError> {
        spec.process.default_env = self
            .texts("containers", "env")?
            .iter()
            .map(|text| text.split_once('=').unwrap_or((text, "")))
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        spec.security.default_sysctls = self
            .texts("containers", "default_sysctls")?
            .iter()
            .filter_map(|text| text.split_once('='))
            .map(|(name, value)| (name.trim().to_string(), value.trim().to_string()))
            .collect();
        spec.network.pasta_options = self.texts("network", "pasta_options")?;
        if self.get("containers", "default_capabilities").is_some() {
            spec.security.default_capabilities = Some(self.texts("containers", "default_capabilities")?);
        }
        Ok(())
    }

    /// Fills in the flags that are not given, of those that the verb has.
    pub fn fill(&self, args: &Args) -> Result<Args, CliError> {
        let mut filled = args.clone();
        for (section, key, flag, form) in FLAGS {
            let mut values = self.texts(section, key)?;
            values.retain(|v| !v.is_empty());
            if *flag == "userns" {
                // (the environment's goes before the file's, and a map that is given before both)
                let asked = std::env::var("PODMAN_USERNS").ok().filter(|v| !v.is_empty());
                values = asked.map_or(values, |mode| vec![mode]);
                values.retain(|_| !MAP_FLAGS.iter().any(|flag| !args.all(flag).is_empty()));
            }
            if values.is_empty() {
                continue;
            }
            match form {
                Form::Unless => filled.set_default(flag, values),
                Form::First if *flag == "mount" => {
                    for value in &values {
                        crate::mount_flags::mount(value).map_err(|e| CliError {
                            text: e.text.map(|t| format!("parsing containers.conf mounts: {t}")),
                            ..CliError::new("")
                        })?;
                    }
                    // (what is given replaces what would be at the same place)
                    let given: Vec<String> = args.all(flag).iter().filter_map(|m| target_of(m)).collect();
                    let free = |v: &String| target_of(v).is_none_or(|target| !given.contains(&target));
                    filled.put_first(flag, values.into_iter().filter(free).collect());
                }
                Form::First => filled.put_first(flag, values),
                Form::Prefixed(prefix) => {
                    filled.put_first(flag, values.iter().map(|v| format!("{prefix}{v}")).collect());
                }
                Form::Program if Path::new(&values[0]).exists() => filled.set_default(flag, values),
                Form::Program => {}
            }
        }
        Ok(filled)
    }
}

/// Where a mount is in the container.
fn target_of(mount: &str) -> Option<String> {
    let keys = ["dst", "destination", "target"];
    let pairs = mount.split(',').filter_map(|part| part.split_once('='));
    pairs.filter(|(key, _)| keys.contains(key)).map(|(_, path)| path.trim_end_matches('/').to_string()).next()
}

fn files() -> Vec<PathBuf> {
    match variable("CONTAINERS_CONF") {
        Some(only) => vec![only],
        None => {
            let mut files = vec![PathBuf::from("/usr/share/containers/containers.conf")];
            for base in [Some(PathBuf::from("/etc")), own_directory()].into_iter().flatten() {
                let base = base.join("containers");
                files.push(base.join("containers.conf"));
                let mut parts: Vec<PathBuf> = fs::read_dir(base.join("containers.conf.d"))
                    .into_iter()
                    .flatten()
                    .filter_map(|entry| Some(entry.ok()?.path()))
                    .filter(|path| path.extension().is_some_and(|e| e == "conf"))
                    .collect();
                parts.sort();
                files.extend(parts);
            }
            files
        }
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

fn own_directory() -> Option<PathBuf> {
    variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))
}

/// The file of a module: a path, or a name in one of the directories for them, the user's first.
fn module(name: &str) -> Result<PathBuf, CliError> {
    if Path::new(name).is_absolute() {
        return match fs::metadata(name) {
            Ok(_) => Ok(name.into()),
            Err(e) => {
                let reason = unroot_engine::plan::reason(&e);
                Err(CliError::with_code(1, format!("could not resolve module: stat {name}: {reason}")))
            }
        };
    }
    let bases = [own_directory(), Some("/etc".into()), Some("/usr/share".into())].into_iter().flatten();
    let places: Vec<PathBuf> =
        bases.map(|base| base.join("containers/containers.conf.modules").join(name)).collect();
    places.iter().find(|place| place.is_file()).cloned().ok_or_else(|| {
        let looked: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        let text = format!("could not resolve module \"{name}\": there is none of {}", looked.join(", "));
        CliError::with_code(1, text)
    })
}

/// A later file's settings over an earlier's.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (Some(Value::Array(old)), Value::Array(new)) if appends(&new).or(appends(old)) == Some(true) => {
                old.extend(new);
            }
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// What a list says of that, the last word of it.
fn appends(list: &[Value]) -> Option<bool> {
    list.iter().rev().find_map(|v| v.as_table()?.get("append")?.as_bool())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(texts: &[&str]) -> Conf {
        let mut conf = Conf::default();
        texts.iter().for_each(|text| merge(&mut conf.tables, text.parse().unwrap()));
        conf
    }

    #[test]
    fn later_files_win_or_add() {
        let both = conf(&[
            "[containers]\nulimits=['a']\ntz='x'\n[engine]\nretry=1",
            "[containers]\nulimits=['b', {append=true}]\ntz='y'",
        ]);
        assert_eq!(both.texts("containers", "ulimits").unwrap(), ["a", "b"]);
        assert_eq!(both.text("containers", "tz").unwrap().unwrap(), "y");
        assert_eq!(both.text("engine", "retry").unwrap().unwrap(), "1");
        let replaced = conf(&["[containers]\nulimits=['a']", "[containers]\nulimits=['b']"]);
        assert_eq!(replaced.texts("containers", "ulimits").unwrap(), ["b"]);
        let (first, later) = ("[containers]\nenv=['a', {append=true}]", "[containers]\nenv=['b']");
        assert_eq!(conf(&[first, later]).texts("containers", "env").unwrap(), ["a", "b"]);
        let off = "[containers]\nenv=['c', {append=false}]";
        assert_eq!(conf(&[first, later, off]).texts("containers", "env").unwrap(), ["c"]);
        assert!(conf(&["[engine]\nretry={a={}}"]).texts("engine", "retry").is_err());
    }

    #[test]
    fn every_setting_has_its_flag() {
        let known: Vec<&str> = crate::run_flags::FLAGS.iter().map(|f| f.long).collect();
        for (_, key, flag, _) in FLAGS {
            assert!(known.contains(flag) || *flag == "detach-keys", "{key}: --{flag}");
        }
    }
}
