//! User namespaces: every mode and option, the map as the kernel has it, and files with the owners that they should have.

use crate::host::{Host, IMAGE, first_subid, is_root, uid};

/// The map of a container, inside -> engine's namespace.
fn map_of(host: &Host, flags: &[&str]) -> Vec<[u32; 3]> {
    lines(&host.sh(flags, "cat /proc/self/uid_map").ok())
}

fn lines(text: &str) -> Vec<[u32; 3]> {
    let line = |line: &str| {
        let numbers: Vec<u32> = line.split_whitespace().map(|n| n.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    };
    text.lines().map(line).collect()
}

/// The map without the ends that lines have where those around them end. What a container sees of it is relative to
/// the engine's namespace, where 0 is the user and 1 the first subordinate id.
fn inner(host: &Host, flags: &[&str]) -> Vec<[u32; 3]> {
    let mut map: Vec<[u32; 3]> = Vec::new();
    for [inside, outside, length] in map_of(host, flags) {
        match map.last_mut() {
            Some(last) if last[0] + last[2] == inside && last[1] + last[2] == outside => last[2] += length,
            _ => map.push([inside, outside, length]),
        }
    }
    map
}

#[test]
fn lines_of_a_map_in_every_form() {
    let host = Host::new();
    let of = |flags: &[&str]| inner(&host, flags);
    assert_eq!(of(&["--uidmap=0:1:500"]), [[0, 1, 500]]);
    assert_eq!(of(&["--uidmap=0:0:1000"]), [[0, 0, 1000]]);
    assert_eq!(of(&["--uidmap=0:1:10", "--uidmap=20:40:3"]), [[0, 1, 10], [20, 40, 3]]);
    assert_eq!(of(&["--uidmap=0:1:10,20:40:3"]), [[0, 1, 10], [20, 40, 3]]);
    assert_eq!(of(&["--uidmap=0:1:500", "--uidmap=+100:0:1"]), [[0, 1, 100], [100, 0, 1], [101, 102, 399]]);
    // the flag keeps a line to groups
    assert_eq!(of(&["--gidmap=0:1:500", "--gidmap=g600:700:1"]), [[0, 1, 500]]);
    let refused = host.sh(&["--uidmap=q0:1:5"], "true").fails(125, "Unknown flag q");
    assert!(!refused.contains("panicked"));
    host.sh(&["--uidmap=0:1"], "id -u").ok();
    host.sh(&["--uidmap=0:1:2:3"], "true").fails(125, "[+ug]uint32:[@]uint32[:uint32]");
    host.sh(&["--uidmap=0:1:5", "--userns=keep-id"], "true").fails(125, "mutually exclusive");
    host.sh(&["--uidmap=0:1:5", "--uidmap=2:9:1"], "true").fails(125, "mapped twice");
    if !is_root() {
        let first = first_subid("/etc/subuid");
        let host_id = format!("--uidmap=0:@{}:1", first + 7);
        assert_eq!(of(&[&host_id]), [[0, 8, 1]]);
        let rest = of(&["--uidmap=+1000:0:1"]);
        assert_eq!(rest[..2], [[0, 1, 1000], [1000, 0, 1]]);
        let error = host.sh(&["--uidmap=0:@3:1"], "true").fails(125, "is not mapped/delegated");
        assert!(error.contains(&first.to_string()), "{error}");
        let error =
            host.sh(&["--uidmap=0:4000000:1"], "true").fails(125, "container id 0 would be id 4000000");
        assert!(error.contains("0-65536"), "{error}");
    }
}

#[test]
fn a_map_without_root() {
    let host = Host::new();
    let flags = ["--uidmap=1000:0:1", "--gidmap=1000:0:1", "--user=1000"];
    // (Podman says: doesn't map GID 0)
    let error = host.sh(&flags, "true").fails(125, "has no id 0, whose most files of an image are");
    assert!(error.contains("hint: "), "{error}");
    let error = host.sh(&["--uidmap=0:1:500", "--user=900"], "true").fails(126, "900");
    assert!(error.contains("0-499"), "{error}");
}

#[test]
fn ranges_of_a_name() {
    if is_root() {
        return;
    }
    let host = Host::new();
    let name = crate::host::host_name_of(uid()).unwrap();
    assert_eq!(map_of(&host, &["--subuidname", &name])[0], [0, 1, 65536]);
    host.sh(&["--subuidname=nobody-has-this"], "true").fails(125, "no subuid ranges found for user");
}

#[test]
fn the_user_is_kept() {
    let host = Host::new();
    if is_root() {
        assert_eq!(host.sh(&["--userns=keep-id"], "id -u").ok(), "0");
        host.sh(&["--userns=nomap"], "true").fails(125, "nomap is only supported in rootless mode");
        return;
    }
    let own = uid();
    assert_eq!(host.sh(&["--userns=keep-id"], "id -u").ok(), own.to_string());
    let map = inner(&host, &["--userns=keep-id"]);
    assert_eq!(map[..2], [[0, 1, own], [own, 0, 1]]);
    assert_eq!(host.sh(&["--userns=keep-id:uid=200,gid=210"], "id -u; id -g").ok(), "200\n210");
    let map = inner(&host, &["--userns=keep-id:uid=5,size=10"]);
    assert_eq!(map, [[0, 1, 5], [5, 0, 1], [6, 6, 4]]);
    assert_eq!(inner(&host, &["--userns=nomap"])[0][..2], [0, 1]);
    // what the image's root owns is the container's root's, what the user makes on the host is the user's
    let dir = host.path("shared");
    std::fs::create_dir(&dir).unwrap();
    let bind = format!("{}:/shared", dir.display());
    let shown = host.sh(
        &["--userns=keep-id", "-v", &bind],
        "stat -c %u /bin/busybox; touch /shared/f; stat -c %u /shared/f",
    );
    assert_eq!(shown.ok(), format!("0\n{own}"));
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(dir.join("f")).unwrap().uid(), own);
}

