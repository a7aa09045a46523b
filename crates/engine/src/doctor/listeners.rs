//! Published ports that nobody can reach: the program in the container listens on the loopback of its namespace alone, or
//! not at all. ("Connection reset by peer")

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use unroot_network::{PortMap, Protocol};

use super::{Group, Health};
use crate::engine::Engine;
use crate::record;
use crate::state::State;

/// A socket that waits for connections.
#[derive(Clone, Debug, PartialEq)]
struct Listener {
    address: IpAddr,
    port: u16,
    inode: u64,
}

pub(super) fn look(group: &mut Group, engine: &Engine) {
    let published = record::all(&engine.dirs).unwrap_or_default().into_iter().filter(|r| !r.ports.is_empty());
    for record in published {
        let process = State::observe(&engine.dirs, &record.id).ok().and_then(|s| s.process());
        let Some(pid) = process.map(|p| p.pid) else { continue };
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
        let listeners = [parse(&read("tcp")), parse(&read("tcp6"))].concat();
        for port in record.published().filter(|p| p.protocol == Protocol::Tcp) {
            judge(group, &record.name, pid, &port, &listeners);
        }
    }
}

fn judge(group: &mut Group, name: &str, pid: u32, port: &PortMap, listeners: &[Listener]) {
    let there: Vec<&Listener> = listeners.iter().filter(|l| l.port == port.container).collect();
    let evidence = format!("/proc/{pid}/net/tcp, tcp6: {} listeners on port {}", there.len(), port.container);
    if there.is_empty() {
        let text = format!(
            "port {} of the host leads to port {} of {name}, where nobody listens (yet)",
            port.host, port.container
        );
        group.add("listener", Health::Note, text, evidence);
    } else if let Some(first) = there.first().filter(|_| there.iter().all(|l| l.address.is_loopback())) {
        let who = owner(pid, first.inode).unwrap_or_else(|| "its program".into());
        let text = format!(
            "port {} of the host leads to port {} of {name}, where {who} listens on {} only: connections from other machines are reset",
            port.host, port.container, first.address
        );
        let cure = format!("have it listen on 0.0.0.0:{} (or [::]:{0}) in the container", port.container);
        group.add("listener", Health::Warning, text, evidence).cured_by(cure);
    }
}

/// Lines of proc_pid_net(5)'s tcp and tcp6 in state 0A, LISTEN.
fn parse(table: &str) -> Vec<Listener> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = words.get(1)?.split_once(':')?;
        (words.get(3) == Some(&"0A")).then_some(())?;
        Some(Listener {
            address: parse_address(address)?,
            port: u16::from_str_radix(port, 16).ok()?,
            inode: words.get(9)?.parse().ok()?,
        })
    };
    table.lines().filter_map(line).collect()
}

/// Words of 32 bits, each as the machine has it.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |n: usize| u32::from_str_radix(hex.get(n * 8..n * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let bytes: Vec<u8> = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
            Some(address.to_ipv4_mapped().map_or(address.into(), IpAddr::from))
        }
        _ => None,
    }
}

/// Which process of the same network has the socket: its number in the container, and its name.
fn owner(pid: u32, inode: u64) -> Option<String> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let own = namespace(&pid.to_string())?;
    let wanted = format!("socket:[{inode}]");
    let has_it = |pid: &str| {
        let mut files = fs::read_dir(format!("/proc/{pid}/fd")).ok().into_iter().flatten().flatten();
        files.any(|f| fs::read_link(f.path()).is_ok_and(|l| l == Path::new(&wanted)))
    };
    let numbers = fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().into_string().ok());
    let found = numbers
        .filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
        .find(|n| namespace(n).as_ref() == Some(&own) && has_it(n))?;
    let status = fs::read_to_string(format!("/proc/{found}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    let inside = field("NSpid")?.split_whitespace().next_back()?;
    let name: String = field("Name")?.trim().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    Some(format!("pid {inside} ({name})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_apart() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0\n   1: 0100007F:1F91 0100007F:1000 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0 100 0 0 10 0\n";
        let found = parse(table);
        assert_eq!(found, [Listener { address: Ipv4Addr::LOCALHOST.into(), port: 8080, inode: 4242 }]);
        assert_eq!(parse_address("00000000000000000000000001000000"), Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(parse_address("0000000000000000FFFF00000100007F"), Some(Ipv4Addr::LOCALHOST.into()));
        let port = &PortMap::parse("18080:8080").unwrap()[0];
        let judged = |listeners: &[Listener]| {
            let mut group = Group::new("network");
            judge(&mut group, "web", 0, port, listeners);
            group.found.iter().map(|f| f.health).collect::<Vec<_>>()
        };
        let on = |address: IpAddr| Listener { address, port: 8080, inode: 0 };
        assert_eq!(judged(&[]), [Health::Note]);
        assert_eq!(judged(&[on(Ipv4Addr::LOCALHOST.into())]), [Health::Warning]);
        assert_eq!(judged(&[on(Ipv4Addr::LOCALHOST.into()), on(Ipv4Addr::UNSPECIFIED.into())]), []);
    }
}
