//! `doctor`, and what commands say that fail for a reason that it knows: each is provoked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::host::{Host, IMAGE, binary, is_root};

/// Runs the binary by a script: as root in a mount namespace of its own, where files of the host can be others.
pub fn broken(host: &Host, before: &str, args: &str) -> (i32, String) {
    let user = "nobody-of-the-tests";
    let dir = host.path("");
    let script = format!(
        "set -e; cd {0}; chmod 777 .; echo {user}:x:4321:4321::{0}/home:/bin/sh >>passwd; mkdir -p home; chown 4321:4321 home; \
         cat /etc/passwd passwd >all; mount --bind all /etc/passwd; printf '{user}:300000:65536\\n' >subid; \
         mount --bind subid /etc/subuid; mount --bind subid /etc/subgid; {before}; \
         exec setpriv --reuid=4321 --regid=4321 --clear-groups env -i HOME={0}/home PATH=/usr/sbin:/usr/bin:/sbin:/bin CONTAINERS_CONF=/dev/null \
         sh -c 'exec $2 {1} --root {0}/home/root --runroot {0}/home/run {args}' x x \"$EXTRA\"",
        dir.display(),
        binary().display(),
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn a_host_where_all_is_well() {
    let host = Host::new();
    let json: serde_json::Value =
        serde_json::from_str(&host.unroot(["doctor", "--format", "json"]).out).unwrap();
    let found = json.as_array().unwrap();
    let broken: Vec<_> = found.iter().filter(|f| f["health"] == "broken").collect();
    assert!(broken.is_empty(), "{broken:?}");
    for group in ["ids", "namespaces", "storage", "network", "registries"] {
        assert!(found.iter().any(|f| f["group"] == group), "{group}");
    }
    let text = host.unroot(["doctor", "-a", "storage"]).ok();
    assert!(text.contains("it has user attributes") && !text.contains("namespaces"), "{text}");
    host.unroot(["doctor", "weather"]).fails(125, "unknown group");
    if !is_root() {
        host.unroot(["doctor", "--fix"]).fails(125, "which takes root");
    }
    // (an error that has nothing to do with the host gets no advice)
    let plain = host.unroot(["run", "--rm", "--network=none", IMAGE, "nothere"]);
    assert!(!plain.err.contains("hint: "), "{}", plain.err);
}

#[test]
fn no_ranges() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let none = "printf 'fred:400000:65536\\n' >other; mount --bind other /etc/subuid; mount --bind other /etc/subgid";
    let (code, text) = broken(&host, none, "doctor ids");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("nobody-of-the-tests has no subordinate ids"), "{text}");
    assert!(
        text.contains("usermod --add-subuids 465536-531071 --add-subgids 465536-531071 nobody-of-the-tests"),
        "{text}"
    );
    let save = format!("{} --root {1}/root --runroot {1}/run", binary().display(), host.path("").display());
    let tar = host.path("image.tar").display().to_string();
    let import = format!("{none}; true {save}");
    let (code, text) = broken(&host, &import, &format!("import -q {tar} x"));
    assert_eq!(code, 0, "{text}");
    // an image with another owner: the entry, the id, the range and the cure
    let owned = host.path("owned.tar");
    fs::create_dir_all(host.path("tree")).unwrap();
    fs::write(host.path("tree/shadow"), "").unwrap();
    let made = Command::new("tar")
        .arg("-C")
        .arg(host.path("tree"))
        .args(["--owner=0", "--group=42", "--numeric-owner", "-cf"])
        .arg(&owned)
        .arg("shadow")
        .status();
    assert!(made.unwrap().success());
    let (code, text) = broken(&host, none, &format!("import -q {} y", owned.display()));
    assert_eq!(code, 125, "{text}");
    assert!(
        text.contains("/shadow belongs to gid 42") && text.contains("hint: ") && text.contains("usermod"),
        "{text}"
    );
}

