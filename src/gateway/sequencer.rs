//! Which command follows which outcome: the four steps that start the stream, later `STATUS`, at last `STOP`. The sequencer
//! is given the time and what was read, and answers what to send and when to call it again. No socket, no clock, no thread.
//!
//! [`Connection`](super::Connection) is a loop around a sequencer. A program with a loop of its own feeds it like this:
//!
//! ```
//! use std::time::{Duration, Instant};
//!
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
//!         Action::Send(command, _) => {
//!             sent.push(command.to_string());
//!             inbox.push("R ok\n");
//!             sequencer.on_sent(now, true);
//!         }
//!         // Here: read without blocking until nothing is left, and pass on what comes.
//!         Action::ReadQueued => {}
//!         Action::Wait(until) => match inbox.pop() {
//!             Some(datagram) => {
//!                 sequencer.on_datagram(now, datagram.as_bytes());
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
//! What nothing decides is, after `INIT`, treated as a running controller, and otherwise a failure [in doubt](Failure::in_doubt).
//!
//! # `STOP` overtakes
//!
//! `STOP` waits [`SETTLE`], 20 ms, for the command in flight to be answered, and lets an answer settle. Without one it is
//! sent at once, for the sake of the bus alone: nothing says to which of the two an answer belongs, and a `START` that the
//! network held back may still be carried out after it. Once no reply to either can come, `STOP` is sent anew and confirmed.

use std::mem;
use std::time::Instant;

use super::command::{BitRate, Channel, Command, Filter, Init, Verb};
use super::error::{Busy, Failure, Takeover, error_number};
pub use super::event::Action;
use super::event::{Event, Outcome};
use super::reply::lines;
use super::transaction::{RetryConfig, SETTLE, Transaction};

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

/// Decides which command follows which outcome.
#[derive(Clone, Debug)]
pub struct Sequencer {
    channel: Channel,
    setup: Setup,
    /// The line to the gateway, with one command at a time.
    pub(super) line: Transaction,
    step: Step,
    /// `STOP` follows in place of everything else, once the command in flight is answered, at this time at the latest.
    stop_at: Option<Instant>,
    takeover: Option<Takeover>,
}

/// What is in flight, or follows when the line has settled.
#[derive(Clone, Debug)]
enum Step {
    /// Nothing.
    Idle,
    /// `INIT`; the second one if there was a [`Takeover`].
    Init,
    /// `STATUS`, because this was refused with this text.
    Check(Verb, String),
    /// `STOP`, because `INIT` was refused.
    TakeOver { was_running: bool },
    /// `FILTER CLEAR` as number 0, then a `FILTER ADD` for each entry. Rounds count from 1.
    Filter { round: u32, number: usize },
    /// `START`; after a handshake, `again`.
    Start { again: bool },
    /// `STATUS`, because the caller asked for it.
    Query,
    /// `STOP`, because the caller asked for it.
    Stop,
}

impl Sequencer {
    /// A sequencer for one CAN port, with nothing to do. Late replies to earlier programs may come for [`SETTLE`], 20 ms.
    pub fn new(now: Instant, channel: Channel) -> Sequencer {
        let setup = Setup::default();
        let line = Transaction::new(now, setup.retry, SETTLE);
        Sequencer { channel, setup, line, step: Step::Idle, stop_at: None, takeover: None }
    }

    /// When commands are sent again, from the next one on.
    pub fn set_retry(&mut self, retry: RetryConfig) {
        self.line.retry = retry.clamped();
    }

    /// The command that was begun and may still be answered.
    pub fn in_flight(&self) -> Option<Command> {
        self.line.in_flight()
    }

    /// Whether nothing is to be sent and no answer is awaited.
    pub fn is_idle(&self) -> bool {
        matches!(self.step, Step::Idle) && self.stop_at.is_none()
    }

    /// Whether the handshake is past `INIT`, which a running controller refuses; so the bus does not run while `START` has not left.
    pub(crate) fn is_initialised(&self) -> bool {
        matches!(self.step, Step::Filter { .. } | Step::Start { again: false })
    }

    fn is_stopping(&self) -> bool {
        self.stop_at.is_some() || matches!(self.step, Step::Stop | Step::Check(Verb::Stop, _))
    }

    /// What the handshake did to a running bus; `None`: nothing, or `START` has left since.
    pub fn takeover(&self) -> Option<Takeover> {
        self.takeover
    }

    /// The failure of a `START` that was refused, as long as no `STATUS` has shown whether it runs all the same.
    pub fn unchecked_start(&self) -> Option<Failure> {
        let (text, in_doubt) = match (&self.step, self.line.outcome()) {
            (Step::Check(Verb::Start, text), Some(Outcome::Status(status))) if status.stopped => (text, false),
            (Step::Check(Verb::Start, _), Some(Outcome::Status(_))) => return None,
            (Step::Check(Verb::Start, text), _) | (Step::Start { .. }, Some(Outcome::Refused(text))) => (text, true),
            _ => return None,
        };
        Some(Failure { in_doubt, ..self.failure(Verb::Start, Outcome::Refused(text.clone())) })
    }

