//! `explain`: the verdict on containers from wide open to shut, and on processes that no engine made. The table was
//! reviewed by hand; docs/explain.md shows it.

use serde_json::Value;

use crate::host::{Host, IMAGE, first_subid, host_name_of, is_root, uid};

fn report(host: &Host, target: &str) -> Value {
    let text = host.unroot(["explain", "--format", "json", target]).ok();
    let all: Value = serde_json::from_str(&text).unwrap();
    all[0].clone()
}

fn layer<'a>(report: &'a Value, id: &str) -> &'a str {
    let layers = report["layers"].as_array().unwrap();
    layers.iter().find(|l| l["id"] == id).unwrap_or_else(|| panic!("no layer {id}"))["state"]
        .as_str()
        .unwrap()
}

fn doors(report: &Value) -> Vec<&str> {
    let mut ids: Vec<&str> =
        report["doors"].as_array().unwrap().iter().map(|d| d["id"].as_str().unwrap()).collect();
    // (hosts with control groups of version 1 have one door more)
    ids.retain(|id| *id != "release-agent");
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Flags; level as root, as a user; doors as root, as a user.
type Row<'a> = (&'a [&'a str], &'a str, &'a str, &'a [&'a str], &'a [&'a str]);

const TIGHT: &[&str] = &["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "-u", "app"];

#[test]
fn verdicts() {
    let host = Host::new();
    std::fs::create_dir(host.path("data")).unwrap();
    let data = format!("{}:/data", host.path("data").display());
    let data_ro = format!("{data}:ro");
    let none: &[&str] = &[];
    let open: &[&str] = &["capabilities", "device", "host-files", "proc-sys"];
    // ids that nobody has on the host
    let apart = if is_root() { "--uidmap=0:3000000000:65536" } else { "--userns=nomap" };
    let apart_tight = [&[apart], TIGHT].concat();
    let socket = host.path("docker.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let socket = format!("{}:/run/docker.sock", socket.display());
    let rows: [Row<'_>; 22] = [
        (&["--privileged", "-v", "/:/host"], "host-root", "account", open, &["host-files"]),
        (&["-v", "/:/host"], "host-root", "account", &["host-files"], &["host-files"]),
        (&["-v", "/:/host:ro"], "root-id", "account", &["host-files"], &["host-files"]),
        (&["-v", "/etc:/host-etc"], "host-root", "account", &["host-files"], &["host-files"]),
        (&["--pid=host", "--cap-add=SYS_PTRACE"], "host-root", "account", &["host-pid"], &["host-pid"]),
        (&["--pid=host"], "root-id", "account", &["host-pid"], &["host-pid"]),
        (&["--network=host"], "root-id", "account", &["host-network"], &["host-network"]),
        (&["--ipc=host"], "root-id", "account", &["host-ipc"], &["host-ipc"]),
        (&["--cap-add=SYS_ADMIN"], "host-root", "account", &["capabilities"], none),
        (&["--cap-add=SYS_MODULE"], "host-root", "account", &["capabilities"], none),
        (&["--security-opt=seccomp=unconfined"], "root-id", "account", none, none),
        (&["-v", &data], "root-id", "account", &["host-files"], &["host-files"]),
        (&["-v", &data_ro], "root-id", "account", &["host-files"], &["host-files"]),
        (&[], "root-id", "account", none, none),
        // a setuid program would make it root of its user namespace
        (&["-u", "app"], "root-id", "account", none, none),
        (&["--cap-drop=all"], "root-id", "account", none, none),
        // (which id `app` is, is seen below)
        (&["-u", "app", "--security-opt=no-new-privileges"], "nobody", "subordinate", none, none),
        (TIGHT, "nobody", "subordinate", none, none),
        (&["-v", &socket], "host-root", "account", &["engine-socket"], &["engine-socket"]),
        (&[apart], "nobody", "subordinate", none, none),
        (&[apart, "-v", "/:/host"], "nobody", "subordinate", &["host-files"], &["host-files"]),
        (&apart_tight, "nobody", "subordinate", none, none),
    ];
    let shown = include_str!("../../../../docs/explain.md");
    let dir = host.path("").display().to_string();
    for (n, (flags, as_root, as_user, doors_root, doors_user)) in rows.into_iter().enumerate() {
        let words = flags.join(" ").replace(&dir, "DIR/").replace("//", "/");
        let words = words.replace(apart, "OWN-IDS");
        let list = |doors: &[&str]| if doors.is_empty() { "none".into() } else { doors.join(", ") };
        let (first, second) = (list(doors_root), list(doors_user));
        let row = format!("| `{words}` | {as_root} | {as_user} | {first} | {second} |");
        assert!(shown.contains(&row), "docs/explain.md lacks: {row}");
        let name = format!("c{n}");
        let network: &[&str] =
            if flags.iter().any(|f| f.starts_with("--network")) { &[] } else { &["--network=none"] };
        let args = ["run", "-d", "--name", &name].into_iter().chain(network.iter().copied());
        host.unroot(args.chain(flags.iter().copied()).chain([IMAGE, "sleep", "1000"])).ok();
        let report = report(&host, &name);
        let level = report["level"].as_str().unwrap();
        let expected = if is_root() { as_root } else { as_user };
        // (as root, the image's id may be that of an account of the host)
        let taken = expected == "nobody" && level == "account";
        assert!(level == expected || taken, "{flags:?}: {level}, not {expected}: {report:#}");
        assert_eq!(doors(&report), if is_root() { doors_root } else { doors_user }, "{flags:?}");
        assert_eq!(report["engine_is_root"], is_root(), "{flags:?}");
        host.unroot(["rm", "-f", "-t", "0", &name]).ok();
    }
}

/// With the user's own id in the map, the user is what a break-out is worth, though root inside is nobody.
#[test]
fn the_users_own_id_in_the_map() {
    if is_root() {
        return;
    }
    let host = Host::new();
    let rows: [(&[&str], &str); 4] = [
        (&[], "account"),
        (&["-u", "root"], "account"),
        (&["-u", "root", "--cap-drop=all", "--security-opt=no-new-privileges"], "subordinate"),
        (TIGHT, "subordinate"),
    ];
    for (flags, expected) in rows {
        let args = ["run", "-d", "--name", "c", "--network=none", "--userns=keep-id"];
        let args = args.into_iter().chain(flags.iter().copied());
        host.unroot(args.chain([IMAGE, "sleep", "1000"])).ok();
        let report = report(&host, "c");
        assert_eq!(report["level"].as_str().unwrap(), expected, "{flags:?}: {report:#}");
        host.unroot(["rm", "-f", "-t", "0", "c"]).ok();
    }
}

#[test]
fn layers_and_ids() {
    let host = Host::new();
    let base = ["run", "-d", "--name", "c", "--network=none"];
    host.unroot(base.iter().chain(TIGHT).chain(&[IMAGE, "sleep", "1000"])).ok();
    let tight = report(&host, "c");
    for (id, state) in [
        ("process-not-root", "on"),
        ("no-new-privileges", "on"),
        ("capabilities", "on"),
        ("seccomp", "on"),
        ("namespaces", "on"),
        ("sealed-paths", "on"),
        ("read-only-root", "on"),
        ("network", "on"),
    ] {
        assert_eq!(layer(&tight, id), state, "{id}: {tight:#}");
    }
    let inside: u32 = host.unroot(["exec", "c", "id", "-u"]).ok().parse().unwrap();
    let outside = if is_root() { inside } else { first_subid("/etc/subuid") + inside - 1 };
    assert_eq!(tight["identity"]["uid"], outside);
    assert_eq!(layer(&tight, "engine-not-root"), if is_root() { "off" } else { "on" });
    assert_eq!(layer(&tight, "user-namespace"), if is_root() { "off" } else { "on" });
    if !is_root() {
        let owner = host_name_of(uid()).unwrap();
        assert_eq!(
            tight["owner"],
            serde_json::json!({"kind": "subordinate", "owner": owner, "offset": inside - 1})
        );
        assert_eq!(tight["facts"]["user_namespace"]["known"]["owner"], uid());
    }
    host.unroot(["rm", "-f", "-t", "0", "c"]).ok();
    host.unroot(["run", "-d", "--name", "c", "--privileged", "--network=host", IMAGE, "sleep", "1000"]).ok();
    let open = report(&host, "c");
    for id in
        ["no-new-privileges", "seccomp", "sealed-paths", "read-only-root", "network", "process-not-root"]
    {
        assert_eq!(layer(&open, id), "off", "{id}");
    }
}

#[test]
fn for_people() {
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "web", "--network=none", IMAGE, "sleep", "1000"]).ok();
    let page = host.path("page.html");
    let english = host.unroot(["explain", "web"]).ok();
    let verdict = if is_root() { "Root's id on the host." } else { "Not root." };
    assert!(english.contains(verdict) && english.contains("Layers of defence"), "{english}");
    assert!(english.lines().all(|l| l.chars().count() <= 80), "{english}");
    assert!(!english.contains('\x1b'), "no colours where there is no terminal");
    let japanese = host.run(host.command(["explain", "web"]).env("LC_ALL", "ja_JP.UTF-8")).ok();
    assert!(japanese.contains("防御の層") && !japanese.contains("Layers"), "{japanese}");
    let evidence = host.unroot(["explain", "--evidence", "web"]).ok();
    assert!(evidence.contains("NoNewPrivs: 0"), "{evidence}");
    host.unroot(["explain", "--html", page.to_str().unwrap(), "web"]).ok();
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(
        html.contains("<svg")
            && html.contains("</html>")
            && !html.contains("<script")
            && !html.contains("src=")
    );
    let owner = host.unroot(["explain", "--format", "{{.engine_is_root}} {{.level}}", "web"]).ok();
    assert_eq!(owner, if is_root() { "true root-id" } else { "false account" });
}

/// A process that no engine made: this one.
#[test]
fn any_process() {
    let host = Host::empty();
    let report = report(&host, &std::process::id().to_string());
    assert_eq!(report["facts"]["uid"][1], uid());
    assert!(doors(&report).contains(&"host-mounts"), "{report:#}");
    assert_eq!(report["level"], if is_root() { "host-root" } else { "account" });
    host.unroot(["explain", "nosuch"]).fails(125, "no such container");
    host.unroot(["explain", "4194305"]).fails(125, "4194305");
    host.unroot(["explain"]).fails(125, "name, id or pid");
}

/// A process in a container that calls itself as an engine's does is not taken for one.
#[test]
fn an_engine_is_outside_of_its_containers() {
    let host = Host::empty();
    // (a length that no other process sleeps)
    let sleeping = format!("{}.25", std::process::id());
    let script = format!("exec -a conmon bash -c 'sleep {sleeping} & wait'");
    let mut container = std::process::Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            &script,
        ])
        .spawn()
        .unwrap();
    let find = || {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries.map(|e| e.file_name().to_string_lossy().into_owned()).find(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|c| c == format!("sleep\0{sleeping}\0").as_bytes())
        })
    };
    let begin = std::time::Instant::now();
    let pid = loop {
        if let Some(pid) = find() {
            break pid;
        }
        assert!(begin.elapsed().as_secs() < 10);
    };
    let report = report(&host, &pid);
    container.kill().unwrap();
    container.wait().unwrap();
    assert_ne!(report["facts"]["supervisor"]["engine"], "Podman", "{report:#}");
}