#[test]
fn helpers_without_privilege() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let cases = [
        (
            "cp /usr/bin/newuidmap copy; chmod 755 copy; mount --bind copy /usr/bin/newuidmap",
            "newuidmap is neither setuid root",
            "chmod u+s /usr/bin/newuidmap",
        ),
        ("mount --bind /dev/null /usr/bin/newuidmap", "newuidmap is not installed", "apt install uidmap"),
        (
            "mount --bind /usr/bin /usr/bin; mount -o remount,bind,nosuid /usr/bin",
            "mounted nosuid",
            "remount,suid",
        ),
        ("export EXTRA='setpriv --no-new-privs'", "no_new_privs is set", "NoNewPrivileges=no"),
    ];
    for (before, text, cure) in cases {
        let (code, said) = broken(&host, before, "doctor ids");
        assert!(code == 1 && said.contains(text) && said.contains(cure), "{before}: {said}");
        let (code, said) = broken(&host, before, "unshare true");
        let works_with_one = before.contains("/dev/null");
        assert!(
            works_with_one || (code == 125 && said.contains("hint: ") && said.contains(cure)),
            "{before}: {said}"
        );
    }
}

#[test]
fn gates_before_namespaces() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    // (a user namespace has a limit of its own on those below it)
    let script = format!(
        "echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --reuid=1 --regid=1 --clear-groups env HOME=/tmp {} --root {1}/a --runroot {1}/b",
        binary().display(),
        host.path("").display()
    );
    std::fs::set_permissions(host.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    let run = |args: &str| {
        let around = format!(
            "unshare -U sleep 20 & p=$!; while [ $(readlink /proc/$p/ns/user) = $(readlink /proc/self/ns/user) ]; do sleep 0.01; done; \
             echo 0 0 65536 >/proc/$p/uid_map; echo 0 0 65536 >/proc/$p/gid_map; nsenter -t $p -U -S 0 -G 0 sh -c '{script} {args}'; code=$?; kill $p; exit $code"
        );
        let output = Command::new("sh").args(["-c", &around]).output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), text)
    };
    let (code, text) = run("doctor namespaces");
    assert!(
        code == 1
            && text.contains("user.max_user_namespaces=0")
            && text.contains("sysctl -w user.max_user_namespaces=15000"),
        "{text}"
    );
    let (code, text) = run("unshare true");
    assert!(code == 125 && text.contains("sysctl -w user.max_user_namespaces=15000"), "{text}");
}

#[test]
fn a_store_that_cannot_be() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let remount = |option: &str| format!("mount --bind home home; mount -o remount,bind,{option} home");
    let (code, said) = broken(&host, &remount("ro"), "doctor storage");
    assert!(code == 1 && said.contains("is mounted ro"), "{said}");
    let (code, said) = broken(&host, &remount("noexec"), "doctor storage");
    assert!(code == 0 && said.contains("programs in volumes"), "{said}");
    let (code, said) = broken(
        &host,
        "mkdir l u w; mount -t overlay -o lowerdir=l,upperdir=u,workdir=w o home; chown 4321 home",
        "doctor storage",
    );
    assert!(code == 1 && said.contains("on an overlay") && said.contains("--root DIR"), "{said}");
}

