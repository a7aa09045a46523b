//! `man`: writes the manual pages, made from the table of verbs.

use std::fs;

use crate::cli::{CliError, Kind, Outcome};
use crate::verbs::{VERBS, Verb, overview};

pub const VERB: Verb = Verb {
    names: &["man"],
    usage: "DIRECTORY",
    about: "Write the manual pages into a directory",
    flags: Vec::new,
    interspersed: true,
    count: (1, 1),
    run: |_, args| -> Outcome {
        let dir = std::path::Path::new(&args.rest[0]);
        let write = |name: &str, text: String| {
            fs::write(dir.join(name), text)
                .map_err(|e| CliError::new(format!("write {}: {e}", dir.join(name).display())))
        };
        fs::create_dir_all(dir).map_err(|e| CliError::new(format!("mkdir {}: {e}", dir.display())))?;
        for verb in VERBS.iter().filter(|v| !v.names[0].starts_with("__")) {
            write(&format!("unroot-{}.1", verb.names[0].replace(' ', "-")), page(verb))?;
        }
        let body = overview(false).replace('\\', "\\\\").replace("\n.", "\n\\&.");
        write(
            "unroot.1",
            format!(
                ".TH UNROOT 1\n.SH NAME\nunroot \\- a daemonless, rootless-first container engine\n.SH DESCRIPTION\n.nf\n{body}.fi\n"
            ),
        )?;
        Ok(0)
    },
};

fn page(verb: &Verb) -> String {
    let name = verb.names[0];
    let mut text = format!(
        ".TH UNROOT-{} 1\n.SH NAME\nunroot-{} \\- {}\n.SH SYNOPSIS\n.B unroot {name}\n{}\n",
        name.to_uppercase().replace(' ', "-"),
        name.replace(' ', "-"),
        verb.about,
        verb.usage.replace('-', "\\-")
    );
    if verb.names.len() > 1 {
        text += &format!(
            ".SH ALIASES\n{}\n",
            verb.names[1..].iter().map(|n| format!("unroot {n}")).collect::<Vec<_>>().join(", ")
        );
    }
    let mut flags = (verb.flags)();
    flags.sort_by_key(|f| f.long);
    if !flags.is_empty() {
        text += ".SH OPTIONS\n";
    }
    for flag in flags {
        let short = if flag.short == ' ' { String::new() } else { format!(", \\-{}", flag.short) };
        let value = if flag.kind == Kind::Bool { "" } else { " \\fIvalue\\fR" };
        text += &format!(
            ".TP\n\\fB\\-\\-{}{short}\\fR{value}\n{}\n",
            flag.long.replace('-', "\\-"),
            flag.help.replace('-', "\\-")
        );
    }
    text + ".SH SEE ALSO\nunroot(1)\n"
}
