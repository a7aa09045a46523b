//! `__complete`, `__completeNoDesc`: what may stand at the end of a command line, as the completion scripts of other
//! engines ask for it (the protocol of the library cobra): a line each, then a number that says what a shell is to do.

use std::path::Path;

use unroot_engine::copy::list;
use unroot_engine::pod::PodStatus;
use unroot_engine::{Engine, State};

use crate::Global;
use crate::cli::{Args, Flag, Kind, Outcome};
use crate::output;
use crate::verbs::{ANY, VERBS, Verb, find};

pub const VERB: Verb = Verb {
    names: &["__complete", "__completeNoDesc"],
    usage: "WORD...",
    about: "What may follow a command line",
    flags: Vec::new,
    interspersed: false,
    count: (0, ANY),
    run,
};

/// What a shell is to do with the lines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Directive {
    Default = 0,
    NoSpace = 2,
    NoFileComp = 4,
}

fn run(global: &Global, args: &Args) -> Outcome {
    let (last, before) = match args.rest.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", &[][..]),
    };
    let (mut lines, directive) = answer(global, before, last);
    lines.sort();
    lines.dedup();
    lines.iter().for_each(output::line);
    output::line(format!(":{}", directive as u8));
    let name = match directive {
        Directive::Default => "Default",
        Directive::NoSpace => "NoSpace",
        Directive::NoFileComp => "NoFileComp",
    };
    unroot_engine::say(format_args!("Completion ended with directive: ShellCompDirective{name}"));
    Ok(0)
}

fn answer(global: &Global, before: &[String], last: &str) -> (Vec<String>, Directive) {
    let Some((verb, used)) = find(before) else { return (words_after(before, last), Directive::NoFileComp) };
    let flags = (verb.flags)();
    if last.starts_with('-') {
        let names = flags.iter().map(|f| format!("--{}", f.long)).filter(|name| name.starts_with(last));
        return (names.collect(), Directive::NoFileComp);
    }
    let (words, flag) = arguments(&flags, &before[used..]);
    let engine = global.engine();
    if let Some(flag) = flag {
        return match (flag.long, &engine) {
            ("pod", Ok(engine)) => (pods(engine, "", last), Directive::NoFileComp),
            _ => of_flag(flag, last),
        };
    }
    let Ok(engine) = engine else { return (Vec::new(), Directive::NoFileComp) };
    of_argument(&engine, verb, &words, last)
}

/// Names of verbs, and the second words of groups.
fn words_after(before: &[String], last: &str) -> Vec<String> {
    let prefix = before.iter().filter(|w| !w.starts_with('-')).map(|w| format!("{w} ")).collect::<String>();
    let names = VERBS.iter().flat_map(|v| v.names).filter_map(|name| name.strip_prefix(prefix.as_str()));
    let words = names.filter_map(|rest| rest.split(' ').next());
    words.filter(|w| w.starts_with(last) && !w.starts_with("__")).map(str::to_string).collect()
}

/// What is no flag, and the flag whose value comes next.
fn arguments(flags: &[Flag], words: &[String]) -> (Vec<String>, Option<Flag>) {
    let mut rest = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let flag = match (word.strip_prefix("--"), word.strip_prefix('-')) {
            (Some(long), _) if !long.contains('=') => flags.iter().find(|f| f.long == long),
            (None, Some(short)) if short.chars().count() == 1 => {
                flags.iter().find(|f| short.starts_with(f.short))
            }
            _ => None,
        };
        match flag.filter(|f| f.kind != Kind::Bool) {
            Some(flag) => {
                if words.next().is_none() {
                    return (rest, Some(*flag));
                }
            }
            None if word.starts_with('-') => {}
            None => rest.push(word.clone()),
        }
    }
    (rest, None)
}

fn of_flag(flag: Flag, last: &str) -> (Vec<String>, Directive) {
    match flag.long {
        "sysctl" => (sysctls(last), Directive::NoFileComp),
        "log-driver" => {
            let all = ["journald", "json-file", "k8s-file", "none", "passthrough", "passthrough-tty"];
            (matching(&all, last), Directive::NoFileComp)
        }
        "share" => (matching(&unroot_engine::pod::SHARED, last), Directive::NoFileComp),
        "exit-policy" => (matching(&["continue", "stop"], last), Directive::NoFileComp),
        "restart" => {
            let all = ["always", "no", "on-failure", "unless-stopped"];
            (matching(&all, last), Directive::NoFileComp)
        }
        _ => (Vec::new(), Directive::Default),
    }
}

fn matching(all: &[&str], last: &str) -> Vec<String> {
    all.iter().filter(|word| word.starts_with(last)).map(|word| word.to_string()).collect()
}

/// Kernel settings that a container can have of its own.
fn sysctls(last: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut todo: Vec<String> = ["net", "kernel", "fs"].map(String::from).into();
    while let Some(name) = todo.pop() {
        let entries = std::fs::read_dir(Path::new("/proc/sys").join(name.replace('.', "/")));
        for entry in entries.into_iter().flatten().flatten() {
            let full = format!("{name}.{}", entry.file_name().to_string_lossy());
            match entry.file_type().is_ok_and(|t| t.is_dir()) {
                true => todo.push(full),
                false => all.push(full),
            }
        }
    }
    let own = ["net.", "fs.mqueue.", "kernel.msg", "kernel.sem", "kernel.shm"];
    all.retain(|name| name.starts_with(last) && own.iter().any(|prefix| name.starts_with(prefix)));
    all
}

