//! Claims 13 to 18, 23 to 25 and 48: which commands are sent, and what is said of START and of commands that fail.

use super::view::View;
use super::{Area, Findings};
use crate::simulation::log::{Ending, Fact, MILLISECOND, SECOND, Time, Verb, seconds};
use crate::simulation::protocol;
use crate::simulation::sentences::{Claim, Sentence, claims, micros, recognise};

const SLACK: Time = 3 * MILLISECOND;

/// How many times START may be sent again, and how often.
const MAX_REPAIRS: usize = 3;
const REPAIR_INTERVAL: Time = 60 * SECOND;

/// How soon START follows the STATUS that shows that it is needed, once the line has settled.
const REPAIR_WITHIN: Time = SECOND;

/// How many times the filters are set before FILTER ADD has failed.
const FILTER_ROUNDS: usize = 4;

#[derive(Default)]
pub struct Conversation {
    /// When each START that was sent again was first sent.
    repairs: Vec<Time>,
    /// START must be sent again by then.
    repair_due: Option<Time>,
    /// The last failure that names START.
    start_failure: Option<String>,
    first_frame: Option<Time>,
}

impl Conversation {
    /// Whether anything shows that the bus has run.
    fn has_run(view: &View<'_>) -> bool {
        view.evidence().max(view.maybe_running).is_some()
    }

    /// How many times START has left again. One that failed locally was not sent.
    fn sent_again(view: &View<'_>) -> usize {
        let starts = view.groups.iter().filter(|group| group.verb == Verb::Start && group.left > 0);
        starts.count().saturating_sub(1)
    }

    fn on_start_sent(&mut self, view: &View<'_>, found: &mut Findings) {
        let now = view.now;
        self.repair_due = None;
        let Some(group) = view.groups.last() else { return };
        let again = Self::sent_again(view);
        found.check(again <= MAX_REPAIRS, now, "14 START is sent again more than 3 times", String::new);
        let starts = view.groups.iter().filter(|group| group.verb == Verb::Start).count();
        if starts < 2 || group.transmissions.len() > 1 {
            return;
        }
        let last = self.repairs.last().copied();
        // The queries are a minute apart; what follows them waits for the line.
        let late = view.options.command_time()
            + view.options.answer_window()
            + view.stalled(now.saturating_sub(100 * SECOND), now);
        let too_soon = last.is_some_and(|last| now + SLACK + late < last + REPAIR_INTERVAL);
        found.check(!too_soon, now, "14 START is sent again more than once a minute", || {
            format!("{:?}", last.map(seconds))
        });
        found.check(!Self::has_run(view), now, "14 START is sent again, though the bus has run", || {
            format!("evidence at {:?}", view.evidence().map(seconds))
        });
        let is_stopped = view.status.as_ref().is_some_and(|status| status.stopped());
        found.check(is_stopped, now, "14 START is sent again, though STATUS does not say stopped", String::new);
        self.repairs.push(now);
    }

    fn on_stop_sent(&self, view: &View<'_>, found: &mut Findings) {
        let now = view.now;
        if view.options.is_can_stop {
            return;
        }
        if view.start_left.is_some() {
            found.check(view.options.stop_on_exit, now, "24 STOP without --stop-on-exit", String::new);
            return;
        }
        // A STOP because of the end: START was being sent, or had failed.
        if view.options.stop_on_exit && view.group(Verb::Start).is_some() {
            return;
        }
        let Some(init) = view.group(Verb::Init) else {
            return found.add(now, "23 STOP before INIT", "");
        };
        let numbers: Vec<Option<u32>> = init.refusals.iter().map(|text| protocol::error_number(text)).collect();
        if numbers.contains(&Some(10)) {
            return;
        }
        found.check(!numbers.is_empty(), now, "23 STOP, though INIT was not refused", String::new);
        let is_final = numbers.iter().flatten().any(|&number| protocol::names_a_parameter(number));
        found.check(!is_final, now, "23 STOP after an error that names a parameter", || format!("{numbers:?}"));
        let check = view.group(Verb::Status).filter(|check| check.first > init.first);
        found.check(check.is_some(), now, "23 STOP after an unclear refusal without STATUS", || format!("{numbers:?}"));
        let is_stopped =
            view.status_before_start.as_ref().is_some_and(|status| status.stopped() && status.read > init.first);
        let is_stopped = is_stopped && !check.is_some_and(|check| check.ran);
        found.check(!is_stopped, now, "23 STOP, though STATUS says stopped", String::new);
    }

