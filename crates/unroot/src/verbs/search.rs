//! `search`

use serde_json::{Value, json};
use unroot_engine::images::registry_error;
use unroot_registry::{Client, Name, Reference, SearchResult};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output::{formatted, line};
use crate::registry_flags::registry_flags;
use crate::run_flags::pull_options;
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["search", "image search"],
    usage: "[options] TERM",
    about: "Search registries for images",
    flags: || {
        let mut flags = registry_flags();
        flags.extend([
            flag("compatible", ' ', Kind::Bool, "Show stars, and which images are official or automated"),
            flag("filter", 'f', Kind::Repeat, "stars=NUMBER, is-official, is-automated"),
            flag("format", ' ', Kind::Value, "json, or a Go template"),
            flag("limit", ' ', Kind::Value, "The most results of a registry (default 25; of tags 10)"),
            flag("list-tags", ' ', Kind::Bool, "Show the tags of a repository"),
            flag("no-trunc", ' ', Kind::Bool, "Whole descriptions"),
        ]);
        flags
    },
    interspersed: true,
    count: (1, 1),
    run,
};

const HEADINGS: [(&str, &str); 7] = [
    ("Index", "INDEX"),
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("Stars", "STARS"),
    ("Official", "OFFICIAL"),
    ("Automated", "AUTOMATED"),
    ("Tag", "TAG"),
];

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let client = engine.client(&pull_options(args)?)?;
    if args.is("list-tags") {
        return list_tags(&client, args);
    }
    let wanted = filters(args.all("filter"))?;
    let limit = args.number("limit")?.filter(|n| *n > 0).unwrap_or(25);
    let term = &args.rest[0];
    // (what is before a slash is a registry if it looks like one)
    let (registries, term) = match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
            (vec![host.to_string()], rest)
        }
        _ => (engine.registries()?.unqualified_search_registries().to_vec(), term.as_str()),
    };
    if registries.is_empty() {
        return Err(CliError::new(
            "no registries to search: registries.conf has no unqualified-search-registries",
        )
        .with_hint("search REGISTRY/TERM, such as docker.io/TERM"));
    }
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    for registry in &registries {
        match client.search(registry, term, limit) {
            Ok(found) => rows.extend(found.into_iter().filter(|r| wanted.iter().all(|f| f(r)))),
            Err(e) => errors.push(e),
        }
    }
    let failed = errors.len();
    let several = errors.iter().map(|e| format!("  * {e}")).collect::<Vec<_>>().join("\n");
    let failure = match errors.pop() {
        None => None,
        Some(only) if failed == 1 => Some(CliError::from(registry_error(only))),
        Some(_) => Some(CliError::new(format!("{failed} errors occurred:\n{several}"))),
    };
    if rows.is_empty() {
        return failure.map_or(Ok(0), Err);
    }
    print(args, &rows)?;
    failure.map_or(Ok(0), Err)
}

fn print(args: &Args, rows: &[SearchResult]) -> Result<(), CliError> {
    let format = args.value("format");
    let is_json = format.is_some_and(|f| f.trim() == "json");
    let yes = |is: bool| if is { "[OK]" } else { "" };
    let row = |r: &SearchResult| {
        let text = r.description.replace('\n', " ");
        let text = match text.chars().count() > 44 && !args.is("no-trunc") && !is_json {
            true => format!("{}...", text.chars().take(44).collect::<String>().trim_end()),
            false => text,
        };
        json!({
            "Index": r.index, "Name": r.name, "Description": text, "Stars": r.stars,
            "Official": yes(r.official), "Automated": yes(r.automated), "Tag": "",
        })
    };
    let rows: Vec<Value> = rows.iter().map(row).collect();
    let default = match args.is("compatible") {
        true => "table {{.Name}}\t{{.Description}}\t{{.Stars}}\t{{.Official}}\t{{.Automated}}",
        false => "table {{.Name}}\t{{.Description}}",
    };
    formatted(format.unwrap_or(default), &rows, &HEADINGS, false)
}

type Condition = Box<dyn Fn(&SearchResult) -> bool>;

fn filters(texts: &[String]) -> Result<Vec<Condition>, CliError> {
    let one = |text: &String| -> Result<Condition, CliError> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let wanted = value != "false";
        Ok(match key {
            "stars" => {
                let least: u64 = value.parse().map_err(|_| {
                    CliError::new(format!("incorrect value type for stars filter: \"{value}\""))
                })?;
                Box::new(move |r| r.stars >= least)
            }
            "is-official" => Box::new(move |r| r.official == wanted),
            "is-automated" => Box::new(move |r| r.automated == wanted),
            _ => return Err(CliError::new(format!("invalid filter type \"{text}\""))),
        })
    };
    texts.iter().map(one).collect()
}

fn list_tags(client: &Client, args: &Args) -> Outcome {
    if !args.all("filter").is_empty() {
        return Err(CliError::new("filters are not applicable to list tags result"));
    }
    let text = args.rest[0].strip_prefix("docker://").unwrap_or(&args.rest[0]);
    let reference = match Name::parse(text).map_err(CliError::new)? {
        Name::Full(reference) => reference,
        Name::Short(_) => Reference::parse_normalized(text).map_err(CliError::new)?,
    };
    if reference.tag().is_some() || reference.digest().is_some() {
        return Err(CliError::new(format!(
            "reference \"docker://{text}\" must be a docker reference without a tag or digest"
        )));
    }
    let limit = args.number("limit")?.filter(|n| *n > 0).unwrap_or(10);
    let tags = client.tags(&reference).map_err(registry_error)?;
    let tags: Vec<&String> = tags.iter().take(limit).collect();
    let name = reference.name();
    if args.value("format").is_some_and(|f| f.trim() == "json") {
        let all = json!([{"Name": name, "Tags": tags}]);
        line(serde_json::to_string_pretty(&all).map_err(CliError::new)?);
        return Ok(0);
    }
    let rows: Vec<Value> = tags.iter().map(|tag| json!({"Name": name, "Tag": tag, "Index": "", "Description": "", "Stars": 0, "Official": "", "Automated": ""})).collect();
    formatted(args.value("format").unwrap_or("table {{.Name}}\t{{.Tag}}"), &rows, &HEADINGS, false)?;
    Ok(0)
}
