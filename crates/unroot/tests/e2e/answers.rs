//! What users of other engines paste into issue trackers, provoked: the answer names what failed, for whom, and the cure.
//! (More of them are in doctor.rs, userns.rs, image_store.rs, chaos.rs and registry.rs.)

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::doctor::broken;
use crate::host::{Host, IMAGE, binary, first_subid, host_name_of, is_root, uid};

/// Writes a layer of one file with an owner.
fn layer(host: &Host, uid: u64, gid: u64) -> String {
    fs::create_dir_all(host.path("tree")).unwrap();
    fs::write(host.path("tree/file"), "").unwrap();
    let tar = host.path(&format!("{uid}-{gid}.tar"));
    let owner = format!("--owner={uid}");
    let group = format!("--group={gid}");
    let mut command = Command::new("tar");
    command.arg("-C").arg(host.path("tree")).args([&owner, &group, "--numeric-owner", "-cf"]).arg(&tar);
    assert!(command.arg("file").status().unwrap().success());
    tar.display().to_string()
}

/// "potentially insufficient UIDs or GIDs available in user namespace": the cure has room for the very id.
#[test]
fn an_id_that_is_too_high() {
    if is_root() {
        return; // all ids are root's
    }
    let host = Host::empty();
    for (id, much) in [(70_000, false), (172_761_424, true), (4_294_967_290_u64, true)] {
        let said = host.unroot(["import", "-q", &layer(&host, id, 0), "x"]);
        let said = said.fails(125, &format!("/file belongs to uid {id}, which has no id on the host"));
        assert!(said.contains("0-65536"), "{said}");
        match id {
            4_294_967_290 => assert!(said.contains("no host has so many ids"), "{said}"),
            _ => {
                let range = said.split("--add-subuids ").nth(1).unwrap().split(' ').next().unwrap();
                let (first, last) = range.split_once('-').unwrap();
                let count = last.parse::<u64>().unwrap() - first.parse::<u64>().unwrap() + 1;
                assert!(65537 + count > id, "{said}");
                assert_eq!(said.contains("an accident"), much, "{said}");
            }
        }
    }
}

/// "setup user: invalid argument"
#[test]
fn a_user_outside_of_the_map() {
    let host = Host::new();
    let said = host.sh(&["--uidmap=0:1:500", "--user=900"], "true").fails(126, "uid 900 of the container");
    assert!(said.contains("has uids 0-499") && said.contains("hint: a map that has it: --uidmap"), "{said}");
    if !is_root() {
        let first = first_subid("/etc/subuid");
        let said = host.sh(&["--user=70000"], "true").fails(126, "uid 70000 of the container");
        assert!(said.contains(&format!("{first}-{}", first + 65535)), "{said}");
        assert!(said.contains("hint: as root: usermod --add-subuids"), "{said}");
        host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sleep", "100"]).ok();
        let said = host.unroot(["exec", "-u", "70000", "c", "true"]).fails(126, "uid 70000 of the container");
        assert!(said.contains("hint: as root: usermod --add-subuids"), "{said}");
    }
}

/// "Permission denied" in a bind mount of a container whose user is not root: whose it is, and the flag for it.
#[test]
fn a_directory_that_the_containers_user_may_not_use() {
    let host = Host::new();
    let dir = host.path("data");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let bind = format!("{}:/data", dir.display());
    let touch = |flags: &[&str]| host.sh(&[&["-v", &bind], flags].concat(), "touch /data/x");
    let said = touch(&["-u", "app"]).fails(1, "uid 1000 of the container, ");
    assert!(said.contains(&format!("may not write to {}", dir.display())), "{said}");
    match is_root() {
        true => assert!(said.contains("setfacl -m u:1000:rwx"), "{said}"),
        false => {
            let outside = first_subid("/etc/subuid") + 999;
            assert!(said.contains(&format!("{outside} on the host")), "{said}");
            assert!(said.contains(&format!("(of {}, mode 755)", host_name_of(uid()).unwrap())), "{said}");
            // the cure is one
            assert!(said.contains("--userns=keep-id:uid=1000,gid=1000"), "{said}");
            touch(&["-u", "app", "--userns=keep-id:uid=1000,gid=1000"]).ok();
        }
    }
    // who may write there, or fails for another reason, is told nothing
    assert!(!touch(&["-u", "app", "--workdir=/nothere"]).err.contains("hint: uid"));
    let other = host.sh(&["-u", "app", "-v", &format!("{}:/data:ro", dir.display())], "touch /data/x");
    assert!(!other.err.contains("hint: "), "{}", other.err);
    assert!(!host.sh(&["-v", &bind], "exit 3").err.contains("hint: "));
    let own = "--uidmap=0:1:2000";
    if is_root() {
        let said = touch(&[own, "--gidmap=0:1:2000"]).fails(1, "uid 0 of the container, 1 on the host");
        assert!(said.contains("of uid 0, mode 755"), "{said}");
    }
}

