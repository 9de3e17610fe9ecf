//! One turn of the loop between the gateway and a program: read, feed the state machine, send. And the waker.
//!
//! # Time is what has been read
//!
//! A reply that lies in the socket's queue has arrived, however late it is read (a paused virtual machine, a processor
//! that others use, SIGSTOP). So the machine's clock, and that of all deadlines, shows the time up to which everything
//! has been read. When a deadline is due, the loop goes on reading without blocking until nothing is left, or until it
//! has read as many datagrams as the queue can have held when it began (a count, not a time: a reply may stand behind
//! frames). Only then it is as late as when that began. A read timeout does no more than wake the loop.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Error, anyhow};
use socket2::SockRef;

use crate::gateway::command::Command;
use crate::gateway::handshake::{Action, Answer, Failure, Machine};
use crate::gateway::reply::replies;
use crate::gateway::socket::{DATAGRAM_MAX, RECEIVE_BUFFER, unreachable_words};

/// How many datagrams the kernel can hold at most: each takes up at least half a kilobyte of a buffer that Linux makes
/// twice as large as asked for.
const QUEUED_MAX: usize = 2 * RECEIVE_BUFFER / 512;

/// How long the loop sleeps where the kernel would let it spin: after an error, and on a socket that is shut down.
const BREATH: Duration = Duration::from_millis(1);

/// What the loop needs of a socket and of the time, so that a test can stand in for both.
pub(crate) trait Endpoint {
    fn now(&self) -> Instant;
    fn sleep(&self, duration: Duration);
    fn send(&self, datagram: &[u8]) -> io::Result<()>;
    fn recv(&self, buffer: &mut [u8]) -> io::Result<usize>;
    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()>;
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;
    /// Whether a read that blocks is to be woken, now and from now on.
    fn is_woken(&self) -> bool;
}

/// A socket connected to the gateway, and the waker of whoever is blocked reading it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub socket: UdpSocket,
    woken: AtomicBool,
}

impl Connection {
    pub fn new(socket: UdpSocket) -> Connection {
        Connection { socket, woken: AtomicBool::new(false) }
    }

    /// Wakes the loop for good: somebody wants the end, or the writer has failed. What the kernel holds, and what still
    /// arrives, can be read afterwards, and commands can be sent.
    pub fn wake(&self) {
        // First the word, then the deed: who is woken by nothing else than this finds out why.
        self.woken.store(true, SeqCst);
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Read);
    }

    /// Whether it was woken.
    pub fn is_woken(&self) -> bool {
        self.woken.load(SeqCst)
    }
}

impl Endpoint for &Connection {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, duration: Duration) {
        thread::sleep(duration);
    }

    /// An earlier datagram's error (a closed port) is handed to the next call, which then sends nothing; so a failed
    /// call is made again.
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

    fn is_woken(&self) -> bool {
        Connection::is_woken(self)
    }
}

/// What one turn came to.
#[derive(Debug)]
pub(crate) enum Turn {
    /// This copy of a command was sent; or could not be, which is as good as lost: [`Exchange::network_error`] tells.
    Sent(Command, u32),
    /// `INIT` was refused in these words: the controller is stopped and initialised again.
    TakeOver(String),
    /// A command is done with, and this was its answer.
    Settled(Command, Option<Answer>),
    /// The machine gave up, for this reason.
    Failed(Failure),
    /// [`Exchange::datagram`] has arrived.
    Datagram,
    /// The time to wake has come.
    Due,
    /// The endpoint is woken.
    Woken,
    /// An error of the network's, which passes: [`Exchange::network_error`].
    Trouble,
}

/// The state of the loop.
pub(crate) struct Exchange<E> {
    endpoint: E,
    pub machine: Machine,
    buffer: Vec<u8>,
    length: usize,
    /// The latest reading of the clock.
    now: Instant,
    /// Everything that arrived before has been read.
    read_up_to: Instant,
    catching_up: Option<CatchingUp>,
    read_timeout: Option<Duration>,
    woken: bool,
    network_error: Option<io::Error>,
}

struct CatchingUp {
    began: Instant,
    /// How many datagrams may be left of those that were there then.
    left: usize,
}

impl<E: Endpoint> Exchange<E> {
    /// Takes what it needs of memory at once.
    pub fn new(endpoint: E, machine: Machine, now: Instant) -> Exchange<E> {
        Exchange {
            endpoint,
            machine,
            buffer: vec![0; DATAGRAM_MAX],
            length: 0,
            now,
            read_up_to: now,
            catching_up: None,
            read_timeout: None,
            woken: false,
            network_error: None,
        }
    }

