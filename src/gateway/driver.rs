//! The loop between the gateway and a program: reads, feeds the [sequencer](super::handshake), sends.
//!
//! # Time is what has been read
//!
//! A reply that lies in the socket's queue has arrived, however late it is read (a paused virtual machine, a busy
//! processor, SIGSTOP). So the clock of the state machine and of all deadlines shows the time up to which everything has
//! been read. When a deadline is due, the loop reads without blocking until the queue is empty, or until it has read as
//! many datagrams as the queue can have held when that began (a count, not a time: a reply may stand behind frames).
//! Only then does the clock advance, to the time at which this began. A read timeout only wakes the loop.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use super::command::Command;
use super::handshake::{Action, Failure, Sequencer};
use super::moderation::Moderation;
use super::reply::{Line, lines};
use super::socket::{DATAGRAM_MAX, NetworkError};
use super::transaction::Outcome;

/// The smallest amount of a receive buffer that the kernel charges for a datagram, in bytes.
const MIN_CHARGE: usize = 512;

/// Back-off that keeps the loop from spinning after an error or on a shut-down socket.
const SPIN_BACKOFF: Duration = Duration::from_millis(1);

/// What the loop needs of a socket and a clock.
pub(crate) trait Transport {
    fn now(&self) -> Instant;
    fn sleep(&self, duration: Duration);
    fn send(&self, datagram: &[u8]) -> io::Result<()>;
    fn recv(&self, buffer: &mut [u8]) -> io::Result<usize>;
    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()>;
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;
    fn set_port_sharing(&self, on: bool) -> io::Result<()>;
    /// Whether reads return at once, from now on.
    fn is_woken(&self) -> bool;
}

/// What happened next on a [`Connection`](super::Connection).
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A datagram that came after `START` left. Lines that are no frames may be among its lines.
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
        /// Whether it left this machine; if not, [`Connection::network_error`](super::Connection::network_error) says why.
        left: bool,
    },
    /// `INIT` was refused with this text: the bus was running. `STOP` and a second `INIT` follow.
    InitRefused(String),
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
    /// A [`Waker`](super::Waker) has woken the connection. Comes once.
    Woken,
}

/// Where a session is, as far as the meaning of a datagram depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    BeforeStart,
    /// `START` has left.
    Streaming,
}

/// The state of the loop.
#[derive(Debug)]
pub(crate) struct Driver<T> {
    transport: T,
    sequencer: Sequencer,
    stage: Stage,
    buffer: Vec<u8>,
    /// The length of a datagram in the buffer that the next event delivers.
    undelivered: Option<usize>,
    /// The latest reading of the clock.
    now: Instant,
    /// Everything that arrived before this has been read.
    read_up_to: Instant,
    catching_up: Option<CatchingUp>,
    /// The most datagrams that the socket's queue can hold.
    max_queued_datagrams: usize,
    read_timeout: Option<Duration>,
    port_is_shared: bool,
    woken_is_reported: bool,
    network_error: Option<NetworkError>,
    handshake_frames: u64,
    receive_buffer: usize,
    moderation: Option<Moderation>,
    /// How long to rest before the next read. Reads do not block while there is one.
    rest: Option<Duration>,
}

/// Reading without blocking what was there when it began.
#[derive(Debug)]
struct CatchingUp {
    began: Instant,
    /// How many datagrams may be left of those that were there.
    left: usize,
}

impl<T: Transport> Driver<T> {
    /// Allocates everything that it will need. `receive_buffer` is the size of the socket's receive buffer in bytes, as the
    /// kernel counts it.
    pub fn new(transport: T, receive_buffer: usize) -> Driver<T> {
        let now = transport.now();
        Driver {
            transport,
            sequencer: Sequencer::new(now),
            stage: Stage::BeforeStart,
            buffer: vec![0; DATAGRAM_MAX],
            undelivered: None,
            now,
            read_up_to: now,
            catching_up: None,
            max_queued_datagrams: receive_buffer / MIN_CHARGE + 1,
            read_timeout: None,
            port_is_shared: false,
            woken_is_reported: false,
            network_error: None,
            handshake_frames: 0,
            receive_buffer,
            moderation: None,
            rest: None,
        }
    }

