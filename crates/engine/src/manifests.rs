//! Lists of images for several platforms: put together here, pushed with the images that they name.

use std::io::{self, Read};

use serde_json::{Map, Value, json};
use unroot_registry::{Client, Descriptor, Digest, Manifest, Platform, Reference};
use unroot_store::{Image, List, Progress, Source};

use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::images::registry_error;
use crate::push::{Push, PushOptions};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Says which entry of a list is compressed by zstd, for engines that know it only so.
const ZSTD_NOTE: &str = "io.github.containers.compression.zstd";

/// What an entry says besides its digest; what is empty is left as it is.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// `--arch`
    pub architecture: Option<String>,
    /// `--os`
    pub os: Option<String>,
    /// `--variant`
    pub variant: Option<String>,
    /// `--os-version`
    pub os_version: Option<String>,
    /// `--features`
    pub features: Vec<String>,
    /// `--os-features`
    pub os_features: Vec<String>,
    /// `--annotation`
    pub annotations: Vec<(String, String)>,
}

/// Files as an artifact of a list.
#[derive(Clone, Debug, Default)]
pub struct Artifact {
    /// `--artifact-type`
    pub kind: Option<String>,
    /// `--artifact-config`: a file.
    pub config: Option<String>,
    /// `--artifact-config-type`
    pub config_type: Option<String>,
    /// `--artifact-layer-type`
    pub layer_type: Option<String>,
    /// `--artifact-exclude-titles`
    pub without_titles: bool,
    /// `--artifact-subject`
    pub subject: Option<Value>,
}

/// An empty list.
pub fn empty_list(annotations: &[(String, String)]) -> Value {
    let mut index = json!({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": []});
    annotate(&mut index, annotations);
    index["mediaType"] = media_type(&index).into();
    index
}

fn annotate(value: &mut Value, annotations: &[(String, String)]) {
    for (key, text) in annotations {
        if !value["annotations"].is_object() {
            value["annotations"] = json!({});
        }
        value["annotations"][key] = text.as_str().into();
    }
}

/// Docker's lists know less: what they cannot say makes it OCI's.
fn media_type(index: &Value) -> &'static str {
    let has = |value: &Value, key: &str| !value[key].is_null();
    let is_oci = has(index, "annotations")
        || has(index, "subject")
        || index["manifests"].as_array().into_iter().flatten().any(|entry| {
            has(entry, "annotations")
                || has(entry, "artifactType")
                || !entry["mediaType"].as_str().unwrap_or_default().contains("docker")
        });
    if is_oci { OCI_INDEX } else { DOCKER_LIST }
}

impl Entry {
    fn write(&self, entry: &mut Value) {
        let texts = [
            ("architecture", &self.architecture),
            ("os", &self.os),
            ("variant", &self.variant),
            ("os.version", &self.os_version),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                platform(entry)[key] = text.as_str().into();
            }
        }
        for (key, words) in [("features", &self.features), ("os.features", &self.os_features)] {
            if !words.is_empty() {
                platform(entry)[key] = words.clone().into();
            }
        }
        annotate(entry, &self.annotations);
    }
}

fn platform(entry: &mut Value) -> &mut Value {
    if !entry["platform"].is_object() {
        entry["platform"] = json!({});
    }
    &mut entry["platform"]
}

fn entries(index: &mut Value) -> Result<&mut Vec<Value>> {
    index["manifests"].as_array_mut().ok_or_else(|| Error::engine("the manifest list has no manifests"))
}

fn put(list: &mut List, entry: Value, source: Source) -> Result<()> {
    let digest = entry["digest"].as_str().unwrap_or_default().to_string();
    let all = entries(&mut list.index)?;
    match all.iter_mut().find(|known| known["digest"] == digest.as_str()) {
        Some(known) => *known = entry,
        None => all.push(entry),
    }
    list.sources.insert(digest, source);
    list.index["mediaType"] = media_type(&list.index).into();
    Ok(())
}

impl Engine {
    /// A list by name or id.
    pub fn list(&self, name: &str) -> Result<List> {
        let image = self.image(name)?.image;
        if !image.is_list {
            return Err(Error::engine(format_args!("{name}: image is not a manifest list")));
        }
        self.store.list(&image.id).map_err(Error::engine)
    }

