//! What a registry lists: tags, repositories, search results; and the check of a login.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Uri, header};

use super::Inner;
use super::address::{resolve, with_query};
use super::backoff::Backoff;
use super::exchange::{Access, Call, Payload, Reply};
use crate::auth::Credentials;
use crate::error::{Error, ErrorKind};
use crate::manifest::printable;
use crate::reference::{Reference, check_registry};

const PAGE_MAX: u64 = 8 << 20;
const PAGES_MAX: usize = 1000;
const NAMES_MAX: usize = 1_000_000;
const HUB: &str = "docker.io";
/// Who answers searches in the Hub.
const HUB_INDEX: &str = "index.docker.io";

/// One line of `search`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchResult {
    /// The registry that was asked.
    pub index: String,
    /// `registry/repository`.
    pub name: String,
    /// The description, empty if unknown.
    pub description: String,
    /// Stars; 0 if unknown.
    pub stars: u64,
    /// Official image.
    pub official: bool,
    /// Automated build.
    pub automated: bool,
}

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Found {
    results: Option<Vec<FoundEntry>>,
}

#[derive(Deserialize)]
struct FoundEntry {
    #[serde(default)]
    name: String,
    description: Option<String>,
    #[serde(default)]
    star_count: u64,
    #[serde(default)]
    is_official: bool,
    #[serde(default)]
    is_automated: bool,
}

/// The tags of a repository.
pub(super) fn tags(inner: &Inner, repository: &Reference) -> Result<Vec<String>, Error> {
    let source = inner.options.conf.destination(repository)?;
    let access = Access::repository(inner, &source, "pull")?;
    let mut all = Vec::new();
    let first = format!("/v2/{}/tags/list", repository.repository());
    let listed = pages(&access, first, |page: Tags| {
        all.extend(page.tags.unwrap_or_default().iter().map(|tag| printable(tag)));
        all.len() < NAMES_MAX
    });
    listed
        .map(|()| all)
        .map_err(|error| error.context(format_args!("fetching tags list of {}", repository.name())))
}

/// The repositories of a registry.
pub(super) fn catalog(inner: &Inner, registry: &str, limit: usize) -> Result<Vec<String>, Error> {
    filtered_catalog(inner, registry, "", limit)
}

fn filtered_catalog(inner: &Inner, registry: &str, term: &str, limit: usize) -> Result<Vec<String>, Error> {
    check(registry)?;
    let access = Access::registry(inner, registry, vec!["registry:catalog:*".to_owned()])?;
    let mut found: Vec<String> = Vec::new();
    let mut exact = false;
    let listed = pages(&access, "/v2/_catalog".to_owned(), |page: Catalog| {
        for name in page.repositories.unwrap_or_default() {
            if name == term {
                exact = true;
            } else if name.contains(term) && found.len() < limit.min(NAMES_MAX) {
                found.push(printable(&name));
            }
        }
        found.len() + usize::from(exact) < limit.min(NAMES_MAX)
    });
    listed.map_err(|error| error.context(format_args!("couldn't search registry {registry:?}")))?;
    // A full match is what was looked for: it leads.
    if exact {
        found.insert(0, term.to_owned());
    }
    found.truncate(limit);
    Ok(found)
}

/// Searches by the v1 API, else in the catalogue.
pub(super) fn search(
    inner: &Inner,
    registry: &str,
    term: &str,
    limit: usize,
) -> Result<Vec<SearchResult>, Error> {
    check(registry)?;
    let on_hub = registry == HUB;
    if !term.is_empty()
        && let Ok(found) = search_v1(inner, registry, term, limit)
    {
        return Ok(found);
    }
    if on_hub {
        // The Hub has no catalogue: say what its index said.
        return search_v1(inner, registry, term, limit);
    }
    let names = filtered_catalog(inner, registry, term, limit)?;
    let result = |name: String| SearchResult {
        index: registry.to_owned(),
        name: format!("{registry}/{name}"),
        ..SearchResult::default()
    };
    Ok(names.into_iter().map(result).collect())
}