    fn on_command(&mut self, view: &View<'_>, verb: Verb, found: &mut Findings) {
        let now = view.now;
        // The signal may have come after the decision.
        let decided = view.reads_since_signal > 0;
        if let (Some(&signal), true) = (view.signals.first(), decided) {
            let is_start = matches!(verb, Verb::Init | Verb::Clear | Verb::Add | Verb::Start);
            found.check(!is_start, now, "25 INIT, FILTER or START after a signal", || {
                format!("{verb:?}, {}", seconds(signal))
            });
            if !view.options.stop_on_exit && view.start_left.is_some() {
                found.add(now, "25 a command after a signal", format!("{verb:?}"));
            }
        }
        if view.options.is_can_stop {
            found.check(matches!(verb, Verb::Stop | Verb::Status), now, "23 can-stop sends something else", || {
                format!("{verb:?}")
            });
        }
        found.check(verb != Verb::Unknown, now, "23 a command that nobody knows", String::new);
        match verb {
            Verb::Start => self.on_start_sent(view, found),
            Verb::Stop => self.on_stop_sent(view, found),
            _ => {}
        }
    }

    /// After an answer to STATUS: must START be sent again?
    fn on_read(&mut self, view: &View<'_>) {
        if Self::has_run(view) || !view.streams() {
            self.repair_due = None;
            return;
        }
        let Some(status) = view.status.as_ref().filter(|status| status.read == view.now && status.stopped()) else {
            return;
        };
        let asked = status.transmission.map(|index| view.log.transmissions[index].at);
        let is_query = view.group(Verb::Status).is_some_and(|group| !group.is_check && Some(group.first) <= asked);
        let rested = self.repairs.last().is_none_or(|&last| view.now >= last + REPAIR_INTERVAL);
        if is_query && asked > view.last_start_left && rested && Self::sent_again(view) < MAX_REPAIRS {
            self.repair_due.get_or_insert(view.now + view.options.answer_window() + REPAIR_WITHIN);
        }
    }

    fn on_no_reply(&self, view: &View<'_>, command: &str, attempts: u64, timeout: Option<f64>, found: &mut Findings) {
        let now = view.now;
        let Some(group) = view.groups.iter().rev().find(|group| group.line.eq_ignore_ascii_case(command)) else {
            return found.add(now, "48 no reply to a command that was not sent", command);
        };
        // A STOP that overtakes is one more.
        let extra = u64::from(group.verb == Verb::Stop);
        let left: u64 =
            view.groups.iter().rev().take_while(|other| other.line == group.line).map(|group| group.left).sum();
        let fits = attempts == group.left || attempts == left || attempts + extra == left;
        found.check(fits, now, "48 the number of attempts is not that of those that left", || {
            format!("{command}: {attempts}, but {}", group.left)
        });
        let same = timeout.is_none_or(|timeout| micros(timeout).abs_diff(view.options.timeout) < MILLISECOND);
        found.check(same, now, "48 another timeout", || format!("{timeout:?}"));
        let answered = group.answered.is_some_and(|read| read < now);
        found.check(!answered, now, "48 no reply, but one was read", || {
            format!("{command}, {:?}", group.answered.map(seconds))
        });
        found.check(!view.answer_waits(group), now, "48 no reply, but one waits in the queue", || command.to_owned());
        let waited = group.last_left.is_none_or(|sent| now + SLACK >= sent + view.options.answer_window());
        found.check(waited, now, "48 no reply, too soon", || format!("{command}: sent at {}", seconds(group.last)));
    }
}

