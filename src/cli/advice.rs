//! Every hint and remedy: turns a fact into help.

mod failure;
mod silence;

use std::net::{IpAddr, SocketAddr};

pub(crate) use failure::{failure, takeover};
pub(crate) use silence::{controller_state, silence};

use crate::gateway::socket::unreachable_words;
use crate::gateway::{NetworkError, OpenError};

pub(crate) fn open_error(error: &OpenError) -> String {
    error.to_string()
}

pub(crate) fn network_error(gateway: SocketAddr, error: &NetworkError) -> String {
    let (NetworkError::Send(inner) | NetworkError::Receive(inner)) = error;
    if error.port_is_closed() {
        return format!(
            "the port is closed there: nothing listens on UDP port {} of {} (ICMP port unreachable); wrong --target, or is the gateway still starting?{}",
            gateway.port(),
            gateway.ip(),
            vendor_port(gateway)
        );
    }
    unreachable_words(gateway, inner)
}

pub(crate) fn vendor_port(gateway: SocketAddr) -> String {
    if gateway.port() == 19228 {
        String::new()
    } else {
        format!(". The vendor's default port is 19228 (--target {}:19228)", gateway.ip())
    }
}

pub(crate) fn address_lost(address: IpAddr, gateway: SocketAddr) -> String {
    format!("the local address {address} is gone, so nothing from {gateway} arrives any more")
}
