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

use std::mem;
use std::time::{Duration, Instant};

use super::command::{Command, Verb};
use super::reply::{Line, Reply, Status};
use crate::text::escape_truncated;

/// How long the line settles after a reply: 20 ms.
pub const SETTLE: Duration = Duration::from_millis(20);

/// When a command is sent again, and how many times. A command that nothing answers fails after (`attempts` + 1) timeouts:
/// the answer to the last transmission is awaited for as long as one can come.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryConfig {
    /// How long to wait for a reply before the command is sent again: 1 ms to a day; what is outside counts as the limit.
    pub timeout: Duration,
    /// Maximum transmissions of a command; 0 counts as 1. `START` is transmitted once.
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

    /// How long after a transmission it can still be carried out and answered.
    fn reply_window(&self) -> Duration {
        2 * self.timeout + SETTLE
    }

    /// The same within the ranges that the state machine can count with.
    fn clamped(self) -> RetryConfig {
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

/// The gateway's answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// `R ok`: the command was carried out.
    Ok,
    /// `R ERR …`: the command was refused, with this text (the whole line, escaped, cut at 200 bytes).
    Refused(String),
    /// The answer to `STATUS`.
    Status(Status),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The gateway answered it.
    Answered(Answer),
    /// No transmission was answered in time; the last other line that came meanwhile, if any (escaped, cut at 200 bytes).
    NoReply(Option<String>),
}

/// What [`Transaction::poll`] wants done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    /// The line has settled: the next command may [begin](Transaction::begin).
    Free,
    /// Read everything that has arrived, then poll again: it cannot answer the command that is sent next.
    ReadQueued,
    /// Send this command as this attempt, then call [`Transaction::on_sent`].
    Send(Command, u32),
    /// Nothing to do before this time, unless a line arrives.
    Wait(Instant),
    /// The command has ended; so many transmissions of it left this machine.
    Done { command: Command, transmissions: u32, outcome: Outcome },
}

/// The line to the gateway, with at most one command in flight.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    retry: RetryConfig,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing is in flight. Until `until`, copies of earlier commands may be carried out and answered; the latest is
    /// remembered until everything was read that came before.
    Quiet { until: Instant, latest: Option<Command> },
    /// Begun and not answered. An attempt that failed locally is no transmission.
    Awaiting {
        command: Command,
        max_transmissions: u32,
        /// Whether everything was read that came before the first transmission.
        queue_was_read: bool,
        attempts: u32,
        transmissions: u32,
        next_attempt_at: Instant,
        replies_until: Instant,
        instead: Option<String>,
    },
    /// Answered. A better answer is taken until `until`; after `replies_until` no more replies can come.
    Settling { command: Command, transmissions: u32, answer: Answer, until: Instant, replies_until: Instant },
}

impl Transaction {
    /// A line on which replies to earlier programs may come for the duration of `quiet`.
    pub fn new(now: Instant, retry: RetryConfig, quiet: Duration) -> Transaction {
        Transaction { retry: retry.clamped(), state: State::Quiet { until: now + quiet, latest: None } }
    }

    /// When commands are sent again, from the next one on.
    pub fn set_retry(&mut self, retry: RetryConfig) {
        self.retry = retry.clamped();
    }

    /// The retry configuration, within the ranges that can be counted with.
    pub fn retry(&self) -> RetryConfig {
        self.retry
    }

    /// The command that was begun and has not ended.
    pub fn in_flight(&self) -> Option<Command> {
        match self.state {
            State::Quiet { .. } => None,
            State::Awaiting { command, .. } | State::Settling { command, .. } => Some(command),
        }
    }

    /// The same, or the latest that was in flight or given up, as long as answers to it may be read.
    pub fn answerable(&self) -> Option<Command> {
        match self.state {
            State::Quiet { latest, .. } => latest,
            _ => self.in_flight(),
        }
    }

    /// Begins a command, to be transmitted so many times at most. The line must be [free](Next::Free).
    pub fn begin(&mut self, now: Instant, command: Command, max_transmissions: u32) {
        self.state = State::Awaiting {
            command,
            max_transmissions,
            queue_was_read: false,
            attempts: 0,
            transmissions: 0,
            next_attempt_at: now,
            replies_until: now,
            instead: None,
        };
    }

    /// Gives up the command in flight, whose replies may still come.
    pub fn abandon(&mut self) {
        let latest = self.answerable().filter(|_| self.has_left());
        self.state = State::Quiet { until: self.replies_until(), latest };
    }

    /// Whether a copy of the command in flight has left this machine, if there is one.
    pub fn has_left(&self) -> bool {
        !matches!(self.state, State::Awaiting { transmissions: 0, .. })
    }

    /// The answer so far to the command in flight.
    pub fn answer(&self) -> Option<&Answer> {
        if let State::Settling { answer, .. } = &self.state { Some(answer) } else { None }
    }

