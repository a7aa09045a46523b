//! Paths by pattern, as Go's path.Glob has them: `*`, `?`, `[a-z]`, `[^a]` in any component; `\` takes a letter as it is.

use std::fs;

/// All paths that match an absolute pattern, sorted. Directories that cannot be read have none.
pub fn paths(pattern: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for part in pattern.split('/').filter(|p| !p.is_empty()) {
        let mut next = Vec::new();
        for dir in &found {
            if !part.contains(['*', '?', '[', '\\']) {
                next.push(format!("{dir}/{part}"));
                continue;
            }
            let entries = fs::read_dir(format!("{dir}/")).into_iter().flatten().flatten();
            let names = entries.filter_map(|e| e.file_name().into_string().ok());
            next.extend(names.filter(|name| matches(part, name)).map(|name| format!("{dir}/{name}")));
        }
        found = next;
    }
    found.retain(|path| fs::symlink_metadata(path).is_ok());
    found.sort();
    found
}

/// One component; a leading dot has to be in the pattern.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    !(name.first() == Some(&'.') && pattern.first() != Some(&'.')) && rest_matches(&pattern, &name)
}

fn rest_matches(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', rest @ ..] => (0..=name.len()).any(|n| rest_matches(rest, &name[n..])),
        ['?', rest @ ..] => !name.is_empty() && rest_matches(rest, &name[1..]),
        ['[', rest @ ..] => {
            let (Some(end), Some(&letter)) = (rest.iter().skip(1).position(|c| *c == ']'), name.first())
            else {
                return false;
            };
            let (class, rest) = (&rest[..=end], &rest[end + 2..]);
            in_class(class, letter) && rest_matches(rest, &name[1..])
        }
        ['\\', letter, rest @ ..] | [letter, rest @ ..] => {
            name.first() == Some(letter) && rest_matches(rest, &name[1..])
        }
    }
}

fn in_class(class: &[char], letter: char) -> bool {
    let (class, wanted) = match class {
        ['^' | '!', rest @ ..] => (rest, false),
        class => (class, true),
    };
    let mut at = 0;
    let mut found = false;
    while at < class.len() {
        if let [from, '-', to, ..] = class[at..] {
            found |= (from..=to).contains(&letter);
            at += 3;
        } else {
            found |= class[at] == letter;
            at += 1;
        }
    }
    found == wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, is) in [
            ("*", "a", true),
            ("*", ".a", false),
            (".*", ".a", true),
            ("a*b?", "axxbc", true),
            ("a*b?", "axxb", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[]]", "]", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[a", "a", false),
            ("a[", "a[", false),
        ] {
            assert_eq!(matches(pattern, name), is, "{pattern} {name}");
        }
    }

    #[test]
    fn components() {
        let dir = std::env::temp_dir().join(format!("unroot-glob-{}", std::process::id()));
        for file in ["a/x1", "b/x2", "b/y", "c"] {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let base = dir.to_str().unwrap();
        assert_eq!(paths(&format!("{base}/*/x?")), [format!("{base}/a/x1"), format!("{base}/b/x2")]);
        assert_eq!(paths(&format!("{base}/nothing*")), Vec::<String>::new());
        fs::remove_dir_all(&dir).unwrap();
    }
}
