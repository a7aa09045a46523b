//! Go templates for `--format`, over JSON values: fields, pipelines, `range`, `if`, `with`, variables, and the
//! functions that Podman's users know. A field that is not there is an error that names it.

use serde_json::Value;

/// Fills a template with a value.
pub fn render(template: &str, data: &Value) -> Result<String, String> {
    Template::parse(template)?.fill(data)
}

/// A template that is filled several times.
pub struct Template(Vec<Node>);

impl Template {
    /// Reads it.
    pub fn parse(template: &str) -> Result<Self, String> {
        parse(template).map(Self)
    }

    /// Fills it with a value.
    pub fn fill(&self, data: &Value) -> Result<String, String> {
        let mut out = String::new();
        let mut scope = Scope { root: data, variables: Vec::new() };
        run(&self.0, data, &mut scope, &mut out)?;
        Ok(out)
    }
}

#[derive(Debug)]
enum Node {
    Text(String),
    Print(String),
    If(Vec<(String, Vec<Node>)>, Vec<Node>),
    Range(String, Vec<Node>, Vec<Node>),
    With(String, Vec<Node>, Vec<Node>),
}

enum Token {
    Text(String),
    Action(String),
}

fn tokens(template: &str) -> Result<Vec<Token>, String> {
    let mut all: Vec<Token> = Vec::new();
    let mut rest = template;
    while let Some(start) = rest.find("{{") {
        let mut text = rest[..start].to_string();
        let after = &rest[start + 2..];
        let end = after.find("}}").ok_or("template: unclosed action")?;
        let mut action = &after[..end];
        rest = &after[end + 2..];
        if let Some(trimmed) = action.strip_prefix("- ") {
            text.truncate(text.trim_end().len());
            action = trimmed;
        }
        let trim_after = action.strip_suffix(" -");
        all.push(Token::Text(text));
        all.push(Token::Action(trim_after.unwrap_or(action).trim().to_string()));
        if trim_after.is_some() {
            rest = rest.trim_start();
        }
    }
    all.push(Token::Text(rest.to_string()));
    Ok(all)
}

fn parse(template: &str) -> Result<Vec<Node>, String> {
    let mut all = tokens(template)?.into_iter();
    let (nodes, end) = block(&mut all)?;
    match end {
        None => Ok(nodes),
        Some(word) => Err(format!("template: unexpected {{{{{word}}}}}")),
    }
}

fn block(tokens: &mut std::vec::IntoIter<Token>) -> Result<(Vec<Node>, Option<String>), String> {
    let mut nodes = Vec::new();
    while let Some(token) = tokens.next() {
        let action = match token {
            Token::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Token::Action(action) => action,
        };
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((&action, ""));
        match word {
            "if" => nodes.push(conditional(rest, tokens)?),
            "range" | "with" => {
                let (body, end) = block(tokens)?;
                let otherwise = if end.as_deref() == Some("else") { block(tokens)?.0 } else { Vec::new() };
                let node = if word == "range" { Node::Range } else { Node::With };
                nodes.push(node(rest.trim().to_string(), body, otherwise));
            }
            "end" | "else" => return Ok((nodes, Some(action))),
            _ if action.starts_with("/*") => {}
            _ => nodes.push(Node::Print(action)),
        }
    }
    Ok((nodes, None))
}

fn conditional(first: &str, tokens: &mut std::vec::IntoIter<Token>) -> Result<Node, String> {
    let mut branches = Vec::new();
    let mut condition = first.trim().to_string();
    loop {
        let (body, end) = block(tokens)?;
        branches.push((condition, body));
        match end.as_deref() {
            Some("end") => return Ok(Node::If(branches, Vec::new())),
            Some("else") => return Ok(Node::If(branches, block(tokens)?.0)),
            Some(other) => {
                condition =
                    other.trim_start_matches("else").trim().trim_start_matches("if").trim().to_string()
            }
            None => return Err("template: unexpected end: an if without its end".into()),
        }
    }
}

struct Scope<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
}

fn run(nodes: &[Node], dot: &Value, scope: &mut Scope<'_>, out: &mut String) -> Result<(), String> {
    let depth = scope.variables.len();
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(action) => {
                if let Some((name, expression)) = assignment(action) {
                    let value = pipeline(expression, dot, scope)?;
                    scope.variables.push((name.to_string(), value));
                } else {
                    out.push_str(&show(&pipeline(action, dot, scope)?));
                }
            }
            Node::If(branches, otherwise) => {
                let mut chosen = otherwise;
                for (condition, body) in branches {
                    if truth(&pipeline(condition, dot, scope)?) {
                        chosen = body;
                        break;
                    }
                }
                run(chosen, dot, scope, out)?;
            }
            Node::With(expression, body, otherwise) => {
                let value = pipeline(expression, dot, scope)?;
                if truth(&value) { run(body, &value, scope, out)? } else { run(otherwise, dot, scope, out)? }
            }
            Node::Range(expression, body, otherwise) => range(expression, body, otherwise, dot, scope, out)?,
        }
    }
    scope.variables.truncate(depth);
    Ok(())
}

