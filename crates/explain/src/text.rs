//! A report for people at a terminal: 80 columns, with colours or without.

use unicode_width::UnicodeWidthStr as _;

use crate::host::{Host, Owner};
use crate::judge::{Evidence, Level, Report, Severity, State};
use crate::layers::whose;
use crate::say::{Language, Say, say};

/// How it is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// With colours.
    pub colour: bool,
    /// In which language.
    pub language: Language,
    /// With what was read, and where.
    pub evidence: bool,
}

const WIDTH: usize = 80;

/// The report of what is called so.
pub fn text(report: &Report, title: &str, host: &Host, style: Style) -> String {
    let page = Page { style };
    let say = |s: &Say| s.text(style.language).to_string();
    let facts = &report.facts;
    let mut out = page.paragraph(
        1,
        &page.paint(colour_of(report.level), &format!("{title}: {}", say(&short(report.level)))),
    );
    out += &page.paragraph(1, &say(&report.verdict));
    out.push('\n');
    let uid = facts.uid[1];
    let mut row = |name: Say, value: String| {
        let name = say(&name);
        out += &page.entry(1, &pad(&name, 18), &value);
    };
    let layer =
        |id: &str| report.layers.iter().find(|l| l.id == id).map_or(String::new(), |l| say(&l.finding));
    row(say!("engine", "エンジン"), layer("engine-not-root"));
    let inside = facts.inside_uid().map_or("?".to_string(), |u| format!("uid {u}"));
    row(
        say!("process inside", "中のプロセス"),
        match facts.comm.as_str() {
            "" => inside,
            comm => format!("{inside}, {comm}"),
        },
    );
    row(
        say!("process outside", "外のプロセス"),
        match (say(&whose(&host.owner_of_uid(uid), uid)), facts.planned) {
            (who, true) => who,
            (who, false) => format!("{who}, pid {}", facts.pid),
        },
    );
    row(say!("user namespace", "ユーザー名前空間"), layer("user-namespace"));
    if let Some(uid) = facts.login_uid {
        row(say!("started by", "起動した人"), say(&whose(&host.owner_of_uid(uid), uid)));
    }
    if let Some(maps) = facts.maps.known() {
        let (inside, outside) =
            (say(&say!("ids inside", "中の id")), say(&say!("on the host", "ホストでは")));
        out += &format!("\n {}    {outside}\n", pad(&inside, 22));
        const SHOWN: usize = 6;
        for extent in maps.uid.extents().iter().take(SHOWN) {
            let range = |first: u32| match extent.length {
                1 => first.to_string(),
                length => format!("{first}..{}", u64::from(first) + u64::from(length) - 1),
            };
            let owner = match (extent.length, host.owner_of_uid(extent.outside)) {
                (u32::MAX, _) => say(&say!("every id is itself", "すべての id がそのまま")),
                (1, owner) => name_of(&owner, style.language),
                (_, Owner::Subordinate { owner, .. }) => {
                    say(&say!("{owner}'s subordinate ids", "{owner} の従属 id"))
                }
                (_, owner) => format!("{} ..", name_of(&owner, style.language)),
            };
            let here =
                if extent.outside <= uid && uid - extent.outside < extent.length { " ◀" } else { "" };
            out += &format!(
                " {}━━▶ {}{owner}{here}\n",
                pad(&range(extent.inside), 22),
                pad(&range(extent.outside), 24)
            );
        }
        if maps.uid.extents().len() > SHOWN {
            let more = maps.uid.extents().len() - SHOWN;
            out += &format!(" {}\n", say(&say!("and {more} more", "ほか {more} 行")));
        }
    }
    out +=
        &heading(&page, say!("Ways out that need no hole in the kernel", "カーネルの欠陥なしに外へ出る道"));
    if report.doors.is_empty() {
        let text = match facts.mounts.known().is_some() && facts.devices.known().is_some() {
            true => say!("none was found", "見つかりません"),
            false => say!(
                "not known: its mounts or devices may not be read",
                "不明: マウントやデバイスを読めません"
            ),
        };
        out += &page.entry(2, "", &say(&text));
    }
    for door in &report.doors {
        let (mark, colour) = match door.severity {
            Severity::Critical => ("✘✘", RED),
            Severity::High => ("✘ ", RED),
            Severity::Medium => ("! ", YELLOW),
        };
        out += &page.entry(2, &page.paint(colour, mark), &say(&door.finding));
        out += &page.evidence(5, &door.evidence);
        out += &page.entry(5, "→", &page.paint(DIM, &say(&door.cure)));
    }
    out += &heading(&page, say!("Layers of defence", "防御の層"));
    for layer in &report.layers {
        let (mark, colour) = match layer.state {
            State::On => ("✔", GREEN),
            State::Partly => ("◐", YELLOW),
            State::Off => ("✘", RED),
            State::Unknown => ("?", YELLOW),
        };
        let name = format!("{} {}", page.paint(colour, mark), pad(&say(&layer.name), 29));
        out += &page.entry(2, &name, &say(&layer.finding));
        out += &page.evidence(34, &layer.evidence);
        if let (State::Off | State::Partly, Some(cure)) = (layer.state, &layer.cure) {
            out += &page.entry(34, "→", &page.paint(DIM, &say(cure)));
        }
    }
    let who = say(&whose(&report.owner, report.identity.uid));
    out += &heading(
        &page,
        Say {
            en: format!("What a break-out may use on the host, as {}", say!("{who}", "{who}").en),
            ja: format!("脱出した者 ({who}) がホストで使えるもの"),
        },
    );
    let group = |wanted: Option<(bool, bool)>| {
        let of = report.reach.iter().filter(|r| r.access.map(|a| (a.read, a.write)) == wanted);
        of.map(|r| r.path.as_str()).collect::<Vec<_>>().join(", ")
    };
    for (access, name) in [
        (Some((true, true)), say!("read and write", "読み書き")),
        (Some((true, false)), say!("read", "読み取り")),
        (Some((false, true)), say!("write", "書き込み")),
        (Some((false, false)), say!("nothing", "不可")),
        (None, say!("not known", "不明")),
    ] {
        let paths = group(access);
        if !paths.is_empty() {
            out += &page.entry(2, &pad(&say(&name), 16), &paths);
        }
    }
    out
}

