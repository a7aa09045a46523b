//! Each transition of a container's life (drawn in `engine/src/state.rs`), with a kill -9 in its middle: of the command
//! that makes it, of the monitor, of the container's process. What is listed then is true, the next command works,
//! and when all is removed nothing is left.
//!
//! The middle is where an event is told: while somebody else holds the log's lock, whoever tells one waits half a second.
//! And it is anywhere: a few times at random. `UNROOT_KILLS` is how often (2).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::host::{Host, IMAGE};
use crate::truth::{check_states, remove_containers};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Command,
    Monitor,
    Process,
}

#[derive(Clone, Copy, Debug)]
enum Moment {
    /// When so many events were told, and the next one is to be told.
    Event(usize),
    /// So many microseconds after the command's start.
    After(u64),
}

struct Transition {
    name: &'static str,
    /// What leads to it.
    before: &'static [&'static str],
    /// What makes it.
    verb: &'static str,
    /// What the container may be after it was not, or only half, made; none is no container.
    may_be: &'static [&'static str],
    /// How many events are told in its course.
    events: usize,
}

const CREATE: &str = "create --name c --network=none IMAGE sleep 1000";
const STUBBORN: &str = "run -d --name c --network=none IMAGE sleep 1000";
const RUN: &str = "run -d --init --name c --network=none IMAGE sleep 1000";
const AGAIN: &str = "run -d --restart=always --name c --network=none IMAGE sh -c sleep_0.2";

const TRANSITIONS: &[Transition] = &[
    Transition {
        name: "(nothing) to Created",
        before: &[],
        verb: CREATE,
        may_be: &["", "created"],
        events: 1,
    },
    Transition {
        name: "Created to Running",
        before: &[CREATE],
        verb: "start c",
        may_be: &["created", "running"],
        events: 2,
    },
    Transition {
        name: "(nothing) to Running, with the default network",
        before: &[],
        verb: "run -d -p 127.0.0.1::80 --name c IMAGE sleep 1000",
        may_be: &["", "created", "running"],
        events: 3,
    },
    Transition {
        name: "Created to Initialized",
        before: &[CREATE],
        verb: "init c",
        may_be: &["created", "initialized"],
        events: 1,
    },
    Transition {
        name: "Initialized to Running",
        before: &[CREATE, "init c"],
        verb: "start c",
        may_be: &["initialized", "running"],
        events: 1,
    },
    Transition {
        name: "Running to Paused",
        before: &[RUN],
        verb: "pause c",
        may_be: &["running", "paused"],
        events: 1,
    },
    Transition {
        name: "Paused to Running",
        before: &[RUN, "pause c"],
        verb: "unpause c",
        may_be: &["running", "paused"],
        events: 1,
    },
    Transition {
        name: "Running to Exited, by stop",
        before: &[RUN],
        verb: "stop c",
        may_be: &["running", "exited"],
        events: 3,
    },
    Transition {
        name: "Running to Exited, by stop and SIGKILL",
        before: &[STUBBORN],
        verb: "stop -t 1 c",
        may_be: &["running", "exited"],
        events: 3,
    },
    Transition {
        name: "Paused to Exited, by stop",
        before: &[RUN, "pause c"],
        verb: "stop c",
        may_be: &["paused", "exited"],
        events: 3,
    },
    Transition {
        name: "Running to Exited, by kill",
        before: &[RUN],
        verb: "kill c",
        may_be: &["running", "exited"],
        events: 3,
    },
    Transition {
        name: "Initialized to Exited",
        before: &[CREATE, "init c"],
        verb: "stop c",
        may_be: &["initialized", "exited"],
        events: 3,
    },
    Transition {
        name: "Running to Running, by restart",
        before: &[RUN],
        verb: "restart c",
        may_be: &["running", "exited"],
        events: 3,
    },
    Transition {
        name: "Exited to Running",
        before: &[RUN, "stop c"],
        verb: "start c",
        may_be: &["exited", "running"],
        events: 2,
    },
    Transition {
        name: "Running to Restarting to Running, by its policy",
        before: &[AGAIN],
        verb: "unshare sleep 0.5",
        may_be: &["exited", "restarting", "running"],
        events: 3,
    },
    Transition {
        name: "Restarting to Exited",
        before: &["run -d --restart=always --name c --network=none IMAGE false"],
        verb: "stop -t 0 c",
        may_be: &["exited", "restarting", "running"],
        events: 2,
    },
    Transition {
        name: "Exited to (nothing)",
        before: &[RUN, "stop c"],
        verb: "rm c",
        may_be: &["", "exited"],
        events: 1,
    },
    Transition {
        name: "Running to (nothing)",
        before: &[RUN],
        verb: "rm -f -t 0 c",
        may_be: &["", "exited", "running"],
        events: 3,
    },
    Transition {
        name: "Running to (nothing), by its end",
        before: &["run -d --rm --init --name c --network=none IMAGE sleep 1000"],
        verb: "stop c",
        may_be: &["", "exited", "running"],
        events: 3,
    },
    Transition { name: "another name", before: &[RUN], verb: "rename c d", may_be: &["running"], events: 1 },
    Transition {
        name: "another policy",
        before: &[RUN],
        verb: "update --restart=always c",
        may_be: &["running"],
        events: 1,
    },
];

