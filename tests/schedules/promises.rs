//! What must hold in every schedule.

use can_udp::gateway::reply::{Line, Reply as ReplyLine};
use can_udp::gateway::{Answer, Command, Failure, Outcome, Takeover};

use crate::case::{Before, Plan};
use crate::network::SETTLE;
use crate::session::Session;
use crate::world::Reply;

/// The promises of one session, and the facts that they are about.
#[derive(Debug, Default)]
pub struct Promises {
    /// The first promise that was broken.
    pub broken: Option<&'static str>,
    /// The commands of ours are numbered from 1; the number of the latest.
    pub number: u32,
    /// Faults of the network and of sending.
    pub faults: u32,
    /// How many times the program stood still.
    pub pauses: u32,
    /// Whether a transmission of the latest command has left.
    pub has_left: bool,
    pub neighbour_acted: bool,
    /// A refusal of `START` was read and is not reported yet.
    pub start_is_refused: bool,
    pub starts_left: u32,
    pub starts_allowed: u32,
    pub trace: Option<Vec<String>>,
    transmissions: u32,
    rounds: u32,
    stop_begun_at: Option<u32>,
    stop_begun_in_session: bool,
    takeover_stop_left: bool,
    answered: Option<u32>,
    /// The numbers of the commands to which an `R ok` was read, taken for an answer or not.
    oks: Vec<u32>,
    start: Sending,
    stop: Sending,
    init: Sending,
    commands: Vec<Command>,
}

/// When a kind of command was first sent in this session, as which number.
#[derive(Clone, Copy, Debug, Default)]
struct Sending {
    first_at: Option<u32>,
    number: u32,
}

impl Promises {
    pub fn new(trace: bool) -> Promises {
        Promises { trace: trace.then(Vec::new), ..Promises::default() }
    }

    pub fn log(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    /// Notes that a promise is broken, unless one was before.
    pub fn expect(&mut self, holds: bool, promise: &'static str) {
        if !holds && self.broken.is_none() {
            self.broken = Some(promise);
        }
    }

    pub fn stop_begun(&self) -> bool {
        self.stop_begun_at.is_some()
    }

    pub fn on_begin_start(&mut self) {
        (self.starts_left, self.starts_allowed, self.rounds, self.takeover_stop_left) = (0, 1, 0, false);
        (self.start, self.init) = (Sending::default(), Sending::default());
    }

    pub fn on_begin_stop(&mut self, now: u32) {
        self.expect(self.stop_begun_at.is_none(), "the model stops once");
        self.stop_begun_at = Some(now);
        self.stop_begun_in_session = self.number > 0 || self.starts_allowed == 0;
    }

    /// A line was read.
    pub fn on_reply(&mut self, reply: &Reply) {
        if reply.number > 0 && reply.text == "R ok" {
            self.oks.push(reply.number);
        }
    }

    /// The sequencer took this line for an answer.
    pub fn on_answer(&mut self, reply: &Reply, line: Line<'_>) {
        self.expect(reply.number == self.number, "an answer is credited to its own command");
        self.answered = Some(self.number);
        if let Some(Command::Start { .. }) = self.commands.last() {
            self.start_is_refused = matches!(line, Line::Reply(ReplyLine::Refused(_)));
        }
    }

    /// `cancel` or `begin_stop` returned this.
    pub fn on_returned(&mut self, failure: Option<Failure>) {
        let Some(failure) = failure else { return };
        self.expect(
            self.start_is_refused && matches!(failure, Failure::InDoubt(Command::Start { .. }, _)),
            "giving up returns nothing but a START that was refused, in doubt",
        );
        self.start_is_refused = false;
    }
}

impl Session<'_> {
    /// A command is about to be sent.
    pub fn check_send(&mut self, command: Command, attempt: u32, overtakes: bool) {
        let attempts = self.case.attempts;
        let now = self.world.now;
        let promises = &mut self.promises;
        if attempt == 1 {
            promises.number += 1;
            (promises.transmissions, promises.has_left) = (0, false);
            promises.commands.push(command);
            promises.expect(overtakes || self.world.is_quiet(), "nothing is under way when a new command is sent");
        }
        promises.transmissions += 1;
        let number = promises.number;
        promises.expect(promises.transmissions <= attempts, "a command is sent `attempts` times at most");
        let stop_begun = promises.stop_begun();
        promises.expect(!overtakes || stop_begun, "nothing but STOP at the end overtakes");
        let sending = match command {
            Command::Start { .. } => {
                promises.expect(self.world.has_wanted_filters(), "START leaves with exactly the wanted filters set");
                Some(&mut promises.start)
            }
            Command::Stop { .. } => {
                let is_allowed = stop_begun || self.case.init_error.is_none();
                promises.expect(is_allowed, "a running bus is never stopped because of error 1 or 12");
                Some(&mut promises.stop)
            }
            Command::Init { .. } => Some(&mut promises.init),
            Command::FilterClear { .. } if attempt == 1 => {
                promises.rounds += 1;
                promises.expect(promises.rounds <= attempts + 1, "the filters are set again `attempts` times at most");
                None
            }
            _ => None,
        };
        if let Some(sending) = sending {
            sending.first_at.get_or_insert(now);
            sending.number = number;
        }
        let promises = &mut self.promises;
        let ends = matches!(command, Command::Stop { .. } | Command::Status { .. });
        promises.expect(!stop_begun || ends, "nothing but STOP and STATUS is sent after Ctrl-C");
    }

