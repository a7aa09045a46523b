//! Points in time as `--since` and `--until` have them.

use unroot_monitor::log::{now, parse_time};

/// Which way a duration counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `10m` is ten minutes ago.
    Past,
    /// `10m` is in ten minutes.
    Future,
}

/// Nanoseconds since the epoch: RFC 3339 or a part of it, seconds since the epoch with a fraction, or a duration
/// from now such as `1h30m`.
pub fn parse(text: &str, direction: Direction) -> Option<i64> {
    if let Some(seconds) = decimal(text) {
        return Some(seconds);
    }
    if let Some(nanos) = duration(text) {
        return Some(match direction {
            Direction::Past => now() - nanos,
            Direction::Future => now() + nanos,
        });
    }
    date(text)
}

/// `1700000000.5`; whole nanoseconds, which a float would not hold.
fn decimal(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let padded = format!("{fraction:0<9}");
    seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(padded.get(..9)?.parse().ok()?)
}

/// A Go duration in nanoseconds: `1h2m3.5s`, `100ms`, `-5m`.
pub fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let after = &rest[end..];
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let factor = match &after[..unit_end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += rest[..end].parse::<f64>().ok()? * factor;
        rest = &after[unit_end..];
    }
    (!text.is_empty() && total < 9e18).then_some((sign * total) as i64)
}

/// A date, with as much of a time as there is.
fn date(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let digits =
        |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|b| b.iter().all(u8::is_ascii_digit));
    if !digits(0..4) || bytes.get(4) != Some(&b'-') || !digits(5..7) || !digits(8..10) {
        return None;
    }
    let (day, rest) = text.split_at_checked(10)?;
    let (clock, zone) = match rest.strip_prefix(['T', ' ']) {
        None => ("00:00:00", rest),
        Some(rest) => rest.split_at(rest.find(['Z', '+', '-']).unwrap_or(rest.len())),
    };
    let clock = match clock.len() {
        2 => format!("{clock}:00:00"),
        5 => format!("{clock}:00"),
        _ => clock.replace(',', "."),
    };
    parse_time(&format!("{day}T{clock}{zone}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let at = |text: &str| parse(text, Direction::Past);
        let day = at("2026-11-23").unwrap();
        assert_eq!(day, 1_795_392_000_000_000_000);
        for same in [
            "2026-11-23T00",
            "2026-11-23T00:00",
            "2026-11-23T00:00:00",
            "2026-11-23 00:00:00",
            "2026-11-23Z",
            "2026-11-23T00:00:00Z",
            "2026-11-23T01:00:00+01:00",
            "2026-11-23T00:00:00.000000000Z",
            "2026-11-23T00:00:00,000000000+00:00",
            "1795392000",
            "1795392000.000",
        ] {
            assert_eq!(at(same), Some(day), "{same}");
        }
        assert_eq!(at("1795392000.000000001"), Some(day + 1));
        assert!((at("1h").unwrap() - (now() - 3_600_000_000_000)).abs() < 1_000_000_000);
        assert!(
            (parse("1h", Direction::Future).unwrap() - (now() + 3_600_000_000_000)).abs() < 1_000_000_000
        );
        for wrong in ["the dawn of time...ish", "", "10x", "2026-13", "2026-11-23Tx", "s", "ä", "2026-1ä-23"]
        {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1m30.5s"), Some(90_500_000_000));
        assert_eq!(duration("-100ms"), Some(-100_000_000));
        assert_eq!(duration("5"), None);
    }
}
