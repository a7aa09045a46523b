//! `--filter` of `images`, `image prune` and `system prune`: `key=value` and `key!=value`.

use unroot_engine::Engine;
use unroot_engine::plan::glob;
use unroot_store::Image;

use crate::cli::CliError;
use crate::moment::{Direction, parse};
use crate::verbs::images::created;

/// One condition.
enum Condition {
    Reference(String, Option<String>),
    Id(String),
    Digest(String),
    Dangling(bool),
    Intermediate(bool),
    Label(String, Option<String>),
    Before(i64),
    Since(i64),
    Containers(bool),
    Manifest(bool),
    ReadOnly(bool),
}

struct Filter {
    condition: Condition,
    negated: bool,
}

/// All conditions of a command line. Those of one key are alternatives, but labels hold all.
pub struct Filters {
    all: Vec<(String, Vec<Filter>)>,
    used: Vec<String>,
}

impl Filters {
    /// Reads them.
    pub fn parse(engine: &Engine, texts: &[String]) -> Result<Self, CliError> {
        let mut all: Vec<(String, Vec<Filter>)> = Vec::new();
        for text in texts {
            let (key, value, negated) = match (text.split_once("!="), text.split_once('=')) {
                (Some((key, value)), Some((other, _))) if key.len() < other.len() => (key, value, true),
                (_, Some((key, value))) => (key, value, false),
                _ => {
                    return Err(CliError::new(format!(
                        "invalid image filter \"{text}\": must be in the format \"filter=value or filter!=value\""
                    )));
                }
            };
            let filter = Filter { condition: condition(engine, key, value)?, negated };
            // (every label counts, and what is not wanted is not wanted whatever else is)
            let alone = negated || key == "label";
            match all.iter_mut().find(|(known, _)| known == key).filter(|_| !alone) {
                Some((_, filters)) => filters.push(filter),
                None => all.push((if alone { text.clone() } else { key.into() }, vec![filter])),
            }
        }
        let asks = all.iter().flat_map(|(_, f)| f).any(|f| matches!(f.condition, Condition::Containers(_)));
        let used = match asks {
            true => engine.containers()?.into_iter().filter_map(|r| Some(r.image?.id)).collect(),
            false => Vec::new(),
        };
        Ok(Self { all, used })
    }

    /// What an image's configuration says is asked for.
    pub fn need_configuration(&self) -> bool {
        self.all.iter().flat_map(|(_, f)| f).any(|f| matches!(f.condition, Condition::Label(..)))
    }

    /// The image is wanted.
    pub fn hold_for(&self, image: &Image, names: &[&str]) -> bool {
        self.all
            .iter()
            .all(|(_, filters)| filters.iter().any(|f| self.holds(&f.condition, image, names) != f.negated))
    }

    /// Of a wanted image, this name is.
    pub fn name_is_wanted(&self, image: &Image, name: &str) -> bool {
        self.all.iter().all(|(_, filters)| {
            !filters.iter().any(|f| matches!(f.condition, Condition::Reference(..)))
                || filters.iter().any(|f| self.holds(&f.condition, image, &[name]) != f.negated)
        })
    }

    fn holds(&self, condition: &Condition, image: &Image, names: &[&str]) -> bool {
        match condition {
            Condition::Reference(pattern, id) => {
                id.as_ref() == Some(&image.id) || names.iter().any(|name| is_reference(pattern, name))
            }
            Condition::Id(prefix) => image.id.starts_with(prefix.as_str()),
            Condition::Digest(prefix) => {
                std::iter::once(&image.digest).chain(&image.digests).any(|d| d.starts_with(prefix.as_str()))
            }
            Condition::Dangling(wanted) => names.is_empty() == *wanted,
            // (layers are no images here: nothing lies between two images)
            Condition::Intermediate(wanted) => !wanted,
            Condition::Label(key, value) => match (image.config.config.labels.get(key), value) {
                (Some(known), Some(value)) => known == value,
                (known, None) => known.is_some(),
                (None, Some(_)) => false,
            },
            Condition::Before(time) => created(image) < *time,
            Condition::Since(time) => created(image) > *time,
            Condition::Containers(wanted) => self.used.contains(&image.id) == *wanted,
            Condition::Manifest(wanted) => image.is_list == *wanted,
            Condition::ReadOnly(wanted) => !wanted,
        }
    }
}

fn condition(engine: &Engine, key: &str, value: &str) -> Result<Condition, CliError> {
    let other = || -> Result<i64, CliError> {
        let found = engine.local_image(value)?;
        found
            .map(|named| created(&named.image))
            .ok_or_else(|| CliError::new(format!("{value}: image not known")))
    };
    Ok(match key {
        "reference" => {
            // (an id finds its image, too; a pattern is none)
            let by_id = match value.contains(['*', '?', '[']) {
                true => None,
                false => engine.local_image(value)?.filter(|named| named.name == named.image.id),
            };
            Condition::Reference(value.into(), by_id.map(|named| named.image.id))
        }
        "id" => Condition::Id(value.trim_start_matches("sha256:").into()),
        "digest" => {
            if !value.starts_with("sha256:") {
                return Err(CliError::new(format!("invalid value \"{value}\" for digest filter")));
            }
            Condition::Digest(value.into())
        }
        "dangling" => Condition::Dangling(truth(key, value)?),
        "intermediate" => Condition::Intermediate(truth(key, value)?),
        "manifest" => Condition::Manifest(truth(key, value)?),
        "readonly" => Condition::ReadOnly(truth(key, value)?),
        "containers" if value == "external" => Condition::Containers(false),
        "containers" => Condition::Containers(truth(key, value)?),
        "label" => match value.split_once('=') {
            Some((key, value)) => Condition::Label(key.into(), Some(value.into())),
            None => Condition::Label(value.into(), None),
        },
        "before" => Condition::Before(other()?),
        "since" | "after" => Condition::Since(other()?),
        "until" => Condition::Before(
            parse(value, Direction::Past)
                .ok_or_else(|| CliError::new(format!("invalid value \"{value}\" for until filter")))?,
        ),
        _ => return Err(CliError::new(format!("unsupported image filter \"{key}\""))),
    })
}

fn truth(key: &str, value: &str) -> Result<bool, CliError> {
    match value {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
        _ => Err(CliError::new(format!("non-boolean value \"{value}\" for {key} filter"))),
    }
}

/// A name as a whole, its end, its repository, or a pattern of one of these.
fn is_reference(pattern: &str, name: &str) -> bool {
    let whole = |text: &str| {
        text == pattern || glob(pattern, text) || text.ends_with(&format!("/{pattern}")) || {
            let last = text.rsplit('/').next().unwrap_or(text);
            glob(pattern, last)
        }
    };
    let (repository, _) = crate::view::repository(name);
    whole(name) || whole(&repository)
}
