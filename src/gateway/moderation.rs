//! Moderated receiving: when the loop rests before it reads, so that datagrams collect in the socket's queue instead of
//! costing a wake-up each. Network cards moderate their interrupts in the same way. No socket, no clock.

use std::time::{Duration, Instant};

/// The shortest rest. Below this a timer costs more than it saves.
const MIN_REST: Duration = Duration::from_micros(250);

/// The longest rest: how late a datagram is read at most, and how late a waker is noticed.
const MAX_REST: Duration = Duration::from_millis(4);

/// What a rest aims at. More would save little.
const DATAGRAMS_PER_REST: u32 = 64;

/// A rest is no longer than the receive buffer lasts at this rate, in bytes per second as the kernel counts them: about
/// 175,000 datagrams of 2.25 KiB, which is what many network cards make of a small one, or 520,000 over loopback.
const MAX_FILL_RATE: u64 = 400_000_000;

/// Reads that follow each other this closely belong to one wake-up: the second datagram was queued.
const SAME_WAKEUP: Duration = Duration::from_micros(20);

/// A wake-up that brings so many datagrams costs little for each of them, so a rest would save little.
const MANY_PER_WAKEUP: usize = 4;

/// A rest that brings so many was too long, or the datagrams come in large bursts.
const TOO_MANY_PER_REST: usize = 2 * DATAGRAMS_PER_REST as usize;

/// How many datagrams that come one by one must fit into the longest rest to make it worthwhile. A timer that ends a rest of
/// 4 ms costs about as much as two wake-ups by a datagram.
const MIN_DATAGRAMS_PER_REST: u32 = 3;

/// How many wake-ups in a row must be that close together and bring few datagrams each.
const MIN_WAKEUPS: u32 = 8;

/// How many rests in a row that brought less than two datagrams end it.
const MAX_VAIN_RESTS: u32 = 2;

/// Decides after each complete read how long to rest before the next.
#[derive(Debug)]
pub(crate) struct Moderation {
    max_rest: Duration,
    /// When the last wake-up began, or the last rest ended.
    last_read: Option<Instant>,
    mode: Mode,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    /// Reads block. So many wake-ups before the latest were close together and brought few datagrams each.
    Blocking {
        wakeups: u32,
        /// What the latest has brought so far.
        datagrams: usize,
    },
    /// Reads follow a rest. So many rests were in vain.
    Resting { in_vain: u32 },
}

impl Moderation {
    /// `receive_buffer` is the size of the socket's receive buffer in bytes, as the kernel counts it.
    pub fn new(receive_buffer: usize) -> Moderation {
        let lasts = Duration::from_micros(receive_buffer as u64 * 1_000_000 / MAX_FILL_RATE);
        let max_rest = lasts.clamp(MIN_REST, MAX_REST);
        Moderation { max_rest, last_read: None, mode: Mode::Blocking { wakeups: 0, datagrams: 0 } }
    }

    /// Everything that arrived before `now` has been read: `datagrams` since the last call. Returns how long to rest before
    /// the next read, which must not block; `None` if the next read must block until a datagram arrives.
    pub fn on_read(&mut self, now: Instant, datagrams: usize) -> Option<Duration> {
        let elapsed = self.last_read.map_or(Duration::MAX, |last| now.saturating_duration_since(last));
        // How many came in that time: those of the latest wake-up, or those that this rest has brought.
        let came = match &mut self.mode {
            Mode::Blocking { datagrams: latest, .. } if elapsed < SAME_WAKEUP => {
                *latest += datagrams;
                return None;
            }
            Mode::Blocking { datagrams: latest, .. } => *latest,
            Mode::Resting { .. } => datagrams,
        };
        self.last_read = Some(now);
        let is_rare = elapsed > self.max_rest / MIN_DATAGRAMS_PER_REST;
        let blocking = |wakeups| Mode::Blocking { wakeups, datagrams };
        self.mode = match self.mode {
            Mode::Blocking { .. } if is_rare || came >= MANY_PER_WAKEUP => blocking(0),
            Mode::Blocking { wakeups, .. } if wakeups < MIN_WAKEUPS => blocking(wakeups + 1),
            Mode::Blocking { .. } => Mode::Resting { in_vain: 0 },
            Mode::Resting { .. } if came >= TOO_MANY_PER_REST => blocking(0),
            Mode::Resting { .. } if came >= 2 => Mode::Resting { in_vain: 0 },
            Mode::Resting { in_vain } if in_vain + 1 < MAX_VAIN_RESTS => Mode::Resting { in_vain: in_vain + 1 },
            Mode::Resting { .. } => blocking(0),
        };
        match self.mode {
            Mode::Blocking { .. } => None,
            // As long as it takes to receive as many as a rest aims at.
            Mode::Resting { .. } => {
                let rest = elapsed * DATAGRAMS_PER_REST / u32::try_from(came.max(1)).unwrap_or(u32::MAX);
                Some(rest.clamp(MIN_REST, self.max_rest))
            }
        }
    }
}

#[cfg(test)]
mod tests;
