//! `whois` and `own`: whose an id, a process, a path and a container are, and files taken back.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::Value;

use crate::host::{Host, IMAGE, first_subid, host_name_of, is_root, uid};

fn asked(host: &Host, words: &[&str]) -> Vec<Value> {
    let text = host.unroot(["whois", "--format=json"].iter().chain(words)).ok();
    serde_json::from_str(&text).unwrap()
}

fn pid_of(host: &Host, container: &str) -> u32 {
    host.unroot(["inspect", "--format", "{{.State.Pid}}", container]).ok().parse().unwrap()
}

/// What the container's id is on the host.
fn outside(inside: u32) -> u32 {
    match (is_root(), inside) {
        (true, id) => id,
        (false, 0) => uid(),
        (false, id) => first_subid("/etc/subuid") + id - 1,
    }
}

#[test]
fn an_id_is_a_subordinate_id_and_a_user_of_a_container_with_its_processes() {
    let host = Host::new();
    host.unroot([
        "run",
        "-d",
        "--name=web1",
        "--network=none",
        "-u",
        "sync",
        IMAGE,
        "sh",
        "-c",
        "sleep 100 & wait",
    ])
    .ok();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let id = outside(5).to_string();
    let text = host.unroot(["whois", "--type=uid", &id]).ok();
    assert!(text.contains("= uid 5 (sync) in container web1, processes 1 and 2"), "{text}");
    if !is_root() {
        let me = host_name_of(uid()).unwrap();
        assert!(text.starts_with(&format!("user {id}: {me}'s subordinate id +4 = uid 5")), "{text}");
    }
    let answers = asked(&host, &["--type=uid", &id]);
    assert_eq!(answers[0]["inside"][0]["container"], "web1");
    assert_eq!(answers[0]["inside"][0]["id"], 5);
    assert_eq!(answers[0]["inside"][0]["processes"][1]["insidePid"], 2);
    assert!(answers[0]["processes"].as_array().unwrap().iter().all(|p| p["inside"]["container"] != "web1"));
    // a stopped container still has the name
    host.unroot(["stop", "-t0", "web1"]).ok();
    let answers = asked(&host, &["--type=uid", &id]);
    assert_eq!(answers[0]["inside"][0]["name"], "sync");
    assert_eq!(answers[0]["inside"][0]["running"], false);
}

#[test]
fn a_process_is_in_its_container_and_has_two_users() {
    let host = Host::new();
    host.unroot(["run", "-d", "--name=c", "--network=none", "-u", "sync", IMAGE, "sleep", "100"]).ok();
    let pid = pid_of(&host, "c").to_string();
    let answer = &asked(&host, &["--type=pid", &pid])[0];
    assert_eq!(answer["insidePid"], 1);
    assert_eq!(answer["insideUser"]["container"], "c");
    assert_eq!(answer["insideUser"]["name"], "sync");
    assert_eq!(answer["user"]["id"], outside(5));
    assert_eq!(answer["startedBy"]["Uid"], uid());
    assert_eq!(answer["ownUserNamespace"], !is_root());
    if !is_root() {
        assert_eq!(answer["namespaceOwner"]["id"], uid());
        assert_eq!(answer["uidMap"][0], format!("0:{}:1", uid()));
    }
    let text = host.unroot(["whois", "--type=pid", &pid]).ok();
    assert!(text.contains("process 1 in container c"), "{text}");
    assert!(!text.contains("FORGED"), "{text}");
    // a process of no container
    let me = std::process::id().to_string();
    let answer = &asked(&host, &["--type=pid", &me])[0];
    assert_eq!(answer["inContainer"], false);
    assert_eq!(answer["user"]["id"], uid());
    host.unroot(["whois", "--type=pid", "4194304"]).fails(125, "there is no such process");
}

#[test]
fn a_nested_user_namespace_is_told_by_its_own_map() {
    let host = Host::new();
    if !is_root() {
        let script = "unshare -U -r sleep 100 & sleep 100";
        host.unroot([
            "run",
            "-d",
            "--name=c",
            "--network=none",
            "--security-opt=seccomp=unconfined",
            "-u",
            "sync",
            IMAGE,
            "sh",
            "-c",
            script,
        ])
        .ok();
        std::thread::sleep(std::time::Duration::from_millis(300));
        let listed = host.unroot(["top", "c", "hpid", "user", "huid", "args"]).ok();
        let nested = listed
            .lines()
            .find(|l| l.ends_with("sleep 100") && l.contains("root"))
            .unwrap_or_else(|| panic!("{listed}"));
        let pid = nested.split_whitespace().next().unwrap();
        let answer = &asked(&host, &["--type=pid", pid])[0];
        assert_eq!(answer["insideUser"]["id"], 0, "{answer}");
        assert_eq!(answer["user"]["id"], outside(5), "{answer}");
        assert_eq!(answer["uidMap"][0], format!("0:{}:1", outside(5)));
    }
}

