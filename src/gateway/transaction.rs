//! One command and its answer: sent, repeated while nothing answers it, and over when the line has settled. Which
//! command follows is decided in [`sequencer`](super::sequencer). No socket, no clock, no thread.
//!
//! # Assumptions about the network
//!
//! It loses, delays and doubles requests and replies. With `timeout` for [`RetryConfig::timeout`]:
//!
//! 1. a transmission is carried out and answered within 2 × `timeout`, or never;
//! 2. if the network doubles it, the other copies are carried out and answered within [`SETTLE`] of its first answer;
//! 3. replies to earlier programs (the late answer to a `can-stop`) arrive during the initial quiet.
//!
//! Then no answer is credited to a command other than its own, and when a command is sent, no copy of the one before can
//! still be carried out. The exception is a command sent after [`Transaction::abandon`]: its answer is not awaited.
//!
//! # Which answer counts
//!
//! `R ok` says that the command was carried out at least once, so it stands, whatever follows. `R ERR` may refuse a
//! repetition of a command that was carried out; it stands if nothing better has come until the line has settled.
//!
//! # When the next command may be sent
//!
//! [`SETTLE`] after the answer if the command was transmitted once. If it was repeated, copies of it may still be carried out
//! and answered: then two timeouts after the last transmission, and [`SETTLE`]. `replies_until` is that time.

use std::mem;
use std::time::{Duration, Instant};

use super::command::{Command, Verb};
use super::event::{Action, Event, Outcome};
use super::reply::{Line, is_of, is_reply};
use crate::text::escape_truncated;

/// How long the line settles after the answer to a command that was transmitted once: 20 ms.
pub const SETTLE: Duration = Duration::from_millis(20);

/// When a command is sent again, and how many times. A command that nothing answers fails after (`attempts` + 1) timeouts,
/// `START`, which is transmitted once, after two:
/// the answer to the last transmission is awaited for as long as one can come.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryConfig {
    /// How long to wait for a reply before the command is sent again: 1 ms to a day; what is outside counts as the limit.
    pub timeout: Duration,
    /// Maximum attempts, with those that fail on this machine; 0 counts as 1. `START` is transmitted at most once.
    pub attempts: u32,
}

impl RetryConfig {
    /// At most `attempts` transmissions, `timeout` apart.
    pub fn new(timeout: Duration, attempts: u32) -> RetryConfig {
        RetryConfig { timeout, attempts }
    }

    /// How long a handshake waits before it sends `INIT`: a quarter of the timeout, at most 2 s.
    pub fn initial_quiet(&self) -> Duration {
        (self.timeout / 4).min(Duration::from_secs(2))
    }

    /// The same within the ranges that the state machine can count with.
    pub(super) fn clamped(self) -> RetryConfig {
        const DAY: Duration = Duration::from_secs(86_400);
        RetryConfig { timeout: self.timeout.clamp(Duration::from_millis(1), DAY), attempts: self.attempts.max(1) }
    }
}

impl Default for RetryConfig {
    /// 3 attempts of 1 s.
    fn default() -> Self {
        RetryConfig { timeout: Duration::from_secs(1), attempts: 3 }
    }
}

/// The line to the gateway, with at most one command in flight.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    /// Within the ranges that can be counted with.
    pub retry: RetryConfig,
    in_flight: Option<InFlight>,
    /// The command to which an answer may be read: it has left, and is in flight, or was, and not everything was read that
    /// came until `replies_until`.
    pub answerable: Option<Command>,
    /// How many attempts of the latest command were made, and how many of them left this machine.
    pub attempts: u32,
    pub transmissions: u32,
    /// Until then, copies of earlier commands may be carried out and answered.
    pub replies_until: Instant,
}

/// A command that was begun and has not ended. An attempt that failed locally is no transmission.
#[derive(Clone, Debug)]
struct InFlight {
    command: Command,
    /// Whether everything was read that came before the first transmission.
    queue_was_read: bool,
    /// When the next attempt follows. Once it is answered: until when a better answer is taken.
    next_at: Instant,
    /// How it would end now.
    outcome: Outcome,
}

impl Transaction {
    /// A line on which replies to earlier programs may come for the duration of `quiet`.
    pub fn new(now: Instant, retry: RetryConfig, quiet: Duration) -> Transaction {
        let replies_until = now + quiet;
        Transaction { retry, in_flight: None, answerable: None, attempts: 0, transmissions: 0, replies_until }
    }

    /// The command that was begun and has not ended.
    pub fn in_flight(&self) -> Option<Command> {
        self.in_flight.as_ref().map(|in_flight| in_flight.command)
    }

