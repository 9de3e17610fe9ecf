//! Claims 1 to 6: what is data, and what is said of silences.

use super::view::{FrameRead, View};
use super::{Area, Findings};
use crate::simulation::log::{Fact, MILLISECOND, SECOND, Time, Verb, seconds};
use crate::simulation::protocol::Line;
use crate::simulation::sentences::{Sentence, recognise};

/// How much a number with one decimal can be off.
const ROUNDING: f64 = 0.06;

/// Frames in a row, each with a message, that are too many.
const MAX_CHATTY: u32 = 5;

/// The longest gap on a bus that must not have a message with every frame. (In longer ones a query a minute can fall into
/// every gap.)
const CHATTY_GAP: Time = 50 * SECOND;

#[derive(Default)]
pub struct Silences {
    /// The causes told in this silence, the last one.
    told: Option<String>,
    reported: bool,
    /// A frame has ended a reported silence, and "data resumed" is due.
    resume_is_due: Option<Time>,
    /// The last "data resumed" after a silence that was not reported.
    unreported: Option<Time>,
    /// Times at which the queue was found empty, since the last frame: the latest before the frame that ends the silence.
    last_empty: Option<Time>,
    messages_in_gap: bool,
    chatty: u32,
    /// A bus that can be queried is silent without explanation.
    explained: bool,
}

impl Silences {
    fn on_frame(&mut self, view: &View<'_>, found: &mut Findings) {
        self.check_explained(view, view.frame.map_or(view.now, |frame| frame.arrived), view.frame_before, found);
        self.resume_is_due = (self.reported && view.streams()).then_some(view.now);
        self.explained = false;
        if let (Some(frame), Some(before)) = (view.frame, view.frame_before) {
            let gap = frame.arrived.saturating_sub(before.arrived);
            // The message that the frame itself causes comes after it, and counts for the next.
            self.chatty = if self.messages_in_gap && gap < CHATTY_GAP { self.chatty + 1 } else { 0 };
            let chatty = self.chatty;
            found.check(chatty < MAX_CHATTY, view.now, "6 a message comes with every frame", || {
                format!("{chatty} in a row")
            });
        }
        self.messages_in_gap = false;
        self.told = None;
    }

    /// Claim 5, for a silence that lasts until `until`.
    fn check_explained(&self, view: &View<'_>, until: Time, since: Option<FrameRead>, found: &mut Findings) {
        let options = &view.options;
        let Some(start) = view.start_left else { return };
        if self.explained || options.status_after == 0 || options.quiet || view.not_shown {
            return;
        }
        let until = [view.end_asked(), view.stop_tried].into_iter().flatten().fold(until, Time::min);
        let since = since.map_or(start, |frame| frame.read);
        let limit = options.query_after() + 60 * SECOND + 2 * options.command_time() + options.answer_window() + SECOND;
        let lasted = until.saturating_sub(since).saturating_sub(view.stalled(since, until));
        found.check(lasted <= limit, view.now, "5 a silence is not explained", || {
            format!("silent for {} s since {}, without a word", seconds(lasted), seconds(since))
        });
    }

    fn check_seconds(view: &View<'_>, said: f64, since: (Time, Time), until: (Time, Time)) -> Result<(), String> {
        let low = seconds(until.0.saturating_sub(since.1)) - ROUNDING;
        let high = seconds(until.1.saturating_sub(since.0)) + ROUNDING;
        if (low..=high).contains(&said) {
            Ok(())
        } else {
            Err(format!("at {}: {said} s, but {low} to {high}", seconds(view.now)))
        }
    }

