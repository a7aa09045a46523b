//! End to end: the binary as a user runs it, on real kernels, real images and a real registry.
//!
//! Each test is run as whoever runs the test program: `scripts/test` runs it as root and as an ordinary user.
//! `UNROOT` names the binary, else the one that cargo built. Nothing is skipped in silence: what a mode cannot
//! have is asked with [`host::is_root`] and tested for its error instead.

mod answers;
mod boot;
mod broken_lines;
mod chaos;
mod commit;
mod configured;
mod copy;
mod devices;
mod doctor;
mod events;
mod exec;
mod explain;
mod external;
mod faults;
mod files;
mod foreign;
mod health;
mod host;
mod identity;
mod ids;
mod image_store;
mod images;
mod life;
mod limits;
mod limits_hold;
mod names;
mod network;
mod observed;
mod pod_identity;
mod pod_races;
mod pods;
mod registry;
mod remote;
mod restart;
mod sdnotify;
mod secrets;
mod security;
#[path = "../../../registry/tests/client/server.rs"]
#[expect(dead_code, reason = "the registry client's own tests need more of it")]
mod server;
mod stdio;
mod systemd;
mod transitions;
mod truth;
mod update;
mod userns;
mod verbs;
mod volumes;
mod whois;