#[test]
fn files_of_an_image_with_other_owners() {
    let host = Host::new();
    let map = ["--uidmap=0:1:2000", "--gidmap=0:1:2000"];
    // (an image with files of several owners, links, a device-less directory tree and a capability)
    let build = "mkdir -p /d/e; echo one >/d/a; ln /d/a /d/b; ln -s a /d/l; : >/d/empty; chown 5:1234 /d/a; chown 1000 /d/e; chmod 2755 /d/e; chmod 4711 /d/empty; touch -d 2001-02-03 /d /d/a";
    host.unroot(["run", "--name", "made", "--network=none", IMAGE, "sh", "-c", build]).ok();
    host.unroot(["commit", "-q", "made", "localhost/owners"]).ok();
    let look = "cd /d; stat -c '%n %u:%g %a %Y' . a b e empty; stat -c %h a; cat a b l; readlink l";
    let plain = host.unroot(["run", "--rm", "--network=none", "localhost/owners", "sh", "-c", look]).ok();
    let run = |script: &str| {
        let args = ["run", "--rm", "--network=none"].iter().chain(&map).copied();
        host.unroot(args.chain(["localhost/owners", "sh", "-c", script]))
    };
    assert_eq!(run(look).ok(), plain);
    // the container's root owns and may change all of it
    assert_eq!(run("echo two >>/d/a && chown 7:7 /d/a && cat /d/a && stat -c %u /d/a").ok(), "one\ntwo\n7");
    assert_eq!(run(look).ok(), plain);
    let diff = host.unroot(["image", "exists", "localhost/owners"]);
    assert_eq!(diff.code, 0);
}

