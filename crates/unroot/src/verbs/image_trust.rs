//! `image trust show`, `image trust set`: which images are taken from where (policy.json).

use std::path::PathBuf;

use serde_json::{Value, json};
use unroot_engine::Engine;
use unroot_engine::trust::Policy;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output::{self, formatted};
use crate::verbs::Verb;

pub const SHOW: Verb = Verb {
    names: &["image trust show"],
    usage: "[options] [REGISTRY]",
    about: "Show which images are taken from where",
    flags: || {
        vec![
            flag("json", 'j', Kind::Bool, "As JSON"),
            flag("noheading", 'n', Kind::Bool, "No headings"),
            flag("policypath", ' ', Kind::Value, "Another file than policy.json of the user or the system"),
            flag("raw", ' ', Kind::Bool, "The file as it is"),
        ]
    },
    interspersed: true,
    count: (0, 1),
    run: show,
};

pub const SET: Verb = Verb {
    names: &["image trust set"],
    usage: "[options] REGISTRY|default",
    about: "Set which images are taken from a registry",
    flags: || {
        vec![
            flag("policypath", ' ', Kind::Value, "Another file than policy.json of the user or the system"),
            flag("pubkeysfile", 'f', Kind::Repeat, "Public key of whoever signs"),
            flag("type", 't', Kind::Value, "accept, reject, signedBy, sigstoreSigned (default signedBy)"),
        ]
    },
    interspersed: true,
    count: (1, 1),
    run: set,
};

fn path(engine: &Engine, args: &Args) -> PathBuf {
    args.value("policypath").map_or_else(|| engine.policy_path(), PathBuf::from)
}

fn show(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let path = path(&engine, args);
    if args.is("raw") {
        let text = std::fs::read_to_string(&path).map_err(|e| {
            CliError::new(format!("open {}: {}", path.display(), unroot_engine::plan::reason(&e)))
        })?;
        output::line(text.trim_end());
        return Ok(0);
    }
    let wanted = args.rest.first();
    let rows = Policy::load(&path)?.rows().into_iter().filter(|row| wanted.is_none_or(|w| *w == row.name));
    let rows: Vec<Value> = match args.is("json") {
        true => rows
            .map(|r| json!({"transport": r.transport, "name": r.name, "repo_name": r.name, "type": r.kind}))
            .collect(),
        false => rows
            .map(|r| json!({"Transport": r.transport, "Name": r.name, "Type": r.kind, "Id": r.id, "Store": ""}))
            .collect(),
    };
    if args.is("json") {
        output::line(serde_json::to_string_pretty(&rows).map_err(CliError::new)?);
        return Ok(0);
    }
    let headings =
        [("Transport", "TRANSPORT"), ("Name", "NAME"), ("Type", "TYPE"), ("Id", "ID"), ("Store", "STORE")];
    let template = "table {{.Transport}}\t{{.Name}}\t{{.Type}}\t{{.Id}}\t{{.Store}}";
    formatted(template, &rows, &headings, args.is("noheading"))?;
    Ok(0)
}

fn set(global: &Global, args: &Args) -> Outcome {
    let scope = &args.rest[0];
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.:/*".contains(c);
    if scope.is_empty() || !scope.chars().all(is_part) {
        return Err(CliError::new(format!("invalid image uri: {scope}")));
    }
    let kind = args.value("type").unwrap_or("signedBy");
    if !["accept", "insecureAcceptAnything", "reject", "signedBy", "sigstoreSigned"].contains(&kind) {
        return Err(CliError::new(format!(
            "invalid choice: {kind} (choose from 'accept', 'reject', 'signedBy', 'sigstoreSigned')"
        )));
    }
    let engine = global.engine()?;
    let mut keys = Vec::new();
    for file in args.all("pubkeysfile") {
        let found = std::fs::canonicalize(file)
            .map_err(|e| CliError::new(format!("open {file}: {}", unroot_engine::plan::reason(&e))))?;
        keys.push(found);
    }
    let mut policy = Policy::load(&path(&engine, args))?;
    policy.set(scope, kind, &keys)?;
    if kind == "signedBy" {
        // (said where it is set, not where a pull fails)
        return Err(CliError::new(format!(
            "{scope}: set, but signatures of GPG are not checked here: unroot refuses all images of it"
        ))
        .with_hint("--type sigstoreSigned with the public key of cosign"));
    }
    Ok(0)
}