    /// Adds an image: of the store, or of a registry (`docker://`, or what the store has not); all of an index with
    /// `all`.
    pub fn add_to_list(
        &self,
        list: &mut List,
        word: &str,
        all: bool,
        says: &Entry,
        options: &PushOptions,
    ) -> Result<Vec<String>> {
        let local = match word.split_once(':') {
            Some(("containers-storage", name)) => Some(self.image(name)?),
            Some(("docker", rest)) if rest.starts_with("//") => None,
            _ => self.local_image(word)?,
        };
        let found = match local {
            Some(named) if named.image.is_list => self.entries_of_list(&named.image, all, says)?,
            Some(named) => vec![(self.entry_of(&named.image)?, Source::Image(named.image.id))],
            None => self.entries_of_registry(word, all, says, options)?,
        };
        let mut digests = Vec::new();
        for (mut entry, source) in found {
            says.write(&mut entry);
            digests.push(entry["digest"].as_str().unwrap_or_default().to_string());
            put(list, entry, source)?;
        }
        self.store.write_list(list).map_err(Error::engine)?;
        Ok(digests)
    }

    fn entry_of(&self, image: &Image) -> Result<Value> {
        let manifest = self.store.manifest(&image.id).map_err(Error::engine)?;
        let kind = unroot_store::Kind::of(&manifest);
        let mut entry = json!({"mediaType": kind.manifest(), "digest": image.digest, "size": manifest.len()});
        let config = &image.config;
        entry["platform"] = json!({"architecture": config.architecture, "os": config.os});
        if let Some(variant) = config.variant.as_ref().filter(|v| !v.is_empty()) {
            entry["platform"]["variant"] = variant.as_str().into();
        }
        Ok(entry)
    }

    fn entries_of_list(&self, image: &Image, all: bool, says: &Entry) -> Result<Vec<(Value, Source)>> {
        let other = self.store.list(&image.id).map_err(Error::engine)?;
        let all_entries = other.index["manifests"].as_array().cloned().unwrap_or_default();
        let with_source = all_entries.into_iter().filter_map(|entry| {
            let source = other.sources.get(entry["digest"].as_str()?)?.clone();
            Some((entry, source))
        });
        Ok(chosen(with_source.collect(), all, says))
    }

    fn entries_of_registry(
        &self,
        word: &str,
        all: bool,
        says: &Entry,
        options: &PushOptions,
    ) -> Result<Vec<(Value, Source)>> {
        let client = self.client(&options.registry)?;
        let (reference, manifest) = self.remote_manifest(&client, word)?;
        let source = || Source::Registry(reference.without_tag_and_digest().to_string());
        if manifest.is_index() {
            let index: Value = serde_json::from_slice(&manifest.bytes).context(|| word.into())?;
            let list = index["manifests"].as_array().cloned().unwrap_or_default();
            return Ok(chosen(list.into_iter().map(|entry| (entry, source())).collect(), all, says));
        }
        let mut entry = json!({"mediaType": manifest.media_type, "digest": manifest.digest.as_str(), "size": manifest.bytes.len()});
        let whole: Value = serde_json::from_slice(&manifest.bytes).context(|| word.into())?;
        let config: Descriptor = serde_json::from_value(whole["config"].clone()).context(|| word.into())?;
        let config = client.config(&reference, &config).map_err(registry_error)?;
        let config: unroot_store::ImageConfig = serde_json::from_slice(&config).context(|| word.into())?;
        entry["platform"] = json!({"architecture": config.architecture, "os": config.os});
        Ok(vec![(entry, source())])
    }

    /// What a registry has under a name; a short name in each registry where it is looked for.
    pub fn remote_manifest(&self, client: &Client, word: &str) -> Result<(Reference, Manifest)> {
        let text = word.strip_prefix("docker://").unwrap_or(word);
        let candidates = match unroot_registry::Name::parse(text).map_err(Error::engine)? {
            unroot_registry::Name::Full(reference) => vec![reference],
            unroot_registry::Name::Short(short) => {
                let resolution = self.registries()?.resolve_short(&short).map_err(registry_error)?;
                resolution.unattended().map_err(registry_error)?
            }
        };
        let mut last = None;
        for candidate in candidates {
            let reference = candidate.or_latest();
            match client.manifest(&reference) {
                Ok(manifest) => return Ok((reference, manifest)),
                Err(e) => last = Some((reference, e)),
            }
        }
        Err(last.map_or_else(
            || Error::engine(format_args!("{word}: no registry to look in")),
            |(reference, e)| {
                let (text, hint) = (e.to_string(), e.hint().map(str::to_string));
                let text = text.replacen(&format!("initializing source docker://{reference}: "), "", 1);
                let error = Error::engine(format_args!("reading image \"docker://{reference}\": {text}"));
                hint.into_iter().fold(error, |e, h| e.with_hint(h))
            },
        ))
    }