#[test]
fn one_tree_for_all_maps_that_are_alike() {
    if is_root() {
        return;
    }
    let host = Host::new();
    for flags in [
        &["--userns=keep-id"][..],
        &["--userns=nomap"],
        &["--userns=auto"],
        &["--uidmap=0:1:3000", "--gidmap=0:1:3000"],
    ] {
        host.sh(flags, "true").ok();
    }
    let trees = host.inside(&format!(
        "ls -d {}/images/*/refers-* {0}/images/*/copies-* 2>/dev/null | wc -l",
        host.path("root").display()
    ));
    assert_eq!(trees.ok(), "1");
    // where the image's owners stay what they are there is none
    host.sh(&["--uidmap=0:0:3000", "--gidmap=0:0:3000"], "true").ok();
    let trees = host.inside(&format!(
        "ls -d {}/images/*/refers-* {0}/images/*/copies-* 2>/dev/null | wc -l",
        host.path("root").display()
    ));
    assert_eq!(trees.ok(), "1");
}

#[test]
fn another_containers_namespace() {
    let host = Host::new();
    let own = if is_root() { "--uidmap=0:100000:5000" } else { "--userns=keep-id" };
    host.unroot(["run", "-d", "--name", "first", "--network=none", own, IMAGE, "sleep", "100"]).ok();
    let look = "readlink /proc/self/ns/user; cat /proc/self/uid_map";
    let expected = host.unroot(["exec", "first", "sh", "-c", look]).ok();
    assert_eq!(host.sh(&["--userns=container:first"], look).ok(), expected);
    let pid = host.unroot(["inspect", "--format", "{{.State.Pid}}", "first"]).ok();
    assert_eq!(host.sh(&[&format!("--userns=ns:/proc/{pid}/ns/user")], look).ok(), expected);
    // it owns what it needs: its own mounts, host name and loopback
    let works = "hostname new && hostname && mkdir /m && mount -t tmpfs none /m 2>&1 | grep -c denied; stat -c %u /bin/busybox";
    assert_eq!(
        host.sh(&["--userns=container:first", "--user=0", "--cap-add=SYS_ADMIN"], works).ok(),
        "new\n0\n0"
    );
    host.sh(&["--userns=container:nothere"], "true").fails(125, "no container with name or ID \"nothere\"");
    host.sh(&["--userns=ns:/nothere"], "true").fails(125, "open user namespace /nothere");
    host.sh(&["--userns=ns:/etc/passwd"], "true").fails(125, "it is not one");
    // what a container needs is started with it
    host.unroot(["stop", "-t", "0", "first"]).ok();
    let again = host.sh(&["--userns=container:first"], look).ok();
    assert_eq!(again, host.unroot(["exec", "first", "sh", "-c", look]).ok());
}

#[test]
fn ranges_of_their_own() {
    let host = Host::new();
    let start = |name: &str, mode: &str| {
        host.unroot(["run", "-d", "--name", name, "--network=none", mode, IMAGE, "sleep", "100"])
    };
    if is_root() && !std::fs::read_to_string("/etc/subuid").unwrap_or_default().contains("containers:") {
        let error = start("a", "--userns=auto").fails(125, "cannot find mappings for user \"containers\"");
        assert!(error.contains("hint: as root: ") && error.contains("/etc/subuid"), "{error}");
        return;
    }
    start("a", "--userns=auto").ok();
    start("b", "--userns=auto:size=3000").ok();
    let map = |name: &str| lines(&host.unroot(["exec", name, "cat", "/proc/self/uid_map"]).ok());
    let (a, b) = (map("a"), map("b"));
    for x in &a {
        for y in &b {
            assert!(x[1] + x[2] <= y[1] || y[1] + y[2] <= x[1], "{a:?} {b:?}");
        }
    }
    assert_eq!(b.iter().map(|e| e[2]).sum::<u32>(), 3000);
    // users of the image are in the map, `nobody` at 65534 too
    assert_eq!(host.unroot(["exec", "-u", "nobody", "a", "id", "-u"]).ok(), "65534");
    assert_eq!(host.unroot(["exec", "a", "stat", "-c", "%u", "/bin/busybox"]).ok(), "0");
    let free = start("c", "--userns=auto:size=4000000000").fails(125, "not enough unused IDs");
    assert!(free.contains("b 3000") && free.contains("hint: "), "{free}");
    // they are free when the container is gone
    host.unroot(["rm", "-f", "-t", "0", "a"]).ok();
    start("d", "--userns=auto").ok();
    assert_eq!(map("d"), a);
}

