//! Images by the names that users type, and pulling them.

use std::io::Read;
use std::sync::Mutex;

use unroot_registry::{
    Auth, Client, Descriptor, Name, Options, Platform, Reference, RegistriesConf, Resolved, UserEnvironment,
};
use unroot_store::Image;

use crate::engine::Engine;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::events::Event;
use crate::spec::PullPolicy;
use crate::trust::{Policy, check_signature};

/// How to ask a registry.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// `--tls-verify`.
    pub tls_verify: Option<bool>,
    /// `--cert-dir`.
    pub cert_dir: Option<std::path::PathBuf>,
    /// `--authfile`.
    pub authfile: Option<std::path::PathBuf>,
    /// `--creds USER[:PASSWORD]`.
    pub creds: Option<String>,
    /// `--retry`.
    pub retry: Option<u32>,
    /// `--retry-delay`, seconds.
    pub retry_delay: Option<u64>,
    /// `--platform`, `os/arch[/variant]`.
    pub platform: Option<String>,
}

pub use unroot_store::Progress;

/// An image, and the name that it was found by.
#[derive(Clone, Debug)]
pub struct Named {
    /// The image.
    pub image: Image,
    /// Its full name; its id where it was found by that.
    pub name: String,
}

impl Engine {
    /// Where the user's configuration of registries is.
    pub fn environment(&self) -> UserEnvironment {
        let mut environment = UserEnvironment::current(self.user.uid, self.user.home.clone());
        if let Some(dir) = &self.docker_config {
            environment.docker_config = Some(dir.clone());
        }
        environment
    }

    /// Where images are searched for (containers-registries.conf(5)).
    pub fn registries(&self) -> Result<RegistriesConf> {
        RegistriesConf::load(&self.environment()).map_err(registry_error)
    }

    /// Full names that a typed one may stand for in the store, the likeliest first.
    fn local_candidates(&self, text: &str) -> Result<Vec<String>> {
        let full = |reference: Reference| reference.or_latest().to_string();
        match Name::parse(text) {
            Err(e) => Err(Error::engine(e)),
            Ok(Name::Full(reference)) => Ok(vec![full(reference)]),
            Ok(Name::Short(short)) => {
                let local = short.on_registry("localhost").map(full).map_err(Error::engine)?;
                let mut all = vec![local];
                if let Ok(resolution) =
                    self.registries().and_then(|r| r.resolve_short(&short).map_err(registry_error))
                {
                    all.extend(resolution.candidates.into_iter().map(full));
                }
                all.extend(Reference::parse_normalized(text).map(full).ok());
                Ok(all)
            }
        }
    }

    /// An image of the store by name, digest, id or the beginning of an id.
    pub fn local_image(&self, text: &str) -> Result<Option<Named>> {
        let plain = text.trim_start_matches("sha256:");
        if plain.len() >= 3 && plain.bytes().all(|b| b.is_ascii_hexdigit()) {
            let ids = self.store.ids_with_prefix(plain);
            if let [id] = &ids[..] {
                // a name goes before the beginning of an id
                if plain.len() == 64 || text.starts_with("sha256:") || self.by_name(text)?.is_none() {
                    let image = self.store.image_by_id(id).map_err(Error::engine)?;
                    return Ok(image.map(|image| Named { name: id.clone(), image }));
                }
            }
            if plain.len() == 64 {
                return Ok(None);
            }
        }
        self.by_name(text)
    }

    fn by_name(&self, text: &str) -> Result<Option<Named>> {
        // what is stored under exactly this name needs no parsing
        if text.contains('/')
            && text.rsplit('/').next().is_some_and(|last| last.contains(':'))
            && let Some(image) = self.store.image_by_name(text).map_err(Error::engine)?
        {
            return Ok(Some(Named { image, name: text.into() }));
        }
        if text.starts_with("sha256:") {
            return Ok(None);
        }
        let candidates = self.local_candidates(text)?;
        for name in candidates {
            if let Some(image) = self.store.image_by_name(&name).map_err(Error::engine)? {
                return Ok(Some(Named { image, name }));
            }
            if let Some((repository, digest)) = name.split_once('@') {
                let repository = repository
                    .rsplit_once(':')
                    .filter(|(_, tag)| !tag.contains('/'))
                    .map_or(repository, |(r, _)| r);
                for (known, id) in self.store.names() {
                    if known.starts_with(&format!("{repository}:"))
                        || known.starts_with(&format!("{repository}@"))
                    {
                        let image = self
                            .store
                            .image_by_id(&id)
                            .map_err(Error::engine)?
                            .filter(|i| i.digest == digest || i.digests.iter().any(|d| d == digest));
                        if let Some(image) = image {
                            return Ok(Some(Named { image, name }));
                        }
                    }
                }
            }
        }
        self.by_end_of_name(text)
    }

