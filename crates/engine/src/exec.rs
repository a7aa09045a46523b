//! A further process in a running container.

use std::os::fd::AsFd as _;

use unroot_monitor::attach::{self, Outcome};
use unroot_monitor::log::Writer;
use unroot_monitor::session;
use unroot_monitor::terminal::DetachKeys;
use unroot_monitor::{Checks, Config, Started, Stdin};
use unroot_runtime::Stdio;
use unroot_runtime::exec::{Request, Running};
use unroot_runtime::spec::{Process, User};

use crate::capabilities;
use crate::dirs::make_dir;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::record::Record;
use crate::start::monitor_error;
use crate::state::State;
use crate::users::{self, RootView};

/// What `exec` was asked for.
#[derive(Clone, Debug, Default)]
pub struct ExecSpec {
    /// The command.
    pub command: Vec<String>,
    /// `-e`, `--env-file`.
    pub env: Vec<(String, String)>,
    /// `-u`.
    pub user: Option<String>,
    /// `-w`.
    pub workdir: Option<String>,
    /// `-t`.
    pub terminal: bool,
    /// `-i`.
    pub interactive: bool,
    /// `-d`.
    pub detach: bool,
    /// The session's id.
    pub session: String,
    /// `--privileged`.
    pub privileged: bool,
    /// `--preserve-fds`, `--preserve-fd`.
    pub preserved_fds: Vec<u32>,
    /// `--detach-keys`.
    pub detach_keys: DetachKeys,
}

impl Engine {
    /// Runs a command in a container; its exit code.
    pub fn exec(&self, record: &Record, spec: &ExecSpec) -> Result<Outcome> {
        if spec.detach {
            let running = self.spawn_exec(record, spec, Stdio::default()).map_err(Error::engine)?;
            self.dirs.events.container("exec", record);
            // (one that has ended already needs no note)
            crate::sessions::living(&self.dirs, &record.id);
            let _ = crate::sessions::note(&self.dirs, &record.id, &spec.session, &running.pidfd);
            return Ok(Outcome::Detached);
        }
        if spec.terminal {
            return self.exec_on_terminal(record, spec);
        }
        let mut ends = session::pipes(spec.interactive).map_err(Error::engine)?;
        let [stdin, stdout, stderr] = std::mem::take(&mut ends.process);
        let running = self.spawn_exec(record, spec, Stdio { stdin, stdout, stderr })?;
        self.dirs.events.container("exec", record);
        let forward = |signal: i32| {
            if let Some(signal) = unroot_sys::signal::signal_from_raw(signal) {
                let _ = rustix::process::pidfd_send_signal(&running.pidfd, signal);
            }
        };
        let options = session::Options { stdin: spec.interactive, forward: &forward };
        let outcome =
            session::run(&running.pidfd, ends.stdin, ends.outputs, options).map_err(Error::engine)?;
        if let Outcome::Exited(code) = outcome {
            self.session_died(record, code);
        }
        Ok(outcome)
    }

    /// Between the command and a process with a terminal is a monitor of its own: the session goes on when the user
    /// detaches from it, or the command is killed.
    fn exec_on_terminal(&self, record: &Record, spec: &ExecSpec) -> Result<Outcome> {
        let directory = self.dirs.run_container(&record.id).join("exec").join(&spec.session);
        make_dir(&directory)?;
        let config = Config {
            directory: directory.clone(),
            log: Writer::default(),
            stdin: if spec.interactive { Stdin::Attached } else { Stdin::Null },
            terminal: true,
            passthrough: false,
            timeout: None,
            attached: true,
            notify: None,
            kept: Vec::new(),
        };
        let mut socket = unroot_monitor::fork(
            config,
            |_| {
                let running = self
                    .spawn_exec(record, spec, Stdio::default())
                    .map_err(|e| (e.exit_code(), e.to_string()))?;
                let _ = crate::sessions::note(&self.dirs, &record.id, &spec.session, &running.pidfd);
                let pid = crate::sessions::pid_of(&running.pidfd).unwrap_or(0);
                Ok(Started { pidfd: running.pidfd, pid, terminal: running.terminal, held: None, asked: None })
            },
            |exit| {
                self.session_died(record, exit.code);
                None
            },
            || {
                let _ = std::fs::remove_dir_all(&directory);
                crate::sessions::living(&self.dirs, &record.id);
            },
            Checks { next: &mut || None, act: &|| () },
        )
        .map_err(monitor_error)?;
        attach::wait_started(&mut socket).map_err(monitor_error)?;
        self.dirs.events.container("exec", record);
        let options = attach::Options {
            stdin: spec.interactive,
            terminal: true,
            stdout: true,
            stderr: true,
            detach_keys: spec.detach_keys.clone(),
            forward: None,
        };
        attach::run(socket, options).map_err(monitor_error)
    }

