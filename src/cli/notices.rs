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
            messages.warn_from_gateway(format_args!("the gateway refused a command: {}", escape_truncated(line)));
        }
        Notice::Event { line, received } => messages.warn_from_gateway(format_args!(
            "({}.{:06}) the gateway reports: {}",
            received.as_secs(),
            received.subsec_micros(),
            escape_truncated(line)
        )),
        Notice::Malformed(line, fault) => messages.warn_from_gateway(format_args!(
            "malformed line ({fault}), left out; more will only be counted: {}",
            escape_truncated(line)
        )),
        Notice::BufferFull => messages.warn(
            "datagrams are being lost: the process reading stdout is too slow, 32 MiB are waiting for it; a faster reader or a \
             file keeps them all",
        ),
    });
}
