//! Which command follows which outcome: the four steps that start the stream, later `STATUS`, at last `STOP`. How one
//! command is carried out is the business of `transaction`. The sequencer is told the time and
//! what was read, and answers what to send and when to call it again. No socket, no clock, no thread.
//!
//! # A refusal is believed only when it cannot come from an earlier copy or state
//!
//! * `INIT` refused: the controller may be running. `STOP`, then `INIT` again. Not after errors 1 and 12 (bit rate, port
//!   number), which a restart cannot cure: the running bus may belong to another user.
//! * `FILTER ADD` refused: the entry may exist already, or copies of earlier ones have filled the list. `FILTER CLEAR`
//!   and every entry again, at most `attempts` times.
//! * `START` or `STOP` refused: `STATUS` decides.
//!
//! What nothing decides is a failure [in doubt](Failure::InDoubt).
//!
//! # `STOP` overtakes
//!
//! `STOP` waits [`SETTLE`] for the command in flight to be answered, and lets an answer settle. Without one it is sent at
//! once, for the sake of the bus alone: its answer could not be told from the other's, and a `START` that the network
//! held back may still be carried out after it. Once no reply to either can come, `STOP` is sent anew and confirmed.

use std::fmt;
use std::mem;
use std::time::Instant;

use super::command::{Command, Filter, Init};
use super::reply::{Line, Status};
use super::transaction::{Answer, Next, Outcome, RetryConfig, SETTLE, Transaction};

/// What a handshake sets up before `START`.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// The number of the gateway's CAN port, one of [`CHANNELS`](super::CHANNELS).
    pub channel: u8,
    /// How the controller is initialised.
    pub init: Init,
    /// The entries of the acceptance filter. No two may be equal: the gateway refuses the second.
    pub filters: Vec<Filter>,
    /// When commands are sent again.
    pub retry: RetryConfig,
}

impl Default for Setup {
    /// Channel 1, 250 kbit/s, every 11-bit identifier.
    fn default() -> Self {
        Setup { channel: 1, init: Init::DEFAULT, filters: vec![Filter::ALL_STANDARD], retry: RetryConfig::default() }
    }
}

/// What [`Sequencer::poll`] wants done, or reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send this command now as this attempt, then call [`Sequencer::on_sent`].
    Send {
        /// The command.
        command: Command,
        /// The number of the attempt, from 1.
        attempt: u32,
    },
    /// `INIT` was refused with this text; `STOP` and a second `INIT` follow.
    InitRefused(String),
    /// A `START`, `STATUS` or `STOP` has ended. A [`Answer::Status`] to `START` or `STOP` is what decided after a refusal.
    Completed {
        /// The command.
        command: Command,
        /// How it ended.
        outcome: Outcome,
    },
    /// Wait for lines, until this time if there is one, and poll again.
    Wait(Option<Instant>),
}

/// Why the conversation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No transmission of this command was answered in time; the last other line that came meanwhile, if any.
    NoReply(Command, Option<String>),
    /// The gateway refused this command with this text (escaped, cut at 200 bytes) and has not carried it out.
    Refused(Command, String),
    /// The gateway answered this command with this text, and may have carried it out.
    InDoubt(Command, String),
}

/// What a handshake did to a bus that was running when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// Nothing, or `START` has left since.
    None,
    /// `STOP` was sent.
    StopSent,
    /// The bus was stopped.
    Stopped,
}

/// Decides which command follows which outcome.
#[derive(Clone, Debug)]
pub struct Sequencer {
    setup: Setup,
    line: Transaction,
    step: Step,
    takeover: Takeover,
}

/// What is in flight, or follows when the line is free.
#[derive(Clone, Debug)]
enum Step {
    Idle,
    Init,
    /// `STOP`, because `INIT` was refused.
    TakeOver,
    /// `INIT` after that `STOP`.
    InitAgain,
    /// Rounds of `FILTER CLEAR` and `FILTER ADD` count from 1.
    FilterClear {
        round: u32,
    },
    FilterAdd {
        round: u32,
        entry: usize,
    },
    Start,
    /// `STATUS`, because `START` was refused with this text.
    CheckStart(String),
    /// `STATUS`, because the caller asked for it.
    Query,
    /// `STOP`, once the command in flight is answered, at this time at the latest.
    StopDue {
        at: Instant,
    },
    Stop,
    /// `STATUS`, because `STOP` was refused with this text.
    CheckStop(String),
}

impl Sequencer {
    /// A sequencer with nothing to do. Late replies to earlier programs may come for [`SETTLE`].
    pub fn new(now: Instant) -> Sequencer {
        let setup = Setup::default();
        let line = Transaction::new(now, setup.retry, SETTLE);
        Sequencer { setup, line, step: Step::Idle, takeover: Takeover::None }
    }

    /// When commands are sent again, from the next one on.
    pub fn set_retry(&mut self, retry: RetryConfig) {
        self.line.set_retry(retry);
    }

    /// The retry configuration in use.
    pub fn retry(&self) -> RetryConfig {
        self.line.retry()
    }

