//! What is listed is so, and what is removed is gone: looked at from outside, in /proc, in the directories, among the
//! mounts and control groups.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::host::Host;

/// Seconds that nobody else sleeps: who does so in the end is one of ours.
pub fn long() -> String {
    format!("1{:07}", std::process::id())
}

/// Processes that name the directory: monitors, and pasta; and what runs in containers.
fn processes_of(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<u32>() else { continue };
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if pid != std::process::id() && (words.contains(dir) || words.contains(&format!("sleep {}", long())))
        {
            all.push(format!("{pid}: {words}"));
        }
    }
    all
}

fn cgroups_of(ids: &BTreeSet<String>, dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.strip_prefix("unroot-").is_some_and(|id| ids.contains(id)) {
                found.push(path.display().to_string());
            }
            cgroups_of(ids, &path, found);
        }
    }
}

/// What is listed is so.
pub fn check_states(host: &Host) -> Vec<String> {
    let mut wrong = Vec::new();
    let listed: serde_json::Value =
        serde_json::from_str(&host.unroot(["ps", "-a", "--format", "json"]).ok()).unwrap();
    for row in listed.as_array().unwrap() {
        let (id, name) = (row["Id"].as_str().unwrap(), row["Names"][0].as_str().unwrap());
        let (state, pid) = (row["State"].as_str().unwrap(), row["Pid"].as_u64().unwrap());
        let live = matches!(state, "running" | "paused" | "initialized" | "stopping");
        if live != Path::new(&format!("/proc/{pid}/stat")).exists() && pid != 0 || live != (pid != 0) {
            wrong.push(format!("{name} is listed as {state} with pid {pid}"));
        }
        let link = fs::read_link(host.path("root/names").join(name)).unwrap_or_default();
        if link.to_str() != Some(id) {
            wrong.push(format!("the name {name} of {id} leads to {}", link.display()));
        }
        let shown = host.unroot(["inspect", "--format", "{{.State.Status}}", id]);
        if shown.code != 0 {
            wrong.push(format!("inspect {id}: {}", shown.err));
        }
    }
    wrong
}

/// Removes all containers, and says what is left of them: process, directory, name, mount or control group.
pub fn remove_containers(host: &Host, mut ids: BTreeSet<String>) -> Vec<String> {
    for entry in fs::read_dir(host.path("root/containers")).unwrap().flatten() {
        ids.insert(entry.file_name().to_string_lossy().trim_start_matches('.').to_string());
    }
    let mut wrong = fails(host, &["rm", "-f", "-a", "-t", "0", "-v"]);
    // (monitors are just ending)
    let begun = Instant::now();
    while !processes_of(&host.path("")).is_empty() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    wrong.extend(fails(host, &["rm", "-f", "-a"]));
    wrong.extend(processes_of(&host.path("")).into_iter().map(|p| format!("process {p}")));
    wrong.extend(left_in(host, &["root/containers", "root/names", "run/containers"]));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = host.path("").to_str().unwrap().to_string();
    wrong.extend(mounts.lines().filter(|l| l.contains(&own)).map(|l| format!("mount {l}")));
    cgroups_of(&ids, Path::new("/sys/fs/cgroup"), &mut wrong);
    wrong
}

/// The same for images and volumes, after [`remove_containers`].
pub fn remove_all(host: &Host) -> Vec<String> {
    let mut wrong = fails(host, &["volume", "rm", "-a"]);
    wrong.extend(fails(host, &["rmi", "-f", "-a"]));
    wrong.extend(left_in(host, &["root/images", "root/layers", "root/volumes"]));
    wrong
}

fn fails(host: &Host, words: &[&str]) -> Vec<String> {
    let done = host.unroot(words);
    (done.code != 0).then(|| format!("{words:?}: {}", done.err)).into_iter().collect()
}

fn left_in(host: &Host, dirs: &[&str]) -> Vec<String> {
    let entries = dirs.iter().flat_map(|dir| fs::read_dir(host.path(dir)).into_iter().flatten().flatten());
    let left = entries.filter(|e| e.file_name() != ".names");
    left.map(|e| format!("directory {}", e.path().display())).collect()
}
