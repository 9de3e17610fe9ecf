//! The handshake, as a state machine without I/O: it is told the time and which replies arrived, and answers what to
//! send and when it next wants to be woken. No socket, no clock, no thread.
//!
//! # What is sent
//!
//! `INIT`, `FILTER CLEAR`, one `FILTER ADD` for each filter, then `START`. Each but `START` waits for its reply, and
//! is sent again when none came within [`Retry::timeout`], at most [`Retry::attempts`] times in all. `START` is sent
//! once and its reply is left to the caller. An `R ERR` ends the handshake at once, except the first one to `INIT`:
//! the controller may be running since an earlier session, so the machine sends `STOP`, awaits its reply, `R ok` or
//! not, and sends `INIT` once more.
//!
//! # What is assumed of the network, and what is then guaranteed
//!
//! A reply does not say which command it answers. Only one command is ever outstanding, so a reply can be credited
//! wrongly only if it arrives after the next command was sent. With `timeout` for [`Retry::timeout`], assume that
//!
//! 1. the gateway carries out and answers each copy of a command at most once, in the order in which they arrive;
//! 2. a command's reply arrives within 2 × `timeout` of the sending of that copy, or never;
//! 3. copies of a reply that the network makes arrive within [`SETTLE`] (20 ms) of the first of them;
//! 4. what is under way from before (the late answer to a `can-stop`) arrives within [`SETTLE`] of the machine's birth.
//!
//! What is no reply may come at any time and in any number. Then
//!
//! * no reply is credited to a command other than its own;
//! * `START` is sent only when the gateway has carried out `INIT`, then `FILTER CLEAR`, then every `FILTER ADD`;
//! * no command is sent while a reply to another may still come, and none more than `attempts` times (`INIT` after a
//!   `STOP` counts anew);
//! * it ends: with [`Action::Done`] whenever of each command at least one copy was answered `R ok` before its last
//!   timeout ran out, otherwise with the [`Failure`] that names the command.
//!
//! The means: after every reply the line settles for [`SETTLE`], and what arrives then still belongs to the command
//! just answered; an `R ERR` among it is that command's true answer. After a command that was sent more than once the
//! machine waits until every copy is answered or until 2 × `timeout` after the last copy (one more timeout than a
//! reply was waited for). Replies less than [`SETTLE`] apart may be one and its copy, so they count once here.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::protocol::{BitRate, Command, Filter, Reply, printable};

/// How long the line is let settle before the first command and after every reply.
pub const SETTLE: Duration = Duration::from_millis(20);

/// How patiently a command is repeated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// How long each copy of a command is given to be answered; more than a day counts as a day.
    pub timeout: Duration,
    /// How many copies of a command are sent at most; 0 counts as 1.
    pub attempts: u32,
}

impl Retry {
    /// So that no deadline lies beyond what a clock can show.
    pub(crate) fn clamped(self) -> Retry {
        const DAY: Duration = Duration::from_secs(86_400);
        Retry { timeout: self.timeout.min(DAY), ..self }
    }
}

impl Default for Retry {
    /// 3 attempts of 1 s.
    fn default() -> Self {
        Retry { timeout: Duration::from_secs(1), attempts: 3 }
    }
}

/// What the machine wants done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send this command now; this is its `copy`-th copy, from 1.
    Send {
        /// The command.
        command: Command,
        /// How often it has been sent, this time included.
        copy: u32,
    },
    /// `INIT` was refused with these words; `STOP` and a second `INIT` follow. Nothing to do but tell the user.
    TakeOver(String),
    /// Wait for replies until then, and poll again.
    Wait(Instant),
    /// All is sent and answered (except `START`, whose reply nobody has waited for).
    Done,
}

/// Why the machine gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// None of the copies of this command was answered in time.
    NoReply(Command),
    /// The gateway refused this command, in these words (escaped, cut at 200 bytes).
    Refused(Command, String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoReply(command) => write!(f, "no reply to {command}"),
            Failure::Refused(command, words) => write!(f, "the gateway refused {command}: {words}"),
        }
    }
}

impl std::error::Error for Failure {}

/// The machine. Poll it until it is done or has failed; see the [module](self) for what it does.
#[derive(Clone, Debug)]
pub struct Handshake {
    retry: Retry,
    /// What is still to be sent, the command in hand first.
    plan: VecDeque<Command>,
    state: State,
    took_over: bool,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing of ours is outstanding; what arrives belongs to what was before.
    Quiet {
        until: Instant,
    },
    /// The command in hand was sent and not yet answered.
    Awaiting {
        copies: u32,
        sent: Instant,
    },
    /// The command in hand was answered; what still arrives is more of its answer.
    Settling(Settling),
    Failed(Failure),
}

#[derive(Clone, Debug)]
struct Settling {
    until: Instant,
    /// The gateway's words, if the answer is no.
    refusal: Option<String>,
    /// How many copies of the command were sent.
    copies: u32,
    /// How many of them are answered for certain.
    answered: u32,
    /// When the last reply came that counted as an answer.
    last_counted: Instant,
}

impl Handshake {
    /// The handshake that brings a channel up and starts it.
    pub fn start(now: Instant, retry: Retry, channel: u8, bit_rate: BitRate, filters: &[Filter]) -> Handshake {
        let mut plan = VecDeque::from([Command::Init { channel, bit_rate }, Command::FilterClear { channel }]);
        plan.extend(filters.iter().map(|&filter| Command::FilterAdd { channel, filter }));
        plan.push_back(Command::Start { channel });
        Handshake::new(now, retry, plan)
    }

