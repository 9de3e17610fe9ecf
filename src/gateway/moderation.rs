//! Moderated receiving: when to let datagrams queue in the socket instead of waking up for each, as a network card
//! moderates its interrupts. No socket, no clock.

use std::time::{Duration, Instant};

/// The shortest rest: below this a timer costs more than it saves.
const MIN_REST: Duration = Duration::from_micros(250);

/// The longest rest: what a datagram may be late, and a signal unnoticed.
const MAX_REST: Duration = Duration::from_millis(4);

/// How many datagrams a rest aims at. More of them save little and push each other out of the processor's caches.
const DATAGRAMS_PER_REST: u32 = 32;

/// Reads this close together are of one wake-up: the second datagram was in the queue.
const SAME_WAKEUP: Duration = Duration::from_micros(20);

/// Wake-ups this close together are worth moderating: two of them come in the longest rest.
const MAX_GAP: Duration = Duration::from_millis(2);

/// So many wake-ups in a row, each within [`MAX_GAP`] after the one before, begin it. A burst that arrives at once takes
/// fewer.
const WAKEUPS_TO_BEGIN: u32 = 8;

/// So many rests that saved no wake-up end it.
const MAX_CREDIT: u32 = 2;

/// Decides after each complete read whether the loop rests before the next one.
#[derive(Debug)]
pub(crate) struct Moderation {
    last_read: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Each read blocks; so many wake-ups came close together.
    Blocking { wakeups: u32 },
    /// Each read follows a rest and does not block.
    Resting { credit: u32 },
}

impl Moderation {
    pub fn new(now: Instant) -> Moderation {
        Moderation { last_read: now, state: State::Blocking { wakeups: 0 } }
    }

    /// Everything that had arrived by `now` has been read: so many datagrams since the last call. Returns how long to rest
    /// before the next read, which then must not block; `None` to block until the next datagram.
    pub fn on_read(&mut self, now: Instant, datagrams: u32) -> Option<Duration> {
        let gap = now.saturating_duration_since(self.last_read);
        self.last_read = now;
        match &mut self.state {
            State::Blocking { .. } if gap < SAME_WAKEUP => None,
            State::Blocking { wakeups } if gap > MAX_GAP => {
                *wakeups = 0;
                None
            }
            State::Blocking { wakeups } if *wakeups < WAKEUPS_TO_BEGIN => {
                *wakeups += 1;
                None
            }
            State::Blocking { .. } => {
                self.state = State::Resting { credit: MAX_CREDIT };
                Some(rest(gap, 1))
            }
            State::Resting { credit } => {
                *credit = if datagrams >= 2 { MAX_CREDIT } else { *credit - 1 };
                if *credit == 0 {
                    self.state = State::Blocking { wakeups: 0 };
                    return None;
                }
                Some(rest(gap, datagrams.max(1)))
            }
        }
    }
}

/// As long as [`DATAGRAMS_PER_REST`] take to arrive, if `datagrams` took `gap`.
fn rest(gap: Duration, datagrams: u32) -> Duration {
    (gap * DATAGRAMS_PER_REST / datagrams).clamp(MIN_REST, MAX_REST)
}
