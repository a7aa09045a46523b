//! `top`

use unroot_engine::top::DESCRIPTORS;

use crate::cli::{Kind, Outcome, flag};
use crate::output;
use crate::selection::LATEST;
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["top", "container top"],
    usage: "[options] CONTAINER [DESCRIPTOR...]",
    about: "Show the processes of a container, from inside and from outside",
    flags: || vec![LATEST, flag("list-descriptors", ' ', Kind::Bool, "List what can be shown")],
    interspersed: false,
    count: (0, ANY),
    run: |global, args| -> Outcome {
        if args.is("list-descriptors") {
            DESCRIPTORS.iter().for_each(|(name, _)| output::line(name));
            return Ok(0);
        }
        let engine = global.engine()?;
        let (record, descriptors) = match args.is("latest") {
            true => (unroot_engine::record::latest(&engine.dirs)?, &args.rest[..]),
            false => (crate::selection::one(&engine, args)?, args.rest.get(1..).unwrap_or_default()),
        };
        let columns = columns_of_ps(descriptors);
        let descriptors = columns.as_deref().unwrap_or(descriptors);
        if descriptors.first().is_some_and(|d| d.starts_with('-') || d == "aux") {
            // (the container's own ps, as Podman does with arguments for it)
            let command = ["ps".to_string()].into_iter().chain(descriptors.iter().cloned()).collect();
            let spec = unroot_engine::exec::ExecSpec {
                command,
                user: Some("0".into()),
                ..unroot_engine::exec::ExecSpec::default()
            };
            return match engine.exec(&record, &spec)? {
                unroot_monitor::attach::Outcome::Exited(code) => Ok(code as u8),
                _ => Ok(0),
            };
        }
        let (headings, rows) = engine.top(&record, descriptors)?;
        output::table(Some(headings), rows);
        Ok(0)
    },
};

/// `-eo LIST` of ps(1), in our own descriptors: all processes are shown anyhow. None if it is anything else.
pub fn columns_of_ps(words: &[String]) -> Option<Vec<String>> {
    let [flags, lists @ ..] = words else { return None };
    let flags = flags.strip_prefix('-')?;
    let (selection, first) = flags.split_once('o')?;
    if !selection.chars().all(|c| matches!(c, 'e' | 'A')) {
        return None;
    }
    let lists = std::iter::once(first).chain(lists.iter().map(String::as_str));
    let names: Vec<&str> = lists.flat_map(|l| l.split([',', ' '])).filter(|n| !n.is_empty()).collect();
    let descriptor = |name: &str| {
        let name = match name {
            "%cpu" => "pcpu",
            "cmd" | "command" => "args",
            "euser" => "user",
            "egroup" => "group",
            "gname" => "group",
            "uname" => "user",
            "tt" | "tname" => "tty",
            "ni" => "nice",
            "cputime" => "time",
            "ucmd" | "ucomm" => "comm",
            "vsize" => "vsz",
            "s" | "stat" => "state",
            same => same,
        };
        DESCRIPTORS.iter().any(|(known, _)| *known == name).then(|| name.to_string())
    };
    (!names.is_empty()).then(|| names.into_iter().map(descriptor).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use super::columns_of_ps;

    #[test]
    fn columns() {
        let of = |words: &str| columns_of_ps(&words.split('|').map(str::to_string).collect::<Vec<_>>());
        for form in ["-eo|pid,comm", "-eo|pid comm", "-e|-o|pid", "-opid,comm", "-Ao|pid|comm"] {
            match form {
                "-e|-o|pid" => assert_eq!(of(form), None),
                _ => assert_eq!(of(form).unwrap(), ["pid", "comm"], "{form}"),
            }
        }
        assert_eq!(of("-eo|pid,lwp"), None);
        assert_eq!(of("aux"), None);
    }
}
