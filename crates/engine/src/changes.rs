//! `--change` of `commit` and `import`: instructions of a Containerfile that change an image's configuration.

use unroot_store::{Config, Healthcheck};

const KNOWN: &str =
    "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR";

/// Does `KEY=VALUE` or `KEY VALUE`; the error says what is wrong with it.
pub fn apply(config: &mut Config, change: &str) -> Result<(), String> {
    let broken = || format!("invalid change \"{change}\" - must be formatted as KEY VALUE");
    let at = change.find(['=', ' ', '\t']).ok_or_else(broken)?;
    let (key, value) = (change[..at].trim().to_ascii_uppercase(), change[at + 1..].trim());
    if value.is_empty() && !matches!(key.as_str(), "CMD" | "ENTRYPOINT" | "USER") {
        return Err(broken());
    }
    match key.as_str() {
        "CMD" => config.cmd = command(value),
        "ENTRYPOINT" => config.entrypoint = command(value),
        "ENV" => {
            for (name, value) in pairs(value).ok_or_else(broken)? {
                set_env(&mut config.env, &name, &value);
            }
        }
        "LABEL" => config.labels.extend(pairs(value).ok_or_else(broken)?),
        "EXPOSE" => {
            for port in words(value) {
                let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
                if number.parse::<u16>().is_err() || !matches!(protocol, "tcp" | "udp" | "sctp") {
                    return Err(format!(
                        "invalid change \"{change}\" - {port:?} is no port such as 80 or 53/udp"
                    ));
                }
                config.exposed_ports.insert(format!("{number}/{protocol}"), serde_json::json!({}));
            }
        }
        "VOLUME" => {
            let paths = serde_json::from_str::<Vec<String>>(value).unwrap_or_else(|_| words(value));
            config.volumes.extend(paths.into_iter().map(|p| (p, serde_json::json!({}))));
        }
        "STOPSIGNAL" => {
            unroot_sys::signal::parse(value)
                .ok_or_else(|| format!("invalid change \"{change}\" - {value:?} is no signal"))?;
            config.stop_signal = value.into();
        }
        "USER" => config.user = value.into(),
        "WORKDIR" => {
            config.working_dir = match value.starts_with('/') {
                true => value.into(),
                false => format!("{}/{value}", config.working_dir.trim_end_matches('/')),
            }
        }
        "ONBUILD" => config.on_build.push(value.into()),
        "HEALTHCHECK" => {
            config.healthcheck =
                Some(healthcheck(value).map_err(|e| format!("invalid change \"{change}\" - {e}"))?)
        }
        _ => {
            return Err(format!(
                "invalid change \"{change}\" - invalid instruction {key}: it is one of {KNOWN}"
            ));
        }
    }
    Ok(())
}

/// Sets a variable, in the place of its old value.
pub fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let text = format!("{name}={value}");
    match env.iter_mut().find(|e| e.split('=').next() == Some(name)) {
        Some(old) => *old = text,
        None => env.push(text),
    }
}

/// A JSON list as it is, else words for a shell.
fn command(value: &str) -> Vec<String> {
    match serde_json::from_str(value) {
        Ok(list) => list,
        Err(_) if value.is_empty() => Vec::new(),
        Err(_) => vec!["/bin/sh".into(), "-c".into(), value.into()],
    }
}

/// `A=B C="D E"`, or `A B` with all that follows.
fn pairs(value: &str) -> Option<Vec<(String, String)>> {
    let all = words(value);
    if all.first()?.contains('=') {
        let pair = |word: &String| word.split_once('=').map(|(n, v)| (n.to_string(), v.to_string()));
        return all
            .iter()
            .map(pair)
            .collect::<Option<Vec<_>>>()
            .filter(|l| l.iter().all(|(n, _)| !n.is_empty()));
    }
    let (name, rest) = value.split_once([' ', '\t'])?;
    Some(vec![(name.into(), words(rest).join(" "))])
}