    /// Switches moderated receiving on or off: see [`Connection::set_moderated`](super::Connection::set_moderated).
    pub fn set_moderated(&mut self, on: bool) {
        self.moderation = on.then(|| Moderation::new(self.receive_buffer));
    }

    /// The state machine, to begin something.
    pub fn sequencer(&mut self) -> &mut Sequencer {
        &mut self.sequencer
    }

    /// The state machine.
    pub fn sequencer_ref(&self) -> &Sequencer {
        &self.sequencer
    }

    /// The transport.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// When the latest datagram was read.
    pub fn received_at(&self) -> Instant {
        self.now
    }

    /// The time up to which everything has been read.
    pub fn read_up_to(&self) -> Instant {
        self.read_up_to
    }

    /// The latest error of sending or receiving since a command was last sent.
    pub fn network_error(&self) -> Option<&NetworkError> {
        self.network_error.as_ref()
    }

    /// Takes that error away.
    pub fn take_network_error(&mut self) -> Option<NetworkError> {
        self.network_error.take()
    }

    /// Frames that came before `START` left.
    pub fn handshake_frames(&self) -> u64 {
        self.handshake_frames
    }

    /// Makes the datagram of the latest event, of this length, the next event again.
    pub fn deliver_again(&mut self, length: usize) {
        self.undelivered = Some(length);
    }

    /// Everything that comes from now on comes before `START`.
    pub fn begin_handshake(&mut self) {
        self.stage = Stage::BeforeStart;
        self.handshake_frames = 0;
    }

