//! `doctor`: what keeps containers from working on this host, and its cure.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use unroot_engine::doctor::{Finding, Health, examine};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["doctor"],
    usage: "[options] [GROUP...]",
    about: "Find what keeps containers from working on this host, and what cures it",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "Also say what is as it should be"),
            flag(
                "fix",
                ' ',
                Kind::Bool,
                "As root: do what cures what hinders, and in groups that are named what is noted",
            ),
            flag("format", 'f', Kind::Value, "json"),
            flag("user", 'u', Kind::Value, "As root: look for this user"),
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run,
};

const GROUPS: [&str; 7] = ["ids", "namespaces", "storage", "cgroups", "network", "session", "registries"];

fn run(global: &Global, args: &Args) -> Outcome {
    let json = match args.value("format") {
        None => false,
        Some("json") => true,
        Some(other) => return Err(CliError::new(format!("unknown format {other:?}: there is json"))),
    };
    if let Some(unknown) = args.rest.iter().find(|word| !GROUPS.contains(&word.as_str())) {
        return Err(CliError::new(format!("unknown group {unknown:?}: there are {}", GROUPS.join(", "))));
    }
    let is_root = rustix::process::geteuid().is_root();
    if args.is("fix") && !is_root {
        return Err(CliError::new("doctor --fix changes the host, which takes root").with_hint(format!(
            "sudo {} doctor --fix --user {}",
            unroot_engine::program(),
            global.engine()?.user.name
        )));
    }
    let look = || -> Result<Vec<Finding>, CliError> {
        let mut found = match args.value("user") {
            Some(user) => of_user(user)?,
            None => examine(&global.engine()?),
        };
        found.retain(|f| args.rest.is_empty() || args.rest.contains(&f.group));
        Ok(found)
    };
    let mut found = look()?;
    if args.is("fix") {
        fix(&found, &args.rest);
        found = look()?;
    }
    match json {
        true => output::line(serde_json::to_string_pretty(&found).map_err(CliError::new)?),
        false => output::raw(text(&found, args.is("all")).as_bytes()),
    }
    Ok(u8::from(found.iter().any(|f| f.health == Health::Broken)))
}

/// What another user would be told: this program, run as that one.
fn of_user(user: &str) -> Result<Vec<Finding>, CliError> {
    if !rustix::process::geteuid().is_root() {
        return Err(CliError::new("doctor --user looks as another user, which takes root"));
    }
    let line = unroot_idmap::names::passwd_line(user);
    let line = line.ok_or_else(|| CliError::new(format!("no such user: {user}")))?;
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields[..] else {
        return Err(CliError::new(format!("user {user}: not a line of passwd: {line}")));
    };
    let number = |text: &str| text.parse::<u32>().map_err(|_| CliError::new(format!("user {user}: {line}")));
    let program = std::env::current_exe().map_err(CliError::new)?;
    let mut command = Command::new(&program);
    command.args(["doctor", "--format", "json"]).env_clear().current_dir("/");
    command.env("HOME", home).env("USER", name).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let runtime = format!("/run/user/{uid}");
    if std::path::Path::new(&runtime).exists() {
        command.env("XDG_RUNTIME_DIR", runtime);
    }
    command.uid(number(uid)?).gid(number(gid)?);
    let failed = |e: &dyn std::fmt::Display| {
        CliError::new(format!("{} as {user}: {e}", program.display()))
            .with_hint("the program has to be where that user may run it")
    };
    let output = command.output().map_err(|e| failed(&e))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| failed(&String::from_utf8_lossy(&output.stderr).trim()))
}

/// What hinders is cured; what is only noted (ports below 1024 for everybody, say) where its group was named.
fn fix(found: &[Finding], groups: &[String]) {
    let wanted =
        |f: &&Finding| f.health >= Health::Warning || (f.health > Health::Good && groups.contains(&f.group));
    for finding in found.iter().filter(wanted) {
        let Some(fix) = &finding.fix else { continue };
        match fix.apply() {
            Ok(()) => unroot_engine::say(format_args!("done: {}", fix.text())),
            Err(e) => unroot_engine::say(format_args!("failed: {}: {e}", fix.text())),
        }
    }
}

fn text(found: &[Finding], all: bool) -> String {
    let mut text = String::new();
    for group in GROUPS {
        let of_group: Vec<&Finding> = found.iter().filter(|f| f.group == group).collect();
        let Some(worst) = of_group.iter().map(|f| f.health).max() else { continue };
        let good = of_group.iter().filter(|f| f.health == Health::Good).count();
        let summary = match worst {
            Health::Good => format!("well ({good} looked at)"),
            _ => String::new(),
        };
        text += &format!("{} {group:<11} {summary}\n", mark(worst));
        for finding in of_group.iter().filter(|f| all || f.health > Health::Good) {
            text += &format!("    {} {}\n      {}\n", mark(finding.health), finding.text, finding.evidence);
            if let Some(cure) = finding.cure.as_ref().filter(|_| finding.health > Health::Good) {
                text += &format!("      → {cure}\n");
            }
        }
    }
    text
}

fn mark(health: Health) -> &'static str {
    match health {
        Health::Good => "✔",
        Health::Note => "·",
        Health::Unknown => "?",
        Health::Warning => "!",
        Health::Broken => "✘",
    }
}
