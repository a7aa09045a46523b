//! The image that is built into the program: no network, no registry.

use unroot_store::{Config, History, ImageConfig};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::images::Named;

/// Its full name.
pub const NAME: &str = "localhost/unroot/hello:latest";

impl Engine {
    /// The image `unroot/hello`, made when it is first asked for.
    pub fn hello_image(&self) -> Result<Named> {
        if let Some(image) = self.store.image_by_name(NAME).map_err(Error::engine)? {
            return Ok(Named { image, name: NAME.into() });
        }
        self.enter()?;
        let now = unroot_monitor::log::now();
        let config = ImageConfig {
            created: Some(unroot_monitor::log::format_nanos(now)),
            architecture: if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }.into(),
            os: "linux".into(),
            config: Config { cmd: vec!["/hello".into()], env: vec!["PATH=/".into()], ..Config::default() },
            ..ImageConfig::default()
        };
        let archive = archive();
        let everything = |_: &str, _: u64, _: u64| Ok(());
        let image = self
            .store
            .import(&archive[..], config, History::default(), &[NAME.to_string()], &everything, now)
            .map_err(Error::engine)?;
        Ok(Named { image, name: NAME.into() })
    }
}

/// A tar of the program and the users that it may be run as.
fn archive() -> Vec<u8> {
    let mut tar = Vec::new();
    let mut add = |name: &str, mode: u32, data: &[u8]| {
        let mut header = [0u8; 512];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", data.len()));
        put(136, "00000000000");
        put(148, "        ");
        put(156, if name.ends_with('/') { "5" } else { "0" });
        put(257, "ustar\x0000");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend(header);
        tar.extend(data);
        tar.resize(tar.len().next_multiple_of(512), 0);
    };
    add("etc/", 0o755, b"");
    add("etc/passwd", 0o644, b"root:x:0:0:root:/:/hello\nsync:x:5:0:sync:/:/hello\n");
    add("etc/group", 0o644, b"root:x:0:\n");
    add("hello", 0o755, unroot_payload::HELLO);
    tar.resize(tar.len() + 1024, 0);
    tar
}
