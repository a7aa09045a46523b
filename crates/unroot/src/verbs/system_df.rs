//! `system df`

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::{Value, json};
use unroot_engine::volumes::users_of;
use unroot_engine::{Engine, Record, State, Status};
use unroot_monitor::log::now;
use unroot_store::Image;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output::{ago, formatted, human, line};
use crate::verbs::Verb;
use crate::verbs::images::created;
use crate::view::repository;

pub const VERB: Verb = Verb {
    names: &["system df"],
    usage: "[options]",
    about: "Show how much space images, containers and volumes take",
    flags: || {
        vec![
            flag("format", ' ', Kind::Value, "json, or a Go template"),
            flag("verbose", 'v', Kind::Bool, "Each image, container and volume"),
        ]
    },
    interspersed: true,
    count: (0, 0),
    run,
};

const HEADINGS: [(&str, &str); 8] = [
    ("Type", "TYPE"),
    ("Total", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
    ("RawSize", "RAW SIZE"),
    ("RawReclaimable", "RAW RECLAIMABLE"),
    ("TotalCount", "TOTAL COUNT"),
];

/// What there is.
struct Disk {
    images: Vec<Image>,
    /// How many images have a layer.
    sharers: HashMap<String, usize>,
    /// With the bytes of its own layer, and whether it runs.
    containers: Vec<(Record, u64, Status)>,
    /// Name, users, bytes.
    volumes: Vec<(String, usize, u64)>,
}

fn run(global: &Global, args: &Args) -> Outcome {
    if args.is("verbose") && args.value("format").is_some() {
        return Err(CliError::new("cannot combine --format and --verbose flags"));
    }
    let engine = global.engine()?;
    engine.enter()?;
    let disk = Disk::of(&engine)?;
    match args.is("verbose") {
        true => disk.each(&engine),
        false => disk.summary(&engine, args.value("format")),
    }?;
    Ok(0)
}

impl Disk {
    fn of(engine: &Engine) -> Result<Self, CliError> {
        let images: Vec<Image> = engine.store.images().map_err(CliError::new)?;
        let mut sharers: HashMap<String, usize> = HashMap::new();
        for diff_id in images.iter().flat_map(|i| {
            let mut layers = i.layers.clone();
            layers.sort();
            layers.dedup();
            layers
        }) {
            *sharers.entry(diff_id).or_default() += 1;
        }
        let mut containers = Vec::new();
        for record in engine.containers()? {
            let size = tree_size(&engine.dirs.container(&record.id).join("upper"));
            let status = State::observe(&engine.dirs, &record.id)?.status;
            containers.push((record, size, status));
        }
        let mut volumes = Vec::new();
        for volume in engine.store.volumes().list().map_err(CliError::new)? {
            let users = users_of(&engine.dirs, &volume.name)?.len();
            volumes.push((volume.name.clone(), users, tree_size(&engine.store.volumes().data(&volume.name))));
        }
        Ok(Self { images, sharers, containers, volumes })
    }

    fn users(&self, image: &Image) -> usize {
        self.containers.iter().filter(|(r, ..)| r.image.as_ref().is_some_and(|i| i.id == image.id)).count()
    }

    /// Bytes of layers that other images have, too, and of those that none has. An image's records count as its own.
    fn shares(&self, engine: &Engine, image: &Image) -> (u64, u64) {
        let records = engine.store.records_size(&image.id);
        let size = |d: &String| engine.store.layer(d).map_or(0, |l| l.size);
        let (shared, own): (Vec<&String>, Vec<&String>) =
            image.layers.iter().partition(|d| self.sharers.get(*d).is_some_and(|n| *n > 1));
        (shared.into_iter().map(size).sum(), own.into_iter().map(size).sum::<u64>() + records)
    }

    fn summary(&self, engine: &Engine, format: Option<&str>) -> Result<(), CliError> {
        let layers: u64 = self.sharers.keys().filter_map(|d| engine.store.layer(d)).map(|l| l.size).sum();
        let used: u64 = self
            .images
            .iter()
            .filter(|i| self.users(i) > 0)
            .flat_map(|i| &i.layers)
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .filter_map(|d| engine.store.layer(d))
            .map(|l| l.size)
            .sum();
        let active = self.images.iter().filter(|i| self.users(i) > 0).count();
        let running = |status: &Status| *status == Status::Running;
        let total = |of: &dyn Fn(&Status) -> bool| {
            self.containers.iter().filter(|(.., s)| of(s)).map(|(_, size, _)| size).sum::<u64>()
        };
        let volumes: u64 = self.volumes.iter().map(|(.., size)| size).sum();
        let free: u64 = self.volumes.iter().filter(|(_, users, _)| *users == 0).map(|(.., size)| size).sum();
        let rows = [
            ("Images", self.images.len(), active, layers, layers - used),
            (
                "Containers",
                self.containers.len(),
                self.containers.iter().filter(|(.., s)| running(s)).count(),
                total(&|_| true),
                total(&|s| !running(s)),
            ),
            (
                "Local Volumes",
                self.volumes.len(),
                self.volumes.iter().map(|(_, n, _)| n).sum(),
                volumes,
                free,
            ),
        ];
        let is_json = format.is_some_and(|f| f.trim() == "json");
        let row = |(kind, total, active, size, free): (&str, usize, usize, u64, u64)| {
            let percent = if size == 0 { 0 } else { (free as f64 / size as f64 * 100.0).round() as u64 };
            json!({
                "Type": kind, "Total": total, "Active": active, "RawSize": size, "RawReclaimable": free,
                "TotalCount": total, "Size": human(size, 4), "Reclaimable": format!("{} ({percent}%)", human(free, 4)),
            })
        };
        let rows: Vec<Value> = rows.into_iter().map(row).collect();
        if is_json {
            return formatted("json", &rows, &[], true);
        }
        let default = "table {{.Type}}\t{{.Total}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
        formatted(format.unwrap_or(default), &rows, &HEADINGS, false)
    }

    fn each(&self, engine: &Engine) -> Result<(), CliError> {
        line("Images space usage:\n");
        let names = engine.store.names();
        let since = |time: i64| ago((now() - time) / 1_000_000_000);
        let mut rows = Vec::new();
        for image in &self.images {
            let own = names.iter().filter(|(_, id)| *id == image.id).map(|(n, _)| repository(n));
            let mut own: Vec<(String, String)> = own.filter(|(_, tag)| tag != "<none>").collect();
            if own.is_empty() {
                own.push(("<none>".into(), "<none>".into()));
            }
            let (shared, unique) = self.shares(engine, image);
            rows.extend(own.into_iter().map(|(repository, tag)| {
                json!({
                    "Repository": repository, "Tag": tag, "ImageID": image.id[..12], "Created": since(created(image)),
                    "Size": human(shared + unique, 4), "SharedSize": human(shared, 4), "UniqueSize": human(unique, 4),
                    "Containers": self.users(image),
                })
            }));
        }
        let headings = [
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("ImageID", "IMAGE ID"),
            ("Created", "CREATED"),
            ("Size", "SIZE"),
            ("SharedSize", "SHARED SIZE"),
            ("UniqueSize", "UNIQUE SIZE"),
            ("Containers", "CONTAINERS"),
        ];
        formatted(&template(&headings), &rows, &headings, false)?;
        line("\nContainers space usage:\n");
        let row = |(record, size, status): &(Record, u64, Status)| {
            json!({
                "ContainerID": record.id[..12],
                "Image": record.image.as_ref().map_or("", |i| &i.id[..12]),
                "Command": record.spec.process.command.join(" "),
                "LocalVolumes": record.volumes.len(), "RWSize": human(*size, 4),
                "Created": since(record.created), "Status": status.as_str(), "Names": record.name,
            })
        };
        let rows: Vec<Value> = self.containers.iter().map(row).collect();
        let headings = [
            ("ContainerID", "CONTAINER ID"),
            ("Image", "IMAGE"),
            ("Command", "COMMAND"),
            ("LocalVolumes", "LOCAL VOLUMES"),
            ("RWSize", "SIZE"),
            ("Created", "CREATED"),
            ("Status", "STATUS"),
            ("Names", "NAMES"),
        ];
        formatted(&template(&headings), &rows, &headings, false)?;
        line("\nLocal Volumes space usage:\n");
        let row = |(name, links, size): &(String, usize, u64)| json!({"VolumeName": name, "Links": links, "Size": human(*size, 4)});
        let rows: Vec<Value> = self.volumes.iter().map(row).collect();
        let headings = [("VolumeName", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")];
        formatted(&template(&headings), &rows, &headings, false)
    }
}

fn template(headings: &[(&str, &str)]) -> String {
    let fields: Vec<String> = headings.iter().map(|(field, _)| format!("{{{{.{field}}}}}")).collect();
    format!("table {}", fields.join("\t"))
}

/// Bytes of the files in a directory; links are not followed, and what goes meanwhile does not count.
fn tree_size(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => tree_size(&entry.path()),
        Ok(meta) if meta.is_file() => meta.size(),
        _ => 0,
    };
    entries.flatten().map(size).sum()
}
