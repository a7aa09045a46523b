//! What health checks were asked for.

use serde::{Deserialize, Serialize};
use unroot_store::Healthcheck;

/// Reports are beside the container's record.
pub const LOCAL: &str = "local";
/// Reports are events.
pub const EVENTS_LOGGER: &str = "events_logger";

/// Health checks of a container, with those of its image settled.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// `--no-healthcheck`.
    pub disabled: bool,
    /// What is run; none if there is none.
    pub check: Option<Check>,
    /// `--health-startup-cmd`: what is run before.
    pub startup: Option<Startup>,
    /// `--health-on-failure`.
    pub on_failure: OnFailure,
    /// `--health-log-destination`: [`LOCAL`], [`EVENTS_LOGGER`] or a directory.
    pub log_destination: String,
    /// `--health-max-log-count`; 0 is without bound.
    pub max_log_count: u32,
    /// `--health-max-log-size`, letters of output; 0 is without bound.
    pub max_log_size: u64,
    /// Parts that were given without a command, which change the image's.
    pub given: Given,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            disabled: false,
            check: None,
            startup: None,
            on_failure: OnFailure::None,
            log_destination: LOCAL.into(),
            max_log_count: 5,
            max_log_size: 500,
            given: Given::default(),
        }
    }
}

impl Health {
    /// What is run, with the image's where nothing else was asked for; an error if what was asked for needs a check.
    pub fn settle(&mut self, image: Option<&Healthcheck>) -> Result<(), String> {
        if self.check.is_none() && !self.disabled {
            self.check = image.map(Check::of_image).filter(|c| c.command().is_some());
            if let Some(check) = &mut self.check {
                self.given.apply(check);
            }
        }
        if self.disabled {
            self.check = None;
            self.startup = None;
        }
        match (&self.check, &self.startup, self.on_failure) {
            (None, _, action) if action != OnFailure::None => {
                Err(format!("cannot set on-failure action to {} without a health check", action.as_str()))
            }
            (None, Some(_), _) => {
                Err("cannot set a startup healthcheck when there is no regular healthcheck: invalid argument"
                    .into())
            }
            _ => Ok(()),
        }
    }
}

/// A health check. Times are nanoseconds, as in an image's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Check {
    /// `["CMD", "program", ...]`, `["CMD-SHELL", "command"]` or `["NONE"]`.
    pub test: Vec<String>,
    /// From the end of one to the begin of the next; 0 is never.
    pub interval: u64,
    /// It has failed if it takes longer.
    pub timeout: u64,
    /// So long after the start failures do not count.
    pub start_period: u64,
    /// So many failures in a row make it unhealthy.
    pub retries: u32,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            test: Vec::new(),
            interval: 30_000_000_000,
            timeout: 30_000_000_000,
            start_period: 0,
            retries: 3,
        }
    }
}

impl Check {
    fn of_image(image: &Healthcheck) -> Self {
        let or = |value: u64, default: u64| if value == 0 { default } else { value };
        let default = Self::default();
        Self {
            test: image.test.clone(),
            interval: or(image.interval, default.interval),
            timeout: or(image.timeout, default.timeout),
            start_period: image.start_period,
            retries: u32::try_from(or(image.retries, default.retries.into())).unwrap_or(default.retries),
        }
    }

    /// The command to run in the container; none if there is none.
    pub fn command(&self) -> Option<Vec<String>> {
        match &self.test[..] {
            [kind, rest @ ..] if kind == "CMD" && !rest.is_empty() => Some(rest.to_vec()),
            [kind, rest @ ..] if kind == "CMD-SHELL" => Some(vec!["sh".into(), "-c".into(), rest.join(" ")]),
            _ => None,
        }
    }
}

/// A startup check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Startup {
    /// What is run; after `retries` failures, if that is not 0, the container is restarted.
    #[serde(flatten)]
    pub check: Check,
    /// So often it has to pass.
    pub successes: u32,
}

/// Flags that were given, as far as they say something about a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Given {
    /// Nanoseconds.
    pub interval: Option<u64>,
    /// Nanoseconds.
    pub timeout: Option<u64>,
    /// Nanoseconds.
    pub start_period: Option<u64>,
    /// A number.
    pub retries: Option<u32>,
}

impl Given {
    /// Changes what was given.
    pub fn apply(&self, check: &mut Check) {
        check.interval = self.interval.unwrap_or(check.interval);
        check.timeout = self.timeout.unwrap_or(check.timeout);
        check.start_period = self.start_period.unwrap_or(check.start_period);
        check.retries = self.retries.unwrap_or(check.retries);
    }
}

/// What happens to a container that has become unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Nothing.
    #[default]
    None,
    /// SIGKILL; its restart policy decides what follows.
    Kill,
    /// It is restarted.
    Restart,
    /// It is stopped.
    Stop,
}

impl OnFailure {
    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Stop => "stop",
        }
    }
}

impl std::str::FromStr for OnFailure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::None, Self::Kill, Self::Restart, Self::Stop];
        all.into_iter().find(|action| action.as_str() == text).ok_or_else(|| {
            format!("invalid on-failure action {text:?} for health check: supported actions are none,kill,restart,stop")
        })
    }
}

/// The test of a command line: a command for the shell, or a JSON list of a program and its arguments.
pub fn test_of(text: &str) -> Result<Vec<String>, String> {
    let list: Option<Vec<String>> = serde_json::from_str(text).ok();
    let words: Vec<String> = match &list {
        Some(list) => list.clone(),
        None => text.split(' ').map(str::to_string).collect(),
    };
    let first = words.first().map(|w| w.to_ascii_uppercase()).unwrap_or_default();
    Ok(match first.as_str() {
        "" if text.trim().is_empty() || list.is_some() => {
            return Err("must define a healthcheck command for all healthchecks".into());
        }
        "NONE" => vec!["NONE".into()],
        "CMD" | "CMD-SHELL" => match list {
            Some(list) => list,
            None if first == "CMD" => text.split_whitespace().map(str::to_string).collect(),
            None => vec![first.clone(), text.split_once(' ').map_or("", |(_, rest)| rest).into()],
        },
        _ => match list {
            Some(list) if list.len() > 1 => [vec!["CMD".to_string()], list].concat(),
            Some(list) => vec!["CMD-SHELL".into(), list[0].clone()],
            None => vec!["CMD-SHELL".into(), text.into()],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests() {
        for (text, test) in [
            ("curl -f http://localhost", "CMD-SHELL|curl -f http://localhost"),
            ("CMD-SHELL exit 1 || true", "CMD-SHELL|exit 1 || true"),
            ("CMD /bin/check x", "CMD|/bin/check|x"),
            ("[\"/bin/check\",\"a b\"]", "CMD|/bin/check|a b"),
            ("[\"CMD\",\"/bin/check\"]", "CMD|/bin/check"),
            ("[\"true\"]", "CMD-SHELL|true"),
            ("none", "NONE"),
        ] {
            assert_eq!(test_of(text).unwrap().join("|"), test, "{text}");
        }
        assert!(test_of("").is_err() && test_of("[]").is_err());
    }
}