#[test]
fn by_environment_and_configuration() {
    if is_root() {
        return;
    }
    let host = Host::new();
    let look = ["run", "--rm", "--network=none", IMAGE, "id", "-u"];
    let own = uid().to_string();
    assert_eq!(host.run(host.command(look).env("PODMAN_USERNS", "keep-id")).ok(), own);
    let conf = host.path("containers.conf");
    std::fs::write(&conf, "[containers]\nuserns = \"keep-id\"\n").unwrap();
    assert_eq!(host.run(host.command(look).env("CONTAINERS_CONF", &conf)).ok(), own);
    // a plain pull makes ready what is configured
    host.unroot(["rmi", "-f", IMAGE]).ok();
    let archive = host.path("image.tar").display().to_string();
    host.unroot(["import", "-q", "--change", "CMD=/bin/sh", "--change", "LABEL=a=b", &archive, IMAGE]).ok();
    let trees = format!(
        "ls -d {}/images/*/refers-* {0}/images/*/copies-* 2>/dev/null | wc -l",
        host.path("root").display()
    );
    assert_eq!(host.inside(&trees).ok(), "0");
    host.run(host.command(["pull", "-q", "--policy=never", IMAGE]).env("CONTAINERS_CONF", &conf)).ok();
    assert_eq!(host.inside(&trees).ok(), "1");
    let over = ["run", "--rm", "--network=none", "--userns=host", IMAGE, "id", "-u"];
    assert_eq!(host.run(host.command(over).env("CONTAINERS_CONF", &conf)).ok(), "0");
}

#[test]
fn mounts_with_other_owners() {
    let host = Host::new();
    let dir = host.path("tree");
    std::fs::create_dir_all(dir.join("bin")).unwrap();
    std::fs::copy("/bin/busybox", dir.join("bin/busybox")).unwrap();
    for name in ["sh", "stat", "touch"] {
        std::os::unix::fs::symlink("busybox", dir.join("bin").join(name)).unwrap();
    }
    std::fs::write(dir.join("file"), "").unwrap();
    let bind = |option: &str| format!("{}:/there:{option}", dir.display());
    if !is_root() {
        let error = host.sh(&["-v", &bind("idmap")], "true").fails(125, "idmapped mounts take root");
        assert!(error.contains("hint: --userns=keep-id"), "{error}");
        return;
    }
    std::os::unix::fs::chown(dir.join("file"), Some(2000), Some(2000)).unwrap();
    let look = |flags: &[&str], path: &str| host.sh(flags, &format!("stat -c %u:%g {path}")).ok();
    let own = "--uidmap=0:1000:3000";
    assert_eq!(look(&[own, "-v", &bind("idmap")], "/there/bin /there/file"), "0:0\n2000:2000");
    assert_eq!(look(&[own, "-v", &bind("ro")], "/there/bin"), "65534:65534");
    assert_eq!(look(&[own, "-v", &bind("idmap=uids=0-1001-10;gids=0-1002-10")], "/there/bin"), "1:2");
    assert_eq!(look(&[own, "-v", &bind("idmap=uids=@2000-1-1;gids=@2000-1-1")], "/there/file"), "1:1");
    // without a namespace of its own only with numbers
    assert_eq!(look(&["-v", &bind("idmap=uids=0-5-10;gids=0-6-10")], "/there/bin"), "5:6");
    host.sh(&["-v", &bind("idmap")], "true").fails(125, "user namespace of its own");
    host.sh(&[own, "-v", &bind("idmap=uids=1")], "true").fails(125, "invalid idmap option");
    // what the container's root makes there is root's on disk
    host.sh(&[own, "-v", &bind("idmap")], "touch /there/made").ok();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(dir.join("made")).unwrap().uid(), 0);
    // a volume keeps its owners whatever the map of whoever has it
    for from in [1000, 2000] {
        let map = format!("--uidmap=0:{from}:3000");
        assert_eq!(look(&[&map, "-v", "kept:/etc:idmap"], "/etc /etc/passwd"), "0:0\n0:0");
    }
    // a root filesystem
    let rootfs = |option: &str, path: &str| {
        let root = format!("{}:{option}", dir.display());
        host.unroot([
            "run",
            "--rm",
            "--network=none",
            own,
            "--rootfs",
            &root,
            "/bin/stat",
            "-c",
            "%u:%g",
            path,
        ])
        .ok()
    };
    assert_eq!(rootfs("idmap", "/bin"), "0:0");
    assert_eq!(rootfs("idmap=uids=0-1001-10000;gids=0-1002-10000", "/bin"), "1:2");
    assert_eq!(rootfs("idmap=uids=@2000-1-1;gids=@2000-1-1", "/file"), "1:1");
}

