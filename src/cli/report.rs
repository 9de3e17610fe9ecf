//! What was counted, what is known of the bus, and the last lines, which say both.

use std::fmt;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use anyhow::{Error, anyhow};

use crate::gateway::drops::Drops;
use crate::output::printer::Stats;

/// How wide a line of the report is at most, in columns, the program's name included.
const MAX_COLUMNS: usize = 140;

/// Begins a further line like the first one.
const NEXT_LINE: &str = "\ncan-listen: ";

/// What is known of the bus when the session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BusState {
    /// The gateway refused to start it.
    NotStarted,
    /// Data has come, or the gateway confirmed `START`.
    Running,
    /// The gateway confirmed that it is stopped.
    Stopped,
    /// The gateway reported then that it is stopped.
    ReportedStopped(Instant),
    /// Nothing shows whether it runs.
    Unknown,
}

/// The figures of the last lines.
#[derive(Debug)]
pub(crate) struct Report {
    pub stats: Stats,
    /// What the kernel dropped.
    pub drops: Drops,
    /// Datagrams that were written, in whole batches.
    pub written: u64,
    /// How writing to stdout failed, if it did.
    pub write_error: Option<io::Error>,
    /// Messages that did not go to stderr.
    pub messages_not_shown: u64,
    pub network_errors: u64,
    /// Frames that came before `START` left.
    pub handshake_frames: u64,
    /// The time of the stream, without the shutdown.
    pub duration: Duration,
    pub bus: BusState,
    /// The command line that stops the bus.
    pub can_stop: String,
}

impl Report {
    /// Whether something is missing, so that the report is printed under `--quiet` too.
    pub fn has_losses(&self) -> bool {
        let unwritten = if self.reader_is_gone() { 0 } else { self.unwritten() };
        let Stats { overflowed, malformed_lines, .. } = self.stats;
        self.drops.count + overflowed + malformed_lines + unwritten + self.messages_not_shown > 0
    }

    /// The failure of stdout, if it is one: a reader that went away is none.
    pub fn stdout_failure(&self) -> Option<Error> {
        let error = self.write_error.as_ref().filter(|_| !self.reader_is_gone())?;
        let advice = match error.kind() {
            ErrorKind::StorageFull => "make room there, or write to another disk",
            _ => "check where it is redirected to",
        };
        Some(anyhow!("cannot write to stdout: {error}; {advice}"))
    }

    /// What the first lines say, in their order.
    fn parts(&self) -> Vec<String> {
        let Stats { datagrams, bytes, frames, overflowed, malformed_lines, .. } = self.stats;
        let frames = frames.map(|frames| plural(frames, "frame") + ", ").unwrap_or_default();
        let dropped = match self.drops {
            Drops { count, is_lower_bound: false } => count.to_string(),
            Drops { count: 0, is_lower_bound: true } => "unknown (the system does not say)".to_owned(),
            Drops { count, is_lower_bound: true } => format!("at least {count}"),
        };
        let (datagrams, bytes) = (plural(datagrams, "datagram"), plural(bytes, "byte"));
        let mut parts = vec![
            format!("{datagrams} ({frames}{bytes}) in {:.1} s", self.duration.as_secs_f64()),
            format!("lost: {dropped} in the kernel, {overflowed} in the output buffer"),
        ];
        match self.unwritten() {
            0 => {}
            count if self.reader_is_gone() => {
                parts.push(format!("up to {} not read by the reader", plural(count, "datagram")));
            }
            count => parts.push(format!("{} not written to stdout", plural(count, "datagram"))),
        }
        for (count, what, fate) in [
            (malformed_lines, "malformed line", "left out"),
            (self.messages_not_shown, "message", "not shown"),
            (self.network_errors, "network error", "(recovered)"),
            (self.handshake_frames, "frame", "received during the handshake, not printed"),
        ] {
            if count > 0 {
                parts.push(format!("{} {fate}", plural(count, what)));
            }
        }
        parts.push(match self.bus {
            BusState::NotStarted => "the bus was not started".to_owned(),
            BusState::Running => "the bus still runs, stop it with:".to_owned(),
            BusState::Stopped => "the bus is halted".to_owned(),
            BusState::ReportedStopped(at) => {
                format!("the bus was reported stopped {:.0} s ago", at.elapsed().as_secs_f64())
            }
            BusState::Unknown => "the bus may still run, stop it with:".to_owned(),
        });
        parts
    }

    /// Datagrams that were received and are not known to be written; a batch that was cut counts as a whole.
    fn unwritten(&self) -> u64 {
        match self.write_error {
            Some(_) => (self.stats.enqueued + self.stats.after_failure).saturating_sub(self.written),
            None => 0,
        }
    }

    /// A reader that closed its end, or whose connection was reset, has seen what it wanted.
    fn reader_is_gone(&self) -> bool {
        let is_gone = |error: &io::Error| matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        self.write_error.as_ref().is_some_and(is_gone)
    }
}

/// Lines of at most [`MAX_COLUMNS`] columns; the command line that stops the bus stands alone on the last one.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut column = NEXT_LINE.len();
        for (index, part) in self.parts().iter().enumerate() {
            let separator = if index == 0 {
                ""
            } else if column + "; ".len() + part.len() <= MAX_COLUMNS {
                "; "
            } else {
                column = 0;
                NEXT_LINE
            };
            column += separator.len() + part.len();
            write!(f, "{separator}{part}")?;
        }
        match self.bus {
            BusState::Running | BusState::Unknown => write!(f, "\n{}", self.can_stop),
            BusState::NotStarted | BusState::Stopped | BusState::ReportedStopped(_) => Ok(()),
        }
    }
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
