//! What must hold in every schedule.

use can_udp::gateway::reply::{Line, Reply as ReplyLine};
use can_udp::gateway::{Command, Failure, Takeover};

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
    pub transmissions: u32,
    rounds: u32,
    pub stop_begun_at: Option<u32>,
    pub stop_begun_in_session: bool,
    takeover_stop_left: bool,
    pub answered: Option<u32>,
    /// The numbers of the commands to which an `R ok` was read, taken for an answer or not.
    pub oks: Vec<u32>,
    pub start: Sending,
    pub stop: Sending,
    pub init: Sending,
    commands: Vec<Command>,
}

/// When a kind of command was first sent in this session, as which number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sending {
    pub first_at: Option<u32>,
    pub number: u32,
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
