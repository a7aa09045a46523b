//! Programs of the host that are run as a container comes and goes (oci-hooks(5), version 1.0.0).
//!
//! Each `*.json` of the hook directories names a program, when it is wanted, and at which stages of the container's
//! life. It gets the container's state on standard input. A later directory's file replaces an earlier one's of the
//! same name.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use regex_lite::Regex;
use serde::Deserialize;
use serde_json::json;

use unroot_runtime::spec::Spec;

use crate::error::{Context as _, Error, Result};
use crate::plan::reason;
use crate::spec::{ContainerSpec, MountKind};

/// Where hooks are if nobody says where.
pub const DIRECTORIES: [&str; 2] = ["/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d"];

/// When in a container's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its namespaces and files are there, its program is not yet.
    Prestart,
    /// Its program runs.
    Poststart,
    /// It has ended.
    Poststop,
}

#[derive(Clone, Debug, Deserialize)]
struct File {
    version: String,
    hook: Hook,
    #[serde(default)]
    when: When,
    stages: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Hook {
    path: PathBuf,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct When {
    always: Option<bool>,
    annotations: BTreeMap<String, String>,
    commands: Vec<String>,
    has_bind_mounts: Option<bool>,
}

/// The hooks of a container.
#[derive(Clone, Debug, Default)]
pub struct Hooks(Vec<(Stage, Hook)>);

impl Hooks {
    /// Those that the container's files and command call for.
    pub fn of(asked: &ContainerSpec, planned: &Spec) -> Result<Self> {
        let mut files: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
        let given = &asked.life.hooks_dirs;
        let usual: Vec<PathBuf> = DIRECTORIES.iter().map(PathBuf::from).collect();
        for dir in if given.is_empty() { &usual } else { given } {
            let entries = match fs::read_dir(dir) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.map_err(|e| {
                    Error::engine(format_args!("read hooks directory {}: {}", dir.display(), reason(&e)))
                })?,
            };
            let json = entries.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "json"));
            files.extend(json.map(|e| (e.file_name(), e.path())));
        }
        let mut hooks = Vec::new();
        for path in files.values() {
            let shown = || format!("hook {}", path.display());
            let data = fs::read(path).context(shown)?;
            let file: File = serde_json::from_slice(&data).context(shown)?;
            if file.version != "1.0.0" {
                return Err(Error::engine(format_args!(
                    "{}: version {:?} is not known",
                    shown(),
                    file.version
                )));
            }
            if !wanted(&file.when, asked, planned)
                .map_err(|e| Error::engine(format_args!("{}: {e}", shown())))?
            {
                continue;
            }
            for stage in &file.stages {
                let stage = match stage.as_str() {
                    "prestart" | "createRuntime" => Stage::Prestart,
                    "poststart" => Stage::Poststart,
                    "poststop" => Stage::Poststop,
                    other => {
                        return Err(Error::engine(format_args!(
                            "{}: stage {other:?} is not there: it is prestart, createRuntime, poststart or poststop",
                            shown()
                        )));
                    }
                };
                hooks.push((stage, file.hook.clone()));
            }
        }
        Ok(Self(hooks))
    }

    /// Runs those of a stage, one after the other; the first that fails ends it.
    pub fn run(&self, stage: Stage, id: &str, pid: u32, bundle: &Path, planned: &Spec) -> Result<()> {
        let status = match stage {
            Stage::Prestart => "created",
            Stage::Poststart => "running",
            Stage::Poststop => "stopped",
        };
        let state = json!({"ociVersion": planned.oci_version, "id": id, "status": status, "pid": pid,
            "bundle": bundle, "annotations": planned.annotations});
        if self.0.iter().any(|(of, _)| *of == stage) {
            crate::dirs::write_json(&bundle.join("config.json"), planned)?;
        }
        self.0.iter().filter(|(of, _)| *of == stage).try_for_each(|(_, hook)| hook.run(&state.to_string()))
    }
}

fn wanted(when: &When, asked: &ContainerSpec, planned: &Spec) -> std::result::Result<bool, String> {
    let matches = |pattern: &str, text: &str| {
        Regex::new(pattern).map(|r| r.is_match(text)).map_err(|e| format!("pattern {pattern:?}: {e}"))
    };
    let mut conditions = Vec::new();
    conditions.extend(when.always);
    if !when.annotations.is_empty() {
        let mut all = true;
        for (name, value) in &when.annotations {
            let mut any = false;
            for (known, text) in &planned.annotations {
                any |= matches(name, known)? && matches(value, text)?;
            }
            all &= any;
        }
        conditions.push(all);
    }
    if !when.commands.is_empty() {
        let command = planned.process.args.first().map(String::as_str).unwrap_or_default();
        let mut any = false;
        for pattern in &when.commands {
            any |= matches(pattern, command)?;
        }
        conditions.push(any);
    }
    if let Some(has) = when.has_bind_mounts {
        conditions.push(has == asked.files.mounts.iter().any(|m| m.kind == MountKind::Bind));
    }
    Ok(!conditions.is_empty() && conditions.into_iter().all(|c| c))
}

impl Hook {
    fn run(&self, state: &str) -> Result<()> {
        let shown = self.path.display();
        let failed = |why: &dyn std::fmt::Display| Error::engine(format_args!("hook {shown}: {why}"));
        let mut command = Command::new(&self.path);
        use std::os::unix::process::CommandExt as _;
        if let Some(name) = self.args.first() {
            command.arg0(name).args(&self.args[1..]);
        }
        command.env_clear().envs(self.env.iter().filter_map(|e| e.split_once('=')));
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = spawned.map_err(|e| failed(&reason(&e)))?;
        if let Some(mut input) = child.stdin.take() {
            // (it need not read it)
            let _ = input.write_all(state.as_bytes());
        }
        let deadline = self.timeout.map(|t| Instant::now() + Duration::from_secs(t));
        loop {
            let status = match deadline {
                None => Some(child.wait().map_err(|e| failed(&reason(&e)))?),
                Some(_) => child.try_wait().map_err(|e| failed(&reason(&e)))?,
            };
            match status {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(failed(&status)),
                None if deadline.is_some_and(|d| Instant::now() > d) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(failed(&format_args!(
                        "not done within {} seconds",
                        self.timeout.unwrap_or(0)
                    )));
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}
