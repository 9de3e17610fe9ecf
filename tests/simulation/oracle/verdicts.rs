//! Claims 26 to 32: what is said of the bus at the end.

use super::view::View;
use super::{Area, Findings};
use crate::simulation::log::{By, Ending, Fact, MILLISECOND, SECOND, Time, Verb, seconds};
use crate::simulation::protocol;
use crate::simulation::sentences::{Claim, Sentence, claims, recognise};

/// How old evidence may be for "still runs".
const FRESH: Time = 5 * SECOND;

/// What lies between a decision and its sentence.
const SLACK: Time = 100 * MILLISECOND;

#[derive(Default)]
pub struct Verdicts {
    /// What was claimed of the bus since the end began, and where.
    claimed: Vec<(Claim, String)>,
    /// A START of ours was carried out after our last STOP, and by whom.
    last_start_by_us: Option<usize>,
    last_stop_by_us: Option<usize>,
    /// Facts that carried out something count up.
    sequence: usize,
    /// Transmissions of START that may still be carried out are those whose copies were not all seen; counted from the log.
    carried_out: Vec<usize>,
    /// INIT was refused as the bus ran.
    refused_while_running: bool,
}

impl Verdicts {
    fn on_halted(&self, view: &View<'_>, line: &str, found: &mut Findings) {
        let now = view.now;
        found.check(view.runs != Some(By::Us), now, "26 halted, but the bus runs by us", || line.to_owned());
        let Some(stop) = view.group(Verb::Stop) else {
            return found.add(now, "26 halted, but STOP was not sent", line);
        };
        let arrived = self.last_stop_by_us.is_some() && self.last_stop_by_us > self.last_start_by_us;
        found.check(arrived, now, "26 halted, but no STOP arrived after START", || line.to_owned());
        let check = view.group(Verb::Status).filter(|check| check.first > stop.first);
        let confirmed = view.groups.iter().any(|group| group.verb == Verb::Stop && group.answered.is_some());
        let checked = check.is_some_and(|check| check.answered.is_some());
        found.check(confirmed || checked, now, "26 halted, but nothing confirms it", || line.to_owned());
    }

    fn check_claim(&self, view: &View<'_>, claim: Claim, line: &str, found: &mut Findings) {
        let now = view.now;
        let (evidence, against) = (view.evidence(), view.against());
        let is_newest = evidence.is_some() && evidence.max(view.maybe_running) >= against;
        let unknowable = view.stalled(view.last_read_at.max(view.empty_at.unwrap_or(0)), now);
        let age =
            evidence.max(view.maybe_running).map_or(Time::MAX, |at| (now - at).saturating_sub(view.stalled(at, now)));
        let doubted = [view.no_answer_said, view.own_refusal_of_status, view.read_errors.last().copied()]
            .into_iter()
            .flatten()
            .max();
        let detail =
            || format!("{line}: evidence at {:?}, against it at {:?}", evidence.map(seconds), against.map(seconds));
        match claim {
            Claim::Runs if view.start_left.is_none() => {
                let says_so = view
                    .status_before_start
                    .as_ref()
                    .is_some_and(|status| !status.stopped() && now <= status.read + FRESH);
                found.check(
                    says_so,
                    now,
                    "27 still runs, without evidence that is newer than anything against it",
                    detail,
                );
            }
            Claim::Runs => {
                found.check(
                    is_newest,
                    now,
                    "27 still runs, without evidence that is newer than anything against it",
                    detail,
                );
                let is_report = recognise(line) == Sentence::Bus;
                found.check(
                    age <= FRESH + SLACK || !is_report,
                    now,
                    "27 still runs, by evidence that is too old",
                    detail,
                );
                let is_off = is_report && view.bus_off > view.start_left && view.known().all(|known| known.bus_off);
                found.check(!is_off || line.contains("bus off"), now, "27 still runs, and bus off is not said", detail);
            }
            Claim::LastFrame(said) => {
                let Some(frame) = view.frame else {
                    return found.add(now, "27 the last frame, but none came", line);
                };
                let low = seconds(now.saturating_sub(frame.read).saturating_sub(unknowable)) - 0.6;
                let high = seconds(now - frame.arrived) + 0.6;
                found.check((low..=high).contains(&said), now, "27 the age of the last frame is wrong", || {
                    format!("{said}, but {low} to {high}")
                });
            }
            Claim::MayRun => {}
            Claim::Halted => self.on_halted(view, line, found),
            Claim::NotStarted => {
                found.check(view.runs != Some(By::Us), now, "28 not started, but it runs by us", || line.to_owned());
            }
            Claim::ReportedStopped(said) => {
                let Some(status) = view.status.as_ref().filter(|status| status.stopped()) else {
                    return found.add(now, "29 reported stopped, but it was not", line);
                };
                let low = seconds((now - status.read_by).saturating_sub(view.stalled(status.read, now))) - 0.6;
                let high = seconds(now - status.since) + 0.6;
                found.check((low..=high).contains(&said), now, "29 the age of the report is wrong", || {
                    format!("{said}, but {low} to {high}")
                });
                let newer = evidence > Some(status.read) || view.last_start_left > Some(status.read);
                found.check(!newer, now, "29 reported stopped, but something newer came", detail);
            }
        }
        if matches!(claim, Claim::MayRun | Claim::LastFrame(_))
            && recognise(line) == Sentence::Bus
            && !line.starts_with("exited")
            && view.start_left.is_some()
        {
            // An answer must settle before it is believed, and none is once STOP is tried.
            let ends = view.end_asked().into_iter().chain(view.stop_tried).min();
            let settled = ends.map_or(now, |asked| view.before_stall(asked)).saturating_sub(25 * MILLISECOND);
            let is_fresh = evidence.is_some_and(|at| now < view.before_stall(at) + FRESH - SLACK && at <= settled);
            // The explanation may be another one than that STATUS was not answered.
            let queries = view.groups.iter().filter(|group| group.verb == Verb::Status && group.answered.is_none());
            let unanswered = queries.filter_map(|query| {
                let over = query.last_left? + view.options.answer_window();
                match query.unknown.is_empty() {
                    _ if over > now => None,
                    true => Some(over),
                    // It says nothing, so a START that was refused stays in doubt, but for frames since.
                    false => query.is_check.then_some(query.first),
                }
            });
            let unanswered = unanswered.max();
            let doubted = doubted.max(unanswered).max(view.own_refusal_of_status).max(view.disputed);
            let sure = is_newest && is_fresh && evidence > doubted && view.end_asked().is_some();
            found.check(!sure, now, "30 needless doubt: it runs", detail);
            let stopped = view.status.as_ref().filter(|status| status.stopped()).map(|status| status.read);
            let sure = stopped.is_some()
                && stopped <= Some(settled)
                && stopped > evidence
                && stopped >= against
                && stopped > view.last_start_left
                && stopped > doubted
                && view.stop_sent.is_none();
            found.check(!sure, now, "30 needless doubt: it was reported stopped", detail);
        }
    }

