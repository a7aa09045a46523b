//! events: what is told, of whom, and to whom.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::host::{Host, IMAGE, host_name_of, uid};

fn events(host: &Host, flags: &[&str]) -> Vec<String> {
    let all = host.unroot(["events", "--stream=false"].iter().chain(flags)).ok();
    all.lines().map(str::to_string).collect()
}

#[test]
fn the_life_of_a_container() {
    let host = Host::new();
    host.unroot(["run", "--name", "c", "--label", "a=b", "--network=none", IMAGE, "sh", "-c", "exit 7"]);
    host.unroot(["rm", "c"]).ok();
    let format = "--format={{.Status}} {{.ContainerExitCode}}";
    let told = events(&host, &["--filter=container=c", format]);
    let expected = ["create", "init", "start", "attach", "died 7", "cleanup", "remove"];
    let told: Vec<&str> = told.iter().map(|l| l.trim_end_matches(" <nil>")).collect();
    // (the container may have ended before its command said that it is attached)
    let sorted = |list: &[&str]| {
        let mut list: Vec<String> = list.iter().map(|s| s.to_string()).collect();
        list.sort();
        list
    };
    assert_eq!(sorted(&told), sorted(&expected));
    assert_eq!(told.first(), Some(&"create"));
    assert_eq!(told.last(), Some(&"remove"));
    let line = &events(&host, &["--filter=event=die"])[0];
    let name = host_name_of(uid()).unwrap();
    assert!(line.contains(&format!("image={IMAGE}, name=c, by={name}, a=b)")), "{line}");
    let short = &events(&host, &["--filter=event=start", "--no-trunc=false"])[0];
    assert_eq!(short.split_whitespace().nth(6).unwrap().len(), 12, "{short}");
}

#[test]
fn every_event_says_who() {
    let host = Host::new();
    host.unroot(["volume", "create", "v"]).ok();
    host.unroot(["volume", "rm", "v"]).ok();
    host.unroot(["run", "--rm", "--network=none", IMAGE, "true"]).ok();
    for line in events(&host, &["--format=json"]) {
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["By"]["Uid"], uid(), "{line}");
        assert_eq!(event["By"]["User"], host_name_of(uid()).unwrap(), "{line}");
        assert!(event["timeNano"].as_i64().unwrap() > 1_700_000_000_000_000_000, "{line}");
        let by_itself = matches!(event["Status"].as_str().unwrap(), "init" | "start" | "died" | "cleanup");
        if event["Type"] == "container" && event["Status"] != "remove" {
            assert_eq!(event["By"]["Monitor"] == true, by_itself, "{line}");
        }
    }
    assert_eq!(
        events(&host, &["--filter=volume=v", "--format={{.Type}} {{.Status}} {{.Name}}"]),
        ["volume create v", "volume remove v"]
    );
}

#[test]
fn filters_and_times() {
    let host = Host::new();
    host.unroot(["volume", "create", "one"]).ok();
    let middle = unroot_now();
    host.unroot(["volume", "create", "two"]).ok();
    let names =
        |flags: &[&str]| events(&host, &[&["--filter=type=volume", "--format={{.Name}}"], flags].concat());
    assert_eq!(names(&[]), ["one", "two"]);
    assert_eq!(names(&["--since", &middle]), ["two"]);
    assert_eq!(names(&["--until", &middle]), ["one"]);
    assert_eq!(names(&["--since", "1h", "--until", "1s"]), ["one", "two"]);
    assert_eq!(names(&["--filter=volume=one", "--filter=volume=two"]), ["one", "two"]);
    assert_eq!(names(&["--filter=event=remove"]), Vec::<String>::new());
    host.unroot(["events", "--since", "the dawn of time...ish"]).fails(125, "failed to parse event filters");
    host.unroot(["events", "--stream=false", "--filter", "bogus=x"]).fails(125, "bogus is an invalid filter");
    host.unroot(["--events-backend=none", "events"])
        .fails(125, "cannot read events with the \"none\" backend");
    host.unroot(["--events-backend=none", "volume", "create", "three"]).ok();
    assert_eq!(names(&[]), ["one", "two"]);
}

fn unroot_now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

/// Whoever listens gets each event once, although the file is replaced meanwhile.
#[test]
fn a_stream_over_rotations() {
    let host = Host::new();
    let conf = host.path("containers.conf");
    std::fs::write(&conf, "[engine]\nevents_logfile_max_size=\"2k\"\n").unwrap();
    host.run(host.command(["volume", "create", "first"]).env("CONTAINERS_CONF", &conf));
    let mut listener = host
        .command(["events", "--filter=type=volume", "--format={{.Name}}", "--since=1h"])
        .env("CONTAINERS_CONF", &conf)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(listener.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "first");
    // (whoever is slower than the file is long misses events: so one at a time, ten rotations in all)
    for n in 0..40 {
        host.run(host.command(["volume", "create", &format!("v{n}")]).env("CONTAINERS_CONF", &conf)).ok();
        assert_eq!(lines.next().unwrap().unwrap(), format!("v{n}"));
    }
    listener.kill().unwrap();
    listener.wait().unwrap();
    assert!(std::fs::metadata(host.path("root/events.log")).unwrap().len() < 4096, "it is bounded");
}

/// A log that cannot be written stops nothing.
#[test]
fn events_that_cannot_be_written() {
    let host = Host::new();
    std::fs::remove_file(host.path("root/events.log")).unwrap();
    std::fs::create_dir(host.path("root/events.log")).unwrap();
    host.unroot(["run", "--rm", "--network=none", IMAGE, "true"]).ok();
}
