//! A connection to one gateway: the API that programs use.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::command::Command;
use super::driver::{Driver, Event, Transport};
use super::handshake::{Failure, Setup, Takeover};
use super::socket::{self, NetworkError, OpenError};
use super::transaction::{Outcome, RetryConfig};

/// A UDP socket that is connected to a gateway, and the conversation on it.
///
/// Everything happens inside [`Connection::next_event`], on the thread that calls it: reading, sending, repeating a
/// command that is not answered. Call it without long pauses; the kernel drops datagrams when its buffer is full.
///
/// ```
/// use std::net::UdpSocket;
/// use std::thread;
///
/// use can_udp::gateway::{Connection, Event, Setup};
///
/// // A gateway of eight lines: it accepts everything, and streams one frame.
/// let gateway = UdpSocket::bind("127.0.0.1:0")?;
/// let address = gateway.local_addr()?;
/// thread::spawn(move || -> std::io::Result<()> {
///     let mut command = [0; 100];
///     loop {
///         let (length, listener) = gateway.recv_from(&mut command)?;
///         gateway.send_to(b"R ok\n", listener)?;
///         if command[..length].ends_with(b"START\n") {
///             gateway.send_to(b"M 1 CSD 100 55 AA\n", listener)?;
///         }
///     }
/// });
///
/// let mut bus = Connection::open("127.0.0.1:0".parse()?, address)?;
/// bus.start(&Setup::default())?;
/// let Event::Datagram(bytes) = bus.next_event(None) else { panic!("no datagram") };
/// assert_eq!(bytes, b"M 1 CSD 100 55 AA\n");
/// bus.stop(1)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    driver: Driver<Arc<Endpoint>>,
}

/// Wakes a [`Connection`] from another thread, once and for good.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Endpoint>);

/// Why [`Connection::start`] or [`Connection::stop`] failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartStopError {
    /// The gateway refused a command, or did not answer it.
    Failed {
        /// Which command, and what the gateway answered.
        failure: Failure,
        /// The network's latest error since that command was last sent.
        network_error: Option<NetworkError>,
    },
    /// A [`Waker`] ended the wait. The handshake is abandoned.
    Woken,
}

#[derive(Debug)]
struct Endpoint {
    socket: UdpSocket,
    woken: AtomicBool,
}

impl Connection {
    /// Binds `local` (port 0 for any free one), connects to `gateway` and discards what was received before. Nothing is
    /// sent.
    ///
    /// # Errors
    ///
    /// The step that failed: [`OpenError`].
    pub fn open(local: SocketAddr, gateway: SocketAddr) -> Result<Connection, OpenError> {
        let socket = socket::open(local, gateway)?;
        // Linux reports twice what is asked for, which is what it counts datagrams against.
        let receive_buffer = 2 * socket::receive_buffer(&socket).unwrap_or(socket::RECEIVE_BUFFER);
        let endpoint = Arc::new(Endpoint { socket, woken: AtomicBool::new(false) });
        Ok(Connection { driver: Driver::new(endpoint, receive_buffer) })
    }

    /// Performs the handshake: `INIT`, `FILTER CLEAR`, every `FILTER ADD`, `START`. If the gateway refuses `INIT` because
    /// the bus is running, `STOP` and a second `INIT` precede the rest.
    ///
    /// Returns once `START` is answered or data has come. Datagrams that came after `START` left are the next events, in
    /// their order. What came before is not delivered; [frames among it are counted](Connection::handshake_frames). Answers
    /// to the commands are not delivered.
    ///
    /// # Errors
    ///
    /// [`StartStopError`]. If `START` left, its failure names it, and the bus may be running.
    pub fn start(&mut self, setup: &Setup) -> Result<(), StartStopError> {
        self.begin_start(setup);
        loop {
            match self.driver.next_event(None) {
                Event::Datagram(datagram) => {
                    let length = datagram.len();
                    self.driver.deliver_again(length);
                    return Ok(());
                }
                Event::Completed { command, outcome: Outcome::NoReply(instead) } => {
                    return Err(self.error(Failure::NoReply(command, instead)));
                }
                Event::Completed { .. } => return Ok(()),
                Event::Failed(failure) => return Err(self.error(failure)),
                Event::Woken => {
                    self.driver.sequencer().cancel();
                    return Err(StartStopError::Woken);
                }
                _ => {}
            }
        }
    }

    /// Stops the controller of this channel, and returns once the gateway has confirmed it. Everything else that comes
    /// meanwhile is discarded. A waker does not end it.
    ///
    /// # Errors
    ///
    /// [`StartStopError::Failed`]: the bus may still be running.
    pub fn stop(&mut self, channel: u8) -> Result<(), StartStopError> {
        self.begin_stop(channel);
        let stop = Command::Stop { channel };
        loop {
            match self.driver.next_event(None) {
                Event::Completed { command, .. } if command == stop => return Ok(()),
                Event::Failed(failure) if failure.command() == stop => return Err(self.error(failure)),
                _ => {}
            }
        }
    }

