//! `login`, `logout`: credentials of registries, kept in auth.json or by a helper.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::PathBuf;

use unroot_engine::Engine;
use unroot_engine::images::{PullOptions, registry_error};
use unroot_registry::{Auth, Credentials, Reference, auth};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::verbs::Verb;

pub const LOGIN: Verb = Verb {
    names: &["login"],
    usage: "[options] [REGISTRY]",
    about: "Log in to a registry",
    flags: || {
        vec![
            flag("authfile", ' ', Kind::Value, "File to keep the credentials in"),
            flag("cert-dir", ' ', Kind::Value, "Directory with certificates"),
            flag("compat-auth-file", ' ', Kind::Value, "Docker's config.json to keep the credentials in"),
            flag("get-login", ' ', Kind::Bool, "Show who is logged in"),
            flag("password", 'p', Kind::Value, "Password"),
            flag("password-stdin", ' ', Kind::Bool, "The password comes on standard input"),
            flag("secret", ' ', Kind::Value, "The password is this secret"),
            flag("tls-verify", ' ', Kind::Bool, "Require HTTPS and verify certificates"),
            flag("username", 'u', Kind::Value, "User"),
            flag("verbose", 'v', Kind::Bool, "Say where the credentials are kept"),
        ]
    },
    interspersed: true,
    count: (0, 1),
    run: login,
};

pub const LOGOUT: Verb = Verb {
    names: &["logout"],
    usage: "[options] [REGISTRY]",
    about: "Log out of a registry",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "Out of all registries"),
            flag("authfile", ' ', Kind::Value, "File that the credentials are in"),
            flag("compat-auth-file", ' ', Kind::Value, "Docker's config.json that the credentials are in"),
        ]
    },
    interspersed: true,
    count: (0, 1),
    run: logout,
};

/// The file that is read and written.
fn file(engine: &Engine, args: &Args) -> Result<PathBuf, CliError> {
    let given = match (args.value("authfile"), args.value("compat-auth-file")) {
        (Some(_), Some(_)) => {
            return Err(CliError::new(
                "options for paths to the credential file and to the Docker-compatible credential file can not be set simultaneously",
            ));
        }
        (a, b) => a.or(b).map(PathBuf::from),
    };
    let environment = engine.environment();
    let docker = || environment.docker_config.clone().map(|dir| dir.join("config.json"));
    let own = || Auth::writable(None, &environment);
    Ok(given.or_else(|| environment.registry_auth_file.clone()).or_else(docker).unwrap_or_else(own))
}

/// What credentials are kept under, and the registry: `registry`, `registry/namespace`, or an address.
fn key(engine: &Engine, word: Option<&String>) -> Result<(String, String), CliError> {
    let Some(word) = word else {
        let registries = engine.registries()?;
        let first = registries.unqualified_search_registries().first().cloned().ok_or_else(|| {
            CliError::new("no registries found in registries.conf, a registry must be provided")
        })?;
        return Ok((first.clone(), first));
    };
    let bare = word.strip_prefix("https://").or_else(|| word.strip_prefix("http://"));
    let key = match bare {
        Some(bare) => bare.split('/').next().unwrap_or(bare).to_string(),
        None => word.clone(),
    };
    let registry = key.split('/').next().unwrap_or(&key).to_string();
    if registry != key {
        let reference = Reference::parse_normalized(&key).map_err(CliError::new)?;
        if reference.tag().is_some() || reference.digest().is_some() {
            return Err(CliError::new(format!("reference \"{key}\" contains tag or digest")));
        }
    }
    Ok((key, registry))
}

fn login(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let path = file(&engine, args)?;
    let (key, registry) = key(&engine, args.rest.first())?;
    let known = known(&engine, &path, &key)?;
    if args.is("get-login") {
        return match known {
            Some(Credentials::Password { username, .. }) => {
                output::line(username);
                Ok(0)
            }
            _ => Err(CliError::new(format!("not logged into {key}"))),
        };
    }
    if matches!(known, Some(Credentials::IdentityToken(_))) {
        return Err(CliError::new("currently logged in, auth file contains an Identity token"));
    }
    let (mut username, mut password) = given(&engine, args)?;
    let client = engine.client(&PullOptions {
        tls_verify: args.given_bool("tls-verify"),
        cert_dir: args.value("cert-dir").map(PathBuf::from),
        retry: Some(0),
        ..PullOptions::default()
    })?;
    if let (None, None, Some(known @ Credentials::Password { .. })) = (&username, &password, &known) {
        output::line(format!("Authenticating with existing credentials for {key}"));
        if client.login(&registry, known).is_ok() {
            output::line(format!("Existing credentials are valid. Already logged in to {registry}"));
            return Ok(0);
        }
        output::line("Existing credentials are invalid, please enter valid username and password");
    }
    if username.is_none() {
        username = Some(ask_user(known.as_ref())?);
    }
    if password.is_none() {
        password = Some(ask_password()?);
    }
    let credentials = Credentials::Password {
        username: username.unwrap_or_default().trim().to_string(),
        password: password.unwrap_or_default(),
    };
    client.login(&registry, &credentials).map_err(registry_error)?;
    auth::store(&path, &key, &credentials).map_err(registry_error)?;
    if args.is("verbose") {
        output::line(format!("Used:  {}", path.display()));
    }
    output::line("Login Succeeded!");
    Ok(0)
}

