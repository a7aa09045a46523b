//! `--publish`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use crate::{Error, invalid};

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// One published port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMap {
    /// Address of the host; none is all of them.
    pub host_ip: Option<IpAddr>,
    /// Port of the host; 0 is any free one.
    pub host: u16,
    /// Port in the container.
    pub container: u16,
    /// What it speaks.
    pub protocol: Protocol,
}

impl PortMap {
    /// `[[IP:][HOST[-LAST]]:]CONTAINER[-LAST][/PROTOCOL]`, a port each.
    pub fn parse(text: &str) -> Result<Vec<Self>, Error> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocols = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => vec![Protocol::Tcp],
            "udp" => vec![Protocol::Udp],
            "sctp" => return invalid(format!("publish {text}: pasta does not forward sctp")),
            other => return invalid(format!("unrecognized protocol \"{other}\" in port mapping")),
        };
        let (ip, rest) = match ports.strip_prefix('[') {
            Some(rest) => {
                let (ip, rest) = rest.split_once("]:").ok_or_else(|| {
                    Error::Invalid(format!(
                        "invalid port format {text:?}: an IPv6 address is [ADDRESS]:HOST:CONTAINER"
                    ))
                })?;
                (Some(ip), rest)
            }
            None => match ports.matches(':').count() {
                0 | 1 => (None, ports),
                2 => ports.split_once(':').map_or((None, ports), |(ip, rest)| (Some(ip), rest)),
                _ => {
                    return invalid(format!(
                        "invalid port format {text:?}: it is [[IP:][HOST]:]CONTAINER[/PROTOCOL]; an IPv6 address goes in brackets"
                    ));
                }
            },
        };
        let host_ip = match ip {
            None | Some("") => None,
            Some(ip) => Some(
                ip.parse().map_err(|_| Error::Invalid(format!("cannot parse {ip:?} as an IP address")))?,
            ),
        };
        let (host, container) = rest.split_once(':').unwrap_or(("", rest));
        let (container_first, container_last) = range(container, "container")?;
        let (host_first, host_last) = match host {
            "" | "0" => (0, 0),
            host => range(host, "host")?,
        };
        if container_first == 0 {
            return invalid("container port cannot be 0");
        }
        if host_first != 0 && host_last - host_first != container_last - container_first {
            return invalid(format!(
                "host and container port ranges have different lengths: {} vs {}",
                host_last - host_first + 1,
                container_last - container_first + 1
            ));
        }
        Ok((container_first..=container_last)
            .flat_map(|port| protocols.iter().map(move |protocol| (port, *protocol)))
            .map(|(port, protocol)| Self {
                host_ip,
                host: if host_first == 0 { 0 } else { host_first + (port - container_first) },
                container: port,
                protocol,
            })
            .collect())
    }

    /// Finds free ports for those that may be any, and refuses those that are there twice.
    pub fn settle(ports: &mut [Self]) -> Result<(), Error> {
        for n in 0..ports.len() {
            if ports[n].host == 0 {
                ports[n].host = ports[n].free_port()?;
            }
            let port = &ports[n];
            let twice = ports[..n].iter().find(|p| {
                (p.host, p.protocol) == (port.host, port.protocol)
                    && (p.host_ip == port.host_ip || p.host_ip.is_none() || port.host_ip.is_none())
            });
            if let Some(other) = twice {
                if other.container == port.container && other.host_ip == port.host_ip {
                    continue;
                }
                return invalid(format!(
                    "conflicting port mappings for host port {} (protocol {})",
                    port.host, port.protocol
                ));
            }
        }
        Ok(())
    }

    fn free_port(&self) -> Result<u16, Error> {
        let bound = self.bind(0).map(|a| a.port());
        bound.map_err(|e| Error::Invalid(format!("finding a free port for {self}: {e}")))
    }

    /// Whether this process could have it.
    fn bind(&self, port: u16) -> io::Result<SocketAddr> {
        let address = SocketAddr::new(self.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port);
        match self.protocol {
            Protocol::Tcp => TcpListener::bind(address).and_then(|s| s.local_addr()),
            Protocol::Udp => UdpSocket::bind(address).and_then(|s| s.local_addr()),
        }
    }

    /// This user may not have it, whoever else has it.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.bind(self.host).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Waits for ports that nobody may have any more: the kernel closes a killed process's sockets when it comes to it.
pub fn wait_free(ports: impl Iterator<Item = PortMap>, most: Duration) {
    let end = Instant::now() + most;
    for port in ports {
        let is_taken = || port.bind(port.host).is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse);
        while is_taken() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// As it is written in `-p`, settled.
impl fmt::Display for PortMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => {}
        }
        write!(f, "{}:{}/{}", self.host, self.container, self.protocol)
    }
}

fn range(text: &str, which: &str) -> Result<(u16, u16), Error> {
    let port = |text: &str| {
        text.parse::<u16>().map_err(|_| {
            Error::Invalid(format!("cannot parse {text:?} as a {which} port: it is a number up to 65535"))
        })
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if last < first {
        return invalid(format!("invalid range of {which} ports: {text} ends before it begins"));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::PortMap;

    fn parse(text: &str) -> String {
        match PortMap::parse(text) {
            Ok(ports) => ports.iter().map(|p| p.to_string()).collect::<Vec<_>>().join(" "),
            Err(e) => format!("error: {e}"),
        }
    }

    #[test]
    fn forms() {
        assert_eq!(parse("80"), "0:80/tcp");
        assert_eq!(parse("8080:80/udp"), "8080:80/udp");
        assert_eq!(parse("127.0.0.1:8080:80"), "127.0.0.1:8080:80/tcp");
        assert_eq!(parse("127.0.0.1::80"), "127.0.0.1:0:80/tcp");
        assert_eq!(parse("[::1]:8080:80"), "[::1]:8080:80/tcp");
        assert_eq!(parse("8000-8001:80-81"), "8000:80/tcp 8001:81/tcp");
        for wrong in ["", "x", "80:", "99999", "8000-8001:80", "1:2:3:4", "80/xyz", "81-80", "a:1:2"] {
            assert!(parse(wrong).starts_with("error"), "{wrong}: {}", parse(wrong));
        }
    }
}
