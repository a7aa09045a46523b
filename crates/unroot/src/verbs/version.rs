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
        let data = json!({"Client": {
            "APIVersion": env!("CARGO_PKG_VERSION"), "Version": env!("CARGO_PKG_VERSION"), "Os": "linux", "OsArch": format!("linux/{}", architecture()),
            "GoVersion": "", "GitCommit": "", "BuiltTime": "", "Built": 0,
        }});
        match args.value("format").map(str::trim) {
            Some("json") => output::line(serde_json::to_string_pretty(&data).map_err(CliError::new)?),
            Some(format) => output::line(template::render(format, &data).map_err(CliError::new)?),
            None => output::table(
                None,
                vec![
                    vec!["Client:".into(), "unroot".into()],
                    vec!["Version:".into(), env!("CARGO_PKG_VERSION").into()],
                    vec!["OS/Arch:".into(), format!("linux/{}", architecture())],
                ],
            ),
        }
        Ok(0)
    },
};

/// The processor, as image configurations name it.
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
