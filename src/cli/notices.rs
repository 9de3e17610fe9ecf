//! Reports what a datagram holds that has no place on stdout.

use crate::cli::session::Resources;
use crate::output::printer::Notice;
use crate::text::escape_truncated;

/// Prints a datagram; refusals in it are not reported if it answers a command of ours.
pub(crate) fn print(resources: &mut Resources<'_>, datagram: &[u8], is_answer: bool) {
    let messages = resources.messages;
    resources.printer.print(datagram, |notice| match notice {
        Notice::Refusal(_) if is_answer => {}
        Notice::Refusal(line) => {
            let text = escape_truncated(line);
            messages.warn_from_gateway(&text, format_args!("the gateway refused a command: {text}"));
        }
        Notice::Event { line, received } => {
            let (text, seconds, micros) = (escape_truncated(line), received.as_secs(), received.subsec_micros());
            messages.warn_from_gateway(&text, format_args!("({seconds}.{micros:06}) the gateway reports: {text}"));
        }
        Notice::Malformed(line, fault) => {
            let text = escape_truncated(line);
            let message = format_args!("malformed line ({fault}), left out; more will only be counted: {text}");
            messages.warn_from_gateway(&text, message);
        }
        Notice::BufferFull => messages.warn(
            "datagrams are being lost: the process reading stdout is too slow, 32 MiB are waiting for it; a faster reader or a \
             file keeps them all",
        ),
    });
}