    /// Adds files as an artifact.
    pub fn add_artifact(
        &self,
        list: &mut List,
        files: &[String],
        artifact: &Artifact,
        says: &Entry,
    ) -> Result<String> {
        let store = &self.store;
        let keep = |source: &mut dyn Read| store.put_list_blob(&list.id, source).map_err(Error::engine);
        let config = match &artifact.config {
            Some(path) if !path.is_empty() => std::fs::read(path).context(|| format!("open {path}"))?,
            _ => Vec::new(),
        };
        let default = if config.is_empty() { EMPTY } else { "application/vnd.oci.image.config.v1+json" };
        let config = if config.is_empty() { b"{}".to_vec() } else { config };
        let (digest, size) = keep(&mut &config[..])?;
        let config_type = artifact.config_type.as_deref().filter(|t| !t.is_empty()).unwrap_or(default);
        let config = json!({"mediaType": config_type, "digest": digest, "size": size});
        let mut layers = Vec::new();
        for path in files {
            let mut file = std::fs::File::open(path).context(|| format!("open {path}"))?;
            let mut start = Vec::new();
            (&mut file).take(512).read_to_end(&mut start).context(|| format!("read {path}"))?;
            let guessed = guess(&start);
            let (digest, size) = keep(&mut io::Cursor::new(start).chain(file))?;
            let kind = artifact.layer_type.as_deref().filter(|t| !t.is_empty()).unwrap_or(guessed);
            let mut layer = json!({"mediaType": kind, "digest": digest, "size": size});
            if !artifact.without_titles {
                let title = path.rsplit('/').next().unwrap_or(path);
                layer["annotations"] = json!({"org.opencontainers.image.title": title});
            }
            layers.push(layer);
        }
        let kind = match artifact.kind.as_deref() {
            None => "application/vnd.unknown.artifact.v1",
            Some(kind) => kind,
        };
        let mut manifest = Map::new();
        manifest.insert("schemaVersion".into(), 2.into());
        manifest.insert("mediaType".into(), OCI_MANIFEST.into());
        if !kind.is_empty() {
            manifest.insert("artifactType".into(), kind.into());
        }
        manifest.insert("config".into(), config);
        manifest.insert("layers".into(), layers.into());
        if let Some(subject) = &artifact.subject {
            manifest.insert("subject".into(), subject.clone());
        }
        let manifest = Value::Object(manifest).to_string();
        let (digest, size) = keep(&mut manifest.as_bytes())?;
        let mut entry = json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": size});
        if artifact.kind.as_deref().is_some_and(|k| !k.is_empty()) {
            entry["artifactType"] = kind.into();
        }
        says.write(&mut entry);
        put(list, entry, Source::Artifact)?;
        store.write_list(list).map_err(Error::engine)?;
        Ok(digest)
    }

    /// The digest of an entry: by itself, or by an image that it is.
    fn digest_in_list(&self, list: &List, word: &str) -> Result<String> {
        let known = |digest: &str| {
            list.index["manifests"].as_array().into_iter().flatten().any(|e| e["digest"] == digest)
        };
        if known(word) {
            return Ok(word.into());
        }
        if let Some((_, digest)) = word.split_once('@').filter(|(_, digest)| known(digest)) {
            return Ok(digest.into());
        }
        if let Some(named) = self.local_image(word)? {
            let by_source = list.sources.iter().find(|(_, s)| **s == Source::Image(named.image.id.clone()));
            if let Some((digest, _)) = by_source {
                return Ok(digest.clone());
            }
        }
        Err(Error::engine(format_args!(
            "finding instance for \"{word}\": no instance matching it found in manifest list"
        )))
    }

    /// Changes what an entry says; without `word` what the list says of itself.
    pub fn annotate_list(
        &self,
        list: &mut List,
        word: Option<&str>,
        says: &Entry,
        subject: Option<Value>,
    ) -> Result<()> {
        match word {
            None => annotate(&mut list.index, &says.annotations),
            Some(word) => {
                let digest = self.digest_in_list(list, word)?;
                let entry = entries(&mut list.index)?.iter_mut().find(|e| e["digest"] == digest.as_str());
                if let Some(entry) = entry {
                    says.write(entry);
                }
            }
        }
        if let Some(subject) = subject {
            list.index["subject"] = subject;
        }
        list.index["mediaType"] = media_type(&list.index).into();
        self.store.write_list(list).map_err(Error::engine)
    }

