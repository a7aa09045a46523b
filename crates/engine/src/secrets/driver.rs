//! Who keeps the data of secrets.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::dirs::{make_dir, write_file};
use crate::error::{Context as _, Error, Result};

/// A driver and its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Driver {
    /// file, pass or shell.
    pub name: String,
    /// `--driver-opts`.
    pub options: BTreeMap<String, String>,
}

impl Driver {
    /// Checks name and options, and fills in what is not given.
    pub fn new(name: &str, mut options: BTreeMap<String, String>, secrets: &Path) -> Result<Self> {
        let known: &[&str] = match name {
            "file" => &["path"],
            "pass" => &["root", "key", "gpghomedir"],
            "shell" => &["list", "lookup", "store", "delete"],
            _ => return Err(Error::engine("invalid driver")),
        };
        if let Some(other) = options.keys().find(|k| !known.contains(&k.as_str())) {
            return Err(Error::engine(format_args!("invalid {name} driver option: {other:?}")));
        }
        match name {
            "file" => {
                options.entry("path".into()).or_insert_with(|| secrets.to_string_lossy().into_owned());
            }
            "shell" if known.iter().any(|k| options.get(*k).is_none_or(String::is_empty)) => {
                return Err(Error::engine("missing config value").with_hint(
                    "--driver-opts list=CMD,lookup=CMD,store=CMD,delete=CMD, which find the id in $SECRET_ID",
                ));
            }
            "pass" => {
                let home = std::env::var("HOME").unwrap_or_default();
                let usual =
                    std::env::var("PASSWORD_STORE_DIR").unwrap_or_else(|_| format!("{home}/.password-store"));
                let root = options.entry("root".into()).or_insert(usual).clone();
                if !options.contains_key("key") {
                    let file = Path::new(&root).join(".gpg-id");
                    let key = fs::read_to_string(&file).map_err(|e| {
                        Error::engine(format_args!("read {}: {}", file.display(), crate::plan::reason(&e)))
                            .with_hint("pass init KEY, or --driver-opts key=KEY")
                    })?;
                    options.insert("key".into(), key.trim().into());
                }
            }
            _ => {}
        }
        Ok(Self { name: name.into(), options })
    }

    fn option(&self, name: &str) -> &str {
        self.options.get(name).map_or("", String::as_str)
    }

    /// Where the file driver has the data: beside the record unless another directory was given.
    fn file(&self, own: &Path, id: &str) -> PathBuf {
        let path = Path::new(self.option("path"));
        if own.starts_with(path) { own.join("data") } else { path.join(id) }
    }

    fn pass_file(&self, id: &str) -> PathBuf {
        Path::new(self.option("root")).join(format!("{id}.gpg"))
    }

    fn gpg(&self) -> Command {
        let mut command = Command::new("gpg");
        let home = self.option("gpghomedir");
        if !home.is_empty() {
            command.args(["--homedir", home]);
        }
        command
    }

    fn shell(&self, what: &str, id: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", self.option(what)]).env("SECRET_ID", id);
        command
    }

    /// Takes the data; `own` is the directory of the secret.
    pub fn store(&self, own: &Path, id: &str, data: &[u8]) -> Result<()> {
        match self.name.as_str() {
            "shell" => run(self.shell("store", id), data).map(drop),
            "pass" => {
                let file = self.pass_file(id);
                make_dir(Path::new(self.option("root")))?;
                let mut command = self.gpg();
                let key = self.option("key");
                command
                    .args(["--batch", "--yes", "--trust-model", "always", "--encrypt", "-r", key, "-o"])
                    .arg(&file);
                run(command, data).map(drop)
            }
            _ => {
                let file = self.file(own, id);
                make_dir(file.parent().unwrap_or(own))?;
                write_file(&file, data, 0o600)
            }
        }
    }

    /// Gives the data.
    pub fn lookup(&self, own: &Path, id: &str) -> Result<Vec<u8>> {
        match self.name.as_str() {
            "shell" => run(self.shell("lookup", id), b""),
            "pass" => {
                let mut command = self.gpg();
                command.args(["--batch", "--quiet", "--decrypt"]).arg(self.pass_file(id));
                run(command, b"")
            }
            _ => {
                let file = self.file(own, id);
                fs::read(&file).context(|| format!("read {}", file.display()))
            }
        }
    }

    /// Forgets the data.
    pub fn delete(&self, own: &Path, id: &str) -> Result<()> {
        let file = match self.name.as_str() {
            "shell" => return run(self.shell("delete", id), b"").map(drop),
            "pass" => self.pass_file(id),
            _ => self.file(own, id),
        };
        match fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).context(|| format!("remove {}", file.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Runs a program with this on its standard input; what it prints. Its complaints go where ours go.
fn run(mut command: Command, input: &[u8]) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let args: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let shown = format!("{name} {}", args.join(" "));
    let failed = |e: &dyn std::fmt::Display| Error::engine(format_args!("secret driver: {shown}: {e}"));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|e| failed(&crate::plan::reason(&e)))?;
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        // (it need not read its input)
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        child.wait_with_output()
    });
    let output = output.map_err(|e| failed(&e))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(failed(&output.status)),
    }
}
