//! Why a handshake, a `START` or a `STOP` failed, and what to try.

use super::{host, network_error, vendor_port};
use crate::gateway::{Cause, Command, Failure, Takeover, Verb};

/// Explains a failure: with whom, at which command, what came instead, what the handshake did to a running bus, and what to try.
pub(crate) fn failure(failure: &Failure) -> String {
    let hint = match &failure.cause {
        Cause::NoReply { .. } => no_reply(failure),
        Cause::Refused(_) => refusal(failure.command, failure.error_number(), false),
        Cause::InDoubt(_) => refusal(failure.command, failure.error_number(), true),
    };
    format!("{failure}; {hint}{}", takeover(failure.takeover))
}

/// What a failed handshake did to a bus that was running.
pub(crate) fn takeover(takeover: Takeover) -> &'static str {
    match takeover {
        Takeover::StopSent { was_running: true } => "; the bus was running, and STOP was sent: it may be stopped now",
        Takeover::Stopped { was_running: true } => "; the bus was running and is stopped now",
        Takeover::StopSent { .. } => "; STOP was sent: if the bus was running, it may be stopped now",
        Takeover::Stopped { .. } => "; STOP was sent: if the bus was running, it is stopped now",
        _ => "",
    }
}

fn no_reply(failure: &Failure) -> String {
    match (&failure.network_error, failure.gateway) {
        (Some(error), Some(gateway)) => network_error(gateway, error, failure.has_answered),
        (_, Some(gateway)) if !failure.has_answered => format!(
            "is the gateway on, and reachable (ping {})? Only answers from exactly that address and port count.{}",
            host(gateway),
            vendor_port(gateway)
        ),
        _ => PACKETS_LOST.to_owned(),
    }
}

/// What a refusal means. `in_doubt`: the command may have been carried out all the same.
fn refusal(Command { channel, verb }: Command, number: Option<u32>, in_doubt: bool) -> String {
    let hint = match (number, verb) {
        (Some(12), _) => return format!("this gateway has no such CAN port; check --channel ({channel})"),
        (_, Verb::Start) if in_doubt => {
            return "it is in doubt whether the bus was started; run again".to_owned();
        }
        (_, Verb::Stop) if in_doubt => return "it is in doubt whether the bus is stopped; try again".to_owned(),
        (Some(1), Verb::Init(init)) => match init.data_bit_rate {
            None => &format!("this gateway does not know this bit rate; check --bitrate ({})", init.bit_rate),
            Some(data) => &format!(
                "this gateway does not know these bit rates; check --bitrate ({}) and --data-bitrate ({data})",
                init.bit_rate
            ),
        },
        (_, Verb::Init(init)) if init.listen_only || init.data_bit_rate.is_some() => {
            "perhaps this gateway does not know --listen-only or --data-bitrate; try without"
        }
        (_, Verb::Init(init)) => {
            &format!("is another program using this gateway, or can it not do --bitrate {}?", init.bit_rate)
        }
        (Some(4 | 6), Verb::FilterAdd(_)) => "too many filters: CAN@net Basic has 5 entries of each kind (--filter)",
        (Some(10), Verb::FilterClear | Verb::FilterAdd(_) | Verb::Start) => {
            "the controller is not in the state for it: is another program using this gateway?"
        }
        (_, Verb::FilterAdd(_)) if in_doubt => "it is in doubt whether the filter is set; check --filter",
        (_, Verb::FilterClear | Verb::FilterAdd(_)) => "check --filter and --channel",
        (_, Verb::Stop) => "STATUS said that the bus was still running; try again",
        _ => "the bus was not started; try again",
    };
    if in_doubt { format!("{hint}; the bus was not started") } else { hint.to_owned() }
}

const PACKETS_LOST: &str = "something has come from it: does the network lose packets (a longer --timeout or more --attempts \
                               help), is it restarting, or is another program using it?";