    /// The command that was sent and may still be answered.
    pub fn in_flight(&self) -> Option<Command> {
        self.line.in_flight()
    }

    /// Whether nothing is to be sent and no answer is awaited.
    pub fn is_idle(&self) -> bool {
        matches!(self.step, Step::Idle)
    }

    /// What the handshake did to a running bus.
    pub fn takeover(&self) -> Takeover {
        self.takeover
    }

    /// Begins the handshake once the line is quiet: replies to earlier programs and to our own earlier commands must not
    /// be credited to `INIT`.
    pub fn begin_start(&mut self, now: Instant, setup: Setup) {
        let quiet = self.line.replies_until().saturating_duration_since(now).max(setup.retry.initial_quiet());
        self.line = Transaction::new(now, setup.retry, quiet);
        (self.setup, self.step, self.takeover) = (setup, Step::Init, Takeover::None);
    }

    /// Sends `START`, which was lost, again. Nothing else may be in flight.
    pub fn start_again(&mut self) {
        self.step = Step::Start;
    }

    /// Asks for the controller's state. Nothing else may be in flight.
    pub fn request_status(&mut self) {
        self.step = Step::Query;
    }

    /// Gives up the `STATUS` of [`Sequencer::request_status`], if it has not ended.
    pub fn cancel_status(&mut self) {
        if let Step::Query = self.step {
            self.cancel();
        }
    }

    /// Gives up everything. Returns the failure of a `START` that was refused and is not checked yet.
    pub fn cancel(&mut self) -> Option<Failure> {
        match (mem::replace(&mut self.step, Step::Idle), self.line.abandon()) {
            (Step::CheckStart(refusal), _) | (Step::Start, Some(Answer::Refused(refusal))) => {
                Some(Failure::InDoubt(self.command_start(), refusal))
            }
            _ => None,
        }
    }

    /// Sends `STOP` in place of everything that is not sent yet, see the [module](self). Returns the failure of a `START`
    /// that was refused and is not checked yet.
    pub fn begin_stop(&mut self, now: Instant, channel: u8) -> Option<Failure> {
        self.setup.channel = channel;
        match mem::replace(&mut self.step, Step::StopDue { at: now + SETTLE }) {
            Step::CheckStart(refusal) => Some(Failure::InDoubt(self.command_start(), refusal)),
            _ => None,
        }
    }

    /// What to do at `now`, the time up to which everything has been read. To be called again after each action, after
    /// each line, and at the time of [`Action::Wait`].
    ///
    /// # Errors
    ///
    /// A [`Failure`], once. After the failure of a `START` that `STOP` has overtaken the sequencer goes on with `STOP`;
    /// after any other it is idle.
    pub fn poll(&mut self, now: Instant) -> Result<Action, Failure> {
        loop {
            let stop_due = if let Step::StopDue { at } = self.step { Some(at) } else { None };
            match self.line.poll(now) {
                Next::Free if self.is_idle() => return Ok(Action::Wait(None)),
                Next::Free => self.begin(now),
                Next::Done { command, transmissions, outcome } => {
                    if let Some(action) = self.complete(command, transmissions, outcome)? {
                        return Ok(action);
                    }
                }
                // Another attempt is not worth the delay.
                Next::Send(..) if stop_due.is_some() => return Ok(self.overtake()),
                // An answer that came in time may settle first.
                Next::Wait(until) if stop_due.is_some_and(|at| at <= now && now + SETTLE < until) => {
                    return Ok(self.overtake());
                }
                Next::Send(command, attempt) => return Ok(Action::Send { command, attempt }),
                Next::Wait(until) => {
                    let until = stop_due.filter(|&at| now < at).map_or(until, |at| at.min(until));
                    return Ok(Action::Wait(Some(until)));
                }
            }
        }
    }

    /// The command of [`Action::Send`] has left this machine, or failed to; `now` is a time after that.
    pub fn on_sent(&mut self, now: Instant, left: bool) {
        match self.step {
            Step::TakeOver if left => self.takeover = Takeover::StopSent,
            Step::Start if left => self.takeover = Takeover::None,
            _ => {}
        }
        self.line.on_sent(now, left);
    }

    /// Takes a line that was read; `now` is a time after that. Returns whether it is an answer to the command in flight.
    pub fn on_line(&mut self, now: Instant, line: Line<'_>) -> bool {
        self.line.on_line(now, line)
    }

    fn command_start(&self) -> Command {
        Command::Start { channel: self.setup.channel }
    }

    fn begin(&mut self, now: Instant) {
        let channel = self.setup.channel;
        if let Step::StopDue { .. } = self.step {
            self.step = Step::Stop;
        }
        let command = match self.step {
            Step::Idle => return,
            Step::Init | Step::InitAgain => Command::Init { channel, init: self.setup.init },
            Step::FilterClear { .. } => Command::FilterClear { channel },
            Step::FilterAdd { entry, .. } => Command::FilterAdd { channel, filter: self.setup.filters[entry] },
            Step::Start => Command::Start { channel },
            Step::CheckStart(_) | Step::Query | Step::CheckStop(_) => Command::Status { channel },
            Step::TakeOver | Step::StopDue { .. } | Step::Stop => Command::Stop { channel },
        };
        self.line.begin(now, command);
    }

