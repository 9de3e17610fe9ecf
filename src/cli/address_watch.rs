//! Notices that the local address is gone (DHCP, VPN, IPv6 privacy address): such a session would stay deaf.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::gateway::socket::address_is_lost;

/// How long a silence lasts before the first look where `--status-after` does not say.
const DEFAULT_AFTER: Duration = Duration::from_secs(5);

/// The time between two looks in a silence.
const PROBE_INTERVAL: Duration = Duration::from_secs(8);

/// Looks at the socket's own address while nothing comes. Two looks in a row must find it gone, so that an address that
/// comes back at once (a VPN that reconnects) is survived.
#[derive(Debug)]
pub(crate) struct AddressWatch {
    ip: IpAddr,
    gateway: SocketAddr,
    after: Duration,
    last_probe: Option<Instant>,
    was_lost: bool,
}

impl AddressWatch {
    /// Watches the address of a connected socket, from `status_after` (0 for 5 s) into each silence.
    pub fn new(socket: &UdpSocket, gateway: SocketAddr, status_after: Duration) -> AddressWatch {
        // A socket without an address cannot lose it.
        let ip = socket.local_addr().map_or(Ipv4Addr::LOCALHOST.into(), |local| local.ip());
        let after = if status_after.is_zero() { DEFAULT_AFTER } else { status_after };
        AddressWatch { ip, gateway, after, last_probe: None, was_lost: false }
    }

    /// The address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// When to look next in a silence that began at `last_data`.
    pub fn probe_at(&self, last_data: Instant) -> Instant {
        let first = last_data + self.after;
        self.last_probe.map_or(first, |last| first.max(last + PROBE_INTERVAL))
    }

    /// Looks, in a silence that began at `last_data`. Returns whether the address is gone, now and at the look before.
    pub fn probe(&mut self, now: Instant, last_data: Instant) -> bool {
        let is_lost = address_is_lost(self.ip, self.gateway);
        let is_confirmed = is_lost && self.was_lost && self.last_probe > Some(last_data);
        (self.last_probe, self.was_lost) = (Some(now), is_lost);
        is_confirmed
    }
}