    /// A transmission has left.
    pub fn check_left(&mut self, command: Command) {
        let promises = &mut self.promises;
        promises.has_left = true;
        match (command, promises.stop_begun_at) {
            (Command::Start { .. }, _) => {
                promises.starts_left += 1;
                promises.expect(promises.starts_left <= promises.starts_allowed, "START is sent once");
            }
            (Command::Stop { .. }, None) => promises.takeover_stop_left = true,
            (Command::Stop { .. }, Some(begun)) => {
                let in_time = self.world.now <= begun + 2 * SETTLE + 5;
                let excused = promises.pauses > 0 || promises.stop.number != promises.number || promises.faults > 0;
                let is_first =
                    promises.commands.iter().rev().take_while(|c| matches!(c, Command::Stop { .. })).count() == 1;
                promises.expect(in_time || excused || !is_first, "a STOP that is due leaves within 45 ms");
            }
            _ => {}
        }
    }

    pub fn check_init_refused(&mut self, text: &str) {
        self.promises.log(|| format!("INIT refused: {text}"));
        let is_state = text.starts_with("R ERR 10 ");
        self.promises.expect(is_state, "a running bus is never stopped because of error 1 or 12");
    }

    /// A claim about a command first sent at `since` cannot be wrong because of what the neighbour did later.
    fn is_excused(&self, since: Option<u32>) -> bool {
        let since = since.unwrap_or(0);
        self.world.facts.neighbour_at.is_some_and(|at| at >= since)
    }

    pub fn check_completed(&mut self, command: Command, outcome: &Outcome) {
        let few_faults = self.promises.faults < self.case.attempts && !self.promises.neighbour_acted;
        let runs = self.world.is_running();
        let facts = &self.world.facts;
        match (command, outcome) {
            (Command::Start { .. }, Outcome::NoReply(_)) => {
                let is_honest = self.promises.has_left && self.promises.answered != Some(self.promises.start.number);
                self.promises.expect(is_honest, "START has no reply only if it left and nothing answered it");
            }
            (Command::Start { .. }, Outcome::Answered(answer)) => {
                let is_true = runs || self.is_excused(self.promises.start.first_at);
                let filters = self.world.has_wanted_filters();
                self.promises.start_is_refused = false;
                self.promises.expect(is_true, "a bus that is reported running runs");
                self.promises.expect(filters, "a bus that is reported running has exactly the wanted filters");
                let says_so = matches!(answer, Answer::Ok) || matches!(answer, Answer::Status(s) if !s.stopped);
                self.promises.expect(says_so, "START succeeds only by R ok or a STATUS that says running");
            }
            (Command::Stop { .. }, outcome) => {
                let carried_out = facts.stopped_by == Some(self.promises.stop.number);
                let is_true = match outcome {
                    Outcome::Answered(Answer::Ok) => carried_out,
                    Outcome::Answered(Answer::Status(status)) => status.stopped,
                    _ => false,
                };
                let stays = !self.world.may_still_start() && !runs || self.is_excused(self.promises.stop.first_at);
                self.promises.expect(is_true, "STOP succeeds only by R ok to itself or a STATUS that says stopped");
                self.promises.expect(stays, "a bus that is reported halted is, and stays so");
                let took = self.world.now - self.promises.stop_begun_at.unwrap_or(0);
                // During the initial quiet STOP overtakes what is late of an earlier program.
                let ordinary = self.promises.stop_begun_in_session
                    && self.promises.faults == 0
                    && self.promises.pauses == 0
                    && !self.promises.neighbour_acted;
                self.promises.expect(took < 150 || !ordinary, "STOP is confirmed in under 150 ms");
            }
            (_, Outcome::NoReply(_)) => {
                self.promises.expect(!few_faults, "STATUS is answered if there are fewer faults than attempts");
            }
            (_, Outcome::Answered(_)) => {}
        }
    }

