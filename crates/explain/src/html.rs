//! A report as a page of its own: no script, nothing that is loaded from elsewhere, every text escaped.

use std::fmt::Write as _;

use unroot_idmap::IdMap;

use crate::host::{Host, Owner};
use crate::judge::{Level, Report, Severity, State};
use crate::layers::whose;
use crate::say::{Language, Say, say};
use crate::text::short;

const STYLE: &str = "\
:root{--bg:#fff;--fg:#1c1f23;--dim:#667;--line:#dde;--good:#17803d;--bad:#c0262d;--part:#a15c00}\
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e6e8ea;--dim:#9aa;--line:#333a40;--good:#4cc372;--bad:#ff6b6b;--part:#e5a54b}}\
*{box-sizing:border-box}body{margin:0 auto;max-width:50rem;padding:1rem;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}\
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.05rem;margin:1.6rem 0 .4rem;border-bottom:1px solid var(--line)}\
.verdict{border-left:.4rem solid;padding:.5rem .9rem;margin:.6rem 0}.good{color:var(--good)}.bad{color:var(--bad)}.part{color:var(--part)}\
.verdict p{color:var(--fg);margin:.2rem 0}dl{display:grid;grid-template-columns:minmax(7rem,auto) 1fr;gap:.15rem .9rem;margin:0}dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}\
ul{list-style:none;padding:0;margin:0}li{padding:.45rem 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere}\
li b{display:inline-block}small,.dim{color:var(--dim)}code{font:.85em ui-monospace,monospace;overflow-wrap:anywhere}svg{width:100%;max-width:32rem;height:auto;display:block}\
svg text{fill:var(--fg);font:13px ui-monospace,monospace}section{margin-bottom:3rem}";

/// The page of these reports, each with its title.
pub fn page(reports: &[(String, Report)], host: &Host, language: Language) -> String {
    let say = |s: &Say| escape(s.text(language));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"{}\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>{}</title><style>{STYLE}</style></head><body>\n",
        if language == Language::Ja { "ja" } else { "en" },
        say(&say!("Who is root?", "誰が root か"))
    );
    for (title, report) in reports {
        section(&mut out, title, report, host, language);
    }
    out += "</body></html>\n";
    out
}

fn section(out: &mut String, title: &str, report: &Report, host: &Host, language: Language) {
    let say = |s: &Say| escape(s.text(language));
    let facts = &report.facts;
    let class = match report.level {
        Level::HostRoot | Level::RootId => "bad",
        Level::Unknown => "part",
        _ => "good",
    };
    let _ = write!(
        out,
        "<section><small>unroot explain</small><h1>{}</h1><div class=\"verdict {class}\"><b>{}</b><p>{}</p></div>",
        escape(title),
        say(&short(report.level)),
        say(&report.verdict)
    );
    let layer =
        |id: &str| report.layers.iter().find(|l| l.id == id).map_or(String::new(), |l| say(&l.finding));
    let uid = facts.uid[1];
    let inside = facts.inside_uid().map_or("?".to_string(), |u| format!("uid {u}"));
    let rows = [
        (say!("engine", "エンジン"), layer("engine-not-root")),
        (say!("process inside", "中のプロセス"), format!("{inside}, {}", escape(&facts.comm))),
        (
            say!("process outside", "外のプロセス"),
            format!("{}, pid {}", say(&whose(&host.owner_of_uid(uid), uid)), facts.pid),
        ),
        (say!("user namespace", "ユーザー名前空間"), layer("user-namespace")),
    ];
    *out += "<dl>";
    for (name, value) in rows {
        let _ = write!(out, "<dt>{}</dt><dd>{value}</dd>", say(&name));
    }
    *out += "</dl>";
    if let Some(maps) = facts.maps.known() {
        let _ = write!(
            out,
            "<h2>{}</h2>{}",
            say(&say!("Ids: inside, and on the host", "id: 中と、ホスト")),
            picture(&maps.uid, uid, host, language)
        );
    }
    let _ = write!(
        out,
        "<h2>{}</h2><ul>",
        say(&say!("Ways out that need no hole in the kernel", "カーネルの欠陥なしに外へ出る道"))
    );
    if report.doors.is_empty() {
        let known = facts.mounts.known().is_some() && facts.devices.known().is_some();
        let text =
            if known { say!("none was found", "見つかりません") } else { say!("not known", "不明") };
        let _ = write!(out, "<li>{}</li>", say(&text));
    }
    for door in &report.doors {
        let (class, mark) = match door.severity {
            Severity::Critical => ("bad", "✘✘"),
            Severity::High => ("bad", "✘"),
            Severity::Medium => ("part", "!"),
        };
        let _ = write!(
            out,
            "<li><b class=\"{class}\">{mark}</b> {}<br><small>→ {}</small>",
            say(&door.finding),
            say(&door.cure)
        );
        evidence(out, &door.evidence);
        *out += "</li>";
    }
    let _ = write!(out, "</ul><h2>{}</h2><ul>", say(&say!("Layers of defence", "防御の層")));
    for layer in &report.layers {
        let (class, mark) = match layer.state {
            State::On => ("good", "✔"),
            State::Partly => ("part", "◐"),
            State::Off => ("bad", "✘"),
            State::Unknown => ("part", "?"),
        };
        let _ =
            write!(out, "<li><b class=\"{class}\">{mark} {}</b> {}", say(&layer.name), say(&layer.finding));
        if let (State::Off | State::Partly, Some(cure)) = (layer.state, &layer.cure) {
            let _ = write!(out, "<br><small>→ {}</small>", say(cure));
        }
        evidence(out, &layer.evidence);
        *out += "</li>";
    }
    let who = say(&whose(&report.owner, report.identity.uid));
    let title = say!("What a break-out may use on the host", "脱出した者がホストで使えるもの");
    let _ = write!(out, "</ul><h2>{}</h2><p class=\"dim\">{who}</p><dl>", say(&title));
    for reach in &report.reach {
        let (class, text) = match reach.access {
            None => ("part", say!("not known", "不明")),
            Some(a) => match (a.read, a.write) {
                (true, true) => ("bad", say!("read and write", "読み書き")),
                (true, false) => ("part", say!("read", "読み取り")),
                (false, true) => ("bad", say!("write", "書き込み")),
                (false, false) => ("good", say!("nothing", "不可")),
            },
        };
        let _ = write!(
            out,
            "<dt class=\"{class}\">{}</dt><dd><code>{}</code></dd>",
            say(&text),
            escape(&reach.path)
        );
    }
    *out += "</dl></section>\n";
}

