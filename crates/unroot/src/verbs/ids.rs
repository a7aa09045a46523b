//! `ids`: the host's id space: who has which ids, what containers hold of them, what is wrong, and how many still fit.

use std::io::Write as _;
use std::process::Command;

use unroot_engine::whois::Asker;
use unroot_idmap::space::{Finding, OTHERS, Space, USUAL, WHOLE, Weight};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::ids_picture::svg;
use crate::output;
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["ids"],
    usage: "[options]",
    about: "Show the id space of this host: users, subordinate ids, what containers hold, what is wrong",
    flags: || vec![flag("format", 'f', Kind::Value, "json, svg")],
    interspersed: true,
    count: (0, 0),
    run: |global, args| -> Outcome {
        let space = read(global)?;
        match args.value("format") {
            None => output::raw(picture(&space).as_bytes()),
            Some("json") => output::line(serde_json::to_string_pretty(&space).map_err(CliError::new)?),
            Some("svg") => output::raw(svg(&space).as_bytes()),
            Some(other) => {
                return Err(CliError::new(format!("unknown format {other:?}: there are json and svg")));
            }
        }
        Ok(0)
    },
};

pub const CHECK: Verb = Verb {
    names: &["ids check"],
    usage: "[options]",
    about: "Say what is wrong with subordinate ids; exit code 1 if one user's are another's",
    flags: || {
        vec![
            flag("format", 'f', Kind::Value, "json"),
            flag("strict", ' ', Kind::Bool, "Exit code 1 for warnings, too"),
        ]
    },
    interspersed: true,
    count: (0, 0),
    run: |global, args| -> Outcome {
        let space = read(global)?;
        match args.value("format") {
            None => output::raw(findings(&space.findings).as_bytes()),
            Some("json") => {
                output::line(serde_json::to_string_pretty(&space.findings).map_err(CliError::new)?);
            }
            Some(other) => return Err(CliError::new(format!("unknown format {other:?}: there is json"))),
        }
        let least = if args.is("strict") { Weight::Warning } else { Weight::Error };
        Ok(u8::from(space.worst().is_some_and(|w| w >= least)))
    },
};

pub const ALLOCATE: Verb = Verb {
    names: &["ids allocate"],
    usage: "[options] USER...",
    about: "Give users subordinate ids that nobody has: as root do it, else print how",
    flags: || {
        vec![
            flag("count", 'n', Kind::Value, "How many ids (default 65536)"),
            flag("print", 'p', Kind::Bool, "Only print the commands"),
        ]
    },
    interspersed: true,
    count: (1, ANY),
    run: allocate,
};

fn read(global: &Global) -> Result<Space, CliError> {
    let engine = global.engine()?;
    let asker = Asker::new(&engine)?;
    Ok(Space::read(&asker.user_maps()))
}

fn allocate(global: &Global, args: &Args) -> Outcome {
    let count = args.value("count").map(|text| {
        let count = text.parse().ok().filter(|n| (1..WHOLE).contains(n));
        count.ok_or_else(|| CliError::new(format!("--count {text}: not a number of ids")))
    });
    let count = count.transpose()?;
    let does = rustix::process::geteuid().is_root() && !args.is("print");
    for user in &args.rest {
        // (each time anew: the last one's are taken)
        let space = read(global)?;
        let usual = if user == POOL { 16 * USUAL } else { USUAL };
        for step in steps(&space, user, count.unwrap_or(usual))? {
            if does {
                step.take()?;
            }
            output::line(step.text());
        }
    }
    if !does && !args.is("print") {
        unroot_engine::say(format_args!("hint: run this as root"));
    }
    Ok(0)
}

/// The name of the pool that root's `--userns=auto` takes from; it needs no account.
const POOL: &str = "containers";

/// What gives a user ids.
enum Step {
    /// usermod(8), which knows accounts.
    Usermod(Vec<String>),
    /// A line of a file.
    Append(&'static str, String),
}

impl Step {
    fn text(&self) -> String {
        match self {
            Step::Usermod(arguments) => format!("usermod {}", arguments.join(" ")),
            Step::Append(file, line) => format!("echo {line} >>{file}"),
        }
    }

