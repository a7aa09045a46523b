//! cp and mount: files go where they should, are whose they should be, and nothing leads out of a root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::host::{Host, IMAGE, is_root, uid};

fn running(host: &Host, name: &str, flags: &[&str]) {
    let args = ["run", "-d", "--name", name, "--network=none"];
    host.unroot(args.iter().chain(flags).chain(&[IMAGE, "sleep", "1000"])).ok();
}

#[test]
fn both_ways_while_it_runs_and_when_it_does_not() {
    let host = Host::new();
    let dir = host.path("src");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("sub/file"), "text\n").unwrap();
    fs::set_permissions(dir.join("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("file", dir.join("sub/link")).unwrap();
    let src = dir.to_str().unwrap();
    running(&host, "live", &[]);
    host.unroot(["create", "--name", "made", "--network=none", IMAGE, "ls", "-ln", "/new/sub"]).ok();
    for (n, name) in ["live", "made"].into_iter().enumerate() {
        host.unroot(["cp", src, &format!("{name}:/new")]).ok();
        host.unroot(["cp", &format!("{src}/sub/file"), &format!("{name}:tmp")]).ok();
        let back = host.path(&format!("back{n}"));
        host.unroot(["cp", &format!("{name}:/new/."), back.to_str().unwrap()]).ok();
        assert_eq!(fs::read_to_string(back.join("sub/file")).unwrap(), "text\n");
        assert_eq!(fs::read_link(back.join("sub/link")).unwrap().to_str(), Some("file"));
        let meta = fs::metadata(back.join("sub/file")).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o7777), (uid(), 0o640));
        let one = host.path(&format!("one{n}"));
        host.unroot(["cp", &format!("{name}:/tmp/file"), one.to_str().unwrap()]).ok();
        assert_eq!(fs::read_to_string(&one).unwrap(), "text\n");
    }
    let listing = host.unroot(["start", "-a", "made"]).ok();
    assert!(listing.contains("-rw-r-----    1 0        0") && listing.contains("link -> file"), "{listing}");
    // from one to the other
    host.unroot(["cp", "live:/new/sub", "made:/other"]).ok();
    host.unroot(["cp", "made:/other/file", "-"]).ok();
}

#[test]
fn owners_are_the_containers() {
    let host = Host::new();
    let file = host.path("file");
    fs::write(&file, "x").unwrap();
    for flags in [&["-u", "1000"][..], &["-u", "1000", "--uidmap", "0:0:3000", "--gidmap", "0:0:3000"]] {
        if is_root() && flags.len() > 2 {
            continue; // (root's own map is another test's)
        }
        running(&host, "c", flags);
        host.unroot(["cp", file.to_str().unwrap(), "c:/tmp/own"]).ok();
        host.unroot(["cp", "-a=false", file.to_str().unwrap(), "c:/tmp/kept"]).ok();
        let owners = host.unroot(["exec", "c", "stat", "-c", "%u:%g", "/tmp/own", "/tmp/kept"]).ok();
        assert_eq!(owners, "1000:1000\n0:0", "{flags:?}");
        host.unroot(["rm", "-f", "-t", "0", "c"]).ok();
    }
}

