//! The verbs: a file each, and the table by which they are found.

use crate::Global;
use crate::cli::{Args, CliError, Flag, Outcome};

mod attach;
pub mod boot;
mod cleanup;
mod clone;
mod commit;
mod complete;
mod completion;
mod connection;
mod cp;
mod create;
mod demo;
mod diff;
mod doctor;
mod events;
mod exec;
mod exists;
mod explain;
mod export;
mod healthcheck;
mod history;
pub mod ids;
mod image_mount;
mod image_prune;
mod image_trust;
pub mod images;
mod import;
mod import_store;
mod info;
mod init;
mod inspect;
mod kill;
pub mod load;
mod login;
mod logs;
mod man;
mod manifest;
mod mount;
mod own;
mod pause;
mod pod;
mod port;
mod prune;
mod ps;
mod pull;
mod push;
mod rename;
mod restart;
mod rm;
mod rmi;
mod run;
mod runlabel;
mod save;
mod search;
mod secret;
mod start;
mod stats;
mod stop;
mod system_check;
mod system_df;
mod system_prune;
mod system_reset;
mod tag;
mod top;
mod tree;
mod unshare;
mod update;
mod version;
mod volume;
mod volume_files;
mod wait;
mod whois;

/// A verb.
pub struct Verb {
    /// Its names: words as they are typed; the first is shown in the overview.
    pub names: &'static [&'static str],
    /// What follows it.
    pub usage: &'static str,
    /// One line.
    pub about: &'static str,
    /// Its flags.
    pub flags: fn() -> Vec<Flag>,
    /// Flags may stand between its arguments.
    pub interspersed: bool,
    /// The least and the most arguments.
    pub count: (usize, usize),
    /// Does it.
    pub run: fn(&Global, &Args) -> Outcome,
}

/// `run`, for those who read its command line.
pub use run::VERB as RUN;

/// Any number of arguments.
pub const ANY: usize = usize::MAX;

/// All verbs.
pub const VERBS: &[&Verb] = &[
    &attach::VERB,
    &commit::VERB,
    &complete::VERB,
    &completion::VERB,
    &cp::VERB,
    &create::VERB,
    &demo::VERB,
    &diff::VERB,
    &diff::CONTAINER,
    &diff::IMAGE,
    &doctor::VERB,
    &events::VERB,
    &exec::VERB,
    &explain::VERB,
    &export::VERB,
    &healthcheck::VERB,
    &ids::VERB,
    &ids::CHECK,
    &ids::ALLOCATE,
    &history::VERB,
    &images::VERB,
    &import::VERB,
    &info::VERB,
    &init::VERB,
    &inspect::VERB,
    &kill::VERB,
    &import_store::VERB,
    &load::VERB,
    &login::LOGIN,
    &login::LOGOUT,
    &logs::VERB,
    &man::VERB,
    &manifest::CREATE,
    &manifest::ADD,
    &manifest::ANNOTATE,
    &manifest::INSPECT,
    &manifest::PUSH,
    &manifest::REMOVE,
    &manifest::DELETE,
    &manifest::EXISTS,
    &mount::MOUNT,
    &mount::UNMOUNT,
    &own::VERB,
    &pause::PAUSE,
    &pause::UNPAUSE,
    &pod::clone::VERB,
    &pod::create::VERB,
    &pod::exists::VERB,
    &pod::inspect::VERB,
    &pod::kill::VERB,
    &pod::logs::VERB,
    &pod::pause::PAUSE,
    &pod::pause::UNPAUSE,
    &pod::prune::VERB,
    &pod::ps::VERB,
    &pod::restart::VERB,
    &pod::rm::VERB,
    &pod::start::VERB,
    &pod::stats::VERB,
    &pod::stop::VERB,
    &pod::top::VERB,
    &port::VERB,
    &ps::VERB,
    &pull::VERB,
    &push::VERB,
    &rename::VERB,
    &restart::VERB,
    &rm::VERB,
    &rmi::VERB,
    &run::VERB,
    &save::VERB,
    &search::VERB,
    &start::VERB,
    &stats::VERB,
    &stop::VERB,
    &tag::TAG,
    &tag::UNTAG,
    &top::VERB,
    &unshare::VERB,
    &update::VERB,
    &version::VERB,
    &wait::VERB,
    &whois::VERB,
    &exists::CONTAINER,
    &exists::IMAGE,
    &exists::VOLUME,
    &cleanup::VERB,
    &clone::VERB,
    &prune::VERB,
    &runlabel::VERB,
    &inspect::CONTAINER,
    &inspect::IMAGE,
    &image_mount::MOUNT,
    &image_mount::UNMOUNT,
    &image_prune::VERB,
    &image_trust::SHOW,
    &image_trust::SET,
    &tree::VERB,
    &system_check::VERB,
    &system_df::VERB,
    &system_prune::VERB,
    &system_reset::VERB,
    &secret::CREATE,
    &secret::LIST,
    &secret::INSPECT,
    &secret::REMOVE,
    &secret::EXISTS,
    &volume::CREATE,
    &volume::LIST,
    &volume::REMOVE,
    &volume::INSPECT,
    &volume::PRUNE,
    &volume_files::EXPORT,
    &volume_files::IMPORT,
    &volume_files::MOUNT,
    &volume_files::UNMOUNT,
    &volume_files::RELOAD,
    &boot::ENABLE,
    &boot::DISABLE,
    &boot::START,
    &boot::STOP,
    &connection::ADD,
    &connection::LIST,
    &connection::REMOVE,
    &connection::DEFAULT,
    &connection::RENAME,
];

