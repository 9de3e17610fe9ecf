//! The addresses as the user writes them, the gateway's and the local one, and the resolution of names.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use anyhow::{Result, anyhow};

use crate::gateway::socket::source_address;

/// The UDP port, the gateway's and the local one, unless another is given.
pub const DEFAULT_PORT: u16 = 5000;

/// The gateway: `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    text: String,
    host: String,
    port: u16,
}

impl Target {
    /// Finds the address; asks the system's resolver if the host is a name. Of several addresses the first is used that this
    /// machine can speak to from `local`; if there is none, the first of the same family.
    ///
    /// # Errors
    ///
    /// The resolver does not know the name, or none of its addresses is of `local`'s family.
    pub fn resolve(&self, local: &LocalAddr) -> Result<SocketAddr> {
        let canonical = |address: SocketAddr| match address.ip().to_canonical() {
            IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
            IpAddr::V6(_) => address,
        };
        let found = (self.host.as_str(), self.port).to_socket_addrs().map_err(|error| {
            anyhow!("cannot resolve {self}: {error}; check the name, or give the gateway's IP address with --target")
        })?;
        let mut addresses: Vec<SocketAddr> = found.map(canonical).collect();
        addresses.retain(|address| local.ip.is_none_or(|ip| ip.is_ipv4() == address.is_ipv4()));
        // The kernel accepts an address it has a route to; nothing is sent.
        let is_reachable = |&&gateway: &&SocketAddr| source_address(local.address(gateway).ip(), gateway).is_ok();
        addresses.iter().find(is_reachable).or(addresses.first()).copied().ok_or_else(|| {
            let family = if local.ip.is_some_and(|ip| ip.is_ipv4()) { "IPv4" } else { "IPv6" };
            anyhow!(
                "{self} has no {family} address, but the local address (--bind or CAN_BIND) is {family}; both must be of \
                 the same family"
            )
        })
    }
}

/// As the user wrote it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const USAGE: &str = "write HOST or HOST:PORT, where HOST is a name, an IPv4 or a bracketed IPv6 address \
                             (with --target or in CAN_TARGET)";
        let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
            let (host, after) = bracketed.split_once(']').ok_or(USAGE)?;
            match after {
                "" => (host, None),
                _ => (host, Some(after.strip_prefix(':').ok_or(USAGE)?)),
            }
        } else if text.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()) {
            return Err("write an IPv6 address in brackets, as in [fd00::1], [fd00::1]:5000 or [fe80::1%eth0] \
                        (with --target or in CAN_TARGET)");
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let plain = |c: char| c.is_ascii_graphic() && !"[]/,;\"'\\".contains(c);
        if host.is_empty() || !host.chars().all(|c| plain(c) || c.is_alphanumeric()) {
            return Err(USAGE);
        }
        // The system would read 10.8.0 as 10.8.0.0.
        if host.chars().all(|c| c.is_ascii_digit() || c == '.') && host.parse::<Ipv4Addr>().is_err() {
            return Err("an IPv4 address is four numbers from 0 to 255 (with --target or in CAN_TARGET)");
        }
        let port = match port {
            None => DEFAULT_PORT,
            // The parser of numbers accepts a sign.
            Some(digits) => Some(digits)
                .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok())
                .filter(|&port| port != 0)
                .ok_or("a port is a number from 1 to 65535 (with --target or in CAN_TARGET)")?,
        };
        Ok(Target { text: text.to_owned(), host: host.to_owned(), port })
    }
}

/// The local address: `IP`, `IP:PORT`, `[IPV6]` or `[IPV6]:PORT`. Port 0 is any free one. The default is the wildcard
/// address of the gateway's family and port [`DEFAULT_PORT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalAddr {
    ip: Option<IpAddr>,
    port: Option<u16>,
}

impl LocalAddr {
    /// The same address with any free port.
    pub fn with_any_port(self) -> LocalAddr {
        LocalAddr { port: Some(0), ..self }
    }

    /// The address to bind for talking to `gateway`.
    pub fn address(&self, gateway: SocketAddr) -> SocketAddr {
        let wildcard = match gateway {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        SocketAddr::new(self.ip.unwrap_or(wildcard), self.port.unwrap_or(DEFAULT_PORT))
    }
}

/// In the form that is parsed; empty for the default.
impl fmt::Display for LocalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ip, self.port) {
            (Some(ip), Some(port)) => write!(f, "{}", SocketAddr::new(ip, port)),
            (Some(ip), None) => write!(f, "{ip}"),
            (None, _) => Ok(()),
        }
    }
}

impl FromStr for LocalAddr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const USAGE: &str = "write IP or IP:PORT, as in 0.0.0.0:5001, [::]:5001 or 192.168.1.7; port 0 is any free \
                             one (with --bind or in CAN_BIND)";
        let (ip, port) = match text.parse::<SocketAddr>() {
            Ok(SocketAddr::V6(address)) if address.scope_id() != 0 => return Err(USAGE),
            Ok(address) => (address.ip(), Some(address.port())),
            Err(_) => {
                let unbracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                match unbracketed.unwrap_or(text).parse::<IpAddr>() {
                    Ok(ip) if unbracketed.is_none() || ip.is_ipv6() => (ip, None),
                    _ => return Err(USAGE),
                }
            }
        };
        // An IPv4-mapped address (::ffff:127.0.0.1) reaches IPv4 gateways.
        Ok(LocalAddr { ip: Some(ip.to_canonical()), port })
    }
}