fn heading(page: &Page, title: Say) -> String {
    format!("\n{}", page.paragraph(1, &page.paint(BOLD, title.text(page.style.language))))
}

fn name_of(owner: &Owner, language: Language) -> String {
    match owner {
        Owner::Account { name } => name.clone(),
        Owner::Subordinate { owner, offset } => {
            say!("{owner}'s subordinate id +{offset}", "{owner} の従属 id +{offset}")
                .text(language)
                .to_string()
        }
        Owner::Nobody => say!("nobody's", "誰のものでもない").text(language).to_string(),
    }
}

/// The answer in two words.
pub fn short(level: Level) -> Say {
    match level {
        Level::HostRoot => say!("ROOT", "root です"),
        Level::RootId => say!("root's id, fewer rights", "root の id、権限は一部"),
        Level::Unknown => say!("not known", "不明"),
        Level::Account => say!("not root", "root ではありません"),
        Level::Subordinate | Level::Nobody => say!("not root, nobody", "root でも誰でもありません"),
    }
}

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const BOLD: &str = "1";
const DIM: &str = "2";

fn colour_of(level: Level) -> &'static str {
    match level {
        Level::HostRoot | Level::RootId => "1;31",
        Level::Unknown => "1;33",
        _ => "1;32",
    }
}

/// Filled up with spaces to a width.
fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// The width on a terminal, without what colours it.
fn width(text: &str) -> usize {
    let mut plain = String::new();
    let mut coded = false;
    for c in text.chars() {
        match (c, coded) {
            ('\x1b', _) => coded = true,
            ('m', true) => coded = false,
            (_, true) => {}
            (c, false) => plain.push(c),
        }
    }
    plain.width()
}

struct Page {
    style: Style,
}

impl Page {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.style.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    fn paragraph(&self, indent: usize, text: &str) -> String {
        self.entry(indent, "", text)
    }

    /// A name and a text beside it, which goes on below itself.
    fn entry(&self, indent: usize, name: &str, text: &str) -> String {
        let name = if name.is_empty() { String::new() } else { format!("{name} ") };
        let begin = indent + width(&name);
        let mut out = format!("{}{name}", " ".repeat(indent));
        let mut column = begin;
        for (n, word) in pieces(text, self.style.language).into_iter().enumerate() {
            let length = width(&word);
            let space = usize::from(n > 0 && self.style.language == Language::En);
            if n > 0 && column + space + length > WIDTH {
                out += &format!("\n{}", " ".repeat(begin));
                column = begin;
            } else if space == 1 {
                out.push(' ');
                column += 1;
            }
            out += &word;
            column += length;
        }
        out.push('\n');
        out
    }

    fn evidence(&self, indent: usize, all: &[Evidence]) -> String {
        if !self.style.evidence {
            return String::new();
        }
        all.iter()
            .map(|e| self.entry(indent, "", &self.paint(DIM, &format!("{}: {}", e.source, e.value))))
            .collect()
    }
}

/// Where a line may break: between words; in Japanese between letters, but not within Latin words.
fn pieces(text: &str, language: Language) -> Vec<String> {
    if language == Language::En {
        return text.split(' ').map(str::to_string).collect();
    }
    let mut all: Vec<String> = Vec::new();
    for c in text.chars() {
        let joins = c.is_ascii() || "。、)」".contains(c);
        match all.last_mut() {
            Some(last)
                if joins
                    && last.chars().last().is_some_and(|l| !c.is_ascii() || (l.is_ascii() && l != ' ')) =>
            {
                last.push(c)
            }
            _ => all.push(c.to_string()),
        }
    }
    all
}