    /// Works until something happens; at the latest until everything has been read that arrived before `deadline`.
    pub fn next_event(&mut self, deadline: Option<Instant>) -> Event<'_> {
        if let Some(length) = self.undelivered.take() {
            return Event::Datagram(&self.buffer[..length]);
        }
        loop {
            // First, so that nothing is sent once a session is over.
            if deadline.is_some_and(|deadline| deadline <= self.read_up_to) {
                return Event::Timeout;
            }
            let sequencer_deadline = match self.sequencer.poll(self.read_up_to) {
                Ok(Action::Wait(until)) => until,
                Ok(Action::Send { command, attempt }) => return self.send(command, attempt),
                Ok(Action::InitRefused(text)) => return Event::InitRefused(text),
                Ok(Action::Completed { command, outcome }) => return Event::Completed { command, outcome },
                Err(failure) => return Event::Failed(failure),
            };
            if self.transport.is_woken() && !self.woken_is_reported {
                self.woken_is_reported = true;
                return Event::Woken;
            }
            if self.stage == Stage::Streaming && self.sequencer.is_idle() {
                self.set_port_sharing(true);
            }
            self.prepare_to_read(sequencer_deadline.into_iter().chain(deadline).min());
            let received = self.transport.recv(&mut self.buffer);
            self.now = self.transport.now();
            self.update_read_up_to(&received);
            match received {
                // The end of a socket that is shut down, not an empty datagram.
                Ok(0) if self.catching_up.is_none() && self.transport.is_woken() => {}
                Ok(length) => return self.on_datagram(length),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => {
                    self.transport.sleep(SPIN_BACKOFF);
                    return Event::NetworkError(self.network_error.insert(NetworkError::Receive(error)));
                }
            }
        }
    }

    fn send(&mut self, command: Command, attempt: u32) -> Event<'_> {
        self.set_port_sharing(false);
        let sent = self.transport.send(&command.datagram());
        self.now = self.transport.now();
        let left = sent.is_ok();
        self.network_error = match (sent, self.network_error.take()) {
            (Err(error), _) => Some(NetworkError::Send(error)),
            // Routers limit how often they say that they refuse. A closed port may have opened since.
            (Ok(()), Some(error @ NetworkError::Receive(_))) if attempt > 1 && !error.port_is_closed() => Some(error),
            (Ok(()), _) => None,
        };
        self.sequencer.on_sent(self.now, left);
        if left && matches!(command, Command::Start { .. }) {
            self.stage = Stage::Streaming;
        }
        Event::Sent { command, attempt, left }
    }

    fn on_datagram(&mut self, length: usize) -> Event<'_> {
        let datagram = &self.buffer[..length];
        let in_flight = self.sequencer.in_flight();
        let mut others = 0;
        let mut answers = 0;
        if in_flight.is_some() || self.stage == Stage::BeforeStart {
            for line in lines(datagram).map(Line::classify) {
                let is_answer = self.sequencer.on_line(self.now, line);
                answers += u32::from(is_answer);
                others += u32::from(!is_answer);
                if self.stage == Stage::BeforeStart && matches!(line, Line::Frame(_)) {
                    self.handshake_frames += 1;
                }
            }
        }
        match (self.stage, in_flight) {
            (Stage::BeforeStart, _) => Event::Early(datagram),
            (Stage::Streaming, Some(command)) if answers > 0 && others == 0 => Event::Answer { command, datagram },
            (Stage::Streaming, _) => Event::Datagram(datagram),
        }
    }

    /// While a command is in flight no other program may share the port: its answers would be delivered here. An answer that
    /// is already on its way to it when sharing is switched off is taken for ours; that is accepted.
    fn set_port_sharing(&mut self, on: bool) {
        if on != self.port_is_shared {
            // Where it cannot be shared, can-stop takes a free port.
            let _ = self.transport.set_port_sharing(on);
            self.port_is_shared = on;
        }
    }

    /// Makes the next read return at `deadline` at the latest, without blocking if that has passed.
    fn prepare_to_read(&mut self, deadline: Option<Instant>) {
        if self.catching_up.is_some() {
            return;
        }
        if let Some(rest) = self.rest.take() {
            if self.may_rest() {
                let rest = deadline.map_or(rest, |deadline| rest.min(deadline.saturating_duration_since(self.now)));
                self.transport.sleep(rest);
                self.now = self.transport.now();
            }
            self.catching_up = Some(CatchingUp { began: self.now, left: self.max_queued_datagrams });
            return;
        }
        // A socket that is shut down ignores read timeouts.
        if self.woken_is_reported || deadline.is_some_and(|deadline| deadline <= self.now) {
            let _ = self.transport.set_nonblocking(true);
            self.catching_up = Some(CatchingUp { began: self.now, left: self.max_queued_datagrams });
            return;
        }
        let wanted = deadline.map(|deadline| deadline - self.now);
        // Setting it exactly would cost a system call for every datagram.
        let is_close = |(wanted, set): (Duration, Duration)| wanted.abs_diff(set) <= wanted / 8;
        let suits = wanted == self.read_timeout || wanted.zip(self.read_timeout).is_some_and(is_close);
        if !suits && self.transport.set_read_timeout(wanted).is_ok() {
            self.read_timeout = wanted;
        }
    }

    /// Advances the clock when everything has been read that was there when a read without blocking began.
    fn update_read_up_to(&mut self, received: &io::Result<usize>) {
        let Some(catching_up) = &mut self.catching_up else {
            if received.is_ok() {
                self.moderate(self.now, 1);
                if self.rest.is_some() {
                    let _ = self.transport.set_nonblocking(true);
                }
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
            if self.rest.is_some() {
                // The next read does not block either.
            } else if !self.woken_is_reported {
                let _ = self.transport.set_nonblocking(false);
            } else if is_empty {
                self.transport.sleep(SPIN_BACKOFF);
            }
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

#[cfg(test)]
mod tests;
