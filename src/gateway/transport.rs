//! The one door between a connection and the world: a private trait, and its adapter to a UDP socket. Another adapter is the
//! simulated world of the tests.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::drops::{DropCounter, Drops};
use super::socket::{self, NetworkError};

/// How often a socket is read that can no longer block, because its waker has shut it down.
const WOKEN_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// What a connection needs of the world.
pub(crate) trait Transport: fmt::Debug + Send + Sync {
    /// The monotonic clock.
    fn now(&self) -> Instant;
    /// Sleeps; a waker ends it at once.
    fn sleep(&self, duration: Duration);
    fn send(&mut self, datagram: &[u8]) -> io::Result<()>;
    /// Reads one datagram; waits at most this long for it, or indefinitely. [`ErrorKind::WouldBlock`]: none came in time, or a
    /// waker has fired; can come early.
    fn recv(&mut self, buffer: &mut [u8], wait: Option<Duration>) -> io::Result<usize>;
    /// Begins or ends to let a `can-stop` of the same user share the port. While a command is in flight it must not: answers
    /// to `can-stop` are delivered here. One that is already on its way by then is taken for ours; that is accepted.
    fn share_port(&mut self, on: bool);
    /// A waker that ends a read or a sleep.
    fn waker(&self) -> Waker;
    /// Whether a waker has fired.
    fn is_woken(&self) -> bool;
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// Whether this machine no longer has the local address, and would speak to the gateway from another one.
    fn address_is_lost(&self, gateway: SocketAddr) -> bool;
    /// What the kernel has dropped since the socket was opened.
    fn drops(&mut self) -> Drops;
    /// The same; a lower bound if looking could take so long that datagrams are dropped meanwhile.
    fn check_drops(&mut self) -> Drops;
    /// The size of the receive buffer in bytes, as granted.
    fn receive_buffer(&self) -> usize;
}

/// A connected UDP socket.
#[derive(Debug)]
pub(super) struct Udp {
    endpoint: Arc<Endpoint>,
    drops: DropCounter,
    port_is_shared: bool,
    is_nonblocking: bool,
    read_timeout: Option<Duration>,
    /// The latest read found nothing in time, so deadlines do not move with each datagram.
    timed_out: bool,
}

/// What a [`Waker`] reaches.
#[derive(Debug)]
struct Endpoint {
    socket: UdpSocket,
    is_woken: AtomicBool,
    /// Notified when `is_woken` was set under the lock.
    woken: (Mutex<()>, Condvar),
}

/// Wakes a [`Connection`](super::Connection) from another thread. It fires once per connection and holds no socket: once the
/// connection is dropped it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Waker(Weak<Endpoint>);

impl Waker {
    /// Ends the blocking [`Connection::next_event`](super::Connection::next_event), now or next, with
    /// [`Event::Woken`](super::Event::Woken). What the kernel holds, and what still arrives, can be read afterwards, and
    /// commands can be sent. From then on the connection polls its socket every millisecond, so a program that goes on for
    /// long opens a new one.
    pub fn wake(&self) {
        let Some(endpoint) = self.0.upgrade() else { return };
        let (lock, woken) = &endpoint.woken;
        let _guard = lock.lock();
        // Set the flag before the shutdown, so that a reader that wakes sees it.
        endpoint.is_woken.store(true, SeqCst);
        woken.notify_all();
        let _ = SockRef::from(&endpoint.socket).shutdown(Shutdown::Read);
    }
}

impl Udp {
    pub fn open(local: SocketAddr, gateway: SocketAddr) -> Result<Udp, NetworkError> {
        let socket = socket::open(local, gateway)?;
        let drops = DropCounter::new(&socket);
        let endpoint = Arc::new(Endpoint { socket, is_woken: AtomicBool::new(false), woken: Default::default() });
        Ok(Udp { endpoint, drops, port_is_shared: false, is_nonblocking: false, read_timeout: None, timed_out: false })
    }
}

impl Transport for Udp {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, duration: Duration) {
        let (lock, woken) = &self.endpoint.woken;
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        drop(woken.wait_timeout_while(guard, duration, |()| !self.is_woken()));
    }

    /// The error of an earlier datagram (a closed port) is reported to the next call, which then sends nothing; so a call
    /// that failed is repeated.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let socket = &self.endpoint.socket;
        socket.send(datagram).or_else(|_| socket.send(datagram)).map(drop)
    }

    fn recv(&mut self, buffer: &mut [u8], wait: Option<Duration>) -> io::Result<usize> {
        let nonblocking = wait == Some(Duration::ZERO) || self.is_woken();
        let socket = &self.endpoint.socket;
        if nonblocking != self.is_nonblocking {
            socket.set_nonblocking(nonblocking)?;
            self.is_nonblocking = nonblocking;
        }
        // Setting it exactly would cost a system call for every datagram, since a deadline moves with each.
        let shorter = |fraction| wait.map(|wait| if self.timed_out { wait } else { wait - wait / fraction });
        if !nonblocking && !(shorter(8)..=wait).contains(&self.read_timeout) {
            let timeout = shorter(16);
            socket.set_read_timeout(timeout)?;
            self.read_timeout = timeout;
        }
        let received = match socket.recv(buffer) {
            // The end of a socket that is shut down; an empty datagram that comes just then is lost, which is accepted.
            Ok(0) if !nonblocking && self.is_woken() => Err(ErrorKind::WouldBlock.into()),
            received => received,
        };
        self.timed_out = received.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        // A socket that is shut down ignores read timeouts.
        if self.timed_out && nonblocking {
            thread::sleep(wait.unwrap_or(WOKEN_POLL_INTERVAL).min(WOKEN_POLL_INTERVAL));
        }
        received
    }

    fn share_port(&mut self, on: bool) {
        if on != self.port_is_shared {
            self.port_is_shared = on;
            // Where it cannot be shared, can-stop takes a free port.
            let _ = SockRef::from(&self.endpoint.socket).set_reuse_port(on);
        }
    }

    fn waker(&self) -> Waker {
        Waker(Arc::downgrade(&self.endpoint))
    }

    fn is_woken(&self) -> bool {
        self.endpoint.is_woken.load(SeqCst)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.socket.local_addr()
    }

    fn address_is_lost(&self, gateway: SocketAddr) -> bool {
        self.local_addr().is_ok_and(|local| socket::address_is_lost(local, gateway))
    }

    fn drops(&mut self) -> Drops {
        self.drops.count()
    }

    fn check_drops(&mut self) -> Drops {
        self.drops.check()
    }

    fn receive_buffer(&self) -> usize {
        // Linux reports twice what was asked for.
        SockRef::from(&self.endpoint.socket).recv_buffer_size().map_or(socket::RECEIVE_BUFFER, |size| size / 2)
    }
}
