//! `demo`: one container seen from inside and from outside, side by side.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::process::{Child, Command, Stdio};

use unroot_engine::{Engine, State};
use unroot_idmap::names::host_user;
use unroot_sys::capability;

use crate::Global;
use crate::cli::{Args, CliError, Outcome};
use crate::output;
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["demo"],
    usage: "",
    about: "Show who is root in a container, from inside and from outside",
    flags: Vec::new,
    interspersed: true,
    count: (0, 0),
    run,
};

fn run(global: &Global, _: &Args) -> Outcome {
    let engine = global.engine()?;
    let paint = Paint { on: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() };
    let mut verdicts = Vec::new();
    for (title, user) in [("run unroot/hello", None), ("run -u sync unroot/hello", Some("sync"))] {
        let shown = Shown::of(global, &engine, user)?;
        output::raw(shown.picture(title, &paint).as_bytes());
        verdicts.push((shown.engine_is_root, shown.inside_uid == "0", shown.outside_uid.clone()));
    }
    output::raw(conclusion(&verdicts, &paint).as_bytes());
    Ok(0)
}

struct Paint {
    on: bool,
}

impl Paint {
    fn wrap(&self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    fn good(&self, text: &str) -> String {
        self.wrap("32", text)
    }

    fn bad(&self, text: &str) -> String {
        self.wrap("31", text)
    }

    fn head(&self, text: &str) -> String {
        self.wrap("1;36", text)
    }
}

struct Shown {
    engine_name: String,
    engine_is_root: bool,
    inside_uid: String,
    outside_uid: String,
    outside_name: Option<String>,
    monitor_uid: String,
    owner: Option<u32>,
    own_namespace: bool,
    map: Vec<[u64; 3]>,
    capabilities: u64,
    no_new_privileges: bool,
    seccomp: bool,
}

/// The container's program, which ends when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Shown {
    fn of(global: &Global, engine: &Engine, user: Option<&str>) -> Result<Self, CliError> {
        let name = format!("demo-{}", unroot_engine::names::random());
        let exe = std::env::current_exe().map_err(CliError::new)?;
        let mut command = Command::new(exe);
        for (flag, path) in [("--root", &global.root), ("--runroot", &global.run)] {
            command.args(path.iter().flat_map(|p| [flag.as_ref(), p.as_os_str()]));
        }
        command.args(["run", "-i", "--rm", "--network=none", "--name", &name]);
        command.args(user.into_iter().flat_map(|u| ["-u", u]));
        command.args(["unroot/hello", "/hello", "--facts"]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(CliError::new)?;
        let mut running = Running(child);
        let lines =
            BufReader::new(running.0.stdout.take().ok_or_else(|| CliError::new("no output"))?).lines();
        let mut facts: BTreeMap<String, String> = BTreeMap::new();
        let mut map = Vec::new();
        for line in lines.map_while(Result::ok) {
            let Some((key, value)) = line.split_once('=') else { continue };
            if key == "UidMap" {
                let numbers: Vec<u64> = value.split_whitespace().filter_map(|n| n.parse().ok()).collect();
                map.extend(<[u64; 3]>::try_from(numbers).ok());
            }
            facts.insert(key.into(), value.into());
            if key == "Root" {
                break;
            }
        }
        if facts.is_empty() {
            return Err(CliError::new("the demo's container did not start; what it said is above"));
        }
        let record = engine.find(&name)?;
        let state = State::observe(&engine.dirs, &record.id)?;
        let run = state.run.ok_or_else(|| CliError::new("the demo's container ended too early"))?;
        let outside_uid = uid_of(run.process.pid);
        let namespace = fs::File::open(format!("/proc/{}/ns/user", run.process.pid)).ok();
        let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        let word =
            |key: &str| facts.get(key).and_then(|v| v.split_whitespace().next()).unwrap_or("?").to_string();
        Ok(Self {
            engine_name: engine.user.name.clone(),
            engine_is_root: !engine.user.is_rootless(),
            inside_uid: word("Uid"),
            outside_name: outside_uid.parse().ok().and_then(host_user),
            outside_uid,
            monitor_uid: uid_of(run.monitor.pid),
            owner: namespace.and_then(|file| unroot_sys::ns::owner_uid(file).ok()),
            own_namespace: link(&run.process.pid.to_string()) != link("self"),
            map,
            capabilities: u64::from_str_radix(&word("CapEff"), 16).unwrap_or(0),
            no_new_privileges: word("NoNewPrivs") == "1",
            seccomp: word("Seccomp") == "2",
        })
    }

    fn picture(&self, title: &str, paint: &Paint) -> String {
        let inside =
            format!("uid {} ({})", self.inside_uid, if self.inside_uid == "0" { "root" } else { "sync" });
        let outside =
            format!("uid {} ({})", self.outside_uid, self.outside_name.as_deref().unwrap_or("nobody's"));
        let mut text = format!("\n {}\n", paint.head(&format!("{} {title}", unroot_engine::program())));
        let bar = "─".repeat(35);
        text += &format!(
            " ┌{bar}┐   ┌{bar}┐\n │ {:<33} │   │ {:<33} │\n ├{bar}┤   ├{bar}┤\n",
            "inside the container", "outside, on the host"
        );
        let rows = [
            (format!("process   {inside}"), format!("process   {outside}")),
            ("pid       1".to_string(), format!("engine    {}", self.engine_name)),
            (String::new(), format!("monitor   uid {}", self.monitor_uid)),
        ];
        for (left, right) in rows {
            text += &format!(" │ {left:<33} │   │ {right:<33} │\n");
        }
        text += &format!(" └{bar}┘   └{bar}┘\n   ids");
        for (n, [first, outside, length]) in self.map.iter().take(4).enumerate() {
            let range = |start: u64| {
                if *length == 1 { start.to_string() } else { format!("{start}..{}", start + length - 1) }
            };
            let mark = if self
                .outside_uid
                .parse::<u64>()
                .is_ok_and(|uid| (*outside..outside + length).contains(&uid))
            {
                " ◀ this process"
            } else {
                ""
            };
            text += &format!(
                "{}{:>16} ━━▶ {:<24}{mark}\n",
                if n == 0 { "" } else { "      " },
                range(*first),
                range(*outside)
            );
        }
        text += &self.defence(paint);
        text
    }

    fn defence(&self, paint: &Paint) -> String {
        let held: Vec<&str> = capability::NAMES
            .iter()
            .enumerate()
            .filter(|(n, _)| self.capabilities & (1 << n) != 0)
            .map(|(_, name)| *name)
            .collect();
        let scope = match (self.own_namespace, self.owner) {
            (true, Some(uid)) => {
                format!("over a user namespace of uid {uid} ({})", host_user(uid).unwrap_or_default())
            }
            (true, None) => "over a user namespace of its own".into(),
            (false, _) => "over the host".into(),
        };
        let mark = |good: bool| if good { paint.good("✔") } else { paint.bad("✘") };
        let capabilities = if held.is_empty() {
            "no capabilities".to_string()
        } else {
            format!("{} capabilities, {scope}", held.len())
        };
        format!(
            "   defence\n      {} engine is not root         {} process inside is not root\n      {} {capabilities}\n      {} seccomp filter             {} no_new_privs\n",
            mark(!self.engine_is_root),
            mark(self.inside_uid != "0"),
            mark(held.is_empty() || self.own_namespace),
            mark(self.seccomp),
            mark(self.no_new_privileges),
        )
    }
}

fn uid_of(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|l| l.strip_prefix("Uid:")?.split_whitespace().nth(1).map(str::to_string))
        .unwrap_or_else(|| "?".into())
}

fn conclusion(verdicts: &[(bool, bool, String)], paint: &Paint) -> String {
    let text = match verdicts {
        [(true, ..), ..] => paint.bad(" The engine is root: whoever breaks out of the first container is root on the host.\n The same as an ordinary user is safer; try it.").replace(" on the host.\n", " here.\n"),
        [(false, _, first), (_, _, second)] => paint.good(&format!(" Nothing is root on the host. A break-out of the first container gets uid {first},\n which is you; of the second uid {second}, which owns nothing: two layers.")),
        _ => String::new(),
    };
    format!("\n{text}\n\n")
}
