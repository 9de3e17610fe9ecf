//! The path of a datagram to stdout: counted, encoded, enqueued.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use crate::format::{Encoder, Notice};
use crate::output::spool::{Output, PushError};

/// What was counted of the stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    pub datagrams: u64,
    pub bytes: u64,
    /// Frames that were printed; `None` in raw, which does not parse them.
    pub frames: Option<u64>,
    /// Datagrams that the output accepted, or that came after it had failed.
    pub enqueued: u64,
    /// Datagrams lost because the output was full.
    pub overflowed: u64,
    pub malformed_lines: u64,
}

/// Prints the datagrams of the stream.
pub(crate) struct Printer {
    encoder: Encoder,
    preamble: &'static [u8],
    /// What the current datagram becomes on stdout.
    encoded: Vec<u8>,
    pub output: Arc<dyn Output>,
    unix_time: Box<dyn Fn() -> Duration + Send>,
    /// How many datagrams, or frames in the formats that have them, are still to be printed.
    remaining: u64,
    pub stats: Stats,
}

impl Printer {
    /// Prints `count` datagrams, or frames in the formats that have them; without it, everything. `preamble` precedes
    /// them. `unix_time` returns the time since 1970.
    pub fn new(
        encoder: Encoder,
        preamble: &'static [u8],
        count: Option<NonZeroU64>,
        output: Arc<dyn Output>,
        unix_time: Box<dyn Fn() -> Duration + Send>,
    ) -> Printer {
        let stats = Stats { frames: encoder.has_frames().then_some(0), ..Stats::default() };
        let remaining = count.map_or(u64::MAX, u64::from);
        Printer { encoder, preamble, encoded: Vec::new(), output, unix_time, remaining, stats }
    }

    /// Enqueues what precedes all data.
    pub fn begin(&mut self) {
        let _ = self.output.push(self.preamble, 0);
    }

    /// Whether everything that was requested is printed.
    pub fn is_complete(&self) -> bool {
        self.remaining == 0
    }

    /// Prints a datagram. Of all malformed lines, only the first is passed to `on_notice`.
    pub fn print(&mut self, datagram: &[u8], mut on_notice: impl FnMut(Notice<'_>)) {
        if self.is_complete() {
            return;
        }
        self.stats.datagrams += 1;
        self.stats.bytes += datagram.len() as u64;
        self.encoded.clear();
        let malformed_lines = &mut self.stats.malformed_lines;
        let on_line = |notice: Notice<'_>| {
            let is_malformed = matches!(notice, Notice::Malformed(..));
            *malformed_lines += u64::from(is_malformed);
            if !is_malformed || *malformed_lines == 1 {
                on_notice(notice);
            }
        };
        let frames = self.encoder.write(datagram, &self.unix_time, self.remaining, &mut self.encoded, on_line);
        if self.encoded.is_empty() {
            return;
        }
        match self.output.push(&self.encoded, 1) {
            Ok(()) => {
                self.stats.enqueued += 1;
                self.stats.frames = self.stats.frames.map(|printed| printed + frames);
                self.remaining -= if self.stats.frames.is_some() { frames } else { 1 };
            }
            Err(PushError::Closed) => self.stats.enqueued += 1,
            Err(PushError::Full) => self.stats.overflowed += 1,
        }
    }
}
