//! Who is root: the four cases, both sides, the map, and nothing as root.

use std::collections::BTreeSet;
use std::fs;

use crate::host::{Host, IMAGE, first_subid, host_name_of, is_root, uid};

/// What the host's kernel says of a container's process.
fn host_uid_of_container(host: &Host, container: &str) -> u32 {
    let pid = host.unroot(["inspect", "--format", "{{.State.Pid}}", container]).ok();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("Uid:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The id that a container's id is on the host.
fn outside(inside: u32) -> u32 {
    match (is_root(), inside) {
        (true, id) => id,
        (false, 0) => uid(),
        (false, id) => first_subid("/etc/subuid") + id - 1,
    }
}

#[test]
fn case_1_and_3_root_inside() {
    let host = Host::new();
    assert_eq!(host.sh(&[], "id -u; id -un").ok(), "0\nroot");
    host.unroot(["run", "-id", "--name", "c", "--network=none", IMAGE, "sh"]).ok();
    assert_eq!(host_uid_of_container(&host, "c"), outside(0));
}

#[test]
fn case_2_and_4_another_user_inside() {
    let host = Host::new();
    assert_eq!(host.sh(&["-u", "sync"], "id -u; id -un").ok(), "5\nsync");
    host.unroot(["run", "-id", "--name", "c", "--network=none", "-u", "sync", IMAGE, "sh"]).ok();
    assert_eq!(host_uid_of_container(&host, "c"), outside(5));
}

#[test]
fn a_terminal_has_the_prompt_of_the_user() {
    let host = Host::new();
    for (user, prompt) in [("root", '#'), ("sync", '$')] {
        let shell = format!(
            "printf 'echo tty=$(tty) && exit\\n' | {} --root {} --runroot {} run -it --rm --network=none -u {user} {IMAGE} sh",
            crate::host::binary().display(),
            host.path("root").display(),
            host.path("run").display()
        );
        let output =
            std::process::Command::new("script").args(["-qec", &shell, "/dev/null"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("tty=/dev/pts/0") || text.contains("tty=/dev/console"), "{text}");
        assert!(text.contains(prompt), "{text}");
    }
}

#[test]
fn top_tells_both_sides() {
    let host = Host::new();
    host.unroot(["run", "-id", "--network=none", "-u", "sync", IMAGE, "sh"]).ok();
    let shown = host.unroot(["top", "-l", "user", "huser"]).ok();
    let lines: Vec<Vec<&str>> = shown.lines().map(|l| l.split_whitespace().collect()).collect();
    let number = outside(5).to_string();
    let expected = host_name_of(outside(5)).unwrap_or(number);
    assert_eq!(lines, [vec!["USER", "HUSER"], vec!["sync", &expected]], "{shown}");
}

#[test]
fn an_image_cannot_forge_a_host_name() {
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sleep", "100"]).ok();
    let shown = host.unroot(["top", "c", "huser", "user"]).ok();
    assert!(!shown.contains("FORGED"), "{shown}");
    let expected = host_name_of(outside(0)).unwrap_or_else(|| outside(0).to_string());
    assert!(shown.lines().nth(1).unwrap().starts_with(&expected), "{shown}");
}

#[test]
fn the_map_is_the_users_own() {
    let host = Host::new();
    let shown = host.sh(&[], "cat /proc/self/uid_map").ok();
    let numbers: Vec<Vec<u32>> =
        shown.lines().map(|l| l.split_whitespace().map(|n| n.parse().unwrap()).collect()).collect();
    if is_root() {
        assert_eq!(numbers, [[0, 0, u32::MAX]]);
    } else {
        let first = first_subid("/etc/subuid");
        assert_eq!(numbers[0], [0, uid(), 1]);
        assert_eq!(numbers[1][..2], [1, first]);
        let unshared = host.unroot(["unshare", "cat", "/proc/self/uid_map"]).ok();
        assert_eq!(
            unshared.split_whitespace().collect::<Vec<_>>(),
            shown.split_whitespace().collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_user_must_exist_in_the_image() {
    let host = Host::new();
    let message = "unable to find user Fatherlinux: no matching entries in passwd file";
    let failed = host.sh(&["--user", "Fatherlinux"], "true");
    assert!([125, 126].contains(&failed.code), "{failed:?}");
    assert!(failed.err.contains(message), "{}", failed.err);
    assert_eq!(host.sh(&["-u", "1234"], "id -u; id -g; id -G").ok(), "1234\n0\n0");
    assert_eq!(host.sh(&["-u", "1234:567"], "id -u; id -g; id -G").ok(), "1234\n567\n567");
    assert_eq!(host.sh(&["-u", "sync:staff"], "id -u; id -g").ok(), "5\n1234");
    assert_eq!(host.sh(&["-u", "app"], "id -u; id -G").ok(), "1000\n1000 10 1234");
    let failed = host.sh(&["-u", "sync:nothere"], "true");
    assert!(
        failed.err.contains("unable to find group nothere: no matching entries in group file"),
        "{}",
        failed.err
    );
}

#[test]
fn an_id_outside_the_map_is_refused_with_three_numbers() {
    if is_root() {
        return; // root's map has every id; the --uidmap form of this is in userns tests of the id map crate
    }
    let host = Host::new();
    let failed = host.sh(&["-u", "4000000000"], "true");
    assert!([125, 126].contains(&failed.code), "{failed:?}");
    assert!(failed.err.contains("4000000000"), "{}", failed.err);
    assert!(failed.err.contains("65536"), "the range is missing: {}", failed.err);
}

/// Rule 5: as an ordinary user, nothing of the engine or the container is uid 0 on the host, at any time.
#[test]
fn nothing_runs_as_root() {
    if is_root() {
        return; // the contrast: as root everything is root, which case 1 asserts
    }
    let host = Host::new();
    let mark = format!("nothing-runs-as-root-{}", std::process::id());
    let watching = std::sync::atomic::AtomicBool::new(true);
    let mut seen = BTreeSet::new();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut found = BTreeSet::new();
            while watching.load(std::sync::atomic::Ordering::Relaxed) {
                found.extend(processes_with(&mark));
            }
            found
        });
        for _ in 0..10 {
            host.unroot([
                "run",
                "--rm",
                "--network=none",
                "-e",
                &format!("MARK={mark}"),
                IMAGE,
                "sh",
                "-c",
                "sleep 0.02",
            ])
            .ok();
        }
        watching.store(false, std::sync::atomic::Ordering::Relaxed);
        seen.extend(watcher.join().unwrap());
    });
    assert!(!seen.is_empty(), "the watcher saw no process of ours");
    for (uid, name) in &seen {
        assert!(*uid != 0 || name.starts_with("newuidmap") || name.starts_with("newgidmap"), "{seen:?}");
    }
}

/// Host uid and name of processes whose command line mentions the mark, and of their children.
fn processes_with(mark: &str) -> Vec<(u32, String)> {
    use std::os::unix::fs::MetadataExt;
    let mut ours = BTreeSet::new();
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let stat = String::from_utf8_lossy(&read("stat")).into_owned();
        let Some(after) = stat.rfind(')') else { continue };
        let parent: u32 = stat[after + 2..].split(' ').nth(1).and_then(|p| p.parse().ok()).unwrap_or(0);
        let name = stat[stat.find('(').unwrap() + 1..after].to_string();
        let Ok(owner) = fs::metadata(entry.path()) else { continue };
        if String::from_utf8_lossy(&read("cmdline")).contains(mark) {
            ours.insert(pid);
        }
        all.push((pid, parent, owner.uid(), name));
    }
    all.into_iter()
        .filter(|(pid, parent, ..)| ours.contains(pid) || ours.contains(parent))
        .filter(|(pid, ..)| *pid != std::process::id())
        .map(|(_, _, uid, name)| (uid, name))
        .collect()
}

/// The engine's user namespace is found again by the next command, with no process in between; where the kernel cannot,
/// there is a new one.
#[test]
fn the_namespace_is_kept_without_a_process() {
    use std::os::unix::fs::PermissionsExt as _;
    if is_root() {
        return;
    }
    let host = Host::new();
    let session = host.path("session");
    fs::create_dir(&session).unwrap();
    fs::set_permissions(&session, fs::Permissions::from_mode(0o700)).unwrap();
    let root = host.path("root").to_string_lossy().into_owned();
    let unroot = |args: &[&str]| {
        let mut command = std::process::Command::new(crate::host::binary());
        command.args(["--root", &root]).args(args).env("XDG_RUNTIME_DIR", &session);
        host.run(&mut command)
    };
    let script = "cat /proc/self/uid_map; stat -Lc %i /proc/self/ns/user";
    let look = || unroot(&["run", "--rm", "--network=none", IMAGE, "sh", "-c", script]).ok();
    let processes = || {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let words = entries.filter_map(|e| fs::read_to_string(e.path().join("cmdline")).ok());
        words.filter(|words| words.split('\0').any(|word| word == root)).count()
    };
    let first = look();
    let begun = std::time::Instant::now();
    while processes() > 0 {
        assert!(begun.elapsed().as_secs() < 20, "a process is left");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let second = look();
    if rustix::system::uname().release().to_bytes().starts_with(b"6.18.") {
        assert_eq!(first, second);
    }
    let file = session.join("unroot/userns");
    let segments = || fs::read_to_string("/proc/sysvipc/shm").unwrap().lines().count();
    let (told, before) = (fs::read_to_string(&file).unwrap(), segments());
    // ranges that are others by now, another boot, another kernel, nonsense
    for wrong in [
        told.replace("uid 1 ", "uid 2 "),
        told.replace("boot ", "boot x"),
        told.lines().filter(|l| !l.starts_with("handle")).collect::<Vec<_>>().join("\n"),
        "nonsense".into(),
    ] {
        fs::write(&file, &wrong).unwrap();
        assert_eq!(look().lines().next(), first.lines().next(), "{wrong}");
        // (where it has no handle the kernel is known not to find any)
        let now = fs::read_to_string(&file).unwrap();
        let same_boot = wrong.starts_with(told.lines().next().unwrap());
        assert_eq!(now == wrong, same_boot && !wrong.contains("handle"), "{now}");
    }
    fs::write(&file, &told).unwrap();
    unroot(&["system", "reset", "-f"]).ok();
    assert!(!file.exists());
    assert!(segments() < before + 3, "what kept a namespace is left");
}