    /// Takes an entry out.
    pub fn remove_from_list(&self, list: &mut List, word: &str) -> Result<()> {
        let digest = self.digest_in_list(list, word)?;
        entries(&mut list.index)?.retain(|e| e["digest"] != digest.as_str());
        list.sources.remove(&digest);
        list.index["mediaType"] = media_type(&list.index).into();
        self.store.write_list(list).map_err(Error::engine)
    }

    /// The image of a list that runs on this machine.
    pub(crate) fn image_of_list(&self, image: &Image) -> Result<Image> {
        let list = self.store.list(&image.id).map_err(Error::engine)?;
        let entries = list.index["manifests"].as_array().cloned().unwrap_or_default();
        for entry in entries {
            let offered: Option<Platform> = serde_json::from_value(entry["platform"].clone()).ok();
            let fits = offered.is_some_and(|p| Platform::host().fitness(&p).is_some());
            let source = entry["digest"].as_str().and_then(|d| list.sources.get(d));
            if let (true, Some(Source::Image(id))) = (fits, source)
                && let Some(found) = self.store.image_by_id(id).map_err(Error::engine)?
            {
                return Ok(found);
            }
        }
        Err(Error::engine(format_args!(
            "manifest list {}: no image for {} of it is in the store",
            image.id,
            Platform::host()
        )))
    }

    /// Pushes a list, and before it what it names unless `alone`; the digest of the list.
    pub fn push_list(
        &self,
        list: &List,
        destination: &str,
        options: &PushOptions,
        (alone, add_zstd): (bool, bool),
        progress: &dyn Progress,
    ) -> Result<Digest> {
        self.enter()?;
        let text = destination.strip_prefix("docker://").unwrap_or(destination);
        let reference = Reference::parse_normalized(text).map_err(Error::engine)?.or_latest();
        let client = self.client(&options.registry)?;
        let push = Push { engine: self, client: &client, reference: &reference, options, progress };
        let mut index = list.index.clone();
        if !alone {
            progress.say("Getting image list signatures");
            let mut added = Vec::new();
            for entry in entries(&mut index)? {
                let digest = entry["digest"].as_str().unwrap_or_default().to_string();
                let source = list.sources.get(&digest).ok_or_else(|| {
                    Error::engine(format_args!("manifest {digest} of the list: where it is, is not known"))
                })?;
                progress.say(&format!("Copying image {digest}"));
                match source {
                    Source::Image(id) => added.extend(self.push_entry(&push, id, entry, add_zstd)?),
                    Source::Registry(from) => push.copy_manifest(from, &digest)?,
                    Source::Artifact => push.artifact(&list.id, &digest)?,
                }
            }
            entries(&mut index)?.extend(added);
        }
        let kind = match options.kind {
            Some(unroot_store::Kind::Docker) => DOCKER_LIST,
            Some(unroot_store::Kind::Oci) => OCI_INDEX,
            None => media_type(&index),
        };
        index["mediaType"] = kind.into();
        progress.say("Writing manifest list to image destination");
        let bytes = index.to_string();
        let digest = client.push_manifest(&reference, kind, bytes.as_bytes()).map_err(registry_error)?;
        self.dirs.events.image("push", &list.id, destination);
        Ok(digest)
    }

    /// An image of the store; with `add_zstd` a second time, compressed so, as an entry of its own.
    fn push_entry(
        &self,
        push: &Push<'_>,
        id: &str,
        entry: &mut Value,
        add_zstd: bool,
    ) -> Result<Option<Value>> {
        let image = self.store.image_by_id(id).map_err(Error::engine)?;
        let image = image.ok_or_else(|| Error::not_found(format_args!("{id}: image not known")))?;
        let set = |entry: &mut Value, digest: &Digest, made: &[u8]| {
            entry["digest"] = digest.as_str().into();
            entry["size"] = made.len().into();
            entry["mediaType"] = unroot_store::Kind::of(made).manifest().into();
        };
        let (digest, made) = push.image(&image, false)?;
        set(entry, &digest, &made);
        if !add_zstd {
            return Ok(None);
        }
        let zstd = PushOptions {
            compression: Some(unroot_store::Compression::Zstd),
            kind: Some(unroot_store::Kind::Oci),
            level: None,
            force: true,
            registry: push.options.registry.clone(),
        };
        let mut second = entry.clone();
        let (digest, made) = Push { options: &zstd, ..*push }.image(&image, false)?;
        set(&mut second, &digest, &made);
        annotate(&mut second, &[(ZSTD_NOTE.into(), "true".into())]);
        Ok(Some(second))
    }
}

