//! Which command follows which outcome: the four steps that start the stream, later `STATUS`, at last `STOP`. The sequencer
//! is given the time and what was read, and answers what to send and when to call it again. No socket, no clock, no thread.
//!
//! [`Connection`](super::Connection) is a loop around a sequencer. A program with a loop of its own feeds it like this:
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use can_udp::gateway::reply::{Line, lines};
//! use can_udp::gateway::sequencer::{Action, Sequencer};
//! use can_udp::{Channel, Setup};
//!
//! // A gateway that accepts everything, and a clock that this program advances.
//! let (mut inbox, mut now) = (Vec::new(), Instant::now());
//! let mut sequencer = Sequencer::new(now, Channel::DEFAULT);
//! sequencer.begin_start(now, &Setup::default())?;
//! let mut sent = Vec::new();
//! while !sequencer.is_idle() {
//!     match sequencer.poll(now)? {
//!         Action::Send { command, .. } => {
//!             sent.push(command.to_string());
//!             inbox.push("R ok\n");
//!             sequencer.on_sent(now, true);
//!         }
//!         // Here: read without blocking until nothing is left, and pass on what comes.
//!         Action::ReadQueued => {}
//!         Action::Wait(until) => match inbox.pop() {
//!             Some(datagram) => {
//!                 for line in lines(datagram.as_bytes()) {
//!                     sequencer.on_line(now, Line::classify(line));
//!                 }
//!             }
//!             None => now = until.unwrap_or(now + Duration::from_secs(1)),
//!         },
//!         _ => {}
//!     }
//! }
//! assert_eq!(sent, ["CAN 1 INIT STD 250", "CAN 1 FILTER CLEAR", "CAN 1 FILTER ADD STD 000 000", "CAN 1 START"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A refusal is believed only when it cannot come from an earlier copy or state
//!
//! * `INIT` refused with error 10: the controller is running. `STOP`, then `INIT` again. With an error that names a
//!   parameter: final; a restart cannot cure it, and the running bus may belong to another user. With any other: `STATUS`
//!   decides whether the controller is running, or may be.
//! * `FILTER ADD` refused: the entry may exist already, or copies of earlier ones have filled the list. `FILTER CLEAR`
//!   and every entry again, in 4 rounds at most.
//! * `START` or `STOP` refused: `STATUS` decides.
//!
//! What nothing decides is a failure [in doubt](Cause::InDoubt).
//!
//! # `STOP` overtakes
//!
//! `STOP` waits [`SETTLE`], 20 ms, for the command in flight to be answered, and lets an answer settle. Without one it is
//! sent at once, for the sake of the bus alone: its answer could not be told from the other's, and a `START` that the
//! network held back may still be carried out after it. Once no reply to either can come, `STOP` is sent anew and confirmed.

use std::fmt;
use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::command::{BitRate, Channel, Command, Filter, Init, Verb};
use super::reply::{Line, Status};
use super::socket::NetworkError;
use super::transaction::{Answer, Next, Outcome, RetryConfig, SETTLE, Transaction};

/// How many times the filters are set in all.
const MAX_FILTER_ROUNDS: u32 = 4;

/// What a handshake sets up before `START`.
///
/// ```
/// use std::time::Duration;
///
/// use can_udp::gateway::{BitRate, Filter, RetryConfig, Setup};
///
/// let mut setup = Setup::default();
/// setup.init.bit_rate = BitRate::try_from(500)?;
/// setup.init.listen_only = true;
/// setup.filters = vec!["STD:100:7F0".parse()?, Filter::ALL_EXTENDED];
/// setup.retry = RetryConfig::new(Duration::from_millis(500), 10);
/// # Ok::<(), can_udp::gateway::ValueError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Setup {
    /// How the controller is initialised.
    pub init: Init,
    /// The entries of the acceptance filter. No two may be equal: the gateway refuses the second.
    pub filters: Vec<Filter>,
    /// When commands are sent again.
    pub retry: RetryConfig,
}

