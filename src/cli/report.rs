//! What was counted, what is known of the bus, and the end of a session, which reports both.

use std::io::{self, ErrorKind};
use std::time::Duration;

use anyhow::{Error, anyhow};

use crate::cli::advice;
use crate::cli::messages::{Exit, Messages};
use crate::cli::shutdown::{SHUTDOWN_NOTICE_AFTER, Shutdown};
use crate::gateway::Drops;
use crate::output::printer::Stats;
use crate::output::spool::{Output, Written};

/// The figures of the last lines.
#[derive(Debug)]
pub(crate) struct Report {
    pub stats: Stats,
    /// What the kernel dropped.
    pub drops: Drops,
    pub written: Written,
    /// Messages that did not go to stderr.
    pub messages_not_shown: u64,
    pub network_errors: u64,
    /// Frames that came before `START` left.
    pub handshake_frames: u64,
    /// The time of the stream, without the shutdown.
    pub duration: Duration,
    /// What is known of the bus, and how to stop it unless it is known to be stopped.
    pub bus: String,
}

/// Ends a session: waits until everything is written, prints the report, waits until a regular file is stored. Failures come
/// last, those of stdout after the session's. `report` is called once everything is written.
pub(crate) fn end(
    output: &dyn Output,
    messages: &Messages,
    shutdown: &Shutdown,
    mut failures: Vec<Error>,
    report: impl FnOnce(Written) -> Report,
) -> Exit {
    output.close();
    let warn_of_wait = |whom: &str, effect: &str| {
        messages.warn(format_args!("waiting for {whom}; {}{effect}", shutdown.quit_hint()));
    };
    let written = output.wait_written(Some(SHUTDOWN_NOTICE_AFTER)).or_else(|| {
        let whom = if output.is_file() { "the disk" } else { "the process reading stdout" };
        warn_of_wait(whom, ", discarding unwritten output");
        output.wait_written(None)
    });
    let report = report(written.unwrap_or_default());
    for line in report.lines() {
        if report.has_losses() { messages.warn(line) } else { messages.info(line) }
    }
    let failed: String = failures.iter().map(|failure| format!("; {failure:#}")).collect();
    shutdown.set_quit_message(format!("exited; the disk may not have stored all of the file{failed}"));
    let reader_is_gone = report.reader_is_gone();
    let error = match report.written.error {
        Some(error) => (!reader_is_gone).then_some(error),
        None => {
            let synced = output.wait_synced(Some(SHUTDOWN_NOTICE_AFTER)).or_else(|| {
                warn_of_wait("the disk to store the file", "");
                output.wait_synced(None)
            });
            synced.and_then(Result::err)
        }
    };
    if output.take_deletion() {
        messages.warn(advice::FILE_DELETED);
    }
    failures.extend(error.map(|error| anyhow!(advice::write_error(&error))));
    let Some(last) = failures.pop() else { return Exit::Success };
    for failure in failures {
        messages.warn(format_args!("{failure:#}"));
    }
    Exit::Failure(last)
}

impl Report {
    /// Whether something is missing, so that the report is printed under `--quiet` too.
    fn has_losses(&self) -> bool {
        let unwritten = if self.reader_is_gone() { 0 } else { self.unwritten() };
        let Stats { overflowed, malformed_lines, .. } = self.stats;
        self.drops.count + overflowed + malformed_lines + unwritten + self.messages_not_shown > 0
    }

    /// One fact each.
    fn lines(&self) -> Vec<String> {
        let Stats { datagrams, bytes, frames, overflowed, malformed_lines, .. } = self.stats;
        let frames = frames.map(|frames| plural(frames, "frame") + ", ").unwrap_or_default();
        let dropped = match self.drops {
            Drops { count, is_lower_bound: false } => count.to_string(),
            Drops { count: 0, is_lower_bound: true } => "unknown".to_owned(),
            Drops { count, is_lower_bound: true } => format!("at least {count}"),
        };
        let (datagrams, bytes) = (plural(datagrams, "datagram"), plural(bytes, "byte"));
        let mut lines = vec![
            format!("{datagrams} ({frames}{bytes}) in {:.1} s", self.duration.as_secs_f64()),
            format!("lost: {dropped} in the kernel, {overflowed} in the output buffer"),
        ];
        let fate = if self.reader_is_gone() { "not read by the reader" } else { "not written to stdout" };
        for (qualifier, count, what, fate) in [
            ("up to ", self.unwritten(), "datagram", fate),
            ("", malformed_lines, "malformed line", "left out"),
            ("", self.messages_not_shown, "message", "not shown"),
            ("", self.network_errors, "network error", "(recovered)"),
            ("", self.handshake_frames, "frame", "received during the handshake, not printed"),
        ] {
            if count > 0 {
                lines.push(format!("{qualifier}{} {fate}", plural(count, what)));
            }
        }
        lines.push(self.bus.clone());
        lines
    }

    /// At most so many datagrams were received and not written: a batch that was cut counts as a whole.
    fn unwritten(&self) -> u64 {
        self.stats.enqueued.saturating_sub(self.written.datagrams)
    }

    /// A reader that closed its end, or whose connection was reset, has seen what it wanted.
    fn reader_is_gone(&self) -> bool {
        let is_gone = |error: &io::Error| matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        self.written.error.as_ref().is_some_and(is_gone)
    }
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
