//! `--filter KEY=VALUE` for containers: keys are checked before any container is looked at; of one key any value
//! does, of labels all have to hold.

use std::collections::BTreeMap;

use unroot_engine::health::Report;
use unroot_engine::spec::Restart;
use unroot_engine::{Engine, Pod, Record, State};
use unroot_network::Mode;

use crate::cli::CliError;
use crate::moment::{self, Direction};

const STATUS: [&str; 9] =
    ["created", "running", "paused", "stopping", "exited", "stopped", "unknown", "initialized", "removing"];
const HEALTH: [&str; 5] = ["starting", "healthy", "unhealthy", "stopped", "none"];

/// What `prune` knows.
pub const PRUNE: &[&str] = &["label", "label!", "until"];

/// Filters that were given, by key.
pub struct Filters {
    keys: BTreeMap<String, Vec<String>>,
    /// `before`, `since`, `until`: when, nanoseconds since the epoch.
    times: BTreeMap<&'static str, i64>,
}

impl Filters {
    /// Of flags; `only` are the keys that a verb knows, none is all.
    pub fn parse(engine: &Engine, given: &[String], only: &[&str]) -> Result<Self, CliError> {
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for filter in given {
            let (key, value) = match (filter.split_once("!="), filter.split_once('=')) {
                (Some((key @ "label", value)), _) => (format!("{key}!"), value),
                (_, Some((key, value))) => (key.to_string(), value),
                _ => return Err(CliError::new(format!("invalid filter {filter:?}: it is KEY=VALUE"))),
            };
            keys.entry(key).or_default().push(value.to_string());
        }
        let mut times = BTreeMap::new();
        for (key, values) in &keys {
            if !only.is_empty() && !only.contains(&key.as_str()) {
                return Err(unknown(key));
            }
            check(engine, key, values, &mut times)?;
        }
        Ok(Self { keys, times })
    }

    /// One of these keys was given.
    pub fn has(&self, keys: &[&str]) -> bool {
        keys.iter().any(|k| self.keys.contains_key(*k))
    }

    /// All hold for a container.
    pub fn hold(&self, engine: &Engine, record: &Record, state: &State) -> bool {
        self.keys.iter().all(|(key, values)| self.holds(engine, record, state, key, values))
    }

    fn holds(&self, engine: &Engine, record: &Record, state: &State, key: &str, values: &[String]) -> bool {
        let any = |test: &dyn Fn(&str) -> bool| values.iter().any(|v| test(v));
        let label = |wanted: &str| match wanted.split_once('=') {
            Some((name, value)) => record.spec.labels.get(name).is_some_and(|v| v == value),
            None => record.spec.labels.contains_key(wanted),
        };
        match key {
            "id" => any(&|v| is_id(&record.id, v)),
            "name" => any(&|v| pattern(&v.replace('/', "")).is_ok_and(|p| p.is_match(&record.name))),
            "status" => {
                any(&|v| state.status.as_str() == v || (v == "stopped" && state.status.as_str() == "exited"))
            }
            "label" => values.iter().all(|v| label(v)),
            "label!" => !values.iter().all(|v| label(v)),
            "exited" => any(&|v| {
                !state.is_live()
                    && state.exit.as_ref().is_some_and(|e| e.started != 0 && e.code.to_string() == v)
            }),
            "ancestor" => any(&|v| is_ancestor(engine, record, v)),
            "volume" => any(&|v| has_volume(record, v)),
            "network" => any(&|v| has_network(engine, record, v)),
            "before" => self.times.get("before").is_some_and(|t| record.created < *t),
            "since" => self.times.get("since").is_some_and(|t| record.created > *t),
            "until" => self.times.get("until").is_some_and(|t| record.created < *t),
            "health" => {
                let status = Report::shown(&engine.dirs, record).map_or("none".into(), |r| r.status);
                any(&|v| v == status)
            }
            "restart-policy" => {
                any(&|v| policy(record.spec.life.restart) == if v == "none" { "no" } else { v })
            }
            "should-start-on-boot" => any(&|v| {
                unroot_engine::boot::should_run(&engine.dirs, record) == matches!(v, "true" | "1" | "t")
            }),
            "command" => any(&|v| {
                let command = record.spec.process.command.first();
                command.is_some_and(|c| pattern(v).is_ok_and(|p| p.is_match(c)))
            }),
            "pod" => any(&|v| is_in_pod(engine, record, v)),
            _ => false,
        }
    }
}

fn unknown(key: &str) -> CliError {
    CliError::new(format!("{key} is an invalid filter"))
}

