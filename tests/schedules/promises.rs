//! What must hold in every schedule.

use can_udp::gateway::reply::{Line, Status};
use can_udp::gateway::{Command, Failure, Outcome, Verb};

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
    /// Transmissions to which something unusual happened, and those among them that nothing answers.
    pub faults: u32,
    pub losses: u32,
    /// How many times the program stood still.
    pub pauses: u32,
    /// Attempts to send the latest command, and those that left.
    pub attempts: u32,
    pub transmissions: u32,
    /// Whether a transmission of the latest command has left.
    pub has_left: bool,
    pub neighbour_acted: bool,
    /// A refusal of `START` was read, is not reported yet, and no `STATUS` has said that the bus runs.
    pub start_is_refused: bool,
    pub starts_left: u32,
    pub starts_allowed: u32,
    pub trace: Option<Vec<String>>,
    pub rounds: u32,
    pub stop_begun_at: Option<u32>,
    pub stop_begun_in_session: bool,
    pub takeover_stop_left: bool,
    /// `STATUS` has answered since the latest other command, and what.
    pub status_says_stopped: bool,
    status_says_running: bool,
    pub answered: Option<u32>,
    /// The number of a command that was given up, as long as answers to it may come, and to a STOP that overtook it.
    given_up: Option<u32>,
    /// The numbers of the commands to which an `R ok` was read, taken for an answer or not.
    pub oks: Vec<u32>,
    pub latest: Sending,
    pub start: Sending,
    pub stop: Sending,
    pub init: Sending,
    commands: Vec<Command>,
}

/// When a command, or a kind of command in this session, was first sent, and as which number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sending {
    pub first_at: Option<u32>,
    pub number: u32,
}

impl Promises {
    pub fn new(trace: bool) -> Promises {
        Promises { trace: trace.then(Vec::new), commands: Vec::with_capacity(32), ..Promises::default() }
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
        (self.start_is_refused, self.given_up) = (false, None);
    }

    pub fn on_begin_stop(&mut self, now: u32) {
        self.expect(self.stop_begun_at.is_none(), "the model stops once");
        self.stop_begun_at = Some(now);
        self.stop_begun_in_session = self.number > 0 || self.starts_allowed == 0;
    }

    /// The latest command was given up.
    pub fn on_given_up(&mut self) {
        self.given_up = Some(self.number).filter(|_| self.has_left);
    }

    /// A line was read.
    pub fn on_reply(&mut self, reply: &Reply) {
        if reply.number > 0 && reply.text == "R ok" {
            self.oks.push(reply.number);
        }
    }

    /// The sequencer took this line for an answer to the command in flight.
    pub fn on_answer(&mut self, reply: &Reply, line: Line, command: Command) {
        self.expect(reply.number == self.number, "an answer is credited to its own command");
        self.answered = Some(self.number);
        match (command.verb, line) {
            // A refusal that comes after R ok is one of a copy.
            (Verb::Start, _) => self.start_is_refused = !self.oks.contains(&self.number),
            (_, Line::Status(Status { stopped, .. })) => {
                (self.status_says_stopped, self.status_says_running) = (stopped, !stopped);
                self.start_is_refused &= stopped;
            }
            _ => {}
        }
    }

    /// A line was read while nothing is in flight.
    pub fn on_unawaited(&mut self, reply: &Reply, line: Line, taken: bool) {
        let is_ours = reply.number > 0 || self.neighbour_acted;
        self.expect(!taken || is_ours && reply.text != "R ok", "what is recognised may answer a command given up");
        let tells = matches!(line, Line::Refused | Line::Status(_));
        let answers = tells && self.given_up.is_some_and(|number| reply.number >= number);
        self.expect(taken || !answers, "the answer to a command that was given up is recognised");
    }

    /// The caller that sends nothing more is told of a `START` that was refused.
    pub fn on_unchecked_start(&mut self, failure: Option<Failure>) {
        self.expect(failure.is_some() == self.start_is_refused, "every refused START is reported, and no other");
        let is_honest = failure.is_none_or(|failure| {
            let is_checked = self.status_says_stopped && failure.is_refused();
            failure.command.verb == Verb::Start
                && matches!(failure.outcome, Outcome::Refused(_))
                && (is_checked || failure.in_doubt)
        });
        self.expect(is_honest, "a START that was not checked is in doubt");
        self.start_is_refused = false;
    }
}

