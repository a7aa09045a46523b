//! `--log-level`: what the engine and its libraries say while they work, as logfmt lines on standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

use log::{LevelFilter, Log, Metadata, Record};

use crate::cli::{Args, CliError};

struct Lines(Instant);

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = crate::output::for_terminal(&std::io::stderr(), record.args().to_string());
        if std::io::stderr().is_terminal() {
            let level = &record.level().as_str()[..4.min(record.level().as_str().len())];
            let _ = writeln!(std::io::stderr(), "{level}[{:04}] {text}", self.0.elapsed().as_secs());
            return;
        }
        let level = match record.level() {
            log::Level::Warn => "warning".to_string(),
            other => other.as_str().to_ascii_lowercase(),
        };
        let time = crate::view::time(unroot_monitor::log::now());
        let _ = writeln!(std::io::stderr(), "time=\"{time}\" level={level} msg={text:?}");
    }

    fn flush(&self) {}
}

/// Which messages are shown: as asked, else warnings and worse.
pub fn start(args: &Args) -> Result<(), CliError> {
    let debug = args.is("debug");
    let level = match args.value("log-level").map(str::to_ascii_lowercase).as_deref() {
        Some(_) if debug => {
            unroot_engine::say(format_args!("Setting --log-level and --debug is not allowed"));
            return Err(CliError::silent(1));
        }
        None if debug => LevelFilter::Debug,
        None | Some("warn" | "warning") => LevelFilter::Warn,
        Some("trace") => LevelFilter::Trace,
        Some("debug") => LevelFilter::Debug,
        Some("info") => LevelFilter::Info,
        Some("error" | "fatal" | "panic") => LevelFilter::Error,
        Some(_) => {
            let given = args.value("log-level").unwrap_or_default();
            unroot_engine::say(format_args!(
                "Log Level \"{given}\" is not supported, choose from: trace, debug, info, warn, warning, error, fatal, panic"
            ));
            return Err(CliError::silent(1));
        }
    };
    // (a second logger in one process cannot be: this is its only caller)
    let _ = log::set_boxed_logger(Box::new(Lines(Instant::now())));
    log::set_max_level(level);
    log::info!("{} shows log messages of level {level} and above", unroot_engine::program());
    Ok(())
}