#[test]
fn what_is_configured_for_registries() {
    let host = Host::new();
    let file = host.path("auth.json");
    fs::write(&file, "{").unwrap();
    let done = host.run(host.command(["doctor", "registries"]).env("REGISTRY_AUTH_FILE", &file));
    assert!(done.code == 1 && done.out.contains("is no JSON"), "{done:?}");
    fs::write(&file, r#"{"auths": {"q.io": {"auth": "eA=="}}, "credsStore": "nothere"}"#).unwrap();
    let done = host.run(host.command(["doctor", "registries"]).env("REGISTRY_AUTH_FILE", &file));
    assert!(
        done.out.contains("others can read the passwords") && done.out.contains("docker-credential-nothere"),
        "{done:?}"
    );
}

/// What users paste into issue trackers, provoked: the answer names the cause and the cure.
#[test]
fn commands_that_fail_say_why() {
    if !is_root() {
        let host = Host::new();
        let first: u32 = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        if first > 7 {
            let said = host.unroot(["run", "--rm", "-p", "7:80", IMAGE, "true"]).err;
            assert!(
                said.contains(&format!("ports below {first} are for root alone"))
                    && said.contains("sysctl -w net.ipv4.ip_unprivileged_port_start=7"),
                "{said}"
            );
        }
        let said = host
            .sh(&["--user", "943802666"], "true")
            .fails(126, "uid 943802666 of the container has no id on the host");
        assert!(said.contains("0-65536"), "{said}");
        return;
    }
    let host = Host::new();
    let tar = host.path("image.tar").display().to_string();
    fs::set_permissions(&tar, fs::Permissions::from_mode(0o644)).unwrap();
    let run = |before: &str, flags: &str| {
        let (code, said) = broken(&host, before, &format!("import -q --change CMD=/bin/true {tar} x"));
        assert_eq!(code, 0, "{said}");
        broken(&host, before, &format!("run --rm {flags} x"))
    };
    // 'overlay' is not supported over ...
    let over = "mkdir -p l u w; mount -t overlay -o lowerdir=l,upperdir=u,workdir=w o home; chown 4321 home";
    let (code, said) = run(over, "--network=none");
    assert!(
        code == 125
            && said.contains("hint: ")
            && said.contains("overlays have no upper directory on another overlay"),
        "{said}"
    );
    // mount /proc to /proc: Operation not permitted
    let masked = "mount --bind /dev/null /proc/uptime";
    let (code, said) = run(masked, "--network=none");
    assert!(
        code == 125 && said.contains("parts of /proc are masked here") && said.contains("/proc/uptime"),
        "{said}"
    );
    // no session: /run/user/ID is not there, or somebody else's
    for before in
        ["export EXTRA='env XDG_RUNTIME_DIR=/run/user/4321'", "export EXTRA='env XDG_RUNTIME_DIR=/root'"]
    {
        let (code, said) = run(before, "--network=none");
        assert_eq!(code, 0, "{said}");
    }
    // no pasta
    let (code, said) = run("mount --bind /dev/null /usr/bin/pasta", "");
    assert!(code == 125 && said.contains("could not find pasta") && said.contains("package passt"), "{said}");
    // container uses ID mappings, but doesn't map UID
    let (code, said) = run("true", "--network=none --uidmap 0:1:500 --user 9999");
    assert!(code == 126 && said.contains("uid 9999") && said.contains("0-499"), "{said}");
}

#[test]
fn root_has_it_cured() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let dir = host.path("").display().to_string();
    // (settings of the network are a network namespace's own; what is kept for the next boot is kept in a place of the test's)
    let text = format!(
        "set -e; cd {dir}; chmod 777 .; echo cured:x:4325:4325::{dir}/home:/bin/sh >passwd; mkdir home; chown 4325 home; cat /etc/passwd >>passwd; \
         mount --bind passwd /etc/passwd; printf 'cured:600000:65536\\n' >subid; mount --bind subid /etc/subuid; mount --bind subid /etc/subgid; \
         mount -t tmpfs none /etc/sysctl.d; {0} doctor --user cured --fix network; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /etc/sysctl.d/60-unroot.conf; \
         echo again; {0} doctor --user cured network",
        binary().display()
    );
    let output = Command::new("unshare").args(["-m", "-n", "sh", "-c", &text]).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("\n80\n") && said.contains("net.ipv4.ip_unprivileged_port_start=80\n"), "{said}");
    let after = said.split("again").nth(1).unwrap();
    assert!(!after.contains("cannot be published") && !after.contains("ping does not"), "{said}");
    let host = Host::empty();
    host.unroot(["doctor", "--user", "no-such-user-here"]).fails(125, "no such user");
}

/// Ids are given, and a helper gets its privilege back: in an /etc and with a helper that are the test's own.
#[test]
fn root_has_ids_given() {
    if !is_root() {
        return;
    }
    let host = Host::empty();
    let text = format!(
        "set -e; cd {0}; mkdir t; mount -t tmpfs none t; cd t; mkdir u w home; chown 4326 home; \
         mount -t overlay -o lowerdir=/etc,upperdir=u,workdir=w none /etc; \
         echo cured:x:4326:4326::$PWD/home:/bin/sh >>/etc/passwd; echo 'cured:!:20000:0:99999:7:::' >>/etc/shadow; \
         cp /usr/bin/newuidmap helper; chmod 755 helper; mount --bind helper /usr/bin/newuidmap; \
         {1} doctor --user cured ids && exit 9; {1} doctor --user cured --fix ids; grep -h ^cured: /etc/subuid /etc/subgid; \
         stat -c %a /usr/bin/newuidmap; echo again; {1} doctor --user cured ids",
        host.path("").display(),
        binary().display()
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &text]).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("cured has no subordinate ids") && said.contains("chmod u+s"), "{said}");
    assert_eq!(said.matches("\ncured:").count(), 2, "{said}");
    assert!(said.contains("\n4755\n"), "{said}");
    let own = std::fs::read_to_string("/etc/subuid").unwrap();
    assert!(!own.contains("cured:"), "{own}");
}
