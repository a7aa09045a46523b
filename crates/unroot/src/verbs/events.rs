//! `events`

use std::time::Duration;

use serde_json::{Value, json};
use unroot_engine::events::{Event, Follower};
use unroot_monitor::log::{format_nanos, now};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::moment::{Direction, parse};
use crate::output::line;
use crate::template::render;
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["events", "system events"],
    usage: "[options]",
    about: "Show what happened to containers, images and volumes, and who did it",
    flags: || {
        vec![
            flag(
                "filter",
                'f',
                Kind::Repeat,
                "Those for which this holds: container=, event=, image=, label=, type=, volume=, ...",
            ),
            flag("format", ' ', Kind::Value, "json, or a Go template"),
            flag("no-trunc", ' ', Kind::Bool, "Whole ids (default true)"),
            flag("since", ' ', Kind::Value, "From this time on: a date, seconds since 1970, or so long ago"),
            flag("stream", ' ', Kind::Bool, "Go on as more happens (default true)"),
            flag("until", ' ', Kind::Value, "Until this time"),
        ]
    },
    interspersed: true,
    count: (0, 0),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let filters = filters(args.all("filter"))?;
    let moment = |name: &str, direction| match args.value(name) {
        None | Some("") => Ok(None),
        Some(text) => parse(text, direction).map(Some).ok_or_else(|| {
            CliError::new(format!(
                "failed to parse event filters: --{name} \"{text}\": neither a time nor a duration"
            ))
        }),
    };
    let until = moment("until", Direction::Future)?;
    let since = moment("since", Direction::Past)?;
    let Some(path) = engine.dirs.events.path() else {
        return Err(CliError::new("cannot read events with the \"none\" backend"));
    };
    let streams = args.given_bool("stream").unwrap_or(true);
    // (without a beginning only what happens from now on is streamed)
    let since = since.or_else(|| (streams && until.is_none()).then(now));
    let whole = args.given_bool("no-trunc").unwrap_or(true);
    let mut follower = Follower::new(path);
    loop {
        for event in follower.next_events() {
            let at = event.nanos();
            let wanted = since.is_none_or(|s| at >= s) && until.is_none_or(|u| at <= u);
            if wanted && matches(&event, &filters) {
                show(&event, args.value("format"), whole)?;
            }
        }
        let left = until.map(|u| u.saturating_sub(now()));
        if !streams || left.is_some_and(|l| l <= 0) || std::io::Write::flush(&mut std::io::stdout()).is_err()
        {
            return Ok(0);
        }
        let left = left.map(|l| Duration::from_nanos(l.unsigned_abs()));
        follower.wait(left).map_err(|e| CliError::new(format!("events: watch {}: {e}", path.display())))?;
    }
}

/// `KEY=VALUE`, the keys known.
fn filters(texts: &[String]) -> Result<Vec<(String, String)>, CliError> {
    let known = [
        "artifact",
        "container",
        "event",
        "image",
        "label",
        "network",
        "pod",
        "secret",
        "status",
        "type",
        "volume",
    ];
    texts
        .iter()
        .map(|text| {
            let (key, value) = text.split_once('=').ok_or_else(|| {
                CliError::new(format!("failed to parse event filters: {text:?} is an invalid filter"))
            })?;
            let key = key.to_ascii_lowercase();
            if !known.contains(&key.as_str()) {
                return Err(CliError::new(format!(
                    "failed to parse event filters: {key} is an invalid filter"
                )));
            }
            Ok((if key == "status" { "event".into() } else { key }, value.to_string()))
        })
        .collect()
}

/// Of each key any value holds; of labels all do.
fn matches(event: &Event, filters: &[(String, String)]) -> bool {
    filters.iter().all(|(key, value)| {
        if key == "label" {
            return holds(event, key, value);
        }
        filters.iter().any(|(other, value)| other == key && holds(event, key, value))
    })
}

fn holds(event: &Event, key: &str, value: &str) -> bool {
    match key {
        "event" => event.status == if value == "die" { "died" } else { value },
        "type" => event.kind == value,
        "label" => {
            let (name, wanted) = value.split_once('=').map_or((value, None), |(n, v)| (n, Some(v)));
            let found = event.attributes.as_ref().and_then(|a| a.get(name));
            found.is_some_and(|v| wanted.is_none_or(|w| w == v))
        }
        "pod" => {
            (event.kind == "pod" && (event.name == value || event.id.starts_with(value)))
                || (!event.pod.is_empty() && event.pod.starts_with(value))
        }
        "volume" => event.kind == "volume" && event.name.starts_with(value),
        "image" => {
            let same = event.name == value || is_id(event, value);
            (event.kind == "image" && same) || (event.kind == "container" && event.image == value)
        }
        kind => event.kind == kind && (event.name == value || is_id(event, value)),
    }
}