    fn take(&self) -> Result<(), CliError> {
        let failed = |e: &dyn std::fmt::Display| CliError::new(format!("{}: {e}", self.text()));
        match self {
            Step::Usermod(arguments) => match Command::new("usermod").args(arguments).status() {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(failed(&status)),
                Err(e) => Err(failed(&e)),
            },
            Step::Append(file, line) => {
                let old = std::fs::read_to_string(file).unwrap_or_default();
                let end = if old.is_empty() || old.ends_with('\n') { "" } else { "\n" };
                let opened = std::fs::File::options().append(true).create(true).open(file);
                let written = opened.and_then(|mut f| f.write_all(format!("{end}{line}\n").as_bytes()));
                written.map_err(|e| failed(&e))
            }
        }
    }
}

/// What gives a user as many ids as it lacks.
fn steps(space: &Space, user: &str, count: u64) -> Result<Vec<Step>, CliError> {
    let missing = |file: &str| {
        let has: u64 = space.of_owner(user, file).iter().map(|l| l.count).sum();
        count.saturating_sub(has)
    };
    let (uids, gids) = (missing("/etc/subuid"), missing("/etc/subgid"));
    if uids == 0 && gids == 0 {
        let file = space.of_owner(user, "/etc/subuid");
        let from = file.first().map_or(String::new(), |l| format!(", from {} on", l.first));
        return Err(CliError::new(format!("{user} has {count} subordinate ids already{from}")));
    }
    let wanted = uids.max(gids);
    let first = space.place_for(wanted).ok_or_else(|| {
        CliError::new(format!("there is no place for {wanted} ids in a row"))
            .with_hint("unroot ids shows who has them")
    })?;
    let files = [("/etc/subuid", "--add-subuids", uids), ("/etc/subgid", "--add-subgids", gids)];
    let files = files.into_iter().filter(|(.., count)| *count > 0);
    match unroot_idmap::names::passwd_line(user) {
        Some(_) => {
            let ranges = files.flat_map(|(_, flag, n)| [flag.into(), format!("{first}-{}", first + n - 1)]);
            Ok(vec![Step::Usermod(ranges.chain([user.to_string()]).collect())])
        }
        None if user == POOL => {
            Ok(files.map(|(file, _, n)| Step::Append(file, format!("{user}:{first}:{n}"))).collect())
        }
        None => Err(CliError::new(format!("no such user: {user}"))),
    }
}

/// Findings as text.
pub fn findings(all: &[Finding]) -> String {
    let mut text = String::new();
    for finding in all {
        let mark = match finding.weight {
            Weight::Error => "✘",
            Weight::Warning => "!",
            Weight::Note => "·",
        };
        text += &format!("{mark} {}\n", finding.text);
        if let Some(cure) = &finding.cure {
            text += &format!("  → {cure}\n");
        }
    }
    if text.is_empty() {
        text = "✔ nobody's subordinate ids are anybody else's\n".into();
    }
    text
}

/// A row of the picture.
pub struct Row {
    /// The first id.
    pub first: u64,
    /// The one after the last.
    pub end: u64,
    /// Whose.
    pub what: String,
    /// A subordinate range: who is in it now.
    pub held: Vec<String>,
    /// It overlaps another.
    pub is_bad: bool,
}

/// Everything of the id space in order.
pub fn rows(space: &Space) -> Vec<Row> {
    let mut rows = Vec::new();
    let row = |first, end, what: String| Row { first, end, what, held: Vec::new(), is_bad: false };
    let system: Vec<_> = space.accounts.iter().filter(|a| a.uid < 1000).collect();
    rows.push(row(0, 1000, format!("{} accounts of the system, root among them", system.len())));
    let people: Vec<_> = space.accounts.iter().filter(|a| (1000..60_001).contains(&a.uid)).collect();
    let names: Vec<String> = people.iter().take(6).map(|a| format!("{} {}", a.name, a.uid)).collect();
    let more = people.len().saturating_sub(6);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = if names.is_empty() { "nobody".into() } else { names.join(", ") };
    rows.push(row(1000, 60_001, format!("people: {names}{more}")));
    for account in space.accounts.iter().filter(|a| a.uid > 60_000 && a.name != "nobody") {
        rows.push(row(account.uid.into(), u64::from(account.uid) + 1, account.name.clone()));
    }
    rows.extend(OTHERS.iter().map(|(first, end, what)| row(*first, *end, (*what).into())));
    let (users, groups): (Vec<_>, Vec<_>) = space.lines.iter().partition(|l| l.file == "/etc/subuid");
    for line in users.iter().chain(groups.iter()) {
        let same = |other: &&&unroot_idmap::space::Line| {
            (other.first, other.count, &other.owner) == (line.first, line.count, &line.owner)
        };
        let is_user = line.file == "/etc/subuid";
        if !is_user && users.iter().any(|l| same(&l)) {
            continue;
        }
        let kind = match (is_user, groups.iter().any(|l| same(&l))) {
            (true, true) => "users and groups",
            (true, false) => "users",
            (false, _) => "groups",
        };
        let inside = space.held.iter().filter(|h| h.first < line.end() && h.first + h.count > line.first);
        let mut held: Vec<String> = inside
            .filter(|_| is_user)
            .map(|h| format!("{} {}-{}", h.by, h.first, h.first + h.count - 1))
            .collect();
        held.dedup();
        let same_file = if is_user { &users } else { &groups };
        let over = |other: &&&unroot_idmap::space::Line| {
            other.line != line.line && other.first < line.end() && other.end() > line.first
        };
        let is_bad = same_file.iter().any(|l| over(&l));
        rows.push(Row {
            first: line.first,
            end: line.end(),
            what: format!("{}: subordinate {kind}", line.owner),
            held,
            is_bad,
        });
    }
    rows.sort_by_key(|r| (r.first, r.end));
    rows
}

fn picture(space: &Space) -> String {
    let mut text = format!("{} ids in all\n", WHOLE + 1);
    // (on a scale on which each factor of two is as wide: the ranges of users are small beside the whole)
    let place = |id: u64| ((id.max(256) as f64).log2() - 8.0) / 24.0 * 32.0;
    for row in rows(space) {
        let (from, to) = (place(row.first) as usize, place(row.end).ceil() as usize);
        let bar: String =
            (0..32).map(|n| if n >= from && n < to.max(from + 1) { '█' } else { '·' }).collect();
        let mark = if row.is_bad { "✘ " } else { "" };
        text += &format!("{bar} {:>10}-{:<10} {mark}{}\n", row.first, row.end - 1, row.what);
        for held in row.held.iter().take(8) {
            text += &format!("{:56}now: {held}\n", "");
        }
        if row.held.len() > 8 {
            text += &format!("{:56}and {} more\n", "", row.held.len() - 8);
        }
    }
    text += &format!(
        "room for {} more users of {USUAL} ids where useradd looks ({}-{}), for {} in all\n",
        space.fit_for_useradd, space.defaults.min, space.defaults.max, space.fit
    );
    let shown: Vec<Finding> = space.findings.iter().filter(|f| f.weight > Weight::Note).cloned().collect();
    if !shown.is_empty() {
        text += &format!("\n{}", findings(&shown));
    }
    text
}
