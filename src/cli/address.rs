//! The addresses as the user writes them, the gateway's and the local one, and the resolution of names.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use anyhow::{Result, anyhow};

use crate::gateway::socket::{source_address, wildcard};

/// The UDP port, the gateway's and the local one, unless another is given.
pub const DEFAULT_PORT: u16 = 5000;

/// An address as the user wrote it. Without a host, as the default of a local one, it is the wildcard address of the
/// gateway's family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    text: String,
    /// The name or address alone.
    pub(crate) host: String,
    port: Option<u16>,
}

/// The addresses between which a program communicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The gateway's.
    pub gateway: SocketAddr,
    /// Where to bind the socket.
    pub local: SocketAddr,
    /// Further addresses of the gateway's name.
    pub others: Vec<SocketAddr>,
}

impl Address {
    /// Finds the addresses; asks the system's resolver if the host is a name. Of several addresses the first is used that
    /// this machine can speak to from `local`; if there is none, the first of the same family.
    ///
    /// # Errors
    ///
    /// The resolver does not know the name, none of its addresses is of `local`'s family, or a zone is unknown.
    pub fn resolve(&self, local: &Address) -> Result<Resolved> {
        let port = local.port.unwrap_or(DEFAULT_PORT);
        let bind = match local.host.as_str() {
            "" => None,
            host => lookup(host, port).map_err(|why| anyhow!("cannot bind {local}: {why}"))?.first().copied(),
        };
        let local_for = |gateway| bind.unwrap_or_else(|| wildcard(gateway, port));
        let mut found = lookup(&self.host, self.port.unwrap_or(DEFAULT_PORT))
            .map_err(|why| anyhow!("cannot resolve {self}: {why}"))?;
        found.retain(|&gateway| local_for(gateway).is_ipv4() == gateway.is_ipv4());
        if found.is_empty() {
            let family = if bind.is_some_and(|bind| bind.is_ipv4()) { "IPv4" } else { "IPv6" };
            return Err(anyhow!(
                "{self} has no {family} address, but the local address (--bind or CAN_BIND) is {family}; both must be of \
                 the same family"
            ));
        }
        // The kernel accepts an address it has a route to; nothing is sent.
        let reachable = found.iter().position(|&gateway| source_address(local_for(gateway), gateway).is_ok());
        let gateway = found.remove(reachable.unwrap_or(0));
        Ok(Resolved { gateway, local: local_for(gateway), others: found })
    }
}

impl Resolved {
    /// Whether the gateway's address is that of the socket itself, which would receive its own commands.
    pub fn is_own_address(&self) -> bool {
        let is_own = |source| source == self.gateway.ip() || self.gateway.ip().is_unspecified();
        self.local.port() == self.gateway.port() && source_address(self.local, self.gateway).is_ok_and(is_own)
    }
}

/// The addresses of a host, in the resolver's order, or why there are none.
fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let canonical = |address: SocketAddr| match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        IpAddr::V6(_) => address,
    };
    let found = (host, port).to_socket_addrs().map_err(|error| match (ipv6(host), host.split_once('%')) {
        (Some(ip), Some((_, zone))) if ip.is_unicast_link_local() => {
            format!("this machine has no network interface {zone}; see: ip link")
        }
        (Some(ip), _) => format!("{ip} is no link-local address, so it has no zone; leave out what follows the %"),
        _ => format!("{error}; check the name, or give the gateway's IP address with --target"),
    })?;
    Ok(found.map(canonical).collect())
}

/// An IPv6 address, with or without a zone.
fn ipv6(host: &str) -> Option<Ipv6Addr> {
    let (ip, zone) = host.split_once('%').unwrap_or((host, "any"));
    ip.parse().ok().filter(|_| !zone.is_empty())
}

/// Reads `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn parse(text: &str, usage: &'static str) -> Result<Address, &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').filter(|(host, _)| ipv6(host).is_some()).ok_or(usage)?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(usage)?) };
            (host, port)
        }
        None if ipv6(text).is_some() => (text, None),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let is_name = |c: char| c.is_alphanumeric() || c.is_ascii_graphic() && !"[]/,;\"'\\=".contains(c);
    let is_number = host.bytes().all(|digit| digit.is_ascii_digit());
    if is_number || host.starts_with('-') || !host.chars().all(is_name) {
        return Err(usage);
    }
    // The system would read 10.8.0 as 10.8.0.0, and 010 as 8.
    if host.chars().all(|c| c.is_ascii_digit() || c == '.') && host.parse::<Ipv4Addr>().is_err() {
        return Err("an IPv4 address is four numbers from 0 to 255, without leading zeros");
    }
    // The parser of numbers accepts a sign.
    let number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?;
    match port.map(number) {
        Some(None) => Err(PORT_USAGE),
        port => Ok(Address { text: text.to_owned(), host: host.to_owned(), port: port.flatten() }),
    }
}

const PORT_USAGE: &str = "a port is a number from 1 to 65535";

/// Reads the gateway: `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
pub(crate) fn parse_target(text: &str) -> Result<Address, &'static str> {
    if ipv6(text).is_some() {
        return Err("write an IPv6 address in brackets, as in [fd00::1], [fd00::1]:5000 or [fe80::1%eth0]");
    }
    let usage = "write HOST or HOST:PORT, where HOST is a name, an IPv4 or a bracketed IPv6 address";
    parse(text, usage).and_then(|target| if target.port == Some(0) { Err(PORT_USAGE) } else { Ok(target) })
}

/// Reads the local address: `IP`, `IP:PORT`, `[IPV6]` or `[IPV6]:PORT`. Port 0 is any free one.
pub(crate) fn parse_local(text: &str) -> Result<Address, &'static str> {
    let usage =
        "write IP or IP:PORT, as in 0.0.0.0:5001, [::]:5001, [fe80::1%eth0] or 192.168.1.7; port 0 is any free one";
    let local = parse(text, usage)?;
    if ipv6(&local.host).is_some() || local.host.parse::<Ipv4Addr>().is_ok() { Ok(local) } else { Err(usage) }
}

/// As the user wrote it; empty for the default of a local one.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
