//! Claims 7 to 12: when STATUS is sent, and what is said of its answers.

use super::view::{Group, Known, StatusRead, View};
use super::{Area, Findings};
use crate::simulation::log::{Fact, MILLISECOND, SECOND, Time, Verb, seconds};
use crate::simulation::protocol::{self, Line};
use crate::simulation::sentences::{Sentence, recognise};

/// Scheduling.
const SLACK: Time = 3 * MILLISECOND;

/// How long a correction may take: the answer settles first.
const CORRECTION: Time = 500 * MILLISECOND;

#[derive(Default)]
pub struct Queries {
    /// When the last query began, checks aside.
    last_query: Option<Time>,
    /// When "no answer" was said and an answer was read later, that is not corrected yet.
    correction_due: Option<Time>,
    no_answer_said: Option<Time>,
}

impl Queries {
    fn on_status_sent(&mut self, view: &View<'_>, found: &mut Findings) {
        let now = view.now;
        let Some(group) = view.groups.last() else { return };
        if group.is_check {
            return;
        }
        found.check(view.options.status_after > 0, now, "7 STATUS with --status-after 0", String::new);
        let Some((since, since_by)) = view.silent_since() else {
            return found.add(now, "7 STATUS before START, not after a refusal", "");
        };
        // The frame may be read late, and that is when the silence begins for the process.
        let after = view.options.query_after();
        found.check(now + SLACK >= since + after, now, "8 STATUS too soon after a frame", || {
            format!("a frame at {}", seconds(since))
        });
        if group.transmissions.len() == 1 {
            let stalled = view.stalled(now.saturating_sub(130 * SECOND), now);
            // The line may have had to settle after a check.
            let late = if view.groups.iter().any(|group| group.is_check) { view.options.answer_window() } else { 0 };
            let too_soon = self.last_query.is_some_and(|last| now + SLACK + stalled + late < last + 60 * SECOND);
            found.check(!too_soon, now, "9 STATUS more than once a minute", || {
                format!("the last at {:?}", self.last_query.map(seconds))
            });
            self.last_query = Some(now);
            let group_of = |status: &&StatusRead| {
                let answered =
                    |group: &&Group| status.transmission.is_some_and(|index| group.transmissions.contains(&index));
                view.groups.iter().find(answered)
            };
            // Not of a query that a frame has ended.
            let counts = |status: &&StatusRead| {
                let is_over =
                    |group: &Group| view.frame.is_some_and(|frame| (group.first..=status.read).contains(&frame.read));
                group_of(status).is_some_and(|group| !group.is_check && !is_over(group))
            };
            let answer = view.status.as_ref().filter(counts);
            let (answer, start) = (answer.map(|status| status.read), view.last_start_left);
            let is_known = answer.is_some_and(|read| read > since_by && Some(read) > start && read + SLACK < now);
            // START is still to be sent again.
            let is_known =
                is_known && !(view.evidence().is_none() && view.status.as_ref().is_some_and(|status| status.stopped()));
            let refused = view.own_refusal_of_status.is_some_and(|read| Some(read) > answer);
            let unanswered = view.no_answer_said.is_some_and(|said| Some(said) > answer);
            found.check(!is_known || refused || unanswered, now, "9 STATUS again, though the state is known", || {
                format!("answered at {:?}", answer.map(seconds))
            });
        }
    }

    fn check_flags(view: &View<'_>, line: &str, found: &mut Findings) {
        let now = view.now;
        // The sentence about an idle timeout is older than the answers to STOP.
        let any = |holds: fn(&Known) -> bool| view.known().any(|known| holds(&known));
        let mut check = |text, holds: fn(&Known) -> bool, claim| {
            found.check(!line.contains(text) || any(holds), now, claim, || line.to_owned());
        };
        check("bus off", |known| known.bus_off, "10 bus off, but nothing says so");
        check("warning level", |known| known.warning, "10 error warning level, but nothing says so");
        check("data overrun", |known| known.overrun, "10 data overrun, but no flag says so");
        check("the controller is running", |known| known.says_stopped(false), "10 running, but STATUS does not say so");
        if !line.contains("sending START again") {
            check(
                "the controller is stopped",
                |known| known.says_stopped(true),
                "10 stopped, but STATUS does not say so",
            );
        } else {
            let says = |known: &Known| known.answers.iter().any(|status| status.stopped());
            check("the controller is stopped", says, "10 stopped, but STATUS does not say so");
        }
    }