    pub fn check_failure(&mut self, failure: &Failure) {
        let facts = &self.world.facts;
        let promises = &self.promises;
        let Promises { number, faults, .. } = *promises;
        let (is_true, promise) = match failure {
            Failure::NoReply(Command::Start { .. }, _) => {
                (promises.starts_left < promises.starts_allowed, "a START that failed without reply never left")
            }
            Failure::NoReply(..) => (
                promises.answered != Some(number) && promises.transmissions == self.case.attempts,
                "no reply is reported only after `attempts` attempts without one",
            ),
            Failure::Refused(Command::Init { .. }, _) => (
                facts.initialised_by != Some(number) || self.is_excused(promises.init.first_at),
                "an INIT that is reported refused was not carried out",
            ),
            Failure::Refused(Command::FilterClear { .. }, _) => {
                (facts.neighbour_at.is_some(), "FILTER CLEAR is not refused by a stopped controller")
            }
            Failure::Refused(Command::FilterAdd { .. }, _) => (false, "a failed FILTER ADD is in doubt"),
            Failure::Refused(Command::Start { .. }, _) => (
                facts.started_by != Some(promises.start.number) || self.is_excused(promises.start.first_at),
                "a START that is reported refused was not carried out",
            ),
            Failure::Refused(Command::Stop { .. }, _) => (
                self.world.is_running() || self.is_excused(promises.stop.first_at),
                "a bus whose STOP is reported refused runs",
            ),
            Failure::Refused(Command::Status { .. }, _) => (false, "STATUS does not fail"),
            Failure::InDoubt(Command::Start { .. }, _) => {
                (promises.start_is_refused, "a START in doubt was answered by a refusal")
            }
            Failure::InDoubt(..) => (true, ""),
        };
        let is_start = matches!(failure.command(), Command::Start { .. });
        let is_stop = matches!(failure.command(), Command::Stop { .. });
        let cannot_be_checked = matches!(failure, Failure::InDoubt(..))
            && (is_start && (!self.case.knows_status || promises.stop_begun())
                || is_stop && (!self.case.knows_status || self.world.is_uninitialised()));
        let excused = cannot_be_checked || self.case.init_error.is_some() || promises.neighbour_acted;
        let failed = match failure.command() {
            Command::Start { .. } => promises.start.number,
            Command::Stop { .. } => promises.stop.number,
            _ => number,
        };
        let was_ok = promises.oks.contains(&failed);
        self.promises.expect(is_true, promise);
        self.promises.expect(!was_ok, "an R ok stands");
        self.promises.expect(faults >= self.case.attempts || excused, "fewer faults than attempts never end a session");
        if is_start {
            self.promises.start_is_refused = false;
        }
    }

    pub fn check_takeover(&mut self) {
        let promises = &mut self.promises;
        let stop_has_left = promises.takeover_stop_left && promises.starts_left == 0;
        let takeover = self.sequencer.takeover();
        promises.expect(
            (takeover != Takeover::None) == stop_has_left,
            "takeover() says whether STOP left and no START since",
        );
        let facts = &self.world.facts;
        let was_stopped = facts.stopped_by.is_some() || facts.neighbour_at.is_some();
        promises.expect(takeover != Takeover::Stopped || was_stopped, "takeover() says Stopped only if the bus was");
    }

    pub fn check_end(&mut self) {
        let other_filters = self.world.facts.started_with_other_filters;
        self.promises.expect(!other_filters, "START is carried out with exactly the wanted filters set");
        self.promises.expect(!self.promises.start_is_refused, "every refused START is reported");
        let untouched = self.case.before != Before::Running
            || self.case.init_error.is_none()
            || self.promises.stop_begun()
            || self.world.is_running();
        self.promises.expect(untouched, "a running bus is never stopped because of error 1 or 12");
        let is_ordinary = self.promises.faults + self.promises.pauses == 0 && self.case.init_error.is_none();
        if self.case.plan == Plan::Listen && is_ordinary && !self.promises.neighbour_acted {
            let wire = self.case.ordinary_handshake();
            let time = 75 + (2 + SETTLE) * u32::try_from(wire.len()).unwrap() + 5;
            self.promises.expect(self.promises.commands == wire, "without faults the wire is the scripts'");
            self.promises.expect(self.world.now <= time, "without faults a handshake waits for nothing else");
        }
    }
}
