//! What containers get by configuration: containers.conf, mounts.conf, users of the host, systemd's needs.

use std::fs;

use crate::host::{Done, Host, IMAGE, host_name_of, uid};

fn with_conf(host: &Host, conf: &str, args: &[&str]) -> Done {
    let file = host.path("containers.conf");
    fs::write(&file, conf).unwrap();
    host.run(host.command(["run", "--rm", "--network=none"].iter().chain(args)).env("CONTAINERS_CONF", &file))
}

#[test]
fn defaults_of_flags() {
    let host = Host::new();
    let conf = "[containers]\nenv=['A=conf','PATH=/bin']\nread_only=true\ndefault_ulimits=['nofile=77:88']\n\
        default_capabilities=['CHOWN']\numask='0077'\nannotations=['x=y']\nunknown_key=1\n[other]\nz=1";
    let shown = "echo $A $(umask) $(ulimit -n) $(ulimit -Hn); grep CapEff /proc/self/status; touch /file 2>/dev/null || echo sealed";
    let out = with_conf(&host, conf, &[IMAGE, "sh", "-c", shown]).ok();
    assert_eq!(out, "conf 0077 77 88\nCapEff:\t0000000000000001\nsealed");
    let given = [
        "-e",
        "A=flag",
        "--umask=22",
        "--read-only=false",
        "--ulimit=nofile=99:100",
        IMAGE,
        "sh",
        "-c",
        shown,
    ];
    let out = with_conf(&host, conf, &given).ok();
    assert_eq!(out, "flag 0022 99 100\nCapEff:\t0000000000000001");
}

#[test]
fn what_is_wrong_in_it_is_told() {
    let host = Host::new();
    with_conf(&host, "[containers", &[IMAGE, "true"]).fails(125, "containers.conf");
    with_conf(&host, "[containers]\ndefault_ulimits=['nofile']", &[IMAGE, "true"]).fails(125, "ulimit");
    with_conf(&host, "[containers]\nread_only={a=1}", &[IMAGE, "true"]);
    with_conf(
        &host,
        "[engine]\nruntime='unroot'\n[engine.runtimes_flags]\nunroot=['nosuchflag']",
        &[IMAGE, "true"],
    )
    .fails(126, "nosuchflag");
}

#[test]
fn overrides_come_last() {
    let host = Host::new();
    let (first, last) = (host.path("first.conf"), host.path("last.conf"));
    fs::write(&first, "[containers]\nenv=['A=1','B=1']").unwrap();
    fs::write(&last, "[containers]\nenv=['B=2',{append=true}]").unwrap();
    let mut command = host.command(["run", "--rm", "--network=none", IMAGE, "sh", "-c", "echo $A $B"]);
    command.env("CONTAINERS_CONF", &first).env("CONTAINERS_CONF_OVERRIDE", &last);
    assert_eq!(host.run(&mut command).ok(), "1 2");
}

#[test]
fn modules_come_between() {
    let host = Host::new();
    let modules = host.path("config/containers/containers.conf.modules");
    fs::create_dir_all(&modules).unwrap();
    fs::write(host.path("first.conf"), "[containers]\nenv=['A=1','B=1','C=1']").unwrap();
    fs::write(modules.join("more"), "[containers]\nenv=['A=1','B=2','C=2']").unwrap();
    fs::write(host.path("last.conf"), "[containers]\nenv=['C=3',{append=true}]").unwrap();
    let run = |module: &str| {
        let words = ["--module", module, "run", "--rm", "--network=none", IMAGE, "sh", "-c", "echo $A $B $C"];
        let mut command = host.command(words);
        command.env("CONTAINERS_CONF", host.path("first.conf"));
        command.env("CONTAINERS_CONF_OVERRIDE", host.path("last.conf"));
        host.run(command.env("XDG_CONFIG_HOME", host.path("config")))
    };
    assert_eq!(run("more").ok(), "1 2 3");
    run("nosuch").fails(1, "could not resolve module");
}

#[test]
fn who_makes_control_groups_is_checked() {
    let host = Host::new();
    let info = ["info", "--format", "{{.Host.CgroupManager}}"];
    let with = |manager: &str| {
        host.unroot([format!("--cgroup-manager={manager}")].iter().map(String::as_str).chain(info))
    };
    assert_eq!(with("cgroupfs").ok(), "cgroupfs");
    with("nosuch").fails(125, "it is systemd or cgroupfs");
    if !std::path::Path::new("/run/systemd/system").exists() {
        with("systemd").fails(125, "no systemd");
    }
}

