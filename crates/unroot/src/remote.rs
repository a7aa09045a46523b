//! Another machine's engine: there is no service to talk to, so the same command is run there by ssh(1).
//!
//! Which machine: `--url ssh://[USER@]HOST[:PORT][/PATH/TO/PROGRAM]`, `--connection NAME`, `$CONTAINER_HOST`,
//! `$CONTAINER_CONNECTION`, else with `--remote` the default of `system connection`. Paths in the command are paths
//! of that machine.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::cli::{Args, CliError};

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Destination {
    /// `ssh://[USER@]HOST[:PORT][/PROGRAM]`.
    #[serde(rename = "URI")]
    pub uri: String,
    /// Private key.
    #[serde(rename = "Identity", skip_serializing_if = "String::is_empty")]
    pub identity: String,
}

/// The machines of `system connection`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Connections {
    /// Name of the one that `--remote` alone means.
    #[serde(rename = "Default", skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// All by name.
    #[serde(rename = "Connections")]
    pub all: BTreeMap<String, Destination>,
}

fn file() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".config");
    let config =
        std::env::var_os("XDG_CONFIG_HOME").filter(|v| !v.is_empty()).map_or_else(home, PathBuf::from);
    config.join("containers/unroot-connections.json")
}

impl Connections {
    /// As they are kept.
    pub fn load() -> Result<Self, CliError> {
        Ok(unroot_engine::dirs::read_json(&file())?.unwrap_or_default())
    }

    /// Keeps them.
    pub fn save(&self) -> Result<(), CliError> {
        let file = file();
        if let Some(parent) = file.parent() {
            unroot_engine::dirs::make_dir(parent)?;
        }
        Ok(unroot_engine::dirs::write_json(&file, self)?)
    }
}

/// Another machine is meant, by flags or by the environment.
pub fn is_selected(args: &Args) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    args.value("url").is_some()
        || args.value("connection").is_some()
        || set("CONTAINER_HOST")
        || set("CONTAINER_CONNECTION")
}

/// The machine that is meant; none for this one.
pub fn destination(args: &Args) -> Result<Option<Destination>, CliError> {
    let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let identity = args.value("identity").map(str::to_string).or_else(|| env("CONTAINER_SSHKEY"));
    let named = |name: &str| {
        Connections::load()?.all.get(name).cloned().ok_or_else(|| {
            CliError::new(format!("connection \"{name}\" not found"))
                .with_hint(format!("{} system connection list", unroot_engine::program()))
        })
    };
    let plain = |uri: String| Destination { uri, identity: String::new() };
    let found = match (args.value("url"), args.value("connection")) {
        (Some(url), _) => Some(plain(url.into())),
        (None, Some(name)) => Some(named(name)?),
        (None, None) => match (env("CONTAINER_HOST"), env("CONTAINER_CONNECTION")) {
            (Some(url), _) => Some(plain(url)),
            (None, Some(name)) => Some(named(&name)?),
            (None, None) if !args.is("remote") => None,
            (None, None) => match Connections::load()?.default {
                Some(name) => Some(named(&name)?),
                None => {
                    return Err(CliError::new("--remote: no machine is named, and there is no default one")
                        .with_hint(format!(
                            "{} system connection add NAME ssh://USER@HOST",
                            unroot_engine::program()
                        )));
                }
            },
        },
    };
    Ok(found.map(|mut found| {
        found.identity = identity.unwrap_or(found.identity);
        found
    }))
}

/// The parts of `ssh://[USER@]HOST[:PORT][/PROGRAM]`: who and where, port, program.
pub fn parse(uri: &str) -> Result<(String, Option<u16>, String), CliError> {
    let wrong = |why: &str| {
        CliError::new(format!("remote \"{uri}\": {why}; it is ssh://[USER@]HOST[:PORT][/PATH/TO/PROGRAM]"))
    };
    let rest = uri.strip_prefix("ssh://").ok_or_else(|| wrong("only ssh reaches another engine"))?;
    let (place, program) = match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, ""),
    };
    if program.ends_with(".sock") {
        return Err(wrong("there is no service behind a socket, the path is that of the program there"));
    }
    let (place, port) = match place.rsplit_once(':') {
        Some((place, port)) if !port.contains(']') => {
            (place, Some(port.parse().map_err(|_| wrong("its port is no number"))?))
        }
        _ => (place, None),
    };
    let host = place.rsplit_once('@').map_or(place, |(_, host)| host);
    // (ssh would take such a word for an option)
    if host.is_empty() || place.starts_with('-') || host.starts_with('-') {
        return Err(wrong("its host is missing"));
    }
    let program = if program.len() > 1 { program } else { "unroot" };
    Ok((place.replace(['[', ']'], ""), port, program.to_string()))
}

/// Becomes ssh with the command; returns why it could not.
pub fn run(destination: &Destination, words: &[String]) -> Result<u8, CliError> {
    let (place, port, program) = parse(&destination.uri)?;
    let mut ssh = Command::new("ssh");
    // a terminal there is asked for by the verb, and made only if there is one here
    let wants_terminal = words.iter().any(|w| {
        w == "--tty" || (w.starts_with('-') && !w.starts_with("--") && w.contains('t') && w.len() <= 4)
    });
    ssh.arg(if wants_terminal && std::io::stdin().is_terminal() { "-t" } else { "-T" });
    if let Some(port) = port {
        ssh.arg("-p").arg(port.to_string());
    }
    if !destination.identity.is_empty() {
        ssh.arg("-i").arg(&destination.identity);
    }
    // the shell there takes the words apart again
    let command: Vec<String> =
        std::iter::once(&program).chain(words).map(|w| format!("'{}'", w.replace('\'', r"'\''"))).collect();
    ssh.arg("--").arg(place).arg(command.join(" "));
    log::debug!("exec {ssh:?}");
    let error = ssh.exec();
    Err(CliError::new(format!("exec ssh: {}", unroot_engine::plan::reason(&error)))
        .with_hint("install an ssh client"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn addresses() {
        let of = |uri: &str| parse(uri).map(|(place, port, program)| format!("{place} {port:?} {program}"));
        assert_eq!(of("ssh://me@host").unwrap(), "me@host None unroot");
        assert_eq!(of("ssh://host:22/usr/bin/unroot").unwrap(), "host Some(22) /usr/bin/unroot");
        assert_eq!(of("ssh://me@[::1]:22/").unwrap(), "me@::1 Some(22) unroot");
        for wrong in [
            "unix:///run/x.sock",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://h:x",
            "ssh://a@-x",
            "ssh://h/run/x.sock",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