/// The values of a key make sense.
fn check(
    engine: &Engine,
    key: &str,
    values: &[String],
    times: &mut BTreeMap<&'static str, i64>,
) -> Result<(), CliError> {
    let bad = |known: &[&str]| values.iter().find(|v| !known.contains(&v.as_str()));
    match key {
        "label" | "label!" | "ancestor" | "volume" | "network" | "pod" => {}
        "id" => {
            for value in values.iter().filter(|v| !is_hex(v)) {
                pattern(value)?;
            }
        }
        "name" | "command" => {
            for value in values {
                pattern(value)?;
            }
        }
        "status" => {
            if let Some(value) = bad(&STATUS) {
                return Err(CliError::new(format!("unknown container state: {value}: invalid argument"))
                    .with_hint(format!("it is one of {}", STATUS.join(", "))));
            }
        }
        "health" => {
            if let Some(value) = bad(&HEALTH) {
                return Err(CliError::new(format!(
                    "{value} is an invalid health status: it is one of {}",
                    HEALTH.join(", ")
                )));
            }
        }
        "exited" => {
            if let Some(value) = values.iter().find(|v| v.parse::<i32>().is_err()) {
                return Err(CliError::new(format!("exited code out of range {value:?}: it is a number")));
            }
        }
        "restart-policy" => {
            let known = ["none", "no", "on-failure", "always", "unless-stopped"];
            let wrong: Vec<&str> = values.iter().map(String::as_str).filter(|v| !known.contains(v)).collect();
            let policies = if wrong.len() > 1 { "policies" } else { "policy" };
            if !wrong.is_empty() {
                return Err(CliError::new(format!("{} invalid restart {policies}", wrong.join(", "))));
            }
        }
        "should-start-on-boot" => {
            if let Some(value) = bad(&["true", "false", "1", "0", "t", "f"]) {
                return Err(CliError::new(format!("strconv.ParseBool: parsing {value:?}: invalid syntax")));
            }
        }
        "before" | "since" => {
            for value in values {
                let created = engine.find(value)?.created;
                let name = if key == "before" { "before" } else { "since" };
                let time = times.entry(name).or_insert(created);
                *time = created.min(*time);
            }
        }
        "until" => match values {
            [value] => {
                let time = moment::parse(value, Direction::Past).ok_or_else(|| {
                    CliError::new(format!("until filter {value:?}: neither a time nor a duration"))
                })?;
                times.insert("until", time);
            }
            _ => return Err(CliError::new("specify exactly one timestamp for until")),
        },
        other => return Err(unknown(other)),
    }
    Ok(())
}

/// A regular expression.
pub fn pattern(text: &str) -> Result<regex_lite::Regex, CliError> {
    regex_lite::Regex::new(text).map_err(|e| CliError::new(format!("invalid filter: {text:?}: {e}")))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Hex digits are the beginning of an id, all else is a pattern.
pub fn is_id(id: &str, wanted: &str) -> bool {
    match is_hex(wanted) {
        true => id.starts_with(&wanted.to_ascii_lowercase()),
        false => pattern(&wanted.to_ascii_lowercase()).is_ok_and(|p| p.is_match(id)),
    }
}

fn policy(restart: Restart) -> &'static str {
    match restart {
        Restart::No => "no",
        Restart::OnFailure(_) => "on-failure",
        Restart::Always => "always",
        Restart::UnlessStopped => "unless-stopped",
    }
}

fn is_ancestor(engine: &Engine, record: &Record, wanted: &str) -> bool {
    let Some(image) = &record.image else { return false };
    let by_pattern = |name: &str| pattern(wanted).is_ok_and(|p| p.is_match(name));
    let untagged = image.name.strip_suffix(":latest");
    image.id.contains(wanted.trim_start_matches("sha256:"))
        || by_pattern(&image.name)
        || untagged.is_some_and(by_pattern)
        || engine.local_image(wanted).is_ok_and(|found| found.is_some_and(|f| f.image.id == image.id))
}

fn has_volume(record: &Record, wanted: &str) -> bool {
    let (source, target) = wanted.split_once(':').map_or((wanted, None), |(s, t)| (s, Some(t)));
    let fits = |from: &str, to: &str| match target {
        Some(target) => from == source && to == target,
        None => from == source || to == source,
    };
    record.volumes.iter().any(|v| fits(&v.name, &v.target))
        || record.spec.files.mounts.iter().any(|m| fits(&m.source, &m.target))
}

fn is_in_pod(engine: &Engine, record: &Record, wanted: &str) -> bool {
    let Some(id) = &record.spec.pod else { return false };
    is_id(id, wanted)
        || Pod::of(&engine.dirs, record)
            .is_ok_and(|pod| pod.is_some_and(|pod| pattern(wanted).is_ok_and(|p| p.is_match(&pod.name))))
}

fn has_network(engine: &Engine, record: &Record, wanted: &str) -> bool {
    let mode = record.spec.network.mode.as_deref().unwrap_or("pasta");
    match (mode.parse::<Mode>(), wanted.strip_prefix("container:")) {
        (Ok(Mode::Container(own)), Some(other)) => {
            let id = |name: &str| engine.find(name).map(|r| r.id).ok();
            id(&own).is_some_and(|own| Some(own) == id(other))
        }
        _ => mode.split(':').next() == Some(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::is_id;

    #[test]
    fn ids() {
        let id = "0a1b";
        for yes in ["0", "0A", "^0a", "0a1b", "[0-9]", "^[^1]"] {
            assert!(is_id(id, yes), "{yes}");
        }
        for no in ["a", "^1", "[^0-9a-f]"] {
            assert!(!is_id(id, no), "{no}");
        }
    }
}
