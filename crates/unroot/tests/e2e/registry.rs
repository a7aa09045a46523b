//! Pulling from a real registry on loopback: Debian's docker-registry.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use unroot_registry::{Client, Descriptor, Options, Reference};

use crate::host::{Host, write_image};

/// A registry of this test's own.
pub struct Registry {
    child: Child,
    pub port: u16,
}

impl Registry {
    pub fn start(host: &Host) -> Self {
        Self::start_with(host, "")
    }

    /// With more in its configuration.
    pub fn start_with(host: &Host, more: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = host.path("registry.yml");
        let storage = host.path("registry");
        std::fs::write(&config, format!("version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n{more}\n", storage.display())).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let registry = Self { child: child.expect("docker-registry: apt-get install docker-registry"), port };
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return registry;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("docker-registry does not answer");
    }

    /// Pushes an image of one layer; `lie` makes its config name another diff ID.
    pub fn push(&self, host: &Host, name: &str, lie: bool) -> String {
        let archive = host.path(&format!("{name}.tar"));
        write_image(&archive);
        let layer = std::fs::read(&archive).unwrap();
        let reference = Reference::parse_normalized(&format!("127.0.0.1:{}/{name}:1", self.port)).unwrap();
        let client = Client::new(Options::default()).unwrap();
        let diff_id = if lie { unroot_store::digest(b"another") } else { unroot_store::digest(&layer) };
        let config = format!(r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/bin/sh"],"Env":["FROM=registry"]}},"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#).into_bytes();
        let push = |media_type: &str, bytes: &[u8]| {
            let descriptor = Descriptor::of(media_type, bytes);
            let mut open = || -> std::io::Result<Box<dyn std::io::Read>> {
                Ok(Box::new(std::io::Cursor::new(bytes.to_vec())))
            };
            client.push_blob(&reference, &descriptor, &mut open).unwrap();
            descriptor
        };
        let layer = push("application/vnd.oci.image.layer.v1.tar", &layer);
        let config = push("application/vnd.oci.image.config.v1+json", &config);
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"{}","digest":"{}","size":{}}},"layers":[{{"mediaType":"{}","digest":"{}","size":{}}}]}}"#,
            config.media_type, config.digest, config.size, layer.media_type, layer.digest, layer.size
        );
        client
            .push_manifest(&reference, "application/vnd.oci.image.manifest.v1+json", manifest.as_bytes())
            .unwrap();
        reference.to_string()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn pull_and_run() {
    let host = Host::empty();
    let registry = Registry::start(&host);
    let name = registry.push(&host, "real", false);
    let printed = host.unroot(["run", "--rm", "--network=none", &name, "sh", "-c", "echo $FROM; id -un"]);
    assert_eq!(printed.out, "registry\nroot\n", "{}", printed.err);
    assert!(
        printed.err.contains("Trying to pull") && printed.err.contains("Copying blob sha256:"),
        "{}",
        printed.err
    );
    let id = host.unroot(["pull", "-q", &name]).ok();
    assert!(host.unroot(["images", "-q", "--no-trunc"]).ok().contains(&id));
    host.unroot(["rmi", &name]).ok();
    assert_eq!(host.unroot(["images", "-q"]).ok(), "");
    assert_eq!(
        std::fs::read_dir(host.path("root/layers")).unwrap().count(),
        0,
        "a layer that no image has is left"
    );
}

#[test]
fn what_is_not_there_or_is_a_lie() {
    let host = Host::empty();
    let registry = Registry::start(&host);
    let liar = registry.push(&host, "liar", true);
    host.unroot(["pull", "-q", &liar]).fails(125, "damaged or forged");
    host.unroot(["pull", "-q", &format!("127.0.0.1:{}/nosuch:1", registry.port)])
        .fails(125, "manifest unknown");
    host.unroot(["pull", "-q", "127.0.0.1:1/image:1"]).fails(125, "refused");
    host.unroot(["pull", "-q", "Upper/Case"]).fails(125, "lowercase");
    assert_eq!(host.unroot(["images", "-q"]).ok(), "");
    assert_eq!(
        std::fs::read_dir(host.path("root/layers")).map_or(0, |d| d.count()),
        0,
        "a part of an image is left"
    );
}
