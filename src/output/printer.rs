//! A datagram of the stream on its way to stdout: counted, formatted, put into the spool.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::cli::options::ListenOptions;
use crate::cli::report::Stats;
use crate::format::frame::Malformed;
use crate::format::{Aside, Formatter};
use crate::output::spool::{Rejected, Spool};

/// What has no place on stdout.
#[derive(Debug)]
pub(crate) enum Notice<'a> {
    Refusal(&'a [u8]),
    Event { line: &'a [u8], received: Duration },
    Malformed(&'a [u8], Malformed),
    BufferFull,
}

/// What accepts the datagrams of the stream.
pub(crate) struct Printer {
    formatter: Formatter,
    /// What the datagram in hand comes to on stdout.
    output: Vec<u8>,
    spool: Arc<Spool>,
    /// How many datagrams, or frames in the formats that have them, are still to be printed.
    remaining: u64,
    pub stats: Stats,
}

impl Printer {
    pub fn new(options: &ListenOptions, spool: Arc<Spool>) -> Printer {
        let device = options.common.target.to_string();
        Printer {
            formatter: Formatter::new(options.format, &device, io::stdout().is_terminal()),
            output: Vec::new(),
            spool,
            remaining: options.count.map_or(u64::MAX, u64::from),
            stats: Stats { frames: options.format.has_frames().then_some(0), ..Stats::default() },
        }
    }

    /// Puts what comes before all data into the spool.
    pub fn begin(&mut self) {
        let header = self.formatter.header();
        if !header.is_empty() {
            let _ = self.spool.push(header, 0);
        }
    }

    /// Whether all is printed that was asked for.
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
            self.formatter.write(datagram, since_1970, self.remaining, &mut self.output, |aside| match aside {
                Aside::Refusal(line) => on_notice(Notice::Refusal(line)),
                Aside::Event(line) => on_notice(Notice::Event { line, received: since_1970() }),
                Aside::Malformed(line, fault) => {
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
                self.stats.spooled += 1;
                self.remaining -= match &mut self.stats.frames {
                    None => 1,
                    Some(frames) => {
                        *frames += new_frames;
                        new_frames
                    }
                };
            }
            Err(Rejected::Closed) => self.stats.after_failure += 1,
            Err(Rejected::Full) => {
                self.stats.overflowed += 1;
                if self.stats.overflowed == 1 {
                    on_notice(Notice::BufferFull);
                }
            }
        }
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