    /// The datagram that has just arrived.
    pub fn datagram(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    /// What the network said last, since a command was last sent; it may be why that one is not answered.
    pub fn network_error(&self) -> Option<&io::Error> {
        self.network_error.as_ref()
    }

    /// Whether the network said that the gateway's port is closed.
    pub fn port_is_closed(&self) -> bool {
        self.network_error().is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }

    /// When the latest datagram was read, or a little earlier than now.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The time up to which everything has been read.
    pub fn read_up_to(&self) -> Instant {
        self.read_up_to
    }

    /// Goes on until something happens; at the latest until everything has been read that arrived before `wake`.
    pub fn turn(&mut self, wake: Option<Instant>) -> Turn {
        loop {
            let machine_wakes = match self.machine.poll(self.read_up_to) {
                Ok(Action::Wait(until)) => until,
                Ok(Action::Send { command, copy }) => return self.send(command, copy),
                Ok(Action::Settled { command, answer }) => return Turn::Settled(command, answer),
                Ok(Action::TakeOver(words)) => return Turn::TakeOver(words),
                Err(failure) => return Turn::Failed(failure),
            };
            if wake.is_some_and(|wake| wake <= self.read_up_to) {
                return Turn::Due;
            }
            if self.endpoint.is_woken() && !self.woken {
                self.woken = true;
                return Turn::Woken;
            }
            self.prepare_to_read(earlier(machine_wakes, wake));
            let received = self.endpoint.recv(&mut self.buffer);
            self.now = self.endpoint.now();
            self.note_progress(&received);
            match received {
                // What woke us, not a datagram.
                Ok(0) if self.catching_up.is_none() && self.endpoint.is_woken() => {}
                Ok(length) => {
                    self.length = length;
                    if self.machine.in_hand().is_some() {
                        for reply in replies(&self.buffer[..length]) {
                            self.machine.handle_reply(self.now, reply);
                        }
                    }
                    return Turn::Datagram;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => {
                    self.endpoint.sleep(BREATH);
                    self.network_error = Some(error);
                    return Turn::Trouble;
                }
            }
        }
    }

    fn send(&mut self, command: Command, copy: u32) -> Turn {
        self.network_error = self.endpoint.send(&command.datagram()).err();
        self.now = self.endpoint.now();
        self.machine.sent(self.now);
        Turn::Sent(command, copy)
    }

    /// Sees to it that the next reading ends at `deadline`, or does not block if that has come.
    fn prepare_to_read(&mut self, deadline: Option<Instant>) {
        if self.catching_up.is_some() {
            return;
        }
        // Read timeouts are dead once the socket is shut down, so from then on nothing blocks.
        if self.woken || deadline.is_some_and(|deadline| deadline <= self.now) {
            let _ = self.endpoint.set_nonblocking(true);
            self.catching_up = Some(CatchingUp { began: self.now, left: QUEUED_MAX });
            return;
        }
        let wanted = deadline.map(|deadline| deadline - self.now);
        // To set it anew for every datagram would be a system call for every datagram.
        let is_about_right = |(wanted, set): (Duration, Duration)| wanted.abs_diff(set) <= wanted / 8;
        let suits = wanted == self.read_timeout || wanted.zip(self.read_timeout).is_some_and(is_about_right);
        if !suits && self.endpoint.set_read_timeout(wanted).is_ok() {
            self.read_timeout = wanted;
        }
    }

    /// When all is read that was there when a reading began, it is as late as it was then.
    fn note_progress(&mut self, received: &io::Result<usize>) {
        let Some(catching_up) = &mut self.catching_up else { return };
        catching_up.left -= 1;
        let nothing_left = received.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        if nothing_left || catching_up.left == 0 {
            self.read_up_to = catching_up.began;
            self.catching_up = None;
            if !self.woken {
                let _ = self.endpoint.set_nonblocking(false);
            } else if nothing_left {
                self.endpoint.sleep(BREATH);
            }
        }
    }

    /// A failure in words: with whom, at which command, after how much patience, and what to try.
    pub fn explain(&self, failure: &Failure, gateway: SocketAddr) -> Error {
        let command = match failure {
            Failure::NoReply(_) => return self.explain_no_reply(failure, gateway),
            Failure::Refused(command, _) => command,
        };
        let advice = match command {
            Command::Init { init, .. } if init.listen_only || init.data_bit_rate.is_some() => {
                "STOP did not help: perhaps this gateway does not know --listen-only or --data-bitrate; try without"
            }
            Command::Init { .. } => {
                "STOP did not help: is another program using this gateway, or can it not do this --bitrate?"
            }
            Command::FilterClear { .. } | Command::FilterAdd { .. } => "check --filter and --channel",
            _ => "check --channel, or try again",
        };
        anyhow!("{failure} ({gateway}); {advice}")
    }

    fn explain_no_reply(&self, failure: &Failure, gateway: SocketAddr) -> Error {
        let retry = self.machine.retry();
        let attempts = match retry.attempts {
            0 | 1 => "1 attempt".to_owned(),
            many => format!("{many} attempts"),
        };
        let cause = match &self.network_error {
            Some(_) if self.port_is_closed() => format!(
                "the port is closed there: nothing listens on UDP port {} of {} (ICMP port unreachable); wrong --target, \
                 or is the gateway still starting?",
                gateway.port(),
                gateway.ip()
            ),
            Some(error) => unreachable_words(gateway, error),
            None => format!(
                "is the gateway on, and reachable (ping {})? Only answers from that very address and port count",
                gateway.ip()
            ),
        };
        anyhow!("{failure} from {gateway} in {attempts} of {} s; {cause}", retry.timeout.as_secs_f64())
    }
}

/// The earlier of two times, where there are any.
pub(crate) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests;
