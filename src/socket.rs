//! The UDP socket: where it is bound, whom it hears, what the kernel grants it and what the kernel drops.
//!
//! The listener's socket is bound without any reuse option, so that a second listener is told that the port is taken
//! instead of taking half of the stream; then it is connected, so that the kernel drops every other sender's datagrams
//! and reports a closed port; what slipped in between the two is thrown away. Only then is `SO_REUSEPORT` switched on:
//! a socket of the same user that sets it before it binds the wildcard address can now share the port, and since it
//! stays unconnected, Linux prefers the connected one for every datagram of the gateway's. So `can-stop` works beside
//! a running `can-listen` and takes nothing from it. Only through the wildcard: on Linux 6.1 a socket bound to the
//! listener's specific address took all of the stream.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::AsRawFd;
use std::str::FromStr;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// The UDP port of the gateway and, unless told otherwise, ours.
pub const PORT: u16 = 5000;

/// The receive buffer asked for, in bytes. The kernel grants at most `net.core.rmem_max`.
pub const RECEIVE_BUFFER: usize = 4 << 20;

/// More than the largest UDP payload: 65,507 bytes over IPv4, 65,527 over IPv6.
pub const DATAGRAM_MAX: usize = 1 << 16;

/// The gateway as the user wrote it: `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    text: String,
    host: String,
    port: u16,
}

impl Target {
    /// The host, without brackets, and the port.
    pub fn host_and_port(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Finds the address, asking the system's resolver if the host is a name. Of a name's addresses the first that
    /// `local` can reach is taken; with no preference there, the first IPv4 address before the first IPv6 one.
    ///
    /// # Errors
    ///
    /// [`ResolveError`], if there is no such address.
    pub fn resolve(&self, local: &Bind) -> Result<SocketAddr, ResolveError> {
        let canonical = |address: SocketAddr| match address.ip().to_canonical() {
            IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
            IpAddr::V6(_) => address,
        };
        let found = self.host_and_port().to_socket_addrs();
        let found = found.map_err(|error| ResolveError::Unknown(self.text.clone(), error))?;
        let mut addresses: Vec<SocketAddr> = found.map(canonical).collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let suits = |address: &SocketAddr| local.ip.is_none_or(|ip| ip.is_ipv4() == address.is_ipv4());
        addresses.into_iter().find(suits).ok_or_else(|| ResolveError::OtherFamily(self.text.clone(), *local))
    }
}

/// Why a [`Target`] has no address that can be used.
#[derive(Debug)]
pub enum ResolveError {
    /// The resolver does not know this target.
    Unknown(String, io::Error),
    /// This target has IPv4 addresses only and the local address is an IPv6 one, or the other way round.
    OtherFamily(String, Bind),
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResolveError::Unknown(target, error) => write!(
                f,
                "cannot resolve {target}: {error}; check the name, or give the gateway's IP address with --target"
            ),
            ResolveError::OtherFamily(target, local) => {
                let family = if local.ip.is_some_and(|ip| ip.is_ipv4()) { "IPv4" } else { "IPv6" };
                write!(
                    f,
                    "{target} has no {family} address, but the local address (--bind or CAN_BIND) is one; \
                     give both of one kind"
                )
            }
        }
    }
}

impl std::error::Error for ResolveError {}

/// As the user wrote it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
            let (host, after) = bracketed.split_once(']').ok_or(InvalidTarget::Shape)?;
            let port = match after {
                "" => None,
                _ => Some(after.strip_prefix(':').ok_or(InvalidTarget::Shape)?),
            };
            (host, port)
        } else if text.parse::<Ipv6Addr>().is_ok() {
            return Err(InvalidTarget::Brackets);
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let plain = |c: char| c.is_ascii_graphic() && !"[]/,;\"'\\".contains(c);
        if host.is_empty() || !host.chars().all(|c| plain(c) || c.is_alphanumeric()) {
            return Err(InvalidTarget::Shape);
        }
        let port = match port {
            None => PORT,
            Some(digits) => match parse_port(digits) {
                None | Some(0) => return Err(InvalidTarget::Port),
                Some(port) => port,
            },
        };
        Ok(Target { text: text.to_owned(), host: host.to_owned(), port })
    }
}

/// Why a text is no [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidTarget {
    /// Not of the form `HOST` or `HOST:PORT`.
    Shape,
    /// An IPv6 address without brackets.
    Brackets,
    /// The port is no number from 1 to 65535.
    Port,
}

impl fmt::Display for InvalidTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidTarget::Shape => {
                "write HOST or HOST:PORT, where HOST is a name, an IPv4 or a bracketed IPv6 address"
            }
            InvalidTarget::Brackets => "write an IPv6 address in brackets, as in [fd00::1] or [fd00::1]:5000",
            InvalidTarget::Port => "a port is a number from 1 to 65535",
        })?;
        f.write_str(" (with --target or in CAN_TARGET)")
    }
}

impl std::error::Error for InvalidTarget {}

