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

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Weak;
use std::time::{Duration, Instant};

use super::command::{Channel, Command, Verb};
use super::drops::Drops;
use super::moderation::Moderation;
use super::reply::{Line, lines};
use super::sequencer::{Action, Busy, Failure, Sequencer, Setup, Takeover};
use super::socket::{DATAGRAM_MAX, NetworkError, OpenError};
use super::transaction::{Outcome, RetryConfig};
use super::transport::{Endpoint, Transport, Udp, Wait};

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
    transport: Box<dyn Transport>,
    waker: Waker,
    gateway: SocketAddr,
    sequencer: Sequencer,
    stage: Stage,
    buffer: Vec<u8>,
    /// The length of a datagram in the buffer that the next event delivers.
    undelivered: Option<usize>,
    /// The latest reading of the clock.
    now: Instant,
    received_at: Instant,
    /// Everything that arrived before this has been read.
    read_up_to: Instant,
    catching_up: Option<CatchingUp>,
    /// The most datagrams that the socket's queue can hold.
    max_queued_datagrams: usize,
    port_is_shared: bool,
    woken_is_reported: bool,
    /// Nothing is sent any more.
    is_mute: bool,
    network_error: Option<NetworkError>,
    /// A command has left, and something has come from the gateway since.
    has_sent: bool,
    has_answered: bool,
    handshake_frames: u64,
    moderation: Option<Moderation>,
    /// How long to rest before the next read. Reads do not block while there is one.
    rest: Option<Duration>,
}

/// Wakes a [`Connection`] from another thread. It fires once per connection and holds no socket: once the connection is
/// dropped it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Waker(Weak<Endpoint>);

/// What happened next on a [`Connection`].
#[must_use = "it can be a failure"]
#[non_exhaustive]
pub enum Event<'a> {
    /// A datagram that came after `START` left; [`frames`](crate::format::frames) gives its frames. Other lines may be
    /// among its lines.
    Datagram(&'a [u8]),
    /// A datagram that came after `START` left and holds nothing but answers to the command in flight.
    Answer {
        /// The command.
        command: Command,
        /// The datagram.
        datagram: &'a [u8],
    },
    /// A datagram that came before `START` left: answers, or frames of an earlier stream. It is no data.
    Early(&'a [u8]),
    /// A command was sent.
    Sent {
        /// The command.
        command: Command,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// Whether it left this machine; if not, [`Connection::network_error`] says why.
        left: bool,
    },
    /// `INIT` was refused with this text. `STOP` and a second `INIT` follow.
    InitRefused {
        /// The gateway's text.
        text: String,
        /// Whether the bus was certainly running; otherwise it may have been.
        was_running: bool,
    },
    /// A `START`, `STATUS` or `STOP` has ended. A status in answer to `START` or `STOP` is what decided after a refusal.
    Completed {
        /// The command.
        command: Command,
        /// How it ended.
        outcome: Outcome,
    },
    /// The handshake, a `START` or a `STOP` has failed.
    Failed(Failure),
    /// An error was received, such as an ICMP message about an earlier command. The connection goes on.
    NetworkError(&'a NetworkError),
    /// Everything was read that arrived before the deadline. Comes again at once until a later deadline is given.
    Timeout,
    /// A [`Waker`] has woken the connection. Comes once.
    Woken,
}

/// Why [`Connection::start`] or [`Connection::stop`] failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommandError {
    /// The gateway refused a command, or did not answer it.
    Failed(Failure),
    /// A [`Waker`] has fired. The handshake is abandoned; if `START` had left, the bus may be running.
    /// [`Connection::start`] fails like this until [`Connection::next_event`] has returned [`Event::Woken`].
    Woken,
    /// A `STOP` is under way.
    Busy,
}

/// Where a session is, as far as the meaning of a datagram depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    BeforeStart,
    /// `START` has left.
    Streaming,
}

/// Reading without blocking what was there when it began.
#[derive(Debug)]
struct CatchingUp {
    began: Instant,
    /// How many datagrams may be left of those that were there.
    left: usize,
}

impl Connection {
    /// Binds `local` (port 0 for any free one) and connects to `gateway`, about this CAN port. Nothing is sent.
    ///
    /// # Errors
    ///
    /// The step that failed: [`OpenError`].
    pub fn open(local: SocketAddr, gateway: SocketAddr, channel: Channel) -> Result<Connection, OpenError> {
        let udp = Udp::open(local, gateway)?;
        let waker = Waker(udp.endpoint());
        Ok(Connection { waker, ..Connection::over(Box::new(udp), gateway, channel) })
    }

