//! A connection to one CAN port of one gateway: the API that programs use, and the loop that reads, feeds the
//! [sequencer](super::sequencer) and sends.
//!
//! # Time is what has been read
//!
//! A reply that lies in the socket's queue has arrived, however late it is read (a paused virtual machine, a busy
//! processor, SIGSTOP). So the clock of the state machine and of all deadlines shows the time up to which everything has
//! been read. When a deadline is due, the loop reads without blocking until the queue is empty, or until it has read as
//! many datagrams as the queue can have held when that began (a count, not a time: a reply may stand behind frames).
//! Only then does the clock advance, to the time at which this began. A read timeout only wakes the loop.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::command::{Channel, Command, Verb};
use super::drops::Drops;
use super::error::{Busy, CommandError, Failure, Takeover};
use super::event::{Action, Event, Outcome};
use super::moderation::Moderation;
use super::sequencer::{Sequencer, Setup};
use super::socket::{DATAGRAM_MAX, NetworkError};
use super::transaction::RetryConfig;
use super::transport::{Transport, Udp, Waker};

/// The smallest amount of a receive buffer that the kernel charges for a datagram, in bytes.
const MIN_CHARGE: usize = 512;

/// Back-off that keeps the loop from spinning after an error.
const ERROR_BACKOFF: Duration = Duration::from_millis(1);

/// A UDP socket that is connected to a gateway, and the conversation on it about one CAN port.
///
/// Everything happens inside [`Connection::next_event`], on the thread that calls it: reading, sending, repeating a
/// command that is not answered. Call it without long pauses; the kernel drops datagrams when its buffer is full.
///
/// ```
/// use std::net::UdpSocket;
/// use std::thread;
///
/// use can_udp::{Channel, Connection, Event, Setup};
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
/// let mut bus = Connection::open("127.0.0.1:0".parse()?, address, Channel::DEFAULT)?;
/// bus.start(&Setup::default())?;
/// loop {
///     match bus.next_event(None) {
///         Event::Datagram(bytes) => {
///             assert_eq!(bytes, b"M 1 CSD 100 55 AA\n");
///             break;
///         }
///         Event::Failed(failure) => return Err(failure.into()),
///         _ => {}
///     }
/// }
/// bus.stop()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) gateway: SocketAddr,
    pub(crate) sequencer: Sequencer,
    /// `START` has left.
    is_streaming: bool,
    buffer: Vec<u8>,
    /// The length of a datagram in the buffer that the next event delivers.
    undelivered: Option<usize>,
    /// The latest reading of the clock.
    now: Instant,
    received_at: Instant,
    /// Everything that arrived before this has been read. Deadlines are compared with it.
    pub(crate) read_up_to: Instant,
    /// Since then reads do not block, until everything that was there has been read.
    catching_up_since: Option<Instant>,
    /// How many reads since then have found something.
    reads: usize,
    /// The size of what came with them.
    bytes: usize,
    /// The most datagrams that the socket's queue can hold.
    max_queued_datagrams: usize,
    woken_is_reported: bool,
    /// Nothing is sent any more, and no command ends: only what has arrived is read.
    pub(crate) is_mute: bool,
    network_error: Option<NetworkError>,
    /// Whether a command has left.
    pub(crate) has_sent: bool,
    /// Whether something has come from the gateway since.
    pub(crate) has_answered: bool,
    moderation: Option<Moderation>,
    /// How long to rest before the next read.
    rest: Option<Duration>,
}

impl Connection {
    /// Binds `local` (port 0 for any free one) and connects to `gateway`, about this CAN port. Nothing is sent.
    ///
    /// # Errors
    ///
    /// The step that failed: [`NetworkError`].
    pub fn open(local: SocketAddr, gateway: SocketAddr, channel: Channel) -> Result<Connection, NetworkError> {
        Ok(Connection::over(Box::new(Udp::open(local, gateway)?), gateway, channel))
    }

