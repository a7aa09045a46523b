//! The store under attack and in need: damage, kill -9 at any moment, a full disk, two of everything at once.
//! Afterwards `system check` is clean, and every image that is listed runs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::host::{Host, IMAGE, is_root};
use crate::registry::Registry;

fn layers(host: &Host) -> Vec<String> {
    let read = fs::read_dir(host.path("root/layers"));
    let mut all: Vec<String> = read
        .map(|dir| dir.map(|e| e.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    all.sort();
    all
}

/// Nothing is damaged, every image runs, and nothing is left when all are gone.
fn is_sound(host: &Host) {
    // (whoever was killed left what the next one removes)
    host.unroot(["image", "prune", "-f"]).ok();
    host.unroot(["system", "check", "--max", "0"]).ok();
    for image in host.unroot(["images", "-q", "--no-trunc"]).ok().lines() {
        let id = image.trim_start_matches("sha256:");
        assert_eq!(host.unroot(["run", "--rm", "--network=none", id, "sh", "-c", "id -u"]).ok(), "0", "{id}");
    }
    let left = fs::read_dir(host.path("root/tmp")).map_or(0, |dir| dir.count());
    assert_eq!(left, 0, "in tmp");
}

#[test]
fn damage_is_found_and_cured() {
    let host = Host::empty();
    let registry = Registry::start(&host);
    let name = registry.push(&host, "real", false);
    host.unroot(["pull", "-q", &name]).ok();
    host.unroot(["system", "check"]).ok();
    let [layer] = &layers(&host)[..] else { panic!("one layer") };
    let diff = host.path("root/layers").join(layer).join("diff");
    let damages: [(&str, &str); 4] = [
        ("echo x >>etc/passwd", "etc/passwd"),
        ("rm etc/group", "checksum failed"),
        ("echo x >extra", "extra: no entry"),
        ("chmod 4755 bin/busybox", "mode is 4755"),
    ];
    for (script, says) in damages {
        host.inside(&format!("cd {} && {script}", diff.display())).ok();
        let found = host.unroot(["system", "check"]);
        assert!(found.code == 125 && found.out.contains(says), "{script}: {found:?}");
        // (what is in the layer's tar is never written otherwise than it came)
        if says == "checksum failed" {
            host.unroot(["save", "-q", "-o", "/dev/null", &name]).fails(125, "is damaged");
        }
        let cured = host.unroot(["system", "check", "--repair"]);
        assert!(cured.code == 0 && cured.out.contains("Fetched layer again"), "{script}: {cured:?}");
        is_sound(&host);
    }
    // what is nowhere else goes with its image; with its containers only if that is asked for
    drop(registry);
    host.unroot(["create", "--name", "c", &name]).ok();
    host.inside(&format!("echo x >>{}/etc/passwd", diff.display())).ok();
    host.unroot(["system", "check", "--repair"]).fails(125, "still present");
    host.unroot(["container", "exists", "c"]).ok();
    let cured = host.unroot(["system", "check", "--repair", "--force"]);
    assert!(cured.code == 0 && cured.out.contains("Deleted damaged image"), "{cured:?}");
    assert_eq!(host.unroot(["ps", "-aq"]).ok() + &host.unroot(["images", "-q"]).ok(), "");
    assert_eq!(layers(&host), Vec::<String>::new());
}

/// Little that becomes much: the bound is the user's to set, for layers and for what else is in an archive.
#[test]
fn a_compression_bomb() {
    let host = Host::new();
    let conf = host.path("containers.conf");
    let make = |script: &str| {
        let done = Command::new("sh").current_dir(host.path("")).args(["-c", script]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    make(
        "mkdir bomb && truncate -s 64M bomb/zeros && tar -C bomb -czf layer.tar.gz . && tar -czf spooled.tar.gz bomb/zeros && rm -r bomb",
    );
    let take = |verb: &[&str], file: &str, limit: &str| {
        fs::write(&conf, format!("[engine]\nmax_layer_size = '{limit}'\n")).unwrap();
        let file = host.path(file);
        host.run(host.command(verb).arg(&file).env("CONTAINERS_CONF", &conf))
    };
    take(&["import", "-q"], "layer.tar.gz", "16m").fails(125, "max_layer_size in containers.conf is too low");
    take(&["load", "-q", "-i"], "spooled.tar.gz", "16m").fails(125, "more than 16777216 bytes uncompressed");
    take(&["import", "-q"], "layer.tar.gz", "nothing").fails(125, "\"nothing\" is no size");
    is_sound(&host);
    take(&["import", "-q"], "layer.tar.gz", "80m").ok();
}

/// The system stopped before all of an image was on the disk.
#[test]
fn a_power_cut() {
    let host = Host::empty();
    let registry = Registry::start(&host);
    let name = registry.push(&host, "real", false);
    host.unroot(["pull", "-q", &name]).ok();
    let marks = host.path("root/unsettled");
    let cut = |damage: &str| {
        let script = format!("cd {} && mv * 11111111-2222-3333-4444-555555555555; {damage}", marks.display());
        host.inside(&script).ok();
    };
    let run = || host.unroot(["run", "--rm", "--network=none", &name, "echo", "runs"]);
    cut("");
    let found = run();
    assert!(found.out == "runs\n" && found.err.contains("looking at 1 layers"), "{found:?}");
    let again = run();
    assert!(again.out == "runs\n" && again.err.is_empty() && !marks.exists(), "{again:?}");
    host.unroot(["rmi", "-f", &name]).ok();
    host.unroot(["pull", "-q", &name]).ok();
    cut("cd ../layers/*/diff && : >bin/busybox");
    let said = run().fails(125, "did not reach the disk before the system stopped");
    assert!(said.contains("is missing in the store") && said.contains(&format!("hint: unroot pull {name}")));
    host.unroot(["pull", "-q", &name]).ok();
    run().ok();
    is_sound(&host);
}

#[test]
fn records_that_cannot_be_read() {
    let host = Host::new();
    for damage in ["{", ""] {
        let id = host.unroot(["image", "inspect", "--format", "{{.Id}}", IMAGE]).ok();
        let config = host.path("root/images").join(&id).join("config.json");
        host.inside(&format!("echo '{damage}' >{}", config.display())).ok();
        let listed = host.unroot(["images", "--format", "{{.Id}}"]);
        assert!(listed.code == 0 && listed.err.contains("is damaged"), "{listed:?}");
        let found = host.unroot(["system", "check"]);
        assert!(found.code == 125 && found.out.contains(&id), "{found:?}");
        // (which layers it had is not known: none is removed)
        host.unroot(["image", "prune", "-f"]).fails(125, "is damaged");
        assert_eq!(layers(&host).len(), 1);
        let cured = host.unroot(["system", "check", "--repair"]);
        assert!(cured.code == 0 && cured.out.contains("Deleted damaged image"), "{cured:?}");
        assert_eq!(layers(&host).len(), 0);
        host.unroot([
            "import",
            "-q",
            "--change",
            "CMD=/bin/sh",
            host.path("image.tar").to_str().unwrap(),
            IMAGE,
        ])
        .ok();
    }
}

/// kill -9 while images are pulled, loaded, committed, removed and pruned, at moments that cover all of their time:
/// `UNROOT_FAULT_KILLS` times (60).
#[test]
fn killed_at_any_moment() {
    let host = Host::new();
    let registry = Registry::start(&host);
    let pulled = registry.push(&host, "killed", false);
    let archive = host.path("archive.tar");
    let archive = archive.to_str().unwrap();
    host.unroot(["run", "--name", "c", "--network=none", IMAGE, "sh", "-c", "echo x >/x; rm /etc/group"])
        .ok();
    host.unroot(["commit", "-q", "c", "localhost/committed:1"]).ok();
    host.unroot(["save", "-q", "-m", "-o", archive, IMAGE, "localhost/committed:1"]).ok();
    let actions: [&[&str]; 6] = [
        &["pull", "-q", &pulled],
        &["load", "-q", "-i", archive],
        &["commit", "-q", "c", "localhost/committed:1"],
        &["rmi", "-f", &pulled],
        &["rmi", "-f", "localhost/committed:1"],
        &["image", "prune", "-af"],
    ];
    let wanted = std::env::var("UNROOT_FAULT_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let (mut kills, mut looked, mut usual) = (0, 0, [Duration::from_millis(60); 6]);
    let mut killed = [0; 6];
    while kills < wanted {
        for (n, action) in actions.iter().enumerate() {
            // (moments spread evenly over the time that it takes)
            let step = [7, 3, 11, 1, 9, 5, 13, 2, 15, 6][kills % 10];
            let begun = Instant::now();
            let mut child = host.spawn(*action, Stdio::null());
            let wait = usual[n] * step / 14;
            while begun.elapsed() < wait && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_micros(300));
            }
            match child.try_wait().unwrap() {
                Some(_) => usual[n] = begun.elapsed(),
                None => {
                    child.kill().unwrap();
                    kills += 1;
                    killed[n] += 1;
                }
            }
            child.wait().unwrap();
        }
        if kills >= looked + 30 {
            (looked, _) = (kills, is_sound(&host));
            host.unroot(["image", "exists", IMAGE]).ok();
        }
    }
    let each: Vec<String> =
        actions.iter().zip(killed).map(|(a, n)| format!("{} {n}", a[..2].join(" "))).collect();
    println!("{kills} kills: {}", each.join(", "));
    assert!(killed.iter().all(|n| *n > 0), "{killed:?}");
    is_sound(&host);
    // nothing is lost for good, and nothing is in the way
    for action in &actions[..3] {
        host.unroot(*action).ok();
    }
    is_sound(&host);
    host.unroot(["rm", "c"]).ok();
    host.unroot(["rmi", "-af"]).ok();
    assert_eq!(layers(&host), Vec::<String>::new(), "{kills} kills");
}

/// Two of everything at once, with those that remove in between.
#[test]
fn all_at_once() {
    let host = Host::new();
    let registry = Registry::start(&host);
    let pulled = registry.push(&host, "shared", false);
    let archive = host.path("archive.tar");
    let archive = archive.to_str().unwrap();
    host.unroot(["save", "-q", "-o", archive, IMAGE]).ok();
    host.unroot(["create", "--name", "keep", IMAGE]).ok();
    let all: [&[&str]; 10] = [
        &["pull", "-q", &pulled],
        &["pull", "-q", &pulled],
        &["load", "-q", "-i", archive],
        &["load", "-q", "-i", archive],
        &["commit", "-q", "keep", "localhost/a:1"],
        &["commit", "-q", "keep", "localhost/b:1"],
        &["image", "prune", "-f"],
        &["image", "prune", "-f"],
        &["rmi", "-f", "localhost/a:1"],
        &["images"],
    ];
    for _ in 0..6 {
        let children: Vec<_> = all.iter().map(|args| (args, host.spawn(*args, Stdio::null()))).collect();
        for (args, child) in children {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            // (somebody else removes this one as soon as it is there)
            let lost = args.contains(&"localhost/a:1") && said.contains("was removed as it was");
            assert!(output.status.success() || lost, "{args:?}: {said}");
        }
        host.unroot(["image", "exists", &pulled]).ok();
        host.unroot(["image", "exists", "localhost/b:1"]).ok();
        is_sound(&host);
        host.unroot(["rmi", "-f", &pulled, "localhost/b:1"]).ok();
    }
}

/// A disk that is full: the error says so, and what was there is still there.
#[test]
fn a_full_disk() {
    let host = Host::new();
    let archive = host.path("image.tar");
    if !is_root() {
        // (only root can mount a filesystem of a size; a file of a size is the next best)
        let limited = Command::new("sh")
            .args(["-c", "ulimit -f 200; exec \"$0\" \"$@\""])
            .arg(crate::host::binary())
            .args([
                "--root",
                host.path("root").to_str().unwrap(),
                "--runroot",
                host.path("run").to_str().unwrap(),
            ])
            .args(["import", "-q"])
            .arg(&archive)
            .output()
            .unwrap();
        assert!(!limited.status.success());
        is_sound(&host);
        return;
    }
    let image = host.path("disk");
    let disk = host.path("root2");
    fs::create_dir(&disk).unwrap();
    let run = |program: &str, args: &[&str]| {
        let done = Command::new(program).args(args).output().unwrap();
        assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let (image, place) = (image.to_str().unwrap(), disk.to_str().unwrap());
    run("truncate", &["-s", "12M", image]);
    run("mkfs.ext4", &["-q", image]);
    run("mount", &["-o", "loop", image, place]);
    let outcome = std::panic::catch_unwind(|| on_a_full_disk(&host, &disk, &archive));
    // (a monitor may be about to close its last file there)
    run("umount", &["-l", place]);
    outcome.unwrap();
}

fn on_a_full_disk(host: &Host, disk: &Path, archive: &Path) {
    let unroot = |args: &[&str]| {
        let mut command = Command::new(crate::host::binary());
        command.arg("--root").arg(disk.join("store")).arg("--runroot").arg(host.path("run2")).args(args);
        host.run(command.stdin(Stdio::null()).env("CONTAINERS_CONF", "/dev/null"))
    };
    let archive = archive.to_str().unwrap();
    unroot(&["import", "-q", "--change", "CMD=/bin/sh", archive, "first"]).ok();
    let full = disk.join("full");
    for left in [0, 1, 64, 512, 1024] {
        // (all but so many kB)
        let _ =
            Command::new("dd").args(["if=/dev/zero", "bs=1k"]).arg(format!("of={}", full.display())).output();
        let taken = fs::metadata(&full).unwrap().len().saturating_sub(left << 10);
        fs::File::options().write(true).open(&full).unwrap().set_len(taken).unwrap();
        // (another tar of the same files: another layer)
        let more = host.path("more.tar");
        let mut bytes = fs::read(archive).unwrap();
        bytes.resize(bytes.len() + 512, 0);
        fs::write(&more, &bytes).unwrap();
        let failed = unroot(&["import", "-q", more.to_str().unwrap(), "second"]);
        assert!(failed.code == 125 && failed.err.contains("No space left"), "{left}: {failed:?}");
        fs::remove_file(&full).unwrap();
        unroot(&["image", "prune", "-f"]).ok();
        unroot(&["system", "check", "--max", "0"]).ok();
        assert_eq!(unroot(&["images", "-n", "--format", "{{.Repository}}"]).ok(), "localhost/first");
        assert_eq!(unroot(&["run", "--rm", "--network=none", "first", "id", "-u"]).ok(), "0");
    }
}
