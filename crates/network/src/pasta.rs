//! pasta(1): a container's own network without privileges. It copies the host's addresses and routes into the
//! container's namespace and moves packets through sockets of the host. It goes into the background when it is
//! ready, and ends by itself with the namespace.

use std::fs;
use std::path::{Path, PathBuf};

use unroot_sys::beside::Program;
use unroot_sys::path::find_program;
use unroot_sys::process::Strings;

use crate::{Error, PortMap, Protocol, invalid};

/// The address at which pasta answers name queries for the host's resolver.
pub const DNS_FORWARD: &str = "169.254.1.1";
/// The address at which pasta shows the host.
pub const HOST_ADDRESS: &str = "169.254.1.2";

/// The value of an option of pasta(1) among those of the user, who writes it as one word or as two.
pub fn value_of<'a>(options: &'a [String], names: &[&str]) -> Option<&'a str> {
    options.iter().enumerate().rev().find_map(|(at, option)| match option.split_once('=') {
        Some((name, value)) => names.contains(&name).then_some(value),
        None if names.contains(&option.as_str()) => options.get(at + 1).map(String::as_str),
        None => None,
    })
}

/// Where its number is, in the directory that it is started for.
pub const PASTA_PID: &str = "pasta.pid";

/// A pasta that is starting: until it is ready it ends with whoever has started it.
#[derive(Debug)]
pub struct Pasta {
    program: Program,
    pidfile: PathBuf,
    ports: Vec<PortMap>,
}

impl Pasta {
    /// Starts it for the network namespace of a process.
    pub fn start(
        netns: &Path,
        directory: &Path,
        ports: &[PortMap],
        options: &[String],
    ) -> Result<Self, Error> {
        let own = || directory.join(PASTA_PID);
        let pidfile = value_of(options, &["--pid", "-P"]).map_or_else(own, PathBuf::from);
        let has = |names: &[&str]| options.iter().any(|o| names.contains(&o.split('=').next().unwrap_or(o)));
        let mut words = vec!["pasta".to_string(), "--config-net".into()];
        let mut add = |more: &[&str]| words.extend(more.iter().map(|w| w.to_string()));
        if !has(&["--pid", "-P"]) {
            add(&["--pid", &pidfile.to_string_lossy()]);
        }
        if !has(&["--dns-forward"]) {
            add(&["--dns-forward", DNS_FORWARD]);
        }
        for (flags, protocol) in
            [(["-t", "--tcp-ports"], Protocol::Tcp), (["-u", "--udp-ports"], Protocol::Udp)]
        {
            let mut any = has(&flags);
            for port in ports.iter().filter(|p| p.protocol == protocol) {
                any = true;
                add(&[flags[0], &forward(port)]);
            }
            if !any {
                add(&[flags[0], "none"]);
            }
        }
        for flags in [["-T", "--tcp-ns"], ["-U", "--udp-ns"]] {
            if !has(&flags) {
                add(&[flags[0], "none"]);
            }
        }
        if !has(&["--map-gw", "--no-map-gw"]) {
            add(&["--no-map-gw"]);
        }
        for option in options.iter().filter(|o| *o != "--map-gw") {
            match option.split_once('=') {
                Some((flag, value)) if flag.starts_with('-') && !flag.starts_with("--") => {
                    add(&[flag, value])
                }
                _ => add(&[option]),
            }
        }
        if rustix::process::getuid().is_root() && !has(&["--runas"]) {
            // as the host's root it would become nobody, who may not open the namespace; in a user namespace its
            // root is the user
            add(&["--runas", "0"]);
        }
        add(&["--quiet", "--netns", &netns.to_string_lossy()]);
        let program = find_program("pasta").ok_or_else(|| Error::Cured {
            text: "could not find pasta, the network namespace can't be configured".into(),
            hint:
                "install it (Debian, Ubuntu, Fedora: package passt), or use --network=none or --network=host"
                    .into(),
        })?;
        let failed =
            |e: unroot_sys::SyscallError| Error::Invalid(format!("start {}: {e}", program.display()));
        let words = Strings::new(&words).map_err(failed)?;
        let program = Program::start(&program, words).map_err(failed)?;
        Ok(Self { program, pidfile, ports: ports.to_vec() })
    }

    /// Waits until it is ready; its pid.
    pub fn wait_ready(self) -> Result<Option<u32>, Error> {
        match self.program.finish() {
            (Some(0), _) => Ok(fs::read_to_string(&self.pidfile).ok().and_then(|t| t.trim().parse().ok())),
            (code, said) => explain(&said, code.unwrap_or(-1), &self.ports),
        }
    }
}

/// `127.0.0.1/8080:80`
fn forward(port: &PortMap) -> String {
    let address = port.host_ip.map_or(String::new(), |ip| format!("{ip}/"));
    let target = if port.host == port.container { String::new() } else { format!(":{}", port.container) };
    format!("{address}{}{target}", port.host)
}

fn explain<T>(said: &str, code: i32, ports: &[PortMap]) -> Result<T, Error> {
    let list = ports.iter().map(|p| p.to_string()).collect::<Vec<_>>().join(", ");
    let low = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|t| t.trim().parse::<u16>().ok())
        .unwrap_or(1024);
    let text = format!("pasta failed with exit code {code}:\n{said}");
    // (pasta does not always say why it could not)
    let failed = said.contains("Permission denied") || said.contains("Failed to bind");
    if failed && ports.iter().any(|p| p.host < low && p.is_forbidden()) {
        let port = ports.iter().map(|p| p.host).min().unwrap_or(0);
        return Err(Error::Cured {
            text: format!(
                "{text}\npublishing {list}: ports below {low} are for root alone (net.ipv4.ip_unprivileged_port_start={low})"
            ),
            hint: format!(
                "a port from {low} on; or as root: sysctl -w net.ipv4.ip_unprivileged_port_start={port}; \
                 or a socket that systemd opens and hands over (systemd.socket(5), ListenStream={port})"
            ),
        });
    }
    if said.contains("Address already in use") || said.contains("Failed to bind") {
        return Err(Error::Cured {
            text: format!("{text}\npublishing {list}: address already in use"),
            hint: "ss -ltnup tells who has the port".into(),
        });
    }
    if said.contains("/dev/net/tun") || said.contains("TUNSETIFF") {
        return Err(Error::Cured {
            text: format!("{text}\n/dev/net/tun is missing or not open to this user"),
            hint: "as root: modprobe tun; chmod 0666 /dev/net/tun".into(),
        });
    }
    invalid(text)
}
