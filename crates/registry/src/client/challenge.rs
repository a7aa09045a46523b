//! `WWW-Authenticate`: which scheme a registry wants (RFC 9110 section 11, and the token specification of Docker).

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token of the server at `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String>, error: Option<String> },
}

impl Challenge {
    /// The strongest usable challenge of all headers: Bearer before Basic.
    pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for (scheme, parameters) in headers.flat_map(parse) {
            let get =
                |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
            match scheme.as_str() {
                "bearer" => {
                    if let Some(realm) = get("realm") {
                        let (service, scope, error) = (get("service"), get("scope"), get("error"));
                        return Some(Self::Bearer { realm, service, scope, error });
                    }
                }
                "basic" => basic = Some(Self::Basic),
                _ => {}
            }
        }
        basic
    }
}

/// A scheme in lower case with its parameters.
type Parsed = (String, Vec<(String, String)>);

fn parse(header: &str) -> Vec<Parsed> {
    let mut challenges: Vec<Parsed> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            return challenges;
        }
        let after = after.trim_start_matches([' ', '\t']);
        match (after.strip_prefix('='), challenges.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = parameter_value(value.trim_start_matches([' ', '\t']));
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => return challenges,
            (None, _) => {
                challenges.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
    }
}

fn token(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c)));
    text.split_at(end.unwrap_or(text.len()))
}

fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = token(text);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(header: &str) -> Option<Challenge> {
        Challenge::choose(std::iter::once(header))
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let (service, scope) = (service.map(str::to_owned), scope.map(str::to_owned));
        Some(Challenge::Bearer { realm: realm.into(), service, scope, error: None })
    }

    #[test]
    fn schemes_and_parameters() {
        assert_eq!(
            choose(r#"Bearer realm="https://a.io/token",service="r.io",scope="repository:a/b:pull,push""#),
            bearer("https://a.io/token", Some("r.io"), Some("repository:a/b:pull,push"))
        );
        assert_eq!(choose(r#"Basic realm="x, Bearer""#), Some(Challenge::Basic));
        assert_eq!(
            choose(r#"Negotiate, Basic realm=x, BEARER realm="https://\"q\"""#),
            bearer("https://\"q\"", None, None)
        );
        assert_eq!(choose("Bearer service=x"), None);
    }

    #[test]
    fn garbage_ends() {
        for garbage in
            ["", ",,,", "=", "a=b", "Bearer realm=\"open", "Bearer =\"", "\"", "Bearer \u{e9}", "B \\ \""]
        {
            let _ = choose(garbage);
        }
    }
}