fn of_argument(engine: &Engine, verb: &Verb, words: &[String], last: &str) -> (Vec<String>, Directive) {
    let usage: Vec<&str> = verb.usage.split_whitespace().filter(|w| *w != "[options]").collect();
    if verb.names[0] == "cp" {
        return of_copy(engine, words, last);
    }
    if matches!(verb.names[0], "run" | "create") && words.len() == 1 {
        let found = engine.complete_in_image(&words[0], last).unwrap_or_default();
        return (found, Directive::NoSpace);
    }
    let word = usage.get(words.len()).or(usage.last().filter(|w| w.contains("...")));
    let Some(word) = word else { return (Vec::new(), Directive::NoFileComp) };
    let mut all = Vec::new();
    if word.contains("CONTAINER") {
        all.extend(containers(engine, verb.names[0], last));
    }
    if word.contains("POD") {
        all.extend(pods(engine, verb.names[0], last));
    }
    if word.contains("IMAGE") {
        all.extend(images(engine, last));
    }
    if word.contains("VOLUME") {
        let volumes = engine.store.volumes().list().unwrap_or_default();
        all.extend(volumes.into_iter().map(|v| v.name).filter(|n| n.starts_with(last)));
    }
    if word.contains("SECRET") {
        let secrets = engine.dirs.secrets().list().unwrap_or_default();
        all.extend(secrets.into_iter().map(|s| s.name).filter(|n| n.starts_with(last)));
    }
    let files = ["PATH", "FILE", "COMMAND", "ARG", "URI", "CONTEXT"];
    match all.is_empty() && files.iter().any(|f| word.contains(f)) {
        true => (all, Directive::Default),
        false => (all, Directive::NoFileComp),
    }
}

/// Names; ids too once two digits are there.
fn containers(engine: &Engine, verb: &str, last: &str) -> Vec<String> {
    let mut all = Vec::new();
    for record in engine.containers().unwrap_or_default() {
        let status = State::observe(&engine.dirs, &record.id).map_or("", |s| s.status.as_str());
        let fits = match verb {
            "pause" | "exec" | "top" | "kill" | "attach" => status == "running",
            "unpause" => status == "paused",
            "init" => matches!(status, "created" | "exited"),
            _ => true,
        };
        if fits && record.name.starts_with(last) {
            all.push(record.name.clone());
        }
        if fits && last.len() >= 2 && record.id.starts_with(last) {
            all.push(record.short_id().to_string());
        }
    }
    all
}

/// Names; ids too once two digits are there.
fn pods(engine: &Engine, verb: &str, last: &str) -> Vec<String> {
    let mut all = Vec::new();
    for pod in unroot_engine::pod::all(&engine.dirs).unwrap_or_default() {
        let states: Vec<_> =
            pod.members(&engine.dirs).unwrap_or_default().iter().map(|(_, state)| state.status).collect();
        let status = PodStatus::of(&states);
        let fits = match verb {
            "pod kill" | "pod pause" | "pod stats" | "pod stop" | "pod top" => {
                matches!(status, PodStatus::Running | PodStatus::Degraded)
            }
            "pod unpause" => status == PodStatus::Paused,
            _ => true,
        };
        if fits && pod.name.starts_with(last) {
            all.push(pod.name.clone());
        }
        if fits && last.len() >= 2 && pod.id.starts_with(last) {
            all.push(pod.short_id().to_string());
        }
    }
    all
}

fn images(engine: &Engine, last: &str) -> Vec<String> {
    let mut all = Vec::new();
    for image in engine.store.images().unwrap_or_default() {
        for name in engine.names_of(&image.id) {
            // (with the registry or without, as it was begun)
            let short = name.rsplit('/').next().unwrap_or(&name).to_string();
            all.extend([name, short].into_iter().filter(|n| n.starts_with(last)));
        }
        if last.len() >= 2 && image.id.starts_with(last) {
            all.push(image.id[..12].to_string());
        }
    }
    all
}

fn of_copy(engine: &Engine, words: &[String], last: &str) -> (Vec<String>, Directive) {
    if words.len() > 1 {
        return (Vec::new(), Directive::NoFileComp);
    }
    match last.split_once(':') {
        Some((name, path)) => {
            let Ok(record) = engine.find(name) else { return (Vec::new(), Directive::NoSpace) };
            let Ok(open) = engine.open_root(&record) else { return (Vec::new(), Directive::NoSpace) };
            let paths = list(&open.root, path).into_iter().map(|p| format!("{name}:{p}"));
            (paths.collect(), Directive::NoSpace)
        }
        None => {
            let names = engine.containers().unwrap_or_default().into_iter().map(|r| r.name);
            let names = names.filter(|n| n.starts_with(last)).map(|n| format!("{n}:"));
            (names.collect(), Directive::NoSpace)
        }
    }
}