    /// Sends a `STOP` whose answer is not awaited; the next one begins when the line has settled.
    fn overtake(&mut self) -> Action {
        self.step = Step::Stop;
        self.line.abandon();
        Action::Send { command: Command::Stop { channel: self.setup.channel }, attempt: 1 }
    }

    /// What follows the end of a command: something to report, or the next step.
    fn complete(&mut self, command: Command, transmissions: u32, outcome: Outcome) -> Result<Option<Action>, Failure> {
        use Outcome::{Answered, NoReply};
        let completed = |outcome| Ok(Some(Action::Completed { command, outcome }));
        match (mem::replace(&mut self.step, Step::Idle), outcome) {
            (Step::StopDue { at }, outcome) => {
                self.step = Step::StopDue { at };
                match outcome {
                    _ if !matches!(command, Command::Start { .. }) => Ok(None),
                    Answered(Answer::Refused(text)) => Err(Failure::InDoubt(command, text)),
                    NoReply(instead) if transmissions == 0 => Err(Failure::NoReply(command, instead)),
                    outcome => completed(outcome),
                }
            }
            (Step::Query, outcome) => completed(outcome),
            (Step::Start, outcome @ NoReply(_)) if transmissions > 0 => completed(outcome),
            (Step::Start, Answered(Answer::Refused(refusal))) => self.go_to(Step::CheckStart(refusal)),
            (Step::Stop, Answered(Answer::Refused(refusal))) => self.go_to(Step::CheckStop(refusal)),
            (Step::CheckStart(refusal), outcome) => self.checked(self.command_start(), false, refusal, outcome),
            (Step::CheckStop(refusal), outcome) => {
                self.checked(Command::Stop { channel: command.channel() }, true, refusal, outcome)
            }
            (_, NoReply(instead)) => Err(Failure::NoReply(command, instead)),
            (step, Answered(Answer::Refused(text))) => self.refused(step, command, text),
            (step, Answered(_)) => self.carried_out(step, command),
        }
    }

    /// `STATUS` has ended after a refusal of `command`, which was carried out if the controller is in the state it causes.
    fn checked(
        &self,
        command: Command,
        stops: bool,
        refusal: String,
        outcome: Outcome,
    ) -> Result<Option<Action>, Failure> {
        match outcome {
            Outcome::Answered(Answer::Status(Status { stopped, .. })) if stopped == stops => {
                Ok(Some(Action::Completed { command, outcome }))
            }
            Outcome::Answered(Answer::Status(_)) => Err(Failure::Refused(command, refusal)),
            _ => Err(Failure::InDoubt(command, refusal)),
        }
    }

    fn refused(&mut self, step: Step, command: Command, text: String) -> Result<Option<Action>, Failure> {
        match step {
            Step::Init if !matches!(error_number(&text), Some(1 | 12)) => {
                self.step = Step::TakeOver;
                Ok(Some(Action::InitRefused(text)))
            }
            Step::TakeOver => self.go_to(Step::InitAgain),
            Step::FilterAdd { round, .. } if round <= self.retry().attempts => {
                self.go_to(Step::FilterClear { round: round + 1 })
            }
            Step::FilterAdd { .. } => Err(Failure::InDoubt(command, text)),
            _ => Err(Failure::Refused(command, text)),
        }
    }

    fn carried_out(&mut self, step: Step, command: Command) -> Result<Option<Action>, Failure> {
        let (round, entry) = match step {
            Step::Init => return self.go_to(Step::FilterClear { round: 1 }),
            Step::TakeOver => {
                self.takeover = Takeover::Stopped;
                return self.go_to(Step::InitAgain);
            }
            Step::InitAgain => {
                self.takeover = Takeover::Stopped;
                return self.go_to(Step::FilterClear { round: 1 });
            }
            Step::FilterClear { round } => (round, 0),
            Step::FilterAdd { round, entry } => (round, entry + 1),
            _ => return Ok(Some(Action::Completed { command, outcome: Outcome::Answered(Answer::Ok) })),
        };
        let is_last = entry >= self.setup.filters.len();
        self.go_to(if is_last { Step::Start } else { Step::FilterAdd { round, entry } })
    }

    fn go_to(&mut self, step: Step) -> Result<Option<Action>, Failure> {
        self.step = step;
        Ok(None)
    }
}

/// The number in the gateway's `R ERR <number> <text>`.
pub(crate) fn error_number(refusal: &str) -> Option<u32> {
    refusal.split_ascii_whitespace().nth(2)?.parse().ok()
}

impl Failure {
    /// The command that failed.
    pub fn command(&self) -> Command {
        match *self {
            Failure::NoReply(command, _) | Failure::Refused(command, _) | Failure::InDoubt(command, _) => command,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoReply(command, _) => write!(f, "no reply to {command}"),
            Failure::Refused(command, text) => write!(f, "the gateway refused {command}: {text}"),
            Failure::InDoubt(command, text) => write!(f, "the gateway answered {command} with {text}"),
        }
    }
}

impl std::error::Error for Failure {}
