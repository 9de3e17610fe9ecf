//! Reports that datagrams are being lost: at once, then at most once a minute, with how many since.

use std::time::{Duration, Instant};

use crate::gateway::Drops;
use crate::gateway::socket::RECEIVE_BUFFER;

/// How soon one report of losses at the same place may follow another.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// How to get a larger receive buffer.
pub(crate) const LARGER_BUFFER: &str = "more with: sudo sysctl -w net.core.rmem_max=4194304";

/// What is lost, and what was reported of it.
#[derive(Debug)]
pub(crate) struct Losses {
    /// In bytes, as granted by the kernel.
    receive_buffer: usize,
    /// What the kernel had dropped when `START` left.
    before_start: u64,
    in_kernel: Tally,
    in_output: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    reported: u64,
    reported_at: Option<Instant>,
}

impl Losses {
    pub fn new(receive_buffer: usize) -> Losses {
        Losses { receive_buffer, before_start: 0, in_kernel: Tally::default(), in_output: Tally::default() }
    }

    /// `START` has left. What was dropped before is no loss; where that is unknown, it is counted.
    pub fn begin(&mut self, drops: Option<Drops>) {
        self.before_start = drops.map_or(0, |drops| drops.count);
    }

    /// What the kernel has dropped since `START` left.
    pub fn since_start(&self, drops: Drops) -> Drops {
        Drops { count: drops.count.saturating_sub(self.before_start), ..drops }
    }

    /// What to report now of the drops of the kernel.
    pub fn in_kernel(&mut self, now: Instant, drops: Drops) -> Option<String> {
        let count = self.in_kernel.due(now, self.since_start(drops).count)?;
        let size = self.receive_buffer >> 10;
        let hint = if self.receive_buffer < RECEIVE_BUFFER {
            format!("it has {size} KiB; {LARGER_BUFFER}, then start again")
        } else {
            format!("all its {size} KiB were full: this machine is too busy, or the program was stopped")
        };
        Some(format!("datagrams are being lost: they come faster than the socket's queue is emptied {count}; {hint}"))
    }

    /// What to report now of the datagrams that the output buffer had no room for.
    pub fn in_output(&mut self, now: Instant, overflowed: u64) -> Option<String> {
        let count = self.in_output.due(now, overflowed)?;
        Some(format!(
            "datagrams are being lost: the process reading stdout is too slow, 32 MiB are waiting for it {count}; a faster \
             reader or a file keeps them all"
        ))
    }
}

impl Tally {
    fn due(&mut self, now: Instant, total: u64) -> Option<String> {
        let new = total.saturating_sub(self.reported);
        let since = if self.reported_at.is_some() { "since the last message" } else { "so far" };
        if new == 0 || self.reported_at.is_some_and(|at| now < at + MIN_INTERVAL) {
            return None;
        }
        (self.reported, self.reported_at) = (total, Some(now));
        Some(format!("({new} {since})"))
    }
}