fn search_v1(inner: &Inner, registry: &str, term: &str, limit: usize) -> Result<Vec<SearchResult>, Error> {
    let on_hub = registry == HUB;
    // The Hub's index does not know its official images by their full path.
    let term = if on_hub { term.strip_prefix("library/").unwrap_or(term) } else { term };
    let access = Access::registry(inner, if on_hub { HUB_INDEX } else { registry }, Vec::new())?;
    let path = with_query("/v1/search", &[("q", term), ("n", &limit.to_string())]);
    let (_, found): (_, Found) = Backoff::new(&inner.options).run(|| page(&access, &path))?;
    let results = found.results.unwrap_or_default().into_iter().take(limit);
    Ok(results.map(|entry| entry.on(registry)).collect())
}

impl FoundEntry {
    fn on(self, registry: &str) -> SearchResult {
        let owner = if registry == HUB && !self.name.contains('/') { "library/" } else { "" };
        SearchResult {
            index: registry.to_owned(),
            name: format!("{registry}/{owner}{}", printable(&self.name)),
            description: printable(&self.description.unwrap_or_default()),
            stars: self.star_count,
            official: self.is_official,
            automated: self.is_automated,
        }
    }
}

/// Checks credentials.
pub(super) fn login(inner: &Inner, registry: &str, credentials: &Credentials) -> Result<(), Error> {
    check(registry)?;
    let access = Access::registry(inner, registry, Vec::new())?.acting_as(credentials);
    let checked =
        Backoff::new(&inner.options).run(|| access.expect(&Call::get("/v2/"), &mut Payload::Empty).map(drop));
    checked.map_err(|error| match error.kind() {
        ErrorKind::Unauthorized | ErrorKind::Denied => {
            let error = error.reworded("invalid username/password").without_hint();
            error.context(format_args!("logging into {registry:?}"))
        }
        _ => error.context(format_args!("authenticating creds for {registry:?}")),
    })
}

fn check(registry: &str) -> Result<(), Error> {
    check_registry(registry).map_err(|error| Error::new(ErrorKind::Config, error.to_string()))
}

/// Reads a list page by page until it ends, `take` has enough, or there are too many pages.
fn pages<T: DeserializeOwned>(
    access: &Access,
    first: String,
    mut take: impl FnMut(T) -> bool,
) -> Result<(), Error> {
    let mut path = first;
    for _ in 0..PAGES_MAX {
        let (next, content) = Backoff::new(access.options()).run(|| page(access, &path))?;
        match (take(content), next) {
            (true, Some(next)) if next == path => {
                return Err(Error::new(
                    ErrorKind::Protocol,
                    format!("the list goes on at its own page {path:?}"),
                ));
            }
            (true, Some(next)) => path = next,
            _ => return Ok(()),
        }
    }
    Err(Error::new(ErrorKind::TooLarge, format!("the list has more than {PAGES_MAX} pages")))
}

/// One page and the path of the next.
fn page<T: DeserializeOwned>(access: &Access, path: &str) -> Result<(Option<String>, T), Error> {
    let reply = access.expect(&Call::get(path), &mut Payload::Empty)?;
    let next = next_page(&reply)?;
    let call = reply.call.clone();
    let bytes = access.read_small(reply, PAGE_MAX)?;
    let content = serde_json::from_slice(&bytes)
        .map_err(|error| Error::new(ErrorKind::Protocol, format!("{call}: parsing the list: {error}")))?;
    Ok((next, content))
}

/// `Link: <...>; rel="next"`: only its path counts, a list does not leave its registry.
fn next_page(reply: &Reply) -> Result<Option<String>, Error> {
    let Some(link) = reply.header(header::LINK) else { return Ok(None) };
    let target =
        link.split(';').next().unwrap_or_default().trim().trim_start_matches('<').trim_end_matches('>');
    let uri: Uri = resolve(&reply.uri, target)?;
    Ok(uri.path_and_query().map(|path| path.as_str().to_owned()))
}
