//! unroot: a daemonless, rootless-first container engine.
//!
//! The program looks at its first words, finds the verb, and builds only that verb's flags.

#![recursion_limit = "512"]

mod cli;
mod logging;
mod mount_flags;
mod output;
mod progress;
mod remote;
mod run_flags;
mod selection;
mod template;
mod verbs;
mod view;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use unroot_engine::Engine;

use crate::cli::{CliError, Flag, Kind, Outcome, flag, help, parse};
use crate::verbs::Verb;

/// What stands before the verb.
#[derive(Debug, Default)]
pub struct Global {
    root: Option<PathBuf>,
    run: Option<PathBuf>,
}

impl Global {
    /// The engine.
    pub fn engine(&self) -> Result<Engine, CliError> {
        Ok(Engine::open(self.root.clone(), self.run.clone())?)
    }
}

const GLOBAL: &[Flag] = &[
    flag("connection", 'c', Kind::Value, "Run the command on the machine of this name"),
    flag("debug", 'D', Kind::Bool, "Log messages of level debug and above"),
    flag("identity", ' ', Kind::Value, "Private key for ssh"),
    flag(
        "log-level",
        ' ',
        Kind::Value,
        "Log messages above this level: debug, info, warn, error, fatal, panic",
    ),
    flag("noout", ' ', Kind::Bool, "Print nothing on standard output"),
    flag("out", ' ', Kind::Value, "Write what is printed to this file"),
    flag("remote", 'r', Kind::Bool, "Run the command on the default machine of system connection"),
    flag("root", ' ', Kind::Value, "Directory of images and containers"),
    flag("runroot", ' ', Kind::Value, "Directory of what is forgotten at boot"),
    flag("url", ' ', Kind::Value, "Run the command on this machine: ssh://[USER@]HOST[:PORT][/PROGRAM]"),
    flag("version", 'v', Kind::Bool, "Version of unroot"),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    let name = words.first().and_then(|w| w.rsplit('/').next()).filter(|n| !n.is_empty()).unwrap_or("unroot");
    unroot_engine::set_program(name);
    let code = match dispatch(words.get(1..).unwrap_or_default()) {
        Ok(code) => code,
        Err(error) => report(&error),
    };
    let _ = std::io::stdout().flush();
    ExitCode::from(code)
}

fn report(error: &CliError) -> u8 {
    let mut err = std::io::stderr().lock();
    if let Some(text) = &error.text {
        let _ = writeln!(err, "Error: {text}");
    }
    if let Some(hint) = &error.hint {
        let _ = writeln!(err, "hint: {hint}");
    }
    error.code
}

fn dispatch(words: &[String]) -> Outcome {
    let args = parse(GLOBAL, words, false)
        .map_err(|text| CliError::new(format!("{text}\nSee '{} --help'", unroot_engine::program())))?;
    if args.is("version") {
        output::line(format!("{} version {}", unroot_engine::program(), env!("CARGO_PKG_VERSION")));
        return Ok(0);
    }
    logging::start(&args)?;
    redirect(&args)?;
    let path = |name: &str| args.value(name).map(|p| std::path::absolute(p).unwrap_or_else(|_| p.into()));
    let global = Global { root: path("root"), run: path("runroot") };
    let words = &args.rest[..];
    match words {
        [] => {
            let text = verbs::overview(remote::is_selected(&args));
            if args.help {
                output::raw(text.as_bytes());
                return Ok(0);
            }
            output::raw(text.as_bytes());
            Err(CliError::new(format!("missing command '{} COMMAND'", unroot_engine::program())))
        }
        [word, rest @ ..] if word == "help" => {
            if rest.is_empty() {
                output::raw(verbs::overview(false).as_bytes());
                return Ok(0);
            }
            run_verb(&global, &[rest, &["--help".to_string()]].concat())
        }
        _ => {
            let local = verbs::find(words).is_some_and(|(verb, _)| verb.names[0].starts_with("system connection"));
            match remote::destination(&args)?.filter(|_| !local) {
                Some(destination) => remote::run(&destination, words),
                None => run_verb(&global, words),
            }
        }
    }
}

/// `--out FILE`, `--noout`: standard output is another file from here on.
fn redirect(args: &cli::Args) -> Result<(), CliError> {
    let file = match (args.is("noout"), args.value("out")) {
        (true, Some(_)) => return Err(CliError::new("--noout and --out cannot be used together")),
        (true, None) => std::fs::File::options().write(true).open("/dev/null"),
        (false, Some(path)) => std::fs::File::create(path),
        (false, None) => return Ok(()),
    };
    let failed =
        |e: &dyn std::fmt::Display| CliError::new(format!("unable to create file for standard output: {e}"));
    let file = file.map_err(|e| failed(&e))?;
    rustix::stdio::dup2_stdout(&file).map_err(|e| failed(&e))
}

fn run_verb(global: &Global, words: &[String]) -> Outcome {
    let Some((verb, used)) = verbs::find(words) else { return verbs::unknown(words) };
    let path = words[..used].join(" ");
    let flags = (verb.flags)();
    let see =
        |text: String| CliError::new(format!("{text}\nSee '{} {path} --help'", unroot_engine::program()));
    let args = parse(&flags, &words[used..], verb.interspersed).map_err(see)?;
    if args.help {
        output::raw(help(&path, verb.usage, verb.about, &flags).as_bytes());
        return Ok(0);
    }
    check_count(verb, &path, args.rest.len())?;
    log::debug!("Called {path} with {:?}", &words[used..]);
    log::trace!("{args:?}");
    let outcome = (verb.run)(global, &args);
    log::debug!("Shutting down engines");
    outcome
}

fn check_count(verb: &Verb, path: &str, count: usize) -> Result<(), CliError> {
    let program = unroot_engine::program();
    let (least, most) = verb.count;
    if count < least {
        return Err(CliError::new(format!(
            "\"{program} {path}\" requires at least {least} arg(s), only received {count}\nSee '{program} {path} --help'"
        )));
    }
    if count > most {
        return Err(CliError::new(if most == 0 {
            format!("\"{program} {path}\" takes no arguments")
        } else {
            format!("\"{program} {path}\" accepts at most {most} arg(s), received {count}")
        }));
    }
    Ok(())
}
