//! Search order, keys, changes, and helpers that are real programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn password(username: &str, password: &str) -> Credentials {
    Credentials::Password { username: username.into(), password: password.into() }
}

fn auth_of(text: &str) -> (tempfile::TempDir, Auth) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("auth.json");
    fs::write(&path, text).unwrap();
    let auth = Auth::load(Some(&path), &UserEnvironment::default()).unwrap();
    (directory, auth)
}

#[test]
fn most_specific_key_wins() {
    // a:1, b:2, c:3
    let (_directory, auth) = auth_of(
        r#"{"auths": {"q.io/org/app": {"auth": "YTox"}, "q.io/org": {"auth": "Yjoy"}, "q.io": {"auth": "Yzoz"}, "e.io": {}}}"#,
    );
    assert_eq!(auth.lookup("q.io/org/app").unwrap(), Some(password("a", "1")));
    assert_eq!(auth.lookup("q.io/org/other").unwrap(), Some(password("b", "2")));
    assert_eq!(auth.lookup("q.io/x/y").unwrap(), Some(password("c", "3")));
    assert_eq!(auth.lookup("q.io").unwrap(), Some(password("c", "3")));
    assert_eq!(auth.lookup("e.io/x").unwrap(), None);
    assert_eq!(auth.lookup("q.io.evil.org/x").unwrap(), None);
}

#[test]
fn dockers_key_of_the_hub() {
    let (_directory, auth) = auth_of(r#"{"auths": {"https://index.docker.io/v1/": {"auth": "YTox"}}}"#);
    assert_eq!(auth.lookup("docker.io/library/alpine").unwrap(), Some(password("a", "1")));
}

#[test]
fn a_path_key_is_not_for_the_whole_host() {
    let (_directory, auth) = auth_of(r#"{"auths": {"q.io/secret": {"auth": "YTox"}}}"#);
    assert_eq!(auth.lookup("q.io/public").unwrap(), None);
}

#[test]
fn order_of_files() {
    let home = tempfile::tempdir().unwrap();
    let environment = UserEnvironment {
        uid: 1000,
        home: Some(home.path().into()),
        config_home: Some(home.path().join(".config")),
        runtime_dir: Some(home.path().join("run")),
        ..UserEnvironment::default()
    };
    let auth = Auth::load(None, &environment).unwrap();
    assert_eq!(auth.lookup("x.io").unwrap(), None);
    fs::write(home.path().join(".dockercfg"), r#"{"x.io": {"auth": "YTox"}}"#).unwrap();
    assert_eq!(auth.lookup("x.io").unwrap(), Some(password("a", "1")));
    fs::create_dir(home.path().join(".docker")).unwrap();
    fs::write(home.path().join(".docker/config.json"), r#"{"auths": {"x.io": {"auth": "Yjoy"}}}"#).unwrap();
    assert_eq!(auth.lookup("x.io").unwrap(), Some(password("b", "2")));
    let file = Auth::writable(None, &environment);
    assert_eq!(file, home.path().join("run/containers/auth.json"));
    store(&file, "x.io", &password("c", "3:4")).unwrap();
    assert_eq!(auth.lookup("x.io").unwrap(), Some(password("c", "3:4")));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(remove(&file, "x.io").unwrap());
    assert!(!remove(&file, "x.io").unwrap());
}

#[test]
fn changes_keep_what_they_do_not_know() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("auth.json");
    fs::write(&path, r#"{"HttpHeaders": {"a": "b"}, "auths": {"z.io": {"auth": "YTox"}}}"#).unwrap();
    store(&path, "a.io", &Credentials::IdentityToken("t".into())).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("HttpHeaders") && text.contains("z.io") && text.contains("identitytoken"),
        "{text}"
    );
}

#[test]
fn broken_files_say_where_and_never_what() {
    let (_directory, auth) = auth_of(r#"{"auths": {"x.io": {"auth": "s3cret!!"}}}"#);
    let error = auth.lookup("x.io/a").unwrap_err().to_string();
    assert!(error.contains("\"x.io\": `auth` is not base64") && !error.contains("s3cret"), "{error}");
    let missing = Auth::load(Some(Path::new("/no/such")), &UserEnvironment::default()).unwrap_err();
    assert!(missing.to_string().starts_with("checking authfile: stat /no/such"));
    let (_directory, auth) = auth_of(r#"{"credHelpers": {"x.io": "../../bin/sh"}}"#);
    assert!(auth.lookup("x.io/a").unwrap_err().to_string().contains("invalid credential helper"));
    let (_directory, auth) = auth_of(r#"{"credsStore": "no-such-helper-of-unroot"}"#);
    assert!(auth.lookup("x.io/a").unwrap_err().hint().unwrap().contains("install the helper"));
}

const HELPER: &str = r#"#!/bin/sh
read -r server
case "$1 $server" in
    "get token.io") echo '{"ServerURL":"token.io","Username":"<token>","Secret":"t"}' ;;
    "get both.io") echo '{"Username":"u","Secret":"p"}' ;;
    "get broken.io") echo 'no JSON' ;;
    "get locked.io") echo 'the key ring is locked'; exit 1 ;;
    "store "*) printf '%s' "$server" > "$0.stored" ;;
    *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"#;

/// The name of a test that runs itself again with another `PATH`, which a process cannot change safely.
const HELPERS_TEST: &str = "auth::tests::helpers_are_asked";

#[test]
fn helpers_are_asked() {
    if let Some(directory) = std::env::var_os("UNROOT_TEST_HELPERS") {
        return ask_helpers(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("docker-credential-test");
    fs::write(&program, HELPER).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", HELPERS_TEST])
        .env("PATH", format!("{}:/usr/bin:/bin", directory.path().display()))
        .env("UNROOT_TEST_HELPERS", directory.path())
        .status();
    assert!(status.unwrap().success());
}

fn ask_helpers(directory: &Path) {
    let text = r#"{"auths": {"file.io": {"auth": "YTox"}, "both.io": {"auth": "YTox"}}, "credsStore": "test",
        "credHelpers": {"token.io": "test", "both.io": "test", "broken.io": "test", "locked.io": "test"}}"#;
    let (own, auth) = auth_of(text);
    assert_eq!(auth.lookup("token.io/a").unwrap(), Some(Credentials::IdentityToken("t".into())));
    assert_eq!(auth.lookup("both.io/a").unwrap(), Some(password("u", "p")), "credHelpers before auths");
    assert_eq!(auth.lookup("file.io/a").unwrap(), Some(password("a", "1")), "auths before credsStore");
    assert_eq!(auth.lookup("unknown.io/a").unwrap(), None);
    assert!(auth.lookup("broken.io").unwrap_err().to_string().contains("no JSON object"));
    assert!(auth.lookup("locked.io").unwrap_err().to_string().ends_with("get: the key ring is locked"));
    let listed = Auth::none().with_helpers(&["test".into(), AUTH_FILES.into()]);
    assert_eq!(listed.lookup("both.io/a").unwrap(), Some(password("u", "p")));
    let file = own.path().join("auth.json");
    store(&file, "token.io", &password("me", "secret")).unwrap();
    let stored = fs::read_to_string(directory.join("docker-credential-test.stored")).unwrap();
    assert_eq!(stored, r#"{"ServerURL":"token.io","Username":"me","Secret":"secret"}"#);
    assert!(!fs::read_to_string(&file).unwrap().contains("secret"));
    assert!(!remove(&file, "token.io").unwrap());
}
