//! `history`

use serde_json::{Value, json};
use unroot_engine::Engine;
use unroot_monitor::log::{format_nanos, now, parse_time};
use unroot_store::Image;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output::{ago, formatted, human, line};
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["history", "image history"],
    usage: "[options] IMAGE",
    about: "Show how an image came about",
    flags: || {
        vec![
            flag("format", ' ', Kind::Value, "json, or a Go template"),
            flag("human", 'H', Kind::Bool, "Times and sizes as people read them (default true)"),
            flag("no-trunc", ' ', Kind::Bool, "All of ids and commands"),
            flag("quiet", 'q', Kind::Bool, "Ids alone"),
        ]
    },
    interspersed: true,
    count: (1, 1),
    run,
};

const HEADINGS: [(&str, &str); 9] = [
    ("ID", "ID"),
    ("Created", "CREATED"),
    ("CreatedSince", "CREATED SINCE"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
    ("Tags", "TAGS"),
    ("Human", "HUMAN"),
];

/// A step of an image's making.
struct Step {
    id: String,
    created: i64,
    by: String,
    size: u64,
    comment: String,
    tags: Vec<String>,
}

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let image = engine.image(&args.rest[0])?.image;
    let steps = steps(&engine, &image)?;
    if args.value("format").is_some_and(|f| f.trim() == "json") {
        let all: Vec<Value> = steps.iter().map(as_json).collect();
        line(serde_json::to_string(&all).map_err(CliError::new)?);
        return Ok(0);
    }
    let rows: Vec<Value> = steps.iter().map(|step| shown(step, args)).collect();
    if args.is("quiet") {
        rows.iter().for_each(|row| line(row["ID"].as_str().unwrap_or_default()));
        return Ok(0);
    }
    let default = "table {{.ID}}\t{{.Created}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
    formatted(args.value("format").unwrap_or(default), &rows, &HEADINGS, false)?;
    Ok(0)
}

/// The last one first. Only the image itself has an id: what it was made of is not known by any.
fn steps(engine: &Engine, image: &Image) -> Result<Vec<Step>, CliError> {
    let mut layers = image.layers.iter();
    let mut steps = Vec::new();
    let none = unroot_store::History::default();
    // (an image without a history still has layers)
    let missing = if image.config.history.is_empty() { image.layers.len() } else { 0 };
    for entry in image.config.history.iter().chain(std::iter::repeat_n(&none, missing)) {
        let layer = if entry.empty_layer { None } else { layers.next() };
        steps.push(Step {
            id: "<missing>".into(),
            created: entry.created.as_deref().and_then(parse_time).unwrap_or(0),
            by: entry.created_by.clone().unwrap_or_default(),
            size: layer.and_then(|d| engine.store.layer(d)).map_or(0, |l| l.size),
            comment: entry.comment.clone().unwrap_or_default(),
            tags: Vec::new(),
        });
    }
    steps.reverse();
    if let Some(last) = steps.first_mut() {
        last.id.clone_from(&image.id);
        last.tags = engine.names_of(&image.id);
    }
    Ok(steps)
}

fn as_json(step: &Step) -> Value {
    json!({
        "id": step.id,
        "created": seconds(step.created, "Z"),
        "CreatedBy": step.by,
        "size": step.size,
        "comment": step.comment,
        "tags": step.tags,
    })
}

/// `2024-10-11T12:00:00Z`
fn seconds(nanos: i64, zone: &str) -> String {
    format!("{}{zone}", &format_nanos(nanos)[..19])
}

fn shown(step: &Step, args: &Args) -> Value {
    let whole = args.is("no-trunc");
    let id = if !whole && step.id.len() >= 12 { &step.id[..12] } else { &step.id };
    let id = if step.id == "<missing>" { &step.id } else { id };
    let by = match !whole && step.by.len() > 45 {
        true => format!("{}...", step.by.chars().take(42).collect::<String>()),
        false => step.by.clone(),
    };
    let since = format!("{} ago", ago((now() - step.created) / 1_000_000_000));
    let at = seconds(step.created, "Z");
    let created = if args.given_bool("human").unwrap_or(true) { &since } else { &at };
    json!({
        "ID": id, "Created": created, "CreatedSince": created, "CreatedAt": at, "CreatedBy": by,
        "Size": human(step.size, 3), "Comment": step.comment, "Tags": step.tags,
    })
}
