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
use super::socket::{self, OpenError};

/// How often a socket is read that can no longer block, because its waker has shut it down.
const WOKEN_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// How long a read may wait for a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    No,
    AtMost(Duration),
    Indefinitely,
}

/// What a connection needs of the world.
pub(crate) trait Transport: fmt::Debug + Send + Sync {
    /// The monotonic clock.
    fn now(&self) -> Instant;
    /// Sleeps; a waker ends it at once.
    fn sleep(&self, duration: Duration);
    fn send(&mut self, datagram: &[u8]) -> io::Result<()>;
    /// Reads one datagram. [`ErrorKind::WouldBlock`]: none came in time, or a waker has fired; can come early.
    fn recv(&mut self, buffer: &mut [u8], wait: Wait) -> io::Result<usize>;
    /// Lets a `can-stop` of the same user share the port, or no longer.
    fn share_port(&mut self, on: bool);
    /// Whether a waker has fired.
    fn is_woken(&self) -> bool;
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// Whether this machine no longer has the local address, and would speak to the gateway from another one.
    fn address_is_lost(&self) -> bool;
    /// What the kernel has dropped since the socket was opened.
    fn drops(&mut self) -> Drops;
    /// The same, unless looking could take so long that datagrams are dropped meanwhile.
    fn check_drops(&mut self) -> Option<Drops>;
    /// The size of the receive buffer in bytes, as asked for.
    fn receive_buffer(&self) -> usize;
}

/// A connected UDP socket.
#[derive(Debug)]
pub(super) struct Udp {
    endpoint: Arc<Endpoint>,
    gateway: SocketAddr,
    drops: DropCounter,
    is_nonblocking: bool,
    read_timeout: Option<Duration>,
    /// The latest read found nothing in time, so deadlines do not move with each datagram.
    timed_out: bool,
}

/// What a [`Waker`](super::Waker) reaches.
#[derive(Debug)]
pub(super) struct Endpoint {
    socket: UdpSocket,
    is_woken: AtomicBool,
    /// Notified when `is_woken` was set under the lock.
    woken: (Mutex<()>, Condvar),
}

impl Endpoint {
    pub fn wake(&self) {
        // Set the flag before the shutdown, so that a reader that wakes sees it.
        let (lock, woken) = &self.woken;
        {
            let _guard = lock.lock();
            self.is_woken.store(true, SeqCst);
            woken.notify_all();
        }
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Read);
    }

    pub fn is_woken(&self) -> bool {
        self.is_woken.load(SeqCst)
    }
}

impl Udp {
    pub fn open(local: SocketAddr, gateway: SocketAddr) -> Result<Udp, OpenError> {
        let socket = socket::open(local, gateway)?;
        let drops = DropCounter::new(&socket);
        let endpoint = Arc::new(Endpoint { socket, is_woken: AtomicBool::new(false), woken: Default::default() });
        Ok(Udp { endpoint, gateway, drops, is_nonblocking: false, read_timeout: None, timed_out: false })
    }

    pub fn endpoint(&self) -> Weak<Endpoint> {
        Arc::downgrade(&self.endpoint)
    }

    /// Makes the next read of the socket return in time.
    fn prepare(&mut self, wait: Wait) -> io::Result<()> {
        let nonblocking = wait == Wait::No || self.is_woken();
        if nonblocking != self.is_nonblocking {
            self.endpoint.socket.set_nonblocking(nonblocking)?;
            self.is_nonblocking = nonblocking;
        }
        let wanted = match wait {
            Wait::No => return Ok(()),
            Wait::AtMost(wanted) => Some(wanted.max(Duration::from_micros(1))),
            Wait::Indefinitely => None,
        };
        // Setting it exactly would cost a system call for every datagram, since a deadline moves with each.
        let suits = match (wanted, self.read_timeout) {
            (Some(wanted), Some(set)) => {
                set <= wanted && (set >= wanted - wanted / 8 && !self.timed_out || set == wanted)
            }
            (wanted, set) => wanted == set,
        };
        if !suits {
            let timeout = wanted.map(|wanted| if self.timed_out { wanted } else { wanted - wanted / 16 });
            self.endpoint.socket.set_read_timeout(timeout)?;
            self.read_timeout = timeout;
        }
        Ok(())
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

    fn recv(&mut self, buffer: &mut [u8], wait: Wait) -> io::Result<usize> {
        self.prepare(wait)?;
        let received = match self.endpoint.socket.recv(buffer) {
            // The end of a socket that is shut down, not an empty datagram.
            Ok(0) if !self.is_nonblocking && self.is_woken() => Err(ErrorKind::WouldBlock.into()),
            received => received,
        };
        self.timed_out = received.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        // A socket that is shut down ignores read timeouts.
        if self.timed_out && self.is_nonblocking {
            match wait {
                Wait::No => {}
                Wait::AtMost(wait) => thread::sleep(wait.min(WOKEN_POLL_INTERVAL)),
                Wait::Indefinitely => thread::sleep(WOKEN_POLL_INTERVAL),
            }
        }
        received
    }

    fn share_port(&mut self, on: bool) {
        // Where it cannot be shared, can-stop takes a free port.
        let _ = SockRef::from(&self.endpoint.socket).set_reuse_port(on);
    }

    fn is_woken(&self) -> bool {
        self.endpoint.is_woken()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.socket.local_addr()
    }

    fn address_is_lost(&self) -> bool {
        self.local_addr().is_ok_and(|local| socket::address_is_lost(local, self.gateway))
    }

    fn drops(&mut self) -> Drops {
        self.drops.count()
    }

    fn check_drops(&mut self) -> Option<Drops> {
        self.drops.check()
    }

    fn receive_buffer(&self) -> usize {
        // Linux reports twice what was asked for.
        SockRef::from(&self.endpoint.socket).recv_buffer_size().map_or(socket::RECEIVE_BUFFER, |size| size / 2)
    }
}
