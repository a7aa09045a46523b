//! `pod ps`

use std::collections::BTreeMap;

use serde_json::{Value, json};
use unroot_engine::pod::{self, Member, PodStatus};
use unroot_engine::{Engine, Pod};
use unroot_monitor::log::{format_nanos, now};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::filters::{is_id, pattern};
use crate::moment::{self, Direction};
use crate::output::{self, ago, formatted};
use crate::verbs::Verb;
use crate::verbs::ps::{NAMESPACES, networks};

use super::LATEST;
use super::inspect::cgroup_path;

pub const VERB: Verb = Verb {
    names: &["pod ps", "pod ls", "pod list"],
    usage: "[options]",
    about: "List pods",
    flags: || {
        vec![
            flag("ctr-ids", ' ', Kind::Bool, "Ids of their containers"),
            flag("ctr-names", ' ', Kind::Bool, "Names of their containers"),
            flag("ctr-status", ' ', Kind::Bool, "What their containers are doing"),
            flag(
                "filter",
                'f',
                Kind::Repeat,
                "Those for which this holds: id=, name=, status=, label=, network=, until=, ctr-ids=, ctr-names=, ctr-number=, ctr-status=",
            ),
            flag("format", ' ', Kind::Value, "json, or a Go template"),
            flag("no-trunc", ' ', Kind::Bool, "Whole ids"),
            flag("noheading", 'n', Kind::Bool, "No headings"),
            flag("ns", ' ', Kind::Bool, "Their control group and namespaces"),
            flag("quiet", 'q', Kind::Bool, "Ids alone"),
            flag("sort", ' ', Kind::Value, "By: created, id, name, number, status"),
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, 0),
    run,
};

const HEADINGS: [(&str, &str); 18] = [
    ("Id", "POD ID"),
    ("ID", "POD ID"),
    ("Name", "NAME"),
    ("Status", "STATUS"),
    ("Labels", "LABELS"),
    ("NumberOfContainers", "# OF CONTAINERS"),
    ("Created", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("InfraID", "INFRA ID"),
    ("InfraId", "INFRA ID"),
    ("ContainerIds", "IDS"),
    ("ContainerNames", "NAMES"),
    ("ContainerStatuses", "STATUS"),
    ("Cgroup", "CGROUP"),
    ("Namespace", "NAMESPACES"),
    ("Networks", "NETWORKS"),
    ("Restarts", "RESTARTS"),
    ("Containers", "CONTAINERS"),
];

/// A pod with its containers.
struct Row {
    pod: Pod,
    members: Vec<Member>,
}

impl Row {
    fn status(&self) -> &'static str {
        PodStatus::of(&self.members.iter().map(|(_, state)| state.status).collect::<Vec<_>>()).as_str()
    }
}

fn run(global: &Global, args: &Args) -> Outcome {
    if args.is("quiet") && args.value("format").is_some() {
        return Err(CliError::new("quiet and format cannot be used together"));
    }
    let engine = global.engine()?;
    let filters = Filters::parse(args.all("filter"))?;
    let mut rows = Vec::new();
    for pod in if args.is("latest") { vec![pod::latest(&engine.dirs)?] } else { pod::all(&engine.dirs)? } {
        let row = Row { members: pod.members(&engine.dirs)?, pod };
        if filters.hold(&row) {
            rows.push(row);
        }
    }
    sort(&mut rows, args.value("sort").unwrap_or("created"))?;
    show(&engine, args, &rows)?;
    Ok(0)
}

fn sort(rows: &mut [Row], by: &str) -> Result<(), CliError> {
    match by {
        "created" => rows.sort_by_key(|r| std::cmp::Reverse(r.pod.created)),
        "id" => rows.sort_by(|a, b| a.pod.id.cmp(&b.pod.id)),
        "name" => rows.sort_by(|a, b| a.pod.name.cmp(&b.pod.name)),
        "number" => rows.sort_by_key(|r| r.members.len()),
        "status" => rows.sort_by_key(Row::status),
        _ => {
            return Err(CliError::new(
                "invalid option for --sort, options are: created, id, name, number, or status",
            ));
        }
    }
    Ok(())
}

fn show(engine: &Engine, args: &Args, rows: &[Row]) -> Result<(), CliError> {
    let whole = args.is("no-trunc");
    if args.is("quiet") {
        rows.iter().for_each(|r| output::line(if whole { &r.pod.id } else { r.pod.short_id() }));
        return Ok(());
    }
    if args.value("format").map(str::trim) == Some("json") {
        let all = rows.iter().map(|row| listed(engine, row)).collect::<Result<Vec<_>, _>>()?;
        output::line(serde_json::to_string_pretty(&all).map_err(CliError::new)?);
        return Ok(());
    }
    let mut columns = vec!["Id", "Name", "Status", "Created", "InfraID"];
    let details =
        [("ctr-ids", "ContainerIds"), ("ctr-names", "ContainerNames"), ("ctr-status", "ContainerStatuses")];
    let wanted: Vec<&str> =
        details.iter().filter(|(flag, _)| args.is(flag)).map(|(_, column)| *column).collect();
    columns.extend(&wanted);
    columns.extend(args.is("ns").then_some(["Cgroup", "Namespace"]).into_iter().flatten());
    columns.extend(wanted.is_empty().then_some("NumberOfContainers"));
    let table: Vec<String> = columns.iter().map(|c| format!("{{{{.{c}}}}}")).collect();
    let table = format!("table {}", table.join("\t"));
    let shown = rows.iter().map(|row| templated(engine, row, whole)).collect::<Result<Vec<_>, _>>()?;
    formatted(args.value("format").unwrap_or(&table), &shown, &HEADINGS, args.is("noheading"))
}

/// As JSON has it.
fn listed(engine: &Engine, row: &Row) -> Result<Value, CliError> {
    let Row { pod, members } = row;
    let containers: Vec<Value> = members
        .iter()
        .map(|(record, state)| {
            json!({
                "Id": record.id, "Names": record.name, "Status": state.status.as_str(),
                "RestartCount": restarts(state),
            })
        })
        .collect();
    let infra = members.iter().find(|(record, _)| record.spec.infra);
    Ok(json!({
        "Cgroup": cgroup_path(engine, pod)?,
        "Containers": containers,
        "Created": format_nanos(pod.created),
        "Id": pod.id,
        "InfraId": pod.infra.clone().unwrap_or_default(),
        "Name": pod.name,
        "Namespace": infra.and_then(|(_, state)| namespaces(state)).unwrap_or_default(),
        "Networks": infra.map(|(record, _)| networks(record)).unwrap_or_default(),
        "Status": row.status(),
        "Labels": pod.spec.labels,
    }))
}

/// As templates and tables have it.
fn templated(engine: &Engine, row: &Row, whole: bool) -> Result<Value, CliError> {
    let Row { pod, members } = row;
    let mut shown = listed(engine, row)?;
    let short = |id: &str| if whole { id.to_string() } else { id.chars().take(12).collect() };
    let joined = |one: &dyn Fn(&Member) -> String| members.iter().map(one).collect::<Vec<_>>().join(",");
    let infra = short(pod.infra.as_deref().unwrap_or_default());
    let networks = shown["Networks"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let texts = [
        ("Networks", networks.collect::<Vec<_>>().join(",")),
        ("Id", short(&pod.id)),
        ("ID", short(&pod.id)),
        ("InfraID", infra.clone()),
        ("InfraId", infra),
        ("Created", format!("{} ago", ago((now() - pod.created) / 1_000_000_000))),
        ("CreatedAt", format_nanos(pod.created)),
        ("NumberOfContainers", members.len().to_string()),
        ("ContainerIds", joined(&|(record, _)| short(&record.id))),
        ("ContainerNames", joined(&|(record, _)| record.name.clone())),
        ("ContainerStatuses", joined(&|(_, state)| state.status.as_str().to_string())),
        ("Restarts", members.iter().map(|(_, state)| restarts(state)).sum::<u32>().to_string()),
    ];
    for (name, value) in texts {
        shown[name] = value.into();
    }
    Ok(shown)
}

fn restarts(state: &unroot_engine::State) -> u32 {
    state.run.as_ref().map(|r| r.restarts).or(state.exit.as_ref().map(|e| e.restarts)).unwrap_or(0)
}

/// Numbers of the infra container's namespaces, while it runs.
fn namespaces(state: &unroot_engine::State) -> Option<String> {
    let process = state.process()?;
    let one = |(_, file): &(&str, &str)| {
        let link = std::fs::read_link(format!("/proc/{}/ns/{file}", process.pid)).ok()?;
        Some(link.to_string_lossy().into_owned())
    };
    Some(NAMESPACES.iter().filter_map(one).collect::<Vec<_>>().join(","))
}

/// `--filter KEY=VALUE`: of one key any value does, of labels all have to hold.
struct Filters {
    keys: BTreeMap<String, Vec<String>>,
    until: Option<i64>,
}

const STATUS: [&str; 7] = ["stopped", "running", "paused", "exited", "dead", "created", "degraded"];
const CONTAINER_STATUS: [&str; 6] = ["created", "running", "paused", "stopped", "exited", "unknown"];

impl Filters {
    fn parse(given: &[String]) -> Result<Self, CliError> {
        let mut filters = Self { keys: BTreeMap::new(), until: None };
        for text in given {
            let (key, value) = match (text.strip_prefix("label!="), text.split_once('=')) {
                (Some(value), _) => ("label!", value),
                (_, Some(pair)) => pair,
                _ => {
                    return Err(CliError::new(format!(
                        "filter input must be in the form of filter=value: {text} is invalid"
                    )));
                }
            };
            filters.check(key, value)?;
            filters.keys.entry(key.to_string()).or_default().push(value.to_string());
        }
        Ok(filters)
    }

    fn check(&mut self, key: &str, value: &str) -> Result<(), CliError> {
        match key {
            "label" | "label!" | "network" => {}
            "id" | "ctr-ids" | "name" | "ctr-names" => drop(pattern(value)?),
            "ctr-number" => {
                value.parse::<usize>().map_err(|_| {
                    CliError::new(format!("filter ctr-number={value}: {value:?} is no number"))
                })?;
            }
            "status" if !STATUS.contains(&value) => {
                return Err(CliError::new(format!("{value} is not a valid pod status")));
            }
            "ctr-status" if !CONTAINER_STATUS.contains(&value) => {
                return Err(CliError::new(format!("{value} is not a valid status")));
            }
            "status" | "ctr-status" => {}
            "until" => {
                let time = moment::parse(value, Direction::Past).ok_or_else(|| {
                    CliError::new(format!("until filter {value:?}: neither a time nor a duration"))
                })?;
                self.until = Some(time);
            }
            other => return Err(CliError::new(format!("{other} is an invalid filter"))),
        }
        Ok(())
    }

    fn hold(&self, row: &Row) -> bool {
        self.keys.iter().all(|(key, values)| self.holds(row, key, values))
    }

    fn holds(&self, row: &Row, key: &str, values: &[String]) -> bool {
        let any = |test: &dyn Fn(&str) -> bool| values.iter().any(|v| test(v));
        let label = |wanted: &String| match wanted.split_once('=') {
            Some((name, value)) => row.pod.spec.labels.get(name).is_some_and(|v| v == value),
            None => row.pod.spec.labels.contains_key(wanted),
        };
        let fits = |wanted: &str, text: &str| pattern(wanted).is_ok_and(|p| p.is_match(text));
        let members = || row.members.iter();
        match key {
            "id" => any(&|v| is_id(&row.pod.id, v)),
            "name" => any(&|v| fits(v, &row.pod.name)),
            "status" => any(&|v| row.status().eq_ignore_ascii_case(v)),
            "label" => values.iter().all(label),
            "label!" => !values.iter().all(label),
            "until" => self.until.is_some_and(|time| row.pod.created < time),
            "network" => any(&|v| members().any(|(r, _)| r.spec.infra && networks(r).iter().any(|n| n == v))),
            "ctr-ids" => any(&|v| members().any(|(record, _)| is_id(&record.id, v))),
            "ctr-names" => any(&|v| members().any(|(record, _)| fits(v, &record.name))),
            "ctr-number" => any(&|v| v.parse() == Ok(row.members.len())),
            "ctr-status" => any(&|v| {
                let wanted = if v == "stopped" { "exited" } else { v };
                members().any(|(_, state)| state.status.as_str() == wanted)
            }),
            _ => false,
        }
    }
}
