//! What can fail in the conversation with a gateway, and what is known of it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::command::Command;
use super::socket::NetworkError;

/// What is under way must end first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another command is under way")
    }
}

impl std::error::Error for Busy {}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// No transmission of it was answered in time.
    NoReply {
        /// How many left this machine.
        transmissions: u32,
        /// How many attempts were made.
        attempts: u32,
        /// How long each attempt lasted; the last one twice as long.
        timeout: Duration,
        /// The last line that came meanwhile and was no reply to it, if any (escaped, cut at 200 bytes).
        instead: Option<String>,
    },
    /// The gateway refused it with this text (escaped, cut at 200 bytes) and has not carried it out.
    Refused(String),
    /// The gateway answered it with this text, and may have carried it out.
    InDoubt(String),
}

/// What a handshake did to a bus that was running when it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Takeover {
    /// Nothing, or `START` has left since.
    #[default]
    None,
    /// `STOP` was sent.
    StopSent {
        /// Whether the bus was certainly running; otherwise it may have been.
        was_running: bool,
    },
    /// The bus is stopped.
    Stopped {
        /// Whether the bus was certainly running; otherwise it may have been.
        was_running: bool,
    },
}

/// A handshake, a `START` or a `STOP` that failed, with all that is known of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The command at which it failed.
    pub command: Command,
    /// Why.
    pub cause: Cause,
    /// What the handshake did to a bus that was running.
    pub takeover: Takeover,
    /// The gateway; `None` if a [`Sequencer`](super::sequencer::Sequencer) is used alone.
    pub gateway: Option<SocketAddr>,
    /// The network's latest error since the command was last sent; likewise.
    pub network_error: Option<Box<NetworkError>>,
    /// Whether something has come from the gateway since the first command left; likewise.
    pub has_answered: bool,
}

/// Why [`Connection::start`](super::Connection::start) or [`Connection::stop`](super::Connection::stop) failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommandError {
    /// The gateway refused a command, or did not answer it.
    Failed(Failure),
    /// A [`Waker`](super::Waker) has fired. The handshake is abandoned; if `START` had left, the bus may be running. Every
    /// start fails like this until the caller's own `next_event` has returned [`Event::Woken`](super::Event::Woken).
    Woken,
    /// A `STOP` is under way.
    Busy,
}

/// The number in the gateway's `R ERR <number> <text>`.
pub(crate) fn error_number(refusal: &str) -> Option<u32> {
    refusal.split_ascii_whitespace().nth(2)?.parse().ok()
}

impl Failure {
    /// The number of the gateway's `R ERR <number> <text>`, in the vendor's list, if it answered with one.
    pub fn error_number(&self) -> Option<u32> {
        match &self.cause {
            Cause::Refused(text) | Cause::InDoubt(text) => error_number(text),
            Cause::NoReply { .. } => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { command, cause, gateway, .. } = self;
        match cause {
            Cause::NoReply { transmissions, attempts, timeout, instead } => {
                write!(f, "no reply to {command}")?;
                gateway.map_or(Ok(()), |gateway| write!(f, " from {gateway}"))?;
                let plural = if *transmissions == 1 { "" } else { "s" };
                match transmissions {
                    0 => write!(f, ": none of {attempts} attempts left this machine")?,
                    _ => write!(f, " in {transmissions} attempt{plural} of {} s", timeout.as_secs_f64())?,
                }
                if transmissions == attempts {
                    write!(f, " ({} s in all)", (*timeout * (attempts + 1)).as_secs_f64())?;
                }
                return instead.as_ref().map_or(Ok(()), |text| write!(f, "; only this came: {text}"));
            }
            Cause::Refused(text) => write!(f, "the gateway refused {command}: {text}")?,
            Cause::InDoubt(text) => write!(f, "the gateway answered {command} with {text}")?,
        }
        gateway.map_or(Ok(()), |gateway| write!(f, " ({gateway})"))
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.network_error.as_deref().map(|error| error as _)
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
        if let CommandError::Failed(failure) = self { failure.source() } else { None }
    }
}
