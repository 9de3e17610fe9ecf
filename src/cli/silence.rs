//! When a silent bus is asked about, and what is reported of it. A dead gateway, a `START` that was not carried out, a wrong
//! bit rate, a bus that another program stopped: all look the same to a listener. `STATUS` tells most of them apart, so it is
//! sent once in each silence, and again every minute while no answer tells the controller's state. Frames alone decide whether a session
//! ends, with one exception: the local address is gone (DHCP, VPN, IPv6 privacy address). No socket, no clock, no thread.

use std::time::{Duration, Instant};

/// How soon one `STATUS` may follow another.
const MIN_QUERY_INTERVAL: Duration = Duration::from_secs(60);

/// How long a silence lasts before the first look at the local address where `--status-after` is 0.
const DEFAULT_LOOK_AFTER: Duration = Duration::from_secs(5);

/// The time between two looks in a silence. Both must find the address gone, so that one that comes back at once (a VPN that
/// reconnects) is survived.
const LOOK_INTERVAL: Duration = Duration::from_secs(8);

/// The silences of one session. Each begins at `last_data`, when the last frame came, or before any when `START` was first sent.
#[derive(Debug)]
pub(crate) struct Silence {
    /// How long a silence lasts before `STATUS` is sent; `None` for never.
    after: Option<Duration>,
    /// When `STATUS` was last requested, in any silence.
    last_asked: Option<Instant>,
    /// The explanation that was reported last in this silence.
    told: Option<String>,
    /// When the latest look at the local address in this silence ended, and whether it was gone.
    last_look: Option<(Instant, bool)>,
}

impl Silence {
    /// `STATUS` follows after `status_after` (0 for never), or after half of the idle timeout if that is sooner.
    pub fn new(status_after: Duration, idle_timeout: Option<Duration>) -> Silence {
        let after = (!status_after.is_zero()).then(|| match idle_timeout {
            Some(idle) if idle < 2 * status_after => idle / 2,
            _ => status_after,
        });
        Silence { after, last_asked: None, told: None, last_look: None }
    }

    /// A frame came. Returns how long there was none, if that was reported.
    pub fn on_frame(&mut self, now: Instant, last_data: Instant) -> Option<Duration> {
        // Without a look nothing was observed, nor reported. Cheap, since this happens at every frame.
        self.last_look.take()?;
        self.told.take().map(|_| now - last_data)
    }

    /// When to send `STATUS`. `must_ask_again`: the latest one in this silence has not told the controller's state, or
    /// `START` is to be sent again.
    pub fn ask_at(&self, last_data: Instant, must_ask_again: bool) -> Option<Instant> {
        let due = last_data + self.after?;
        match self.last_asked {
            Some(last) if last > last_data => must_ask_again.then_some(last + MIN_QUERY_INTERVAL),
            // A bus with a frame every few seconds is not asked about in every pause.
            Some(last) => Some(due.max((last + 2 * MIN_QUERY_INTERVAL).min(due + MIN_QUERY_INTERVAL))),
            None => Some(due),
        }
    }

    /// `STATUS` is requested.
    pub fn on_asked(&mut self, now: Instant) {
        self.last_asked = Some(now);
    }

    /// When to look at the local address.
    pub fn address_look_at(&self, last_data: Instant) -> Instant {
        self.last_look.map_or(last_data + self.after.unwrap_or(DEFAULT_LOOK_AFTER), |(last, _)| last + LOOK_INTERVAL)
    }

    /// Takes what a look has found at `now`. Returns whether the address is gone for good: twice in a row.
    pub fn on_look(&mut self, now: Instant, is_lost: bool) -> bool {
        let last_look = self.last_look.replace((now, is_lost));
        is_lost && last_look.is_some_and(|(_, was_lost)| was_lost)
    }

    /// Whether this explanation is to be reported; not twice in a row in one silence.
    pub fn tells(&mut self, explanation: &str) -> bool {
        self.told.replace(explanation.to_owned()).as_deref() != Some(explanation)
    }
}

#[cfg(test)]
mod tests;