/// Root's pool, several ranges, lines by number: other files of the host, in a mount namespace of the test's own.
#[test]
fn files_of_the_host() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let base = format!(
        "{} --root {1}/root --runroot {1}/run",
        crate::host::binary().display(),
        host.path("").display()
    );
    let script = |files: &str, commands: &str| {
        let dir = host.path("").display().to_string();
        let text = format!(
            "set -e; printf '{files}' >{dir}/subid; mount --bind {dir}/subid /etc/subuid; mount --bind {dir}/subid /etc/subgid; {commands}"
        );
        let output = std::process::Command::new("unshare")
            .args(["-m", "sh", "-c", &text])
            .env("CONTAINERS_CONF", "/dev/null")
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let run = |mode: &str, command: &str| {
        format!("{base} run --rm --network=none --userns={mode} {IMAGE} {command}; ")
    };
    let pool = "containers:2000000:4000\\n";
    let both = format!(
        "{base} run -d --name one --network=none --userns=auto {IMAGE} sleep 100 >/dev/null; {}{}{base} rm -f -t0 one >/dev/null; {}",
        run("auto", "cat /proc/self/uid_map"),
        run("auto", "stat -c %u /bin/busybox /etc/passwd"),
        run("auto:size=4000", "cat /proc/self/uid_map"),
    );
    let said = script(pool, &both);
    let lines: Vec<Vec<&str>> = said.lines().map(|l| l.split_whitespace().collect()).collect();
    // (1024 ids and nobody's, which the image has)
    assert_eq!(lines[0], ["0", "2001025", "1024"], "{said}");
    assert_eq!(lines[1], ["65534", "2002049", "1"], "{said}");
    assert_eq!((&lines[2], &lines[3]), (&vec!["0"], &vec!["0"]), "{said}");
    assert_eq!(lines[4], ["0", "2000000", "4000"], "{said}");
    // two ranges of one name, as one pool
    let said = script(
        "containers:2000000:700\\ncontainers:3000000:700\\n",
        &run("auto:size=1000", "cat /proc/self/uid_map"),
    );
    let shown: Vec<Vec<&str>> = said.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(shown, [["0", "2000000", "700"], ["700", "3000000", "300"]], "{said}");
    // what another engine's container holds is not given out
    let held = format!(
        "unshare -U sleep 20 & p=$!; while [ $(readlink /proc/$p/ns/user) = $(readlink /proc/self/ns/user) ]; do sleep 0.01; done; \
         echo 0 2000000 1500 >/proc/$p/uid_map; echo 0 2000000 1500 >/proc/$p/gid_map; {} kill $p",
        run("auto:size=1000", "cat /proc/self/uid_map")
    );
    let said = script("containers:2000000:4000\\n", &held);
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["0", "2001500", "1000"], "{said}");
    // from a name service, which getsubids(1) asks
    let service = format!(
        "mkdir {0}/tools; printf '#!/bin/sh\\necho \"0: containers 5000000 3000\"\\n' >{0}/tools/getsubids; chmod 755 {0}/tools/getsubids; \
         echo subid: sss >{0}/nss; cat /etc/nsswitch.conf >>{0}/nss; mount --bind {0}/nss /etc/nsswitch.conf; export PATH={0}/tools:$PATH; {1}",
        host.path("").display(),
        run("auto:size=1000", "cat /proc/self/uid_map")
    );
    let said = script("containers:2000000:4000\\n", &service);
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["0", "5000000", "1000"], "{said}");
    // an ordinary user's ranges: by name and by number, the one after the other
    let user = format!(
        "echo ranger:x:4322:4322::/tmp:/bin/sh >{0}/passwd; cat /etc/passwd >>{0}/passwd; mount --bind {0}/passwd /etc/passwd; chmod 777 {0}; \
         exec setpriv --reuid=4322 --regid=4322 --clear-groups env HOME={0} {1} --root {0}/r --runroot {0}/rr unshare cat /proc/self/uid_map",
        host.path("").display(),
        crate::host::binary().display()
    );
    let said = script("ranger:500000:100\\n4322:700000:100\\n", &user);
    let shown: Vec<Vec<&str>> = said.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(shown, [["0", "4322", "1"], ["1", "500000", "100"], ["101", "700000", "100"]], "{said}");
}

