//! `container runlabel`: an image says by a label how it is to be run.
//!
//! The label is the image's, so what it says is run only if it is a command line of this engine (as `podman`, `docker` or
//! `unroot`): an image does not choose programs of the host. `--display` shows what would be run.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use unroot_engine::changes::words;
use unroot_engine::images::Named;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["container runlabel"],
    usage: "[options] LABEL IMAGE [ARG...]",
    about: "Run the command of this engine that a label of an image tells",
    flags: || {
        vec![
            flag("authfile", ' ', Kind::Value, "File with credentials"),
            flag("cert-dir", ' ', Kind::Value, "Directory with certificates"),
            flag("creds", ' ', Kind::Value, "USER:PASSWORD"),
            flag("display", ' ', Kind::Bool, "Show the command, and do not run it"),
            flag("name", 'n', Kind::Value, "What NAME is in the label (default: the image's)"),
            flag("opt1", ' ', Kind::Value, "What OPT1 is in the label"),
            flag("opt2", ' ', Kind::Value, "What OPT2 is in the label"),
            flag("opt3", ' ', Kind::Value, "What OPT3 is in the label"),
            flag("quiet", 'q', Kind::Bool, "Show nothing of it"),
            flag("replace", ' ', Kind::Bool, "Remove a container that has the name already"),
            flag("tls-verify", ' ', Kind::Bool, "Require HTTPS and verify certificates"),
        ]
    },
    interspersed: false,
    count: (2, ANY),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let (label, wanted) = (&args.rest[0], &args.rest[1]);
    let image = image(global, args, wanted)?;
    let labels = &image.image.config.config.labels;
    let text = labels.iter().find(|(name, _)| name.eq_ignore_ascii_case(label)).map(|(_, text)| text);
    let text = text.filter(|text| !text.is_empty()).ok_or_else(|| {
        CliError::new(format!("cannot find the value of label: {label} in image: {wanted}"))
    })?;
    let command = Line { args, image: &image, wanted }.words(text)?;
    if args.is("display") {
        output::line(format!("command: {} {}", this_program(), command.join(" ")));
        return Ok(0);
    }
    let name = command.iter().skip_while(|w| *w != "--name").nth(1);
    let name = command.iter().find_map(|w| w.strip_prefix("--name=")).or(name.map(String::as_str));
    if let Some(name) = name.filter(|_| args.is("replace")) {
        // (a process of its own: whoever removes is in a user namespace afterwards)
        let status = itself().args(["rm", "-f", "--ignore", name]).stdout(Stdio::null()).status();
        if !status.map_err(|e| CliError::new(format!("exec {} rm: {e}", this_program())))?.success() {
            return Ok(125);
        }
    }
    let quiet = || if args.is("quiet") { Stdio::null() } else { Stdio::inherit() };
    let mut own = itself();
    own.args(&command).stdin(quiet()).stdout(quiet()).stderr(quiet());
    Err(CliError::new(format!("exec {}: {}", this_program(), own.exec())))
}

/// This program, with the flags that come before the verb.
fn itself() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1).take_while(|word| word != "container"));
    command
}

fn this_program() -> String {
    std::env::args().next().unwrap_or_else(|| unroot_engine::program().into())
}

/// The image; one that is not here is pulled by another process, which is in a user namespace afterwards.
fn image(global: &Global, args: &Args, wanted: &str) -> Result<Named, CliError> {
    let engine = global.engine()?;
    if let Some(found) = engine.local_image(wanted)? {
        return Ok(found);
    }
    let mut pull = itself();
    pull.arg("pull");
    for flag in ["authfile", "cert-dir", "creds", "tls-verify"] {
        pull.args(args.value(flag).map(|value| format!("--{flag}={value}")));
    }
    pull.args(args.is("quiet").then_some("--quiet")).arg("--").arg(wanted).stdout(Stdio::null());
    let status = pull.status().map_err(|e| CliError::new(format!("exec {} pull: {e}", this_program())))?;
    if !status.success() {
        return Err(CliError::new(format!("{wanted}: image not known, and it could not be pulled")));
    }
    engine.local_image(wanted)?.ok_or_else(|| CliError::new(format!("{wanted}: image not known")))
}

/// What the words of a label stand for.
struct Line<'a> {
    args: &'a Args,
    image: &'a Named,
    wanted: &'a str,
}

impl Line<'_> {
    fn words(&self, text: &str) -> Result<Vec<String>, CliError> {
        let mut given = words(text).into_iter();
        let program = given.next().unwrap_or_default();
        let base = program.rsplit('/').next().unwrap_or_default();
        if !matches!(base, "podman" | "docker" | "unroot") {
            return Err(CliError::new(format!(
                "the label says to run {program:?} on the host: an image does not choose programs of the host, only what this engine does (podman, docker or unroot ...)"
            )));
        }
        let all = given.chain(self.args.rest[2..].iter().cloned());
        Ok(all.flat_map(|word| self.expand(&word)).collect())
    }

    /// One word, or with `--opt1` and its like as many as the user gives.
    fn expand(&self, word: &str) -> Vec<String> {
        let bare = word.strip_prefix("${").and_then(|w| w.strip_suffix('}')).or(word.strip_prefix('$'));
        if let Some(option) = bare.filter(|name| matches!(*name, "OPT1" | "OPT2" | "OPT3")) {
            return words(&self.value(option));
        }
        let word = match word {
            "NAME" | "IMAGE" => format!("${word}"),
            _ => match word.rsplit_once('=') {
                Some((before, name @ ("NAME" | "IMAGE"))) => format!("{before}=${name}"),
                _ => word.to_string(),
            },
        };
        vec![expand(&word, &|name| self.value(name))]
    }

    fn value(&self, name: &str) -> String {
        let option = |name: &str| self.args.value(name).unwrap_or_default().to_string();
        match name {
            "NAME" => self.name(),
            "IMAGE" => self.image.name.clone(),
            "OPT1" => option("opt1"),
            "OPT2" => option("opt2"),
            "OPT3" => option("opt3"),
            "PWD" => std::env::current_dir().unwrap_or_default().display().to_string(),
            "HOME" => std::env::var("HOME").unwrap_or_default(),
            _ => String::new(),
        }
    }

    /// `quay.io/a/b:tag` is b.
    fn name(&self) -> String {
        let by_id = self.image.image.id.starts_with(self.wanted);
        let name = if by_id { &self.image.name } else { self.wanted };
        let last = name.rsplit('/').next().unwrap_or(name);
        let last = last.split([':', '@']).next().unwrap_or(last);
        self.args.value("name").map_or_else(|| last.to_string(), str::to_string)
    }
}

/// `$NAME` and `${NAME}`, once: what they stand for is not looked at again.
fn expand(text: &str, value: &dyn Fn(&str) -> String) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        done.push_str(before);
        let braced = after.strip_prefix('{').and_then(|a| a.split_once('}'));
        let (name, then) = braced.unwrap_or_else(|| {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            after.split_at(end)
        });
        match name {
            "" => done.push('$'),
            name => done.push_str(&value(name)),
        }
        rest = then;
    }
    done + rest
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_stands_for_something() {
        let value = |name: &str| format!("<{name}>");
        for (text, wanted) in [
            ("a", "a"),
            ("$A", "<A>"),
            ("x${A}y$B_1/z", "x<A>y<B_1>/z"),
            ("5$", "5$"),
            ("$A$B", "<A><B>"),
            ("${A", "${A"),
        ] {
            assert_eq!(super::expand(text, &value), wanted);
        }
    }
}
