//! The rules of containers-registries.conf(5), each with a text of its own.

use super::*;

fn conf(text: &str) -> RegistriesConf {
    RegistriesConf::parse(text).unwrap()
}

fn sources(conf: &RegistriesConf, name: &str) -> Vec<String> {
    match conf.sources(&name.parse().unwrap()) {
        Ok(sources) => sources
            .iter()
            .map(|source| format!("{}{}", source.reference, if source.insecure { " insecure" } else { "" }))
            .collect(),
        Err(error) => vec![error.to_string()],
    }
}

fn short(conf: &RegistriesConf, name: &str) -> Result<Vec<String>, String> {
    let resolution = conf.resolve_short(&name.parse().unwrap()).map_err(|error| error.to_string())?;
    let names = resolution.unattended().map_err(|error| error.to_string())?;
    Ok(names.iter().map(ToString::to_string).collect())
}

#[test]
fn manual_pages_mirror_example() {
    let conf = conf(
        r#"
        [[registry]]
        prefix = "example.com/foo"
        location = "internal-registry-for-example.com/bar"
        [[registry.mirror]]
        location = "example-mirror-0.local/mirror-for-foo"
        [[registry.mirror]]
        location = "example-mirror-1.local/mirrors/foo"
        insecure = true
    "#,
    );
    let expected = [
        "example-mirror-0.local/mirror-for-foo/image:latest",
        "example-mirror-1.local/mirrors/foo/image:latest insecure",
        "internal-registry-for-example.com/bar/image:latest",
    ];
    assert_eq!(sources(&conf, "example.com/foo/image:latest"), expected);
    assert_eq!(sources(&conf, "example.com/food/image"), ["example.com/food/image"]);
}

#[test]
fn longest_prefix_and_wildcards() {
    let conf = conf(
        r#"
        [[registry]]
        prefix = "*.example.com"
        insecure = true
        [[registry]]
        prefix = "a.example.com/x"
        location = "other.org/y"
        [[registry]]
        location = "bad.org"
        blocked = true
    "#,
    );
    assert_eq!(sources(&conf, "b.c.example.com:5000/i"), ["b.c.example.com:5000/i insecure"]);
    assert_eq!(sources(&conf, "example.com/i"), ["example.com/i"]);
    assert_eq!(sources(&conf, "evil.org/a.example.com"), ["evil.org/a.example.com"]);
    assert_eq!(sources(&conf, "a.example.com/x/i:1"), ["other.org/y/i:1"]);
    assert!(sources(&conf, "bad.org/i")[0].starts_with("registry bad.org is blocked in"));
    assert!(conf.is_insecure("q.example.com"));
}

#[test]
fn mirrors_by_digest_or_tag() {
    let conf = conf(
        r#"
        [[registry]]
        location = "r.io"
        [[registry.mirror]]
        location = "digests.io"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tags.io"
        pull-from-mirror = "tag-only"
        [[registry]]
        location = "s.io"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "m.io"
    "#,
    );
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(sources(&conf, "r.io/i:1"), ["tags.io/i:1", "r.io/i:1"]);
    assert_eq!(sources(&conf, &format!("r.io/i@{digest}"))[0], format!("digests.io/i@{digest}"));
    assert_eq!(sources(&conf, "s.io/i:1"), ["s.io/i:1"]);
    assert_eq!(sources(&conf, &format!("s.io/i@{digest}")).len(), 2);
}

#[test]
fn short_names() {
    let text = r#"
        unqualified-search-registries = ["docker.io", "quay.io"]
        short-name-mode = "enforcing"
        [aliases]
        "fedora" = "registry.fedoraproject.org/fedora"
    "#;
    let enforcing = conf(text);
    assert_eq!(short(&enforcing, "fedora:40").unwrap(), ["registry.fedoraproject.org/fedora:40"]);
    assert!(short(&enforcing, "alpine").unwrap_err().contains("cannot prompt without a TTY"));
    let permissive = conf(&text.replace("enforcing", "permissive"));
    assert_eq!(short(&permissive, "alpine:3").unwrap(), ["docker.io/library/alpine:3", "quay.io/alpine:3"]);
    let one = conf("unqualified-search-registries = ['x.io']\nshort-name-mode = 'enforcing'");
    assert_eq!(short(&one, "a/b").unwrap(), ["x.io/a/b"]);
    assert!(
        short(&RegistriesConf::default(), "a")
            .unwrap_err()
            .contains("no containers-registries.conf(5) was found")
    );
}

#[test]
fn mistakes_are_named() {
    let error = |text: &str| RegistriesConf::parse(text).unwrap_err().to_string();
    assert!(error("[[registry]]\nprefix='x.io'").contains("location is unset"));
    assert!(error("[[registry]]\nblocked=true").contains("both location and prefix are unset"));
    assert!(error("[[registry]]\nprefix='*.x.io/foo'").contains("wildcard"));
    assert!(error("[[registry]]\nlocation='https://x.io'").contains("URI schemes"));
    assert!(error("[registries.search]\nregistries=['x.io']").contains("version 1"));
    assert!(error("short-name-mode='x'").contains("invalid short-name mode"));
    assert!(error("[aliases]\n'x.io/a'='y.io/a'").contains("must not contain registry"));
    assert!(error("[aliases]\n'a'='y.io/a:1'").contains("must not contain tag"));
    assert!(error("a = ").contains("parsing registries.conf"));
}

#[test]
fn files_merge_in_order() {
    let home = tempfile::tempdir().unwrap();
    let containers = home.path().join("containers");
    std::fs::create_dir_all(containers.join("registries.conf.d/sub.conf")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(containers.join(name), text).unwrap();
    write("registries.conf", "unqualified-search-registries=['a.io']\n[aliases]\n'x'='a.io/x'\n'y'='a.io/y'");
    write("registries.conf.d/20.conf", "[aliases]\n'x'='c.io/x'\n'y'=''");
    write("registries.conf.d/10.conf", "unqualified-search-registries=['b.io']\n[aliases]\n'x'='b.io/x'");
    write("registries.conf.d/notes.txt", "no toml at all");
    write("short-name-aliases.conf", "[aliases]\n'z'='cache.io/z'");
    let environment = UserEnvironment {
        uid: 1000,
        config_home: Some(home.path().into()),
        cache_home: Some(home.path().into()),
        ..UserEnvironment::default()
    };
    let conf = RegistriesConf::load(&environment).unwrap();
    assert_eq!(conf.unqualified_search_registries(), ["b.io"]);
    assert_eq!(short(&conf, "x").unwrap(), ["c.io/x"]);
    assert_eq!(short(&conf, "y").unwrap(), ["b.io/y"]);
    assert_eq!(short(&conf, "z").unwrap(), ["cache.io/z"]);

    let missing = UserEnvironment { registries_conf: Some("/no/such".into()), ..environment };
    assert_eq!(RegistriesConf::load(&missing).unwrap_err().kind(), ErrorKind::Config);
}