impl Default for Setup {
    /// 250 kbit/s, every 11-bit identifier.
    fn default() -> Self {
        let init = Init::new(BitRate::DEFAULT);
        Setup { init, filters: vec![Filter::ALL_STANDARD], retry: RetryConfig::default() }
    }
}

/// What [`Sequencer::poll`] wants done, or reports.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a command that is not sent is not answered"]
#[non_exhaustive]
pub enum Action {
    /// Let no other program share the port, read everything that has arrived, pass it to [`Sequencer::on_line`], poll again.
    /// A reply to an earlier program may be among it, and answers nothing of ours.
    ReadQueued,
    /// Send this command now as this attempt, then call [`Sequencer::on_sent`].
    Send {
        /// The command.
        command: Command,
        /// The number of the attempt, from 1.
        attempt: u32,
    },
    /// `INIT` was refused with this text; `STOP` and a second `INIT` follow.
    InitRefused {
        /// The gateway's text.
        text: String,
        /// Whether the bus was certainly running; otherwise it may have been.
        was_running: bool,
    },
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
        /// How many there could have been.
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
    /// The gateway; `None` if a [`Sequencer`] is used without a [`Connection`](super::Connection).
    pub gateway: Option<SocketAddr>,
    /// The network's latest error since the command was last sent; likewise.
    pub network_error: Option<NetworkError>,
    /// Whether something has come from the gateway since the first command left; likewise.
    pub has_answered: bool,
}

/// Decides which command follows which outcome.
#[derive(Clone, Debug)]
pub struct Sequencer {
    channel: Channel,
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
    /// `STATUS`, because `INIT` was refused with this text.
    CheckInit(String),
    /// `STOP`, because `INIT` was refused.
    TakeOver {
        was_running: bool,
    },
    /// `INIT` after that `STOP`.
    InitAgain {
        was_running: bool,
    },
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
    /// `STOP`, once the command in flight is answered, at this time at the latest. The refusal of a `START` that was not
    /// checked yet is reported first.
    StopDue {
        at: Instant,
        refused_start: Option<String>,
    },
    Stop,
    /// `STATUS`, because `STOP` was refused with this text.
    CheckStop(String),
}

impl Sequencer {
    /// A sequencer for one CAN port, with nothing to do. Late replies to earlier programs may come for [`SETTLE`], 20 ms.
    pub fn new(now: Instant, channel: Channel) -> Sequencer {
        let setup = Setup::default();
        let line = Transaction::new(now, setup.retry, SETTLE);
        Sequencer { channel, setup, line, step: Step::Idle, takeover: Takeover::None }
    }

    /// When commands are sent again, from the next one on.
    pub fn set_retry(&mut self, retry: RetryConfig) {
        self.line.set_retry(retry);
    }

    /// The command that was begun and may still be answered.
    pub fn in_flight(&self) -> Option<Command> {
        self.line.in_flight()
    }

    /// The same, or the latest that was in flight or given up, as long as answers to it may be read.
    pub(super) fn answerable(&self) -> Option<Command> {
        self.line.answerable()
    }

    /// Whether a copy of that command has left, and a reply to it can still be read.
    pub(super) fn is_answerable(&self, read_up_to: Instant) -> bool {
        self.line.answerable().is_some()
            && self.line.has_left()
            && (self.line.in_flight().is_some() || read_up_to < self.line.replies_until())
    }

    /// Whether nothing is to be sent and no answer is awaited.
    pub fn is_idle(&self) -> bool {
        matches!(self.step, Step::Idle)
    }

    /// What the handshake did to a running bus.
    pub fn takeover(&self) -> Takeover {
        self.takeover
    }

    /// The failure of a `START` that was refused, as long as no `STATUS` has shown whether it runs all the same.
    pub fn unchecked_start(&self) -> Option<Failure> {
        match (&self.step, self.line.answer()) {
            (Step::CheckStart(text), Some(Answer::Status(status))) => {
                status.stopped.then(|| self.failure(Verb::Start, Cause::Refused(text.clone())))
            }
            (Step::CheckStart(text), _) | (Step::Start, Some(Answer::Refused(text))) => {
                Some(self.failure(Verb::Start, Cause::InDoubt(text.clone())))
            }
            _ => None,
        }
    }

