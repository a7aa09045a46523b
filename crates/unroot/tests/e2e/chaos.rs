//! Everything at once: random verbs by many workers on the same containers, and SIGKILL for commands, monitors and
//! containers in between. Afterwards every state that is listed is true, and when all is removed nothing is left: no
//! process, mount, control group, directory or name.
//!
//! `UNROOT_CHAOS_SECONDS` is how long (20); `UNROOT_CHAOS_SEED` repeats the choices, though not the races.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

use crate::host::{Host, IMAGE};

const WORKERS: u64 = 8;
const CONTAINERS: u64 = 40;

/// xorshift64*: good enough to choose verbs.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// A command line for a container, or two.
fn verb(dice: &mut Dice, file: &str) -> Vec<String> {
    let name = format!("c{}", dice.below(CONTAINERS));
    let other = format!("c{}", dice.below(CONTAINERS));
    let words = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
    let script = dice.one(&[
        "sleep 1000",
        "sleep 0.2",
        "exit 3",
        "true",
        "trap exit TERM; while :; do echo x; sleep 0.05; done",
        "sleep 1000 & sleep 1000 & wait",
    ]);
    let made = |how: &str, dice: &mut Dice| {
        let flags = dice.one(&[
            "",
            "--rm",
            "--restart=always",
            "--restart=on-failure:2",
            "-v vol:/data",
            "-v /anonymous --rm",
            "-t",
            "--health-cmd=true --health-interval=1s",
            "--init",
        ]);
        let network = if dice.below(10) == 0 { "" } else { "--network=none" };
        let mut all = words(&format!("{how} --name {name} {network} {flags} {IMAGE} sh -c"));
        all.push(script.into());
        all
    };
    match dice.below(26) {
        0..=3 => made("run -d", dice),
        4 => made("run -d --replace", dice),
        5..=6 => made("create", dice),
        7..=8 => words(&format!("start {name}")),
        9 => words(&format!("stop -t 0 {name} {other}")),
        10 => words(&format!("stop -t 1 {name}")),
        11 => words(&format!("kill {name}")),
        12 => words(&format!("restart -t 0 {name}")),
        13..=14 => words(&format!("rm -f -t 0 -v {name} {other}")),
        15 => words(&format!("rm {name}")),
        16 => words(&format!("rename {name} {other}")),
        17 => words(&format!("exec {name} true")),
        18 => words(&format!("pause {name}")),
        19 => words(&format!("unpause {name}")),
        20 => words(&format!("init {name}")),
        21 => words(&format!("cp {file} {name}:/tmp")),
        22 => words(&format!("logs --tail 3 {name}")),
        23 => words(&format!("inspect {name}")),
        24 => words("ps -a --format json"),
        _ => words(&format!("container {} {name}", dice.one(&["cleanup", "exists", "diff"]))),
    }
}

struct Chaos<'a> {
    host: &'a Host,
    ids: Mutex<BTreeSet<String>>,
    complaints: Mutex<Vec<String>>,
    done: AtomicBool,
    commands: AtomicUsize,
    killed: AtomicUsize,
}