    /// Waits for the next event; at the latest until everything has been read that arrived before `deadline`.
    pub fn next_event(&mut self, deadline: Option<Instant>) -> Event<'_> {
        self.driver.next_event(deadline)
    }

    /// Begins what [`Connection::start`] does; the events tell how it goes.
    pub fn begin_start(&mut self, setup: &Setup) {
        let now = self.driver.transport().now();
        self.driver.begin_handshake();
        self.driver.sequencer().begin_start(now, setup.clone());
    }

    /// Begins what [`Connection::stop`] does; the events tell how it goes. Returns the failure of a `START` that the
    /// gateway refused and that is not checked by a `STATUS` yet.
    pub fn begin_stop(&mut self, channel: u8) -> Option<Failure> {
        let now = self.driver.transport().now();
        self.driver.sequencer().begin_stop(now, channel)
    }

    /// Sends `START` again, after a [`Connection::request_status`] has shown that it was lost. The connection must be
    /// [idle](Connection::is_idle).
    pub fn start_again(&mut self) {
        self.driver.sequencer().start_again();
    }

    /// Asks for the controller's state; [`Event::Completed`] brings it. The connection must be
    /// [idle](Connection::is_idle).
    pub fn request_status(&mut self) {
        self.driver.sequencer().request_status();
    }

    /// Gives up a `STATUS` that was requested, if it has not ended. Its answer may still come, as a datagram.
    pub fn cancel_status(&mut self) {
        self.driver.sequencer().cancel_status();
    }

    /// Gives up the command in flight, and what would follow it. Returns the failure of a `START` that the gateway refused
    /// and that is not checked by a `STATUS` yet.
    pub fn cancel(&mut self) -> Option<Failure> {
        self.driver.sequencer().cancel()
    }

    /// When commands are sent again, from the next one on. [`Setup::retry`] replaces it.
    pub fn set_retry(&mut self, retry: RetryConfig) {
        self.driver.sequencer().set_retry(retry);
    }

    /// The retry configuration in use.
    pub fn retry(&self) -> RetryConfig {
        self.driver.sequencer_ref().retry()
    }

    /// Whether nothing is in flight and nothing is to be sent.
    pub fn is_idle(&self) -> bool {
        self.driver.sequencer_ref().is_idle()
    }

    /// Switches moderated receiving on or off; it is off at first. With it, datagrams that come shortly after one another are
    /// read up to 4 ms later, many at a time, which costs less CPU time. What [`Connection::received_at`] says is then the
    /// time of reading. While a command is in flight everything is read at once. Deadlines are kept.
    pub fn set_moderated(&mut self, on: bool) {
        self.driver.set_moderated(on);
    }

    /// What the handshake has done to a bus that was running when it began.
    pub fn takeover(&self) -> Takeover {
        self.driver.sequencer_ref().takeover()
    }

    /// The latest error of sending or receiving since a command was last sent.
    pub fn network_error(&self) -> Option<&NetworkError> {
        self.driver.network_error()
    }

    /// Frames that came during the handshake, before `START` left.
    pub fn handshake_frames(&self) -> u64 {
        self.driver.handshake_frames()
    }

    /// When the latest datagram was read.
    pub fn received_at(&self) -> Instant {
        self.driver.received_at()
    }

    /// The time up to which everything that arrived has been read. Deadlines are compared with it.
    pub fn read_up_to(&self) -> Instant {
        self.driver.read_up_to()
    }

    /// The socket. Reading from it takes datagrams away from this connection.
    pub fn socket(&self) -> &UdpSocket {
        &self.driver.transport().socket
    }

    /// A waker of this connection.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(self.driver.transport()))
    }

    fn error(&mut self, failure: Failure) -> StartStopError {
        StartStopError::Failed { failure, network_error: self.driver.take_network_error() }
    }
}

impl Waker {
    /// Ends the blocking [`Connection::next_event`], now or next, with [`Event::Woken`]. What the kernel holds, and what
    /// still arrives, can be read afterwards, and commands can be sent.
    pub fn wake(&self) {
        // Set the flag before the shutdown, so that a reader that wakes sees it.
        self.0.woken.store(true, SeqCst);
        let _ = SockRef::from(&self.0.socket).shutdown(Shutdown::Read);
    }

    /// Whether the connection was woken.
    pub fn is_woken(&self) -> bool {
        self.0.woken.load(SeqCst)
    }
}

impl Transport for Arc<Endpoint> {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, duration: Duration) {
        thread::sleep(duration);
    }

    /// The error of an earlier datagram (a closed port) is reported to the next call, which then sends nothing; so a call
    /// that failed is repeated.
    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send(datagram).or_else(|_| self.socket.send(datagram)).map(drop)
    }

    fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.recv(buffer)
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(timeout)
    }

    fn set_port_sharing(&self, on: bool) -> io::Result<()> {
        socket::set_port_sharing(&self.socket, on)
    }

    fn is_woken(&self) -> bool {
        self.woken.load(SeqCst)
    }
}

impl fmt::Display for StartStopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartStopError::Failed { failure, .. } => failure.fmt(f),
            StartStopError::Woken => f.write_str("woken before START was answered"),
        }
    }
}

impl std::error::Error for StartStopError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartStopError::Failed { network_error: Some(error), .. } => Some(error),
            _ => None,
        }
    }
}