    /// Begins the handshake once the line is quiet: replies to earlier programs and to our own earlier commands must not
    /// be credited to `INIT`. An earlier handshake is forgotten.
    ///
    /// # Errors
    ///
    /// A `STOP` is under way.
    pub fn begin_start(&mut self, now: Instant, setup: &Setup) -> Result<(), Busy> {
        if self.is_stopping() {
            return Err(Busy);
        }
        let quiet = self.line.replies_until.saturating_duration_since(now).max(setup.retry.initial_quiet());
        self.line = Transaction::new(now, setup.retry.clamped(), quiet);
        (self.setup, self.step, self.takeover) = (setup.clone(), Step::Init, None);
        Ok(())
    }

    /// Has `START` sent again, after a `STATUS` has shown that the controller is stopped.
    ///
    /// # Errors
    ///
    /// The sequencer is not idle.
    pub fn start_again(&mut self) -> Result<(), Busy> {
        self.begin_when_idle(Step::Start { again: true })
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

    /// Gives up the `STATUS` of [`Sequencer::request_status`], if it has not ended, or the `START` of
    /// [`Sequencer::start_again`], if it has not left. The answer to `STATUS` may still come.
    pub fn cancel_status(&mut self) {
        let has_left = self.line.in_flight().is_some() && self.line.transmissions > 0;
        if matches!(self.step, Step::Query) || matches!(self.step, Step::Start { again: true }) && !has_left {
            self.abandon();
        }
    }

    /// Gives up what is in flight, and what would follow from it.
    pub(super) fn abandon(&mut self) {
        self.step = Step::Idle;
        self.line.abandon();
    }

    /// Sends `STOP` in place of everything that is not sent yet, see the [module](self). If one is under way, that goes on.
    pub fn begin_stop(&mut self, now: Instant) {
        if !self.is_stopping() {
            self.stop_at = Some(now + SETTLE);
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
            if self.stop_at.is_some() {
                if let Step::Check(Verb::Start, _) = self.step {
                    let unchecked = self.unchecked_start();
                    self.step = Step::Idle;
                    unchecked.map_or(Ok(()), Err)?;
                }
                if self.line.answerable.is_none() {
                    self.line.abandon();
                }
            }
            match self.line.poll(now) {
                Action::Wait(None) if self.is_idle() => return Ok(Action::Wait(None)),
                // The line has settled.
                Action::Wait(None) => self.begin(),
                Action::Report(Event::Completed(command, outcome)) => {
                    if let Some(event) = self.on_completed(command, outcome)? {
                        return Ok(Action::Report(event));
                    }
                }
                // Another attempt is not worth the delay.
                Action::Send(..) if self.stop_at.is_some() => return Ok(self.overtake()),
                // An answer that came in time may settle first.
                Action::Wait(Some(until)) if self.stop_at.is_some_and(|at| at <= now && now + SETTLE < until) => {
                    return Ok(self.overtake());
                }
                Action::Wait(Some(until)) => {
                    let stop_at = self.stop_at.filter(|&at| now < at);
                    return Ok(Action::Wait(stop_at.into_iter().chain([until]).min()));
                }
                action => return Ok(action),
            }
        }
    }

    /// The command of [`Action::Send`] has left this machine, or failed to; `now` is a time after that.
    pub fn on_sent(&mut self, now: Instant, left: bool) {
        match self.step {
            Step::TakeOver { was_running } if left => self.takeover = Some(Takeover { was_running, is_stopped: false }),
            Step::Start { .. } if left => self.takeover = None,
            _ => {}
        }
        self.line.on_sent(now, left);
    }

    /// Takes a datagram that was read; `now` is a time after that. Returns the command that it answers, if each of its lines
    /// is an answer to the command in flight, or to the latest before.
    pub fn on_datagram(&mut self, now: Instant, datagram: &[u8]) -> Option<Command> {
        let command = self.line.answerable?;
        let answers = lines(datagram).map(|line| self.line.on_line(now, line));
        let all_answer = answers.reduce(|all, answers| all && answers)?;
        all_answer.then_some(command)
    }

    fn begin(&mut self) {
        if self.stop_at.take().is_some() {
            self.step = Step::Stop;
        }
        let verb = match self.step {
            Step::Idle => return,
            Step::Init => Verb::Init(self.setup.init),
            Step::Filter { number: 0, .. } => Verb::FilterClear,
            Step::Filter { number, .. } => Verb::FilterAdd(self.setup.filters[number - 1]),
            Step::Start { .. } => Verb::Start,
            Step::Check(..) | Step::Query => Verb::Status,
            Step::TakeOver { .. } | Step::Stop => Verb::Stop,
        };
        self.line.begin(self.command(verb));
    }

    /// Sends a `STOP` whose answer is not awaited; the next one begins when the line has settled.
    fn overtake(&mut self) -> Action {
        (self.step, self.stop_at) = (Step::Stop, None);
        self.line.abandon();
        Action::Send(self.command(Verb::Stop), 1)
    }

    /// What follows the end of a command: something to report, or the next step.
    fn on_completed(&mut self, command: Command, outcome: Outcome) -> Result<Option<Event<'static>>, Failure> {
        use Outcome::{NoReply, Ok as Done, Refused};
        let step = mem::replace(&mut self.step, Step::Idle);
        // Of what STOP has overtaken only START matters.
        if self.stop_at.is_some() && command.verb != Verb::Start {
            return Ok(None);
        }
        // STOP is confirmed, or INIT is, which a running controller refuses.
        if let (Step::TakeOver { .. } | Step::Init, Done, Some(takeover)) = (&step, &outcome, &mut self.takeover) {
            takeover.is_stopped = true;
        }
        self.step = match (step, outcome) {
            (Step::Init, Done) => Step::Filter { round: 1, number: 0 },
            (Step::Init, Refused(text)) if self.takeover.is_none() => match error_number(&text) {
                Some(10) => return Ok(Some(self.take_over(text, true))),
                Some(1 | 4..=7 | 9 | 11..=22 | 25 | 27..=33) => {
                    return Err(self.failure(command.verb, Refused(text)));
                }
                _ => Step::Check(command.verb, text),
            },
            (Step::TakeOver { .. }, Done | Refused(_)) => Step::Init,
            (Step::Filter { number, .. }, Done) if number == self.setup.filters.len() => Step::Start { again: false },
            (Step::Filter { round, number }, Done) => Step::Filter { round, number: number + 1 },
            (Step::Filter { round: MAX_FILTER_ROUNDS, number: 1.. }, Refused(text)) => {
                return Err(self.in_doubt(command.verb, text));
            }
            (Step::Filter { round, number: 1.. }, Refused(_)) => Step::Filter { round: round + 1, number: 0 },
            (Step::Start { .. } | Step::Stop, Refused(text)) => Step::Check(command.verb, text),
            // The controller is not in the state that the command causes, or needs.
            (Step::Check(verb, text), Outcome::Status(status)) if status.stopped != (verb == Verb::Stop) => {
                return Err(self.failure(verb, Refused(text)));
            }
            (Step::Check(Verb::Init(_), text), outcome) => {
                let was_running = matches!(outcome, Outcome::Status(_));
                return Ok(Some(self.take_over(text, was_running)));
            }
            (Step::Check(verb, _), outcome @ Outcome::Status(_)) => {
                return Ok(Some(Event::Completed(self.command(verb), outcome)));
            }
            (Step::Check(verb, text), _) => return Err(self.in_doubt(verb, text)),
            // A START that left may have been carried out.
            (Step::Start { .. }, outcome @ NoReply(_)) if self.line.transmissions > 0 => {
                return Ok(Some(Event::Completed(command, outcome)));
            }
            (Step::Query, outcome) | (Step::Start { .. } | Step::Stop, outcome @ Done) => {
                return Ok(Some(Event::Completed(command, outcome)));
            }
            (_, outcome @ (NoReply(_) | Refused(_))) => return Err(self.failure(command.verb, outcome)),
            _ => Step::Idle,
        };
        Ok(None)
    }

    fn take_over(&mut self, text: String, was_running: bool) -> Event<'static> {
        self.step = Step::TakeOver { was_running };
        Event::InitRefused { text, was_running }
    }

    fn command(&self, verb: Verb) -> Command {
        Command { channel: self.channel, verb }
    }

    /// The failure of a command that may have been carried out, although it was refused with this text.
    fn in_doubt(&self, verb: Verb, text: String) -> Failure {
        Failure { in_doubt: true, ..self.failure(verb, Outcome::Refused(text)) }
    }

    /// The failure of a command that ended like this. What left and was not answered may have been carried out.
    pub(super) fn failure(&self, verb: Verb, outcome: Outcome) -> Failure {
        let Transaction { attempts, transmissions, .. } = self.line;
        Failure {
            command: self.command(verb),
            in_doubt: transmissions > 0 && matches!(outcome, Outcome::NoReply(_)),
            outcome,
            transmissions,
            attempts,
            timeout: self.line.retry.timeout,
            takeover: self.takeover,
            gateway: None,
            network_error: None,
            has_answered: false,
        }
    }
}