/// Credentials that are kept under exactly this file.
fn known(engine: &Engine, path: &std::path::Path, key: &str) -> Result<Option<Credentials>, CliError> {
    if !path.exists() {
        return Ok(None);
    }
    let auth = Auth::load(Some(path), &engine.environment()).map_err(registry_error)?;
    Ok(auth.lookup(key).map_err(registry_error)?)
}

/// User and password of the command line.
fn given(engine: &Engine, args: &Args) -> Result<(Option<String>, Option<String>), CliError> {
    let mut username = args.value("username").filter(|u| !u.is_empty()).map(str::to_string);
    let mut password = args.value("password").filter(|p| !p.is_empty()).map(str::to_string);
    if let Some(name) = args.value("secret") {
        if password.is_some() {
            return Err(CliError::new("--secret can not be used with --password options"));
        }
        let secrets = engine.dirs.secrets();
        let data = secrets.data(&secrets.find(name)?)?;
        password =
            Some(String::from_utf8(data).map_err(|_| CliError::new(format!("secret {name}: is no text")))?);
        username = username.or_else(|| Some(name.to_string()));
    }
    if args.is("password-stdin") {
        if password.is_some() {
            return Err(CliError::new("can't specify both --password-stdin and --password"));
        }
        if username.is_none() {
            return Err(CliError::new("must provide --username with --password-stdin"));
        }
        let mut text = String::new();
        io::stdin()
            .lock()
            .take(1 << 20)
            .read_to_string(&mut text)
            .map_err(|e| CliError::new(format!("reading the password: {e}")))?;
        password = Some(text.trim_end_matches(['\n', '\r']).to_string());
    }
    Ok((username, password))
}

fn ask_user(known: Option<&Credentials>) -> Result<String, CliError> {
    let before = match known {
        Some(Credentials::Password { username, .. }) => Some(username.clone()),
        _ => None,
    };
    output::raw(before.as_ref().map_or("Username: ".into(), |u| format!("Username ({u}): ")).as_bytes());
    let mut line = String::new();
    let length = io::stdin().lock().read_line(&mut line);
    match length {
        Ok(0) | Err(_) => Err(CliError::new("getting username and password: reading username: EOF")),
        Ok(_) if line.trim().is_empty() => Ok(before.unwrap_or_default()),
        Ok(_) => Ok(line.trim().to_string()),
    }
}

/// It is not shown while it is typed.
fn ask_password() -> Result<String, CliError> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    output::raw(b"Password: ");
    let shown = stdin.is_terminal().then(|| tcgetattr(&stdin).ok()).flatten();
    if let Some(mut hidden) = shown.clone() {
        hidden.local_modes -= LocalModes::ECHO;
        let _ = tcsetattr(&stdin, OptionalActions::Now, &hidden);
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if let Some(shown) = shown {
        let _ = tcsetattr(&stdin, OptionalActions::Now, &shown);
    }
    output::line("");
    match read {
        Ok(0) | Err(_) => Err(CliError::new("getting username and password: reading password: EOF")),
        Ok(_) => Ok(line.trim_end_matches(['\n', '\r']).to_string()),
    }
}

fn logout(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let path = file(&engine, args)?;
    if args.value("authfile").or(args.value("compat-auth-file")).is_some()
        && let Err(e) = path.metadata()
    {
        let reason = unroot_engine::plan::reason(&e);
        return Err(CliError::new(format!(
            "credential file is not accessible: faccessat {}: {reason}",
            path.display()
        )));
    }
    if args.is("all") {
        if !args.rest.is_empty() {
            return Err(CliError::new("--all takes no arguments"));
        }
        auth::remove_all(&path).map_err(registry_error)?;
        output::line("Removed login credentials for all registries");
        return Ok(0);
    }
    let (key, _) = key(&engine, args.rest.first())?;
    if auth::remove(&path, &key).map_err(registry_error)? {
        output::line(format!("Removed login credentials for {key}"));
        return Ok(0);
    }
    let elsewhere = Auth::load(None, &engine.environment()).and_then(|a| a.lookup(&key));
    if elsewhere.is_ok_and(|found| found.is_some()) {
        output::line(format!(
            "Not logged into {key} with current tool. Existing credentials were established via docker login. Please use docker logout instead."
        ));
        return Ok(0);
    }
    Err(CliError::new(format!("not logged into {key}")))
}
