//! Claims 7 to 12: when STATUS is sent, and what is said of its answers.

use super::view::View;
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
        let Some((since, _)) = view.silent_since() else {
            return found.add(now, "7 STATUS before START, not after a refusal", "");
        };
        // The frame may be read late, and that is when the silence begins for the process.
        let after = view.options.query_after();
        found.check(now + SLACK >= since + after, now, "8 STATUS too soon after a frame", || {
            format!("a frame at {}", seconds(since))
        });
        if group.transmissions.len() == 1 {
            let too_soon = self.last_query.is_some_and(|last| now + SLACK < last + 60 * SECOND);
            found.check(!too_soon, now, "9 STATUS more than once a minute", || {
                format!("the last at {:?}", self.last_query.map(seconds))
            });
            self.last_query = Some(now);
            let (answer, start) = (view.status.as_ref().map(|status| status.read), view.last_start_left);
            let is_known = answer.is_some_and(|read| read > since && Some(read) > start && read + SLACK < now);
            let refused = view.own_refusal_of_status.is_some_and(|read| Some(read) > answer);
            let unanswered = view.no_answer_said.is_some_and(|said| Some(said) > answer);
            found.check(!is_known || refused || unanswered, now, "9 STATUS again, though the state is known", || {
                format!("answered at {:?}", answer.map(seconds))
            });
        }
    }

    fn check_flags(&self, view: &View<'_>, line: &str, found: &mut Findings) {
        let now = view.now;
        let has = |text| line.contains(text);
        // RESET may leave bus off as it is.
        if has("bus off") {
            found.check(view.bus_off.is_some(), now, "10 bus off, but nothing says so", || line.to_owned());
        }
        if has("error warning level") || has("warning level") {
            found.check(view.warning.is_some(), now, "10 error warning level, but nothing says so", || line.to_owned());
        }
        if has("data overrun") {
            found.check(view.overrun, now, "10 data overrun, but no flag says so", || line.to_owned());
        }
        let state = |stopped| view.status.as_ref().is_some_and(|status| status.stopped() == stopped);
        if has("the controller is running") {
            found.check(state(false), now, "10 running, but STATUS does not say so", || line.to_owned());
        }
        if has("the controller is stopped") {
            let is_newest = state(true) && view.status.as_ref().map(|status| status.read) > view.last_start_left;
            let is_newest = is_newest || (state(true) && line.contains("sending START again"));
            found.check(is_newest, now, "10 stopped, but STATUS does not say so", || line.to_owned());
        }
    }

    fn on_no_answer(&mut self, view: &View<'_>, line: &str, found: &mut Findings) {
        let now = view.now;
        let Some(group) = view.group(Verb::Status) else {
            return found.add(now, "11 no answer to STATUS that was not sent", line);
        };
        let waited = now + SLACK >= group.last + view.options.answer_window() || group.left == 0;
        found.check(waited, now, "11 no answer to STATUS, too soon", || format!("sent at {}", seconds(group.last)));
        let answered = group.answered.is_some_and(|read| read < now);
        found.check(!answered, now, "11 no answer to STATUS, but one was read", || {
            format!("at {:?}", group.answered.map(seconds))
        });
        let unknown = group.unknown.last();
        found.check(
            unknown.is_none_or(|text| line.contains(text.trim())),
            now,
            "12 an answer of unknown form is not quoted",
            || format!("{unknown:?}: {line}"),
        );
        self.no_answer_said = Some(now);
    }

    fn on_refused(&self, view: &View<'_>, line: &str, found: &mut Findings) {
        let now = view.now;
        let Some(group) = view.group(Verb::Status) else {
            return found.add(now, "12 answers STATUS, but it was not sent", line);
        };
        let quoted = |text: &String| line.to_uppercase().contains(&text.trim().to_uppercase());
        let is_ours = group.refusals.iter().any(quoted) || group.unknown.iter().any(quoted);
        found.check(is_ours, now, "12 answers STATUS with something that is no answer to it", || {
            format!("{line}: {:?}", group.refusals)
        });
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
        self.check_flags(view, line, found);
        if line.contains("no answer to STATUS") {
            self.on_no_answer(view, line, found);
        }
        if line.contains("answers STATUS with") {
            self.on_refused(view, line, found);
        }
    }

    fn on_end(&mut self, _: &View<'_>, _: &mut Findings) {}
}