/// The verb at the start of these words, and how many of them are its name.
pub fn find(words: &[String]) -> Option<(&'static Verb, usize)> {
    for used in [3, 2, 1] {
        let Some(typed) = words.get(..used) else { continue };
        let typed = typed.join(" ");
        if let Some(verb) = VERBS.iter().find(|v| v.names.contains(&typed.as_str())) {
            return Some((verb, used));
        }
    }
    None
}

/// What to say of a word that is no verb.
pub fn unknown(words: &[String]) -> Outcome {
    let program = unroot_engine::program();
    let word = &words[0];
    let prefix = format!("{word} ");
    let inside: Vec<(&str, &str)> = VERBS
        .iter()
        .flat_map(|v| v.names.iter().map(|n| (*n, v.about)))
        .filter_map(|(name, about)| Some((name.strip_prefix(&prefix)?, about)))
        .collect();
    if !inside.is_empty() {
        let group = GROUPS.iter().find(|(name, _)| name == word).map_or("", |(_, about)| about);
        let text = format!(
            "{group}\n\nUsage:\n  {program} {word} [command]\n\nAvailable Commands:\n{}",
            listing(&inside)
        );
        if words.get(1).is_some_and(|w| matches!(w.as_str(), "--help" | "-h")) {
            crate::output::raw(text.as_bytes());
            return Ok(0);
        }
        let missing = match words.get(1) {
            Some(sub) => format!(
                "unrecognized command `{program} {word} {sub}`\nTry '{program} {word} --help' for more information"
            ),
            None => format!("missing command '{program} {word} COMMAND'\n{text}"),
        };
        return Err(CliError::new(missing));
    }
    // (a flag of no verb at all)
    let known = |word: &str| {
        VERBS.iter().any(|v| (v.flags)().iter().any(|f| word[2..].split('=').next() == Some(f.long)))
    };
    if let Some(flag) = words.iter().find(|w| w.starts_with("--") && w.len() > 2 && !known(w)) {
        return Err(CliError::new(format!("unknown flag: {flag}\nSee '{program} --help'")));
    }
    Err(CliError::new(format!(
        "unrecognized command `{program} {word}`\nTry '{program} --help' for more information"
    )))
}

/// Words that stand before verbs.
const GROUPS: &[(&str, &str)] = &[
    ("container", "Manage containers"),
    ("healthcheck", "Manage health checks"),
    ("image", "Manage images"),
    ("manifest", "Manage lists of images for several platforms"),
    ("pod", "Manage pods"),
    ("secret", "Manage secrets"),
    ("system", "Manage unroot itself"),
    ("volume", "Manage volumes"),
];

/// Names and what they are, in order.
fn listing(entries: &[(&str, &str)]) -> String {
    let mut entries: Vec<(&str, &str)> =
        entries.iter().map(|(name, about)| (name.split(' ').next().unwrap_or(name), *about)).collect();
    entries.sort_unstable();
    entries.dedup_by_key(|(name, _)| *name);
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    entries.iter().map(|(name, about)| format!("  {name:width$}  {about}\n")).collect()
}

/// The help of the program itself.
pub fn overview(remote: bool) -> String {
    let program = unroot_engine::program();
    let single = VERBS
        .iter()
        .map(|v| (v.names[0], v.about))
        .filter(|(name, _)| !name.contains(' ') && !name.starts_with("__"));
    let has_verbs = |group: &str| {
        let words = |name: &&str| name.split(' ').next() == Some(group);
        VERBS.iter().flat_map(|v| v.names).any(|name| name.contains(' ') && words(name))
    };
    let groups = GROUPS.iter().copied().filter(|(name, _)| has_verbs(name));
    let verbs = listing(&single.chain(groups).collect::<Vec<_>>());
    // (where another machine is named already, --remote says nothing more)
    let shown = crate::GLOBAL.iter().filter(|f| !(remote && f.long == "remote"));
    let flags: String = shown.map(|f| format!("      --{:14} {}\n", f.long, f.help)).collect();
    format!(
        "Run containers without a daemon and without root, and tell who is root.\n\nUsage:\n  {program} [options] [command]\n\nAvailable Commands:\n{verbs}\nOptions:\n{flags}"
    )
}

/// Does something to each, prints each that went well, reports each that did not, and goes on.
pub fn each<T>(
    items: Vec<Result<T, CliError>>,
    mut act: impl FnMut(T) -> Result<Option<String>, CliError>,
) -> Outcome {
    let mut code = 0;
    for item in items {
        match item.and_then(&mut act) {
            Ok(Some(text)) => crate::output::line(text),
            Ok(None) => {}
            Err(error) => code = crate::report(&error),
        }
    }
    Ok(code)
}
