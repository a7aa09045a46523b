//! `images`

use std::collections::HashMap;

use serde_json::{Value, json};
use unroot_engine::Engine;
use unroot_store::Image;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::image_filter::Filters;
use crate::output::{self, ago, formatted};
use crate::verbs::Verb;
use crate::view::{self, repository};

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
                "Those for which this holds: reference=, id=, digest=, dangling=, intermediate=, label=, before=, since=, until=, containers=, manifest=, readonly=",
            ),
            flag("format", ' ', Kind::Value, "json, or a Go template"),
            flag("history", ' ', Kind::Bool, "Show the names that images had"),
            flag("no-trunc", ' ', Kind::Bool, "Whole ids"),
            flag("noheading", 'n', Kind::Bool, "No headings"),
            flag("quiet", 'q', Kind::Bool, "Ids alone"),
            flag("sort", ' ', Kind::Value, "By: created, id, repository, size, tag (default created)"),
        ]
    },
    interspersed: true,
    count: (0, 1),
    run,
};

const HEADINGS: [(&str, &str); 12] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("Id", "ID"),
    ("Created", "CREATED"),
    ("Size", "SIZE"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED SINCE"),
    ("CreatedAt", "CREATED AT"),
    ("History", "HISTORY"),
    ("Containers", "CONTAINERS"),
    ("ReadOnly", "R/O"),
];

/// A row: an image under one of its names.
struct Row<'a> {
    image: &'a Image,
    names: Vec<&'a str>,
    repository: String,
    tag: String,
}

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let mut wanted: Vec<String> = args.all("filter").to_vec();
    if let Some(word) = args.rest.first() {
        if !wanted.is_empty() {
            return Err(CliError::new("cannot specify an image and a filter(s)"));
        }
        wanted.push(format!("reference={word}"));
    }
    let sort = args.value("sort").unwrap_or("created");
    if !["created", "id", "repository", "size", "tag"].contains(&sort) {
        return Err(CliError::new(format!(
            "invalid argument \"{sort}\" for \"--sort\" flag: \"{sort}\" is not a valid value.  Choose from: \"created, id, repository, size, tag\""
        )));
    }
    let filters = Filters::parse(&engine, &wanted)?;
    let mut default = String::from("table {{.Repository}}\t{{.Tag}}");
    default += if args.is("digests") { "\t{{.Digest}}" } else { "" };
    default += "\t{{.ID}}\t{{.Created}}\t{{.Size}}";
    default += if args.is("history") { "\t{{.History}}" } else { "" };
    let format = args.value("format").unwrap_or(&default);
    // (what is not shown is not read)
    let is_plain = args.value("format").is_none() && !filters.need_configuration();
    let names = engine.store.names();
    let (images, broken) = match is_plain {
        true => engine.store.listed_images(),
        false => engine.store.all_images(),
    };
    for (id, why) in broken {
        log::warn!(
            "image {id} is damaged and not shown: {why}: {} system check --repair",
            unroot_engine::program()
        );
    }
    let mut names_of: HashMap<&str, Vec<&str>> = HashMap::new();
    for (name, id) in &names {
        names_of.entry(id).or_default().push(name);
    }
    let mut rows: Vec<Row<'_>> = Vec::new();
    for image in &images {
        let own = names_of.get(image.id.as_str()).map_or(&[][..], Vec::as_slice);
        rows.extend(rows_of(image, own, &filters));
    }
    sorted(&mut rows, sort);
    if args.is("quiet") {
        let mut seen: Vec<&str> = Vec::new();
        for row in rows {
            if !seen.contains(&row.image.id.as_str()) {
                output::line(shown_id(&row.image.id, args.is("no-trunc")));
                seen.push(&row.image.id);
            }
        }
        return Ok(0);
    }
    let as_json = matches!(format.trim(), "json" | "{{json .}}" | "{{ json . }}");
    // (who uses images is only looked for where it is shown)
    let used = if as_json || format.contains("Containers") { users(&engine)? } else { Vec::new() };
    let shown: Vec<Value> = rows
        .iter()
        .map(|row| match as_json {
            true => as_json_shows(&engine, row, &used),
            false if is_plain => as_plain_table_shows(&engine, row, args),
            false => as_tables_show(&engine, row, &used, args.is("no-trunc"), format.contains("History")),
        })
        .collect();
    formatted(format, &shown, &HEADINGS, args.is("noheading"))?;
    Ok(0)
}

