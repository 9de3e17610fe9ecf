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
    suppressed: u64,
    /// How many of them belong into the next summary, now or when the window is over.
    unreported: u64,
    summary: Option<String>,
}

impl Limiter {
    /// Whether this line of the gateway's is shown at `now`, after the summary, if there is one; otherwise it is counted.
    pub fn admits(&mut self, now: Instant, text: &str) -> bool {
        if self.window_ends_at.is_none_or(|ends_at| now >= ends_at) {
            self.window_ends_at = Some(now + WINDOW);
            self.shown.clear();
            let count = mem::take(&mut self.unreported);
            self.summary = (count > 0).then(|| format!("messages of the gateway not shown: {count}"));
        }
        let change = ControllerEvent::parse(text.as_bytes()).map_or(StateChange::Other, |event| event.change);
        let key = (change, if change == StateChange::Other { text.to_owned() } else { String::new() });
        let of_its_kind: u64 = self.shown.iter().filter(|(key, _)| key.0 == change).map(|(_, shown)| shown).sum();
        let is_shown = of_its_kind < MAX_OTHERS && self.shown.get(&key).is_none_or(|&shown| shown < MAX_SAME);
        if is_shown {
            *self.shown.entry(key).or_default() += 1;
        } else {
            self.suppressed += 1;
            self.unreported += 1;
        }
        is_shown
    }

    /// What earlier windows suppressed; to be shown before the line that [`Limiter::admits`] has just admitted.
    pub fn take_summary(&mut self) -> Option<String> {
        self.summary.take()
    }

    /// How many lines were suppressed in all.
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }
}

#[cfg(test)]
mod tests;