/// All entries, or the one for the platform that was asked for or is this machine's.
fn chosen(all: Vec<(Value, Source)>, everything: bool, says: &Entry) -> Vec<(Value, Source)> {
    if everything {
        return all;
    }
    let host = Platform::host();
    let wanted = Platform::new(
        says.os.as_deref().unwrap_or(&host.os),
        says.architecture.as_deref().unwrap_or(&host.architecture),
        says.variant.as_deref(),
    );
    let fitness = |entry: &Value| {
        let offered: Platform = serde_json::from_value(entry["platform"].clone()).ok()?;
        wanted.fitness(&offered)
    };
    all.into_iter()
        .filter_map(|(entry, source)| Some((fitness(&entry)?, entry, source)))
        .min_by_key(|(fitness, ..)| *fitness)
        .map(|(_, entry, source)| (entry, source))
        .into_iter()
        .collect()
}

/// What a file is, as far as its beginning tells.
fn guess(start: &[u8]) -> &'static str {
    match start {
        [0x1f, 0x8b, ..] => "application/x-gzip",
        [0x25, 0x50, 0x44, 0x46, ..] => "application/pdf",
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        start if std::str::from_utf8(start).is_ok_and(|t| !t.contains('\0')) => "text/plain",
        _ => "application/octet-stream",
    }
}

impl Push<'_> {
    /// Copies an image of another repository with all its blobs.
    fn copy_manifest(&self, from: &str, digest: &str) -> Result<()> {
        let digest: Digest = digest.parse().map_err(Error::engine)?;
        let source = Reference::parse_normalized(from).map_err(Error::engine)?.with_digest(digest.clone());
        let manifest = self.client.manifest(&source).map_err(registry_error)?;
        let value: Value = serde_json::from_slice(&manifest.bytes).context(|| source.to_string())?;
        for blob in blobs_of(&value).context(|| source.to_string())? {
            let mut open = || {
                let reader = self.client.blob(&source, &blob).map_err(io::Error::other)?;
                Ok(Box::new(reader) as Box<dyn Read>)
            };
            self.client.push_blob(self.reference, &blob, &mut open).map_err(registry_error)?;
        }
        self.manifest_by_digest(&manifest.media_type, &manifest.bytes, digest)
    }

    /// Pushes an artifact that is kept beside a list.
    fn artifact(&self, list: &str, digest: &str) -> Result<()> {
        let store = &self.engine.store;
        let mut bytes = Vec::new();
        store
            .list_blob(list, digest)
            .map_err(Error::engine)?
            .read_to_end(&mut bytes)
            .context(|| format!("read artifact {digest}"))?;
        let value: Value = serde_json::from_slice(&bytes).context(|| format!("artifact {digest}"))?;
        for blob in blobs_of(&value).context(|| format!("artifact {digest}"))? {
            let mut open = || {
                let file = store.list_blob(list, blob.digest.as_str()).map_err(io::Error::other)?;
                Ok(Box::new(file) as Box<dyn Read>)
            };
            self.client.push_blob(self.reference, &blob, &mut open).map_err(registry_error)?;
        }
        self.manifest_by_digest(OCI_MANIFEST, &bytes, digest.parse().map_err(Error::engine)?)
    }

    fn manifest_by_digest(&self, media_type: &str, bytes: &[u8], digest: Digest) -> Result<()> {
        let reference = self.reference.without_tag_and_digest().with_digest(digest);
        self.client.push_manifest(&reference, media_type, bytes).map_err(registry_error).map(drop)
    }
}

fn blobs_of(manifest: &Value) -> serde_json::Result<Vec<Descriptor>> {
    let config = std::iter::once(&manifest["config"]);
    config
        .chain(manifest["layers"].as_array().into_iter().flatten())
        .cloned()
        .map(serde_json::from_value)
        .collect()
}