impl Chaos<'_> {
    fn complain(&self, text: String) {
        self.complaints.lock().unwrap().push(text);
    }

    fn work(&self, seed: u64) {
        let mut dice = Dice(seed);
        let file = self.host.path("file").to_str().unwrap().to_string();
        while !self.done.load(Ordering::Relaxed) {
            let words = verb(&mut dice, &file);
            let kill_after = (dice.below(6) == 0).then(|| Duration::from_micros(dice.below(40_000)));
            self.run(&words, kill_after);
        }
    }

    /// Runs a command, to its end or until it is killed. It may fail, but not panic or hang.
    fn run(&self, words: &[String], kill_after: Option<Duration>) {
        let mut child = self.host.spawn(words, Stdio::null());
        self.commands.fetch_add(1, Ordering::Relaxed);
        if let Some(pause) = kill_after {
            std::thread::sleep(pause);
            let _ = child.kill();
            self.killed.fetch_add(1, Ordering::Relaxed);
        }
        let begun = Instant::now();
        let mut warned = false;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > Duration::from_secs(60) && !warned {
                warned = true;
                let wchan = fs::read_to_string(format!("/proc/{}/wchan", child.id())).unwrap_or_default();
                self.complain(format!("{words:?} hangs in {wchan}"));
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        if kill_after.is_some() {
            return; // (its monitor may hold the pipes)
        }
        let (mut out, mut err) = (String::new(), String::new());
        let _ = child.stdout.take().unwrap().read_to_string(&mut out);
        let _ = child.stderr.take().unwrap().read_to_string(&mut err);
        if err.contains("panicked") || status.code() == Some(101) {
            self.complain(format!("{words:?}: {err}"));
        }
        if let Some(id) = out.lines().next().filter(|l| l.len() == 64) {
            self.ids.lock().unwrap().insert(id.to_string());
        }
    }

    /// Kills a monitor or a container's process from time to time.
    fn kill(&self, seed: u64) {
        let mut dice = Dice(seed);
        while !self.done.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50 + dice.below(100)));
            let dirs = fs::read_dir(self.host.path("run/containers")).into_iter().flatten().flatten();
            let states: Vec<_> = dirs.map(|d| d.path().join("state.json")).filter(|p| p.exists()).collect();
            if states.is_empty() {
                continue;
            }
            let Ok(text) = fs::read(&states[dice.below(states.len() as u64) as usize]) else { continue };
            let Ok(state) = serde_json::from_slice::<serde_json::Value>(&text) else { continue };
            let victim = dice.one(&["monitor", "process"]);
            let pid = state[victim]["pid"].as_i64().unwrap() as i32;
            if kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).is_ok() {
                self.killed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Processes of others that name the directory: monitors, and pasta.
fn processes_of(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<u32>() else { continue };
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if pid != std::process::id() && words.contains(dir) {
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
fn check_states(host: &Host) -> Vec<String> {
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

#[test]
fn nothing_is_left_and_nothing_is_false() {
    let host = Host::new();
    fs::write(host.path("file"), "x").unwrap();
    let seconds = number("UNROOT_CHAOS_SECONDS", 20);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    let seed = number("UNROOT_CHAOS_SEED", now);
    println!("UNROOT_CHAOS_SEED={seed}");
    let chaos = Chaos {
        host: &host,
        ids: Mutex::default(),
        complaints: Mutex::default(),
        done: AtomicBool::new(false),
        commands: AtomicUsize::new(0),
        killed: AtomicUsize::new(0),
    };
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let chaos = &chaos;
            scope
                .spawn(move || chaos.work(seed.wrapping_add(worker.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1));
        }
        scope.spawn(|| chaos.kill(seed.rotate_left(17) | 1));
        std::thread::sleep(Duration::from_secs(seconds));
        chaos.done.store(true, Ordering::Relaxed);
    });
    println!(
        "{} commands, {} kills",
        chaos.commands.load(Ordering::Relaxed),
        chaos.killed.load(Ordering::Relaxed)
    );
    let mut wrong = chaos.complaints.into_inner().unwrap();
    // (short-lived ones may end while they are looked at: what is wrong stays wrong)
    let states = check_states(&host);
    if !states.is_empty() {
        std::thread::sleep(Duration::from_secs(3));
        wrong.extend(check_states(&host).into_iter().filter(|w| states.contains(w)));
    }
    let mut ids = chaos.ids.into_inner().unwrap();
    for entry in fs::read_dir(host.path("root/containers")).unwrap().flatten() {
        ids.insert(entry.file_name().to_string_lossy().trim_start_matches('.').to_string());
    }
    let removed = host.unroot(["rm", "-f", "-a", "-t", "0", "-v"]);
    if removed.code != 0 {
        wrong.push(format!("rm -fa: {}", removed.err));
    }
    // (monitors are just ending)
    let begun = Instant::now();
    while !processes_of(&host.path("")).is_empty() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let swept = host.unroot(["rm", "-f", "-a"]);
    assert_eq!(swept.code, 0, "{}", swept.err);
    wrong.extend(processes_of(&host.path("")).into_iter().map(|p| format!("process {p}")));
    for dir in ["root/containers", "root/names", "run/containers"] {
        for entry in fs::read_dir(host.path(dir)).into_iter().flatten().flatten() {
            wrong.push(format!("directory {}", entry.path().display()));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = host.path("").to_str().unwrap().to_string();
    wrong.extend(mounts.lines().filter(|l| l.contains(&own)).map(|l| format!("mount {l}")));
    cgroups_of(&ids, Path::new("/sys/fs/cgroup"), &mut wrong);
    assert!(wrong.is_empty(), "after chaos with seed {seed}:\n{}", wrong.join("\n"));
}
