//! What commands print: tables, sizes, times, and `--format`.

use std::io::Write as _;

use serde_json::Value;

use crate::cli::CliError;
use crate::template::Template;

/// Prints a line; a reader that has gone is no error. A program gets it as it is, a terminal without what would be
/// commands to it: names, labels and commands are an image's to choose.
pub fn line(text: impl std::fmt::Display) {
    let text = for_terminal(&std::io::stdout(), text.to_string());
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The text, without commands if this is a terminal.
pub fn for_terminal(stream: &impl std::io::IsTerminal, text: String) -> String {
    match text.contains(is_command) && stream.is_terminal() {
        true => spelled_out(&text),
        false => text,
    }
}

/// Control characters (ESC and those of one byte, too) but line feeds and tabs.
fn is_command(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
}

fn spelled_out(text: &str) -> String {
    text.chars().flat_map(|c| if is_command(c) { c.escape_default().collect() } else { vec![c] }).collect()
}

/// Prints without an end of line.
pub fn raw(text: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text).and_then(|()| out.flush());
}

/// Rows under headings, in columns.
pub fn table(heading: Option<Vec<String>>, rows: Vec<Vec<String>>) {
    let safe = |cell: String| match cell.contains(char::is_control) {
        true => spelled_out(&cell).replace(['\n', '\t'], " "),
        false => cell,
    };
    let rows = heading.into_iter().chain(rows);
    let all: Vec<Vec<String>> = rows.map(|row| row.into_iter().map(safe).collect()).collect();
    let columns = all.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| all.iter().filter_map(|r| r.get(n)).map(|c| c.chars().count()).max().unwrap_or(0);
    // (as Podman's: two spaces between columns, each of twelve letters at least)
    let widths: Vec<usize> = (0..columns).map(|n| (width(n) + 2).max(12)).collect();
    let mut text = String::new();
    for row in &all {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(n, cell)| if n + 1 == row.len() { cell.clone() } else { format!("{cell:<0$}", widths[n]) })
            .collect();
        text += cells.concat().trim_end();
        text.push('\n');
    }
    raw(text.as_bytes());
}

/// Prints rows by a template: `table ...` with headings, `json` all as one, else a line each.
pub fn formatted(
    format: &str,
    rows: &[Value],
    headings: &[(&str, &str)],
    noheading: bool,
) -> Result<(), CliError> {
    let format = format.replace("\\t", "\t").replace("\\n", "\n");
    if format == "json" {
        line(serde_json::to_string_pretty(rows).unwrap_or_default());
        return Ok(());
    }
    let fail = CliError::new;
    if let Some(template) = format.strip_prefix("table ") {
        // (values and headings may have blanks in them)
        let template = Template::parse(&template.trim().replace("}} {{", "}}\t{{")).map_err(fail)?;
        let lines = rows
            .iter()
            .map(|row| template.fill(row).map(|l| cells(&l)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(fail)?;
        let names = headings.iter().map(|(field, name)| (field.to_string(), Value::from(*name))).collect();
        let heading = template.fill(&Value::Object(names)).map(|l| cells(&l)).unwrap_or_default();
        table((!noheading).then_some(heading), lines);
        return Ok(());
    }
    // (what has no row is not read, and so not wrong)
    let template = if rows.is_empty() { None } else { Some(Template::parse(&format).map_err(fail)?) };
    for (row, template) in rows.iter().zip(template.iter().cycle()) {
        let text = template.fill(row).map_err(fail)?;
        line(text.strip_suffix('\n').unwrap_or(&text))
    }
    Ok(())
}

fn cells(line: &str) -> Vec<String> {
    match line.contains('\t') {
        true => line.split('\t').map(|c| c.trim().to_string()).collect(),
        false => line.split_whitespace().map(str::to_string).collect(),
    }
}

/// Asks a question; whether the answer is yes.
pub fn confirms(question: &str) -> bool {
    raw(question.as_bytes());
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// `12.34MB`, powers of a thousand, so many digits at most.
pub fn human(bytes: u64, digits: usize) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut n) = (bytes as f64, 0);
    while value >= 1000.0 && n + 1 < units.len() {
        value /= 1000.0;
        n += 1;
    }
    let before = if value >= 100.0 {
        3
    } else if value >= 10.0 {
        2
    } else {
        1
    };
    let text = format!("{value:.0$}", digits.saturating_sub(before));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[n])
}

/// `3 seconds`, `About a minute`, `2 hours`, as Docker says it.
pub fn ago(seconds: i64) -> String {
    let n = |count: i64, unit: &str| format!("{count} {unit}{}", if count == 1 { "" } else { "s" });
    match seconds {
        ..1 => "Less than a second".into(),
        1..60 => n(seconds, "second"),
        60..120 => "About a minute".into(),
        120..3600 => n(seconds / 60, "minute"),
        3600..7200 => "About an hour".into(),
        7200..172_800 => n(seconds / 3600, "hour"),
        172_800..1_209_600 => n(seconds / 86400, "day"),
        1_209_600..5_184_000 => n(seconds / 604_800, "week"),
        5_184_000..63_072_000 => n(seconds / 2_592_000, "month"),
        _ => n(seconds / 31_536_000, "year"),
    }
}

/// `10`, `10s`, `1m30s` in seconds.
pub fn duration(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let (mut total, mut number) = (0.0, String::new());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        number.clear();
        number.push_str(&rest[..end]);
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| end + n);
        let factor = match &rest[end..unit_end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * factor;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(
            [human(0, 4), human(1000, 4), human(12_701_526, 4), human(1_234, 3)],
            ["0B", "1kB", "12.7MB", "1.23kB"]
        );
        assert_eq!(
            [ago(0), ago(1), ago(59), ago(61), ago(7300)],
            ["Less than a second", "1 second", "59 seconds", "About a minute", "2 hours"]
        );
        assert_eq!(
            [duration("10"), duration("1m30s"), duration("500ms"), duration("x"), duration("")],
            [Some(10), Some(90), Some(0), None, None]
        );
    }
}
