//! Limits how much of the gateway's own text is shown. A gateway can report a thousand errors a second; the first lines of a
//! minute are shown, the rest is counted. No clock of its own.

use std::collections::HashMap;
use std::mem;
use std::time::{Duration, Instant};

use crate::format::event::{ControllerEvent, StateChange};

/// How long an allowance lasts.
const WINDOW: Duration = Duration::from_secs(60);

/// How often the same line, or an event that the protocol names, is shown in one window.
const MAX_SAME: u64 = 10;

/// How many lines that are no such events are shown in one window. Two windows can fall into one minute.
const MAX_OTHERS: u64 = 45;

/// Decides which of the gateway's lines are shown.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    /// The window begins with a line, so that the first line after a quiet time is shown.
    window_ends_at: Option<Instant>,
    /// How often each line was shown in the window. Events that the protocol names count by their kind, without a text.
    shown: HashMap<(StateChange, String), u64>,
    others_shown: u64,
    suppressed: u64,
    /// How many of them the windows before had.
    suppressed_before: u64,
    /// How many of them summaries have reported.
    reported: u64,
}

impl Limiter {
    /// Whether this line of the gateway's is shown at `now`; otherwise it is counted.
    pub fn admits(&mut self, now: Instant, text: &str) -> bool {
        if self.is_over(now) {
            let (suppressed, reported) = (self.suppressed, self.reported);
            let window_ends_at = Some(now + WINDOW);
            *self =
                Limiter { window_ends_at, suppressed, suppressed_before: suppressed, reported, ..Limiter::default() };
        }
        let change = ControllerEvent::parse(text.as_bytes()).map_or(StateChange::Other, |event| event.change);
        let is_other = change == StateChange::Other;
        let key = (change, if is_other { text.to_owned() } else { String::new() });
        let is_shown =
            self.shown.get(&key).is_none_or(|&shown| shown < MAX_SAME) && (!is_other || self.others_shown < MAX_OTHERS);
        if is_shown {
            *self.shown.entry(key).or_default() += 1;
            self.others_shown += u64::from(is_other);
        } else {
            self.suppressed += 1;
        }
        is_shown
    }

    /// What was suppressed in windows that are over at `now` and no summary has reported; to be shown before the next line.
    pub fn take_summary(&mut self, now: Instant) -> Option<String> {
        let suppressed = if self.is_over(now) { self.suppressed } else { self.suppressed_before };
        let count = suppressed - mem::replace(&mut self.reported, suppressed);
        (count > 0).then(|| format!("messages of the gateway not shown: {count}"))
    }

    /// How many lines were suppressed in all.
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }

    fn is_over(&self, now: Instant) -> bool {
        self.window_ends_at.is_none_or(|ends_at| now >= ends_at)
    }
}

#[cfg(test)]
mod tests;