    /// A connection over any transport. Allocates everything that it will need.
    pub(crate) fn over(transport: Box<dyn Transport>, gateway: SocketAddr, channel: Channel) -> Connection {
        let now = transport.now();
        Connection {
            gateway,
            sequencer: Sequencer::new(now, channel),
            is_streaming: false,
            buffer: vec![0; DATAGRAM_MAX],
            undelivered: None,
            now,
            received_at: now,
            read_up_to: now,
            catching_up_since: None,
            reads: 0,
            bytes: 0,
            // Linux counts against twice what is asked for.
            max_queued_datagrams: 2 * transport.receive_buffer() / MIN_CHARGE + 1,
            woken_is_reported: false,
            is_mute: false,
            network_error: None,
            has_sent: false,
            has_answered: false,
            moderation: None,
            rest: None,
            transport,
        }
    }

    /// Performs the handshake: `INIT`, `FILTER CLEAR`, every `FILTER ADD`, `START`. If the gateway refuses `INIT` because
    /// the bus is running, `STOP` and a second `INIT` precede the rest.
    ///
    /// Returns once `START` is answered or a datagram has come after it. The datagrams that came after `START` left are the next events,
    /// in their order, without the answer to `START`. What came before is not delivered. If a datagram came first, `START` can still be refused:
    /// [`Event::Failed`] says so.
    ///
    /// # Errors
    ///
    /// [`CommandError`]. If `START` left, its failure names it, and the bus may be running.
    pub fn start(&mut self, setup: &Setup) -> Result<(), CommandError> {
        self.begin_start(setup).map_err(|Busy| CommandError::Busy)?;
        loop {
            match self.next_event(None) {
                Event::Woken => {
                    // It is left to the caller's own next_event.
                    self.woken_is_reported = false;
                    self.sequencer.abandon();
                    return Err(CommandError::Woken);
                }
                Event::Datagram(datagram) => {
                    self.undelivered = Some(datagram.len());
                    return Ok(());
                }
                Event::Completed(command, outcome) if command.verb == Verb::Start => {
                    let Outcome::NoReply(_) = outcome else { return Ok(()) };
                    let failure = self.sequencer.failure(Verb::Start, outcome);
                    return Err(CommandError::Failed(self.complete(failure)));
                }
                Event::Failed(failure) => return Err(CommandError::Failed(failure)),
                _ => {}
            }
        }
    }

    /// Stops the controller, and returns once the gateway has confirmed it. Everything else that comes meanwhile is
    /// discarded. A waker neither ends it nor is lost.
    ///
    /// # Errors
    ///
    /// The failure of `STOP`: the bus may still be running.
    pub fn stop(&mut self) -> Result<(), Failure> {
        self.begin_stop();
        let woken_is_reported = self.woken_is_reported;
        let stopped = loop {
            match self.next_event(None) {
                Event::Completed(command, _) if command.verb == Verb::Stop => break Ok(()),
                Event::Failed(failure) if failure.command.verb == Verb::Stop => break Err(failure),
                _ => {}
            }
        };
        // A waker that fired meanwhile is left to the caller's own next_event.
        self.woken_is_reported = woken_is_reported;
        stopped
    }

    /// Begins what [`Connection::start`] does; the events tell how it goes. What was under way or not delivered is forgotten.
    ///
    /// # Errors
    ///
    /// A `STOP` is under way.
    pub fn begin_start(&mut self, setup: &Setup) -> Result<(), Busy> {
        self.now = self.transport.now();
        self.sequencer.begin_start(self.now, setup)?;
        (self.undelivered, self.is_streaming) = (None, false);
        Ok(())
    }

    /// Begins what [`Connection::stop`] does, in place of everything that is not sent yet; the events tell how it goes.
    pub fn begin_stop(&mut self) {
        self.now = self.transport.now();
        self.sequencer.begin_stop(self.now);
    }

    /// Has `START` sent again, after a [`Connection::request_status`] has shown that the controller is stopped.
    ///
    /// # Errors
    ///
    /// The connection is not [idle](Connection::is_idle).
    pub fn start_again(&mut self) -> Result<(), Busy> {
        self.sequencer.start_again()
    }

    /// Asks for the controller's state; [`Event::Completed`] brings it.
    ///
    /// # Errors
    ///
    /// The connection is not [idle](Connection::is_idle).
    pub fn request_status(&mut self) -> Result<(), Busy> {
        self.sequencer.request_status()
    }