/// By spaces, but not in quotes; a backslash takes away what a letter means.
pub fn words(text: &str) -> Vec<String> {
    let (mut all, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', q) if q != Some('\'') => word.get_or_insert_default().extend(letters.next()),
            (l, Some(q)) if l == q => quote = None,
            (l, Some(_)) => word.get_or_insert_default().push(l),
            (l @ ('"' | '\''), None) => {
                word.get_or_insert_default();
                quote = Some(l);
            }
            (l, None) if l.is_whitespace() => all.extend(word.take()),
            (l, None) => word.get_or_insert_default().push(l),
        }
    }
    all.extend(word);
    all
}

/// `NONE`, or `[--interval=30s ...] CMD ...`.
fn healthcheck(text: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = text.trim();
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(' ').ok_or("there is no CMD or NONE")?;
        rest = after.trim_start();
        let (name, value) = flag.split_once('=').ok_or_else(|| format!("--{flag} has no value"))?;
        let time = || nanoseconds(value).ok_or_else(|| format!("--{name}: {value:?} is no time such as 30s"));
        match name {
            "interval" => check.interval = time()?,
            "timeout" => check.timeout = time()?,
            "start-period" => check.start_period = time()?,
            "start-interval" => check.start_interval = time()?,
            "retries" => {
                check.retries = value.parse().map_err(|_| format!("--retries: {value:?} is no number"))?
            }
            _ => return Err(format!("unknown flag --{name}")),
        }
    }
    check.test = match rest.split_once(' ').unwrap_or((rest, "")) {
        ("NONE", "") => vec!["NONE".into()],
        ("CMD", command) if !command.trim().is_empty() => {
            match serde_json::from_str::<Vec<String>>(command.trim()) {
                Ok(list) => std::iter::once("CMD".to_string()).chain(list).collect(),
                Err(_) => vec!["CMD-SHELL".into(), command.trim().into()],
            }
        }
        _ => return Err("after flags there is CMD with a command, or NONE".into()),
    };
    Ok(check)
}

/// `1m30s`, `500ms`.
fn nanoseconds(text: &str) -> Option<u64> {
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| end + n);
        let factor = match &rest[end..unit_end] {
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += rest[..end].parse::<f64>().ok()? * factor;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Config {
        let mut config = Config::default();
        changes.iter().for_each(|c| apply(&mut config, c).unwrap());
        config
    }

    #[test]
    fn instructions() {
        let config = changed(&[
            "CMD [\"a\", \"b\"]",
            "ENTRYPOINT=/bin/x -y",
            "ENV A=1 B=\"two words\"",
            "env A=3",
            "ENV=C=D=E",
            "ENV F g h",
            "EXPOSE 80 53/udp",
            "LABEL a=b",
            "USER 1:2",
            "VOLUME /a /b",
            "VOLUME [\"/c d\"]",
            "WORKDIR /w",
            "WORKDIR x",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN true",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD true -x",
        ]);
        assert_eq!(config.cmd, ["a", "b"]);
        assert_eq!(config.entrypoint, ["/bin/sh", "-c", "/bin/x -y"]);
        assert_eq!(config.env, ["A=3", "B=two words", "C=D=E", "F=g h"]);
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/a", "/b", "/c d"]);
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/w/x", "1:2"));
        assert_eq!(config.on_build, ["RUN true"]);
        let check = config.healthcheck.unwrap();
        assert_eq!((check.interval, check.retries), (90_000_000_000, 2));
        assert_eq!(check.test, ["CMD-SHELL", "true -x"]);
    }

    #[test]
    fn refused() {
        let error = |change: &str| apply(&mut Config::default(), change).unwrap_err();
        assert_eq!(error("BOGUS"), "invalid change \"BOGUS\" - must be formatted as KEY VALUE");
        assert!(error("BOGUS=a").contains("invalid instruction BOGUS"));
        assert!(error("EXPOSE x").contains("no port"));
        assert!(error("STOPSIGNAL x").contains("no signal"));
        assert!(error("HEALTHCHECK --interval=1 CMD x").contains("no time"));
        assert!(error("ENV A=1 B").contains("must be formatted"));
    }
}
