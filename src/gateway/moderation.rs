//! Moderated receiving: when the loop rests before it reads, so that datagrams collect in the socket's queue instead of
//! costing a wake-up each. Network cards moderate their interrupts in the same way. No socket, no clock.

use std::mem;
use std::time::{Duration, Instant};

/// The shortest rest. Below this a timer costs more than it saves.
const MIN_REST: Duration = Duration::from_micros(250);

/// How many datagrams a rest aims at. More would save little.
const MAX_AIM: usize = 128;

/// So many bytes count as one more datagram, since large datagrams fill the receive buffer sooner.
const BYTES_PER_DATAGRAM: usize = 4096;

/// As few as fill a third of the receive buffer at 2.25 KiB each, which is what the kernel counts for a small datagram from
/// many network cards.
const AIM_SIZE: usize = 3 * 2304;

/// A rest is no longer than the receive buffer lasts at this rate, in bytes per second as the kernel counts them: about
/// 90,000 datagrams of 2.25 KiB, or 260,000 over loopback.
const MAX_FILL_RATE: u64 = 200_000_000;

/// Reads that follow each other this closely belong to one wake-up: the second datagram was queued. A CAN bus, or four at
/// once, has longer gaps between its frames.
const SAME_WAKEUP: Duration = Duration::from_micros(20);

/// How many wake-ups a rest must replace to be worthwhile. The timer that ends it costs more than a wake-up by a datagram.
const MIN_WAKEUPS_PER_REST: u32 = 5;

/// More wake-ups in a row than this must be frequent enough.
const MIN_WAKEUPS: u32 = 8;

/// How many rests in a row that brought fewer than two datagrams end it.
const MAX_VAIN_RESTS: u32 = 2;

/// Decides after each complete read how long to rest before the next.
#[derive(Debug)]
pub(crate) struct Moderation {
    max_rest: Duration,
    /// How many datagrams a rest aims at.
    aim: usize,
    last_read: Option<Instant>,
    /// When the latest wake-up began, or the latest rest ended.
    began: Option<Instant>,
    /// How many datagrams came at the latest wake-up.
    load: usize,
    /// So many wake-ups in a row were frequent enough.
    frequent: u32,
    /// Reads follow a rest of this duration; otherwise they block.
    rest: Option<Duration>,
    /// So many rests in a row were in vain.
    in_vain: u32,
}

impl Moderation {
    /// `receive_buffer` is the size of the socket's receive buffer in bytes, as the kernel counts it. A datagram is read
    /// `max_rest` late at most.
    pub fn new(receive_buffer: usize, max_rest: Duration) -> Moderation {
        let lasts = Duration::from_micros(receive_buffer as u64 * 1_000_000 / MAX_FILL_RATE);
        let max_rest = lasts.min(max_rest).max(MIN_REST);
        let aim = (receive_buffer / AIM_SIZE).clamp(1, MAX_AIM);
        Moderation { max_rest, aim, last_read: None, began: None, load: 0, frequent: 0, rest: None, in_vain: 0 }
    }

    /// `datagrams` with `bytes` have been read since the last call: after a blocking read one, otherwise everything that arrived
    /// before `now`. Returns how long to rest before the next read, which must not block (the caller may skip the
    /// rest and block); `None` if the next read must block until a datagram arrives.
    pub fn on_read(&mut self, now: Instant, datagrams: usize, bytes: usize) -> Option<Duration> {
        let load = datagrams + bytes / BYTES_PER_DATAGRAM;
        let since = |earlier: Option<Instant>| earlier.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let gap = since(self.last_read.replace(now));
        if self.rest.is_none() && gap < SAME_WAKEUP {
            self.load += load;
            return None;
        }
        let elapsed = since(self.began.replace(now));
        let latest = mem::replace(&mut self.load, load);
        let was_resting = self.rest.is_some();
        self.rest = if let Some(rest) = self.rest {
            self.in_vain = if datagrams < 2 { self.in_vain + 1 } else { 0 };
            // Or it was too long, or the datagrams come in large bursts.
            let goes_on = self.in_vain < MAX_VAIN_RESTS && load < 2 * self.aim;
            // No more than twice as long as the last: between two bursts nothing comes.
            goes_on.then(|| self.aimed(elapsed, load, 2 * rest))
        } else {
            self.frequent = if self.is_frequent(elapsed, latest) { self.frequent + 1 } else { 0 };
            (self.frequent > MIN_WAKEUPS).then(|| self.aimed(elapsed, latest, self.max_rest))
        };
        if self.rest.is_some() != was_resting {
            (self.frequent, self.in_vain) = (0, 0);
        }
        self.rest
    }

    /// Whether a rest would replace enough wake-ups, each after this time and with this load.
    fn is_frequent(&self, elapsed: Duration, load: usize) -> bool {
        elapsed <= self.max_rest / MIN_WAKEUPS_PER_REST && load * MIN_WAKEUPS_PER_REST as usize <= self.aim
    }

    /// A rest as long as it takes to receive as many as a rest aims at, if `load` came in the time `elapsed`.
    fn aimed(&self, elapsed: Duration, load: usize, most: Duration) -> Duration {
        elapsed.mul_f64(self.aim as f64 / load.max(1) as f64).min(most).clamp(MIN_REST, self.max_rest)
    }
}

#[cfg(test)]
mod tests;
