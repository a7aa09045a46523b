//! Mounts: binds, volumes, tmpfs, devices, and root filesystems that are directories.

use std::fs;

use crate::host::{Host, IMAGE, is_root, uid};

#[test]
fn bind_mounts() {
    let host = Host::new();
    let data = host.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("in"), "from outside").unwrap();
    let data = data.to_str().unwrap();
    let volume = |options: &str| format!("{data}:/data{options}");
    assert_eq!(host.sh(&["-v", &volume("")], "cat /data/in; echo back >/data/out").ok(), "from outside");
    assert_eq!(fs::read_to_string(host.path("data/out")).unwrap(), "back\n");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(host.path("data/out")).unwrap().uid(), uid(), "root inside is the user outside");
    assert_ne!(host.sh(&["-v", &volume(":ro")], "touch /data/x").code, 0);
    let mount = format!("type=bind,src={data},dst=/data,readonly");
    assert_ne!(host.sh(&["--mount", &mount], "touch /data/x").code, 0);
    assert_eq!(host.sh(&["-v", &volume(":noexec")], "grep -c ' /data .*noexec' /proc/mounts").ok(), "1");
    host.sh(&["-v", "/nosuch-directory:/data"], "true").fails(125, "no such file or directory");
    host.sh(&["-v", &volume(":bogus")], "true").fails(125, "bogus");
}

#[test]
fn an_overlay_over_a_directory_keeps_it_as_it_is() {
    let host = Host::new();
    let data = host.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("in"), "1").unwrap();
    let volume = format!("{}:/data:O", data.display());
    assert_eq!(host.sh(&["-v", &volume], "echo 2 >/data/in; cat /data/in").ok(), "2");
    assert_eq!(fs::read_to_string(data.join("in")).unwrap(), "1");
}

#[test]
fn volumes_are_filled_from_the_image_and_kept() {
    let host = Host::new();
    assert_eq!(host.sh(&["-v", "vol:/etc"], "grep -c ^sync /etc/passwd; echo kept >/etc/mark").ok(), "1");
    assert_eq!(host.sh(&["-v", "vol:/mnt"], "cat /mnt/mark").ok(), "kept");
    host.unroot(["volume", "rm", "vol"]).ok();
    host.sh(&["-v", "/nocolon"], "test -d /nocolon").ok();
    assert_eq!(host.unroot(["volume", "ls", "-q"]).ok(), "", "an anonymous volume goes with --rm");
}

#[test]
fn tmpfs_and_shm() {
    let host = Host::new();
    let shown = host.sh(&["--tmpfs", "/cache:size=1m,mode=0700"], "grep ' /cache ' /proc/mounts").ok();
    assert!(shown.contains("tmpfs") && shown.contains("size=1024k") && shown.contains("mode=700"), "{shown}");
    let shown = host.sh(&["--shm-size", "2m"], "grep ' /dev/shm ' /proc/mounts").ok();
    assert!(shown.contains("size=2048k"), "{shown}");
}

#[test]
fn devices() {
    let host = Host::new();
    let nodes = host.sh(&[], "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; ls -l /dev/fd /dev/stdin | wc -l").ok();
    assert_eq!(nodes, "2");
    assert_eq!(host.sh(&["--device", "/dev/zero:/dev/nothing"], "head -c 4 /dev/nothing | wc -c").ok(), "4");
    assert_ne!(host.sh(&["--device", "/dev/nosuch"], "true").code, 0);
}

#[test]
fn a_directory_as_root() {
    let host = Host::new();
    let root = host.path("rootfs");
    fs::create_dir_all(root.join("bin")).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| fs::metadata(p).is_ok()).unwrap();
    fs::copy(busybox, root.join("bin/sh")).unwrap();
    let flags = |root: String| {
        [
            "run".into(),
            "--rm".into(),
            "--network=none".into(),
            "--rootfs".into(),
            root,
            "/bin/sh".into(),
            "-c".into(),
            "echo >/made; echo $0 ok".to_string(),
        ]
    };
    assert_eq!(host.unroot(flags(format!("{}:O", root.display()))).ok(), "/bin/sh ok");
    assert!(!root.join("made").exists());
    assert_eq!(host.unroot(flags(root.display().to_string())).ok(), "/bin/sh ok");
    assert!(root.join("made").exists());
}

