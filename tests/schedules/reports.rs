//! What the sequencer reports is true of the gateway, or says that it is in doubt.

use can_udp::gateway::{Command, Failure, Outcome, Verb};

use crate::network::{SETTLE, TIMEOUT};
use crate::promises::{Promises, Sending};
use crate::session::Session;

impl Session<'_> {
    /// A claim about a command first sent at `since` cannot be wrong because of what the neighbour did later.
    fn is_excused(&self, since: Option<u32>) -> bool {
        let since = since.unwrap_or(0);
        self.world.facts.neighbour_at.is_some_and(|at| at >= since)
    }

    pub fn check_completed(&mut self, command: Command, outcome: &Outcome) {
        let few_losses = self.promises.losses < self.case.attempts;
        let runs = self.world.is_running();
        let facts = &self.world.facts;
        match (command.verb, outcome) {
            (Verb::Start, Outcome::NoReply(_)) => {
                self.promises.expect(self.promises.has_left, "START has no reply only if it left");
                self.check_no_reply();
            }
            (Verb::Start, answer) => {
                let is_true = runs || self.is_excused(self.promises.start.first_at);
                let filters = self.world.has_wanted_filters();
                self.promises.start_is_refused = false;
                self.promises.expect(is_true, "a bus that is reported running runs");
                self.promises.expect(filters, "a bus that is reported running has exactly the wanted filters");
                let says_so = matches!(answer, Outcome::Ok) || matches!(answer, Outcome::Status(s) if !s.stopped);
                self.promises.expect(says_so, "START succeeds only by R ok or a STATUS that says running");
            }
            (Verb::Stop, outcome) => {
                let carried_out = facts.stopped_by == Some(self.promises.stop.number);
                let is_true = match outcome {
                    Outcome::Ok => carried_out,
                    Outcome::Status(status) => status.stopped,
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
                self.promises
                    .expect(!few_losses, "STATUS is answered if fewer of its transmissions are lost than sent");
                self.check_no_reply();
            }
            _ => {}
        }
    }

    /// The answer to the latest command was awaited for as long as one can come, and no longer.
    fn check_no_reply(&mut self) {
        let Sending { number, first_at } = self.promises.latest;
        let may_come = self.world.may_be_answered(number);
        self.promises.expect(!may_come, "no reply is reported once none can come any more");
        self.promises.expect(self.promises.answered != Some(number), "no reply is reported only if none came");
        let took = self.world.now - first_at.unwrap_or(0);
        let is_late = took > (self.promises.attempts + 1) * TIMEOUT + SETTLE;
        let excused = self.promises.pauses > 0;
        self.promises.expect(!is_late || excused, "what nothing answers fails after (attempts + 1) timeouts");
    }

    pub fn check_failure(&mut self, failure: &Failure) {
        let facts = &self.world.facts;
        let promises = &self.promises;
        let Promises { latest, start, stop, init, .. } = *promises;
        let refusal_of = |command| self.case.refusal.as_ref().is_some_and(|refusal| refusal.command == command);
        let verb = failure.command.verb;
        let sending = match verb {
            Verb::Start => start,
            Verb::Stop => stop,
            Verb::Init(_) => init,
            _ => latest,
        };
        let (is_true, promise) = match (&failure.outcome, failure.in_doubt, verb) {
            (Outcome::NoReply(_), _, Verb::Start) => (
                promises.starts_left < promises.starts_allowed && failure.transmissions == 0,
                "a START that failed without reply never left",
            ),
            (Outcome::NoReply(_), _, _) => (
                promises.attempts == self.case.attempts && promises.transmissions == failure.transmissions,
                "no reply is reported only after `attempts` attempts, with those that left",
            ),
            (Outcome::Refused(_), false, Verb::Init(_)) => (
                facts.initialised_by != Some(init.number)
                    || self.is_excused(init.first_at)
                    || self.case.refusal.as_ref().is_some_and(|refusal| refusal.times == 1),
                "an INIT that is reported refused was not carried out",
            ),
            (Outcome::Refused(_), false, Verb::FilterClear) => (
                facts.neighbour_at.is_some() || refusal_of("FILTER CLEAR"),
                "FILTER CLEAR is not refused by a stopped controller",
            ),
            (Outcome::Refused(_), false, Verb::FilterAdd(_)) => (false, "a failed FILTER ADD is in doubt"),
            (Outcome::Refused(_), false, Verb::Start) => (
                facts.started_by != Some(start.number) || self.is_excused(start.first_at),
                "a START that is reported refused was not carried out",
            ),
            (Outcome::Refused(_), false, Verb::Stop) => {
                (self.world.is_running() || self.is_excused(stop.first_at), "a bus whose STOP is reported refused runs")
            }
            (Outcome::Refused(_), true, Verb::FilterAdd(_)) => (promises.rounds == 4, "the filters are set 4 times"),
            (Outcome::Refused(_), true, Verb::Start) => {
                (promises.start_is_refused, "a START in doubt was refused, and no STATUS said that it runs")
            }
            (Outcome::Refused(_), true, Verb::Stop) => (true, ""),
            _ => (false, "nothing else fails"),
        };
        let is_final = !(failure.is_refused() && matches!(verb, Verb::Init(_)))
            || self.case.parameter_is_wrong()
            || promises.status_says_stopped
            || promises.takeover_stop_left;
        let (is_start, is_stop) = (verb == Verb::Start, verb == Verb::Stop);
        let cannot_be_checked = matches!(failure.outcome, Outcome::Refused(_))
            && failure.in_doubt
            && (is_start && (!self.case.knows_status || promises.stop_begun())
                || is_stop && (!self.case.knows_status || self.world.is_uninitialised()));
        let excused = cannot_be_checked || self.case.is_hopeless(promises.faults) || promises.neighbour_acted;
        let few_losses = promises.losses < self.case.attempts;
        let was_ok = promises.oks.contains(&sending.number);
        self.promises.expect(is_true, promise);
        self.promises.expect(is_final, "INIT is final for a parameter, a stopped controller, or after STOP");
        self.promises.expect(!was_ok, "an R ok stands");
        self.promises.expect(!few_losses || excused, "fewer losses than attempts never end a session");
        if let Outcome::NoReply(_) = failure.outcome {
            self.check_no_reply();
        }
        if is_start {
            self.promises.start_is_refused = false;
        }
    }
}
