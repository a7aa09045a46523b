//! The command line: flags as Podman's (pflag's) rules have them, from one table a verb, from which its help, its
//! completion and its manual page are made as well.

use std::collections::HashMap;
use std::fmt;

use unroot_engine::program;

/// What follows a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or `=true`, `=false`.
    Bool,
    /// One value; a later one wins.
    Value,
    /// Several values, by commas or by repetition.
    List,
    /// Several values by repetition.
    Repeat,
}

/// A flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// `name` of `--name`.
    pub long: &'static str,
    /// `n` of `-n`, or a space.
    pub short: char,
    /// What follows.
    pub kind: Kind,
    /// One line.
    pub help: &'static str,
}

/// A flag of a table.
pub const fn flag(long: &'static str, short: char, kind: Kind, help: &'static str) -> Flag {
    Flag { long, short, kind, help }
}

/// What went wrong, as it is shown.
#[derive(Debug)]
pub struct CliError {
    /// Exit code.
    pub code: u8,
    /// The text after `Error: `; none if all was said.
    pub text: Option<String>,
    /// What cures it.
    pub hint: Option<String>,
}

impl CliError {
    /// The engine's own code.
    pub fn new(text: impl fmt::Display) -> Self {
        Self { code: 125, text: Some(text.to_string()), hint: None }
    }

    /// With another exit code.
    pub fn with_code(code: u8, text: impl fmt::Display) -> Self {
        Self { code, text: Some(text.to_string()), hint: None }
    }

    /// With what cures it.
    pub fn with_hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// All was said.
    pub fn silent(code: u8) -> Self {
        Self { code, text: None, hint: None }
    }
}

impl From<unroot_engine::Error> for CliError {
    fn from(error: unroot_engine::Error) -> Self {
        Self {
            code: error.exit_code(),
            text: Some(error.to_string()),
            hint: error.hint().map(str::to_string),
        }
    }
}

/// Results of verbs: the exit code.
pub type Outcome = Result<u8, CliError>;

/// What was typed after a verb.
#[derive(Clone, Debug, Default)]
pub struct Args {
    values: HashMap<&'static str, Vec<String>>,
    /// What is no flag.
    pub rest: Vec<String>,
    /// Help was asked for.
    pub help: bool,
}

impl Args {
    /// A bool flag's value, if it was given.
    pub fn given_bool(&self, name: &str) -> Option<bool> {
        self.values.get(name)?.last().map(|v| v == "true")
    }

    /// It was set.
    pub fn is(&self, name: &str) -> bool {
        self.given_bool(name).unwrap_or(false)
    }

    /// The last value.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.last().map(String::as_str)
    }

    /// All values; those of [`Kind::List`] have been split.
    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], |v| &v[..])
    }

    /// What a flag is if it was not given.
    pub fn set_default(&mut self, name: &'static str, values: Vec<String>) {
        self.values.entry(name).or_insert(values);
    }

    /// What was given there changes what was given here.
    pub fn overlay(&mut self, other: &Self) {
        self.values.extend(other.values.iter().map(|(name, values)| (*name, values.clone())));
    }

    /// What comes before what was given.
    pub fn put_first(&mut self, name: &'static str, mut values: Vec<String>) {
        let given = self.values.entry(name).or_default();
        values.append(given);
        *given = values;
    }

    /// The same without these flags.
    pub fn without(mut self, names: &[&str]) -> Self {
        self.values.retain(|name, _| !names.contains(name));
        self
    }

    /// A number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, CliError> {
        let parse = |text: &str| {
            text.parse().map_err(|_| CliError::new(format!("invalid argument \"{text}\" for \"--{name}\" flag: strconv.ParseInt: parsing \"{text}\": invalid syntax")))
        };
        self.value(name).map(parse).transpose()
    }

    /// A size such as `64m`.
    pub fn size(&self, name: &str) -> Result<Option<u64>, CliError> {
        let parse = |text: &str| {
            unroot_engine::limits::parse_size(text)
                .ok_or_else(|| CliError::new(format!("invalid value for --{name}: invalid size: '{text}'")))
        };
        self.value(name).filter(|v| !v.is_empty()).map(parse).transpose()
    }
}

/// Parses; without `interspersed` flags end at the first word that is none.
pub fn parse(flags: &[Flag], words: &[String], interspersed: bool) -> Result<Args, String> {
    let mut args = Args::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            args.rest.extend(words.cloned());
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v.to_string())));
            let Some(flag) = find(flags, name) else {
                if name == "help" {
                    args.help = true;
                    continue;
                }
                return Err(format!("unknown flag: --{name}"));
            };
            let value = match (flag.kind, value) {
                (Kind::Bool, None) => "true".into(),
                (_, Some(value)) => value,
                (_, None) => {
                    words.next().cloned().ok_or_else(|| format!("flag needs an argument: --{name}"))?
                }
            };
            args.add(flag, value)?;
        } else if word.len() > 1 && word.starts_with('-') {
            shorthands(flags, &word[1..], &mut words, &mut args)?;
        } else {
            args.rest.push(word.clone());
            if !interspersed {
                args.rest.extend(words.cloned());
                break;
            }
        }
    }
    Ok(args)
}

