//! A datagram of the stream on its way to stdout: counted, formatted, put into the spool.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::cli::messages::Stderr;
use crate::cli::options::ListenOptions;
use crate::cli::report::Counts;
use crate::format::{Aside, Formatter};
use crate::output::spool::{Rejected, Spool};
use crate::text::escape_truncated;

/// What accepts the datagrams of the stream.
pub(crate) struct Intake {
    formatter: Formatter,
    /// What the datagram in hand comes to on stdout.
    output: Vec<u8>,
    spool: Arc<Spool>,
    stderr: Stderr,
    /// How many datagrams, or frames in the formats that have them, are still to be printed.
    remaining: u64,
    pub counts: Counts,
}

impl Intake {
    pub fn new(options: &ListenOptions, spool: Arc<Spool>, stderr: Stderr) -> Intake {
        let device = options.gateway.target.to_string();
        Intake {
            formatter: Formatter::new(options.format, &device, io::stdout().is_terminal()),
            output: Vec::new(),
            spool,
            stderr,
            remaining: options.count.map_or(u64::MAX, u64::from),
            counts: Counts { frames: options.format.has_frames().then_some(0), ..Counts::default() },
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

    /// Accepts a datagram. A refusal in it is not told if it `answers_us`: the session tells what comes of it.
    pub fn accept(&mut self, datagram: &[u8], answers_us: bool) {
        if self.is_complete() {
            return;
        }
        self.counts.datagrams += 1;
        self.counts.bytes += datagram.len() as u64;
        self.output.clear();
        let (stderr, malformed_lines) = (&self.stderr, &mut self.counts.malformed_lines);
        let frames =
            self.formatter.write(datagram, since_1970, self.remaining, &mut self.output, |aside| match aside {
                Aside::Refusal(_) if answers_us => {}
                Aside::Refusal(line) => {
                    stderr.say_for_gateway(format_args!("the gateway refused a command: {}", escape_truncated(line)));
                }
                Aside::Event(line) => {
                    stderr.say_for_gateway(format_args!("the gateway reports: {}", escape_truncated(line)));
                }
                Aside::Malformed(line, fault) => {
                    *malformed_lines += 1;
                    if *malformed_lines == 1 {
                        let line = escape_truncated(line);
                        stderr.say_for_gateway(format_args!(
                            "malformed line ({fault}), left out; more will only be counted: {line}"
                        ));
                    }
                }
            });
        if !self.output.is_empty() {
            self.put_into_spool(frames);
        }
    }

    fn put_into_spool(&mut self, new_frames: u64) {
        match self.spool.push(&self.output, 1) {
            Ok(()) => {
                self.counts.spooled += 1;
                self.remaining -= match &mut self.counts.frames {
                    None => 1,
                    Some(frames) => {
                        *frames += new_frames;
                        new_frames
                    }
                };
            }
            Err(Rejected::Closed) => self.counts.after_failure += 1,
            Err(Rejected::Full) => {
                self.counts.overflowed += 1;
                if self.counts.overflowed == 1 {
                    self.stderr.say(
                        "datagrams are being lost: whoever reads stdout is too slow, 32 MiB wait for it already; a \
                         faster reader or a file keeps them all",
                    );
                }
            }
        }
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