/// A name that a process gives itself cannot move the terminal's cursor, nor break out of the page.
#[test]
fn hostile_names() {
    let host = Host::new();
    let evil = "\u{1b}[2J<b>&";
    let script = format!("printf '{}' > /proc/self/comm; sleep 1000; true", evil.replace('\u{1b}', "\\033"));
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sh", "-c", &script]).ok();
    let begin = std::time::Instant::now();
    let text = loop {
        let text = host.unroot(["explain", "c"]).ok();
        if text.contains("<b>") {
            break text;
        }
        assert!(begin.elapsed().as_secs() < 5, "{text}");
    };
    assert!(!text.contains('\u{1b}'), "{text}");
    let page = host.path("page.html");
    host.unroot(["explain", "--html", page.to_str().unwrap(), "c"]).ok();
    assert!(!std::fs::read_to_string(&page).unwrap().contains("<b>&"));
}

/// Command lines that were not run: ours and Podman's are the user's, Docker's are its daemon's, whoever types them.
/// Nothing of the image runs, and nothing is left.
#[test]
fn what_was_not_run() {
    let host = Host::new();
    let level = |words: &[&str]| {
        let args = ["explain", "--format", "{{.level}} {{.engine_is_root}} {{.root_inside}}"];
        host.unroot(args.iter().chain(words)).ok()
    };
    let own = if is_root() { "root-id true true" } else { "account false true" };
    assert_eq!(level(&["run", "--network=none", IMAGE, "touch", "/was-here"]), own);
    assert_eq!(level(&["podman", "run", "--network=none", IMAGE]), own);
    assert_eq!(
        level(&["docker", "run", "--network=none", "-it", "--rm", "-p", "80:80", IMAGE]),
        "root-id true true"
    );
    assert_eq!(level(&["docker", "run", "--privileged", "-v", "/:/host", IMAGE]), "host-root true true");
    let tight = level(&[&["run", "--network=none"], TIGHT, &[IMAGE]].concat());
    if is_root() {
        assert!(tight.ends_with(" true false"), "{tight}");
    } else {
        assert_eq!(tight, "subordinate false false");
        let text = host.unroot(["explain", "--format", "json", "run", "--network=none", IMAGE]).ok();
        let report: Value = serde_json::from_str(&text).unwrap();
        // (told as the host tells them, not as the user namespace of the engine does)
        assert_eq!(report[0]["identity"]["uid"], uid());
        assert_eq!(report[0]["facts"]["user_namespace"]["known"]["owner"], uid());
    }
    assert_eq!(host.unroot(["ps", "-aq"]).ok(), "");
    host.unroot(["explain", "run", "--nosuchflag", IMAGE]).fails(125, "unknown flag: --nosuchflag");
    host.unroot(["explain", "run", "-u", "nosuchuser", IMAGE]).fails(126, "unable to find user nosuchuser");
    host.unroot(["explain", "docker", "run"]).fails(125, "image");
    assert_eq!(host.unroot(["ps", "-aq"]).ok(), "");
}
