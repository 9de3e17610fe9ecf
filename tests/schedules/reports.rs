//! What the sequencer reports is true of the gateway, or says that it is in doubt.

use can_udp::gateway::{Answer, Command, Failure, Outcome};

use crate::promises::Promises;
use crate::session::Session;

impl Session<'_> {
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
}
