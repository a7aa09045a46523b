//! `own`: files of subordinate ids below a path: list them, take them back.

use std::path::PathBuf;

use unroot_engine::own::{OwnOptions, OwnedFile};
use unroot_engine::whois::Asker;

use crate::cli::{CliError, Kind, Outcome, flag};
use crate::output;
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["own"],
    usage: "[options] PATH...",
    about: "Take files of subordinate ids below a path back, or list them",
    flags: || {
        vec![
            flag("dry-run", 'n', Kind::Bool, "Say what would be taken, and change nothing"),
            flag(
                "for",
                ' ',
                Kind::Value,
                "As root: the user whose subordinate ids are meant, who gets the files",
            ),
            flag("force", 'f', Kind::Bool, "Even if a running container has them mounted"),
            flag("format", ' ', Kind::Value, "json"),
            flag("hard-links", ' ', Kind::Bool, "Also files that have names outside of the path"),
            flag("list", 'l', Kind::Bool, "List them, with what they are in containers"),
        ]
    },
    interspersed: true,
    count: (1, ANY),
    run: |global, args| -> Outcome {
        let json = match args.value("format") {
            None => false,
            Some("json") => true,
            Some(other) => return Err(CliError::new(format!("unknown format {other:?}: there is json"))),
        };
        let engine = global.engine()?;
        let list = args.is("list");
        let options = OwnOptions {
            dry_run: args.is("dry-run"),
            hard_links: args.is("hard-links"),
            force: args.is("force"),
            user: args.value("for").map(str::to_string),
        };
        let paths: Vec<PathBuf> = args.rest.iter().map(PathBuf::from).collect();
        // (it looks before the engine's namespace is entered: numbers are the host's there)
        let asker = Asker::new(&engine)?;
        let files = engine.own(&paths, &options, !list)?;
        if json {
            output::line(serde_json::to_string_pretty(&files).map_err(CliError::new)?);
        } else if list {
            show(&asker, &files);
        } else {
            report(&files, options.dry_run);
        }
        Ok(u8::from(!list && files.iter().any(|f| f.left.is_some())))
    },
};

/// A name without what could move a terminal's cursor.
fn shown(file: &OwnedFile) -> String {
    let text = file.path.to_string_lossy();
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn number(id: Option<u32>) -> String {
    id.map_or("-".into(), |id| id.to_string())
}

fn show(asker: &Asker<'_>, files: &[OwnedFile]) {
    let inside = |uid: Option<u32>| {
        let all: Vec<String> =
            uid.map(|uid| asker.insides(uid)).unwrap_or_default().iter().take(2).map(in_words).collect();
        if all.is_empty() { "-".into() } else { all.join(", ") }
    };
    let row = |f: &OwnedFile| {
        let what = f.left.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        vec![number(f.uid), number(f.gid), inside(f.uid), shown(f) + &what]
    };
    let heading = ["HUID", "HGID", "INSIDE", "PATH"].map(str::to_string).to_vec();
    output::table(Some(heading), files.iter().map(row).collect());
}

fn in_words(inside: &unroot_engine::whois::Inside) -> String {
    let id = inside.id.map_or_else(String::new, |id| id.to_string());
    let name = inside.name.as_ref().map_or(String::new(), |name| format!(" ({name})"));
    format!("{id}{name} in {}", inside.container)
}

fn report(files: &[OwnedFile], dry_run: bool) {
    let mut count = 0;
    for file in files {
        let owner = match (file.uid, file.gid) {
            (Some(uid), Some(gid)) => format!("was {uid}:{gid}"),
            (Some(uid), None) => format!("was user {uid}"),
            (None, gid) => format!("was group {}", number(gid)),
        };
        match &file.left {
            Some(why) => unroot_engine::say(format_args!("left {}: {why}", shown(file))),
            None => {
                count += 1;
                output::line(format!(
                    "{} {} ({owner})",
                    if dry_run { "would take" } else { "took" },
                    shown(file)
                ));
            }
        }
    }
    if count == 0 && files.is_empty() {
        unroot_engine::say(format_args!("no file of a subordinate id is there"));
    }
}
