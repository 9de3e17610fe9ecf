//! What is counted and reported at once, then at most once a minute with how many since: above all, datagrams that are lost.

use std::time::{Duration, Instant};

use crate::gateway::socket::RECEIVE_BUFFER;

/// How soon one report may follow another.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// How to get a larger receive buffer.
pub(crate) const LARGER_BUFFER: &str = "more with: sudo sysctl -w net.core.rmem_max=4194304";

/// What was reported of a count, at most once a minute.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    reported: u64,
    reported_at: Option<Instant>,
}

impl Tally {
    /// How many of this `total` are to be reported at `now`, in words.
    pub fn due(&mut self, now: Instant, total: u64) -> Option<String> {
        let new = total.saturating_sub(self.reported);
        let since = if self.reported_at.is_some() { "since the last message" } else { "so far" };
        if new == 0 || self.reported_at.is_some_and(|at| now < at + MIN_INTERVAL) {
            return None;
        }
        (self.reported, self.reported_at) = (total, Some(now));
        Some(format!("{new} {since}"))
    }
}

/// Warns of what the kernel drops, this `count`. `receive_buffer`: in bytes, as granted by the kernel.
pub(crate) fn in_kernel(count: &str, receive_buffer: usize) -> String {
    let size = receive_buffer >> 10;
    let hint = if receive_buffer < RECEIVE_BUFFER {
        format!("it has {size} KiB; {LARGER_BUFFER}, then start again")
    } else {
        format!("all its {size} KiB were full: this machine is too busy, or the program was stopped")
    };
    format!("datagrams are being lost: they come faster than the socket's queue is emptied ({count}); {hint}")
}

/// Warns of datagrams that the output buffer has no room for.
pub(crate) fn in_output(count: &str) -> String {
    format!(
        "datagrams are being lost: the process reading stdout is too slow, 32 MiB are waiting for it ({count}); a faster \
         reader or a file keeps them all"
    )
}