fn words(line: &str) -> Vec<String> {
    let word = |w: &str| if w == "IMAGE" { IMAGE.to_string() } else { w.replace('_', " ") };
    line.split_whitespace().map(word).collect()
}

fn kill9(pid: i32) {
    let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
}

/// What inspect says; "" where there is no container.
fn status(host: &Host) -> String {
    let shown = ["c", "d"].map(|name| host.unroot(["inspect", "--format", "{{.State.Status}}", name]));
    shown.into_iter().find(|s| s.code == 0).map_or(String::new(), |s| s.ok())
}

struct Kill<'a> {
    host: &'a Host,
    transition: &'a Transition,
    victim: Victim,
    moment: Moment,
}

impl Kill<'_> {
    /// What is wrong after it.
    fn check(&self) -> Vec<String> {
        for line in self.transition.before {
            self.host.unroot(words(line)).ok();
        }
        let ids: BTreeSet<String> = fs::read_dir(self.host.path("root/containers"))
            .unwrap()
            .flatten()
            .map(|e| e.file_name().into_string().unwrap())
            .collect();
        let was_killed = self.kill();
        let mut wrong = self.look(was_killed);
        wrong.extend(self.go_on());
        wrong.extend(remove_containers(self.host, ids));
        let Self { transition, victim, moment, .. } = self;
        wrong
            .into_iter()
            .map(|w| format!("{}, {victim:?} killed at {moment:?}: {w}", transition.name))
            .collect()
    }

    /// Starts the command, and kills at the moment; false if there was nobody to kill any more.
    fn kill(&self) -> bool {
        let log = self.host.path("root/events.log");
        let told = || fs::read(&log).unwrap_or_default().iter().filter(|b| **b == b'\n').count();
        let (held, before) = (File::options().append(true).create(true).open(&log).unwrap(), told());
        if matches!(self.moment, Moment::Event(_)) {
            flock(&held, FlockOperation::LockExclusive).unwrap();
        }
        let known = self.known_victim();
        let mut child = self.host.spawn(words(self.transition.verb), Stdio::null());
        match self.moment {
            Moment::After(micros) => std::thread::sleep(Duration::from_micros(micros)),
            Moment::Event(n) => {
                let (mut seen, mut since) = (before, Instant::now());
                while seen < before + n && since.elapsed() < Duration::from_millis(700) {
                    std::thread::sleep(Duration::from_millis(5));
                    if told() > seen {
                        (seen, since) = (told(), Instant::now());
                    }
                }
                // (it has come to the next event by now, and goes on half a second after the last)
                std::thread::sleep(Duration::from_millis(80));
            }
        }
        let pid = match self.victim {
            Victim::Command => child.try_wait().unwrap().is_none().then_some(child.id() as i32),
            _ => known.or_else(|| self.new_victim(&child)),
        };
        pid.into_iter().for_each(kill9);
        drop(held);
        let ended = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if ended.elapsed() > Duration::from_secs(20) {
                let _ = child.kill();
                panic!(
                    "{}: {:?} hangs after {:?} was killed",
                    self.transition.name, self.transition.verb, self.victim
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        pid.is_some()
    }

    fn known_victim(&self) -> Option<i32> {
        let field = match self.victim {
            Victim::Command => return None,
            Victim::Monitor => "{{.State.ConmonPid}}",
            Victim::Process => "{{.State.Pid}}",
        };
        let shown = self.host.unroot(["inspect", "--format", field, "c"]);
        shown.out.trim().parse().ok().filter(|pid| *pid != 0)
    }

    /// The monitor is the command's child, and the container's process the monitor's.
    fn new_victim(&self, command: &Child) -> Option<i32> {
        let child_of = |pid: i32| {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
            children.split_whitespace().next()?.parse::<i32>().ok()
        };
        let monitor = child_of(command.id() as i32);
        match self.victim {
            Victim::Process => monitor.and_then(child_of),
            _ => monitor,
        }
    }

    /// What is listed is true, and one of the states that may be.
    fn look(&self, was_killed: bool) -> Vec<String> {
        let mut may_be = self.transition.may_be.to_vec();
        if was_killed && self.victim != Victim::Command {
            may_be.push("exited");
        }
        let look = || {
            let mut wrong = check_states(self.host);
            let status = status(self.host);
            if !may_be.contains(&status.as_str()) {
                wrong.push(format!("it is {status:?}"));
            }
            wrong
        };
        // (what was set going may still be on its way)
        let begun = Instant::now();
        loop {
            let wrong = look();
            if wrong.is_empty() || begun.elapsed() > Duration::from_secs(3) {
                return wrong;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whatever the container is now, the next command works.
    fn go_on(&self) -> Vec<String> {
        let name = if self.host.unroot(["container", "exists", "c"]).code == 0 { "c" } else { "d" };
        let next = match status(self.host).as_str() {
            "" => words(CREATE),
            "paused" => words(&format!("unpause {name}")),
            "running" | "restarting" => words(&format!("stop -t 0 {name}")),
            _ => words(&format!("start {name}")),
        };
        let done = self.host.unroot(&next);
        // (a container with a short life may have gone into its next one meanwhile)
        let has_changed = done.err.contains("state improper") || done.err.contains("is already running");
        match done.code {
            0 => Vec::new(),
            _ if has_changed && self.transition.before.iter().any(|b| b.contains("always")) => Vec::new(),
            _ => vec![format!("{next:?} fails: {}", done.err)],
        }
    }
}

/// As an ordinary user without a control group of one's own nothing can be paused.
fn can_pause(host: &Host) -> bool {
    host.unroot(words(RUN)).ok();
    let can = host.unroot(["pause", "c"]).code == 0;
    host.unroot(["rm", "-f", "-t", "0", "c"]).ok();
    can
}

fn check_each(victim: Victim) {
    let host = Host::new();
    let can_pause = can_pause(&host);
    let kills = std::env::var("UNROOT_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let mut dice = std::process::id() as u64 | 1;
    let mut wrong = Vec::new();
    for transition in TRANSITIONS {
        let pauses = transition.verb.contains("pause") || transition.before.contains(&"pause c");
        if pauses && !can_pause {
            continue;
        }
        let at_random = (0..kills).map(|_| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Moment::After((dice >> 33) % 50_000)
        });
        // (the process does not tell events)
        let events = if victim == Victim::Process { 0 } else { transition.events };
        let moments: Vec<Moment> = (0..events).map(Moment::Event).chain(at_random).collect();
        for moment in moments {
            wrong.extend(Kill { host: &host, transition, victim, moment }.check());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_command_is_killed() {
    check_each(Victim::Command);
}

#[test]
fn the_monitor_is_killed() {
    check_each(Victim::Monitor);
}

#[test]
fn the_process_is_killed() {
    check_each(Victim::Process);
}
