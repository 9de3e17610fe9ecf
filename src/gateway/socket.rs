//! The UDP socket: where it is bound, which sender it hears, what the kernel grants it.
//!
//! The socket of a session is bound without a reuse option, so that a second listener gets the error that the port is in use
//! instead of taking half of the stream. Then it is connected, so that the kernel drops the datagrams of every other sender
//! and reports a closed port. What was queued in between is read before the first command is sent, and answers nothing.
//!
//! While the stream runs and no command is in flight, `SO_REUSEPORT` is on. A socket of the same user that sets it before it binds the wildcard
//! address can then share the port; since it stays unconnected, Linux (6.1, 6.18) delivers every datagram of the gateway to
//! the connected one. So `can-stop` works beside a running `can-listen` and takes nothing from it. Only through the
//! wildcard: a socket bound to the listener's specific address takes all of the stream.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// The receive buffer asked for, in bytes. The kernel grants at most `net.core.rmem_max`.
pub(crate) const RECEIVE_BUFFER: usize = 4 << 20;

/// More than the largest UDP payload: 65,507 bytes over IPv4, 65,527 over IPv6.
pub(crate) const DATAGRAM_MAX: usize = 1 << 16;

/// An error of the network: the step that failed, and the system's error. The same error means different things when a
/// datagram is sent and when one is awaited.
#[derive(Debug)]
#[non_exhaustive]
pub enum NetworkError {
    /// The system gave no socket.
    Create(io::Error),
    /// The local address could not be bound; [`ErrorKind::AddrInUse`] if another socket has it.
    Bind(SocketAddr, io::Error),
    /// There is no way to the gateway.
    Connect(SocketAddr, io::Error),
    /// A command could not be sent: a decision of this machine (its routes, its firewall).
    Send(io::Error),
    /// A read reported an error about an earlier datagram: an ICMP message of the gateway, or of a router or firewall on
    /// the way.
    Receive(io::Error),
}

impl NetworkError {
    /// The system's error.
    pub fn io_error(&self) -> &io::Error {
        match self {
            NetworkError::Create(error) | NetworkError::Send(error) | NetworkError::Receive(error) => error,
            NetworkError::Bind(_, error) | NetworkError::Connect(_, error) => error,
        }
    }

    /// Whether the gateway's machine says that nothing listens on the port (ICMP port unreachable).
    pub fn port_is_closed(&self) -> bool {
        self.io_error().kind() == ErrorKind::ConnectionRefused
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::Create(error) => write!(f, "cannot create a UDP socket: {error}"),
            NetworkError::Bind(local, error) => write!(f, "cannot bind {local}: {error}"),
            NetworkError::Connect(gateway, error) => write!(f, "cannot reach {gateway}: {error}"),
            NetworkError::Send(error) => write!(f, "cannot send: {error}"),
            NetworkError::Receive(error) => write!(f, "the network reports an error: {error}"),
        }
    }
}

impl std::error::Error for NetworkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.io_error())
    }
}

/// Opens the socket of a session: its port is its own, it is connected to the gateway and has a large receive buffer.
///
/// # Errors
///
/// [`NetworkError`], at the step that failed.
pub(crate) fn open(local: SocketAddr, gateway: SocketAddr) -> Result<UdpSocket, NetworkError> {
    let socket = create(local, gateway)?;
    raise_receive_buffer(&socket);
    socket.bind(&local.into()).map_err(|error| NetworkError::Bind(local, error))?;
    socket.connect(&gateway.into()).map_err(|error| NetworkError::Connect(gateway, error))?;
    Ok(socket.into())
}

/// Opens an unconnected socket that only sends. On the wildcard address it shares its port with a session of the same
/// user, and receives none of the session's datagrams.
///
/// # Errors
///
/// [`NetworkError`], at the step that failed.
pub(crate) fn open_send_only(local: SocketAddr, gateway: SocketAddr) -> Result<UdpSocket, NetworkError> {
    let socket = create(local, gateway)?;
    if local.ip().is_unspecified() {
        socket.set_reuse_port(true).map_err(NetworkError::Create)?;
    }
    socket.bind(&local.into()).map_err(|error| NetworkError::Bind(local, error))?;
    Ok(socket.into())
}

/// The address from which a socket bound to `local` speaks to `gateway`. Nothing is sent.
///
/// # Errors
///
/// The system's: it has no such address, or no route.
pub(crate) fn source_address(mut local: SocketAddr, gateway: SocketAddr) -> io::Result<IpAddr> {
    local.set_port(0);
    let socket = UdpSocket::bind(local)?;
    socket.connect(gateway)?;
    Ok(socket.local_addr()?.ip())
}

/// Whether this machine no longer has the address of `local`, and would speak to the gateway from another one. One sign
/// alone does not show that: an IPv6 link that is down, or still checks for duplicates, cannot be bound either.
pub(crate) fn address_is_lost(local: SocketAddr, gateway: SocketAddr) -> bool {
    let is_gone = source_address(local, gateway).is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable);
    is_gone && source_address(wildcard(gateway, 0), gateway).is_ok_and(|source| source != local.ip())
}

/// The address that stands for all local ones of the gateway's family.
pub(crate) fn wildcard(gateway: SocketAddr, port: u16) -> SocketAddr {
    match gateway {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

fn create(local: SocketAddr, gateway: SocketAddr) -> Result<Socket, NetworkError> {
    if local.is_ipv4() != gateway.is_ipv4() {
        let why = format!("the local address {local} is not of the same family (IPv4, IPv6)");
        return Err(NetworkError::Connect(gateway, io::Error::new(ErrorKind::InvalidInput, why)));
    }
    let socket =
        Socket::new(Domain::for_address(gateway), Type::DGRAM, Some(Protocol::UDP)).map_err(NetworkError::Create)?;
    if gateway.is_ipv6() {
        // Or the port would be taken for IPv4 as well.
        socket.set_only_v6(true).map_err(NetworkError::Create)?;
    }
    Ok(socket)
}

/// Asks for [`RECEIVE_BUFFER`] unless the default is larger already. Setting a size that the kernel cuts can lower a default
/// that an administrator has raised above `net.core.rmem_max`; only a new socket has that again, so a trial goes first.
fn raise_receive_buffer(socket: &Socket) {
    let size = |socket: &Socket| socket.recv_buffer_size().unwrap_or(0);
    let default = size(socket);
    if default >= 2 * RECEIVE_BUFFER {
        return;
    }
    let Ok(trial) = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)) else { return };
    if trial.set_recv_buffer_size(RECEIVE_BUFFER).is_ok() && size(&trial) > default {
        // A small buffer is no reason to fail.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
}