/// What a container makes of its own files cannot reach the host's, whichever way is copied.
#[test]
fn links_lead_nowhere_else() {
    let host = Host::new();
    let secret = host.path("secret");
    fs::write(&secret, "the host's\n").unwrap();
    let target = secret.to_str().unwrap();
    let script = format!(
        "ln -s {target} /tmp/abs; ln -s ../../../../../../../..{target} /tmp/rel; ln -s / /tmp/root; \
         ln -s /proc/1/root /tmp/magic; mkdir /tmp/dir; ln -s {} /tmp/dir/out",
        host.path("").display()
    );
    host.unroot(["run", "--name", "c", "--network=none", IMAGE, "sh", "-c", &script]).ok();
    let out = host.path("out");
    for link in ["abs", "rel"] {
        host.unroot(["cp", &format!("c:/tmp/{link}"), out.to_str().unwrap()])
            .fails(125, "could not be found on container c: no such file or directory");
        // written to, it is a new file in the container
        let file = host.path("file");
        fs::write(&file, "mine\n").unwrap();
        host.unroot(["cp", file.to_str().unwrap(), &format!("c:/tmp/{link}")])
            .fails(125, "could not be found");
    }
    assert!(!out.exists());
    host.unroot(["cp", "c:/tmp/root/etc/passwd", out.to_str().unwrap()]).ok();
    assert!(fs::read_to_string(&out).unwrap().contains("an application"));
    // a link in a directory is copied as the link that it is
    host.unroot(["cp", "c:/tmp/dir", host.path("copied").to_str().unwrap()]).ok();
    assert!(fs::symlink_metadata(host.path("copied/out")).unwrap().is_symlink());
    // ... and is not followed when the same is copied over it
    host.unroot(["cp", "c:/tmp/dir", host.path("copied").to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "the host's\n");
}

#[test]
fn tars_by_standard_input_and_output() {
    let host = Host::new();
    running(&host, "c", &[]);
    host.unroot(["exec", "c", "sh", "-c", "mkdir /d; echo text >/d/f"]).ok();
    let tar = host.path("out.tar");
    let out = fs::File::create(&tar).unwrap();
    assert!(host.command(["cp", "c:/d", "-"]).stdout(out).status().unwrap().success());
    let bytes = fs::read(&tar).unwrap();
    assert!(bytes.windows(5).any(|w| w == b"text\n"));
    host.unroot_with_input(["cp", "-", "c:/tmp"], &bytes).ok();
    assert_eq!(host.unroot(["exec", "c", "cat", "/tmp/d/f"]).ok(), "text");
    host.unroot_with_input(["cp", "-", "c:/tmp"], b"no tar")
        .fails(125, "source must be a (compressed) tar archive");
    host.unroot_with_input(["cp", "-", "c:/etc/passwd"], &bytes).fails(125, "must be a directory");
    // a tar that leads out
    let evil = host.path("evil.tar");
    let status = std::process::Command::new("tar")
        .args(["-C", host.path("").to_str().unwrap(), "--transform=s,^out,../../../escaped,", "-P", "-cf"])
        .arg(&evil)
        .arg("out.tar")
        .status()
        .unwrap();
    assert!(status.success());
    host.unroot_with_input(["cp", "-", "c:/tmp"], &fs::read(&evil).unwrap()).fails(125, "leads out");
}

#[test]
fn what_is_in_the_way_is_replaced_only_if_told() {
    let host = Host::new();
    running(&host, "c", &[]);
    host.unroot(["exec", "c", "mkdir", "-p", "/tmp/x/y"]).ok();
    let file = host.path("x");
    fs::write(&file, "file\n").unwrap();
    let path = file.to_str().unwrap();
    host.unroot(["cp", path, "c:/tmp"]).fails(125, "error creating \"/tmp/x\"");
    host.unroot(["cp", "--overwrite", path, "c:/tmp"]).ok();
    assert_eq!(host.unroot(["exec", "c", "cat", "/tmp/x"]).ok(), "file");
    // what is mounted on a file is written to
    host.unroot(["cp", path, "c:/etc/hosts"]).ok();
    assert_eq!(host.unroot(["exec", "c", "cat", "/etc/hosts"]).ok(), "file");
    host.unroot(["cp", "c:/nowhere", "/tmp"]).fails(125, "\"/nowhere\" could not be found on container c");
    host.unroot(["cp", path, "c:/no/where"]).fails(125, "could not be found");
    host.unroot(["cp", path, "nobody:/tmp"]).fails(125, "container \"nobody\" does not exist");
    host.unroot(["cp", path, path]).fails(125, "is in a container");
}

#[test]
fn into_volumes_of_a_container_that_does_not_run() {
    let host = Host::new();
    let file = host.path("file");
    fs::write(&file, "in the volume\n").unwrap();
    host.unroot(["create", "--name", "c", "--network=none", "-v", "vol:/data", IMAGE]).ok();
    host.unroot(["cp", file.to_str().unwrap(), "c:/data/f"]).ok();
    assert_eq!(host.sh(&["-v", "vol:/v"], "cat /v/f").ok(), "in the volume");
}

#[test]
fn mounted_files_are_the_containers() {
    let host = Host::new();
    host.unroot(["create", "--name", "c", "--network=none", IMAGE, "cat", "/tmp/by-hand"]).ok();
    if !is_root() {
        host.unroot(["mount", "c"]).fails(125, "must execute");
        return;
    }
    let place = host.unroot(["mount", "c"]).ok();
    fs::write(format!("{place}/tmp/by-hand"), "written\n").unwrap();
    assert!(host.unroot(["mount", "--no-trunc"]).ok().contains(&place));
    // it starts on what is mounted
    assert_eq!(host.unroot(["start", "-a", "c"]).ok(), "written");
    assert_eq!(host.unroot(["umount", "c"]).ok().len(), 64);
    assert!(!fs::exists(format!("{place}/tmp")).unwrap());
    assert_eq!(host.unroot(["mount"]).ok(), "");
    assert_eq!(host.unroot(["start", "-a", "c"]).ok(), "written");
    host.unroot(["mount", "c"]).ok();
    host.unroot(["rm", "c"]).ok();
}