/// One group of the host, given to its user as a subordinate id, has a number of its own inside.
#[test]
fn a_group_of_the_host_by_name() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let dir = host.path("").display().to_string();
    let run = format!("{} --root {dir}/r --runroot {dir}/rr", crate::host::binary().display());
    let text = format!(
        "set -e; cd {dir}; chmod 777 .; chmod 644 image.tar; printf 'ranger:500000:65536\\nranger:2000:1\\n' >subid; mount --bind subid /etc/subuid; mount --bind subid /etc/subgid; \
         echo ranger:x:4324:4324::/tmp:/bin/sh >passwd; cat /etc/passwd >>passwd; mount --bind passwd /etc/passwd; \
         exec setpriv --reuid=4324 --regid=4324 --groups 2000 env HOME={dir} CONTAINERS_CONF=/dev/null sh -ec '{run} import -q image.tar x >/dev/null; \
         {run} run --rm --network=none --gidmap=+g100000:@2000 --group-add keep-groups x /bin/id -G; {run} unshare rm -rf {dir}/r'"
    );
    let output = std::process::Command::new("unshare").args(["-m", "sh", "-c", &text]).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.trim(), "0 100000");
}

#[test]
fn as_many_lines_as_the_kernel_takes() {
    let host = Host::new();
    let lines =
        |count: u32| (0..count).map(|n| format!("--uidmap={}:{}:1", n * 2, n + 1)).collect::<Vec<_>>();
    let many = lines(300);
    let flags: Vec<&str> = many.iter().map(String::as_str).chain(["--gidmap=0:1:1000"]).collect();
    assert_eq!(host.sh(&flags, "wc -l </proc/self/uid_map").ok(), "300");
    let many = lines(341);
    let flags: Vec<&str> = many.iter().map(String::as_str).chain(["--gidmap=0:1:1000"]).collect();
    host.sh(&flags, "true").fails(125, "340");
}

#[test]
fn one_id_is_enough() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let dir = host.path("").display().to_string();
    let tar = host.path("image.tar").display().to_string();
    let run = format!("{} --root {dir}/r --runroot {dir}/rr", crate::host::binary().display());
    // (a user of whom /etc/subuid knows nothing)
    let text = format!(
        "chmod 777 {dir}; chmod 644 {tar}; exec setpriv --reuid=4323 --regid=4323 --clear-groups env HOME={dir} CONTAINERS_CONF=/dev/null sh -ec '{run} import -q {tar} x >/dev/null; \
         {run} run --rm --network=none x /bin/id -u; {run} run --rm --network=none --userns=keep-id x /bin/id -u; {run} unshare rm -rf {dir}/r'"
    );
    let output = std::process::Command::new("sh").args(["-c", &text]).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("0\n4323\n"), "{said}");
}