    fn check_contradictions(&self, view: &View<'_>, found: &mut Findings) {
        let is = |claim: &Claim| match claim {
            Claim::Runs => 0,
            Claim::MayRun | Claim::LastFrame(_) => 1,
            Claim::Halted | Claim::NotStarted | Claim::ReportedStopped(_) => 2,
        };
        for (index, (first, line)) in self.claimed.iter().enumerate() {
            for (second, other) in &self.claimed[index + 1..] {
                // The report is later than the failure if the process stood still.
                let is_late = view.stalled(view.now.saturating_sub(30 * SECOND), view.now) > SECOND;
                // The START that was refused did not start what another program started since.
                let is_foreign = view.runs == Some(By::Other) && [first, second].contains(&&Claim::NotStarted);
                let differ = is(first) != is(second) && line != other && !is_late && !is_foreign;
                found.check(!differ, view.now, "31 the last lines contradict each other", || {
                    format!("{line} / {other}")
                });
            }
        }
    }
}

impl Area for Verdicts {
    fn on_fact(&mut self, view: &View<'_>, fact: &Fact, _: &mut Findings) {
        if let Fact::CarriedOut { transmission, reply, .. } = fact {
            self.sequence += 1;
            self.carried_out.push(*transmission);
            let is_ok = reply == "R ok";
            match view.log.transmissions[*transmission].verb {
                Verb::Start if is_ok => self.last_start_by_us = Some(self.sequence),
                // It arrived, and was perhaps refused since the bus stands already.
                Verb::Stop => self.last_stop_by_us = Some(self.sequence),
                Verb::Init if !is_ok && view.runs.is_some() => self.refused_while_running = true,
                _ => {}
            }
        }
    }

    fn on_line(&mut self, view: &View<'_>, line: &str, found: &mut Findings) {
        let now = view.now;
        let sentence = recognise(line);
        if sentence == Sentence::Debug {
            return;
        }
        for claim in claims(line) {
            self.check_claim(view, claim, line, found);
            // Notices during the shutdown speak of what can be, not of what is.
            let is_notice = line.contains("to quit now");
            if !is_notice && (view.closed.is_some() || view.is_ending()) {
                self.claimed.push((claim, line.to_owned()));
            }
        }
        match sentence {
            Sentence::Restarting { is_certain } => {
                let init = view.group(Verb::Init);
                let says_10 =
                    init.is_some_and(|init| init.refusals.iter().any(|text| protocol::error_number(text) == Some(10)));
                // Of several answers any may be the newest.
                let check = view.group(Verb::Status).filter(|check| init.is_some_and(|init| check.first > init.first));
                let runs = check.is_some_and(|check| check.ran);
                found.check(!is_certain || says_10 || runs, now, "32 already running, but nothing says so", || {
                    format!("{:?}", init.map(|init| &init.refusals))
                });
                let only_10 = says_10 && init.is_some_and(|init| init.refusals.len() == 1);
                found.check(is_certain || !(only_10 || runs), now, "32 may have been running, but it was", || {
                    format!("{:?}", init.map(|init| &init.refusals))
                });
            }
            _ if line.contains("was running and is stopped now") => {
                found.check(
                    view.runs.is_none() || self.last_stop_by_us.is_some() && view.runs == Some(By::Other),
                    now,
                    "32 is stopped now, but it runs",
                    || line.to_owned(),
                );
                found.check(self.last_stop_by_us.is_some(), now, "32 is stopped now, but no STOP arrived", || {
                    line.to_owned()
                });
            }
            _ => {}
        }
    }

    fn on_end(&mut self, view: &View<'_>, found: &mut Findings) {
        if matches!(view.ending, Some(Ending::Code(_))) {
            self.check_contradictions(view, found);
        }
    }
}
