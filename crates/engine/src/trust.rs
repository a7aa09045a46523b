//! Which images are taken from where: policy.json, as containers-policy.json(5) has it.
//!
//! ```text
//! {"default": [{"type": "insecureAcceptAnything"}],
//!  "transports": {"docker": {"registry.example.com/team": [{"type": "sigstoreSigned", "keyPath": "/..."}]}}}
//! ```
//! The most specific scope counts: `registry/repository:tag`, `registry/repository`, its parents, the registry,
//! `*.domain`, then the transport's own default, then `default`. All requirements of a scope have to hold. What is not
//! known here is never taken for accepted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use unroot_registry::{Client, Digest, Reference, signature};

use crate::dirs::write_file;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::images::registry_error;

/// The policy of a file.
#[derive(Clone, Debug)]
pub struct Policy {
    path: PathBuf,
    value: Value,
}

/// A row of `image trust show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// `all`, `repository`, or another transport.
    pub transport: String,
    /// The scope; `default`.
    pub name: String,
    /// `accept`, `reject`, `signed`, `sigstoreSigned`.
    pub kind: String,
    /// Whose signature.
    pub id: String,
}

impl Engine {
    /// The policy's file: the user's own where there is one, else the system's.
    pub fn policy_path(&self) -> PathBuf {
        let own = self.environment().config_home.map(|home| home.join("containers/policy.json"));
        own.filter(|path| path.exists()).unwrap_or_else(|| "/etc/containers/policy.json".into())
    }
}

impl Policy {
    /// Reads it; without a file all is accepted.
    pub fn load(path: &Path) -> Result<Self> {
        let value = match fs::read(path) {
            Ok(data) => serde_json::from_slice(&data).context(|| format!("invalid policy in {:?}", path))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                json!({"default": [{"type": "insecureAcceptAnything"}]})
            }
            Err(e) => return Err(Error::engine(format_args!("read {}: {e}", path.display()))),
        };
        Ok(Self { path: path.into(), value })
    }

    fn scope(&self, transport: &str, scopes: &[String]) -> (&Value, String) {
        let of_transport = &self.value["transports"][transport];
        for scope in scopes {
            if let Some(found) = of_transport.get(scope) {
                return (found, format!("{transport}:{scope}"));
            }
        }
        (&self.value["default"], "default".into())
    }

    /// What images of a transport without names need.
    pub fn check_transport(&self, transport: &str) -> Result<()> {
        let (requirements, scope) = self.scope(transport, &[String::new()]);
        self.hold(requirements, &scope, transport, &mut |kind, _| {
            Err(Error::engine(format_args!("{kind}: archives have no signatures")))
        })
    }

    /// Whether an image of a registry may be taken at all; what is known of its digest is checked by `signed`.
    pub fn check_docker(
        &self,
        reference: &Reference,
        signed: &mut dyn FnMut(&str, &Value) -> Result<()>,
    ) -> Result<()> {
        let (requirements, scope) = self.scope("docker", &scopes(reference));
        self.hold(requirements, &scope, &format!("docker://{reference}"), signed)
    }

    fn hold(
        &self,
        requirements: &Value,
        scope: &str,
        image: &str,
        signed: &mut dyn FnMut(&str, &Value) -> Result<()>,
    ) -> Result<()> {
        let wrong = |text: String| Error::engine(format_args!("Source image rejected: {text}"));
        let cure = |e: Error| e.with_hint(format_args!("the policy is {} ({scope})", self.path.display()));
        let all = requirements.as_array().filter(|all| !all.is_empty());
        let all = all.ok_or_else(|| cure(wrong(format!("the policy of {scope} has no requirements"))))?;
        for requirement in all {
            match requirement["type"].as_str().unwrap_or_default() {
                "insecureAcceptAnything" => {}
                "reject" => {
                    return Err(cure(wrong(format!("Running image {image} is rejected by policy."))));
                }
                kind => signed(kind, requirement).map_err(|e| cure(wrong(format!("{image}: {e}"))))?,
            }
        }
        Ok(())
    }

    /// All rows.
    pub fn rows(&self) -> Vec<Trust> {
        let mut rows = Vec::new();
        let mut add = |transport: &str, name: &str, requirements: &Value| {
            for requirement in requirements.as_array().into_iter().flatten() {
                let kind = match requirement["type"].as_str().unwrap_or_default() {
                    "insecureAcceptAnything" => "accept",
                    "signedBy" => "signed",
                    other => other,
                };
                let id = requirement["keyPath"].as_str().map_or("N/A", |_| "N/A");
                let id = if matches!(kind, "accept" | "reject") { "" } else { id };
                rows.push(Trust {
                    transport: transport.into(),
                    name: name.into(),
                    kind: kind.into(),
                    id: id.into(),
                });
            }
        };
        add("all", "default", &self.value["default"]);
        for (transport, scopes) in self.value["transports"].as_object().into_iter().flatten() {
            let shown = if transport == "docker" { "repository" } else { transport };
            for (scope, requirements) in scopes.as_object().into_iter().flatten() {
                add(shown, scope, requirements);
            }
        }
        rows
    }

    /// Sets what images of a scope need; `default` is all that is said of nowhere else.
    pub fn set(&mut self, scope: &str, kind: &str, keys: &[PathBuf]) -> Result<()> {
        let key = |kind: &str, path: &PathBuf| json!({"type": kind, "keyType": "GPGKeys", "keyPath": path});
        let requirements: Vec<Value> = match kind {
            "accept" | "insecureAcceptAnything" => vec![json!({"type": "insecureAcceptAnything"})],
            "reject" => vec![json!({"type": "reject"})],
            "signedBy" => keys.iter().map(|path| key("signedBy", path)).collect(),
            _ => keys.iter().map(|path| json!({"type": "sigstoreSigned", "keyPath": path})).collect(),
        };
        if requirements.is_empty() {
            return Err(Error::engine("at least one public key must be defined for type 'signedBy'")
                .with_hint("--pubkeysfile FILE"));
        }
        let requirements = Value::from(requirements);
        if scope == "default" {
            self.value["default"] = requirements;
        } else {
            let object = |value: &mut Value| {
                if !value.is_object() {
                    *value = Value::Object(Map::new());
                }
            };
            object(&mut self.value["transports"]);
            object(&mut self.value["transports"]["docker"]);
            self.value["transports"]["docker"][scope] = requirements;
        }
        let text = serde_json::to_vec_pretty(&self.value).context(|| "policy".into())?;
        write_file(&self.path, &text, 0o644)
    }
}