/// The same flag has several names.
const ALIASES: [(&str, &str); 13] = [
    ("net", "network"),
    ("dns-opt", "dns-option"),
    ("healthcheck-command", "health-cmd"),
    ("healthcheck-interval", "health-interval"),
    ("healthcheck-retries", "health-retries"),
    ("healthcheck-start-period", "health-start-period"),
    ("healthcheck-timeout", "health-timeout"),
    ("namespace", "ns"),
    ("storage", "external"),
    ("notruncate", "no-trunc"),
    ("override-arch", "arch"),
    ("override-os", "os"),
    // (of verbs that have no such flag of their own)
    ("timeout", "time"),
];

fn find<'a>(flags: &'a [Flag], name: &str) -> Option<&'a Flag> {
    flags.iter().find(|f| f.long == name).or_else(|| {
        let (_, real) = ALIASES.iter().find(|(alias, _)| *alias == name)?;
        flags.iter().find(|f| f.long == *real)
    })
}

fn shorthands<'a>(
    flags: &[Flag],
    letters: &str,
    words: &mut impl Iterator<Item = &'a String>,
    args: &mut Args,
) -> Result<(), String> {
    for (at, letter) in letters.char_indices() {
        let Some(flag) = flags.iter().find(|f| f.short == letter && letter != ' ') else {
            if letter == 'h' && letters == "h" {
                args.help = true;
                return Ok(());
            }
            return Err(format!("unknown shorthand flag: '{letter}' in -{letters}"));
        };
        let after = &letters[at + letter.len_utf8()..];
        if flag.kind == Kind::Bool {
            match after.strip_prefix('=') {
                Some(value) => return args.add(flag, value.to_string()),
                None => args.add(flag, "true".into())?,
            }
            continue;
        }
        let value = match after.strip_prefix('=').unwrap_or(after) {
            "" if after.is_empty() => words
                .next()
                .cloned()
                .ok_or_else(|| format!("flag needs an argument: '{letter}' in -{letters}"))?,
            value => value.to_string(),
        };
        return args.add(flag, value);
    }
    Ok(())
}

impl Args {
    fn add(&mut self, flag: &Flag, value: String) -> Result<(), String> {
        let values = self.values.entry(flag.long).or_default();
        match flag.kind {
            Kind::Bool => match value.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => values.push("true".into()),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => values.push("false".into()),
                _ => {
                    return Err(format!(
                        "invalid argument \"{value}\" for \"--{}\" flag: strconv.ParseBool: parsing \"{value}\": invalid syntax",
                        flag.long
                    ));
                }
            },
            Kind::List => values.extend(value.split(',').map(str::to_string)),
            Kind::Value | Kind::Repeat => values.push(value),
        }
        Ok(())
    }
}

/// The help text of a verb.
pub fn help(path: &str, usage: &str, about: &str, flags: &[Flag]) -> String {
    let mut text = format!("{about}\n\nUsage:\n  {} {path} {usage}\n", program());
    if !flags.is_empty() {
        text += "\nOptions:\n";
        let left = |f: &Flag| {
            let short = if f.short == ' ' { "    ".into() } else { format!("-{}, ", f.short) };
            let value = match f.kind {
                Kind::Bool => "",
                Kind::Value => " value",
                Kind::List => " list",
                Kind::Repeat => " value...",
            };
            format!("  {short}--{}{value}", f.long)
        };
        let width = flags.iter().map(|f| left(f).len()).max().unwrap_or(0);
        let mut sorted: Vec<&Flag> = flags.iter().collect();
        sorted.sort_by_key(|f| f.long);
        for flag in sorted {
            text += &format!("{:width$}   {}\n", left(flag), flag.help);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [Flag; 4] = [
        flag("interactive", 'i', Kind::Bool, ""),
        flag("tty", 't', Kind::Bool, ""),
        flag("env", 'e', Kind::Repeat, ""),
        flag("dns", ' ', Kind::List, ""),
    ];

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    #[test]
    fn forms() {
        let args =
            parse(&FLAGS, &words("-ite A=B --env=C,D --dns 1,2 --tty=false img -x --foo"), false).unwrap();
        assert!(args.is("interactive") && !args.is("tty"));
        assert_eq!(args.all("env"), ["A=B", "C,D"]);
        assert_eq!(args.all("dns"), ["1", "2"]);
        assert_eq!(args.rest, ["img", "-x", "--foo"]);
        let args = parse(&FLAGS, &words("a -i b -- -t"), true).unwrap();
        assert_eq!(args.rest, ["a", "b", "-t"]);
    }

    #[test]
    fn messages() {
        let message = |text: &str| parse(&FLAGS, &words(text), true).unwrap_err();
        assert_eq!(message("--nosuch"), "unknown flag: --nosuch");
        assert_eq!(message("-ix"), "unknown shorthand flag: 'x' in -ix");
        assert_eq!(message("--env"), "flag needs an argument: --env");
        assert_eq!(message("-ie"), "flag needs an argument: 'e' in -ie");
        assert!(message("--tty=x").contains("strconv.ParseBool"));
    }
}