/// "permission denied" of a program whose filesystem is mounted noexec.
#[test]
fn a_filesystem_without_programs() {
    let host = Host::new();
    host.unroot(["volume", "create", "-o", "type=tmpfs", "-o", "o=noexec", "-o", "device=tmpfs", "v"]).ok();
    let program = "cp /bin/busybox /x/echo; exec /x/echo hello";
    host.sh(&["-v", "v:/x"], program).fails(126, "Permission denied");
    let keeper = ["run", "-d", "--name", "k", "--network=none", "-v", "v:/x", IMAGE, "sleep", "100"];
    host.unroot(keeper).ok();
    host.unroot(["exec", "k", "cp", "/bin/busybox", "/x/echo"]).ok();
    let said = host.unroot(["exec", "k", "/x/echo", "hello"]).fails(126, "OCI permission denied");
    assert!(
        said.contains("mounted noexec") && said.contains("hint: as root: mount -o remount,exec"),
        "{said}"
    );
    let said = host.sh(&["-v", "v:/x", "--entrypoint=/x/echo"], "hello").err;
    assert!(said.contains("mounted noexec"), "{said}");
}

/// "Connection reset by peer" on a published port: the program listens on the loopback of its namespace.
#[test]
fn a_listener_that_nobody_reaches() {
    let host = Host::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let publish = format!("{port}:8080");
    let start = ["run", "-d", "--name", "web", "--network=pasta", "-p", &publish, IMAGE];
    host.unroot(start.iter().chain(&["httpd", "-f", "-p", "127.0.0.1:8080"])).ok();
    let said = (0..50).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let said = host.unroot(["doctor", "network"]).out;
        said.contains("of web, where pid 1 (httpd) listens on 127.0.0.1 only").then_some(said)
    });
    let said = said.unwrap_or_else(|| panic!("{:?}", host.unroot(["doctor", "-a", "network"])));
    assert!(said.contains("have it listen on 0.0.0.0:8080"), "{said}");
    host.unroot(["rm", "-f", "-t0", "web"]).ok();
    host.unroot(start.iter().chain(&["httpd", "-f", "-p", "8080"])).ok();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let said = host.unroot(["doctor", "network"]).out;
    assert!(!said.contains("web, where"), "{said}");
}

/// `:U` on files of somebody else: which, and what is wrong with it.
#[test]
fn files_that_cannot_change_owners() {
    if !is_root() {
        return; // (takes a file of root's in a directory of the user's)
    }
    let host = Host::new();
    let tar = host.path("image.tar").display().to_string();
    fs::set_permissions(&tar, fs::Permissions::from_mode(0o644)).unwrap();
    let before =
        "mkdir -p home/data/below; touch home/data/below/file; chown 4321:4321 home/data home/data/below";
    let (code, said) = broken(&host, before, &format!("import -q --change CMD=/bin/true {tar} x"));
    assert_eq!(code, 0, "{said}");
    let dir = host.path("home/data").display().to_string();
    let (code, said) = broken(&host, before, &format!("run --rm --network=none -u 5 -v {dir}:/d:U x"));
    assert!(
        code == 125
            && said.contains(&format!("operation not permitted for {dir}/below/file"))
            && said.contains("its owner is not of your ids")
            && said.contains(&format!("chown -R nobody-of-the-tests: {dir}")),
        "{said}"
    );
}

/// "write to uid_map failed: Operation not permitted" in a container whose own map is too short.
#[test]
fn the_map_of_what_is_around_is_too_short() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    fs::set_permissions(host.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    let before = "unshare -U sleep 20 >/dev/null 2>&1 </dev/null & p=$!; \
         while [ $(readlink /proc/$p/ns/user) = $(readlink /proc/self/ns/user) ]; do sleep 0.01; done; \
         echo 0 0 65536 >/proc/$p/uid_map; echo 0 0 65536 >/proc/$p/gid_map; mkdir -p bin; \
         echo \"exec nsenter -t $p -U -S 0 -G 0 /usr/bin/setpriv \\\"\\$@\\\"\" >bin/setpriv; chmod 755 bin/setpriv; PATH=$PWD/bin:$PATH; export EXTRA=\"timeout 20\"";
    let (code, said) = broken(&host, before, "unshare true");
    assert!(
        code == 125
            && said.contains("write to uid_map failed")
            && said.contains("the user namespace around this has the ids 0-65535 only, not 300000-365535"),
        "{said}"
    );
    let (code, said) = broken(&host, before, "doctor ids");
    assert!(code == 1 && said.contains("has not the ids 300000-365535"), "{said}");
}