    /// A connection over any transport. Allocates everything that it will need.
    pub(crate) fn over(transport: Box<dyn Transport>, gateway: SocketAddr, channel: Channel) -> Connection {
        let now = transport.now();
        Connection {
            waker: Waker::default(),
            gateway,
            sequencer: Sequencer::new(now, channel),
            stage: Stage::BeforeStart,
            buffer: vec![0; DATAGRAM_MAX],
            undelivered: None,
            now,
            received_at: now,
            read_up_to: now,
            catching_up: None,
            // Linux counts against twice what is asked for.
            max_queued_datagrams: 2 * transport.receive_buffer() / MIN_CHARGE + 1,
            port_is_shared: false,
            woken_is_reported: false,
            is_mute: false,
            network_error: None,
            has_sent: false,
            has_answered: false,
            handshake_frames: 0,
            moderation: None,
            rest: None,
            transport,
        }
    }

    /// Performs the handshake: `INIT`, `FILTER CLEAR`, every `FILTER ADD`, `START`. If the gateway refuses `INIT` because
    /// the bus is running, `STOP` and a second `INIT` precede the rest.
    ///
    /// Returns once `START` is answered or a datagram has come after it. What came after `START` left are the next events, in
    /// their order. What came before is not delivered; [frames among it are counted](Connection::handshake_frames). If a
    /// datagram came first, `START` can still be refused: [`Event::Failed`] says so.
    ///
    /// # Errors
    ///
    /// [`CommandError`]. If `START` left, its failure names it, and the bus may be running.
    pub fn start(&mut self, setup: &Setup) -> Result<(), CommandError> {
        self.begin_start(setup).map_err(|Busy| CommandError::Busy)?;
        loop {
            let started = |command: Command| command.verb == Verb::Start;
            match self.advance(None, Wakers::Leave) {
                Event::Woken => {
                    self.sequencer.abandon();
                    return Err(CommandError::Woken);
                }
                Event::Datagram(datagram) => {
                    self.undelivered = Some(datagram.len());
                    return Ok(());
                }
                Event::Completed { command, outcome: Outcome::NoReply(instead) } if started(command) => {
                    let failure = self.sequencer.unanswered_start(instead);
                    return Err(CommandError::Failed(self.complete(failure)));
                }
                Event::Completed { command, .. } if started(command) => return Ok(()),
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
    /// [`CommandError::Failed`]: the bus may still be running.
    pub fn stop(&mut self) -> Result<(), CommandError> {
        self.begin_stop();
        loop {
            match self.advance(None, Wakers::Ignore) {
                Event::Completed { command, .. } if command.verb == Verb::Stop => return Ok(()),
                Event::Failed(failure) if failure.command.verb == Verb::Stop => {
                    return Err(CommandError::Failed(failure));
                }
                _ => {}
            }
        }
    }

    /// Waits for the next event; at the latest until everything has been read that arrived before `deadline`.
    pub fn next_event(&mut self, deadline: Option<Instant>) -> Event<'_> {
        self.advance(deadline, Wakers::Report)
    }

    /// Begins what [`Connection::start`] does; the events tell how it goes. What was under way or not delivered is forgotten.
    ///
    /// # Errors
    ///
    /// A `STOP` is under way.
    pub fn begin_start(&mut self, setup: &Setup) -> Result<(), Busy> {
        self.now = self.transport.now();
        self.sequencer.begin_start(self.now, setup)?;
        (self.undelivered, self.stage, self.handshake_frames, self.is_mute) = (None, Stage::BeforeStart, 0, false);
        Ok(())
    }

    /// Begins what [`Connection::stop`] does, in place of everything that is not sent yet; the events tell how it goes.
    pub fn begin_stop(&mut self) {
        (self.now, self.is_mute) = (self.transport.now(), false);
        self.sequencer.begin_stop(self.now);
    }

    /// Sends `START` again, after a [`Connection::request_status`] has shown that the controller is stopped.
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

    /// Gives up a `STATUS` that was requested, if it has not ended, and forgets the network's latest error. Its answer may
    /// still come, as a datagram.
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
    /// [`Connection::received_at`] says is then the time of reading. While a command is in flight everything is read at
    /// once. Deadlines are kept, and a waker ends a rest.
    pub fn set_max_rest(&mut self, max_rest: Duration) {
        let receive_buffer = 2 * self.transport.receive_buffer();
        self.moderation = (!max_rest.is_zero()).then(|| Moderation::new(receive_buffer, max_rest));
    }

    /// What the handshake has done to a bus that was running when it began.
    pub fn takeover(&self) -> Takeover {
        self.sequencer.takeover()
    }

    /// The latest error of sending or receiving since a command was last sent.
    pub fn network_error(&self) -> Option<&NetworkError> {
        self.network_error.as_ref()
    }

    /// Frames that came during the handshake, before `START` left.
    pub fn handshake_frames(&self) -> u64 {
        self.handshake_frames
    }

    /// The latest reading of the connection's clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// When the latest datagram was read.
    pub fn received_at(&self) -> Instant {
        self.received_at
    }

    /// The time up to which everything that arrived has been read. Deadlines are compared with it.
    pub fn read_up_to(&self) -> Instant {
        self.read_up_to
    }

    /// Whether a command has left.
    pub(crate) fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// Whether something has come from the gateway since the first command left.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// The gateway's address.
    pub fn gateway(&self) -> SocketAddr {
        self.gateway
    }

    /// The local address.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.transport.local_addr()
    }

    /// The size of the receive buffer that the kernel granted, in bytes; 4 MiB are asked for.
    pub fn receive_buffer(&self) -> usize {
        self.transport.receive_buffer()
    }

    /// Datagrams that the kernel has dropped since the socket was opened, because they came faster than they were read. Where
    /// thousands of sockets are open this can take a fifth of a second.
    pub fn drops(&mut self) -> Drops {
        self.transport.drops()
    }

    /// The same, unless looking could take so long that datagrams are dropped meanwhile.
    pub(crate) fn check_drops(&mut self) -> Option<Drops> {
        self.transport.check_drops()
    }

    /// From now on nothing is sent, and answers have no consequences: only what has arrived is read.
    pub(crate) fn send_no_more(&mut self) {
        self.is_mute = true;
    }

    /// Reads the clock.
    pub(crate) fn read_clock(&mut self) -> Instant {
        self.now = self.transport.now();
        self.now
    }

    /// Whether this machine no longer has the local address, and would speak to the gateway from another one.
    pub(crate) fn address_is_lost(&self) -> bool {
        self.transport.address_is_lost()
    }

    /// The command that was begun and may still be answered.
    pub(crate) fn in_flight(&self) -> Option<Command> {
        self.sequencer.in_flight()
    }

    /// Whether a reply that comes can be one to a command of ours.
    pub(crate) fn is_answerable(&self) -> bool {
        self.sequencer.is_answerable(self.read_up_to)
    }

    /// The failure of a `START` that was refused and that no `STATUS` has checked yet.
    pub(crate) fn unchecked_start(&mut self) -> Option<Failure> {
        self.sequencer.unchecked_start().map(|failure| self.complete(failure))
    }

    /// A waker of this connection.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Works until something happens; at the latest until everything has been read that arrived before `deadline`.
    fn advance(&mut self, deadline: Option<Instant>, wakers: Wakers) -> Event<'_> {
        if let Some(length) = self.undelivered.take() {
            return Event::Datagram(&self.buffer[..length]);
        }
        loop {
            // Both first, so that nothing is sent once a session is over.
            if deadline.is_some_and(|deadline| deadline <= self.read_up_to) {
                return Event::Timeout;
            }
            if wakers != Wakers::Ignore && !self.woken_is_reported && self.transport.is_woken() {
                self.woken_is_reported = wakers == Wakers::Report;
                return Event::Woken;
            }
            let mut until = deadline;
            if self.catching_up.is_none() && !self.is_mute {
                match self.sequencer.poll(self.read_up_to) {
                    Ok(Action::Wait(at)) => until = at.into_iter().chain(deadline).min(),
                    Ok(Action::ReadQueued) => {
                        self.share_port(false);
                        self.catch_up();
                    }
                    Ok(Action::Send { command, attempt }) => return self.send(command, attempt),
                    Ok(Action::InitRefused { text, was_running }) => return Event::InitRefused { text, was_running },
                    Ok(Action::Completed { command, outcome }) => return Event::Completed { command, outcome },
                    Err(failure) => return Event::Failed(self.complete(failure)),
                }
            }
            if self.stage == Stage::Streaming && self.sequencer.is_idle() {
                self.share_port(true);
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
        self.share_port(false);
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
        if left && command.verb == Verb::Start {
            self.stage = Stage::Streaming;
        }
        Event::Sent { command, attempt, left }
    }

    fn on_datagram(&mut self, length: usize) -> Event<'_> {
        let datagram = &self.buffer[..length];
        let answerable = self.sequencer.answerable();
        let mut others = 0;
        let mut answers = 0;
        if answerable.is_some() || self.stage == Stage::BeforeStart {
            for line in lines(datagram).map(Line::classify) {
                let is_answer = self.sequencer.on_line(self.now, line);
                answers += u32::from(is_answer);
                others += u32::from(!is_answer);
                if self.stage == Stage::BeforeStart && matches!(line, Line::Frame(_)) {
                    self.handshake_frames += 1;
                }
            }
        }
        match (self.stage, answerable) {
            (Stage::BeforeStart, _) => Event::Early(datagram),
            (Stage::Streaming, Some(command)) if answers > 0 && others == 0 => Event::Answer { command, datagram },
            (Stage::Streaming, _) => Event::Datagram(datagram),
        }
    }

    /// While a command is in flight no other program may share the port: its answers would be delivered here. An answer that
    /// is already on its way to it when sharing is switched off is taken for ours; that is accepted.
    fn share_port(&mut self, on: bool) {
        if on != self.port_is_shared {
            self.transport.share_port(on);
            self.port_is_shared = on;
        }
    }

    /// Adds what only the connection knows.
    fn complete(&mut self, failure: Failure) -> Failure {
        let (gateway, network_error) = (Some(self.gateway), self.network_error.take());
        Failure { gateway, network_error, has_answered: self.has_answered, ..failure }
    }

    fn catch_up(&mut self) {
        self.catching_up = Some(CatchingUp { began: self.now, left: self.max_queued_datagrams });
    }

    /// How long the next read may wait, so that it returns at `until` at the latest. Rests first, if it is time for that.
    fn wait(&mut self, until: Option<Instant>) -> Wait {
        if self.catching_up.is_none() {
            if let Some(rest) = self.rest.take() {
                if self.may_rest() {
                    self.transport
                        .sleep(until.map_or(rest, |until| rest.min(until.saturating_duration_since(self.now))));
                    self.now = self.transport.now();
                }
                self.catch_up();
            } else if until.is_some_and(|until| until <= self.now) {
                self.catch_up();
            }
        }
        match (&self.catching_up, until) {
            (Some(_), _) => Wait::No,
            (None, Some(until)) => Wait::AtMost(until - self.now),
            (None, None) => Wait::Indefinitely,
        }
    }

    /// Advances the clock when everything has been read that was there when a read without blocking began.
    fn update_read_up_to(&mut self, received: &io::Result<usize>) {
        let Some(catching_up) = &mut self.catching_up else {
            if received.is_ok() {
                self.moderate(self.now, 1);
            }
            return;
        };
        catching_up.left -= 1;
        let is_empty = received.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        if is_empty || catching_up.left == 0 {
            let CatchingUp { began, left } = *catching_up;
            self.read_up_to = began;
            self.catching_up = None;
            self.moderate(began, self.max_queued_datagrams - left - usize::from(is_empty));
        }
    }

    /// Everything that arrived before `now` has been read, `datagrams` since the last time.
    fn moderate(&mut self, now: Instant, datagrams: usize) {
        let may_rest = self.may_rest();
        let rest = self.moderation.as_mut().and_then(|moderation| moderation.on_read(now, datagrams));
        self.rest = rest.filter(|_| may_rest);
    }

    /// An answer and a waker are not kept waiting.
    fn may_rest(&self) -> bool {
        self.stage == Stage::Streaming && self.sequencer.is_idle() && !self.transport.is_woken()
    }
}

/// What to do about a waker that has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wakers {
    Report,
    /// Return, and leave it to the caller's own [`Connection::next_event`].
    Leave,
    Ignore,
}

