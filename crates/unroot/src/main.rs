//! unroot: a daemonless, rootless-first container engine.
//!
//! The program looks at its first words, finds the verb, and builds only that verb's flags.

#![recursion_limit = "512"]

mod cli;
mod conf;
mod filters;
mod glob;
mod health_flags;
mod hints;
mod ids_picture;
mod image_filter;
mod inspected;
mod logging;
mod moment;
mod mount_flags;
mod output;
mod planned;
mod pod_flags;
mod progress;
mod registry_flags;
mod remote;
mod run_flags;
mod selection;
mod template;
mod verbs;
mod view;

use std::cell::OnceCell;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use unroot_engine::Engine;
use unroot_engine::spec::ContainerSpec;

use crate::cli::{Args, CliError, Flag, Kind, Outcome, flag, help, parse};
use crate::conf::Conf;
use crate::verbs::Verb;

/// What stands before the verb.
#[derive(Debug, Default)]
pub struct Global {
    root: Option<PathBuf>,
    run: Option<PathBuf>,
    runtime: Option<String>,
    runtime_flags: Vec<String>,
    hooks_dirs: Vec<PathBuf>,
    events_backend: Option<String>,
    volume_dir: Option<PathBuf>,
    cgroup_manager: Option<String>,
    modules: Vec<String>,
    docker_config: Option<PathBuf>,
    conf: OnceCell<Conf>,
}

impl Global {
    fn of(args: &Args) -> Self {
        let path = |name: &str| args.value(name).map(|p| std::path::absolute(p).unwrap_or_else(|_| p.into()));
        Self {
            root: path("root"),
            // (Podman has a directory more that is forgotten at boot)
            run: path("runroot").or_else(|| path("tmpdir")),
            runtime: args.value("runtime").map(str::to_string),
            runtime_flags: args.all("runtime-flag").to_vec(),
            volume_dir: path("volumepath"),
            docker_config: path("config"),
            events_backend: args.value("events-backend").map(str::to_string),
            hooks_dirs: args.all("hooks-dir").iter().map(PathBuf::from).collect(),
            cgroup_manager: args.value("cgroup-manager").map(str::to_string),
            modules: args.all("module").to_vec(),
            conf: OnceCell::new(),
        }
    }

    /// containers.conf.
    pub fn conf(&self) -> Result<&Conf, CliError> {
        if self.conf.get().is_none() {
            let _ = self.conf.set(Conf::load(&self.modules)?);
        }
        Ok(self.conf.get_or_init(Conf::default))
    }

    /// The OCI runtime of containers: its name, and its program if it is not our own.
    pub fn runtime(&self) -> Result<(String, Option<String>), CliError> {
        self.conf()?.runtime(self.runtime.as_deref())
    }

    /// What of a container is said by global flags and containers.conf: its OCI runtime, and what is no flag.
    pub fn complete(&self, spec: &mut ContainerSpec) -> Result<(), CliError> {
        let conf = self.conf()?;
        conf.complete(spec)?;
        let (name, path) = self.runtime()?;
        let configured = conf.texts_of("engine", "runtimes_flags", &name)?;
        let configured_hooks =
            || Ok::<_, CliError>(conf.texts("engine", "hooks_dir")?.into_iter().map(PathBuf::from).collect());
        spec.life.hooks_dirs =
            if self.hooks_dirs.is_empty() { configured_hooks()? } else { self.hooks_dirs.clone() };
        spec.runtime = path;
        spec.runtime_flags = configured
            .iter()
            .chain(&self.runtime_flags)
            .map(|f| format!("--{}", f.trim_start_matches('-')))
            .collect();
        if let (None, Some(flag)) = (&spec.runtime, spec.runtime_flags.first()) {
            return Err(CliError::with_code(
                126,
                format!("runtime {name}: unknown flag {flag}: the built-in runtime has none"),
            )
            .with_hint("--runtime crun takes crun's flags"));
        }
        Ok(())
    }

    /// Where events go: `--events-backend`, and what containers.conf says of them.
    fn place_events(&self, engine: &mut Engine) -> Result<(), CliError> {
        let conf = self.conf()?;
        // (journald is what other engines' files say: ours is there without it)
        let configured = conf.text("engine", "events_logger")?.filter(|name| name == "none");
        let backend = self.events_backend.clone().or(configured);
        let events = &mut engine.dirs.events;
        match backend.as_deref() {
            None | Some("file") => {
                if let Some(path) = conf.text("engine", "events_logfile_path")? {
                    events.redirect(Some(path.into()));
                }
            }
            Some("none") => events.redirect(None),
            Some(other) => {
                return Err(CliError::new(format!(
                    "unsupported events backend \"{other}\": it is file or none"
                )));
            }
        }
        if let Some(size) = conf.text("engine", "events_logfile_max_size")? {
            let bytes = unroot_engine::limits::parse_size(&size);
            events.limit(bytes.ok_or_else(|| {
                CliError::new(format!(
                    "containers.conf: [engine] events_logfile_max_size: invalid size: '{size}'"
                ))
            })?);
        }
        events.with_inspect_data =
            conf.text("engine", "events_container_create_inspect_data")?.as_deref() == Some("true");
        engine.inspect = Some(|engine, record| {
            let shown = view::container(engine, record).ok();
            shown.and_then(|v| serde_json::to_string(&v).ok()).unwrap_or_default()
        });
        Ok(())
    }

