//! Where clock, socket and state machine meet: drives a handshake or a stop to its end.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::handshake::{Action, Failure, Handshake, Retry};
use crate::protocol::{Command, Line, lines};
use crate::socket::{DATAGRAM_MAX, unreachable_words};

/// What happens during an exchange, for those who want to watch.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// This copy of a command was sent.
    Sent(&'a Command, u32),
    /// This command could not be sent, which is as good as lost.
    NotSent(&'a Command, &'a io::Error),
    /// A line arrived that is no frame.
    Heard(&'a [u8]),
    /// The controller was running: `INIT` was refused in these words, so it is stopped and initialised again.
    TakingOver(&'a str),
}

/// Why an exchange failed: with whom, at which command, after how much patience.
#[derive(Debug)]
pub struct ExchangeError {
    /// What the machine says.
    pub failure: Failure,
    /// Whom it talked to.
    pub gateway: SocketAddr,
    /// How often and how long it tried.
    pub retry: Retry,
    /// The last error of the socket's, which may be the cause of a missing reply: a closed port, a lost route.
    pub network: Option<io::Error>,
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failure, gateway) = (&self.failure, self.gateway);
        if let Failure::Refused(command, _) = failure {
            let advice = match command {
                Command::Init { .. } => {
                    "STOP did not help: is another program using this gateway, or can it not do this --bitrate?"
                }
                Command::FilterClear { .. } | Command::FilterAdd { .. } => "check --filter and --channel",
                Command::Start { .. } | Command::Stop { .. } => "check --channel, or try again",
            };
            return write!(f, "{failure} ({gateway}); {advice}");
        }
        let attempts = match self.retry.attempts {
            0 | 1 => "1 attempt".to_owned(),
            many => format!("{many} attempts"),
        };
        write!(f, "{failure} from {gateway} in {attempts} of {} s; ", self.retry.timeout.as_secs_f64())?;
        match &self.network {
            Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => write!(
                f,
                "the port is closed there: nothing listens on UDP port {} of {} (ICMP port unreachable); \
                 wrong --target, or is the gateway still starting?",
                gateway.port(),
                gateway.ip()
            ),
            Some(error) => f.write_str(&unreachable_words(gateway, error)),
            None => write!(
                f,
                "is the gateway on, and reachable (ping {})? Only answers from that very address and port count",
                gateway.ip()
            ),
        }
    }
}

impl Error for ExchangeError {}

/// Drives `machine` to its end on a socket connected to `gateway` and tells how many frames arrived meanwhile. In the
/// end the socket is without a read timeout. An error of the network's is as good as a lost datagram, so it fails nothing by
/// itself.
///
/// # Errors
///
/// The machine's failure, together with the network's last error.
pub fn drive(
    mut machine: Handshake,
    socket: &UdpSocket,
    gateway: SocketAddr,
    mut watch: impl FnMut(Step<'_>),
) -> Result<u64, ExchangeError> {
    let mut buffer = vec![0; DATAGRAM_MAX];
    let mut frames = 0;
    let mut network = None;
    let result = loop {
        match machine.poll(Instant::now()) {
            Err(failure) => break Err(ExchangeError { failure, gateway, retry: machine.retry(), network }),
            Ok(Action::Done) => break Ok(frames),
            Ok(Action::TakeOver(words)) => watch(Step::TakingOver(&words)),
            Ok(Action::Send { command, copy }) => {
                // Only what befell the last copy tells why it was not answered.
                network = send(socket, &command).err();
                watch(match &network {
                    None => Step::Sent(&command, copy),
                    Some(error) => Step::NotSent(&command, error),
                });
            }
            Ok(Action::Wait(until)) => {
                let datagram = match receive_until(socket, until, &mut buffer) {
                    Ok(length) => &buffer[..length],
                    Err(error) => {
                        network = Some(error).filter(|error| !is_no_error(error)).or(network);
                        continue;
                    }
                };
                let now = Instant::now();
                for line in lines(datagram) {
                    match Line::classify(line) {
                        Line::Frame(_) => frames += 1,
                        Line::Reply(reply) => {
                            watch(Step::Heard(line));
                            machine.handle_reply(now, reply);
                        }
                        Line::Event(_) | Line::Unknown(_) => watch(Step::Heard(line)),
                    }
                }
            }
        }
    };
    let _ = socket.set_read_timeout(None);
    result
}

/// Sends a command on a connected socket. An earlier datagram's error (a closed port) is handed to the next call,
/// which then sends nothing; so a failed call is made again.
///
/// # Errors
///
/// The system's, when the second call fails too.
pub fn send(socket: &UdpSocket, command: &Command) -> io::Result<()> {
    let datagram = command.datagram();
    socket.send(&datagram).or_else(|_| socket.send(&datagram)).map(drop)
}

fn receive_until(socket: &UdpSocket, until: Instant, buffer: &mut [u8]) -> io::Result<usize> {
    // A timeout of zero would be none at all.
    let patience = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    socket.set_read_timeout(Some(patience))?;
    let received = socket.recv(buffer);
    if received.as_ref().is_err_and(|error| !is_no_error(error)) {
        // Errors that come one after the other must not keep a processor busy.
        thread::sleep(Duration::from_millis(1));
    }
    received
}

/// The time is up, or a signal came: nothing that the network did.
fn is_no_error(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