fn evidence(out: &mut String, all: &[crate::judge::Evidence]) {
    for one in all {
        let colon = if one.value.is_empty() { "" } else { ": " };
        let (source, value) = (escape(&one.source), escape(&one.value));
        let _ = write!(out, "<br><small><code>{source}{colon}{value}</code></small>");
    }
}

/// The map as a picture: a line for each extent, from its ids inside to those on the host.
fn picture(map: &IdMap, uid: u32, host: &Host, language: Language) -> String {
    const SHOWN: usize = 8;
    let extents = &map.extents()[..map.extents().len().min(SHOWN)];
    let height = extents.len() * 58 + 8;
    let mut out = format!("<svg viewBox=\"0 0 440 {height}\" role=\"img\">");
    for (n, extent) in extents.iter().enumerate() {
        let y = n * 58 + 6;
        let range = |first: u32| match extent.length {
            1 => first.to_string(),
            length => format!("{first}–{}", u64::from(first) + u64::from(length) - 1),
        };
        let owner = host.owner_of_uid(extent.outside);
        let colour = match &owner {
            Owner::Account { name } if name == "root" => "var(--bad)",
            Owner::Account { .. } => "var(--part)",
            _ => "var(--good)",
        };
        let owner = match owner {
            _ if extent.length == u32::MAX => say!("every id is itself", "すべての id がそのまま"),
            Owner::Account { name } => say!("{name}", "{name}"),
            Owner::Subordinate { owner, .. } => say!("{owner}'s subordinate ids", "{owner} の従属 id"),
            Owner::Nobody => say!("nobody's", "誰のものでもない"),
        };
        let here = extent.outside <= uid && uid - extent.outside < extent.length;
        let _ = write!(
            out,
            "<rect x=\"2\" y=\"{y}\" width=\"140\" height=\"48\" rx=\"5\" fill=\"none\" stroke=\"{colour}\"/><text x=\"10\" y=\"{m}\">{}</text>\
             <path d=\"M146 {c}H184l-8 -5m8 5l-8 5\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <rect x=\"190\" y=\"{y}\" width=\"246\" height=\"48\" rx=\"5\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{}\"/>\
             <text x=\"198\" y=\"{t}\">{}{}</text><text x=\"198\" y=\"{l}\">{}</text>",
            range(extent.inside),
            if here { 3 } else { 1 },
            range(extent.outside),
            if here { " ◀" } else { "" },
            escape(owner.text(language)),
            c = y + 24,
            m = y + 29,
            t = y + 20,
            l = y + 38,
        );
    }
    out += "</svg>";
    if map.extents().len() > SHOWN {
        let _ = write!(out, "<p class=\"dim\">+ {}</p>", map.extents().len() - SHOWN);
    }
    out
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}