    /// The engine.
    pub fn engine(&self) -> Result<Engine, CliError> {
        let mut engine = Engine::open(self.root.clone(), self.run.clone())?;
        if let Some(kept) = self.conf()?.text("engine", "static_dir")? {
            engine.dirs.kept = kept.into();
        }
        if let Some(dir) =
            self.volume_dir.clone().or(self.conf()?.text("engine", "volume_path")?.map(PathBuf::from))
        {
            engine.store.set_volume_dir(dir);
        }
        if let Some(size) = self.conf()?.text("engine", "max_layer_size")? {
            let bytes = unroot_engine::limits::parse_size(&size).filter(|bytes| *bytes > 0);
            engine.store.set_max_layer(bytes.ok_or_else(|| {
                CliError::new(format!("containers.conf: max_layer_size: {size:?} is no size, such as 20g"))
            })?);
        }
        engine.docker_config.clone_from(&self.docker_config);
        self.place_events(&mut engine)?;
        engine.scopes = self.makes_scopes(&engine)?;
        Ok(engine)
    }

    /// systemd makes containers' control groups, where it is there: `--cgroup-manager`, and what containers.conf says.
    fn makes_scopes(&self, engine: &Engine) -> Result<bool, CliError> {
        let configured = self.conf()?.text("engine", "cgroup_manager")?;
        match (self.cgroup_manager.as_deref(), configured.as_deref()) {
            (Some("systemd"), _) if !unroot_cgroup::has_systemd(engine.user.uid) => Err(CliError::new(
                "--cgroup-manager=systemd: there is no systemd that makes scopes for this user",
            )
            .with_hint("a login session starts one: loginctl enable-linger, or machinectl shell USER@")),
            (Some("cgroupfs"), _) | (None, Some("cgroupfs")) => Ok(false),
            (Some("systemd"), _) | (None, None | Some("systemd")) => Ok(true),
            (Some(other), _) | (None, Some(other)) => Err(CliError::new(format!(
                "unsupported cgroup manager \"{other}\": it is systemd or cgroupfs"
            ))),
        }
    }
}

const GLOBAL: &[Flag] = &[
    flag("cgroup-manager", ' ', Kind::Value, "Who makes control groups: systemd, cgroupfs"),
    flag("config", ' ', Kind::Value, "Directory of Docker's config.json, with credentials"),
    flag("connection", 'c', Kind::Value, "Run the command on the machine of this name"),
    flag("events-backend", ' ', Kind::Value, "Where events are written: file, none"),
    flag("debug", 'D', Kind::Bool, "Log messages of level debug and above"),
    flag(
        "hooks-dir",
        ' ',
        Kind::Repeat,
        "Directory of OCI hooks (default /usr/share and /etc/containers/oci/hooks.d)",
    ),
    flag("identity", ' ', Kind::Value, "Private key for ssh"),
    flag(
        "log-level",
        ' ',
        Kind::Value,
        "Log messages above this level: debug, info, warn, error, fatal, panic",
    ),
    flag("module", ' ', Kind::Repeat, "Read this containers.conf module, too"),
    flag("noout", ' ', Kind::Bool, "Print nothing on standard output"),
    flag("out", ' ', Kind::Value, "Write what is printed to this file"),
    flag("remote", 'r', Kind::Bool, "Run the command on the default machine of system connection"),
    flag(
        "runtime",
        ' ',
        Kind::Value,
        "OCI runtime that makes containers' processes: crun, runc, a path (default: our own)",
    ),
    flag("runtime-flag", ' ', Kind::Repeat, "Flag for that runtime, without its dashes"),
    flag("root", ' ', Kind::Value, "Directory of images and containers"),
    flag("runroot", ' ', Kind::Value, "Directory of what is forgotten at boot"),
    flag("storage-driver", ' ', Kind::Value, "overlay or vfs, as Podman names them: one store does for both"),
    flag("tmpdir", ' ', Kind::Value, "As --runroot, where that is not given"),
    flag("url", ' ', Kind::Value, "Run the command on this machine: ssh://[USER@]HOST[:PORT][/PROGRAM]"),
    flag("version", 'v', Kind::Bool, "Version of unroot"),
    flag("volumepath", ' ', Kind::Value, "Directory of volumes"),
];

fn main() -> ExitCode {
    unroot_engine::sdnotify::remember_sockets();
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
        let _ = writeln!(err, "Error: {}", output::for_terminal(&err, text.clone()));
    }
    if let Some(hint) = &error.hint {
        let _ = writeln!(err, "hint: {hint}");
    }
    error.code
}