impl Area for Conversation {
    fn on_fact(&mut self, view: &View<'_>, fact: &Fact, found: &mut Findings) {
        self.first_frame = self.first_frame.or(view.frame.map(|frame| frame.read));
        if let Some(due) = self.repair_due {
            if view.is_ending() || matches!(fact, Fact::Ended(_)) {
                self.repair_due = None;
            } else if view.now > due + view.stalled(due - REPAIR_WITHIN - view.options.answer_window(), view.now) {
                found.add(due, "14 START that never ran is not sent again", "");
                self.repair_due = None;
            }
        }
        match fact {
            Fact::Sent(index) => self.on_command(view, view.log.transmissions[*index].verb, found),
            Fact::Read(_) => self.on_read(view),
            _ => {}
        }
    }

    fn on_line(&mut self, view: &View<'_>, line: &str, found: &mut Findings) {
        let now = view.now;
        let sentence = recognise(line);
        if sentence == Sentence::Debug {
            return;
        }
        let says_lost =
            line.contains("START was lost") || line.contains("lost START") || line.contains("START is lost");
        found.check(!says_lost, now, "13 START is said to be lost", || line.to_owned());
        if line.contains("another program stopped the bus") && line.contains("stopped") {
            let is_guess = line.contains("did another program");
            found.check(
                is_guess || view.ran_since_start,
                now,
                "15 another program stopped the bus, which never ran",
                || line.to_owned(),
            );
        }
        if let Sentence::NoReply { command, attempts, timeout } = &sentence {
            self.on_no_reply(view, command, *attempts, *timeout, found);
        }
        if line.contains(&format!("answered CAN {} FILTER ADD", view.options.port)) {
            let rounds = view.groups.iter().filter(|group| group.verb == Verb::Clear && group.was_ok).count();
            found.check(
                rounds == FILTER_ROUNDS,
                now,
                "48 FILTER ADD is given up after another number of rounds",
                || rounds.to_string(),
            );
        }
        let start = format!("CAN {} START", view.options.port);
        let is_failure = line.contains(&start)
            && (line.contains("no reply to") || line.contains("refused CAN") || line.contains("answered CAN"));
        if is_failure {
            let is_doubt = claims(line).any(|claim| claim == Claim::MayRun);
            found.check(
                !is_doubt || view.frames_read == 0,
                now,
                "17 START is in doubt, though a frame has come",
                || line.to_owned(),
            );
            // What comes after the decision, or at the moment of it, does not count.
            let ended = view.stop_tried.into_iter().chain(view.closed).min().unwrap_or(now);
            let settles = if view.options.stop_on_exit { view.options.answer_window() } else { 0 };
            let since = self.first_frame.unwrap_or(now) + 30 * MILLISECOND + settles;
            let settled = since + view.stalled(self.first_frame.unwrap_or(now), ended) < ended;
            let ends = line.contains("answered CAN") && !line.contains("still listening");
            found.check(!(ends && settled), now, "17 START is in doubt, though a frame has come", || line.to_owned());
            let never_left = view.start_left.is_none();
            found.check(!(is_doubt && never_left), now, "18 START never left, and is in doubt", || line.to_owned());
            self.start_failure = Some(line.to_owned()).filter(|_| !line.contains("still listening"));
        }
    }

    fn on_end(&mut self, view: &View<'_>, found: &mut Findings) {
        let failed = view.ending == Some(Ending::Code(1));
        if let (true, Some(failure)) = (failed, &self.start_failure) {
            found.check(self.repairs.is_empty(), view.now, "16 the repair of START ends the session", || {
                failure.clone()
            });
        }
        let reached = view.is_complete && !view.not_shown && view.write_failed.is_none() && !view.options.stop_on_exit;
        let idle = view.said().any(|(_, text)| text.contains("--idle-timeout"));
        let synced = !idle && !view.said().any(|(_, text)| text.contains("cannot write to stdout"));
        // A count of answers and events does not settle whether the bus was started.
        let started = self.start_failure.is_none() || view.frames_read > 0;
        if reached && synced && started {
            found.check(!failed, view.now, "17 --count is reached, and the session fails", String::new);
        }
    }
}
