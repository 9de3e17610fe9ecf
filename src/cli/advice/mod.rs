//! Every hint and remedy: turns a fact into help. Of the conversation with the gateway: the only place that names options in a hint.

mod failure;
mod no_data;
mod record;

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;

pub(crate) use failure::{failure, first_failure, handshake_exit};
pub(crate) use no_data::{no_data, start_again};
pub(crate) use record::{FILE_DELETED, found, write_error};

use crate::cli::address::{DEFAULT_PORT, Resolved};
use crate::gateway::NetworkError;

/// The vendor's default UDP port, which the gateways of this project's users are configured away from.
const VENDOR_PORT: u16 = 19228;

/// Explains an error of the network. `has_answered`: something has come from the gateway.
pub(crate) fn network_error(gateway: SocketAddr, error: &NetworkError, has_answered: bool) -> String {
    let cause = error.io_error();
    match (error, cause.kind()) {
        (NetworkError::Create(_), _) => format!("{error}; are too many files open?"),
        (NetworkError::Bind(local, _), _) => bind_error(*local, cause),
        _ if error.port_is_closed() => {
            let hint = if has_answered {
                "is the gateway restarting?".to_owned()
            } else {
                format!("wrong --target, or is the gateway still starting?{}", vendor_port(gateway))
            };
            let (ip, port) = (gateway.ip(), gateway.port());
            format!("nothing listens on UDP port {port} of {ip} (ICMP port unreachable); {hint}")
        }
        (NetworkError::Receive(_), ErrorKind::HostUnreachable | ErrorKind::PermissionDenied) => format!(
            "a router or firewall on the way to {gateway} refuses ({cause}); ask who runs it to let UDP port {} through",
            gateway.port()
        ),
        _ => send_error(gateway, cause),
    }
}

/// Says that the network reports an error while the session goes on.
pub(crate) fn unreachable(gateway: SocketAddr, error: &NetworkError) -> String {
    if error.port_is_closed() {
        return format!("{gateway} unreachable (port closed), still listening; is it restarting?");
    }
    format!("{gateway} unreachable ({}), still listening", error.io_error())
}

/// Where else the gateway may listen.
pub(crate) fn vendor_port(gateway: SocketAddr) -> String {
    if gateway.port() == VENDOR_PORT {
        return String::new();
    }
    let there = with_port(gateway, VENDOR_PORT);
    format!(" The vendor's default port is {VENDOR_PORT}: try --target {there}")
}

/// Explains why nothing can be sent to the address of the own socket.
pub(crate) fn own_address(Resolved { gateway, local, .. }: &Resolved) -> String {
    format!(
        "{gateway} is the address of this program's own socket; check --target, or use another local port, as in --bind {}",
        next_port(*local)
    )
}

/// Explains why nothing can be received any more.
pub(crate) fn address_lost(local: Option<SocketAddr>, gateway: SocketAddr) -> String {
    let address = local.map(|local| format!(" {}", host(local))).unwrap_or_default();
    format!(
        "this machine no longer has the local address{address}, so nothing of {gateway} can arrive (DHCP, VPN?); run again \
         to use the new address"
    )
}

fn bind_error(local: SocketAddr, error: &std::io::Error) -> String {
    let port = local.port();
    let hint = match error.kind() {
        ErrorKind::AddrInUse if port == 0 => "no UDP port is free",
        ErrorKind::AddrInUse => {
            return format!(
                "UDP port {port} is already in use, perhaps by another can-listen; end that (find it with: ss -aunp sport = \
                 :{port}). To listen to a second gateway, use another port, as in --bind {}",
                next_port(local)
            );
        }
        ErrorKind::AddrNotAvailable => "this machine has no such address (--bind); see: ip address",
        ErrorKind::PermissionDenied if (1..1024).contains(&port) => {
            "ports below 1024 need root. Use another with --bind"
        }
        ErrorKind::PermissionDenied => "does a security policy of this host forbid that port? Use another with --bind",
        _ if is_link_local_without_zone(local) => &format!("{ZONE_HINT} (--bind)"),
        _ => "check --bind",
    };
    format!("cannot bind {local}: {error}; {hint}")
}

/// Explains why this machine does not send.
pub(crate) fn send_error(gateway: SocketAddr, error: &std::io::Error) -> String {
    let (what, hint) = match error.kind() {
        _ if is_link_local_without_zone(gateway) => ("cannot reach", &*format!("{ZONE_HINT} (--target)")),
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
            let route = host(gateway).replace('%', " oif ");
            ("no route to", &*format!("is the network or the VPN up? See: ip route get {route}"))
        }
        ErrorKind::PermissionDenied => {
            ("cannot send to", "a firewall on this host forbids it, or it is a broadcast address")
        }
        ErrorKind::InvalidInput => {
            ("cannot reach", "can the local address (--bind) speak to it, and is --target right?")
        }
        _ => ("cannot reach", "check --target"),
    };
    format!("{what} {gateway}: {error}; {hint}")
}

const ZONE_HINT: &str = "a link-local address needs its zone, as in [fe80::1%eth0]";

/// The address without its port, as a resolver reads it: a link-local one has its interface as zone, by name if the system
/// tells it.
pub(crate) fn host(address: SocketAddr) -> String {
    let index = match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => v6.scope_id().to_string(),
        _ => return address.ip().to_string(),
    };
    let mut interfaces = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let has_index = |path| fs::read_to_string(path).is_ok_and(|text| text.trim() == index);
    let name = interfaces.find(|interface| has_index(interface.path().join("ifindex")));
    let zone = name.map_or(index.clone(), |interface| interface.file_name().to_string_lossy().into_owned());
    format!("{}%{zone}", address.ip())
}

/// An address with this port instead, as an option's value.
fn with_port(address: SocketAddr, port: u16) -> String {
    if address.is_ipv4() { format!("{}:{port}", host(address)) } else { format!("[{}]:{port}", host(address)) }
}

/// The local address with another port, as an option's value.
fn next_port(local: SocketAddr) -> String {
    with_port(local, local.port().checked_add(1).unwrap_or(DEFAULT_PORT))
}

fn is_link_local_without_zone(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0)
}

#[cfg(test)]
mod tests;