/// An image once for each tag; by its digests only if it has none.
fn rows_of<'a>(image: &'a Image, own: &[&'a str], filters: &Filters) -> Vec<Row<'a>> {
    if !filters.hold_for(image, own) {
        return Vec::new();
    }
    let row = |(repository, tag): (String, String)| Row { image, names: own.to_vec(), repository, tag };
    let matching: Vec<&str> =
        own.iter().copied().filter(|name| filters.name_is_wanted(image, name)).collect();
    let (tagged, untagged): (Vec<_>, Vec<_>) =
        matching.iter().map(|name| repository(name)).partition(|(_, tag)| tag != "<none>");
    if !tagged.is_empty() {
        return tagged.into_iter().map(row).collect();
    }
    match untagged.into_iter().next() {
        Some(first) => vec![row(first)],
        None => vec![row(("<none>".into(), "<none>".into()))],
    }
}

fn sorted(rows: &mut [Row<'_>], sort: &str) {
    match sort {
        "id" => rows.sort_by(|a, b| a.image.id.cmp(&b.image.id)),
        "repository" => rows.sort_by(|a, b| (&a.repository, &a.tag).cmp(&(&b.repository, &b.tag))),
        "tag" => rows.sort_by(|a, b| a.tag.cmp(&b.tag)),
        "size" => rows.sort_by_key(|row| row.image.size),
        _ => {}
    }
}

fn shown_id(id: &str, whole: bool) -> String {
    if whole { format!("sha256:{id}") } else { id[..12].to_string() }
}

/// Ids of the images of all containers.
fn users(engine: &Engine) -> Result<Vec<String>, CliError> {
    Ok(engine.containers()?.into_iter().filter_map(|r| Some(r.image?.id)).collect())
}

fn history(engine: &Engine, row: &Row<'_>) -> Vec<String> {
    let mut past = engine.store.past_names(&row.image.id);
    let now: Vec<String> = past.iter().filter(|n| row.names.contains(&n.as_str())).cloned().collect();
    past.retain(|n| !now.contains(n));
    now.into_iter().chain(past.into_iter().rev()).collect()
}

/// Nanoseconds since the epoch.
pub fn created(image: &Image) -> i64 {
    let said = image.config.created.as_deref().and_then(unroot_monitor::log::parse_time);
    said.unwrap_or(if image.is_list { image.stored } else { 0 })
}

/// What the table without `--format` has.
fn as_plain_table_shows(engine: &Engine, row: &Row<'_>, args: &Args) -> Value {
    let image = row.image;
    let mut value = json!({
        "Repository": row.repository, "Tag": row.tag, "ID": shown_id(&image.id, args.is("no-trunc")),
        "Created": age(created(image)), "Size": size(image),
    });
    if args.is("digests") {
        value["Digest"] = image.digest.as_str().into();
    }
    if args.is("history") {
        value["History"] = history(engine, row).join(", ").into();
    }
    value
}

fn age(created: i64) -> String {
    format!("{} ago", ago((unroot_monitor::log::now() - created) / 1_000_000_000))
}

fn size(image: &Image) -> String {
    let size = output::human(image.size, 3);
    let unit = size.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(size.len());
    format!("{} {}", &size[..unit], &size[unit..])
}

fn as_tables_show(
    engine: &Engine,
    row: &Row<'_>,
    used: &[String],
    whole: bool,
    shows_history: bool,
) -> Value {
    let image = row.image;
    let created = created(image);
    let age = age(created);
    let stamp = unroot_monitor::log::format_nanos(created);
    let at = format!("{} {} +0000 UTC", &stamp[..10], &stamp[11..19]);
    json!({
        "Repository": row.repository, "Tag": row.tag,
        "ID": shown_id(&image.id, whole), "Id": image.id,
        "Digest": image.digest, "Digests": view::digests(image),
        "Created": age, "CreatedSince": age, "CreatedAt": at, "CreatedTime": at,
        "Size": size(image), "VirtualSize": image.size, "SharedSize": 0,
        "Names": row.names, "RepoTags": row.names, "RepoDigests": view::repo_digests(image, &row.names),
        "Labels": image.config.config.labels,
        "Containers": used.iter().filter(|id| **id == image.id).count(),
        "ReadOnly": false, "Dangling": row.names.is_empty(), "IsManifestList": image.is_list,
        "Arch": image.config.architecture, "Os": image.config.os, "ParentId": "",
        "History": if shows_history { history(engine, row).join(", ") } else { String::new() },
    })
}

fn as_json_shows(engine: &Engine, row: &Row<'_>, used: &[String]) -> Value {
    let image = row.image;
    let created = created(image);
    let mut value = json!({
        "Id": image.id,
        "ParentId": "",
        "RepoTags": null,
        "RepoDigests": view::repo_digests(image, &row.names),
        "Size": image.size,
        "SharedSize": 0,
        "VirtualSize": image.size,
        "Labels": image.config.config.labels,
        "Containers": used.iter().filter(|id| **id == image.id).count(),
        "Arch": image.config.architecture,
        "Digest": image.digest,
        "History": history(engine, row),
        "IsManifestList": image.is_list,
        "Names": row.names,
        "Os": image.config.os,
        "Created": created / 1_000_000_000,
        "CreatedAt": view::rfc3339(created),
    });
    if row.names.is_empty()
        && let Some(map) = value.as_object_mut()
    {
        map.insert("Dangling".into(), true.into());
    }
    value
}