fn assignment(action: &str) -> Option<(&str, &str)> {
    let (names, expression) = action.split_once(":=")?;
    names.trim().starts_with('$').then(|| (names.trim(), expression.trim()))
}

fn range(
    expression: &str,
    body: &[Node],
    otherwise: &[Node],
    dot: &Value,
    scope: &mut Scope<'_>,
    out: &mut String,
) -> Result<(), String> {
    let (names, expression) = assignment(expression)
        .map_or((Vec::new(), expression), |(n, e)| (n.split(',').map(str::trim).collect(), e));
    let value = pipeline(expression, dot, scope)?;
    let items: Vec<(Value, Value)> = match value {
        Value::Array(items) => items.into_iter().enumerate().map(|(n, v)| (n.into(), v)).collect(),
        Value::Object(items) => {
            let mut items: Vec<_> = items.into_iter().collect();
            items.sort_by(|a, b| a.0.cmp(&b.0));
            items.into_iter().map(|(k, v)| (k.into(), v)).collect()
        }
        Value::Null => Vec::new(),
        other => return Err(format!("template: range can't iterate over {}", show(&other))),
    };
    if items.is_empty() {
        return run(otherwise, dot, scope, out);
    }
    for (key, item) in items {
        let depth = scope.variables.len();
        match names[..] {
            [one] => scope.variables.push((one.into(), item.clone())),
            [first, second] => {
                scope.variables.push((first.into(), key));
                scope.variables.push((second.into(), item.clone()));
            }
            _ => {}
        }
        run(body, &item, scope, out)?;
        scope.variables.truncate(depth);
    }
    Ok(())
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

/// As Go's `%v` prints it.
pub fn show(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(items) if items.keys().all(|k| is_field(k)) && !items.is_empty() => {
            format!("{{{}}}", items.values().map(show).collect::<Vec<_>>().join(" "))
        }
        Value::Object(items) => {
            let mut pairs: Vec<String> = items.iter().map(|(k, v)| format!("{k}:{}", show(v))).collect();
            pairs.sort();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

/// The name of a struct's field, such as `HostPort`: Go shows a struct otherwise than a map.
fn is_field(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_uppercase())
        && key.bytes().all(|b| b.is_ascii_alphanumeric())
        && key.bytes().any(|b| b.is_ascii_lowercase())
}

/// `a | b c | d`
fn pipeline(text: &str, dot: &Value, scope: &Scope<'_>) -> Result<Value, String> {
    let mut piped = None;
    for part in split(text, '|')? {
        piped = Some(command(&words(&part)?, piped, dot, scope)?);
    }
    piped.ok_or_else(|| "template: missing value for command".into())
}

/// Splits outside of quotes and parentheses.
fn split(text: &str, separator: char) -> Result<Vec<String>, String> {
    let (mut parts, mut depth, mut quote) = (vec![String::new()], 0, None);
    let mut escaped = false;
    for c in text.chars() {
        let current = parts.last_mut().expect("never empty");
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(q), c) if q == c => quote = None,
            (None, '"' | '`' | '\'') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, c) if c == separator && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    if quote.is_some() || depth != 0 {
        return Err("template: unterminated quoted string or parenthesis".into());
    }
    Ok(parts)
}

fn words(text: &str) -> Result<Vec<String>, String> {
    Ok(split(&text.replace(['\t', '\n'], " "), ' ')?.into_iter().filter(|w| !w.is_empty()).collect())
}

fn command(words: &[String], piped: Option<Value>, dot: &Value, scope: &Scope<'_>) -> Result<Value, String> {
    let [name, rest @ ..] = words else { return Err("template: missing value for command".into()) };
    let is_function = name.chars().next().is_some_and(char::is_alphabetic)
        && !matches!(name.as_str(), "true" | "false" | "nil");
    if !is_function {
        return match (rest, name.strip_suffix(".Label")) {
            ([], _) => operand(name, dot, scope),
            ([label], Some(object)) => {
                let object = if object.is_empty() { dot.clone() } else { operand(object, dot, scope)? };
                let labels = fields(&object, ".Labels")?;
                let found = labels.get(show(&operand(label, dot, scope)?)).map(show);
                Ok(found.unwrap_or_default().into())
            }
            _ => Err(format!("template: can't give argument to non-function {name}")),
        };
    }
    let mut arguments = rest.iter().map(|w| operand(w, dot, scope)).collect::<Result<Vec<_>, _>>()?;
    arguments.extend(piped);
    function(name, &arguments)
}

fn operand(text: &str, dot: &Value, scope: &Scope<'_>) -> Result<Value, String> {
    if let Some(rest) = text.strip_prefix('(') {
        let end = rest.rfind(')').ok_or("template: unclosed left paren")?;
        let value = pipeline(&rest[..end], dot, scope)?;
        return fields(&value, &rest[end + 1..]);
    }
    if text == "." {
        return Ok(dot.clone());
    }
    if text.starts_with('.') {
        return fields(dot, text);
    }
    if text.starts_with('$') {
        let end = text.find('.').unwrap_or(text.len());
        let (name, path) = text.split_at(end);
        if name == "$" {
            return fields(scope.root, path);
        }
        let found = scope.variables.iter().rev().find(|(known, _)| known == name);
        return fields(&found.ok_or_else(|| format!("template: undefined variable \"{name}\""))?.1, path);
    }
    if let Some(raw) = text.strip_prefix('`').and_then(|t| t.strip_suffix('`')) {
        return Ok(raw.into());
    }
    if text.starts_with('"') {
        return serde_json::from_str(text).map_err(|e| format!("template: {text}: {e}"));
    }
    match text {
        "true" => Ok(true.into()),
        "false" => Ok(false.into()),
        "nil" => Ok(Value::Null),
        number => number
            .parse::<i64>()
            .map(Value::from)
            .or_else(|_| number.parse::<f64>().map(Value::from))
            .or_else(|_| function(number, &[])),
    }
}

fn fields(value: &Value, path: &str) -> Result<Value, String> {
    let mut value = value.clone();
    for name in path.split('.').filter(|n| !n.is_empty()) {
        value = match &value {
            Value::Object(map) => match map
                .get(name)
                .or_else(|| map.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v))
            {
                Some(found) => found.clone(),
                None => {
                    return Err(format!(
                        "template: can't evaluate field {name} in type {}",
                        type_name(&value)
                    ));
                }
            },
            Value::Null => return Ok(Value::Null),
            other => {
                return Err(format!("template: can't evaluate field {name} in type {}", type_name(other)));
            }
        };
    }
    Ok(value)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "interface {}",
    }
}