    /// What no registry is named for is the image whose name ends so.
    fn by_end_of_name(&self, text: &str) -> Result<Option<Named>> {
        let Ok(Name::Short(short)) = Name::parse(text) else { return Ok(None) };
        if short.digest().is_some() {
            return Ok(None);
        }
        let end = format!("/{}:{}", short.path(), short.tag().unwrap_or("latest"));
        for (name, id) in self.store.names().into_iter().filter(|(name, _)| name.ends_with(&end)) {
            if let Some(image) = self.store.image_by_id(&id).map_err(Error::engine)? {
                return Ok(Some(Named { image, name }));
            }
        }
        Ok(None)
    }

    /// An image of the store, or an error.
    pub fn image(&self, text: &str) -> Result<Named> {
        self.local_image(text)?.ok_or_else(|| Error::not_found(format_args!("{text}: image not known")))
    }

    /// The image for a container: of the store or, as the policy says, of a registry.
    pub fn image_or_pull(
        &self,
        text: &str,
        policy: PullPolicy,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Named> {
        if text.is_empty() {
            return Err(Error::engine(
                "repository name must have at least one component: invalid reference format",
            ));
        }
        if text == crate::hello::NAME || text == "unroot/hello" {
            return self.hello_image();
        }
        if self.entered().is_some() {
            self.recover_store()?;
        }
        let mut local = self.local_image(text)?;
        if let Some(list) = local.as_mut().filter(|named| named.image.is_list) {
            list.image = self.image_of_list(&list.image)?;
        }
        match (policy, local) {
            (PullPolicy::Missing | PullPolicy::Never, Some(found)) => self.usable(found),
            (PullPolicy::Never, None) => Err(Error::not_found(format_args!("{text}: image not known"))),
            (PullPolicy::Newer, Some(found)) => match self.is_newer_there(text, &found.image, options) {
                true => self.pull(text, options, progress).or_else(|_| self.usable(found)),
                false => self.usable(found),
            },
            _ => self.pull(text, options, progress),
        }
    }

    /// A registry has another image of this name; false if it cannot be asked.
    fn is_newer_there(&self, text: &str, image: &Image, options: &PullOptions) -> bool {
        let digest = || {
            let text = text.strip_prefix("docker://").unwrap_or(text);
            let client = self.client(options).ok()?;
            let reference = match Name::parse(text).ok()? {
                Name::Full(reference) => reference,
                Name::Short(short) => self
                    .registries()
                    .ok()?
                    .resolve_short(&short)
                    .ok()?
                    .unattended()
                    .ok()?
                    .into_iter()
                    .next()?,
            };
            Some(client.manifest(&reference.or_latest()).ok()?.digest.to_string())
        };
        digest().is_some_and(|there| image.digest != there && !image.digests.contains(&there))
    }

    /// Not one whose layers were lost.
    fn usable(&self, found: Named) -> Result<Named> {
        match self.store.missing_layer(&found.image) {
            None => Ok(found),
            Some(layer) => Err(Error::engine(format_args!(
                "image {}: layer {layer} is missing in the store",
                found.name
            ))
            .with_hint(format_args!(
                "{} pull {}, which fetches only what is missing",
                crate::program(),
                found.name
            ))),
        }
    }

    /// Pulls an image: all its layers at once, each in one pass.
    pub fn pull(&self, text: &str, options: &PullOptions, progress: &dyn Progress) -> Result<Named> {
        self.recover_store()?;
        let pulled = self.pull_now(text, options, progress);
        match &pulled {
            Ok(named) => self.dirs.events.image("pull", &named.image.id, text),
            Err(e) => self.dirs.events.emit(Event {
                kind: "image".into(),
                name: text.into(),
                error: e.to_string(),
                ..Event::new("pull-error")
            }),
        }
        pulled
    }

    fn pull_now(&self, text: &str, options: &PullOptions, progress: &dyn Progress) -> Result<Named> {
        let text = text.strip_prefix("docker://").unwrap_or(text);
        let conf = self.registries()?;
        let (candidates, description) = match Name::parse(text).map_err(Error::engine)? {
            Name::Full(reference) => (vec![reference], None),
            Name::Short(short) => {
                let resolution = conf.resolve_short(&short).map_err(registry_error)?;
                let description = resolution.description.clone();
                (resolution.unattended().map_err(registry_error)?, Some(description))
            }
        };
        if let Some(description) = description {
            progress.say(&description);
        }
        let client = self.client(options)?;
        let policy = Policy::load(&self.policy_path())?;
        let platform = match &options.platform {
            Some(text) => text.parse::<Platform>().map_err(Error::engine)?,
            None => Platform::host(),
        };
        let mut failures = Vec::new();
        for candidate in candidates {
            let reference = candidate.or_latest();
            progress.say(&format!("Trying to pull {reference}..."));
            // (what is rejected anyhow is not asked for)
            policy.check_docker(&reference, &mut |_, _| Ok(()))?;
            match client.resolve(&reference, &platform) {
                Ok(resolved) => {
                    policy.check_docker(&reference, &mut |kind, requirement| {
                        let digest = &resolved.manifest_digest;
                        check_signature(&client, &reference, digest, kind, requirement)
                    })?;
                    return self.fetch(&client, &reference, &resolved, progress);
                }
                Err(e) => failures.push((reference, e)),
            }
        }
        match &failures[..] {
            [] => Err(Error::engine(format_args!("short-name {text:?} did not resolve to an alias and no unqualified-search registries are defined in \"/etc/containers/registries.conf\""))
                .with_hint("write the full name, such as docker.io/library/NAME")),
            [(_, only)] => {
                let hint = only.hint().map(str::to_string);
                let error = Error::engine(format_args!("{only}"));
                Err(hint.into_iter().fold(error, |e, h| e.with_hint(h)))
            }
            several => {
                let lines: Vec<String> = several.iter().map(|(reference, e)| format!("  * {reference}: {e}")).collect();
                Err(Error::engine(format_args!("{} errors occurred while pulling:\n{}", several.len(), lines.join("\n"))))
            }
        }
    }

    /// A client of registries with these options.
    pub fn client(&self, options: &PullOptions) -> Result<Client> {
        let environment = self.environment();
        let conf = self.registries()?;
        let auth = Auth::load(options.authfile.as_deref(), &environment).map_err(registry_error)?;
        Client::new(Options {
            tls_verify: options.tls_verify,
            cert_dir: options.cert_dir.clone(),
            certs_d: environment.certs_d(),
            credentials: options.creds.as_deref().and_then(unroot_registry::Credentials::parse),
            auth: auth.with_helpers(conf.credential_helpers()),
            conf,
            retry: options.retry.unwrap_or(3),
            retry_delay: options.retry_delay.map(std::time::Duration::from_secs),
            ..Options::default()
        })
        .map_err(registry_error)
    }

    fn fetch(
        &self,
        client: &Client,
        reference: &Reference,
        resolved: &Resolved,
        progress: &dyn Progress,
    ) -> Result<Named> {
        progress.say("Getting image source signatures");
        let config = client.config(&resolved.reference, &resolved.config).map_err(registry_error)?;
        let parsed: unroot_store::ImageConfig =
            serde_json::from_slice(&config).context(|| format!("{reference}: image configuration"))?;
        let diff_ids = &parsed.rootfs.diff_ids;
        if diff_ids.len() != resolved.layers.len() {
            return Err(Error::engine(format_args!(
                "{reference}: {} layers, but {} diff IDs",
                resolved.layers.len(),
                diff_ids.len()
            )));
        }
        let ids = self.id_check()?;
        let _lease = self.store.lease().map_err(Error::engine)?;
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || {
            loop {
                let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let (Some(layer), Some(diff_id)) = (resolved.layers.get(n), diff_ids.get(n)) else { return };
                if failure.lock().is_ok_and(|f| f.is_some()) {
                    return;
                }
                if let Err(e) =
                    self.fetch_layer(client, &resolved.reference, n, layer, diff_id, &ids, progress)
                    && let Ok(mut first) = failure.lock()
                {
                    first.get_or_insert(e);
                }
            }
        };
        std::thread::scope(|scope| (0..resolved.layers.len().min(6)).for_each(|_| drop(scope.spawn(work))));
        if let Some(error) = failure.into_inner().unwrap_or(None) {
            return Err(error);
        }
        let name = reference.to_string();
        let names = std::slice::from_ref(&name);
        let image = self
            .store
            .put_image(&resolved.manifest, &config, names, unroot_monitor::log::now())
            .map_err(Error::engine)?;
        progress.say(&format!("Copying config sha256:{}", image.id));
        progress.say("Writing manifest to image destination");
        if let Some(index) = &resolved.index_digest {
            self.store.add_digest(&image.id, index.as_str()).map_err(Error::engine)?;
        }
        Ok(Named { image, name })
    }

    fn fetch_layer(
        &self,
        client: &Client,
        reference: &Reference,
        n: usize,
        layer: &Descriptor,
        diff_id: &str,
        ids: &IdCheck,
        progress: &dyn Progress,
    ) -> Result<()> {
        progress.begin(n, layer.digest.as_str(), layer.size);
        if self.store.layer(diff_id).is_some() {
            progress.end(n, true);
            return Ok(());
        }
        let blob = client.blob(reference, layer).map_err(registry_error)?;
        let counted = Counted { inner: blob, n, progress };
        let checked = |path: &str, uid: u64, gid: u64| ids.check(path, uid, gid);
        self.store.ingest_layer(counted, Some(diff_id), &checked).map_err(|e| match e {
            unroot_store::Error::Ids(text) => {
                ids.error(&format!("{reference}: layer {}", layer.digest), &text)
            }
            e => Error::engine(format_args!("{reference}: layer {}: {e}", layer.digest)),
        })?;
        let compression = unroot_store::Compression::of_media_type(&layer.media_type);
        let digest = layer.digest.to_string();
        self.store
            .note_blob(diff_id, &unroot_store::Blob { digest, size: layer.size, compression })
            .map_err(Error::engine)?;
        progress.end(n, false);
        Ok(())
    }

    /// Which ids layers may have here.
    pub fn id_check(&self) -> Result<IdCheck> {
        let namespace = self.enter()?;
        Ok(IdCheck {
            missing: std::sync::OnceLock::new(),
            uid: namespace.maps.uid.clone(),
            gid: namespace.maps.gid.clone(),
            user: namespace.user.clone(),
            single: namespace.single_id.clone(),
        })
    }

    /// Ids of the images that a container needs: its own, and those that it mounts.
    pub fn images_of(&self, record: &crate::Record) -> Vec<String> {
        let mounted = record.spec.files.mounts.iter().flat_map(|m| &m.options);
        let mounted = mounted.filter_map(|o| o.strip_prefix("image-id=").map(str::to_string));
        record.image.iter().map(|i| i.id.clone()).chain(mounted).collect()
    }

    /// Names of an image.
    pub fn names_of(&self, id: &str) -> Vec<String> {
        self.store.names().into_iter().filter(|(_, owner)| owner == id).map(|(name, _)| name).collect()
    }
}

/// Ids that the engine's namespace has.
pub struct IdCheck {
    /// The first that there was none of.
    missing: std::sync::OnceLock<(unroot_idmap::IdMap, u64)>,
    uid: unroot_idmap::IdMap,
    gid: unroot_idmap::IdMap,
    user: unroot_idmap::EngineUser,
    single: Option<String>,
}

impl IdCheck {
    /// Why an entry of a layer cannot be made.
    pub fn check(&self, path: &str, uid: u64, gid: u64) -> std::result::Result<(), String> {
        let one = |what: &str, id: u64, map: &unroot_idmap::IdMap, file: &str| match u32::try_from(id)
            .ok()
            .and_then(|id| map.to_outside(id))
        {
            Some(_) => Ok(()),
            None => Err({
                let _ = self.missing.set((map.clone(), id));
                format!(
                    "/{} belongs to {what} {id}, which has no id on the host: {}'s map has the {what}s {} ({file})",
                    path.trim_start_matches('/'),
                    self.user.name,
                    map.ranges()
                )
            }),
        };
        one("uid", uid, &self.uid, "/etc/subuid").and_then(|()| one("gid", gid, &self.gid, "/etc/subgid"))
    }

