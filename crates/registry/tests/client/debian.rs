//! The real thing: Debian's docker-registry, with plain HTTP, with passwords, with TLS.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use unroot_registry::manifest::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use unroot_registry::{Client, Credentials, Descriptor, ErrorKind, Options, Platform, Reference};

use crate::{LAYER, manifest_of, noise, options, reference};

/// `me` with the password `secret`, as `htpasswd -nbB me secret` prints it.
const HTPASSWD: &str = include_str!("pem/htpasswd");

/// A registry on loopback with storage of its own; it ends with this value.
struct Registry {
    address: String,
    process: Child,
    _directory: tempfile::TempDir,
}

impl Registry {
    fn start(extra: impl Fn(&Path) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let storage = directory.path().join("storage");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n{}",
            storage.display(),
            extra(directory.path()).replace("ADDRESS", &address),
        );
        let path = directory.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.path().join("log")).unwrap())
            .spawn()
            .expect("this test needs the program docker-registry: apt-get install docker-registry");
        let mut registry = Self { address, process, _directory: directory };
        registry.wait();
        registry
    }

    fn plain() -> Self {
        Self::start(|_| "http: {addr: ADDRESS}\n".to_owned())
    }

    fn wait(&mut self) {
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&self.address).is_err() {
            assert!(self.process.try_wait().unwrap().is_none(), "docker-registry ended: {}", self.log());
            assert!(
                Instant::now() < end,
                "docker-registry does not listen on {}: {}",
                self.address,
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self._directory.path().join("log")).unwrap_or_default()
    }

    fn name(&self, name: &str) -> Reference {
        reference(&format!("{}/{name}", self.address))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Real registries take longer than hostile ones are given.
fn patient() -> Options {
    Options { timeouts: unroot_registry::Timeouts::default(), ..options() }
}

fn push_bytes(client: &Client, name: &Reference, descriptor: &Descriptor, bytes: &[u8]) {
    let mut open = || -> io::Result<Box<dyn Read>> { Ok(Box::new(io::Cursor::new(bytes.to_vec()))) };
    client.push_blob(name, descriptor, &mut open).unwrap();
}

/// Pushes an image of the layers under the name; gives its manifest.
fn push_image(client: &Client, name: &Reference, layers: &[&[u8]]) -> Vec<u8> {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    push_bytes(client, name, &Descriptor::of(OCI_CONFIG, config), config);
    thread::scope(|scope| {
        for layer in layers {
            scope.spawn(move || push_bytes(client, name, &Descriptor::of(LAYER, layer), layer));
        }
    });
    let manifest = manifest_of(config, layers);
    client.push_manifest(name, OCI_MANIFEST, &manifest).unwrap();
    manifest
}

fn pull_layers(client: &Client, name: &Reference) -> Vec<Vec<u8>> {
    let resolved = client.resolve(name, &"linux/amd64".parse::<Platform>().unwrap()).unwrap();
    client.config(&resolved.reference, &resolved.config).unwrap();
    let read = |layer: &Descriptor| {
        let mut bytes = Vec::new();
        client.blob(&resolved.reference, layer).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    thread::scope(|scope| {
        let threads: Vec<_> = resolved.layers.iter().map(|layer| scope.spawn(move || read(layer))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn push_pull_mount_list() {
    let registry = Registry::plain();
    let client = Client::new(patient()).unwrap();
    let (one, two) = (noise(3_000_000), noise(70_001));
    let name = registry.name("team/app:1");
    let manifest = push_image(&client, &name, &[&one, &two, b""]);
    assert_eq!(client.manifest(&name).unwrap().bytes, manifest);
    assert!(pull_layers(&client, &name) == [one.clone(), two.clone(), Vec::new()]);

    let layer = Descriptor::of(LAYER, &one);
    let other = registry.name("team/other:1");
    assert!(!client.has_blob(&other, &layer.digest).unwrap());
    assert!(client.mount_blob(&other, "team/app", &layer.digest).unwrap());
    assert!(client.has_blob(&other, &layer.digest).unwrap());
    let absent = Descriptor::of(LAYER, b"nowhere");
    assert!(!client.mount_blob(&other, "team/app", &absent.digest).unwrap());

    push_image(&client, &registry.name("team/app:2"), &[&two]);
    let mut tags = client.tags(&name).unwrap();
    tags.sort();
    assert_eq!(tags, ["1", "2"]);
    assert_eq!(client.catalog(&registry.address, 10).unwrap(), ["team/app", "team/other"]);
    let found = client.search(&registry.address, "app", 10).unwrap();
    assert_eq!(found[0].name, format!("{}/team/app", registry.address));

    let missing = client.resolve(&registry.name("team/app:3"), &Platform::host()).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().ends_with("manifest unknown"), "{missing}");
    assert_eq!(client.blob(&name, &absent).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn push_and_pull_an_index() {
    let registry = Registry::plain();
    let client = Client::new(patient()).unwrap();
    let layer = noise(5000);
    let manifest = push_image(&client, &registry.name("multi:amd64"), &[&layer]);
    let entry = Descriptor {
        platform: Some("linux/amd64".parse().unwrap()),
        ..Descriptor::of(OCI_MANIFEST, &manifest)
    };
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]});
    let index = serde_json::to_vec(&index).unwrap();
    let digest = client.push_manifest(&registry.name("multi:1"), OCI_INDEX, &index).unwrap();
    assert!(pull_layers(&client, &registry.name("multi:1")) == [layer.clone()]);
    assert!(pull_layers(&client, &registry.name("multi").with_digest(digest)) == [layer]);
}

/// A byte pump in front of the registry that breaks each connection after so many bytes of answers.
fn breaking_proxy(target: String, after: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(&target) else { return };
            let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                let _ = io::copy(&mut up, &mut down);
            });
            thread::spawn(move || {
                let mut client = client;
                let _ = io::copy(&mut server.take(after as u64), &mut client);
                let _ = client.flush();
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    address
}

#[test]
fn pulls_through_connections_that_break() {
    let registry = Registry::plain();
    let layer = noise(2_000_000);
    push_image(&Client::new(patient()).unwrap(), &registry.name("big:1"), &[&layer]);
    let proxy = breaking_proxy(registry.address.clone(), 500_000);
    assert!(pull_layers(&Client::new(patient()).unwrap(), &reference(&format!("{proxy}/big:1"))) == [layer]);
}

#[test]
fn passwords() {
    let registry = Registry::start(|directory| {
        let path = directory.join("htpasswd");
        fs::write(&path, HTPASSWD).unwrap();
        format!("http: {{addr: ADDRESS}}\nauth: {{htpasswd: {{realm: test, path: {}}}}}\n", path.display())
    });
    let name = registry.name("private:1");
    let good = Credentials::parse("me:secret").unwrap();
    let anonymous = Client::new(patient()).unwrap();
    anonymous.login(&registry.address, &good).unwrap();
    let wrong = anonymous.login(&registry.address, &Credentials::parse("me:wrong").unwrap()).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Unauthorized);
    let client = Client::new(Options { credentials: Some(good), ..patient() }).unwrap();
    push_image(&client, &name, &[b"layer"]);
    assert_eq!(pull_layers(&client, &name), [b"layer"]);
    let error = anonymous.resolve(&name, &Platform::host()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.to_string().contains("authentication required"), "{error}");
}

#[test]
fn certificates() {
    let pem = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client/pem");
    let registry = Registry::start(|_| {
        let (certificate, key) = (pem.join("server.cert"), pem.join("server.key"));
        format!(
            "http: {{addr: ADDRESS, tls: {{certificate: {}, key: {}}}}}\n",
            certificate.display(),
            key.display()
        )
    });
    let name = registry.name("safe:1");
    let trust = tempfile::tempdir().unwrap();
    fs::copy(pem.join("ca.crt"), trust.path().join("ca.crt")).unwrap();
    let client = Client::new(Options { cert_dir: Some(trust.path().into()), ..patient() }).unwrap();
    push_image(&client, &name, &[b"layer"]);
    assert_eq!(pull_layers(&client, &name), [b"layer"]);
    let error = crate::client().resolve(&name, &Platform::host()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
}