impl Session<'_> {
    /// A command is about to be sent.
    pub fn check_send(&mut self, command: Command, attempt: u32, overtakes: bool) {
        let max_attempts = self.case.attempts;
        let now = self.world.now;
        let promises = &mut self.promises;
        let stop_begun = promises.stop_begun();
        if attempt == 1 {
            promises.number += 1;
            (promises.attempts, promises.transmissions, promises.has_left) = (0, 0, false);
            promises.latest = Sending { number: promises.number, first_at: Some(now) };
            promises.commands.push(command);
            if !overtakes {
                promises.given_up = None;
            }
            promises.expect(overtakes || self.world.is_quiet(), "nothing is under way when a new command is sent");
        }
        promises.attempts += 1;
        let number = promises.number;
        promises.expect(attempt == promises.attempts, "attempts are counted from 1");
        promises.expect(attempt <= max_attempts, "a command is sent `attempts` times at most");
        promises.expect(!overtakes || stop_begun, "nothing but STOP at the end overtakes");
        let sending = match command.verb {
            Verb::Start => {
                promises.expect(self.world.has_wanted_filters(), "START leaves with exactly the wanted filters set");
                Some(&mut promises.start)
            }
            Verb::Stop => {
                let is_allowed = stop_begun || !self.case.parameter_is_wrong();
                promises.expect(is_allowed, "a running bus is never stopped because of a wrong parameter");
                Some(&mut promises.stop)
            }
            Verb::Init(_) => Some(&mut promises.init),
            Verb::FilterClear if attempt == 1 => {
                promises.rounds += 1;
                promises.expect(promises.rounds <= 4, "the filters are set 4 times at most");
                None
            }
            _ => None,
        };
        if let Some(sending) = sending {
            sending.first_at.get_or_insert(now);
            sending.number = number;
        }
        let promises = &mut self.promises;
        if command.verb != Verb::Status {
            (promises.status_says_stopped, promises.status_says_running) = (false, false);
        }
        let ends = matches!(command.verb, Verb::Stop | Verb::Status);
        promises.expect(!stop_begun || ends, "nothing but STOP and STATUS is sent after Ctrl-C");
    }

    /// A transmission has left.
    pub fn check_left(&mut self, command: Command) {
        let promises = &mut self.promises;
        (promises.has_left, promises.transmissions) = (true, promises.transmissions + 1);
        match (command.verb, promises.stop_begun_at) {
            (Verb::Start, _) => {
                promises.starts_left += 1;
                promises.expect(promises.starts_left <= promises.starts_allowed, "START is sent once");
            }
            (Verb::Stop, None) => promises.takeover_stop_left = true,
            (Verb::Stop, Some(begun)) => {
                let in_time = self.world.now <= begun + 2 * SETTLE + 5;
                let excused = promises.pauses > 0 || promises.stop.number != promises.number || promises.faults > 0;
                let is_first =
                    promises.commands.iter().rev().take_while(|command| command.verb == Verb::Stop).count() == 1;
                promises.expect(in_time || excused || !is_first, "a STOP that is due leaves within 45 ms");
            }
            _ => {}
        }
    }

    pub fn check_init_refused(&mut self, text: &str, was_running: bool) {
        self.promises.log(|| format!("INIT refused: {text}, was running: {was_running}"));
        let is_cured = !self.case.parameter_is_wrong() && !self.promises.status_says_stopped;
        self.promises.expect(is_cured, "INIT is not tried again for a wrong parameter or a stopped controller");
        let gateway_says_so = text.starts_with("R ERR 10 ") || self.promises.status_says_running;
        self.promises.expect(was_running == gateway_says_so, "a bus is said to have run if the gateway said so");
        let is_true = self.world.is_running() || self.world.facts.neighbour_at.is_some();
        self.promises.expect(!was_running || is_true, "a bus that is said to run runs");
        let is_asked = self.promises.commands.last().is_some_and(|command| command.verb == Verb::Status);
        self.promises.expect(is_asked != text.starts_with("R ERR 10 "), "STATUS decides unless the error is 10");
    }

    pub fn check_takeover(&mut self) {
        let promises = &mut self.promises;
        let stop_has_left = promises.takeover_stop_left && promises.starts_left == 0;
        let takeover = self.sequencer.takeover();
        promises.expect(takeover.is_some() == stop_has_left, "takeover() says whether STOP left and no START since");
        let says_stopped = takeover.is_some_and(|takeover| takeover.is_stopped);
        let is_stopped = !self.world.is_running() || self.world.facts.neighbour_at.is_some();
        promises.expect(!says_stopped || is_stopped, "takeover() says stopped only if the bus is");
    }

    pub fn check_end(&mut self) {
        let other_filters = self.world.facts.started_with_other_filters;
        self.promises.expect(!other_filters, "START is carried out with exactly the wanted filters set");
        self.promises.expect(!self.promises.start_is_refused, "every refused START is reported");
        let untouched = self.case.before != Before::Running
            || !self.case.parameter_is_wrong()
            || self.promises.stop_begun()
            || self.world.is_running();
        self.promises.expect(untouched, "a running bus is never stopped because of a wrong parameter");
        let is_ordinary = self.promises.faults + self.promises.pauses == 0;
        let is_odd = self.case.refusal.is_some() || self.case.channel != 1;
        if self.case.plan == Plan::Listen && is_ordinary && !is_odd && !self.promises.neighbour_acted {
            let wire = self.case.ordinary_handshake();
            let time = 75 + (2 + SETTLE) * u32::try_from(wire.len()).unwrap() + 5;
            self.promises.expect(self.promises.commands == wire, "without faults the wire is the scripts'");
            self.promises.expect(self.world.now <= time, "without faults a handshake waits for nothing else");
        }
    }
}
