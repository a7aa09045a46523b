//! `stats`

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use unroot_engine::identity::HostNames;
use unroot_engine::stats::Stats;
use unroot_engine::{Engine, Record, State};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output::{self, formatted, human};
use crate::selection::{LATEST, several};
use crate::verbs::{ANY, Verb};
use crate::view;

pub const VERB: Verb = Verb {
    names: &["stats", "container stats"],
    usage: "[options] [CONTAINER...]",
    about: "Show what containers use, again and again",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "Those that do not run, too"),
            flag("format", ' ', Kind::Value, "json, or a Go template"),
            flag("interval", 'i', Kind::Value, "Seconds from one time to the next (default 5)"),
            flag("no-reset", ' ', Kind::Bool, "Each time below the last one"),
            flag("no-stream", ' ', Kind::Bool, "Once"),
            flag("no-trunc", ' ', Kind::Bool, "Whole ids"),
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run,
};

const HEADINGS: [(&str, &str); 18] = [
    ("ID", "ID"),
    ("ContainerID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("AVGCPU", "AVG CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemUsageBytes", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET IO"),
    ("BlockIO", "BLOCK IO"),
    ("PIDS", "PIDS"),
    ("PIDs", "PIDS"),
    ("UpTime", "CPU TIME"),
    ("CPU", "CPU %"),
    ("HostUser", "HOST USER"),
    ("HostUid", "HOST UID"),
    ("User", "USER"),
    ("IDMap", "ID MAP"),
];

const TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDS}}\t{{.UpTime}}\t{{.AVGCPU}}";

fn run(global: &Global, args: &Args) -> Outcome {
    if args.is("all") && (!args.rest.is_empty() || args.is("latest")) {
        return Err(CliError::new("--all, --latest and containers cannot be used together"));
    }
    let seconds: u64 = args.number("interval")?.unwrap_or(5);
    if seconds == 0 {
        return Err(CliError::new("invalid interval, must be a positive number greater zero"));
    }
    let engine = global.engine()?;
    let named = !args.rest.is_empty() || args.is("latest");
    let mut before: HashMap<String, Stats> = HashMap::new();
    let tells_identity = args
        .value("format")
        .is_some_and(|f| f.contains("json") || view::IDENTITY.iter().any(|column| f.contains(column)));
    let mut names = HostNames::default();
    let mut first = true;
    loop {
        let mut rows = Vec::new();
        for record in chosen(&engine, args, named)? {
            let stats = engine.stats(&record);
            // (of all that run, one may just have ended, or have no group: the others are shown)
            let Some(now) = (if named { stats? } else { stats.unwrap_or_default() }) else {
                if named && first {
                    return Err(CliError::new(format!(
                        "container {} is not running: container state improper",
                        record.id
                    )));
                }
                if args.is("all") {
                    rows.push(row(&record, &Stats::default(), None, args.is("no-trunc")));
                }
                continue;
            };
            let mut shown = row(&record, &now, before.get(&record.id), args.is("no-trunc"));
            if tells_identity {
                let seen = engine.identity(&State::observe(&engine.dirs, &record.id)?);
                view::add_identity(&mut shown, seen, &mut names);
            }
            rows.push(shown);
            before.insert(record.id.clone(), now);
        }
        if !args.is("no-stream") && !args.is("no-reset") {
            output::raw(b"\x1b[H\x1b[2J");
        }
        show(args, rows)?;
        if args.is("no-stream") {
            return Ok(0);
        }
        first = false;
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

fn chosen(engine: &Engine, args: &Args, named: bool) -> Result<Vec<Record>, CliError> {
    if named {
        return several(engine, args)?.into_iter().map(|c| c.map(|(_, record)| record)).collect();
    }
    let mut all = engine.containers()?;
    if !args.is("all") {
        all.retain(|r| State::observe(&engine.dirs, &r.id).is_ok_and(|s| s.is_live()));
    }
    Ok(all)
}

fn show(args: &Args, rows: Vec<Value>) -> Result<(), CliError> {
    match args.value("format").map(str::trim) {
        Some("json") => {
            let brief = |row: &Value| {
                json!({
                    "id": row["ID"], "name": row["Name"], "cpu_time": row["UpTime"],
                    "cpu_percent": row["CPUPerc"], "avg_cpu": row["AVGCPU"], "mem_usage": row["MemUsage"],
                    "mem_percent": row["MemPerc"], "net_io": row["NetIO"], "block_io": row["BlockIO"],
                    "pids": row["PIDS"], "host_user": row["HostUser"], "id_map": row["IDMap"],
                })
            };
            let all: Vec<Value> = rows.iter().map(brief).collect();
            output::line(serde_json::to_string_pretty(&all).unwrap_or_default());
            Ok(())
        }
        format => formatted(format.unwrap_or(TABLE), &rows, &HEADINGS, false),
    }
}

/// A row of the table, as templates have it.
pub fn row(record: &Record, now: &Stats, before: Option<&Stats>, whole: bool) -> Value {
    let percent = |value: f64| format!("{value:.2}%");
    let pair = |(a, b): (u64, u64)| format!("{} / {}", human(a, 4), human(b, 4));
    let binary = |bytes: u64| {
        let (mut value, mut n) = (bytes as f64, 0);
        while value >= 1024.0 && n < 5 {
            (value, n) = (value / 1024.0, n + 1);
        }
        let text = format!("{value:.2}");
        format!(
            "{}{}",
            text.trim_end_matches('0').trim_end_matches('.'),
            ["B", "KiB", "MiB", "GiB", "TiB", "PiB"][n]
        )
    };
    json!({
        "ID": if whole { &record.id } else { record.short_id() },
        "ContainerID": record.id,
        "Name": record.name,
        "CPU": now.cpu_percent(before),
        "CPUPerc": percent(now.cpu_percent(before)),
        "AvgCPU": now.cpu_percent(None),
        "AVGCPU": percent(now.cpu_percent(None)),
        "CPUNano": now.cpu,
        "CPUSystemNano": now.system,
        "SystemNano": now.time,
        "MemUsage": pair((now.memory, now.memory_limit)),
        "MemUsageBytes": format!("{} / {}", binary(now.memory), binary(now.memory_limit)),
        "MemLimit": now.memory_limit,
        "MemPerc": percent(now.memory_percent()),
        "NetIO": pair(now.network),
        "NetInput": now.network.0,
        "NetOutput": now.network.1,
        "BlockIO": pair(now.block),
        "BlockInput": now.block.0,
        "BlockOutput": now.block.1,
        "PIDS": now.pids.to_string(),
        "PIDs": now.pids,
        "UpTime": go_duration(now.cpu),
        "Duration": now.cpu,
    })
}

/// As Go prints a duration: `7.704ms`, `1m2.5s`.
fn go_duration(nanos: u64) -> String {
    let decimal = |value: f64, digits: usize| {
        let text = format!("{value:.digits$}");
        match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
            false => text,
        }
    };
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos as f64 / 1e3, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos as f64 / 1e6, 6)),
        _ => {
            let seconds = nanos / 1_000_000_000;
            let rest = format!("{}s", decimal((nanos % 60_000_000_000) as f64 / 1e9, 9));
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => rest,
                (0, minutes) => format!("{minutes}m{rest}"),
                (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::go_duration;

    #[test]
    fn durations() {
        for (nanos, text) in [
            (0, "0s"),
            (999, "999ns"),
            (7_704_000, "7.704ms"),
            (1_500_000_000, "1.5s"),
            (62_500_000_000, "1m2.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(nanos), text);
        }
    }
}