/// "fork/exec /proc/self/exe: operation not permitted" in a container whose filter forbids namespaces.
#[test]
fn a_filter_forbids_namespaces() {
    let host = Host::new();
    let program = format!("{}:/unroot:ro", binary().display());
    let outer = |words: &[&str]| {
        let outer = ["run", "--rm", "--network=none", "-u", "4321", "-v", &program, "--rootfs", "/:O"];
        host.unroot(outer.iter().chain(&["/unroot", "--root", "/tmp/a", "--runroot", "/tmp/b"]).chain(words))
    };
    let said = outer(&["unshare", "true"]).fails(125, "creating the user namespace");
    assert!(said.contains("no sysctl forbids it: a seccomp filter of an outer container"), "{said}");
    let said = outer(&["doctor", "namespaces"]);
    assert!(
        said.code == 1
            && said.out.contains("--security-opt seccomp=unconfined")
            && said.out.contains("seccomp filters"),
        "{said:?}"
    );
}

/// Edited ranges hold for the next container, and those that run go on with theirs: nothing to migrate or to reset, and
/// no stale namespace ("cannot set user namespace", "try resetting the pause process").
#[test]
fn ranges_that_were_edited() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let tar = host.path("image.tar").display().to_string();
    fs::set_permissions(&tar, fs::Permissions::from_mode(0o644)).unwrap();
    let dir = host.path("").display().to_string();
    let run = format!("{} --root {dir}home/r --runroot {dir}home/rr", binary().display());
    let script = host.path("script");
    let text = format!(
        "set -e\n{run} import -q --change CMD=/bin/true {tar} x >/dev/null\n\
         {run} run -d --name old --network=none x sleep 100 >/dev/null\n\
         printf 'nobody-of-the-tests:700000:70000\\n' >/etc/subuid\n\
         printf 'nobody-of-the-tests:700000:70000\\n' >/etc/subgid\n\
         {run} run -d --name new --network=none x sleep 100 >/dev/null\n\
         {run} run --rm --network=none x cat /proc/self/uid_map\n\
         {run} exec old cat /proc/self/uid_map\n\
         {run} ps --format '{{{{.Names}}}} {{{{.IDMap}}}}'\n\
         {run} exec -u 69000 new id -u\n{run} rm -fa -t0 >/dev/null\n\
         {run} ps -aq\n{run} unshare rm -rf {dir}home/r\n"
    );
    fs::write(&script, text).unwrap();
    // (the files are the user's own to edit here)
    let shell = format!("chmod 666 subid; export EXTRA='sh {}'", script.display());
    let (code, said) = broken(&host, &shell, "");
    assert_eq!(code, 0, "{said}");
    let lines: Vec<Vec<&str>> = said.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["0", "4321", "1"], "{said}");
    assert_eq!(lines[1], ["1", "700000", "70000"], "{said}");
    assert_eq!(lines[2], ["0", "4321", "1"], "{said}");
    assert_eq!(lines[3], ["1", "300000", "65536"], "{said}");
    assert!(
        said.contains("old 0:4321:1,1:300000:65536") && said.contains("new 0:4321:1,1:700000:70000"),
        "{said}"
    );
    assert_eq!(lines.last().unwrap(), &["69000"], "{said}");
}

/// "the requested cgroup controller cpu is not available": never dropped in silence.
#[test]
fn limits_that_are_not_delegated() {
    let host = Host::new();
    for (flag, name) in
        [("--cpus=0.5", "cpu.max"), ("--pids-limit=50", "pids.max"), ("--cpu-shares=100", "cpu")]
    {
        let done = host.sh(&[flag], "true");
        let hinted = done.err.contains(name) && done.err.contains("hint: ") && done.err.contains("delegate");
        assert!(done.code == 0 || (done.code == 125 && hinted), "{flag}: {done:?}");
    }
    if !is_root() {
        // (where the tests run no user has a group of its own)
        let done = host.sh(&["--cpus=0.5"], "true");
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        assert!(done.code == 125 || own.contains("user.slice"), "{done:?}");
    }
}
