//! Limits how much of the gateway's own text is shown. A gateway can report a thousand errors a second; the first lines of a
//! minute are shown, the rest is counted. No clock of its own.

use std::collections::HashMap;
use std::mem;
use std::time::{Duration, Instant};

use crate::format::controller::{ControllerEvent, StateChange};

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
    /// How often each line was shown in the window. Events that the protocol names count by their kind and CAN port.
    shown: HashMap<(StateChange, String), u64>,
    /// How many lines were not shown in all, and of them in this window.
    pub suppressed: u64,
    unreported: u64,
}

impl Limiter {
    /// Whether this line of the gateway's is shown at `now`; otherwise it is counted. `Some`: how many lines were suppressed since
    /// the last that was shown, to be reported before it.
    pub fn admits(&mut self, now: Instant, text: &str) -> Option<u64> {
        if self.window_ends_at.is_none_or(|ends_at| now >= ends_at) {
            self.window_ends_at = Some(now + WINDOW);
            self.shown.clear();
        }
        let key = match ControllerEvent::parse(text.as_bytes()) {
            Some(event) if event.change != StateChange::Other => (event.change, event.channel.to_string()),
            _ => (StateChange::Other, text.to_owned()),
        };
        let of_its_kind: u64 = self.shown.iter().filter(|(other, _)| other.0 == key.0).map(|(_, shown)| shown).sum();
        if of_its_kind >= MAX_OTHERS || self.shown.get(&key).is_some_and(|&shown| shown >= MAX_SAME) {
            self.suppressed += 1;
            self.unreported += 1;
            return None;
        }
        *self.shown.entry(key).or_default() += 1;
        Some(mem::take(&mut self.unreported))
    }
}

#[cfg(test)]
mod tests;