    /// The error of a layer with such an entry.
    pub fn error(&self, what: &str, text: &str) -> Error {
        let why = self.single.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
        let cure = match self.missing.get() {
            Some((map, id)) => unroot_idmap::engine::cure_of_missing_id(&self.user, map, *id),
            None => unroot_idmap::engine::cure_of_single_id(&self.user),
        };
        Error::engine(format_args!("{what}: {text}{why}")).with_hint(cure)
    }
}

struct Counted<'a, R> {
    inner: R,
    n: usize,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.progress.advance(self.n, length as u64);
        Ok(length)
    }
}

/// A registry's error with its cure.
pub fn registry_error(e: unroot_registry::Error) -> Error {
    let hint = e.hint().map(str::to_string);
    let error = Error::new(ErrorKind::Engine, e);
    hint.into_iter().fold(error, |error, hint| error.with_hint(hint))
}

impl Engine {
    /// Removes an image with all its names, unless a container uses it; says whether it did. Its layers stay until
    /// they are collected.
    pub fn remove_image_if_unused(&self, id: &str) -> Result<bool> {
        // (what cannot be read counts as used)
        let is_used = || {
            self.containers()
                .map_or(true, |all| all.iter().any(|r| self.images_of(r).iter().any(|i| i == id)))
        };
        self.store.remove_image_unless(id, &is_used).map_err(Error::engine)
    }
}

/// Removes an image with all its names, unless a container uses it; says whether it did.
pub fn remove_unused(store: &unroot_store::Store, dirs: &crate::dirs::Dirs, id: &str) -> Result<bool> {
    let used = |r: &crate::Record| r.image.as_ref().is_some_and(|i| i.id == id);
    if crate::record::all(dirs)?.iter().any(used) {
        return Ok(false);
    }
    store.remove_image(id).map_err(Error::engine)?;
    store.collect(&[]).map_err(Error::engine)?;
    Ok(true)
}