/// It begins the id of the object; a letter or two may be a name as well.
fn is_id(event: &Event, value: &str) -> bool {
    value.len() > 3 && event.id.starts_with(value.trim_start_matches("sha256:"))
}

fn show(event: &Event, format: Option<&str>, whole: bool) -> Result<(), CliError> {
    match format {
        None | Some("") => line(sentence(event, whole)),
        Some("json") => line(serde_json::to_string(&in_json(event)).map_err(CliError::new)?),
        Some(template) => {
            let template = template.replace("\\t", "\t").replace("\\n", "\n");
            if template.trim() == "{{json .}}" {
                line(serde_json::to_string(&in_json(event)).map_err(CliError::new)?);
            } else {
                line(render(&template, &for_templates(event)).map_err(CliError::new)?);
            }
        }
    }
    Ok(())
}

/// `2026-11-24 10:00:00.000000000 +0000 UTC`
fn clock(nanos: i64) -> String {
    let text = format_nanos(nanos);
    format!("{} +0000 UTC", text.trim_end_matches("+00:00").replace('T', " "))
}

/// A line for people.
fn sentence(event: &Event, whole: bool) -> String {
    let id = if whole { &event.id[..] } else { event.id.get(..12).unwrap_or(&event.id) };
    let begin = format!("{} {} {}", clock(event.nanos()), event.kind, event.status);
    match event.kind.as_str() {
        "container" | "pod" => {
            let mut facts = vec![("image", event.image.clone()), ("name", event.name.clone())];
            facts.extend((!event.pod.is_empty()).then(|| ("pod_id", event.pod.clone())));
            if event.status == "health_status" {
                facts.push(("health_status", event.health_status.clone()));
                facts.push(("health_failing_streak", event.failing_streak.to_string()));
                facts.push(("health_log", event.health_log.clone()));
            }
            facts.extend(event.by.as_ref().map(|by| ("by", by.user.clone())));
            let labels = event.attributes.iter().flatten().map(|(k, v)| (k.as_str(), v.clone()));
            let all = facts.iter().map(|(k, v)| (*k, v.clone())).chain(labels);
            let all: Vec<String> = all.map(|(k, v)| format!("{k}={v}")).collect();
            format!("{begin} {id} ({})", all.join(", "))
        }
        "network" if !event.id.is_empty() => {
            format!(
                "{begin} {id} (container={id}, name={})",
                if event.network.is_empty() { &event.name } else { &event.network }
            )
        }
        "secret" => format!("{begin} {id}"),
        "image" => format!("{begin} {id} {} {}", event.name, event.error).trim_end().to_string(),
        _ => format!("{begin} {}", event.name).trim_end().to_string(),
    }
}

/// As Podman's users have it: the time in seconds and in nanoseconds.
fn in_json(event: &Event) -> Value {
    let mut all = serde_json::Map::new();
    let value = serde_json::to_value(event).unwrap_or_default();
    for (key, value) in value.as_object().into_iter().flatten() {
        if key == "Time" {
            all.insert("time".into(), (event.nanos() / 1_000_000_000).into());
            all.insert("timeNano".into(), event.nanos().into());
        } else {
            all.insert(key.clone(), value.clone());
        }
    }
    Value::Object(all)
}

/// Every field, the empty ones, too.
fn for_templates(event: &Event) -> Value {
    json!({
        "ID": event.id, "Image": event.image, "Name": event.name, "Network": event.network, "PodID": event.pod,
        "Status": event.status, "Type": event.kind, "Time": event.nanos() / 1_000_000_000, "TimeNano": event.nanos(),
        "Attributes": event.attributes, "Error": event.error, "HealthStatus": event.health_status,
        "HealthFailingStreak": event.failing_streak, "HealthLog": event.health_log,
        "ContainerExitCode": event.exit_code, "ContainerInspectData": event.inspect_data,
        "Details": {"Attributes": event.attributes, "PodID": event.pod},
        "By": event.by,
    })
}
