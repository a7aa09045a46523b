//! `images`

use serde_json::{Value, json};

use crate::Global;
use crate::cli::{Args, Kind, Outcome, flag};
use crate::output::{self, ago, formatted};
use crate::verbs::Verb;
use crate::view::repository;

pub const VERB: Verb = Verb {
    names: &["images", "image ls", "image list"],
    usage: "[options] [IMAGE]",
    about: "List images",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "Those without a name that others are made of, too"),
            flag("digests", ' ', Kind::Bool, "Show digests"),
            flag(
                "filter",
                'f',
                Kind::Repeat,
                "Those for which this holds: reference=, id=, dangling=, label=",
            ),
            flag("format", ' ', Kind::Value, "json, or a Go template"),
            flag("no-trunc", ' ', Kind::Bool, "Whole ids"),
            flag("noheading", 'n', Kind::Bool, "No headings"),
            flag("quiet", 'q', Kind::Bool, "Ids alone"),
            flag("sort", ' ', Kind::Value, "By: created, id, repository, size, tag"),
        ]
    },
    interspersed: true,
    count: (0, 1),
    run,
};

const HEADINGS: [(&str, &str); 8] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("Created", "CREATED"),
    ("Size", "SIZE"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED"),
];

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let names = engine.store.names();
    let only = match args.rest.first() {
        Some(word) => match engine.local_image(word)? {
            Some(named) => Some(named.image.id),
            None => Some(format!("none is {word}")),
        },
        None => None,
    };
    let mut rows: Vec<Value> = Vec::new();
    for image in engine.store.images().map_err(crate::cli::CliError::new)? {
        if only.as_ref().is_some_and(|id| *id != image.id) {
            continue;
        }
        let own: Vec<&String> = names.iter().filter(|(_, id)| *id == image.id).map(|(n, _)| n).collect();
        let created = image.config.created.as_deref().and_then(unroot_monitor::log::parse_time).unwrap_or(0);
        let age = format!("{} ago", ago((unroot_monitor::log::now() - created) / 1_000_000_000));
        let shown: Vec<(String, String)> = if own.is_empty() {
            vec![("<none>".into(), "<none>".into())]
        } else {
            own.iter().map(|n| repository(n)).collect()
        };
        for (repository, tag) in shown {
            if !holds(args, &image, &format!("{repository}:{tag}"))? {
                continue;
            }
            rows.push(json!({
                "Repository": repository, "Tag": tag,
                "ID": if args.is("no-trunc") { format!("sha256:{}", image.id) } else { image.id[..12].to_string() },
                "Id": image.id, "Digest": image.digest, "Created": age, "CreatedSince": age, "CreatedAt": image.config.created, "CreatedTime": created,
                "Size": output::size(image.size), "VirtualSize": image.size, "Bytes": image.size, "Names": own, "Labels": image.config.config.labels,
                "Containers": 0, "ReadOnly": false, "Dangling": own.is_empty(), "History": own,
            }));
        }
    }
    match args.value("sort") {
        Some("id") => rows.sort_by_key(|r| r["Id"].to_string()),
        Some("repository") => rows.sort_by_key(|r| r["Repository"].to_string()),
        Some("tag") => rows.sort_by_key(|r| r["Tag"].to_string()),
        Some("size") => rows.sort_by_key(|r| r["Bytes"].as_u64()),
        _ => {}
    }
    if args.is("quiet") {
        let mut seen = Vec::new();
        for row in &rows {
            let id = row["ID"].as_str().unwrap_or_default().to_string();
            if !seen.contains(&id) {
                output::line(&id);
                seen.push(id);
            }
        }
        return Ok(0);
    }
    let default = if args.is("digests") {
        "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.Created}}\t{{.Size}}"
    } else {
        "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.Created}}\t{{.Size}}"
    };
    formatted(args.value("format").unwrap_or(default), &rows, &HEADINGS, args.is("noheading"))?;
    Ok(0)
}

fn holds(args: &Args, image: &unroot_store::Image, name: &str) -> Result<bool, crate::cli::CliError> {
    for filter in args.all("filter") {
        let (key, value) = filter.split_once('=').unwrap_or((filter, ""));
        let ok = match key {
            "reference" => {
                name == value
                    || unroot_engine::plan::glob(value, name)
                    || name.ends_with(&format!("/{value}"))
                    || name
                        .rsplit_once(':')
                        .is_some_and(|(r, _)| r == value || r.ends_with(&format!("/{value}")))
            }
            "id" => image.id.starts_with(value.trim_start_matches("sha256:")),
            "dangling" => (name == "<none>:<none>") == (value != "false"),
            "label" => match value.split_once('=') {
                Some((k, v)) => image.config.config.labels.get(k).is_some_and(|known| known == v),
                None => image.config.config.labels.contains_key(value),
            },
            _ => return Err(crate::cli::CliError::new(format!("unsupported image filter \"{key}\""))),
        };
        if !ok {
            return Ok(false);
        }
    }
    Ok(true)
}