    fn on_no_answer(&mut self, view: &View<'_>, line: &str, found: &mut Findings) {
        let now = view.now;
        self.no_answer_said = Some(now);
        let since = view.silent_since().map_or(0, |(arrived, _)| arrived);
        let in_silence = view.groups.iter().filter(|group| group.verb == Verb::Status && group.first >= since);
        let queries: Vec<Group> = view.known().filter_map(|known| known.query).chain(in_silence.cloned()).collect();
        if queries.is_empty() {
            return found.add(now, "11 no answer to STATUS that was not sent", line);
        }
        let all = |holds: &dyn Fn(&Group) -> bool| queries.iter().any(holds);
        let waited =
            |group: &Group| group.last_left.is_none_or(|sent| now + SLACK >= sent + view.options.answer_window());
        found.check(all(&waited), now, "11 no answer to STATUS, too soon", || format!("{queries:?}"));
        let unanswered = |group: &Group| waited(group) && group.answered.is_none_or(|read| read >= now);
        found.check(all(&unanswered), now, "11 no answer to STATUS, but one was read", || format!("{queries:?}"));
        let waits = view.group(Verb::Status).is_some_and(|group| view.answer_waits(group));
        found.check(!waits, now, "11 no answer to STATUS, but one waits in the queue", || format!("{queries:?}"));
        let quoted =
            |group: &Group| group.unknown.last().is_none_or(|(text, in_time)| !in_time || line.contains(text.trim()));
        found.check(all(&quoted), now, "12 an answer of unknown form is not quoted", || format!("{queries:?}: {line}"));
    }

    fn on_refused(view: &View<'_>, line: &str, found: &mut Findings) {
        let quoted = |text: &String| line.to_uppercase().contains(&text.trim().to_uppercase());
        let is_ours =
            |group: &Group| group.refusals.iter().any(quoted) || group.unknown.iter().any(|(text, _)| quoted(text));
        let since = view.silent_since().map_or(0, |(arrived, _)| arrived);
        let in_silence = view.groups.iter().filter(|group| group.verb == Verb::Status && group.first >= since).cloned();
        let fits = view.known().filter_map(|known| known.query).chain(in_silence).any(|group| is_ours(&group));
        found.check(fits, view.now, "12 answers STATUS with something that is no answer to it", || line.to_owned());
    }
}

impl Area for Queries {
    fn on_fact(&mut self, view: &View<'_>, fact: &Fact, found: &mut Findings) {
        if let Some(due) = self.correction_due {
            if view.now > due {
                let ends = view.is_ending();
                let quiet = view.options.quiet || view.not_shown;
                found.check(ends || quiet, due, "11 no answer to STATUS is not corrected by a later one", String::new);
                self.correction_due = None;
            }
        }
        match fact {
            Fact::Sent(index) if view.log.transmissions[*index].verb == Verb::Status => {
                self.on_status_sent(view, found)
            }
            Fact::Read(packet) => {
                let lines = protocol::lines(&view.log.packets[*packet].bytes);
                if lines.contains(&Line::Frame(view.options.port)) {
                    (self.no_answer_said, self.correction_due) = (None, None);
                }
                let status = view.status.as_ref().filter(|status| status.read == view.now);
                if let (Some(said), Some(status)) = (self.no_answer_said, status) {
                    let sent = status.transmission.map(|index| view.log.transmissions[index].at);
                    if said < view.now && sent > view.last_start_left && sent < Some(said) {
                        self.correction_due = Some(view.now + CORRECTION);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_line(&mut self, view: &View<'_>, line: &str, found: &mut Findings) {
        let sentence = recognise(line);
        if sentence == Sentence::Debug || matches!(sentence, Sentence::GatewayReports(_) | Sentence::RefusedCommand(_))
        {
            return;
        }
        if matches!(sentence, Sentence::NoData { .. } | Sentence::Idle { .. } | Sentence::StartAgain) {
            (self.correction_due, self.no_answer_said) = (None, None);
        }
        Self::check_flags(view, line, found);
        if line.contains("no answer to STATUS") {
            self.on_no_answer(view, line, found);
        }
        if line.contains("answers to STATUS differ") {
            let differ = view.disputed.is_some_and(|read| Some(read) > view.silent_since().map(|(arrived, _)| arrived));
            found.check(differ, view.now, "10 the answers to STATUS differ, but they do not", || line.to_owned());
        }
        if line.contains("answers STATUS with") {
            Self::on_refused(view, line, found);
        }
    }

    fn on_end(&mut self, _: &View<'_>, _: &mut Findings) {}
}