#[test]
fn default_mounts_are_copies() {
    let host = Host::new();
    let (list, secrets) = (host.path("mounts.conf"), host.path("secrets"));
    fs::create_dir_all(secrets.join("deep")).unwrap();
    fs::write(secrets.join("deep/file"), "secret").unwrap();
    fs::write(&list, format!("{}:/run/secrets\n/nosuch/dir\n", secrets.display())).unwrap();
    let flag = format!("--default-mounts-file={}", list.display());
    let out = host.sh(&[&flag], "cat /run/secrets/deep/file; echo changed > /run/secrets/deep/file").ok();
    assert_eq!(out, "secret");
    assert_eq!(fs::read_to_string(secrets.join("deep/file")).unwrap(), "secret");
    assert_eq!(host.sh(&["--default-mounts-file=/nosuch/file"], "echo ok").ok(), "ok");
}

#[test]
fn users_of_the_host() {
    let host = Host::new();
    let name = host_name_of(uid()).unwrap();
    if uid() != 0 {
        let flags = [format!("--hostuser={name}"), format!("--user={name}")];
        assert_eq!(
            host.sh(&[&flags[0], &flags[1]], &format!("id -u; grep -c ^{name}: /etc/passwd")).ok(),
            format!("{}\n1", uid())
        );
    }
    host.sh(&["--hostuser=no-such-user-here"], "true").fails(126, "no-such-user-here");
}

#[test]
fn systemd_gets_its_directories() {
    let host = Host::new();
    let shown = "awk '$5 ~ /^\\/(run|tmp|var\\/log\\/journal)$/ {print $5}' /proc/self/mountinfo | sort; echo ${#container_uuid}; stat -c %a /run";
    let out = host.sh(&["--systemd=always"], shown).ok();
    assert_eq!(out, "/run\n/tmp\n/var/log/journal\n32\n755");
    assert_eq!(host.sh(&[], shown).ok().lines().next(), Some("0"));
    host.unroot(["create", "--name", "c", "--systemd=always", IMAGE, "true"]).ok();
    assert_eq!(host.unroot(["inspect", "--format", "{{.Config.StopSignal}}", "c"]).ok(), "SIGRTMIN+3");
    host.sh(&["--systemd=maybe"], "true").fails(125, "true, false or always");
}

#[test]
fn sealed_containers_have_nothing_to_write_to() {
    let host = Host::new();
    let script = "for f in /tmp/a /dev/b /dev/shm/c /run/d /e; do (: > $f) 2>/dev/null && echo $f; done; echo x > /dev/null && echo null";
    assert_eq!(host.sh(&["--read-only", "--read-only-tmpfs=false"], script).ok(), "null");
    assert_eq!(host.sh(&["--read-only"], script).ok(), "/tmp/a\n/dev/b\n/dev/shm/c\n/run/d\nnull");
}

#[test]
fn merged_variables() {
    let host = Host::new();
    assert_eq!(host.sh(&["-e", "A=1", "--env-merge", "A=${A}:2$A"], "echo $A").ok(), "1:21");
}

#[test]
fn hooks_run_at_their_stages() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = Host::new();
    let dir = host.path("hooks");
    fs::create_dir_all(&dir).unwrap();
    let (program, log) = (dir.join("hook.sh"), dir.join("log"));
    let script =
        format!("#!/bin/sh\nprintf '%s ' \"$1\" $(cat | tr ',' '\\n' | grep status) >> {}\n", log.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let write = |name: &str, when: &str, stages: &str| {
        let hook = format!(
            r#"{{"version":"1.0.0","hook":{{"path":"{}","args":["hook","{name}"],"env":["PATH=/bin:/usr/bin"]}},"when":{when},"stages":{stages}}}"#,
            program.display()
        );
        fs::write(dir.join(format!("{name}.json")), hook).unwrap();
    };
    write("a", r#"{"always":true}"#, r#"["prestart","poststart","poststop"]"#);
    write("b", r#"{"annotations":{"^x$":"^[yz]$"}}"#, r#"["prestart"]"#);
    write("c", r#"{"commands":["^/bin/nosuch$"]}"#, r#"["prestart"]"#);
    let flag = format!("--hooks-dir={}", dir.display());
    host.sh(&[&flag, "--annotation=x=y"], "true").ok();
    let said = fs::read_to_string(&log).unwrap();
    let wanted = [("a", "created"), ("b", "created"), ("a", "running"), ("a", "stopped")];
    let wanted: String = wanted.map(|(name, status)| format!("{name} \"status\":\"{status}\" ")).concat();
    assert_eq!(said, wanted);
    write("d", r#"{"always":true}"#, r#"["startContainer"]"#);
    host.sh(&[&flag], "true").fails(125, "startContainer");
    fs::write(&program, "#!/bin/sh\nexit 3").unwrap();
    write("d", r#"{"always":true}"#, r#"["prestart"]"#);
    host.sh(&[&flag], "true").fails(125, "hook.sh");
}