    /// Gives up a `STATUS` that was requested, if it has not ended, or a [`Connection::start_again`] that has not left, and
    /// forgets the network's latest error. The answer to `STATUS` may still come: as [`Event::Answer`], later as a datagram.
    pub fn cancel_status(&mut self) {
        self.network_error = None;
        self.sequencer.cancel_status();
    }

    /// When commands are sent again, from the next one on. [`Setup::retry`] replaces it.
    pub fn set_retry(&mut self, retry: RetryConfig) {
        self.sequencer.set_retry(retry);
    }

    /// Whether nothing is in flight and nothing is to be sent.
    pub fn is_idle(&self) -> bool {
        self.sequencer.is_idle()
    }

    /// Switches moderated receiving on, or off with zero; it is off at first. With it, datagrams that come shortly after one
    /// another are read up to `max_rest` later, many at a time, which costs less CPU time. What
    /// [`Connection::received_at`] says is then up to `max_rest` later than the arrival. While a command is in flight everything is read at
    /// once. Deadlines are kept, and a waker ends a rest.
    pub fn set_max_rest(&mut self, max_rest: Duration) {
        let receive_buffer = 2 * self.transport.receive_buffer();
        self.moderation = (!max_rest.is_zero()).then(|| Moderation::new(receive_buffer, max_rest));
    }

    /// What the handshake has done to a bus that was running when it began; `None`: nothing, or `START` has left since.
    pub fn takeover(&self) -> Option<Takeover> {
        self.sequencer.takeover()
    }

    /// The latest error of sending or receiving since a command was begun; an error that was received outlasts further attempts,
    /// unless it was that the port is closed.
    pub fn network_error(&self) -> Option<&NetworkError> {
        self.network_error.as_ref()
    }

    /// The latest reading of the connection's clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// When the latest datagram was read.
    pub fn received_at(&self) -> Instant {
        self.received_at
    }

