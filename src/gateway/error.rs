//! What can fail in the conversation with a gateway, and what is known of it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::command::Command;
use super::event::Outcome;
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

/// What a handshake did to a bus that was running when it began: it sent `STOP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Takeover {
    /// Whether the bus was certainly running; otherwise it may have been.
    pub was_running: bool,
    /// Whether the bus is certainly stopped; otherwise it may be.
    pub is_stopped: bool,
}

/// A handshake, a `START` or a `STOP` that failed, with all that is known of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The command at which it failed.
    pub command: Command,
    /// How it ended: [`Outcome::Refused`] or [`Outcome::NoReply`].
    pub outcome: Outcome,
    /// Whether the command may have been carried out all the same.
    pub in_doubt: bool,
    /// If it ended with [`Outcome::NoReply`]: how many transmissions left this machine.
    pub transmissions: u32,
    /// Likewise, how many attempts were made.
    pub attempts: u32,
    /// How long each attempt lasted; the last one twice as long.
    pub timeout: Duration,
    /// What the handshake did to a bus that was running; `None`: nothing, or `START` has left since.
    pub takeover: Option<Takeover>,
    /// The gateway; `None` if a [`Sequencer`](super::sequencer::Sequencer) is used alone.
    pub gateway: Option<SocketAddr>,
    /// The network's latest error since the command was begun; `None` likewise.
    pub network_error: Option<Box<NetworkError>>,
    /// Whether something has come from the gateway since the first command left; `false` likewise.
    pub has_answered: bool,
}

/// Why [`Connection::start`](super::Connection::start) failed.
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
    /// Whether the gateway refused the command and has certainly not carried it out.
    pub fn is_refused(&self) -> bool {
        matches!(self.outcome, Outcome::Refused(_)) && !self.in_doubt
    }

    /// The number of the gateway's `R ERR <number> <text>`, in the vendor's list, if it answered with one.
    pub fn error_number(&self) -> Option<u32> {
        if let Outcome::Refused(text) = &self.outcome { error_number(text) } else { None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { command, outcome, transmissions, attempts, timeout, gateway, .. } = self;
        if let Outcome::Refused(text) = outcome {
            if self.in_doubt {
                write!(f, "the gateway answered {command} with {text}")?;
            } else {
                write!(f, "the gateway refused {command}: {text}")?;
            }
            return gateway.map_or(Ok(()), |gateway| write!(f, " ({gateway})"));
        }
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
        if let Outcome::NoReply(Some(text)) = outcome { write!(f, "; only this came: {text}") } else { Ok(()) }
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
