//! Volumes: verbs, owners, drivers, files in and out.

use std::fs;
use std::process::Command;

use crate::host::{Host, IMAGE, is_root};

#[test]
fn from_create_to_prune() {
    let host = Host::new();
    host.unroot(["volume", "create", "--label", "a=b", "one"]).ok();
    host.unroot(["volume", "create", "one"])
        .fails(125, "volume with name one already exists: volume already exists");
    assert_eq!(host.unroot(["volume", "create", "--ignore", "one"]).ok(), "one");
    host.unroot(["volume", "create", "a b"]).fails(125, "running volume create option: names must match");
    host.unroot(["volume", "create", "-d", "nosuch", "x"])
        .fails(125, "no volume plugin with name nosuch available");
    host.unroot(["volume", "create", "-o", "foo=bar", "x"])
        .fails(125, "invalid mount option foo for driver 'local'");
    host.unroot(["volume", "create", "two"]).ok();
    let names = |filters: &[&str]| host.unroot(["volume", "ls", "-q"].iter().chain(filters)).ok();
    assert_eq!(names(&[]), "one\ntwo");
    assert_eq!(names(&["--filter=label=a"]), "one");
    assert_eq!(names(&["--filter=label!=a"]), "two");
    assert_eq!(names(&["--filter=name=^t.o$"]), "two");
    assert_eq!(names(&["--filter=name=one", "--filter=name=two"]), "one\ntwo");
    assert_eq!(names(&["--filter=since=one"]), "two");
    host.unroot(["volume", "ls", "--filter=bogus=1"]).fails(125, "\"bogus\" is an invalid volume filter");
    host.unroot(["create", "--name", "c", "-v", "one:/x", IMAGE]).ok();
    assert_eq!(names(&["--filter=dangling=true"]), "two");
    let id = host.unroot(["inspect", "--format", "{{.Id}}", "c"]).ok();
    host.unroot(["volume", "rm", "one"]).fails(
        2,
        &format!("volume one is being used by the following container(s): {id}: volume is being used"),
    );
    let asked = host.unroot_with_input(["volume", "prune"], b"n\n").ok();
    assert!(asked.contains("\ntwo\n"), "{asked}");
    assert_eq!(names(&[]), "one\ntwo");
    assert_eq!(host.unroot(["volume", "prune", "--force"]).ok(), "two");
    assert_eq!(host.unroot(["volume", "rm", "--force", "-t", "0", "bogus", "on"]).ok(), "one");
    assert_eq!(host.unroot(["ps", "-aq"]).ok(), "");
    host.unroot(["volume", "rm", "one"]).fails(1, "no volume with name \"one\" found: no such volume");
}

#[test]
fn files_of_the_image_come_once() {
    let host = Host::new();
    let state =
        || host.unroot(["volume", "inspect", "--format", "{{.NeedsCopyUp}} {{.NeedsChown}}", "v"]).ok();
    host.unroot(["volume", "create", "v"]).ok();
    assert_eq!(state(), "true true");
    assert_eq!(host.sh(&["-v", "v:/nothing", "--user=7:8"], "stat -c %u:%g /nothing").ok(), "7:8");
    assert_eq!(state(), "true true");
    host.sh(&["-v", "v:/etc"], "test -e /etc/passwd && rm /etc/passwd").ok();
    assert_eq!(state(), "false false");
    host.sh(&["-v", "v:/etc"], "test ! -e /etc/passwd && rm /etc/group").ok();
    host.sh(&["-v", "v:/etc"], "test ! -e /etc/group").ok();
    host.unroot(["volume", "create", "w"]).ok();
    host.sh(&["-v", "w:/etc:nocopy"], "test ! -e /etc/passwd").ok();
    assert_eq!(host.sh(&["-v", "t:/tmp"], "stat -c %a /tmp").ok(), "1777");
    // a container that is started again has them still
    host.unroot(["run", "--name", "c", "-v", "x:/etc", "--network=none", IMAGE, "true"]).ok();
    host.unroot(["start", "-a", "c"]).ok();
}

/// Whoever is first fills it, and nobody fails.
#[test]
fn many_containers_of_a_new_volume() {
    let host = Host::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| host.sh(&["-v", "v:/etc"], "test -e /etc/passwd && test -e /etc/group").ok());
        }
    });
}

#[test]
fn anonymous_ones_go_with_their_container() {
    let host = Host::new();
    let count = || host.unroot(["volume", "ls", "-q"]).ok().lines().count();
    host.sh(&["-v", "/x"], "true").ok();
    assert_eq!(count(), 0);
    host.unroot(["create", "--name", "first", "-v", "/x", IMAGE]).ok();
    host.unroot(["create", "--name", "second", "--volumes-from", "first:ro", IMAGE, "touch", "/x/y"]).ok();
    host.unroot(["rm", "-v", "first"]).ok();
    assert_eq!(count(), 1, "the second one has it still");
    host.unroot(["start", "-a", "second"]).fails(1, "Read-only");
    host.unroot(["rm", "-v", "second"]).ok();
    host.unroot(["volume", "prune", "-f"]).ok();
    assert_eq!(count(), 0);
}