/// From the whole name to the registry, and the patterns of its domain.
fn scopes(reference: &Reference) -> Vec<String> {
    let mut all = vec![reference.to_string()];
    let mut name = reference.name();
    loop {
        all.push(name.clone());
        match name.rsplit_once('/') {
            Some((parent, _)) => name = parent.to_string(),
            None => break,
        }
    }
    let mut domain = reference.registry().split(':').next().unwrap_or_default();
    while let Some((_, parent)) = domain.split_once('.') {
        all.push(format!("*.{parent}"));
        domain = parent;
    }
    all.push(String::new());
    all
}

/// Checks what a requirement says of signatures: those that cosign keeps beside the image, by keys of this machine.
pub fn check_signature(
    client: &Client,
    reference: &Reference,
    digest: &Digest,
    kind: &str,
    requirement: &Value,
) -> Result<()> {
    if kind != "sigstoreSigned" {
        return Err(Error::engine(format_args!(
            "the policy wants \"{kind}\", which is not supported: it is insecureAcceptAnything, reject or sigstoreSigned"
        )));
    }
    if !requirement["fulcio"].is_null() || !requirement["rekorPublicKeyPath"].is_null() {
        return Err(Error::engine(
            "sigstoreSigned by fulcio or rekor is not supported: only by keyPath, keyPaths or keyData",
        ));
    }
    let keys = keys(requirement)?;
    let identity = Identity::of(&requirement["signedIdentity"])?;
    let signatures = client.signatures(reference, digest).map_err(registry_error)?;
    let mut reasons = Vec::new();
    for found in &signatures {
        match signed(found, &keys, reference, digest, &identity) {
            Ok(()) => return Ok(()),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(Error::engine(match reasons.is_empty() {
        true => "A signature was required, but no signature exists".to_string(),
        false => format!("None of the signatures were accepted, reasons: {}", reasons.join("; ")),
    }))
}

fn keys(requirement: &Value) -> Result<Vec<Vec<u8>>> {
    use base64::Engine as _;
    let mut all = Vec::new();
    let paths = requirement["keyPaths"].as_array().into_iter().flatten();
    for path in std::iter::once(&requirement["keyPath"]).chain(paths).filter_map(Value::as_str) {
        all.push(fs::read(path).context(|| format!("read {path}"))?);
    }
    let data = requirement["keyDatas"].as_array().into_iter().flatten();
    for text in std::iter::once(&requirement["keyData"]).chain(data).filter_map(Value::as_str) {
        let decoded = base64::engine::general_purpose::STANDARD.decode(text);
        all.push(decoded.context(|| "keyData of the policy".into())?);
    }
    match all.is_empty() {
        true => Err(Error::engine("sigstoreSigned without keyPath or keyData")),
        false => Ok(all),
    }
}

/// Which name a signature has to be for.
enum Identity {
    Exact,
    RepoDigestOrExact,
    Repository,
    ExactReference(String),
    ExactRepository(String),
    Remap(String, String),
}

impl Identity {
    fn of(value: &Value) -> Result<Self> {
        let text = |key: &str| {
            value[key]
                .as_str()
                .map(str::to_string)
                .ok_or_else(|| Error::engine(format_args!("signedIdentity of the policy: {key} is missing")))
        };
        Ok(match value["type"].as_str() {
            None if value.is_null() => Self::RepoDigestOrExact,
            Some("matchRepoDigestOrExact") => Self::RepoDigestOrExact,
            Some("matchExact") => Self::Exact,
            Some("matchRepository") => Self::Repository,
            Some("exactReference") => Self::ExactReference(text("dockerReference")?),
            Some("exactRepository") => Self::ExactRepository(text("dockerRepository")?),
            Some("remapIdentity") => Self::Remap(text("prefix")?, text("signedPrefix")?),
            other => {
                return Err(Error::engine(format_args!(
                    "signedIdentity {other:?} of the policy is not known"
                )));
            }
        })
    }

    fn is(&self, claimed: &str, reference: &Reference) -> bool {
        let Ok(signed) = Reference::parse_normalized(claimed) else { return false };
        let exact = |wanted: &Reference| {
            signed.name() == wanted.name() && (signed.tag() == wanted.tag() || wanted.tag().is_none())
        };
        match self {
            Self::Exact => exact(reference),
            // (cosign names the repository alone)
            Self::RepoDigestOrExact if reference.digest().is_some() || signed.tag().is_none() => {
                signed.name() == reference.name()
            }
            Self::RepoDigestOrExact => exact(reference),
            Self::Repository => signed.name() == reference.name(),
            Self::ExactReference(wanted) => Reference::parse_normalized(wanted).is_ok_and(|w| exact(&w)),
            Self::ExactRepository(wanted) => {
                Reference::parse_normalized(wanted).is_ok_and(|w| w.name() == signed.name())
            }
            Self::Remap(prefix, to) => {
                let name = reference.name();
                let rest = name.strip_prefix(prefix.as_str());
                rest.map_or(signed.name() == name, |rest| signed.name() == format!("{to}{rest}"))
            }
        }
    }
}

fn signed(
    found: &signature::Signature,
    keys: &[Vec<u8>],
    reference: &Reference,
    digest: &Digest,
    identity: &Identity,
) -> std::result::Result<(), String> {
    if !keys.iter().any(|key| signature::is_by(key, &found.payload, &found.signature)) {
        return Err("cryptographic signature verification failed: it is by none of the keys".into());
    }
    let payload: Value = serde_json::from_slice(&found.payload).map_err(|e| format!("payload: {e}"))?;
    let critical = &payload["critical"];
    if critical["type"] != "cosign container image signature" {
        return Err(format!("payload of type {}", critical["type"]));
    }
    if critical["image"]["docker-manifest-digest"] != digest.as_str() {
        return Err(format!("it is for {}, not {digest}", critical["image"]["docker-manifest-digest"]));
    }
    let claimed = critical["identity"]["docker-reference"].as_str().unwrap_or_default();
    match identity.is(claimed, reference) {
        true => Ok(()),
        false => Err(format!("it is for identity {claimed:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_the_whole_name_to_the_registry() {
        let reference = Reference::parse_normalized("a.example.com:5000/team/app:1").unwrap();
        assert_eq!(
            scopes(&reference),
            [
                "a.example.com:5000/team/app:1",
                "a.example.com:5000/team/app",
                "a.example.com:5000/team",
                "a.example.com:5000",
                "*.example.com",
                "*.com",
                ""
            ]
        );
    }

    #[test]
    fn what_is_not_known_is_not_accepted() {
        let policy = |value: Value| Policy { path: "policy.json".into(), value };
        let reference = Reference::parse_normalized("quay.io/x/y:1").unwrap();
        let check = |policy: &Policy| {
            policy.check_docker(&reference, &mut |kind, _| Err(Error::engine(format_args!("no {kind}"))))
        };
        let accept = json!([{"type": "insecureAcceptAnything"}]);
        assert!(check(&policy(json!({"default": accept}))).is_ok());
        for wrong in [
            json!({}),
            json!({"default": []}),
            json!({"default": [{"type": "magic"}]}),
            json!({"default": [{}]}),
        ] {
            assert!(check(&policy(wrong)).is_err());
        }
        let nearest = json!({"default": [{"type": "reject"}], "transports": {"docker": {"quay.io/x": accept, "quay.io/x/y": [{"type": "reject"}]}}});
        assert!(check(&policy(nearest)).unwrap_err().to_string().contains("rejected by policy"));
        let both = json!({"default": [{"type": "insecureAcceptAnything"}, {"type": "reject"}]});
        assert!(check(&policy(both)).is_err());
    }
}