    /// The failure of a `START` that left and was not answered, for a caller to which that is one.
    pub(super) fn unanswered_start(&self, instead: Option<String>) -> Failure {
        self.no_reply(Verb::Start, 1, instead)
    }

    /// Begins the handshake once the line is quiet: replies to earlier programs and to our own earlier commands must not
    /// be credited to `INIT`. An earlier handshake is forgotten.
    ///
    /// # Errors
    ///
    /// A `STOP` is under way.
    pub fn begin_start(&mut self, now: Instant, setup: &Setup) -> Result<(), Busy> {
        if matches!(self.step, Step::StopDue { .. } | Step::Stop | Step::CheckStop(_)) {
            return Err(Busy);
        }
        let quiet = self.line.replies_until().saturating_duration_since(now).max(setup.retry.initial_quiet());
        self.line = Transaction::new(now, setup.retry, quiet);
        (self.setup, self.step, self.takeover) = (setup.clone(), Step::Init, Takeover::None);
        Ok(())
    }

    /// Sends `START` again, after a `STATUS` has shown that the controller is stopped.
    ///
    /// # Errors
    ///
    /// The sequencer is not idle.
    pub fn start_again(&mut self) -> Result<(), Busy> {
        self.begin_when_idle(Step::Start)
    }

    /// Asks for the controller's state.
    ///
    /// # Errors
    ///
    /// The sequencer is not idle.
    pub fn request_status(&mut self) -> Result<(), Busy> {
        self.begin_when_idle(Step::Query)
    }

    fn begin_when_idle(&mut self, step: Step) -> Result<(), Busy> {
        if !self.is_idle() {
            return Err(Busy);
        }
        self.step = step;
        Ok(())
    }

    /// Gives up the `STATUS` of [`Sequencer::request_status`], if it has not ended. Its answer may still come.
    pub fn cancel_status(&mut self) {
        if let Step::Query = self.step {
            self.abandon();
        }
    }

    /// Gives up everything.
    pub(super) fn abandon(&mut self) {
        self.step = Step::Idle;
        self.line.abandon();
    }

    /// Sends `STOP` in place of everything that is not sent yet, see the [module](self). If one is under way, that goes on.
    pub fn begin_stop(&mut self, now: Instant) {
        let refused_start = match (&self.step, self.line.answer()) {
            (Step::StopDue { .. } | Step::Stop | Step::CheckStop(_), _) => return,
            (Step::CheckStart(_), Some(Answer::Status(Status { stopped: false, .. }))) => None,
            (Step::CheckStart(text), _) => Some(text.clone()),
            _ => None,
        };
        self.step = Step::StopDue { at: now + SETTLE, refused_start };
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
            let stop_due = match &mut self.step {
                Step::StopDue { at, refused_start } => match refused_start.take() {
                    Some(text) => return Err(self.failure(Verb::Start, Cause::InDoubt(text))),
                    None => Some(*at),
                },
                _ => None,
            };
            if stop_due.is_some() && !self.line.has_left() {
                self.line.abandon();
            }
            match self.line.poll(now) {
                Next::Free if self.is_idle() => return Ok(Action::Wait(None)),
                Next::Free => self.begin(now),
                Next::Done { command, transmissions, outcome } => {
                    if let Some(action) = self.on_done(command, transmissions, outcome)? {
                        return Ok(action);
                    }
                }
                // Another attempt is not worth the delay.
                Next::Send(..) if stop_due.is_some() => return Ok(self.overtake()),
                // An answer that came in time may settle first.
                Next::Wait(until) if stop_due.is_some_and(|at| at <= now && now + SETTLE < until) => {
                    return Ok(self.overtake());
                }
                Next::ReadQueued => return Ok(Action::ReadQueued),
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
            Step::TakeOver { was_running } if left => self.takeover = Takeover::StopSent { was_running },
            Step::Start if left => self.takeover = Takeover::None,
            _ => {}
        }
        self.line.on_sent(now, left);
    }

