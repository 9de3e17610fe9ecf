//! What the state machines want done, and what a connection reports.

use std::fmt;
use std::time::Instant;

use super::command::Command;
use super::error::Failure;
use super::reply::Status;
use super::socket::NetworkError;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// `R ok`: the command was carried out.
    Ok,
    /// `R ERR …`: the command was refused, with this text (the whole line, escaped, cut at 200 bytes).
    Refused(String),
    /// The answer to `STATUS`.
    Status(Status),
    /// No transmission was answered in time; the last other line that came meanwhile, if any: a reply of unknown form rather
    /// than another line, and no frame of the port (escaped, cut at 200 bytes).
    NoReply(Option<String>),
}

/// What a [`Sequencer`](super::sequencer::Sequencer) wants done, or reports.
#[derive(Debug)]
#[must_use = "a command that is not sent is not answered"]
#[non_exhaustive]
pub enum Action {
    /// Let no other program share the port, read everything that has arrived, pass it to the sequencer, poll again. A reply to
    /// an earlier program may be among it, and answers nothing of ours.
    ReadQueued,
    /// Send this command now, as attempt of this number (from 1), then call
    /// [`on_sent`](super::sequencer::Sequencer::on_sent).
    Send(Command, u32),
    /// Pass this on: an [`Event::InitRefused`] or an [`Event::Completed`].
    Report(Event<'static>),
    /// Wait for lines, until this time if there is one, and poll again.
    Wait(Option<Instant>),
}

/// What happened next on a [`Connection`](super::Connection).
#[must_use = "it can be a failure"]
#[non_exhaustive]
pub enum Event<'a> {
    /// A datagram that came after `START` left; [`frames`](crate::format::frames) gives its frames. Other lines may be
    /// among its lines.
    Datagram(&'a [u8]),
    /// A datagram that came after `START` left and holds nothing but answers to the command in flight, or to the
    /// latest before: this one.
    Answer(Command, &'a [u8]),
    /// A datagram that came before `START` left: answers, or frames of an earlier stream. It is no data.
    Early(&'a [u8]),
    /// A command was sent.
    Sent {
        /// The command.
        command: Command,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// Whether it left this machine; if not, [`network_error`](super::Connection::network_error) says why.
        left: bool,
    },
    /// `INIT` was refused with this text. `STOP` and a second `INIT` follow.
    InitRefused {
        /// The gateway's text.
        text: String,
        /// Whether the bus was certainly running; otherwise it may have been.
        was_running: bool,
    },
    /// A `START`, `STATUS` or `STOP` has ended. An [`Outcome::Status`] of `START` or `STOP` is what decided after a refusal.
    Completed(Command, Outcome),
    /// The handshake, a `START` or a `STOP` has failed.
    Failed(Failure),
    /// An error was received, such as an ICMP message about an earlier command. The connection goes on.
    NetworkError(&'a NetworkError),
    /// Everything was read that arrived before the deadline. Comes again at once until a later deadline is given.
    Timeout,
    /// A [`Waker`](super::Waker) has woken the connection. Comes once.
    Woken,
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Datagram(bytes) => write!(f, "Datagram(\"{}\")", bytes.escape_ascii()),
            Event::Answer(command, bytes) => write!(f, "Answer({command}, \"{}\")", bytes.escape_ascii()),
            Event::Early(bytes) => write!(f, "Early(\"{}\")", bytes.escape_ascii()),
            Event::Sent { command, attempt, left } => write!(f, "Sent({command}, attempt {attempt}, left: {left})"),
            Event::InitRefused { text, was_running } => write!(f, "InitRefused({text:?}, was_running: {was_running})"),
            Event::Completed(command, outcome) => write!(f, "Completed({command}, {outcome:?})"),
            Event::Failed(failure) => write!(f, "Failed({failure})"),
            Event::NetworkError(error) => write!(f, "NetworkError({error:?})"),
            Event::Timeout => f.write_str("Timeout"),
            Event::Woken => f.write_str("Woken"),
        }
    }
}
