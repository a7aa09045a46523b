//! What the commands mean: containers, images, volumes as life cycles.

mod ancestry;
pub mod boot;
pub mod capabilities;
pub mod changes;
pub mod check;
pub mod commit;
pub mod copy;
pub mod create;
mod denied;
pub mod dependents;
pub mod devices;
pub mod dirs;
pub mod doctor;
mod engine;
mod error;
pub mod events;
pub mod exec;
pub mod foreign;
pub mod health;
pub mod hello;
pub mod hooks;
mod host_tree;
pub mod identity;
pub mod image_mount;
pub mod images;
pub mod journal;
mod launch;
pub mod limits;
mod lock;
pub mod manifests;
pub mod names;
mod netfiles;
pub mod own;
pub mod pause;
pub mod plan;
pub mod pod;
mod processes;
pub mod push;
pub mod record;
pub mod remove;
pub mod rename;
pub mod roots;
pub mod sdnotify;
pub mod secrets;
pub mod sessions;
pub mod size;
pub mod spec;
pub mod start;
pub mod state;
pub mod stats;
pub mod stop;
pub mod top;
pub mod trees;
pub mod trust;
pub mod update;
mod userns;
pub mod users;
pub mod volumes;
pub mod whois;

use std::sync::OnceLock;

pub use engine::Engine;
pub use error::{Context, Error, ErrorKind, Result};
pub use pod::Pod;
pub use record::Record;
pub use state::{State, Status};

static PROGRAM: OnceLock<String> = OnceLock::new();

/// The name by which the program was called, for the commands that hints name.
pub fn program() -> &'static str {
    PROGRAM.get().map_or("unroot", String::as_str)
}

/// Says by which name the program was called; once, at its start.
pub fn set_program(name: &str) {
    let _ = PROGRAM.set(name.to_string());
}

/// Says something on standard error.
pub fn say(text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Warns the user. Only what went on in another way than was asked, and did it safely, is a warning.
pub fn warn(text: std::fmt::Arguments<'_>) {
    log::warn!("{text}");
}