/// `slice x 1 2` is `x[1:2]`, of a list or of a text's bytes.
fn slice(arguments: &[Value]) -> Result<Value, String> {
    let (value, bounds) = arguments.split_first().ok_or("template: wrong number of args for slice")?;
    let length = match value {
        Value::Array(items) => items.len(),
        Value::String(text) => text.len(),
        other => {
            return Err(format!(
                "template: error calling slice: can't slice item of type {}",
                type_name(other)
            ));
        }
    };
    let bound = |n: usize, default: usize| match bounds.get(n) {
        None => Ok(default),
        Some(given) => given
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n <= length)
            .ok_or_else(|| format!("template: error calling slice: index out of range: {}", show(given))),
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    if from > to {
        return Err(format!("template: error calling slice: invalid slice index: {from} > {to}"));
    }
    Ok(match value {
        Value::Array(items) => items[from..to].to_vec().into(),
        other => String::from_utf8_lossy(&show(other).as_bytes()[from..to]).into_owned().into(),
    })
}

fn function(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let text = |n: usize| arguments.get(n).map(show).unwrap_or_default();
    let compare = || {
        let (a, b) = (arguments.first().unwrap_or(&Value::Null), arguments.get(1).unwrap_or(&Value::Null));
        match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => Some(show(a).cmp(&show(b))),
        }
    };
    use std::cmp::Ordering::{Equal, Greater, Less};
    Ok(match name {
        "json" => to_json(arguments.first().unwrap_or(&Value::Null)).into(),
        "upper" => text(0).to_uppercase().into(),
        "lower" => text(0).to_lowercase().into(),
        "title" => text(0).split(' ').map(capital).collect::<Vec<_>>().join(" ").into(),
        "join" => match arguments.first() {
            Some(Value::Array(items)) => items.iter().map(show).collect::<Vec<_>>().join(&text(1)).into(),
            _ => text(0).into(),
        },
        "split" => text(0).split(&text(1)).map(Value::from).collect(),
        "len" => match arguments.first() {
            Some(Value::Array(items)) => items.len().into(),
            Some(Value::Object(items)) => items.len().into(),
            Some(Value::String(text)) => text.len().into(),
            _ => 0.into(),
        },
        "slice" => slice(arguments)?,
        "index" => arguments.iter().skip(1).try_fold(
            arguments.first().cloned().unwrap_or_default(),
            |value, key| match (&value, key) {
                (Value::Array(items), Value::Number(n)) => n
                    .as_u64()
                    .and_then(|n| items.get(n as usize).cloned())
                    .ok_or_else(|| format!("template: error calling index: index out of range: {n}")),
                (Value::Object(items), key) => {
                    Ok(items.get(&show(key)).cloned().unwrap_or(Value::String(String::new())))
                }
                _ => Err("template: error calling index: can't index item".to_string()),
            },
        )?,
        "print" => arguments.iter().map(show).collect::<Vec<_>>().join(" ").into(),
        "println" => format!("{}\n", arguments.iter().map(show).collect::<Vec<_>>().join(" ")).into(),
        "printf" => printf(&text(0), arguments.get(1..).unwrap_or_default()).into(),
        "eq" => arguments.iter().skip(1).any(|other| show(other) == text(0)).into(),
        "ne" => (text(0) != text(1)).into(),
        "lt" => (compare() == Some(Less)).into(),
        "le" => matches!(compare(), Some(Less | Equal)).into(),
        "gt" => (compare() == Some(Greater)).into(),
        "ge" => matches!(compare(), Some(Greater | Equal)).into(),
        "not" => (!arguments.first().is_some_and(truth)).into(),
        "and" => arguments.iter().find(|a| !truth(a)).or(arguments.last()).cloned().unwrap_or_default(),
        "or" => arguments.iter().find(|a| truth(a)).or(arguments.last()).cloned().unwrap_or_default(),
        "pad" => format!(
            "{}{}{}",
            " ".repeat(text(1).parse().unwrap_or(0)),
            text(0),
            " ".repeat(text(2).parse().unwrap_or(0))
        )
        .into(),
        "truncate" => text(0).chars().take(text(1).parse().unwrap_or(0)).collect::<String>().into(),
        _ => return Err(format!("template: function \"{name}\" not defined")),
    })
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// As Go's encoder has it: compact.
pub fn to_json(value: &Value) -> String {
    value.to_string()
}