#[test]
fn drivers_of_other_filesystems() {
    let host = Host::new();
    host.unroot([
        "volume",
        "create",
        "-o",
        "type=tmpfs",
        "-o",
        "o=size=2m,noexec",
        "-o",
        "device=tmpfs",
        "mem",
    ])
    .ok();
    let mounted = host.sh(&["-v", "mem:/x"], "grep ' /x ' /proc/mounts; touch /x/a").ok();
    assert!(
        mounted.starts_with("tmpfs /x tmpfs") && mounted.contains("size=2048k") && mounted.contains("noexec"),
        "{mounted}"
    );
    host.sh(&["-v", "mem:/x"], "test ! -e /x/a").ok();
    // while one has it, others have the same
    host.unroot([
        "run",
        "-d",
        "--name",
        "c",
        "-v",
        "mem:/x",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "touch /x/b; sleep 1000",
    ])
    .ok();
    host.unroot(["exec", "c", "sh", "-c", "while ! test -e /x/b; do sleep 0.01; done"]).ok();
    host.sh(&["-v", "mem:/elsewhere"], "test -e /elsewhere/b").ok();
    let dir = host.path("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "of the host").unwrap();
    let device = format!("device={}", dir.display());
    host.unroot(["volume", "create", "-o", "type=bind", "-o", &device, "-o", "o=ro", "there"]).ok();
    assert_eq!(host.sh(&["-v", "there:/x"], "cat /x/file").ok(), "of the host");
    host.sh(&["-v", "there:/x"], "touch /x/y").fails(1, "Read-only");
    host.unroot(["volume", "rm", "there"]).ok();
    assert!(dir.join("file").exists());
    host.unroot(["volume", "create", "-o", "type=bind", "-o", "device=/bogus", "b"]).fails(
        125,
        "invalid volume option device for driver 'local': faccessat /bogus: no such file or directory",
    );
    host.unroot(["volume", "create", "-o", "o=size=1m", "b"]).fails(125, "project quotas");
}

#[test]
fn owners_change_once() {
    let host = Host::new();
    let dir = host.path("dir");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("sub/file"), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("link")).unwrap();
    let bind = format!("{}:/data:U", dir.display());
    let script = "stat -c %u:%g /data /data/sub/file";
    assert_eq!(host.sh(&["-v", &bind, "--user=1000:2000"], script).ok(), "1000:2000\n1000:2000");
    let inside = |script: &str| host.inside(&script.replace("DIR", dir.to_str().unwrap())).ok();
    inside("chown 7:8 DIR/sub/file");
    assert_eq!(host.sh(&["-v", &bind, "--user=1000:2000"], script).ok(), "1000:2000\n7:8");
    inside("chown 7:8 DIR");
    assert_eq!(host.sh(&["-v", &bind, "--user=1000:2000"], script).ok(), "1000:2000\n1000:2000");
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&fs::metadata("/etc/passwd").unwrap()),
        0,
        "no link is followed"
    );
    for precious in ["/tmp:/data:U", "/usr/../etc:/data:U"] {
        host.sh(&["-v", precious], "true").fails(125, "a directory that others depend on");
    }
    assert_eq!(host.sh(&["-v", "v:/new:U", "--user=1000"], "stat -c %u /new").ok(), "1000");
    inside("chown -R 0:0 DIR");
}

#[test]
fn a_part_of_a_volume() {
    let host = Host::new();
    host.sh(
        &["-v", "v:/x"],
        "mkdir -p /x/a/b; echo inner >/x/a/b/file; ln -s /etc /x/out; ln -s ../../.. /x/a/up",
    )
    .ok();
    let part = |path: &str| format!("--mount=type=volume,src=v,dst=/y,subpath={path}");
    assert_eq!(host.sh(&[&part("a/b")], "cat /y/file").ok(), "inner");
    assert_eq!(host.sh(&[&part("a/b/file")], "cat /y").ok(), "inner");
    host.sh(&[&part("out")], "true").fails(125, "No such file or directory");
    assert_eq!(host.sh(&[&part("a/up")], "ls /y").ok(), "a\nout", "it stays in the volume");
    host.sh(&[&part("nothing")], "true").fails(125, "nothing");
}

