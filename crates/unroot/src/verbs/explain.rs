//! `explain`: who is root in a container or process, of whatever engine, and what a break-out would get.

use std::io::IsTerminal as _;

use unroot_engine::{Engine, Pod, Record, State};
use unroot_explain::say::Language;
use unroot_explain::text::Style;
use unroot_explain::{Facts, Host, Report, judge};

use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::selection::LATEST;
use crate::verbs::{ANY, Verb};
use crate::{Global, output};

pub const VERB: Verb = Verb {
    names: &["explain"],
    usage: "[options] CONTAINER|PID... | [docker|podman] run ...",
    about: "Tell who is root in a container or process, and what a break-out would get",
    flags: || {
        vec![
            LATEST,
            flag("evidence", 'e', Kind::Bool, "Show what was read, and where"),
            flag("format", 'f', Kind::Value, "json, or a Go template"),
            flag("html", ' ', Kind::Value, "Write a page of its own to this file"),
        ]
    },
    interspersed: false,
    count: (0, ANY),
    run: |global, args| -> Outcome {
        let host = Host::read();
        let mut reports = Vec::new();
        if let Some(facts) = crate::planned::facts(global, &args.rest)? {
            reports.push((args.rest.join(" "), judge(facts, &host)));
        }
        for (title, pid) in if reports.is_empty() { targets(global, args)? } else { Vec::new() } {
            let facts = Facts::of(pid).map_err(|e| {
                CliError::new(match e.raw_os_error() {
                    Some(3) => format!("no container and no process is called {title}"),
                    _ => format!("read /proc/{pid}: {e}"),
                })
            })?;
            reports.push((title, judge(facts, &host)));
        }
        if let Some(path) = args.value("html") {
            let page = unroot_explain::html::page(&reports, &host, Language::of_environment());
            std::fs::write(path, page).map_err(|e| CliError::new(format!("write {path}: {e}")))?;
        }
        match args.value("format") {
            None if args.value("html").is_some() => {}
            None => show(&reports, &host, args),
            Some("json") => {
                let all: Vec<_> =
                    reports.iter().map(|(title, report)| json(title, report)).collect::<Result<_, _>>()?;
                output::line(serde_json::to_string_pretty(&all).map_err(CliError::new)?);
            }
            Some(template) => {
                for (title, report) in &reports {
                    output::line(
                        crate::template::render(template, &json(title, report)?).map_err(CliError::new)?,
                    );
                }
            }
        }
        Ok(0)
    },
};

fn json(title: &str, report: &Report) -> Result<serde_json::Value, CliError> {
    let mut value = serde_json::to_value(report).map_err(CliError::new)?;
    value["target"] = title.into();
    Ok(value)
}

fn show(reports: &[(String, Report)], host: &Host, args: &Args) {
    let style = Style {
        colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        language: Language::of_environment(),
        evidence: args.is("evidence"),
    };
    for (n, (title, report)) in reports.iter().enumerate() {
        if n > 0 {
            output::line("");
        }
        output::raw(unroot_explain::text::text(report, title, host, style).as_bytes());
    }
}

/// Which pod a container is in, and whom it shares namespaces with there.
fn in_pod(engine: &Engine, record: &Record) -> Result<String, CliError> {
    let Some(pod) = Pod::of(&engine.dirs, record)? else { return Ok(String::new()) };
    let members = pod.members(&engine.dirs)?;
    let others = members.iter().filter(|(r, state)| r.id != record.id && state.is_live());
    let others: Vec<&str> = others.map(|(r, _)| r.name.as_str()).collect();
    Ok(match (others.is_empty(), pod.spec.share.is_empty()) {
        (false, false) => {
            format!(", in pod {}: shares {} with {}", pod.name, pod.spec.share.join(", "), others.join(", "))
        }
        _ => format!(", in pod {}", pod.name),
    })
}

/// What each argument names, and the process that is looked at: a container of ours by name or id, else a pid.
fn targets(global: &Global, args: &Args) -> Result<Vec<(String, u32)>, CliError> {
    let engine = global.engine()?;
    let of = |record: &Record| -> Result<(String, u32), CliError> {
        let state = State::observe(&engine.dirs, &record.id)?;
        let process = state.process().ok_or_else(|| {
            CliError::new(format!("container {} is not running: there is no process to explain", record.name))
                .with_hint(format!("{} start {}", unroot_engine::program(), record.name))
        })?;
        Ok((record.name.clone() + &in_pod(&engine, record)?, process.pid))
    };
    if args.is("latest") {
        if !args.rest.is_empty() {
            return Err(CliError::new("--latest and containers cannot be used together"));
        }
        return Ok(vec![of(&unroot_engine::record::latest(&engine.dirs)?)?]);
    }
    if args.rest.is_empty() {
        return Err(CliError::new("you must provide at least one name, id or pid"));
    }
    let named = |word: &String| match (engine.find(word), word.parse::<u32>()) {
        (Ok(record), _) => of(&record),
        (Err(_), Ok(pid)) => Ok((word.clone(), pid)),
        (Err(error), Err(_)) => Err(error.into()),
    };
    args.rest.iter().map(named).collect()
}
