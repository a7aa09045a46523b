//! /etc/resolv.conf and /etc/hosts of a container, as texts.

/// What goes into /etc/resolv.conf.
#[derive(Debug, Default)]
pub struct Resolv<'a> {
    /// The host's file.
    pub host: &'a str,
    /// `--dns`; replaces the host's.
    pub servers: &'a [String],
    /// `--dns-search`; `.` is none.
    pub search: &'a [String],
    /// `--dns-option`.
    pub options: &'a [String],
    /// A server that comes before the host's.
    pub forwarder: Option<&'a str>,
    /// The host's loopback addresses can be reached.
    pub shares_loopback: bool,
}

/// /etc/resolv.conf
pub fn resolv_conf(input: &Resolv<'_>) -> String {
    let fields = |key: &str| -> Vec<String> {
        let mut lines = input
            .host
            .lines()
            .filter_map(|l| l.trim().strip_prefix(key))
            .filter(|r| r.starts_with([' ', '\t']));
        lines.next_back().into_iter().flat_map(str::split_whitespace).map(str::to_string).collect()
    };
    let of_host = || {
        let servers = input
            .host
            .lines()
            .filter_map(|l| l.trim().strip_prefix("nameserver"))
            .map(|s| s.trim().to_string());
        let reachable = |s: &String| input.shares_loopback || !(s.starts_with("127.") || s == "::1");
        let mut all: Vec<String> = input.forwarder.map(str::to_string).into_iter().collect();
        all.extend(servers.filter(|s| !s.is_empty()).filter(reachable));
        all
    };
    let choose = |given: &[String], host: Vec<String>| if given.is_empty() { host } else { given.to_vec() };
    let search = choose(input.search, fields("search"));
    let options = choose(input.options, fields("options"));
    let mut text = String::new();
    if !search.is_empty() && search != ["."] {
        text += &format!("search {}\n", search.join(" "));
    }
    for server in choose(input.servers, of_host()) {
        text += &format!("nameserver {server}\n");
    }
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    text
}

/// /etc/hosts: the base file, then names that were added, the host's, the container's own. A name that is there
/// already is not written again.
pub fn hosts(
    base: &str,
    added: &[(String, Vec<String>)],
    host: Option<&str>,
    own: Option<(&str, &[&str])>,
) -> String {
    let mut text = String::new();
    for (ip, names) in added {
        text += &format!("{ip}\t{}\n", names.join(" "));
    }
    for line in base.lines() {
        text += line;
        text.push('\n');
    }
    let known = |text: &str, name: &str| {
        text.lines()
            .any(|l| l.split('#').next().unwrap_or_default().split_whitespace().skip(1).any(|n| n == name))
    };
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    lines.extend(host.map(|ip| (ip.to_string(), vec!["host.containers.internal", "host.docker.internal"])));
    lines.extend(own.map(|(ip, names)| (ip.to_string(), names.to_vec())));
    for (ip, names) in lines {
        let names: Vec<&str> = names.into_iter().filter(|name| !known(&text, name)).collect();
        if !names.is_empty() {
            text += &format!("{ip}\t{}\n", names.join(" "));
        }
    }
    if !known(&text, "localhost") {
        text += "127.0.0.1\tlocalhost\n::1\tlocalhost\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers() {
        let host = "search a.example\nnameserver 127.0.0.53\nnameserver 192.0.2.1\noptions edns0\n";
        let input = Resolv { host, forwarder: Some("169.254.1.1"), ..Resolv::default() };
        assert_eq!(
            resolv_conf(&input),
            "search a.example\nnameserver 169.254.1.1\nnameserver 192.0.2.1\noptions edns0\n"
        );
        let servers = ["9.9.9.9".to_string()];
        let search = [".".to_string()];
        let input = Resolv { host, servers: &servers, search: &search, ..Resolv::default() };
        assert_eq!(resolv_conf(&input), "nameserver 9.9.9.9\noptions edns0\n");
    }

    #[test]
    fn names() {
        let added = [("10.0.0.1".to_string(), vec!["db".to_string()])];
        let text =
            hosts("127.0.0.1 localhost\n", &added, Some("169.254.1.2"), Some(("10.9.8.7", &["abc", "web"])));
        assert_eq!(
            text,
            "10.0.0.1\tdb\n127.0.0.1 localhost\n169.254.1.2\thost.containers.internal host.docker.internal\n10.9.8.7\tabc web\n"
        );
    }
}