    /// What to do at `now`, the time up to which everything has been read.
    pub fn poll(&mut self, now: Instant) -> Next {
        let replies_until = self.replies_until();
        let until = match &mut self.state {
            State::Quiet { until, .. } | State::Settling { until, .. } => *until,
            State::Awaiting { queue_was_read: queue_was_read @ false, .. } => {
                *queue_was_read = true;
                return Next::ReadQueued;
            }
            State::Awaiting { command, max_transmissions, attempts, transmissions, next_attempt_at, .. }
                if *attempts < self.retry.attempts && *transmissions < *max_transmissions =>
            {
                if now < *next_attempt_at {
                    return Next::Wait(*next_attempt_at);
                }
                *attempts += 1;
                return Next::Send(*command, *attempts);
            }
            State::Awaiting { .. } => replies_until,
        };
        if now < until {
            return Next::Wait(until);
        }
        let latest = self.in_flight();
        match mem::replace(&mut self.state, State::Quiet { until: replies_until, latest }) {
            State::Quiet { .. } => Next::Free,
            State::Awaiting { command, transmissions, instead, .. } => {
                Next::Done { command, transmissions, outcome: Outcome::NoReply(instead) }
            }
            State::Settling { command, transmissions, answer, .. } => {
                Next::Done { command, transmissions, outcome: Outcome::Answered(answer) }
            }
        }
    }

    /// The command of [`Next::Send`] has left this machine, or failed to; `now` is a time after that. With nothing in
    /// flight it was one whose answer is not awaited.
    pub fn on_sent(&mut self, now: Instant, left: bool) {
        let window = self.retry.reply_window();
        match &mut self.state {
            State::Awaiting { transmissions, next_attempt_at, replies_until, .. } => {
                *next_attempt_at = now + self.retry.timeout;
                if left {
                    (*transmissions, *replies_until) = (*transmissions + 1, now + window);
                }
            }
            State::Quiet { until, .. } if left => *until = (*until).max(now + window),
            _ => {}
        }
    }

    /// Takes a line that was read; `now` is a time after that. Returns whether it is an answer to the command in flight, or
    /// to the latest before; an `R ok` may just as well be a neighbour's then.
    pub fn on_line(&mut self, now: Instant, line: Line<'_>) -> bool {
        let Some(command) = self.answerable() else { return false };
        let (settled, replies_until) = (now + SETTLE, self.replies_until());
        match (&mut self.state, answer_to(command, line)) {
            (State::Quiet { .. }, answer) => matches!(answer, Ok(Answer::Refused(_) | Answer::Status(_))),
            // Nothing has left that it could answer.
            (State::Awaiting { transmissions: 0, .. }, _) => false,
            (State::Awaiting { transmissions, .. }, Ok(answer)) => {
                let transmissions = *transmissions;
                let replies_until = if transmissions == 1 { settled } else { replies_until.max(settled) };
                let until = if let Answer::Refused(_) = answer { replies_until } else { settled };
                self.state = State::Settling { command, transmissions, answer, until, replies_until };
                true
            }
            (State::Awaiting { instead, .. }, Err(line)) => {
                // A reply of unknown form tells more than what comes of itself.
                let is_reply = |text: &String| text.starts_with(['R', 'r']);
                let is_better = |line: &String| is_reply(line) || !instead.as_ref().is_some_and(is_reply);
                *instead = line.filter(is_better).or(instead.take());
                false
            }
            (State::Settling { answer: Answer::Refused(_), .. }, Ok(Answer::Refused(_))) => true,
            (State::Settling { answer: refusal @ Answer::Refused(_), until, replies_until, .. }, Ok(better)) => {
                (*refusal, *until, *replies_until) = (better, settled, settled.max(*replies_until));
                true
            }
            // Of a doubled request, or of a doubled reply.
            (State::Settling { .. }, Ok(_)) => true,
            (State::Settling { .. }, Err(_)) => false,
        }
    }

    /// When no reply can come any more to what is in flight, or was before.
    pub fn replies_until(&self) -> Instant {
        match self.state {
            State::Quiet { until, .. } => until,
            State::Awaiting { replies_until, .. } | State::Settling { replies_until, .. } => replies_until,
        }
    }
}

/// The answer that a line is to `command`; else the line as text, unless it is a frame.
fn answer_to(command: Command, line: Line<'_>) -> Result<Answer, Option<String>> {
    match line {
        Line::Reply(Reply::Status(status)) if command.verb == Verb::Status && command.channel == status.channel => {
            Ok(Answer::Status(status))
        }
        Line::Reply(Reply::Status(status)) => Err(Some(format!("R CAN {} (another CAN port)", status.channel))),
        Line::Reply(Reply::Ok) => Ok(Answer::Ok),
        Line::Reply(Reply::Refused(text)) => Ok(Answer::Refused(escape_truncated(text))),
        Line::Frame(_) => Err(None),
        Line::Event(text) | Line::Unknown(text) => Err(Some(escape_truncated(text))),
    }
}
