//! Reports what a datagram holds that has no place on stdout.

use std::fmt::Arguments;
use std::time::Instant;

use crate::cli::session::Resources;
use crate::format::Notice;
use crate::text::escape_truncated;

/// Prints a datagram; refusals in it are not reported if it answers a command of ours.
pub(crate) fn print(resources: &mut Resources<'_>, datagram: &[u8], is_answer: bool) {
    let Resources { messages, printer, limiter, .. } = resources;
    let overflowed = printer.stats.overflowed;
    let mut warn = |text: &str, message: Arguments<'_>| {
        let now = Instant::now();
        if limiter.admits(now, text) {
            limiter.take_summary().into_iter().for_each(|summary| messages.warn(summary));
            messages.warn(message);
        }
    };
    printer.print(datagram, |notice| match notice {
        Notice::Refusal(_) if is_answer => {}
        Notice::Refusal(line) => {
            let text = escape_truncated(line);
            warn(&text, format_args!("the gateway refused a command: {text}"));
        }
        Notice::Event { line, received } => {
            let (text, seconds, micros) = (escape_truncated(line), received.as_secs(), received.subsec_micros());
            warn(&text, format_args!("({seconds}.{micros:06}) the gateway reports: {text}"));
        }
        Notice::Malformed(line, fault) => {
            let text = escape_truncated(line);
            warn(&text, format_args!("malformed line ({fault}), left out; more will only be counted: {text}"));
        }
    });
    if overflowed == 0 && printer.stats.overflowed > 0 {
        messages.warn(
            "datagrams are being lost: the process reading stdout is too slow, 32 MiB are waiting for it; a faster reader or a \
             file keeps them all",
        );
    }
}
