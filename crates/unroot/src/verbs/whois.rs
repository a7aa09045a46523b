//! `whois`: whose an id, a process, a path or a container is, inside and outside.

use unroot_engine::whois::{
    Answer, ContainerAnswer, Inside, Kind as Asked, NumberAnswer, Outside, PathAnswer, ProcessAnswer, whose,
};
use unroot_explain::host::Owner;

use crate::cli::{CliError, Kind, Outcome, flag};
use crate::output;
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["whois"],
    usage: "[options] ID|USER|PID|PATH|CONTAINER...",
    about: "Tell whose an id, a process, a path or a container is, inside and outside",
    flags: || {
        vec![
            flag("format", 'f', Kind::Value, "json, or a Go template"),
            flag("type", 't', Kind::Value, "What the words are: uid, gid, pid, path, container"),
        ]
    },
    interspersed: true,
    count: (1, ANY),
    run: |global, args| -> Outcome {
        let engine = global.engine()?;
        let kind = args.value("type").map(str::parse::<Asked>).transpose()?;
        let mut code = 0;
        let mut all = Vec::new();
        let asker = unroot_engine::whois::Asker::new(&engine)?;
        for word in &args.rest {
            match asker.answer(word, kind) {
                Ok(answers) => all.extend(answers.into_iter().map(|answer| (word, answer))),
                Err(error) => code = crate::report(&error.into()),
            }
        }
        match args.value("format") {
            None => all.iter().for_each(|(word, answer)| output::line(text(word, answer).trim_end())),
            Some("json") => {
                let values =
                    all.iter().map(|(word, answer)| json(word, answer)).collect::<Result<Vec<_>, _>>()?;
                output::line(serde_json::to_string_pretty(&values).map_err(CliError::new)?);
            }
            Some(template) => {
                for (word, answer) in &all {
                    let value = json(word, answer)?;
                    output::line(crate::template::render(template, &value).map_err(CliError::new)?);
                }
            }
        }
        Ok(code)
    },
};

fn json(word: &str, answer: &Answer) -> Result<serde_json::Value, CliError> {
    let mut value = serde_json::to_value(answer).map_err(CliError::new)?;
    value["query"] = word.into();
    Ok(value)
}

fn text(word: &str, answer: &Answer) -> String {
    match answer {
        Answer::Uid(number) => number_text(word, "user", number),
        Answer::Gid(number) => number_text(word, "group", number),
        Answer::Pid(process) => process_text(process),
        Answer::Path(path) => path_text(path),
        Answer::Container(container) => container_text(container),
    }
}

/// `999 (redis)`
fn inside(user: &Inside) -> String {
    let id = user.id.map_or("none: its container's map lacks it".into(), |id| id.to_string());
    let name = user.name.as_ref().map_or(String::new(), |name| format!(" ({name})"));
    format!("{id}{name}")
}

/// `100998, fred's subordinate id +998`
fn outside(user: &Outside) -> String {
    match &user.owner {
        Owner::Account { name } => format!("{} ({name})", user.id),
        owner => format!("{}, {}", user.id, whose(owner)),
    }
}

fn container(user: &Inside) -> String {
    match user.engine.as_str() {
        "unroot" => format!("container {}", user.container),
        engine => format!("{engine}'s container {}", user.container),
    }
}

/// `process 4`, `processes 4 and 9`
fn processes(numbers: &[u32]) -> String {
    let texts: Vec<String> = numbers.iter().map(u32::to_string).collect();
    match &texts[..] {
        [] => String::new(),
        [one] => format!(", process {one}"),
        [first @ .., last] if texts.len() <= 8 => format!(", processes {} and {last}", first.join(", ")),
        _ => format!(", processes {} and {} more", texts[..8].join(", "), texts.len() - 8),
    }
}

fn number_text(word: &str, sort: &str, answer: &NumberAnswer) -> String {
    let id = if sort == "user" { "uid" } else { "gid" };
    let shown =
        if *word == answer.outside.id.to_string() { format!("{sort} {word}") } else { word.to_string() };
    let mut text = format!("{shown}: ");
    text += &match &answer.outside.owner {
        Owner::Account { name } if name == word => format!("{id} {}", answer.outside.id),
        owner => whose(owner),
    };
    let used = |c: &&unroot_engine::whois::InContainer| c.name.is_some() || !c.processes.is_empty();
    let (named, rest): (Vec<_>, Vec<_>) = answer.inside.iter().partition(used);
    for (n, place) in named.iter().enumerate() {
        let numbers: Vec<u32> = place.processes.iter().map(|p| p.inside_pid).collect();
        text += if n == 0 { " = " } else { "\n  = " };
        text += &format!("{id} {} in {}{}", inside(place), container(place), processes(&numbers));
    }
    for place in rest.iter().take(if named.is_empty() { 3 } else { 1 }) {
        text += if named.is_empty() && place.container == rest[0].container { " = " } else { "\n  = " };
        text += &format!("{id} {} in {}", inside(place), container(place));
    }
    let told = rest.len().min(if named.is_empty() { 3 } else { 1 });
    if rest.len() > told {
        text += &format!("\n  and in {} more containers", rest.len() - told);
    }
    for range in &answer.ranges {
        text += &format!(
            "\n  subordinate ids: {}-{} ({}) of {}",
            range.first,
            range.last(),
            range.count,
            range.owner
        );
    }
    let elsewhere: Vec<_> = answer.processes.iter().take(8).collect();
    for found in &elsewhere {
        let place = found.inside.as_ref().map_or("on the host".into(), |place| {
            format!("as {id} {} in {}", inside(place), container(place))
        });
        text += &format!("\n  process {} ({}) {place}", found.process.pid, found.process.comm);
    }
    if answer.processes.len() > elsewhere.len() {
        text += &format!("\n  and {} more processes", answer.processes.len() - elsewhere.len());
    }
    text
}