impl Waker {
    /// Ends the blocking [`Connection::next_event`], now or next, with [`Event::Woken`]. What the kernel holds, and what
    /// still arrives, can be read afterwards, and commands can be sent. From then on the connection polls its socket every
    /// millisecond, so a program that goes on for long opens a new one.
    pub fn wake(&self) {
        if let Some(endpoint) = self.0.upgrade() {
            endpoint.wake();
        }
    }

    /// Whether the connection was woken.
    pub fn is_woken(&self) -> bool {
        self.0.upgrade().is_some_and(|endpoint| endpoint.is_woken())
    }
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Datagram(bytes) => write!(f, "Datagram(\"{}\")", bytes.escape_ascii()),
            Event::Answer { command, datagram } => write!(f, "Answer({command}, \"{}\")", datagram.escape_ascii()),
            Event::Early(bytes) => write!(f, "Early(\"{}\")", bytes.escape_ascii()),
            Event::Sent { command, attempt, left } => write!(f, "Sent({command}, attempt {attempt}, left: {left})"),
            Event::InitRefused { text, was_running } => write!(f, "InitRefused({text:?}, was_running: {was_running})"),
            Event::Completed { command, outcome } => write!(f, "Completed({command}, {outcome:?})"),
            Event::Failed(failure) => write!(f, "Failed({failure})"),
            Event::NetworkError(error) => write!(f, "NetworkError({error:?})"),
            Event::Timeout => f.write_str("Timeout"),
            Event::Woken => f.write_str("Woken"),
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Failed(failure) => failure.fmt(f),
            CommandError::Woken => f.write_str("woken before START was answered"),
            CommandError::Busy => Busy.fmt(f),
        }
    }
}

impl std::error::Error for CommandError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CommandError::Failed(failure) => failure.source(),
            CommandError::Woken | CommandError::Busy => None,
        }
    }
}

#[cfg(test)]
mod tests;
