//! `version`

use serde_json::json;

use crate::cli::{CliError, Kind, Outcome, flag};
use crate::output;
use crate::template;
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["version"],
    usage: "[options]",
    about: "Show the version",
    flags: || vec![flag("format", 'f', Kind::Value, "json, or a Go template")],
    interspersed: true,
    count: (0, 0),
    run: |_, args| -> Outcome {
        let built: i64 = env!("UNROOT_BUILT").parse().unwrap_or(0);
        let when = crate::view::time(built * 1_000_000_000);
        let written_in = concat!("none, written in Rust: ", env!("UNROOT_RUSTC"));
        let data = json!({"Client": {
            "APIVersion": env!("CARGO_PKG_VERSION"), "Version": env!("CARGO_PKG_VERSION"), "Os": "linux", "OsArch": format!("linux/{}", architecture()),
            "GoVersion": written_in, "GitCommit": env!("UNROOT_COMMIT"), "BuiltTime": when, "Built": built,
        }});
        match args.value("format").map(str::trim) {
            Some("json") => output::line(serde_json::to_string_pretty(&data).map_err(CliError::new)?),
            Some(format) => output::line(template::render(format, &data).map_err(CliError::new)?),
            None => {
                let row = |name: &str, value: &str| vec![format!("{name}:"), value.to_string()];
                let mut rows = vec![
                    row("Client", "unroot"),
                    row("Version", env!("CARGO_PKG_VERSION")),
                    row("API Version", env!("CARGO_PKG_VERSION")),
                    row("Go Version", written_in),
                    row("Built", &when),
                    row("OS/Arch", &format!("linux/{}", architecture())),
                ];
                if !env!("UNROOT_COMMIT").is_empty() {
                    rows.insert(4, row("Git Commit", env!("UNROOT_COMMIT")));
                }
                output::table(None, rows);
            }
        }
        Ok(0)
    },
};

/// The processor, as image configurations name it.
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
