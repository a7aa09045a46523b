//! `completion`: scripts for bash, zsh and fish, made from the table of verbs.

use crate::cli::{CliError, Outcome};
use crate::output;
use crate::verbs::{VERBS, Verb};

pub const VERB: Verb = Verb {
    names: &["completion"],
    usage: "SHELL",
    about: "Print a completion script for a shell",
    flags: Vec::new,
    interspersed: true,
    count: (1, 1),
    run: |_, args| -> Outcome {
        let text = match args.rest[0].as_str() {
            "bash" => bash(),
            "zsh" => format!("#compdef unroot\nautoload -U +X bashcompinit && bashcompinit\n{}", bash()),
            "fish" => fish(),
            other => {
                return Err(CliError::new(format!(
                    "no completion for the shell \"{other}\": there are bash, zsh and fish"
                )));
            }
        };
        output::raw(text.as_bytes());
        Ok(0)
    },
};

/// Names that an argument of the verb may have, as a command that prints them.
fn arguments(verb: &Verb) -> &'static str {
    match verb.usage {
        u if u.contains("CONTAINER") => "unroot ps -a --format '{{.Names}}' 2>/dev/null",
        u if u.contains("POD") => "unroot pod ps --format '{{.Name}}' 2>/dev/null",
        u if u.contains("IMAGE") => "unroot images --format '{{.Repository}}:{{.Tag}}' 2>/dev/null",
        u if u.contains("VOLUME") => "unroot volume ls -q 2>/dev/null",
        _ => "true",
    }
}

fn first_words() -> Vec<&'static str> {
    let mut words: Vec<&str> = VERBS
        .iter()
        .flat_map(|v| v.names)
        .filter_map(|n| n.split(' ').next())
        .filter(|n| !n.starts_with("__"))
        .collect();
    words.sort_unstable();
    words.dedup();
    words
}

fn bash() -> String {
    let mut cases = String::new();
    for verb in VERBS {
        let flags: Vec<String> = (verb.flags)().iter().map(|f| format!("--{}", f.long)).collect();
        for name in verb.names {
            cases += &format!(
                "    \"{name}\") flags=\"{}\"; names='{}' ;;\n",
                flags.join(" "),
                arguments(verb).replace('\'', "'\\''")
            );
        }
    }
    let mut groups = String::new();
    for group in ["container", "image", "pod", "volume"] {
        let inner: Vec<&str> =
            VERBS.iter().flat_map(|v| v.names).filter_map(|n| n.strip_prefix(&format!("{group} "))).collect();
        groups += &format!(
            "    {group}) COMPREPLY=($(compgen -W \"{}\" -- \"$current\")); return ;;\n",
            inner.join(" ")
        );
    }
    format!(
        "_unroot() {{\n  local current=${{COMP_WORDS[COMP_CWORD]}} flags= names=true\n  if [ \"$COMP_CWORD\" = 1 ]; then COMPREPLY=($(compgen -W \"{}\" -- \"$current\")); return; fi\n  if [ \"$COMP_CWORD\" = 2 ]; then case ${{COMP_WORDS[1]}} in\n{groups}  esac; fi\n  case \"${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}\" in\n    container\\ *|image\\ *|pod\\ *|volume\\ *) verb=\"${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}\" ;;\n    *) verb=${{COMP_WORDS[1]}} ;;\n  esac\n  case $verb in\n{cases}  esac\n  case $current in\n    -*) COMPREPLY=($(compgen -W \"$flags\" -- \"$current\")) ;;\n    *) COMPREPLY=($(compgen -W \"$(eval \"$names\")\" -- \"$current\")) ;;\n  esac\n}}\ncomplete -o default -F _unroot unroot podman docker\n",
        first_words().join(" ")
    )
}

fn fish() -> String {
    let mut text = String::from("complete -c unroot -f\n");
    for word in first_words() {
        text += &format!("complete -c unroot -n __fish_use_subcommand -a {word}\n");
    }
    for verb in VERBS.iter().filter(|v| !v.names[0].contains(' ')) {
        let name = verb.names[0];
        text += &format!(
            "complete -c unroot -n '__fish_seen_subcommand_from {name}' -a \"({})\"\n",
            arguments(verb)
        );
        for flag in (verb.flags)() {
            let short = if flag.short == ' ' { String::new() } else { format!(" -s {}", flag.short) };
            text += &format!(
                "complete -c unroot -n '__fish_seen_subcommand_from {name}' -l {}{short} -d '{}'\n",
                flag.long,
                flag.help.replace('\'', "\\'")
            );
        }
    }
    text
}
