//! The way of a datagram to stdout: counted, encoded, enqueued.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::format::frame::ParseFrameError;
use crate::format::{Diagnostic, Encoder};
use crate::output::spool::{PushError, Spool};

/// What is to be reported on stderr.
#[derive(Debug)]
pub(crate) enum Notice<'a> {
    Refusal(&'a [u8]),
    /// `received` is the time since 1970.
    Event {
        line: &'a [u8],
        received: Duration,
    },
    /// The first malformed line; the others are only counted.
    Malformed(&'a [u8], ParseFrameError),
    BufferFull,
}

/// What was counted of the stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    pub datagrams: u64,
    pub bytes: u64,
    /// Frames that were printed; `None` in raw, which does not parse them.
    pub frames: Option<u64>,
    /// Datagrams that went into the spool.
    pub enqueued: u64,
    /// Datagrams lost because the spool was full.
    pub overflowed: u64,
    /// Datagrams that came after stdout had failed.
    pub after_failure: u64,
    pub malformed_lines: u64,
}

/// Prints the datagrams of the stream.
pub(crate) struct Printer {
    encoder: Encoder,
    preamble: &'static [u8],
    /// What the current datagram becomes on stdout.
    output: Vec<u8>,
    spool: Arc<Spool>,
    /// How many datagrams, or frames in the formats that have them, are still to be printed.
    remaining: u64,
    pub stats: Stats,
}

impl Printer {
    /// Prints `count` datagrams, or frames in the formats that have them; without it, everything. `preamble` precedes
    /// them.
    pub fn new(encoder: Encoder, preamble: &'static [u8], count: Option<NonZeroU64>, spool: Arc<Spool>) -> Printer {
        let stats = Stats { frames: encoder.has_frames().then_some(0), ..Stats::default() };
        Printer { encoder, preamble, output: Vec::new(), spool, remaining: count.map_or(u64::MAX, u64::from), stats }
    }

    /// Enqueues what precedes all data.
    pub fn begin(&mut self) {
        if !self.preamble.is_empty() {
            let _ = self.spool.push(self.preamble, 0);
        }
    }

    /// Whether everything that was requested is printed.
    pub fn is_complete(&self) -> bool {
        self.remaining == 0
    }

    /// Prints a datagram.
    pub fn print(&mut self, datagram: &[u8], mut on_notice: impl FnMut(Notice<'_>)) {
        if self.is_complete() {
            return;
        }
        self.stats.datagrams += 1;
        self.stats.bytes += datagram.len() as u64;
        self.output.clear();
        let malformed_lines = &mut self.stats.malformed_lines;
        let frames =
            self.encoder.write(datagram, unix_time, self.remaining, &mut self.output, |diagnostic| match diagnostic {
                Diagnostic::Refusal(line) => on_notice(Notice::Refusal(line)),
                Diagnostic::Event { line, received } => on_notice(Notice::Event { line, received }),
                Diagnostic::Malformed(line, fault) => {
                    *malformed_lines += 1;
                    if *malformed_lines == 1 {
                        on_notice(Notice::Malformed(line, fault));
                    }
                }
            });
        if !self.output.is_empty() {
            self.enqueue(frames, on_notice);
        }
    }

    fn enqueue(&mut self, new_frames: u64, mut on_notice: impl FnMut(Notice<'_>)) {
        match self.spool.push(&self.output, 1) {
            Ok(()) => {
                self.stats.enqueued += 1;
                self.remaining -= match &mut self.stats.frames {
                    None => 1,
                    Some(frames) => {
                        *frames += new_frames;
                        new_frames
                    }
                };
            }
            Err(PushError::Closed) => self.stats.after_failure += 1,
            Err(PushError::Full) => {
                self.stats.overflowed += 1;
                if self.stats.overflowed == 1 {
                    on_notice(Notice::BufferFull);
                }
            }
        }
    }
}

/// The time since 1970.
fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
