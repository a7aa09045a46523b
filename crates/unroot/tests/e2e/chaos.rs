//! Everything at once: random verbs by many workers on the same containers, and SIGKILL for commands, monitors and
//! containers in between. Afterwards every state that is listed is true, and when all is removed nothing is left: no
//! process, mount, control group, directory or name.
//!
//! `UNROOT_CHAOS_SECONDS` is how long (20), in rounds of a minute, each looked at by itself: `make chaos` takes half an
//! hour. `UNROOT_CHAOS_SEED` repeats the choices, though not the races.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

use crate::host::{Host, IMAGE, is_root};
use crate::truth::{check_states, long, remove_all, remove_containers};

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

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_string).collect()
}

/// Makes a container of this name.
fn making(dice: &mut Dice, how: &str, name: &str) -> Vec<String> {
    let script = dice.one(&[
        "sleep NNNN",
        "sleep 0.2",
        "exit 3",
        "true",
        "trap exit TERM; while :; do echo x; sleep 0.05; done",
        "sleep NNNN & sleep NNNN & wait",
    ]);
    let flags = dice.one(&[
        "",
        "--rm",
        "--restart=always",
        "--restart=on-failure:2",
        "--restart=unless-stopped",
        "-v vol:/data",
        "-v /anonymous --rm",
        "-t",
        "-i",
        "--health-cmd=true --health-interval=1s",
        "--health-cmd=false --health-interval=1s --health-retries=1 --health-on-failure=kill --restart=always",
        "--health-cmd=false --health-interval=1s --health-retries=1 --health-on-failure=restart",
        "--init",
        // (what shares the host's processes needs a control group to be ended as a whole)
        if is_root() { "--pid=host" } else { "--pid=private" },
        "--secret=secret",
        "--log-opt=max-size=1k --log-opt=max-file=2",
        "--timeout=1",
    ]);
    let network = if dice.below(10) == 0 { "" } else { "--network=none" };
    let mut all = words(&format!("{how} --name {name} {network} {flags} {IMAGE} sh -c"));
    all.push(script.replace("NNNN", &long()));
    all
}

