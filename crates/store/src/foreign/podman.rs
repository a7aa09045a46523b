//! containers-storage with the overlay driver.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Foreign, ForeignLayer, parse, part, read};
use crate::{Error, Result};

#[derive(Deserialize)]
struct ImageRecord {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    layer: String,
}

#[derive(Deserialize)]
struct LayerRecord {
    id: String,
    #[serde(default)]
    parent: String,
    #[serde(default, rename = "diff-digest")]
    diff_id: String,
}

pub fn images(root: &Path) -> Result<(Vec<Foreign>, Vec<Error>)> {
    let records: Vec<ImageRecord> = parse(&root.join("overlay-images/images.json"))?;
    let layers: Vec<LayerRecord> = parse(&root.join("overlay-layers/layers.json"))?;
    let layers: HashMap<String, LayerRecord> = layers.into_iter().map(|l| (l.id.clone(), l)).collect();
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for record in records {
        match image(root, record, &layers) {
            Ok(image) => found.push(image),
            Err(error) => failed.push(error),
        }
    }
    Ok((found, failed))
}

fn image(root: &Path, record: ImageRecord, layers: &HashMap<String, LayerRecord>) -> Result<Foreign> {
    let dir = root.join("overlay-images").join(part(&record.id)?);
    // (a key that is no plain file name is kept in base64)
    let config = read(&dir.join(format!("={}", STANDARD.encode(format!("sha256:{}", record.id)))))?;
    let mut chain = Vec::new();
    let mut next = record.layer.as_str();
    while !next.is_empty() {
        let layer = layers.get(next).filter(|_| chain.len() <= layers.len()).ok_or_else(|| {
            Error::Invalid(format!(
                "image {}: its layer {next} is not in overlay-layers/layers.json",
                record.id
            ))
        })?;
        let id = part(&layer.id)?;
        chain.push(ForeignLayer {
            diff_id: layer.diff_id.clone(),
            list: root.join("overlay-layers").join(format!("{id}.tar-split.gz")),
            tree: root.join("overlay").join(id).join("diff"),
        });
        next = &layer.parent;
    }
    chain.reverse();
    let manifest = read(&dir.join("manifest")).ok();
    Ok(Foreign { manifest, config, layers: chain, names: record.names.unwrap_or_default(), id: record.id })
}