    /// Takes a line that was read; `now` is a time after that. Returns whether it is an answer to the command in flight.
    pub fn on_line(&mut self, now: Instant, line: Line<'_>) -> bool {
        self.line.on_line(now, line)
    }

    fn begin(&mut self, now: Instant) {
        if let Step::StopDue { .. } = self.step {
            self.step = Step::Stop;
        }
        let verb = match self.step {
            Step::Idle => return,
            Step::Init | Step::InitAgain { .. } => Verb::Init(self.setup.init),
            Step::FilterClear { .. } => Verb::FilterClear,
            Step::FilterAdd { entry, .. } => Verb::FilterAdd(self.setup.filters[entry]),
            Step::Start => Verb::Start,
            Step::CheckInit(_) | Step::CheckStart(_) | Step::Query | Step::CheckStop(_) => Verb::Status,
            Step::TakeOver { .. } | Step::StopDue { .. } | Step::Stop => Verb::Stop,
        };
        let max_transmissions = if verb == Verb::Start { 1 } else { u32::MAX };
        self.line.begin(now, self.command(verb), max_transmissions);
    }

    /// Sends a `STOP` whose answer is not awaited; the next one begins when the line has settled.
    fn overtake(&mut self) -> Action {
        self.step = Step::Stop;
        self.line.abandon();
        Action::Send { command: self.command(Verb::Stop), attempt: 1 }
    }

    /// What follows the end of a command: something to report, or the next step.
    fn on_done(&mut self, command: Command, transmissions: u32, outcome: Outcome) -> Result<Option<Action>, Failure> {
        use Answer::{Ok as Done, Refused};
        use Outcome::{Answered, NoReply};
        let step = mem::replace(&mut self.step, Step::Idle);
        let next = match (step, outcome) {
            // Of what STOP has overtaken only START matters.
            (Step::StopDue { at, .. }, outcome) => {
                self.step = Step::StopDue { at, refused_start: None };
                return match outcome {
                    _ if command.verb != Verb::Start => Ok(None),
                    Answered(Refused(text)) => Err(self.failure(Verb::Start, Cause::InDoubt(text))),
                    NoReply(instead) if transmissions == 0 => Err(self.no_reply(command.verb, 0, instead)),
                    outcome => Ok(Some(Action::Completed { command, outcome })),
                };
            }
            (Step::Init, Answered(Refused(text))) => match error_number(&text) {
                Some(10) => return Ok(Some(self.take_over(text, true))),
                Some(1 | 4..=7 | 9 | 11..=22 | 25 | 27..=33) => {
                    return Err(self.failure(command.verb, Cause::Refused(text)));
                }
                _ => Step::CheckInit(text),
            },
            (Step::CheckInit(text), Answered(Answer::Status(Status { stopped: true, .. }))) => {
                return Err(self.failure(Verb::Init(self.setup.init), Cause::Refused(text)));
            }
            (Step::CheckInit(text), outcome) => {
                let was_running = matches!(outcome, Answered(Answer::Status(_)));
                return Ok(Some(self.take_over(text, was_running)));
            }
            (Step::TakeOver { was_running }, Answered(answer)) => {
                if answer == Done {
                    self.takeover = Takeover::Stopped { was_running };
                }
                Step::InitAgain { was_running }
            }
            (Step::Init, Answered(_)) => Step::FilterClear { round: 1 },
            (Step::InitAgain { was_running }, Answered(Done)) => {
                self.takeover = Takeover::Stopped { was_running };
                Step::FilterClear { round: 1 }
            }
            (Step::FilterClear { round }, Answered(Done)) => self.filter(round, 0),
            (Step::FilterAdd { round, entry }, Answered(Done)) => self.filter(round, entry + 1),
            (Step::FilterAdd { round, .. }, Answered(Refused(text))) => {
                if round == MAX_FILTER_ROUNDS {
                    return Err(self.failure(command.verb, Cause::InDoubt(text)));
                }
                Step::FilterClear { round: round + 1 }
            }
            (Step::Start, Answered(Refused(text))) => Step::CheckStart(text),
            (Step::Stop, Answered(Refused(text))) => Step::CheckStop(text),
            (Step::CheckStart(text), outcome) => return self.checked(Verb::Start, false, text, outcome),
            (Step::CheckStop(text), outcome) => return self.checked(Verb::Stop, true, text, outcome),
            // A START that left may have been carried out.
            (Step::Start, outcome @ NoReply(_)) if transmissions > 0 => {
                return Ok(Some(Action::Completed { command, outcome }));
            }
            (Step::Query, outcome) | (Step::Start | Step::Stop, outcome @ Answered(_)) => {
                return Ok(Some(Action::Completed { command, outcome }));
            }
            (_, NoReply(instead)) => return Err(self.no_reply(command.verb, transmissions, instead)),
            (_, Answered(Refused(text))) => return Err(self.failure(command.verb, Cause::Refused(text))),
            (_, Answered(_)) => return Ok(None),
        };
        self.step = next;
        Ok(None)
    }