/// A command line for a container, or two, and whether it goes on until it is killed.
fn verb(dice: &mut Dice, host: &Host) -> (Vec<String>, bool) {
    let name = format!("c{}", dice.below(CONTAINERS));
    let other = format!("c{}", dice.below(CONTAINERS));
    let (file, copy) = (host.path("file"), host.path(&format!("copies/{name}")));
    let (file, copy) = (file.display(), copy.display());
    let stays =
        ["attach --sig-proxy=false", "logs -f", "wait", "exec -i", "stats", "events --filter container="];
    let text = match dice.below(46) {
        0..=3 => return (making(dice, "run -d", &name), false),
        4 => return (making(dice, "run -d --replace", &name), false),
        5..=6 => return (making(dice, "create", &name), false),
        7 => return (making(dice, "run -i", &name), true),
        8..=10 => format!("start {name}"),
        11 => format!("stop -t 0 {name} {other}"),
        12 => format!("stop -t 1 {name}"),
        13 => format!("kill {name}"),
        14 => format!("kill -s USR1 {name}"),
        15..=16 => format!("restart -t 0 {name}"),
        17..=18 => format!("rm -f -t 0 -v {name} {other}"),
        19 => format!("rm {name}"),
        20..=21 => format!("rename {name} {other}"),
        22 => format!("exec {name} true"),
        23 => format!("exec -d {name} sleep {}", long()),
        24..=25 => format!("pause {name}"),
        26..=27 => format!("unpause {name}"),
        28 => format!("init {name}"),
        29 => format!("cp {file} {name}:/tmp"),
        30 => format!("cp {name}:/etc/passwd {copy}"),
        31 => format!("cp {name}:/etc/passwd {other}:/tmp"),
        32 => format!("update --memory=64m {name}"),
        33 => format!("update --restart={} {name}", dice.one(&["no", "always", "on-failure:1"])),
        34 => format!("commit -q {name} localhost/{name}"),
        35 => format!("rmi localhost/{name}"),
        36 => format!("container clone {name} {other}"),
        37 => format!("healthcheck run {name}"),
        38 => format!("mount {name}"),
        39 => format!("unmount {name}"),
        40 => {
            format!("container {} {name}", dice.one(&["cleanup", "exists", "diff", "inspect", "top", "port"]))
        }
        41 => format!("{} {name}", dice.one(&["logs --tail 3", "stats --no-stream", "inspect --size"])),
        42 => format!("export -o {copy}.tar {name}"),
        43 => {
            dice.one(&["container prune -f", "volume prune -f", "system df", "images", "doctor"]).to_string()
        }
        44 => dice
            .one(&["ps -a --format json", "ps -as", "events --stream=false", "volume ls", "info"])
            .to_string(),
        _ => match dice.one(&stays) {
            "exec -i" => return (words(&format!("exec -i {name} sleep {}", long())), true),
            verb if verb.ends_with('=') => return (words(&format!("{verb}{name}")), true),
            verb => return (words(&format!("{verb} {name}")), true),
        },
    };
    (words(&text), false)
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
        while !self.done.load(Ordering::Relaxed) {
            let (words, stays) = verb(&mut dice, self.host);
            let kill_after = match stays {
                true => Some(Duration::from_micros(dice.below(500_000))),
                false => (dice.below(6) == 0).then(|| Duration::from_micros(dice.below(40_000))),
            };
            self.run(&words, kill_after, seed);
        }
    }

    /// Runs a command, to its end or until it is killed. It may fail, but not panic or hang.
    fn run(&self, words: &[String], kill_after: Option<Duration>, worker: u64) {
        let [out, err] = ["out", "err"].map(|kind| self.host.path(&format!("{kind}-{worker}")));
        let mut command = self.host.command(words);
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        // (what is not written to is not an input that has ended, either)
        let input = words.iter().any(|w| w == "-i").then(Stdio::piped).unwrap_or_else(Stdio::null);
        let mut child = command.stdin(input).spawn().unwrap();
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
        let [out, err] = [out, err].map(|file| fs::read(file).unwrap());
        let [out, err] = [out, err].map(|text| String::from_utf8_lossy(&text).into_owned());
        if err.contains("panicked") || status.code() == Some(101) || status.signal().is_some_and(|s| s != 9) {
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

#[test]
fn nothing_is_left_and_nothing_is_false() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    let mut seed = number("UNROOT_CHAOS_SEED", now);
    let mut left = number("UNROOT_CHAOS_SECONDS", 20);
    let mut wrong = Vec::new();
    while left > 0 {
        let seconds = left.min(60);
        let found = round(seed, Duration::from_secs(seconds));
        found.iter().for_each(|what| println!("{what}"));
        wrong.extend(found);
        left -= seconds;
        seed = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
    }
    assert!(wrong.is_empty(), "after chaos:\n{}", wrong.join("\n"));
}

/// What is wrong after so much chaos, with the seed that it came of.
fn round(seed: u64, length: Duration) -> Vec<String> {
    let host = Host::new();
    fs::write(host.path("file"), "x").unwrap();
    fs::create_dir(host.path("copies")).unwrap();
    host.unroot_with_input(["secret", "create", "secret", "-"], b"hidden").ok();
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
        std::thread::sleep(length);
        chaos.done.store(true, Ordering::Relaxed);
    });
    let count = |n: &AtomicUsize| n.load(Ordering::Relaxed);
    println!("seed {seed}: {} commands, {} kills", count(&chaos.commands), count(&chaos.killed));
    let mut wrong = chaos.complaints.into_inner().unwrap();
    // (short-lived ones may end while they are looked at: what is wrong stays wrong)
    let states = check_states(&host);
    if !states.is_empty() {
        std::thread::sleep(Duration::from_secs(3));
        wrong.extend(check_states(&host).into_iter().filter(|w| states.contains(w)));
    }
    wrong.extend(remove_containers(&host, chaos.ids.into_inner().unwrap()));
    wrong.extend(remove_all(&host));
    wrong.into_iter().map(|what| format!("seed {seed}: {what}")).collect()
}