/// There is one kind of store. vfs is what is asked for where overlayfs might not be had; whether it is there is seen when it
/// is needed, and `info` says what the store is.
fn check_driver(flag: Option<&str>) -> Result<(), CliError> {
    let variable = || std::env::var("STORAGE_DRIVER").ok().filter(|driver| !driver.is_empty());
    let (driver, cure) = match flag {
        Some(driver) => (driver.to_string(), "leave out --storage-driver"),
        None => (variable().unwrap_or_else(|| "overlay".into()), "unset STORAGE_DRIVER"),
    };
    match driver.as_str() {
        "overlay" | "vfs" => Ok(()),
        _ => Err(CliError::new(format!(
            "unknown storage driver \"{driver}\": layers are directories that overlayfs puts together"
        ))
        .with_hint(cure)),
    }
}

fn dispatch(words: &[String]) -> Outcome {
    let args = parse(GLOBAL, words, false)
        .map_err(|text| CliError::new(format!("{text}\nSee '{} --help'", unroot_engine::program())))?;
    if args.is("version") {
        output::line(format!("{} version {}", unroot_engine::program(), env!("CARGO_PKG_VERSION")));
        return Ok(0);
    }
    check_driver(args.value("storage-driver"))?;
    logging::start(&args)?;
    redirect(&args)?;
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
            run_verb(&args, &[rest, &["--help".to_string()]].concat())
        }
        _ => {
            let local =
                verbs::find(words).is_some_and(|(verb, _)| verb.names[0].starts_with("system connection"));
            match remote::destination(&args)?.filter(|_| !local) {
                Some(destination) => remote::run(&destination, words),
                None => run_verb(&args, words),
            }
        }
    }
}

/// `--out FILE`, `--noout`: standard output is another file from here on.
fn redirect(args: &Args) -> Result<(), CliError> {
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

/// Global flags that may stand after the verb, too.
fn inherited(own: &[Flag]) -> impl Iterator<Item = Flag> {
    let names = ["root", "runroot", "runtime", "runtime-flag", "hooks-dir", "events-backend", "volumepath"];
    let free = |f: &&Flag| names.contains(&f.long) && !own.iter().any(|own| own.long == f.long);
    GLOBAL.iter().filter(free).map(|f| Flag { short: ' ', ..*f }).collect::<Vec<_>>().into_iter()
}

fn run_verb(global: &Args, words: &[String]) -> Outcome {
    let Some((verb, used)) = verbs::find(words) else {
        // (a module that is not there is said first)
        let modules = global.all("module");
        return if modules.is_empty() {
            verbs::unknown(words)
        } else {
            conf::Conf::load(modules).and_then(|_| verbs::unknown(words))
        };
    };
    let path = words[..used].join(" ");
    if matches!(verb.names[0], "run" | "create") {
        // (what it takes goes on while the rest of the words is looked at)
        let Global { root, run, .. } = Global::of(global);
        let _ = Engine::open(root, run).map(|engine| engine.prepare());
    }
    let own = (verb.flags)();
    let flags: Vec<Flag> = own.iter().copied().chain(inherited(&own)).collect();
    let see =
        |text: String| CliError::new(format!("{text}\nSee '{} {path} --help'", unroot_engine::program()));
    let args = parse(&flags, &words[used..], verb.interspersed).map_err(see)?;
    if args.help {
        let text = help(&path, verb.usage, verb.about, &own);
        output::raw(with_configured(&text, &own, Global::of(global).conf()?)?.as_bytes());
        return Ok(0);
    }
    check_count(verb, &path, args.rest.len())?;
    log::debug!("Called {path} with {:?}", &words[used..]);
    log::trace!("{args:?}");
    let mut both = global.clone();
    both.overlay(&args);
    let global = Global::of(&both);
    let outcome = (verb.run)(&global, &args).map_err(|error| diagnosed(&global, error));
    log::debug!("Shutting down engines");
    outcome
}

/// An error with what `doctor` says of it, where nothing else was said.
fn diagnosed(global: &Global, mut error: CliError) -> CliError {
    if let (Some(text), None) = (&error.text, &error.hint)
        && !text.contains("hint: ")
        && let Ok(engine) = Engine::open_outside(global.root.clone(), global.run.clone())
    {
        error.hint = unroot_engine::doctor::reason_of(&engine, text);
    }
    error
}

/// A help text with what containers.conf says of tries.
fn with_configured(text: &str, flags: &[Flag], conf: &Conf) -> Result<String, CliError> {
    if !flags.iter().any(|f| f.long == "retry") {
        return Ok(text.into());
    }
    let retry = conf.text("engine", "retry")?.unwrap_or_else(|| "3".into());
    let text = text.replace("(default 3)", &format!("(default {retry})"));
    Ok(match conf.text("engine", "retry_delay")? {
        Some(delay) => text.replace(" failures\n", &format!(" failures (default \"{delay}\")\n")),
        None => text,
    })
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