    /// One `STOP`, confirmed. The same rules hold; a refusal is a failure.
    pub fn stop(now: Instant, retry: Retry, channel: u8) -> Handshake {
        Handshake::new(now, retry, VecDeque::from([Command::Stop { channel }]))
    }

    fn new(now: Instant, retry: Retry, plan: VecDeque<Command>) -> Handshake {
        Handshake { retry: retry.clamped(), plan, state: State::Quiet { until: now + SETTLE }, took_over: false }
    }

    /// How patient it is.
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// What to do now. Call it again after each action that was carried out, after each reply, and when the time of
    /// [`Action::Wait`] has come.
    ///
    /// # Errors
    ///
    /// A [`Failure`] ends the machine: it says the same from then on.
    pub fn poll(&mut self, now: Instant) -> Result<Action, Failure> {
        match &mut self.state {
            State::Failed(failure) => Err(failure.clone()),
            State::Quiet { until } if now < *until => Ok(Action::Wait(*until)),
            State::Quiet { .. } => Ok(self.send_next(now)),
            State::Awaiting { copies, sent } => {
                let deadline = *sent + self.retry.timeout;
                if now < deadline {
                    return Ok(Action::Wait(deadline));
                }
                let command = self.plan[0];
                if *copies >= self.retry.attempts {
                    return Err(self.fail(Failure::NoReply(command)));
                }
                *copies += 1;
                *sent = now;
                Ok(Action::Send { command, copy: *copies })
            }
            State::Settling(settling) if now < settling.until => Ok(Action::Wait(settling.until)),
            State::Settling(settling) => {
                let refusal = settling.refusal.take();
                self.state = State::Quiet { until: now };
                match refusal {
                    Some(words) if matches!(self.plan[0], Command::Init { .. }) => {
                        self.took_over = true;
                        let channel = self.plan[0].channel();
                        self.plan.push_front(Command::Stop { channel });
                        Ok(Action::TakeOver(words))
                    }
                    _ => {
                        self.plan.pop_front();
                        Ok(self.send_next(now))
                    }
                }
            }
        }
    }

    /// Takes a reply that arrived. What is no reply is not for this machine.
    pub fn handle_reply(&mut self, now: Instant, reply: Reply<'_>) {
        if matches!(self.state, State::Quiet { .. } | State::Failed(_)) {
            return;
        }
        let Some(&command) = self.plan.front() else { return };
        let refusal = match reply {
            Reply::Ok => None,
            Reply::Refused(words) if self.tolerates_refusal_of(command) => Some(printable(words)),
            Reply::Refused(words) => {
                self.fail(Failure::Refused(command, printable(words)));
                return;
            }
        };
        let is_last = self.plan.len() == 1;
        match &mut self.state {
            State::Awaiting { copies, sent } => {
                // After the last command nothing follows that a late reply could be credited to.
                let all_arrived = if *copies == 1 || is_last { now } else { *sent + 2 * self.retry.timeout };
                self.state = State::Settling(Settling {
                    until: all_arrived + SETTLE,
                    refusal,
                    copies: *copies,
                    answered: 1,
                    last_counted: now,
                });
            }
            State::Settling(settling) => {
                settling.refusal = refusal.or(settling.refusal.take());
                if now >= settling.last_counted + SETTLE {
                    settling.answered += 1;
                    settling.last_counted = now;
                }
                if settling.answered == settling.copies {
                    settling.until = settling.until.min(now + SETTLE);
                }
            }
            State::Quiet { .. } | State::Failed(_) => {}
        }
    }

    /// Whether the handshake goes on when this is refused: `INIT` the first time, and the `STOP` that follows.
    fn tolerates_refusal_of(&self, command: Command) -> bool {
        match command {
            Command::Init { .. } => !self.took_over,
            Command::Stop { .. } => self.took_over,
            _ => false,
        }
    }

    fn send_next(&mut self, now: Instant) -> Action {
        let Some(&command) = self.plan.front() else { return Action::Done };
        if let Command::Start { .. } = command {
            self.plan.pop_front();
        } else {
            self.state = State::Awaiting { copies: 1, sent: now };
        }
        Action::Send { command, copy: 1 }
    }

    fn fail(&mut self, failure: Failure) -> Failure {
        self.state = State::Failed(failure.clone());
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_after_the_end_changes_nothing() {
        let begun = Instant::now();
        let mut now = begun;
        let mut machine = Handshake::stop(now, Retry::default(), 1);
        loop {
            match machine.poll(now) {
                Ok(Action::Wait(until)) => now = until,
                Ok(Action::Send { .. }) => machine.handle_reply(now, Reply::Ok),
                Ok(Action::Done) => break,
                other => panic!("{other:?}"),
            }
        }
        machine.handle_reply(now, Reply::Refused(b"R ERR 1 late"));
        assert_eq!(machine.poll(now), Ok(Action::Done));
    }

    #[test]
    fn a_timeout_without_end_counts_as_a_day() {
        let now = Instant::now();
        let mut machine = Handshake::stop(now, Retry { timeout: Duration::MAX, attempts: 1 }, 1);
        let sent = now + SETTLE;
        assert!(matches!(machine.poll(sent), Ok(Action::Send { .. })));
        assert_eq!(machine.poll(sent), Ok(Action::Wait(sent + Duration::from_secs(86_400))));
    }
}