fn printf(format: &str, arguments: &[Value]) -> String {
    let (mut out, mut arguments) = (String::new(), arguments.iter());
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut width = String::new();
        let verb = loop {
            match chars.next() {
                Some(c) if c.is_ascii_digit() || c == '-' || c == '.' => width.push(c),
                other => break other,
            }
        };
        if verb == Some('%') {
            out.push('%');
            continue;
        }
        let value = arguments.next().map(show).unwrap_or_default();
        let value = if verb == Some('q') { format!("{value:?}") } else { value };
        let size = width.trim_start_matches('-').split('.').next().and_then(|w| w.parse().ok()).unwrap_or(0);
        out += &if width.starts_with('-') { format!("{value:<size$}") } else { format!("{value:>size$}") };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates() {
        let data = json!({"Name": "web", "State": {"Pid": 7, "Running": true}, "Env": ["A=1", "B=2"], "Labels": {"k": "v"}, "Empty": []});
        for (template, expected) in [
            ("{{.Name}}", "web"),
            ("{{ .State.Pid }}/{{.State.Running}}", "7/true"),
            ("{{json .Env}}", "[\"A=1\",\"B=2\"]"),
            ("{{range .Env}}<{{.}}>{{end}}", "<A=1><B=2>"),
            ("{{range $i, $e := .Env}}{{$i}}{{$e}} {{end}}", "0A=1 1B=2 "),
            ("{{if .State.Running}}yes{{else}}no{{end}}", "yes"),
            ("{{if eq .Name \"db\"}}a{{else if eq .Name \"web\"}}b{{else}}c{{end}}", "b"),
            ("{{index .Env 1}} {{index .Labels \"k\"}}", "B=2 v"),
            ("{{slice .Name 1 2}} {{slice .Name 1}} {{slice .Env 1}}", "e eb [B=2]"),
            ("{{len .Env}} {{.Name | upper}} {{join .Env \",\"}}", "2 WEB A=1,B=2"),
            ("{{printf \"%-5s|%d\" .Name .State.Pid}}", "web  |7"),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            ("a {{- \"b\" -}} c", "abc"),
            ("{{with .State}}{{.Pid}}{{end}} {{.Labels}} {{.Env}}", "7 map[k:v] [A=1 B=2]"),
            ("{{(index .Env 0)}} {{$.Name}}", "A=1 web"),
        ] {
            assert_eq!(render(template, &data).unwrap(), expected, "{template}");
        }
        for (template, message) in [
            ("{{.Nosuch}}", "can't evaluate field Nosuch"),
            ("{{.Name", "unclosed"),
            ("{{nosuch .Name}}", "not defined"),
            ("{{if .Name}}", "unexpected end"),
        ] {
            assert!(render(template, &data).unwrap_err().contains(message), "{template}");
        }
    }
}
