//! `pod stats`

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use unroot_engine::pod::PodStatus;
use unroot_engine::stats::Stats;
use unroot_engine::{Engine, Pod};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output::{self, formatted};
use crate::verbs::{ANY, Verb, stats};

use super::{LATEST, several};

pub const VERB: Verb = Verb {
    names: &["pod stats"],
    usage: "[options] [POD...]",
    about: "Show what the containers of pods use, again and again",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All pods, also those that do not run"),
            flag("format", ' ', Kind::Value, "json, or a Go template"),
            flag("no-reset", ' ', Kind::Bool, "Each time below the last one"),
            flag("no-stream", ' ', Kind::Bool, "Once"),
            LATEST,
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run,
};

const HEADINGS: [(&str, &str); 11] = [
    ("Pod", "POD"),
    ("CID", "CID"),
    ("Name", "NAME"),
    ("CPU", "CPU %"),
    ("MemUsage", "MEM USAGE/ LIMIT"),
    ("MemUsageBytes", "MEM USAGE/ LIMIT"),
    ("Mem", "MEM %"),
    ("NetIO", "NET IO"),
    ("BlockIO", "BLOCK IO"),
    ("PIDS", "PIDS"),
    ("ContainerID", "CONTAINER ID"),
];

const TABLE: &str = "table {{.Pod}}\t{{.CID}}\t{{.Name}}\t{{.CPU}}\t{{.MemUsage}}\t{{.Mem}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDS}}";

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let mut before: HashMap<String, Stats> = HashMap::new();
    loop {
        let mut rows = Vec::new();
        for pod in chosen(&engine, args)? {
            for (record, state) in pod.members(&engine.dirs)? {
                // (one may just have ended)
                let Some(now) = state.is_live().then(|| engine.stats(&record)).transpose()?.flatten() else {
                    continue;
                };
                rows.push(of_pod(&pod, &stats::row(&record, &now, before.get(&record.id), false)));
                before.insert(record.id.clone(), now);
            }
        }
        if !args.is("no-stream") && !args.is("no-reset") {
            output::raw(b"\x1b[H\x1b[2J");
        }
        match args.value("format").map(str::trim) {
            Some("json") => output::line(serde_json::to_string_pretty(&rows).map_err(CliError::new)?),
            format => formatted(format.unwrap_or(TABLE), &rows, &HEADINGS, false)?,
        }
        if args.is("no-stream") {
            return Ok(0);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Pods that are named, or all that run.
fn chosen(engine: &Engine, args: &Args) -> Result<Vec<Pod>, CliError> {
    let named = !args.rest.is_empty();
    if args.is("all") && (named || args.is("latest")) || named && args.is("latest") {
        return Err(CliError::new("--all, --latest and arguments cannot be used together"));
    }
    if named || args.is("all") || args.is("latest") {
        return several(engine, args)?
            .into_iter()
            .map(|p| p.map_err(|e| CliError { code: 125, ..e }))
            .collect();
    }
    let mut running = Vec::new();
    for pod in unroot_engine::pod::all(&engine.dirs)? {
        let states: Vec<_> = pod.members(&engine.dirs)?.iter().map(|m| m.1.status).collect();
        if matches!(PodStatus::of(&states), PodStatus::Running | PodStatus::Degraded) {
            running.push(pod);
        }
    }
    Ok(running)
}

fn of_pod(pod: &Pod, row: &Value) -> Value {
    json!({
        "Pod": pod.short_id(),
        "CID": row["ID"],
        "ContainerID": row["ContainerID"],
        "Name": row["Name"],
        "CPU": row["CPUPerc"],
        "MemUsage": row["MemUsage"],
        "MemUsageBytes": row["MemUsageBytes"],
        "Mem": row["MemPerc"],
        "NetIO": row["NetIO"],
        "BlockIO": row["BlockIO"],
        "PIDS": row["PIDS"],
    })
}