    /// The local address.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.transport.local_addr()
    }

    /// The size of the receive buffer that the kernel granted, in bytes; 4 MiB are asked for unless the default is larger.
    pub fn receive_buffer(&self) -> usize {
        self.transport.receive_buffer()
    }

    /// Datagrams that the kernel has dropped since the socket was opened, because they came faster than they were read. Where
    /// thousands of sockets are open this can take a fifth of a second.
    pub fn drops(&mut self) -> Drops {
        self.transport.drops()
    }

    /// Reads the clock.
    pub(crate) fn read_clock(&mut self) -> Instant {
        self.now = self.transport.now();
        self.now
    }

    /// The command to which a reply that comes can be an answer.
    pub(crate) fn answerable(&self) -> Option<Verb> {
        let line = &self.sequencer.line;
        // The field is cleared by a poll, which need not have come yet.
        let is_open = line.in_flight().is_some() || self.read_up_to < line.replies_until;
        line.answerable.filter(|_| is_open).map(|command| command.verb)
    }

    /// The failure of a `START` that was refused and that no `STATUS` has checked yet.
    pub(crate) fn unchecked_start(&mut self) -> Option<Failure> {
        self.sequencer.unchecked_start().map(|failure| self.complete(failure))
    }

    /// A waker of this connection.
    pub fn waker(&self) -> Waker {
        self.transport.waker()
    }

    /// Waits for the next event; at the latest until everything has been read that arrived before `deadline`.
    pub fn next_event(&mut self, deadline: Option<Instant>) -> Event<'_> {
        if let Some(length) = self.undelivered.take() {
            return Event::Datagram(&self.buffer[..length]);
        }
        loop {
            // The deadline and the waker first, so that nothing is sent once a session is over.
            if deadline.is_some_and(|deadline| deadline <= self.read_up_to) {
                return Event::Timeout;
            }
            if !self.woken_is_reported && self.transport.is_woken() {
                self.woken_is_reported = true;
                return Event::Woken;
            }
            let mut until = deadline;
            // While catching up, `read_up_to` stands still, so nothing is due.
            if self.catching_up_since.is_none() && !self.is_mute {
                match self.sequencer.poll(self.read_up_to) {
                    Ok(Action::Wait(at)) => until = at.into_iter().chain(deadline).min(),
                    Ok(Action::ReadQueued) => {
                        self.transport.share_port(false);
                        self.catch_up();
                    }
                    Ok(Action::Send(command, attempt)) => return self.send(command, attempt),
                    Ok(Action::Report(event)) => return event,
                    Err(failure) => return Event::Failed(self.complete(failure)),
                }
            }
            if self.is_streaming && self.sequencer.is_idle() {
                self.transport.share_port(true);
            }
            let wait = self.wait(until);
            let received = self.transport.recv(&mut self.buffer, wait);
            self.now = self.transport.now();
            self.update_read_up_to(&received);
            match received {
                Ok(length) => {
                    (self.received_at, self.has_answered) = (self.now, self.has_sent);
                    return self.on_datagram(length);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => {
                    self.transport.sleep(ERROR_BACKOFF);
                    return Event::NetworkError(self.network_error.insert(NetworkError::Receive(error)));
                }
            }
        }
    }

    fn send(&mut self, command: Command, attempt: u32) -> Event<'_> {
        self.transport.share_port(false);
        let sent = self.transport.send(&command.datagram());
        self.now = self.transport.now();
        let left = sent.is_ok();
        self.network_error = match (sent, self.network_error.take()) {
            (Err(error), _) => Some(NetworkError::Send(error)),
            // Routers limit how often they say that they refuse. A closed port may have opened since.
            (Ok(()), Some(error @ NetworkError::Receive(_))) if attempt > 1 && !error.port_is_closed() => Some(error),
            (Ok(()), _) => None,
        };
        self.has_sent |= left;
        self.sequencer.on_sent(self.now, left);
        self.is_streaming |= left && command.verb == Verb::Start;
        Event::Sent { command, attempt, left }
    }

    fn on_datagram(&mut self, length: usize) -> Event<'_> {
        let datagram = &self.buffer[..length];
        match self.sequencer.on_datagram(self.now, datagram) {
            _ if !self.is_streaming => Event::Early(datagram),
            Some(command) => Event::Answer(command, datagram),
            None => Event::Datagram(datagram),
        }
    }

    /// Adds what only the connection knows.
    fn complete(&mut self, failure: Failure) -> Failure {
        let (gateway, network_error) = (Some(self.gateway), self.network_error.take().map(Box::new));
        Failure { gateway, network_error, has_answered: self.has_answered, ..failure }
    }

    fn catch_up(&mut self) {
        (self.catching_up_since, self.reads, self.bytes) = (Some(self.now), 0, 0);
    }

    /// How long the next read may wait, so that it returns at `until` at the latest. Rests first, if it is time for that.
    fn wait(&mut self, until: Option<Instant>) -> Option<Duration> {
        let wait = until.map(|until| until.saturating_duration_since(self.now));
        if self.catching_up_since.is_none() {
            // An answer and a waker are not kept waiting.
            let may_rest = self.is_streaming && self.sequencer.is_idle() && !self.transport.is_woken();
            let rest = self.rest.take().filter(|_| may_rest);
            if let Some(rest) = rest {
                self.transport.sleep(wait.map_or(rest, |wait| wait.min(rest)));
                self.now = self.transport.now();
            }
            if rest.is_some() || wait == Some(Duration::ZERO) {
                self.catch_up();
            }
        }
        if self.catching_up_since.is_some() { Some(Duration::ZERO) } else { wait }
    }

    /// Advances `read_up_to` when everything has been read that was there when a read without blocking began; then it may be
    /// time for a rest.
    fn update_read_up_to(&mut self, received: &io::Result<usize>) {
        let is_empty = received.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        self.reads += usize::from(!is_empty);
        let length = *received.as_ref().unwrap_or(&0);
        self.bytes += length;
        let (at, datagrams, bytes) = match self.catching_up_since {
            None if received.is_ok() => (self.now, 1, length),
            Some(began) if is_empty || self.reads >= self.max_queued_datagrams => {
                (self.read_up_to, self.catching_up_since) = (began, None);
                (began, self.reads, self.bytes)
            }
            _ => return,
        };
        self.rest = self.moderation.as_mut().and_then(|moderation| moderation.on_read(at, datagrams, bytes));
    }
}

#[cfg(test)]
mod tests;