#[test]
fn a_container_and_its_map() {
    let host = Host::new();
    let answers = {
        host.unroot(["create", "--name=made", "--network=none", "-u", "sync", IMAGE, "true"]).ok();
        host.unroot([
            "run",
            "-d",
            "--name=runs",
            "--network=none",
            "-u",
            "sync",
            "--uidmap=0:1:100",
            IMAGE,
            "sleep",
            "100",
        ])
        .ok();
        asked(&host, &["made", "runs"])
    };
    assert_eq!(answers[0]["observed"], false);
    assert_eq!(answers[0]["root"]["id"], outside(0));
    assert_eq!(answers[1]["observed"], true);
    assert_eq!(answers[1]["root"]["id"], outside(1));
    assert_eq!(answers[1]["user"]["id"], outside(6));
    assert_eq!(answers[1]["insideUser"]["name"], "sync");
    assert_eq!(answers[1]["uidMap"][0], format!("0:{}:100", outside(1)));
    host.unroot(["whois", "no-such-thing"])
        .fails(125, "no container, no account of this host, and no file here");
    host.unroot(["whois", "--type=shoe", "1"]).fails(125, "unknown type");
}

#[test]
fn a_path_has_an_owner_inside_and_is_mounted() {
    let host = Host::new();
    fs::create_dir(host.path("data")).unwrap();
    let mount = format!("{}:/srv:ro", host.path("data").display());
    host.inside(&format!("touch {0}/f; chown 5:1234 {0}/f", host.path("data").display())).ok();
    host.unroot(["run", "-d", "--name=c", "--network=none", "-v", &mount, IMAGE, "sleep", "100"]).ok();
    let file = host.path("data/f");
    let answer = &asked(&host, &[file.to_str().unwrap()])[0];
    assert_eq!(answer["user"]["id"], outside(5));
    assert_eq!(answer["inside"][0]["user"]["name"], "sync");
    assert_eq!(answer["inside"][0]["group"]["name"], "staff");
    assert_eq!(answer["mounted"][0]["path"], "/srv/f");
    assert_eq!(answer["mounted"][0]["readOnly"], true);
    // a link is itself, not what it leads to
    std::os::unix::fs::symlink("/etc/passwd", host.path("link")).unwrap();
    let answer = &asked(&host, &[host.path("link").to_str().unwrap()])[0];
    assert_eq!(answer["user"]["id"], uid());
}

fn owner(path: &std::path::Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid())
}

#[test]
fn files_are_taken_back_and_nothing_else() {
    if is_root() {
        let host = Host::empty();
        host.unroot(["own", "/tmp"]).fails(125, "whose files");
        return;
    }
    let host = Host::new();
    let dir = host.path("data");
    fs::create_dir(&dir).unwrap();
    fs::create_dir(host.path("other")).unwrap();
    let at = dir.display().to_string();
    let other = host.path("other").display().to_string();
    host.inside(&format!(
        "cd {at}; mkdir -m 700 d; echo x >d/f; cp /bin/sh s; chmod 6755 s; ln -s {other}/victim link; touch twice both mine;
         ln both both2; ln twice {other}/elsewhere; touch {other}/victim; mkdir 'odd\nname'
         chown -h 5:1234 s d/f twice both link {other}/victim; chown 5:1234 s d; chown 5 'odd\nname'; chmod 6755 s"
    ))
    .ok();
    let listed = host.unroot(["own", "--list", &at]).ok();
    assert!(listed.contains(&format!("{}", outside(5))), "{listed}");
    assert!(listed.contains("d/f") && !listed.contains("mine"), "{listed}");
    let planned = host.unroot(["own", "--dry-run", &at]);
    assert_eq!(planned.code, 1, "{planned:?}"); // (what would be left)
    assert!(planned.out.contains("would take") && planned.out.contains("odd\\nname"), "{planned:?}");
    assert_eq!(owner(&dir.join("s")).0, outside(5));
    let done = host.unroot(["own", &at]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("twice: it has 2 names, 1 of them here"), "{done:?}");
    let me = owner(&dir.join("mine"));
    for name in ["s", "d", "d/f", "link", "both", "both2", "odd\nname"] {
        assert_eq!(owner(&dir.join(name)), me, "{name}");
    }
    assert_eq!(fs::metadata(dir.join("s")).unwrap().mode() & 0o6000, 0);
    // what a link leads to, and what has a name elsewhere, is as it was
    assert_eq!(owner(&host.path("other/victim")).0, outside(5));
    assert_eq!(owner(&dir.join("twice")).0, outside(5));
    host.unroot(["own", "--hard-links", &at]).ok();
    assert_eq!(owner(&dir.join("twice")), me);
    assert_eq!(host.unroot(["own", &at]).err.trim(), "no file of a subordinate id is there");
    host.unroot(["own", dir.join("link").to_str().unwrap()]).fails(125, "symbolic link");
    host.unroot(["own", host.path("root").to_str().unwrap()]).fails(125, "need their owners");
    host.unroot(["own", "/"]).fails(125, "");
    host.inside(&format!("chown 5 {other}/victim")).ok();
    host.unroot([
        "run",
        "-d",
        "--name=c",
        "--network=none",
        "-v",
        &format!("{other}:/o"),
        IMAGE,
        "sleep",
        "100",
    ])
    .ok();
    host.unroot(["own", &format!("{other}/victim")]).fails(125, "the running container c has it mounted");
    host.unroot(["own", "-f", "--hard-links", &other]).ok();
    assert_eq!(owner(&host.path("other/victim")).0, uid());
}
