//! Claims 19 to 22: what is advised, and whether the truth is among the guesses.

use super::view::View;
use super::{Area, Findings};
use crate::simulation::log::{Fact, MILLISECOND, Truth};
use crate::simulation::plan::Item;
use crate::simulation::sentences::{Sentence, recognise};

/// Why no frame comes, in truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// This machine does not send.
    Local,
    NoPower,
    /// Nothing passes, or nothing comes back.
    Network,
    PortClosed,
    Firewall,
    /// Initialised, and never started by us.
    NeverStarted,
    Stopped,
    /// It has forgotten its settings.
    Restarted,
    StreamTaken,
    WrongRate,
    /// Frames are there, and the filter passes none: of 11 bits, of 29 bits.
    Filtered(usize),
    Silent,
    /// Frames passed, and were lost.
    Lost,
}

/// The causes of a silence, and what each sentence about it must contain one of.
const ACCEPTED: [(Cause, &[&str]); 13] = [
    (Cause::Local, &["no route", "cannot send", "cannot reach", "unreachable", "network"]),
    (Cause::NoPower, &["power", "the gateway or the network is down", "restart", "is the gateway on", "starting"]),
    (Cause::Network, &["network", "VPN", "on the way", "--timeout", "ping", "lost"]),
    (Cause::PortClosed, &["port", "is down", "restarting", "starting"]),
    (Cause::Firewall, &["firewall", "network", "router", "unreachable"]),
    (Cause::NeverStarted, &["START", "the controller is stopped"]),
    (Cause::Stopped, &["stopped", "stop the bus"]),
    (Cause::Restarted, &["restarted", "power", "settings"]),
    (Cause::StreamTaken, &["listener", "took the stream", "take the stream", "has the stream"]),
    (Cause::WrongRate, &["--bitrate"]),
    (Cause::Filtered(0), &["--filter", "11-bit"]),
    (Cause::Filtered(1), &["--filter", "29-bit"]),
    (Cause::Silent, &["silent"]),
];

#[derive(Default)]
pub struct Guesses {
    /// All causes that were true in this silence.
    causes: Vec<Cause>,
    status_is_ignored: bool,
    status_is_refused: bool,
    is_set_up: bool,
}

/// Of several causes the first; errors of the network are causes of their own.
fn causes(view: &View<'_>) -> Vec<Cause> {
    let truth = &view.truth;
    let errors =
        [(truth.send_fails, Cause::Local), (truth.firewall, Cause::Firewall), (truth.port_closed, Cause::PortClosed)];
    let errors = errors.into_iter().filter_map(|(is_so, cause)| is_so.then_some(cause));
    errors.chain([cause(truth, view)]).collect()
}

fn cause(truth: &Truth, view: &View<'_>) -> Cause {
    let since = view.silent_since().map_or(0, |(_, read)| read) + MILLISECOND;
    let is_recent = |at: Option<u64>| at.is_some_and(|at| at >= since);
    match truth {
        _ if truth.send_fails => Cause::Local,
        _ if truth.cut || truth.muted || truth.address_lost => Cause::Network,
        _ if truth.firewall => Cause::Firewall,
        _ if !truth.power => Cause::NoPower,
        _ if truth.port_closed => Cause::PortClosed,
        _ if truth.controller == 0 => Cause::Restarted,
        _ if truth.controller == 1 && !view.ran_since_start => Cause::NeverStarted,
        _ if truth.controller == 1 => Cause::Stopped,
        _ if !truth.stream_is_ours => Cause::StreamTaken,
        _ if truth.wrong_rate => Cause::WrongRate,
        _ if is_recent(truth.passed) => Cause::Lost,
        _ if truth.passed.is_none() && is_recent(truth.blocked[1]) => Cause::Filtered(1),
        _ if truth.passed.is_none() && is_recent(truth.blocked[0]) => Cause::Filtered(0),
        _ => Cause::Silent,
    }
}

impl Guesses {
    fn set_up(&mut self, items: &[Item]) {
        self.status_is_ignored = items.contains(&Item::StatusIgnored);
        self.status_is_refused = items.iter().any(|item| match item {
            Item::StatusRefused => true,
            Item::Refuses { action, .. } => action == "STATUS",
            _ => false,
        });
        self.is_set_up = true;
    }