#[test]
fn export_and_import() {
    let host = Host::new();
    let script = "mkdir /x/dir; echo data >/x/dir/file; ln /x/dir/file /x/hard; ln -s /nowhere /x/link; \
                  chown 7:8 /x/dir/file; chmod 4750 /x/dir/file; touch /x/.wh.kept; mkfifo /x/fifo";
    host.sh(&["-v", "v:/x"], script).ok();
    let tar = host.path("v.tar");
    host.unroot(["volume", "export", "-o", tar.to_str().unwrap(), "v"]).ok();
    host.unroot(["volume", "create", "w"]).ok();
    host.unroot(["volume", "import", "w", tar.to_str().unwrap()]).ok();
    let shown = "cd /x; ls -A; stat -c '%u:%g %a %h' dir/file; readlink link; cat hard; stat -c %F fifo";
    let (before, after) = (host.sh(&["-v", "v:/x"], shown).ok(), host.sh(&["-v", "w:/x"], shown).ok());
    assert_eq!(before, after);
    assert!(before.contains("7:8 4750 2"), "{before}");
    let gzip = Command::new("gzip").arg("-k").arg(&tar).status().unwrap();
    assert!(gzip.success());
    host.unroot_with_input(["volume", "import", "w", "-"], &fs::read(host.path("v.tar.gz")).unwrap()).ok();
    host.unroot(["volume", "export", "nosuch"])
        .fails(125, "no volume with name \"nosuch\" found: no such volume");
    host.unroot_with_input(
        ["volume", "import", "w", "-"],
        b"no tar at all, but long enough to be taken for one",
    )
    .fails(125, "volume import w");
}

/// An archive that tries to write elsewhere.
#[test]
fn a_hostile_archive() {
    let host = Host::new();
    let (dir, outside) = (host.path("evil"), host.path("outside"));
    fs::create_dir_all(dir.join("d")).unwrap();
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, dir.join("link")).unwrap();
    fs::write(dir.join("d/x"), "owned").unwrap();
    let tar = host.path("evil.tar");
    let add = |args: &[&str]| {
        let done = Command::new("tar").arg("-C").arg(&dir).args(args).status().unwrap();
        assert!(done.success());
    };
    add(&["-cf", tar.to_str().unwrap(), "link"]);
    add(&["-rf", tar.to_str().unwrap(), "--transform=s,^d/x,link/x,", "d/x"]);
    host.unroot(["volume", "create", "v"]).ok();
    host.unroot(["volume", "import", "v", tar.to_str().unwrap()]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    add(&["-cf", tar.to_str().unwrap(), "-P", "--transform=s,^d/x,../../x,", "d/x"]);
    host.unroot(["volume", "import", "v", tar.to_str().unwrap()]).fails(125, "leads out");
}

#[test]
fn mounting_by_hand() {
    let host = Host::new();
    host.unroot(["volume", "create", "v"]).ok();
    host.unroot(["volume", "reload"]).ok();
    if !is_root() {
        host.unroot(["volume", "mount", "v"]).fails(125, "in rootless mode, must execute `");
        return;
    }
    let place = host.unroot(["volume", "mount", "v"]).ok();
    assert!(fs::metadata(&place).unwrap().is_dir());
    assert_eq!(host.unroot(["volume", "unmount", "v"]).ok(), "v");
    host.unroot(["volume", "create", "-o", "type=tmpfs", "-o", "o=size=1m", "mem"]).ok();
    let place = host.unroot(["volume", "mount", "mem"]).ok();
    fs::write(format!("{place}/file"), "by hand").unwrap();
    assert_eq!(host.sh(&["-v", "mem:/x"], "cat /x/file").ok(), "by hand");
    host.unroot(["volume", "rm", "mem"]).ok();
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&place));
}

#[test]
fn files_of_an_image() {
    let host = Host::new();
    let mount = |more: &str| format!("--mount=type=image,src={IMAGE},dst=/img{more}");
    host.sh(&[&mount("")], "test -x /img/bin/busybox && touch /img/x").fails(1, "Read-only");
    host.sh(&[&mount(",rw=true")], "touch /img/x && test -x /img/bin/busybox").ok();
    host.sh(&[&mount(",rw=true")], "test ! -e /img/x && test $(stat -c %a /img) = 755").ok();
    host.sh(&["--mount=type=image,src=nosuch,dst=/img"], "true").fails(125, "nosuch: image not known");
    if !is_root() {
        host.sh(&["--userns=keep-id", &mount("")], "test $(stat -c %u /img/bin/busybox) = 0").ok();
    }
}

