//! Docker's own image store on overlay2.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::{Foreign, ForeignLayer, parse, part, read};
use crate::image::ImageConfig;
use crate::{Call as _, Error, Result, digest};

#[derive(Deserialize)]
struct Repositories {
    #[serde(rename = "Repositories")]
    all: BTreeMap<String, BTreeMap<String, String>>,
}

pub fn images(root: &Path) -> Result<(Vec<Foreign>, Vec<Error>)> {
    let base = root.join("image/overlay2");
    let repositories: Repositories = parse(&base.join("repositories.json"))?;
    let mut names: HashMap<String, Vec<String>> = HashMap::new();
    for (name, id) in repositories.all.into_values().flatten().filter(|(name, _)| !name.contains('@')) {
        names.entry(id.trim_start_matches("sha256:").into()).or_default().push(name);
    }
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    let content = base.join("imagedb/content/sha256");
    let entries = fs::read_dir(&content).call(|| format!("read {}", content.display()))?;
    for entry in entries.flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        let names = names.remove(&id).unwrap_or_default();
        match image(root, &id, names) {
            Ok(image) => found.push(image),
            Err(error) => failed.push(error),
        }
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok((found, failed))
}

fn image(root: &Path, id: &str, names: Vec<String>) -> Result<Foreign> {
    let base = root.join("image/overlay2");
    let config = read(&base.join("imagedb/content/sha256").join(part(id)?))?;
    let parsed: ImageConfig =
        serde_json::from_slice(&config).map_err(|e| Error::Invalid(format!("image {id}: {e}")))?;
    let mut layers = Vec::new();
    let mut chain = String::new();
    for diff_id in &parsed.rootfs.diff_ids {
        // (image-spec, "Layer ChainID")
        chain = match chain.is_empty() {
            true => diff_id.clone(),
            false => digest(format!("{chain} {diff_id}").as_bytes()),
        };
        let record = base.join("layerdb/sha256").join(part(chain.trim_start_matches("sha256:"))?);
        let cache = String::from_utf8_lossy(&read(&record.join("cache-id"))?).trim().to_string();
        layers.push(ForeignLayer {
            diff_id: diff_id.clone(),
            list: record.join("tar-split.json.gz"),
            tree: root.join("overlay2").join(part(&cache)?).join("diff"),
        });
    }
    Ok(Foreign { id: id.into(), names, manifest: None, config, layers })
}