    fn check_truth(&self, view: &View<'_>, why: &str, is_idle: bool, found: &mut Findings) {
        let contains = |texts: &[&str]| texts.iter().any(|text| why.contains(text));
        let mut causes = self.causes.clone();
        if !is_idle {
            causes.extend(self::causes(view));
        }
        // The answer is explained, not the silence: why is it none, or a refusal?
        if why.contains("no answer to STATUS") && self.status_is_ignored {
            let fits = contains(&["know STATUS", "does not answer STATUS"]);
            return found.check(fits, view.now, "21 STATUS is not known to the gateway, and that is no guess", || {
                why.to_owned()
            });
        }
        if why.to_uppercase().replace("  ", " ").contains("STATUS WITH R ERR") && self.status_is_refused {
            let fits = contains(&["know STATUS"]);
            return found.check(fits, view.now, "21 STATUS is not known to the gateway, and that is no guess", || {
                why.to_owned()
            });
        }
        // Of these, the answer to STATUS says nothing, or more than the truth of this moment.
        let is_vague = contains(&["bus off", "warning level", "data overrun", "may not know STATUS; perhaps"]);
        let is_unanswered = contains(&["no answer to STATUS"]);
        // Another program changed a filter that was to pass everything.
        let passes_all = |kind| Self::passes_all(view, kind);
        let is_foreign = passes_all("STD") && passes_all("EXT") && contains(&["another listener"]);
        let fits = causes.iter().any(|cause| {
            if let (Cause::Filtered(_), true) = (cause, is_foreign) {
                return true;
            }
            let accepted = ACCEPTED.iter().find(|(known, _)| known == cause).map(|(_, texts)| *texts);
            accepted.is_none_or(contains)
        });
        // STATUS was lost although the network is well now.
        let was_lost = is_unanswered && contains(&["network", "on the way", "--timeout"]);
        // An error of the network was read, although the network is well now.
        let was_closed = contains(&["listens on", "refuses", "no route"]) && !view.read_errors.is_empty();
        found.check(
            fits || is_vague || was_lost || was_closed,
            view.now,
            "21 the truth is not among the guesses",
            || format!("{causes:?}: {why}"),
        );
    }

    fn check_rate(view: &View<'_>, line: &str, why: &str, found: &mut Findings) {
        let is_sick = view.known().all(|known| known.sick) && view.known().all(|known| known.frames == 0);
        let is_about_network =
            ["no answer", "unreachable", "no route", "cannot", "refuse", "listens on", "answers STATUS"]
                .iter()
                .any(|text| why.contains(text));
        if is_sick && view.frames_read == 0 && !is_about_network {
            found.check(
                line.contains("--bitrate"),
                view.now,
                "19 bus off or warning without frames, and no --bitrate",
                || line.to_owned(),
            );
        }
    }

    /// Whether the filters pass all identifiers of this kind.
    fn passes_all(view: &View<'_>, kind: &str) -> bool {
        let filters = &view.options.filters;
        filters.is_empty() && kind == "STD"
            || filters.iter().any(|filter| {
                let mut parts = filter.split(':');
                parts.next() == Some(kind) && parts.nth(1).is_some_and(|mask| mask.chars().all(|digit| digit == '0'))
            })
    }

    fn check_typed(view: &View<'_>, line: &str, found: &mut Findings) {
        let now = view.now;
        let options = &view.options;
        found.check(
            !(line.contains("--filter EXT:0:0") && Self::passes_all(view, "EXT")),
            now,
            "22 a filter is advised that is given",
            || line.to_owned(),
        );
        found.check(
            !(line.contains("--filter STD:0:0") && Self::passes_all(view, "STD")),
            now,
            "22 a filter is advised that is given",
            || line.to_owned(),
        );
        found.check(
            !(line.contains("try --target") && options.vendor_port),
            now,
            "22 a port is advised that is given",
            || line.to_owned(),
        );
        let blames_target = ["wrong --target", "check --target", "try --target", "is the gateway on"]
            .iter()
            .any(|text| line.contains(text));
        found.check(
            !blames_target || view.datagrams_read == 0,
            now,
            "22 wrong target, though something came from there",
            || line.to_owned(),
        );
    }
}

impl Area for Guesses {
    fn on_fact(&mut self, view: &View<'_>, fact: &Fact, _: &mut Findings) {
        if !self.is_set_up {
            self.set_up(view.items);
        }
        match fact {
            Fact::Read(_) if view.frame.is_some_and(|frame| frame.read == view.now) && !view.is_ending() => {
                self.causes.clear()
            }
            Fact::Sent(index) if !view.log.transmissions[*index].left => self.causes.push(Cause::Local),
            Fact::Said(..) | Fact::Truth(_) => {
                // STATUS arrived. Its answer explains the silence as it was then, if the network lets it through.
                let asked = Truth { send_fails: false, muted: false, ..view.truth };
                let asked = matches!(fact, Fact::Truth(_)).then(|| cause(&asked, view));
                for cause in causes(view).into_iter().chain(asked) {
                    if !self.causes.contains(&cause) && view.start_left.is_some() {
                        self.causes.push(cause);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_line(&mut self, view: &View<'_>, line: &str, found: &mut Findings) {
        let now = view.now;
        let sentence = recognise(line);
        if matches!(
            sentence,
            Sentence::Debug
                | Sentence::CanStop
                | Sentence::GatewayReports(_)
                | Sentence::RefusedCommand(_)
                | Sentence::Malformed
        ) {
            return;
        }
        let no_frames = view.known().any(|known| known.frames == 0);
        found.check(!line.contains("--bitrate") || no_frames, now, "19 --bitrate, though frames have come", || {
            line.to_owned()
        });
        Self::check_typed(view, line, found);
        match &sentence {
            Sentence::NoData { why, .. } | Sentence::Idle { why, .. } => {
                Self::check_rate(view, line, why, found);
                if !view.wild {
                    self.check_truth(view, why, matches!(sentence, Sentence::Idle { .. }), found);
                }
            }
            Sentence::StartAgain => Self::check_rate(view, line, line, found),
            _ => {}
        }
    }

    fn on_end(&mut self, _: &View<'_>, _: &mut Findings) {}
}