    fn on_resumed(&mut self, view: &View<'_>, said: f64, found: &mut Findings) {
        let now = view.now;
        self.resume_is_due = None;
        let is_at_frame = view.last_lines.contains(&Line::Frame(view.options.port));
        let (Some(frame), true) = (view.frame, is_at_frame) else {
            return found.add(now, "2 data resumed, but no frame came", format!("{:?}", view.last_lines));
        };
        let start = (view.start_left.unwrap_or(0), view.start_by.unwrap_or(0));
        let before = view.frame_before.map_or(start, |before| (before.arrived, before.read));
        if let Err(error) = Self::check_seconds(view, said, before, (frame.arrived, frame.read)) {
            found.add(now, "2 data resumed after a wrong time", error);
        }
        if self.reported {
            return;
        }
        let after = view.options.query_after();
        let observed = self.last_empty.is_some_and(|empty| empty + MILLISECOND >= before.0 + after);
        found.check(observed, now, "2 data resumed after a silence that was not observed", || {
            format!("the queue was last empty at {:?}", self.last_empty.map(seconds))
        });
        let often = self.unreported.is_some_and(|last| now < last + 59 * SECOND);
        found.check(!often, now, "2 data resumed after unreported silences more than once a minute", String::new);
        self.unreported = Some(now);
    }

    fn on_no_data(&mut self, view: &View<'_>, said: f64, why: &str, found: &mut Findings) {
        let now = view.now;
        let Some(since) = view.silent_since() else {
            return found.add(now, "3 no data before START", why);
        };
        let earliest = view.decided_at();
        if let Err(error) = Self::check_seconds(view, said, since, (earliest, now)) {
            found.add(now, "3 no data for a wrong time", error);
        }
        // What came since the last look cannot be known.
        let looked = view.empty_at.unwrap_or(0).max(view.last_read_at);
        let is_frame = |packet: usize| {
            let lines = crate::simulation::protocol::lines(&view.log.packets[packet].bytes);
            lines.contains(&Line::Frame(view.options.port))
        };
        let waits = view.queued.iter().any(|&(arrived, packet)| arrived + MILLISECOND < looked && is_frame(packet));
        found.check(!waits, now, "3 no data, but a frame waits in the queue", String::new);
        let again = self.told.as_deref() == Some(why);
        found.check(!again, now, "4 a cause is told twice in a row", || why.to_owned());
        self.told = Some(why.to_owned());
        (self.reported, self.explained) = (true, true);
    }
}

impl Area for Silences {
    fn on_fact(&mut self, view: &View<'_>, fact: &Fact, found: &mut Findings) {
        let reads = matches!(fact, Fact::Read(_) | Fact::Empty { .. } | Fact::ReadError(_) | Fact::Ended(_));
        if let (Some(at), true) = (self.resume_is_due, reads) {
            if !view.options.quiet && !view.not_shown && !view.is_ending() {
                found.add(at, "2 a reported silence ends without data resumed", "");
            }
            self.resume_is_due = None;
            self.reported = false;
        }
        match fact {
            Fact::Read(_)
                if view.frame.is_some_and(|frame| {
                    frame.read == view.now && view.last_lines.contains(&Line::Frame(view.options.port))
                }) =>
            {
                self.on_frame(view, found);
            }
            Fact::Empty { until } => self.last_empty = Some(*until),
            // The message about it may be hidden.
            Fact::Sent(index) if view.log.transmissions[*index].verb == Verb::Start => self.told = None,
            _ => {}
        }
    }

    fn on_line(&mut self, view: &View<'_>, line: &str, found: &mut Findings) {
        match recognise(line) {
            Sentence::Resumed { seconds } => {
                self.on_resumed(view, seconds, found);
                (self.told, self.reported) = (None, false);
                self.messages_in_gap = true;
            }
            Sentence::NoData { seconds, why } => self.on_no_data(view, seconds, &why, found),
            Sentence::Idle { .. } => self.explained = true,
            Sentence::StartAgain => {
                self.told = None;
                (self.reported, self.explained) = (true, true);
            }
            Sentence::Unreachable => self.told = None,
            _ => {}
        }
    }

    fn on_end(&mut self, view: &View<'_>, found: &mut Findings) {
        let until = view.closed.unwrap_or(view.now);
        self.check_explained(view, until, view.frame, found);
    }
}