    fn session_died(&self, record: &Record, code: i32) {
        let died = crate::events::Event::of_container("exec_died", record);
        self.dirs.events.emit(crate::events::Event { exit_code: Some(code), ..died });
    }

    /// Starts a command in a container.
    pub(crate) fn spawn_exec(&self, record: &Record, spec: &ExecSpec, stdio: Stdio) -> Result<Running> {
        let state = State::observe(&self.dirs, &record.id)?;
        if state.status == crate::Status::Paused {
            return Err(Error::state(format_args!(
                "can only create exec sessions on running containers: container {} is paused: container state improper",
                record.id
            ))
            .with_hint(format_args!("{} unpause {}", crate::program(), record.name)));
        }
        let runs = state.status != crate::Status::Initialized;
        let init = state.process().filter(|_| runs);
        let Some((init, handle_of_init)) = init.and_then(|i| Some((i, crate::stop::open_process(i)?))) else {
            return Err(Error::state(
                "can only create exec sessions on running containers: container state improper",
            ));
        };
        let process = self.exec_process(record, init.pid, spec)?;
        let profile = if spec.privileged {
            unroot_runtime::seccomp::Profile::Unconfined
        } else {
            crate::start::profile_of(record)
        };
        let cgroup = state
            .run
            .as_ref()
            .and_then(|r| r.cgroup.as_ref())
            .and_then(|p| unroot_cgroup::Cgroup::open(p.as_ref()));
        if let Some(cgroup) = &cgroup {
            let _ = cgroup.approach(self.user.uid).inspect_err(|e| log::info!("{e}"));
        }
        let handle = cgroup.as_ref().and_then(|c| c.handle().ok());
        let request = Request {
            init: init.pid,
            handle: handle_of_init.as_fd(),
            process: &process,
            seccomp: &profile,
            cgroup: handle.as_ref().map(|h| h.as_fd()),
            preserved_fds: &spec.preserved_fds,
            survives: spec.detach,
        };
        let failed = |e| match e {
            unroot_runtime::Error::Start(start) => Error::new(
                match start.exit_code {
                    126 => ErrorKind::NotExecutable,
                    127 => ErrorKind::CommandNotFound,
                    _ => ErrorKind::Engine,
                },
                start.text,
            ),
            other => Error::engine(other),
        };
        unroot_runtime::exec::spawn(&request, stdio).map_err(failed).map_err(|e| {
            match cgroup.as_ref().and_then(unroot_cgroup::Cgroup::full) {
                Some(most) => e.with_hint(format_args!(
                    "the container has all the processes that it may have; for more than {most}: {} update \
                     --pids-limit=NUMBER {}",
                    crate::program(),
                    record.name
                )),
                None => e,
            }
        })
    }