    fn take_over(&mut self, text: String, was_running: bool) -> Action {
        self.step = Step::TakeOver { was_running };
        Action::InitRefused { text, was_running }
    }

    fn filter(&self, round: u32, entry: usize) -> Step {
        if entry < self.setup.filters.len() { Step::FilterAdd { round, entry } } else { Step::Start }
    }

    /// `STATUS` has ended after a refusal of `START` or `STOP`, which was carried out if the controller is in the state that
    /// it causes.
    fn checked(
        &self,
        verb: Verb,
        is_stopped: bool,
        refusal: String,
        outcome: Outcome,
    ) -> Result<Option<Action>, Failure> {
        match outcome {
            Outcome::Answered(Answer::Status(status)) if status.stopped == is_stopped => {
                Ok(Some(Action::Completed { command: self.command(verb), outcome }))
            }
            Outcome::Answered(Answer::Status(_)) => Err(self.failure(verb, Cause::Refused(refusal))),
            _ => Err(self.failure(verb, Cause::InDoubt(refusal))),
        }
    }

    fn command(&self, verb: Verb) -> Command {
        Command { channel: self.channel, verb }
    }

    fn no_reply(&self, verb: Verb, transmissions: u32, instead: Option<String>) -> Failure {
        let RetryConfig { timeout, attempts } = self.line.retry();
        self.failure(verb, Cause::NoReply { transmissions, attempts, timeout, instead })
    }

    fn failure(&self, verb: Verb, cause: Cause) -> Failure {
        let command = self.command(verb);
        Failure { command, cause, takeover: self.takeover, gateway: None, network_error: None, has_answered: false }
    }
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
                if let Some(gateway) = gateway {
                    write!(f, " from {gateway}")?;
                }
                let plural = if *transmissions == 1 { "" } else { "s" };
                match transmissions {
                    0 => write!(f, ": none of {attempts} attempts left this machine")?,
                    _ => write!(f, " in {transmissions} attempt{plural} of {} s", timeout.as_secs_f64())?,
                }
                if transmissions == attempts {
                    write!(f, " ({} s in all)", (*timeout * (attempts + 1)).as_secs_f64())?;
                }
                instead.as_ref().map_or(Ok(()), |text| write!(f, "; only this came: {text}"))
            }
            Cause::Refused(text) => {
                write!(f, "the gateway refused {command}: {text}")?;
                gateway.map_or(Ok(()), |gateway| write!(f, " ({gateway})"))
            }
            Cause::InDoubt(text) => {
                write!(f, "the gateway answered {command} with {text}")?;
                gateway.map_or(Ok(()), |gateway| write!(f, " ({gateway})"))
            }
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.network_error.as_ref().map(|error| error as _)
    }
}