#[test]
fn paths_by_pattern() {
    let host = Host::new();
    let dir = host.path("dir");
    for file in ["one/a1", "two/a2", "two/b"] {
        fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
        fs::write(dir.join(file), file).unwrap();
    }
    let dir = dir.to_str().unwrap();
    assert_eq!(
        host.sh(&[&format!("--mount=type=glob,src={dir}/*/a?,dst=/g")], "ls /g; cat /g/a2").ok(),
        "a1\na2\ntwo/a2"
    );
    let script = format!("cd {dir}; find . -type f; touch one/a1");
    host.sh(&[&format!("--mount=type=glob,src={dir}/*/a1,ro")], &script).fails(1, "Read-only");
    host.sh(&[&format!("--mount=type=glob,src={dir}/z*,dst=/g")], "true")
        .fails(125, "no file paths matching glob");
}

#[test]
fn memory_as_asked() {
    let host = Host::new();
    let stat = "stat -c '%a %u %g' /t";
    assert_eq!(host.sh(&["--tmpfs=/t:mode=1770,uid=5,gid=6"], stat).ok(), "1770 5 6");
    assert_eq!(host.sh(&["--mount=type=tmpfs,dst=/t,tmpfs-mode=700"], stat).ok(), "700 0 0");
    assert_eq!(host.sh(&["--tmpfs=/tmp"], "stat -c %a /tmp").ok(), "1777", "as the image has it");
    host.sh(
        &["--tmpfs=/etc:notmpcopyup"],
        "test ! -e /etc/passwd && test -s /etc/hosts && test -e /etc/resolv.conf",
    )
    .ok();
    host.sh(&["--tmpfs=/t:bogus"], "true").fails(125, "unknown mount option \"bogus\": invalid mount option");
}

/// The engine's own files are above what the user mounts, where there is a place for them.
#[test]
fn the_engines_own_files() {
    let host = Host::new();
    let dir = host.path("etc");
    fs::create_dir(&dir).unwrap();
    host.sh(&[&format!("-v={}:/etc:ro", dir.display())], "test ! -e /etc/hosts").ok();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    fs::write(dir.join("hosts"), "the host's").unwrap();
    host.sh(&[&format!("-v={}:/etc:ro", dir.display())], "grep -q localhost /etc/hosts").ok();
    assert_eq!(fs::read_to_string(dir.join("hosts")).unwrap(), "the host's");
    host.sh(&["-v", "v:/etc"], "grep -q localhost /etc/hosts && test -e /etc/passwd").ok();
    let options = host
        .sh(&["-v", "v:/x", "-v", "w:/y:suid,dev"], "grep -E ' /[xy] ' /proc/mounts | cut -d' ' -f4")
        .ok();
    let lines: Vec<&str> = options.lines().collect();
    assert!(lines[0].contains("nosuid,nodev") && !lines[1].contains("nosuid"), "{options}");
}

#[test]
fn the_same_twice() {
    let host = Host::new();
    host.sh(&["-v", "v:/x", "-v", "v:/x", "--tmpfs=/t", "--tmpfs=/t"], "true").ok();
    host.sh(&["-v", "v:/x", "-v", "w:/x"], "true").fails(125, "/x: duplicate mount destination");
    host.sh(&["-v", "v:/x", "--tmpfs=/x"], "true").fails(125, "/x: duplicate mount destination");
}

/// What a container mounts in a bind that is shared is there on the host; nothing else of the host's mounts changes.
#[test]
fn a_shared_bind() {
    let host = Host::new();
    let dir = host.path("shared");
    fs::create_dir(&dir).unwrap();
    let bind = format!("{}:/c:rshared", dir.display());
    let propagation = "grep ' /c ' /proc/self/mountinfo | grep -o shared:";
    assert_eq!(host.sh(&["-v", &bind], propagation).ok(), "shared:");
    if !is_root() {
        return;
    }
    // as systemd leaves a host's mounts
    let script = r#"
        set -e
        mount --make-rprivate /; mount --make-rshared /
        mount --bind $DIR $DIR
        mounts() { sed -E 's/^[0-9]+ [0-9]+ //' /proc/self/mountinfo | sort; }
        before=$(mounts)
        for network in none private; do
            "$@" run --rm --privileged --network=$network -v $DIR:/c:rshared $IMAGE \
                sh -c 'mkdir -p /c/in && mount -t tmpfs tmpfs /c/in && touch /c/in/file'
            test -e $DIR/in/file || { echo "$network: not shared"; exit 1; }
            umount $DIR/in
            "$@" run --rm --privileged --network=$network -v $DIR:/c $IMAGE sh -c 'mount -t tmpfs tmpfs /c/in'
            test "$before" = "$(mounts)" || { echo "$network: other mounts than before:"; mounts; exit 1; }
        done"#;
    let mut outside = Command::new("unshare");
    outside.args(["-m", "sh", "-c", script, "sh"]).env("DIR", &dir).env("IMAGE", IMAGE);
    outside
        .arg(crate::host::binary())
        .arg("--root")
        .arg(host.path("root"))
        .arg("--runroot")
        .arg(host.path("run"));
    host.run(&mut outside).ok();
}