    fn exec_process(&self, record: &Record, init: u32, spec: &ExecSpec) -> Result<Process> {
        let image = record.image.as_ref().and_then(|i| self.store.image_by_id(&i.id).ok().flatten());
        let config = image.map(|i| i.config.config).unwrap_or_default();
        let view = RootView::new(&[format!("/proc/{init}/root").into()]);
        let user = match &spec.user {
            Some(user) => users::resolve(&view, user, &record.spec.process.groups)?,
            None => self.process_user(record, &view, &config)?,
        };
        // whoever the container's own process is has the groups that it was given
        let mut user = user;
        let main = self.process_user(record, &view, &config)?;
        if main.uid == user.uid && !spec.user.as_ref().is_some_and(|u| u.contains(':')) {
            user.groups = main.groups;
        }
        let in_user_namespace = record.maps.is_some() || self.user.is_rootless();
        let security = &record.spec.security;
        let available = limits::own_capabilities(in_user_namespace);
        let capabilities = capabilities::sets(security, spec.privileged, user.uid, available)?;
        Ok(Process {
            terminal: spec.terminal,
            env: exec_env(
                record,
                &self.host_name_of(record),
                &config,
                &crate::secrets::variables(&self.dirs, record)?,
                spec,
                user.home.as_deref(),
            ),
            user: User {
                uid: user.uid,
                gid: user.gid,
                umask: Some(record.spec.process.umask.unwrap_or(0o022)),
                additional_gids: user.groups,
            },
            args: spec.command.clone(),
            cwd: spec.workdir.clone().or_else(|| record.spec.process.workdir.clone()).unwrap_or_else(|| {
                if config.working_dir.is_empty() { "/".into() } else { config.working_dir.clone() }
            }),
            make_cwd: false,
            keep_groups: record.spec.process.groups.iter().any(|g| g == users::KEEP_GROUPS),
            capabilities,
            rlimits: crate::plan::rlimits(&record.spec, &limits::host_rlimits(), in_user_namespace),
            no_new_privileges: security
                .options
                .iter()
                .any(|o| o.starts_with("no-new-privileges") && !o.ends_with("false")),
            oom_score_adj: None,
        })
    }
}

impl Engine {
    /// The variables of a container's process, but for secrets.
    pub fn variables_of(&self, record: &Record, config: &unroot_store::Config) -> Vec<String> {
        let image = self.image_of(record).ok().flatten();
        let view = self.root_view(&record.spec, image.as_ref(), Some(&record.id));
        let user = view.and_then(|view| self.process_user(record, &view, config));
        let host_name = self.host_name_of(record);
        exec_env(
            record,
            &host_name,
            config,
            &[],
            &ExecSpec::default(),
            user.ok().and_then(|u| u.home).as_deref(),
        )
    }
}

fn exec_env(
    record: &Record,
    host_name: &str,
    config: &unroot_store::Config,
    secrets: &[(String, String)],
    spec: &ExecSpec,
    home: Option<&str>,
) -> Vec<String> {
    let mut all: Vec<(String, String)> = vec![
        ("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
        ("container".into(), "podman".into()),
    ];
    let mut set = |name: &str, value: &str| match all.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value.into(),
        None => all.push((name.into(), value.into())),
    };
    if spec.terminal || record.spec.process.terminal {
        set("TERM", "xterm");
    }
    let process = &record.spec.process;
    process.default_env.iter().for_each(|(n, v)| set(n, v));
    config.env.iter().filter_map(|e| e.split_once('=')).for_each(|(n, v)| set(n, v));
    process.host_env.iter().chain(&process.env).for_each(|(n, v)| set(n, v));
    secrets.iter().for_each(|(n, v)| set(n, v));
    let given = |name: &str| process.env.iter().any(|(known, _)| known == name);
    all.retain(|(name, _)| given(name) || !(process.unset_env_all || process.unset_env.contains(name)));
    // (who gave one of them means it)
    for (name, value) in [("HOSTNAME", host_name), ("HOME", home.unwrap_or("/"))] {
        if !all.iter().any(|(known, _)| known == name) && !process.unset_env.iter().any(|u| u == name) {
            all.push((name.into(), value.into()));
        }
    }
    for (name, value) in &spec.env {
        all.retain(|(known, _)| known != name);
        all.push((name.clone(), value.clone()));
    }
    all.into_iter().map(|(n, v)| format!("{n}={v}")).collect()
}
