//! The UDP socket: where it is bound, whom it hears, and what the kernel grants it.
//!
//! The listener's socket is bound without any reuse option, so that a second listener is told that the port is taken
//! instead of taking half of the stream; then it is connected, so that the kernel drops every other sender's datagrams
//! and reports a closed port; what slipped in between the two is thrown away.
//!
//! When START's answer is no longer owed, `SO_REUSEPORT` is switched on; not before, or the answer to a `can-stop` on the
//! same port would be credited to the handshake. A socket of the same user that sets it before it binds the wildcard
//! address can now share the port, and since it stays unconnected, Linux prefers the connected one for every datagram of
//! the gateway's. So `can-stop` works beside a running `can-listen` and takes nothing from it. Only through the wildcard:
//! on Linux 6.1 a socket bound to the listener's specific address took all of the stream.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// The receive buffer asked for, in bytes. The kernel grants at most `net.core.rmem_max`.
pub(crate) const RECEIVE_BUFFER: usize = 4 << 20;

/// More than the largest UDP payload: 65,507 bytes over IPv4, 65,527 over IPv6.
pub(crate) const DATAGRAM_MAX: usize = 1 << 16;

/// Why no socket could be opened: at which step, for which address.
#[derive(Debug)]
pub enum OpenError {
    /// The system gave no socket.
    Create(io::Error),
    /// The local address could not be bound; [`io::ErrorKind::AddrInUse`] if another program has it.
    Bind(SocketAddr, io::Error),
    /// There is no way to the gateway.
    Connect(SocketAddr, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Create(error) => write!(f, "cannot create a UDP socket: {error}; are too many files open?"),
            OpenError::Bind(local, error) if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "UDP port {port} is taken here, perhaps by another can-listen (see: ss -aunp sport = :{port}); \
                 end that. Only for another gateway take another port, with --bind {}: one gateway streams to one listener",
                SocketAddr::new(local.ip(), local.port().checked_add(1).unwrap_or(5000)),
                port = local.port(),
            ),
            OpenError::Bind(local, error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                write!(f, "cannot bind {local}: this machine has no such address; see: ip address")
            }
            OpenError::Bind(local, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(f, "cannot bind {local}: {error}; ports below 1024 are root's, take another with --bind")
            }
            OpenError::Bind(local, error) => write!(f, "cannot bind {local}: {error}; check --bind"),
            OpenError::Connect(gateway, error) => write!(f, "{}", unreachable_words(*gateway, error)),
        }
    }
}

impl std::error::Error for OpenError {}

/// n
#[derive(Debug)]
pub enum NetworkError {
    /// s
    Send(io::Error),
    /// r
    Receive(io::Error),
}
impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::Send(e) | NetworkError::Receive(e) => e.fmt(f),
        }
    }
}
impl std::error::Error for NetworkError {}
impl NetworkError {
    pub(crate) fn port_is_closed(&self) -> bool {
        let (NetworkError::Send(e) | NetworkError::Receive(e)) = self;
        e.kind() == io::ErrorKind::ConnectionRefused
    }
}
pub(crate) fn address_is_lost(_address: std::net::IpAddr, _gateway: SocketAddr) -> bool {
    false
}

/// Why nothing can be sent to the gateway.
pub(crate) fn unreachable_words(gateway: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            format!("no route to {gateway} ({error}); is the network or VPN up? See: ip route get {}", gateway.ip())
        }
        io::ErrorKind::PermissionDenied => {
            format!("cannot send to {gateway}: {error}; a firewall here forbids it, or it is a broadcast address")
        }
        _ => format!("cannot reach {gateway}: {error}; check --target"),
    }
}

/// Opens the socket of a session: bound for ourselves alone, connected to the gateway, with a large receive buffer,
/// and holding nothing of any other sender.
///
/// # Errors
///
/// [`OpenError`], at the step that failed.
pub(crate) fn open(local: SocketAddr, gateway: SocketAddr) -> Result<UdpSocket, OpenError> {
    let socket = create(gateway)?;
    // The kernel cuts what is too much; a small buffer is no reason to give up.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    bind(&socket, local)?;
    socket.connect(&gateway.into()).map_err(|error| OpenError::Connect(gateway, error))?;
    let socket = UdpSocket::from(socket);
    discard_queued(&socket).map_err(OpenError::Create)?;
    Ok(socket)
}

/// Lets a `can-stop` of the same user share the port of a socket from [`open`].
///
/// # Errors
///
/// The system's, where it does not know `SO_REUSEPORT`.
pub(crate) fn set_port_sharing(socket: &UdpSocket, on: bool) -> io::Result<()> {
    SockRef::from(socket).set_reuse_port(on)
}

/// Opens an unconnected socket that only sends. On the wildcard address it shares its port with a session of the same
/// user and is given none of the session's datagrams.
///
/// # Errors
///
/// [`OpenError`], at the step that failed.
pub(crate) fn open_send_only(local: SocketAddr, gateway: SocketAddr) -> Result<UdpSocket, OpenError> {
    let socket = create(gateway)?;
    if local.ip().is_unspecified() {
        socket.set_reuse_port(true).map_err(OpenError::Create)?;
    }
    bind(&socket, local)?;
    Ok(socket.into())
}

fn create(gateway: SocketAddr) -> Result<Socket, OpenError> {
    let socket =
        Socket::new(Domain::for_address(gateway), Type::DGRAM, Some(Protocol::UDP)).map_err(OpenError::Create)?;
    if gateway.is_ipv6() {
        // Or the port would be taken for IPv4 too.
        socket.set_only_v6(true).map_err(OpenError::Create)?;
    }
    Ok(socket)
}

fn bind(socket: &Socket, local: SocketAddr) -> Result<(), OpenError> {
    socket.bind(&local.into()).map_err(|error| OpenError::Bind(local, error))
}

/// Throws away what arrived before the socket was connected. A tenth of a second is enough to read a full buffer, so
/// a gateway that streams without a pause cannot hold us here.
fn discard_queued(socket: &UdpSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let begun = Instant::now();
    let mut byte = [0];
    while begun.elapsed() < Duration::from_millis(100) {
        match socket.recv(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            _ => {}
        }
    }
    socket.set_nonblocking(false)
}

/// The receive buffer that the kernel granted, in bytes as asked for (Linux reports twice that).
///
/// # Errors
///
/// The system's.
pub(crate) fn receive_buffer(socket: &UdpSocket) -> io::Result<usize> {
    Ok(SockRef::from(socket).recv_buffer_size()? / 2)
}