    /// Begins a command. The line must have settled.
    pub fn begin(&mut self, command: Command) {
        (self.answerable, self.attempts, self.transmissions) = (None, 0, 0);
        self.in_flight = Some(InFlight {
            command,
            queue_was_read: false,
            next_at: self.replies_until,
            outcome: Outcome::NoReply(None),
        });
    }

    /// Gives up the command in flight, whose replies may still come.
    pub fn abandon(&mut self) {
        self.in_flight = None;
    }

    /// How the command in flight would end now.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.in_flight.as_ref().map(|in_flight| &in_flight.outcome)
    }

    /// What to do at `now`, the time up to which everything has been read. [`Action::Wait`] without a time: the line has
    /// settled, so the next command may [begin](Transaction::begin).
    pub fn poll(&mut self, now: Instant) -> Action {
        let Some(in_flight) = &mut self.in_flight else {
            if now < self.replies_until {
                return Action::Wait(Some(self.replies_until));
            }
            self.answerable = None;
            return Action::Wait(None);
        };
        let command = in_flight.command;
        if !mem::replace(&mut in_flight.queue_was_read, true) {
            return Action::ReadQueued;
        }
        let is_answered = !matches!(in_flight.outcome, Outcome::NoReply(_));
        let is_last = self.attempts >= self.retry.attempts || command.verb == Verb::Start && self.transmissions > 0;
        let until = if is_last && !is_answered { self.replies_until } else { in_flight.next_at };
        if now < until {
            return Action::Wait(Some(until));
        }
        if !is_last && !is_answered {
            self.attempts += 1;
            return Action::Send(command, self.attempts);
        }
        let outcome = mem::replace(&mut in_flight.outcome, Outcome::NoReply(None));
        self.in_flight = None;
        Action::Report(Event::Completed(command, outcome))
    }

    /// The command of [`Action::Send`] has left this machine, or failed to; `now` is a time after that. With nothing in
    /// flight it was one whose answer is not awaited.
    pub fn on_sent(&mut self, now: Instant, left: bool) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.next_at = now + self.retry.timeout;
            if left {
                (self.answerable, self.transmissions) = (Some(in_flight.command), self.transmissions + 1);
            }
        }
        if left {
            self.replies_until = self.replies_until.max(now + 2 * self.retry.timeout + SETTLE);
        }
    }

    /// Takes a line that was read; `now` is a time after that. Returns whether it is an answer to the command in flight, or
    /// to the latest before; an `R ok` may just as well be for another program then.
    pub fn on_line(&mut self, now: Instant, line: &[u8]) -> bool {
        let Some(command) = self.answerable else { return false };
        let answer = answer_to(command, line);
        let Some(in_flight) = &mut self.in_flight else {
            return matches!(answer, Ok(Outcome::Refused(_) | Outcome::Status(_)));
        };
        match (&mut in_flight.outcome, answer) {
            (Outcome::NoReply(instead), Err(line)) => {
                // A reply of unknown form tells more than an unsolicited line.
                let is_better = |line: &String| is_reply(line) || !instead.as_deref().is_some_and(is_reply);
                *instead = line.filter(is_better).or(instead.take());
                false
            }
            (_, Err(_)) => false,
            // The request or the reply was doubled.
            (Outcome::Ok | Outcome::Status(_), Ok(_)) | (Outcome::Refused(_), Ok(Outcome::Refused(_))) => true,
            (outcome, Ok(answer)) => {
                let settle_end = now + SETTLE;
                let is_only_copy = self.transmissions == 1;
                self.replies_until = if is_only_copy { settle_end } else { self.replies_until.max(settle_end) };
                in_flight.next_at = if let Outcome::Refused(_) = answer { self.replies_until } else { settle_end };
                *outcome = answer;
                true
            }
        }
    }
}

/// The answer that a line is to `command`; else the line as text, unless it is a frame of that CAN port.
fn answer_to(command: Command, line: &[u8]) -> Result<Outcome, Option<String>> {
    match Line::classify(line) {
        Line::Status(status) if command.verb == Verb::Status && command.channel == status.channel => {
            Ok(Outcome::Status(status))
        }
        Line::Ok => Ok(Outcome::Ok),
        Line::Refused => Ok(Outcome::Refused(escape_truncated(line))),
        Line::Frame if is_of(line, command.channel) => Err(None),
        Line::Status(_) | Line::Frame | Line::Event | Line::Unknown => Err(Some(escape_truncated(line))),
    }
}