#[test]
fn the_host_itself_as_root_is_not_changed() {
    let host = Host::new();
    let own = host.path("own");
    fs::write(&own, "1\n").unwrap();
    let script = format!(
        "cat /proc/1/comm; cat {own}; echo 2 >{own}; cat {own}; echo >/etc/unroot-made; echo >/unroot-made; \
         ls /unroot-made; cat /etc/hostname | wc -l; grep -c ' /proc proc ' /proc/mounts; readlink /proc/self/exe",
        own = own.display()
    );
    let run = |name: &str| {
        let flags = ["run", "--network=none", "--name", name, "--rootfs", "/:O", "sh", "-c"];
        host.unroot(flags.iter().copied().chain([script.as_str()])).ok()
    };
    let said = run("a");
    assert!(said.starts_with("sh\n1\n2\n/unroot-made\n1\n1\n/"), "{said}");
    assert_eq!(fs::read_to_string(&own).unwrap(), "1\n");
    for made in ["/unroot-made", "/etc/unroot-made"] {
        assert!(fs::symlink_metadata(made).is_err(), "{made}");
    }
    // what was written is the container's, and still there at its next start
    let again = host.unroot(["start", "-a", "a"]).ok();
    assert!(again.starts_with("sh\n2\n2\n"), "{again}");
}

#[test]
fn a_change_stays_in_its_container() {
    let host = Host::new();
    host.unroot([
        "run",
        "--name",
        "c",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "echo changed >/etc/passwd; rm /bin/true; mkdir /new",
    ])
    .ok();
    assert_eq!(host.sh(&[], "grep -c ^sync /etc/passwd; test -e /bin/true && echo there").ok(), "1\nthere");
    assert_eq!(
        host.unroot(["start", "-a", "c"]).code,
        1,
        "mkdir /new again: its layer is kept from start to start"
    );
}

#[test]
fn files_of_the_network_are_its_own() {
    let host = Host::new();
    let shown = host
        .sh(
            &["--hostname", "box", "--add-host", "db:10.1.2.3"],
            "hostname; cat /etc/hostname; cat /etc/hosts",
        )
        .ok();
    assert!(shown.starts_with("box\nbox\n"), "{shown}");
    assert!(shown.contains("10.1.2.3\tdb") || shown.contains("10.1.2.3 db"), "{shown}");
    let shown = host
        .unroot([
            "run",
            "--rm",
            "--dns",
            "192.0.2.7",
            "--dns-search",
            "example.org",
            IMAGE,
            "cat",
            "/etc/resolv.conf",
        ])
        .ok();
    assert!(shown.contains("nameserver 192.0.2.7") && shown.contains("search example.org"), "{shown}");
}

/// keep-id: the user is the same inside and outside, and files made in a bind mount are the user's.
#[test]
fn keep_id() {
    if is_root() {
        return; // (rootful keep-id is the id map crate's test)
    }
    let host = Host::new();
    let data = host.path("data");
    fs::create_dir(&data).unwrap();
    let volume = format!("{}:/data", data.display());
    let me = uid();
    assert_eq!(
        host.sh(&["--userns=keep-id", "-v", &volume], "id -u; touch /data/mine; stat -c %u /data/mine /etc")
            .ok(),
        format!("{me}\n{me}\n0")
    );
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(data.join("mine")).unwrap().uid(), me);
    assert_eq!(host.sh(&["--userns=keep-id:uid=200,gid=210"], "id -u; id -g").ok(), "200\n210");
    // the container's root is another subordinate id: the engine's own files are still mounted into it
    let shown = host
        .sh(&["--uidmap", "0:100:1000", "--hostname", "mapped"], "cat /etc/hostname; stat -c %u /etc")
        .ok();
    assert_eq!(shown, "mapped\n0");
}

/// A directory that is mounted read-only is so with what is mounted below it.
#[test]
fn read_only_to_the_bottom() {
    let host = Host::new();
    let done = host.sh(&["-v", "/dev:/hosts:ro"], "touch /hosts/shm/unroot-e2e-was-here");
    done.fails(1, "Read-only file system");
    host.sh(&["--mount", "type=bind,src=/dev,dst=/hosts,ro"], "touch /hosts/shm/unroot-e2e-was-here")
        .fails(1, "Read-only file system");
}

/// A tmpfs is its user's where that is asked for; a ramfs has no owner to be given.
#[test]
fn a_tmpfs_of_the_user() {
    let host = Host::new();
    for flags in
        [["--mount", "type=tmpfs,dst=/d,chown=true"], ["--tmpfs", "/d:U"], ["--tmpfs", "/d:U,mode=700"]]
    {
        let script = "stat -c %u:%g /d; echo x >/d/x && cat /d/x";
        assert_eq!(host.sh(&["-u", "5:7", flags[0], flags[1]], script).ok(), "5:7\nx", "{flags:?}");
    }
    let given = ["-u", "5:7", "--mount", "type=tmpfs,dst=/d,U=true,uid=9"];
    assert_eq!(host.sh(&given, "stat -c %u:%g /d").ok(), "9:7");
    host.sh(&["--mount", "type=ramfs,dst=/d,U=true"], "true").fails(125, "unknown mount option \"U\"");
}
