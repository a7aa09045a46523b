//! What a user is told once: when a container is left to itself, what it takes that it goes on.

use std::fs;
use std::path::Path;

use unroot_engine::spec::Restart;
use unroot_engine::{Engine, Record, program};

use crate::verbs::boot;

/// systemd keeps this machine, and its users' sessions.
fn is_managed() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// Containers of an ordinary user end when the last session of theirs does, unless they linger; what cures that.
pub fn linger(engine: &Engine) -> Option<String> {
    let name = &engine.user.name;
    let lingers = Path::new("/var/lib/systemd/linger").join(name).exists();
    (engine.user.is_rootless() && is_managed() && !lingers).then(|| {
        format!("containers of {name} end when {name} logs out; to keep them: loginctl enable-linger {name}")
    })
}

/// A container goes on after the command.
pub fn after_detaching(engine: &Engine, record: &Record) {
    if let Some(hint) = linger(engine) {
        once(engine, "linger", &hint);
    }
    let policy = record.spec.life.restart;
    if matches!(policy, Restart::Always | Restart::UnlessStopped) && is_managed() && !boot::is_enabled(engine)
    {
        let hint = format!(
            "after a boot containers with --restart={policy} are started by a unit: {} system boot enable",
            program()
        );
        once(engine, "boot", &hint);
    }
}

fn once(engine: &Engine, name: &str, hint: &str) {
    let dir = engine.dirs.root.join("hints");
    let _ = fs::create_dir_all(&dir);
    if fs::File::create_new(dir.join(name)).is_ok() {
        unroot_engine::say(format_args!("hint: {hint}"));
    }
}
