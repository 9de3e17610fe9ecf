//! What was counted, what is known in the end, and the last line that says both.

use std::io::{self, ErrorKind};
use std::time::Duration;

use anyhow::{Error, anyhow};

use crate::gateway::drops::Drops;

/// What is known of the bus in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BusState {
    /// The gateway refused to start it.
    NotStarted,
    /// The gateway confirmed that it is halted, or said so last.
    Stopped,
    /// Nobody halted it.
    Running,
    /// The gateway said then that it is stopped.
    ReportedStopped(std::time::Instant),
    /// The gateway has fallen silent, or did not confirm `STOP`.
    Unknown,
}

/// What was counted of the stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    pub datagrams: u64,
    pub bytes: u64,
    /// Frames that were printed; `None` in raw, which does not look for any.
    pub frames: Option<u64>,
    /// Datagrams that went into the spool.
    pub spooled: u64,
    /// Datagrams lost because the spool was full.
    pub overflowed: u64,
    /// Datagrams that came after stdout had failed.
    pub after_failure: u64,
    pub malformed_lines: u64,
}

/// What the last line is made of.
#[derive(Debug)]
pub(crate) struct Report {
    pub stats: Stats,
    /// What the kernel dropped.
    pub drops: Drops,
    /// Datagrams that were written out, in whole batches.
    pub written: u64,
    /// How writing to stdout failed, if it did.
    pub write_error: Option<io::Error>,
    /// Lines for stderr that did not fit into its queue.
    pub messages_not_shown: u64,
    pub network_errors: u64,
    /// Frames that came before `START`.
    pub handshake_frames: u64,
    pub duration: Duration,
    pub bus: BusState,
    /// The command that halts the bus.
    pub can_stop: String,
}

impl Report {
    /// Whether a user who wants quiet must see the line.
    pub fn has_losses(&self) -> bool {
        let unwritten = if self.reader_is_gone() { 0 } else { self.unwritten() };
        self.drops.count + self.stats.overflowed + self.stats.malformed_lines + unwritten > 0
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

    fn line(&self) -> String {
        let Stats { datagrams, bytes, frames, overflowed, .. } = self.stats;
        let frames = frames.map(|frames| plural(frames, "frame") + ", ").unwrap_or_default();
        let dropped = match self.drops {
            Drops { count, may_be_more: false } => count.to_string(),
            Drops { count: 0, may_be_more: true } => "unknown (the system does not say)".to_owned(),
            Drops { count, may_be_more: true } => format!("at least {count}"),
        };
        let mut line = format!(
            "{} ({frames}{}) in {:.1} s; lost: {dropped} in the kernel, {overflowed} in the spool",
            plural(datagrams, "datagram"),
            plural(bytes, "byte"),
            self.duration.as_secs_f64(),
        );
        match self.unwritten() {
            0 => {}
            lost if self.reader_is_gone() => {
                line += &format!("; up to {} not taken by the reader", plural(lost, "datagram"));
            }
            lost => line += &format!("; {} not written to stdout", plural(lost, "datagram")),
        }
        for (count, what, fate) in [
            (self.stats.malformed_lines, "malformed line", "left out"),
            (self.messages_not_shown, "message", "not shown"),
            (self.network_errors, "network error", "(recovered)"),
            (self.handshake_frames, "frame", "received during the handshake, not printed"),
        ] {
            if count > 0 {
                line += &format!("; {} {fate}", plural(count, what));
            }
        }
        line + &match self.bus {
            BusState::NotStarted => "; the bus was not started".to_owned(),
            BusState::Stopped => "; the bus is halted".to_owned(),
            BusState::ReportedStopped(at) => {
                format!("; the bus was reported stopped {:.0} s ago", at.elapsed().as_secs_f64())
            }
            BusState::Running => format!("; the bus still runs, stop it with:\n{}", self.can_stop),
            BusState::Unknown => format!("; the bus may still run, stop it with:\n{}", self.can_stop),
        }
    }

    /// Datagrams that were received and are not known to be written; a batch that was cut stats as a whole.
    fn unwritten(&self) -> u64 {
        match self.write_error {
            Some(_) => self.stats.spooled + self.stats.after_failure - self.written,
            None => 0,
        }
    }

    fn reader_is_gone(&self) -> bool {
        self.write_error.as_ref().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.line())
    }
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
