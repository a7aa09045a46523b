//! The tree is the architecture: a crate depends on lower floors only.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The floors, from the ground up; see ARCHITECTURE.md.
const FLOORS: &[&[&str]] = &[
    &["sys", "payload"],
    &["idmap", "cgroup", "network", "store", "registry"],
    &["runtime", "monitor", "explain"],
    &["engine"],
    &["builder", "kube"],
    &["api", "cri"],
    &["unroot"],
];

fn floor_of(name: &str) -> usize {
    FLOORS.iter().position(|f| f.contains(&name)).unwrap_or_else(|| panic!("crates/{name} is on no floor"))
}

fn crates() -> BTreeMap<String, toml::Table> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("Cargo.toml").exists())
        .map(|entry| {
            let text = fs::read_to_string(entry.path().join("Cargo.toml")).unwrap();
            (entry.file_name().into_string().unwrap(), text.parse().unwrap())
        })
        .collect()
}

#[test]
fn a_crate_depends_on_lower_floors_only() {
    let crates = crates();
    assert!(crates.len() >= 10, "found {:?}", crates.keys());
    for (name, manifest) in &crates {
        let package = if name == "unroot" { name.clone() } else { format!("unroot-{name}") };
        assert_eq!(manifest["package"]["name"].as_str(), Some(package.as_str()), "crates/{name}");
        for table in ["dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(table).and_then(|t| t.as_table()) else { continue };
            for dependency in dependencies.keys().filter_map(|d| d.strip_prefix("unroot-")) {
                assert!(
                    floor_of(dependency) < floor_of(name),
                    "crates/{name} (floor {}) depends on {dependency} (floor {})",
                    floor_of(name),
                    floor_of(dependency),
                );
            }
        }
    }
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    for (name, manifest) in crates() {
        let inherits =
            manifest.get("lints").and_then(|l| l.get("workspace")).and_then(|w| w.as_bool()).unwrap_or(false);
        assert_eq!(inherits, name != "sys", "crates/{name}: [lints] workspace = true, in all but sys");
    }
}