/// Where our own end is bound: `IP`, `IP:PORT`, `[IPV6]` or `[IPV6]:PORT`. Port 0 takes any free one. The default is
/// the wildcard address of the target's family and port [`PORT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bind {
    ip: Option<IpAddr>,
    port: Option<u16>,
}

impl Bind {
    /// The port, if one was given.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The same address with any free port.
    pub fn with_any_port(self) -> Bind {
        Bind { port: Some(0), ..self }
    }

    /// The address to bind for talking to `gateway`.
    pub fn address(&self, gateway: SocketAddr) -> SocketAddr {
        let wildcard = match gateway {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        SocketAddr::new(self.ip.unwrap_or(wildcard), self.port.unwrap_or(PORT))
    }
}

impl FromStr for Bind {
    type Err = InvalidBind;

    fn from_str(text: &str) -> Result<Self, InvalidBind> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            if matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0) {
                return Err(InvalidBind);
            }
            return Ok(Bind { ip: Some(address.ip()), port: Some(address.port()) });
        }
        let unbracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match unbracketed.unwrap_or(text).parse::<IpAddr>() {
            Ok(ip) if unbracketed.is_none() || ip.is_ipv6() => Ok(Bind { ip: Some(ip), port: None }),
            _ => Err(InvalidBind),
        }
    }
}

/// The text is no local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidBind;

impl fmt::Display for InvalidBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "write IP or IP:PORT, as in 0.0.0.0:5001, [::]:5001 or 192.168.1.7; port 0 takes any free one \
             (with --bind or in CAN_BIND)",
        )
    }
}

impl std::error::Error for InvalidBind {}

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
                 end that, or take another port with --bind {}",
                SocketAddr::new(local.ip(), local.port().checked_add(1).unwrap_or(PORT)),
                port = local.port(),
            ),
            OpenError::Bind(local, error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                write!(f, "cannot bind {local}: this machine has no such address; see: ip address")
            }
            OpenError::Bind(local, error) => {
                write!(f, "cannot bind {local}: {error}; ports below 1024 are root's, take another with --bind")
            }
            OpenError::Connect(gateway, error) => write!(f, "{}", unreachable_words(*gateway, error)),
        }
    }
}

impl std::error::Error for OpenError {}

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
pub fn open(local: &Bind, gateway: SocketAddr) -> Result<UdpSocket, OpenError> {
    let socket = create(gateway)?;
    // The kernel cuts what is too much; a small buffer is no reason to give up.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    bind(&socket, local, gateway)?;
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
pub fn share(socket: &UdpSocket) -> io::Result<()> {
    SockRef::from(socket).set_reuse_port(true)
}

/// Opens an unconnected socket that only sends. On the wildcard address it shares its port with a session of the same
/// user and is given none of the session's datagrams.
///
/// # Errors
///
/// [`OpenError`], at the step that failed.
pub fn open_for_sending(local: &Bind, gateway: SocketAddr) -> Result<UdpSocket, OpenError> {
    let socket = create(gateway)?;
    if local.address(gateway).ip().is_unspecified() {
        socket.set_reuse_port(true).map_err(OpenError::Create)?;
    }
    bind(&socket, local, gateway)?;
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

fn bind(socket: &Socket, local: &Bind, gateway: SocketAddr) -> Result<(), OpenError> {
    let address = local.address(gateway);
    socket.bind(&address.into()).map_err(|error| OpenError::Bind(address, error))
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
pub fn receive_buffer(socket: &UdpSocket) -> io::Result<usize> {
    Ok(SockRef::from(socket).recv_buffer_size()? / 2)
}

/// How many datagrams the kernel dropped because a socket's queue was full: the last column of `/proc/net/udp` and
/// `/proc/net/udp6`, in the line with the socket's inode (Linux, proc(5)).
#[derive(Debug)]
pub struct DropCounter {
    table: &'static str,
    inode: u64,
    /// The kernel's counter as last seen. It has 32 bits, so it must be looked at before it has come round.
    seen: u32,
    total: u64,
}

impl DropCounter {
    /// Counts what the kernel drops for this socket from now on; `None` where there is no `/proc` to tell.
    pub fn of(socket: &UdpSocket) -> Option<DropCounter> {
        let table = if socket.local_addr().ok()?.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        let mut counter = DropCounter { table, inode, seen: 0, total: 0 };
        counter.seen = counter.look()?;
        Some(counter)
    }

    /// Datagrams dropped since this was made; `None` if the kernel does not say. Costs the reading of the whole table.
    pub fn count(&mut self) -> Option<u64> {
        let now = self.look()?;
        self.total += u64::from(now.wrapping_sub(self.seen));
        self.seen = now;
        Some(self.total)
    }

    fn look(&self) -> Option<u32> {
        const INODE: usize = 9;
        fs::read_to_string(self.table).ok()?.lines().skip(1).find_map(|line| {
            let mut columns = line.split_ascii_whitespace();
            (columns.nth(INODE)?.parse() == Ok(self.inode)).then(|| columns.last()?.parse().ok()).flatten()
        })
    }
}

fn parse_port(digits: &str) -> Option<u16> {
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}