fn map(lines: &[String]) -> String {
    let shown = |line: &String| {
        let fields: Vec<u64> = line.split(':').filter_map(|f| f.parse().ok()).collect();
        match fields[..] {
            [inside, outside, 1] => format!("{inside} is {outside}"),
            [0, 0, 4_294_967_295] => "every id is itself".into(),
            [inside, outside, count] => {
                format!("{inside}-{} are {outside}-{}", inside + count - 1, outside + count - 1)
            }
            _ => line.clone(),
        }
    };
    match lines {
        [] => "unknown, or none".into(),
        lines if lines.len() > 6 => {
            format!(
                "{}, and {} lines more",
                lines[..6].iter().map(shown).collect::<Vec<_>>().join(", "),
                lines.len() - 6
            )
        }
        lines => lines.iter().map(shown).collect::<Vec<_>>().join(", "),
    }
}

fn line(name: &str, value: &str) -> String {
    format!("\n  {name:<12}{value}")
}

fn maps(uid_map: &[String], gid_map: &[String]) -> String {
    let mut text = line("map:", &map(uid_map));
    if uid_map != gid_map {
        text += &line("group map:", &map(gid_map));
    }
    text
}

fn started_by(who: Option<&unroot_engine::events::Who>) -> String {
    who.map_or(String::new(), |who| {
        let terminal = if who.tty.is_empty() { String::new() } else { format!(" on {}", who.tty) };
        let login = match who.login_uid.filter(|id| *id != who.uid) {
            Some(id) => format!(", logged in as {id}"),
            None => String::new(),
        };
        line("started by:", &format!("uid {} ({}){terminal}{login}", who.uid, who.user))
    })
}

fn process_text(p: &ProcessAnswer) -> String {
    let mut text = format!("process {} ({}): ", p.pid, p.comm);
    text += &match &p.inside_user {
        Some(user) => format!("process {} in {}", p.inside_pid, container(user)),
        None if p.own_user_namespace == Some(true) => {
            "in no container, in a user namespace of its own".into()
        }
        None => "in no container".into(),
    };
    if let (Some(user), Some(group)) = (&p.inside_user, &p.inside_group) {
        text += &line("inside:", &format!("uid {}, gid {}", inside(user), inside(group)));
    }
    text += &line("outside:", &format!("uid {}; gid {}", outside(&p.user), outside(&p.group)));
    text += &maps(&p.uid_map, &p.gid_map);
    if let Some(owner) = &p.namespace_owner {
        text += &line("owner:", &format!("uid {} has all power over its user namespace", outside(owner)));
    }
    text += &started_by(p.started_by.as_ref());
    text += &match &p.login {
        Some(login) => line("login:", &format!("uid {}", outside(login))),
        None => line("login:", "none that the kernel was told of"),
    };
    if let Some(keeper) = &p.supervisor {
        text +=
            &line("kept by:", &format!("{} (process {} of uid {})", keeper.engine, keeper.pid, keeper.uid));
    }
    for why in &p.unknown {
        text += &line("unknown:", why);
    }
    text
}

fn container_text(c: &ContainerAnswer) -> String {
    let mut text = format!("container {} ({}): {}", c.name, &c.id[..12], c.status);
    if let Some(pid) = c.pid {
        text += &format!(", process {pid}");
    }
    if let Some(pod) = &c.pod {
        text += &format!(", in pod {pod}");
    }
    text += &line("engine:", &format!("uid {}", outside(&c.engine_user)));
    match (&c.inside_user, &c.user) {
        (Some(user), Some(outer)) => {
            text += &line("inside:", &format!("uid {}", inside(user)));
            text += &line("outside:", &format!("uid {}", outside(outer)));
        }
        _ => text += &line("process:", "none: it does not run"),
    }
    text += &match &c.root {
        Some(root) => line("root is:", &format!("uid {}", outside(root))),
        None => line("root is:", "nobody: its map has no root"),
    };
    text += &maps(&c.uid_map, &c.gid_map);
    if !c.observed {
        text += "\n  (so it would be: it does not run)";
    }
    text + &started_by(c.started_by.as_ref())
}

fn path_text(p: &PathAnswer) -> String {
    let clean = |path: &std::path::Path| unroot_explain::facts::clean(&path.to_string_lossy());
    let mut text = format!("{}:", clean(&p.path));
    text += &line("outside:", &format!("uid {}; gid {}", outside(&p.user), outside(&p.group)));
    for owner in &p.inside {
        text += &line(
            "inside:",
            &format!(
                "uid {}, gid {} in {}",
                inside(&owner.user),
                inside(&owner.group),
                container(&owner.user)
            ),
        );
    }
    for place in &p.mounted {
        text += &line(
            "mounted:",
            &format!(
                "in {}container {} as {} ({}, {})",
                if place.running { "" } else { "the stopped " },
                place.container,
                clean(&place.path),
                if place.read_only { "read-only" } else { "read-write" },
                place.by
            ),
        );
    }
    let subordinate = |who: &Outside| matches!(who.owner, Owner::Subordinate { .. });
    if subordinate(&p.user) || subordinate(&p.group) {
        text += &line("take back:", &format!("{} own {}", unroot_engine::program(), clean(&p.path)));
    }
    text
}
