//! `system boot enable`, `disable`, `start`, `stop`

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use unroot_engine::Engine;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::hints;
use crate::output;
use crate::verbs::{Verb, each};

/// The unit.
const UNIT: &str = "unroot-boot.service";

pub const ENABLE: Verb = Verb {
    names: &["system boot enable"],
    usage: "[options]",
    about: "Have systemd start at boot what should run: restart policies always and unless-stopped",
    flags: || vec![flag("print", ' ', Kind::Bool, "Only show the unit")],
    interspersed: true,
    count: (0, 0),
    run: enable,
};

pub const DISABLE: Verb = Verb {
    names: &["system boot disable"],
    usage: "",
    about: "Take that back",
    flags: Vec::new,
    interspersed: true,
    count: (0, 0),
    run: disable,
};

pub const START: Verb = Verb {
    names: &["system boot start"],
    usage: "",
    about: "Start what should run, as at boot",
    flags: Vec::new,
    interspersed: true,
    count: (0, 0),
    run: |global, _| {
        let engine = global.engine()?;
        let done = engine.start_after_boot()?;
        each(done.into_iter().map(Ok).collect(), |(record, result)| {
            result.map_err(|e| {
                let hint = e.hint().map(str::to_string);
                let error = CliError::new(format!("starting container {}: {e}", record.name));
                hint.into_iter().fold(error, |error, hint| error.with_hint(hint))
            })?;
            Ok(Some(record.name))
        })
    },
};

pub const STOP: Verb = Verb {
    names: &["system boot stop"],
    usage: "",
    about: "Stop what will be started at the next boot",
    flags: Vec::new,
    interspersed: true,
    count: (0, 0),
    run: |global, _| {
        let engine = global.engine()?;
        engine.stop_before_shutdown()?.iter().for_each(|r| output::line(&r.name));
        Ok(0)
    },
};

/// Where units of this user are.
pub fn unit_dir(engine: &Engine) -> PathBuf {
    if !engine.user.is_rootless() {
        return "/etc/systemd/system".into();
    }
    let own = std::env::var_os("XDG_CONFIG_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    own.unwrap_or_else(|| engine.user.home.join(".config")).join("systemd/user")
}

/// The unit is there.
pub fn is_enabled(engine: &Engine) -> bool {
    unit_dir(engine).join(UNIT).exists()
}

fn target(engine: &Engine) -> &'static str {
    if engine.user.is_rootless() { "default.target" } else { "multi-user.target" }
}

/// A word of a command in a unit, systemd.service(5).
fn quoted(word: &Path) -> String {
    let text = word
        .to_string_lossy()
        .replace('%', "%%")
        .replace('$', "$$")
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    match text.contains(char::is_whitespace) || text != word.to_string_lossy() {
        true => format!("\"{text}\""),
        false => text,
    }
}

fn unit(global: &Global, engine: &Engine) -> Result<String, CliError> {
    let program =
        std::env::current_exe().map_err(|e| CliError::new(format!("readlink /proc/self/exe: {e}")))?;
    let mut command = quoted(&program);
    for (name, dir) in [("--root", &global.root), ("--runroot", &global.run)] {
        if let Some(dir) = dir {
            command += &format!(" {name} {}", quoted(dir));
        }
    }
    let network = match engine.user.is_rootless() {
        // (the manager of a user knows no units of the system)
        true => "",
        false => "Wants=network-online.target\nAfter=network-online.target\n",
    };
    Ok(format!(
        "[Unit]
Description=Containers that should run (unroot)
{network}
[Service]
Type=oneshot
RemainAfterExit=yes
Delegate=yes
ExecStart={command} system boot start
ExecStop={command} system boot stop
TimeoutStartSec=infinity
TimeoutStopSec=120

[Install]
WantedBy={}
",
        target(engine)
    ))
}

fn enable(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let unit = unit(global, &engine)?;
    if args.is("print") {
        output::raw(unit.as_bytes());
        return Ok(0);
    }
    let dir = unit_dir(&engine);
    let wants = dir.join(format!("{}.wants", target(&engine)));
    let failed = |path: &Path, e: io::Error| {
        CliError::new(format!("write {}: {}", path.display(), unroot_engine::plan::reason(&e)))
    };
    fs::create_dir_all(&wants).map_err(|e| failed(&wants, e))?;
    let path = dir.join(UNIT);
    fs::write(&path, unit).map_err(|e| failed(&path, e))?;
    let link = wants.join(UNIT);
    match symlink(&path, &link) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&link, e)),
        _ => {}
    }
    reload(&engine);
    output::line(path.display());
    if let Some(hint) = hints::linger(&engine) {
        unroot_engine::say(format_args!("hint: {hint}"));
    }
    Ok(0)
}

fn disable(global: &Global, _: &Args) -> Outcome {
    let engine = global.engine()?;
    let dir = unit_dir(&engine);
    for path in [dir.join(format!("{}.wants", target(&engine))).join(UNIT), dir.join(UNIT)] {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(CliError::new(format!(
                    "remove {}: {}",
                    path.display(),
                    unroot_engine::plan::reason(&e)
                )));
            }
            _ => {}
        }
    }
    reload(&engine);
    Ok(0)
}

/// A manager that is there reads its units again; at boot it does so anyway.
fn reload(engine: &Engine) {
    if Path::new("/run/systemd/system").exists() {
        let user = engine.user.is_rootless().then_some("--user");
        let _ = Command::new("systemctl").args(user).arg("daemon-reload").status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (word, shown) in
            [("/usr/bin/unroot", "/usr/bin/unroot"), ("/a b/c", "\"/a b/c\""), ("/50%", "\"/50%%\"")]
        {
            assert_eq!(quoted(Path::new(word)), shown);
        }
    }
}
