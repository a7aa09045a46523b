//! Credential helper programs: `docker-credential-NAME get|store|erase`, the request on stdin, the answer on stdout.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Credentials;
use crate::error::{Error, ErrorKind};

/// A key ring may ask its user to unlock it.
const PATIENCE: Duration = Duration::from_secs(120);
const OUTPUT_MAX: u64 = 1 << 20;
/// What all helpers print for an unknown server.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name that marks a secret as an identity token.
const TOKEN_USER: &str = "<token>";
/// Docker's own key for the Hub.
const LEGACY_HUB: &str = "https://index.docker.io/v1/";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks for a registry, the Hub also by the key that Docker stores it under.
pub(super) fn get_for(helper: &str, registry: &str) -> Result<Option<Credentials>, Error> {
    match get(helper, registry)? {
        None if registry == "docker.io" => get(helper, LEGACY_HUB),
        found => Ok(found),
    }
}

fn get(helper: &str, server: &str) -> Result<Option<Credentials>, Error> {
    let output = run(helper, "get", server.as_bytes())?;
    if !output.success {
        return match output.text.trim() {
            NOT_FOUND => Ok(None),
            reason => Err(failed(helper, "get", reason)),
        };
    }
    let entry: Entry = serde_json::from_str(&output.text)
        .map_err(|_| failed(helper, "get", "the answer is no JSON object with Username and Secret"))?;
    Ok(match (entry.username.as_str(), entry.secret) {
        (_, secret) if secret.is_empty() => None,
        (TOKEN_USER, secret) => Some(Credentials::IdentityToken(secret)),
        (_, password) => Some(Credentials::Password { username: entry.username, password }),
    })
}

/// Stores credentials.
pub(super) fn store(helper: &str, server: &str, credentials: &Credentials) -> Result<(), Error> {
    let (username, secret) = match credentials {
        Credentials::Password { username, password } => (username.clone(), password.clone()),
        Credentials::IdentityToken(token) => (TOKEN_USER.to_owned(), token.clone()),
    };
    let entry = Entry { server_url: server.to_owned(), username, secret };
    let request = serde_json::to_vec(&entry).map_err(|error| failed(helper, "store", &error.to_string()))?;
    let output = run(helper, "store", &request)?;
    if output.success { Ok(()) } else { Err(failed(helper, "store", output.text.trim())) }
}

/// Forgets credentials; false if there were none.
pub(super) fn erase(helper: &str, server: &str) -> Result<bool, Error> {
    let output = run(helper, "erase", server.as_bytes())?;
    match (output.success, output.text.trim()) {
        (true, _) => Ok(true),
        (false, NOT_FOUND) => Ok(false),
        (false, reason) => Err(failed(helper, "erase", reason)),
    }
}

struct Output {
    success: bool,
    text: String,
}

fn run(helper: &str, verb: &str, request: &[u8]) -> Result<Output, Error> {
    if helper.is_empty() || helper.contains('/') {
        let message =
            format!("invalid credential helper {helper:?}: want the X of a program docker-credential-X");
        return Err(Error::new(ErrorKind::Config, message));
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| {
            failed(helper, verb, &error.to_string())
                .hinted("install the helper, or remove it from credHelpers/credsStore in auth.json")
        })?;
    let answer = talk(&mut child, request);
    let success = wait(&mut child).map_err(|reason| failed(helper, verb, &reason))?;
    Ok(Output { success, text: answer.join().unwrap_or_default() })
}

/// Writes the request; a thread reads the answer, so that a helper that says nothing can be given up on.
fn talk(child: &mut Child, request: &[u8]) -> thread::JoinHandle<String> {
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its request answers with an error of its own.
        let _ = stdin.write_all(request);
    }
    let stdout = child.stdout.take();
    thread::spawn(move || {
        let mut text = String::new();
        if let Some(stdout) = stdout {
            let _ = stdout.take(OUTPUT_MAX).read_to_string(&mut text);
        }
        text
    })
}

fn wait(child: &mut Child) -> Result<bool, String> {
    let end = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Err(error) => return Err(error.to_string()),
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) if Instant::now() < end => thread::sleep(pause),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no answer within {} seconds", PATIENCE.as_secs()));
            }
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn failed(helper: &str, verb: &str, reason: &str) -> Error {
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(300).collect();
    Error::new(ErrorKind::Config, format!("credential helper docker-credential-{helper} {verb}: {reason}"))
}
