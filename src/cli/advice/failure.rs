//! Why a handshake, a `START` or a `STOP` failed, and what to try.

use std::net::SocketAddr;

use super::{host, network_error, vendor_port};
use crate::cli::address::Address;
use crate::cli::options::CommonOptions;
use crate::gateway::{Command, Connection, Failure, Outcome, Takeover, Verb};

/// Explains a failure: with whom, at which command, what came instead, what the handshake did to a running bus, and what to try.
pub(crate) fn failure(failure: &Failure) -> String {
    let hint = if let Outcome::NoReply(_) = failure.outcome { no_reply(failure) } else { refusal(failure) };
    format!("{failure}; {hint}{}", takeover(failure.takeover))
}

/// The same of a program's first conversation, where the name `target` has further addresses: it may mean one of these if
/// nothing has come from the one in use.
pub(crate) fn first_failure(failure: &Failure, target: &Address, others: &[SocketAddr]) -> String {
    let explanation = self::failure(failure);
    if others.is_empty() || failure.has_answered || !matches!(failure.outcome, Outcome::NoReply(_)) {
        return explanation;
    }
    let others: Vec<String> = others.iter().map(|other| host(*other)).collect();
    format!("{explanation}; {} also has {}", target.host, others.join(", "))
}

/// What a failed handshake did to a bus that was running.
fn takeover(takeover: Option<Takeover>) -> &'static str {
    match takeover {
        Some(Takeover { was_running: true, is_stopped: true }) => "; the bus was running and is stopped now",
        Some(Takeover { was_running: true, .. }) => "; the bus was running, and STOP was sent: it may be stopped now",
        Some(Takeover { is_stopped: true, .. }) => "; STOP was sent: if the bus was running, it is stopped now",
        Some(_) => "; STOP was sent: if the bus was running, it may be stopped now",
        None => "",
    }
}

/// What a signal during the handshake leaves behind, before `START` has left.
pub(crate) fn handshake_exit(connection: &Connection, options: &CommonOptions) -> String {
    if !connection.has_sent {
        return "exited before anything was sent".to_owned();
    }
    let bus = match connection.takeover() {
        known @ Some(Takeover { was_running: true, is_stopped: true }) => takeover(known),
        known if connection.sequencer.is_initialised() || known.is_some_and(|known| known.is_stopped) => {
            "; the bus was not started"
        }
        _ => &format!("; the bus may be running, stop it with:\n{}", options.can_stop_command_line()),
    };
    format!("exited during the handshake{bus}")
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

/// What a refusal means.
fn refusal(failure: &Failure) -> String {
    let (Command { channel, verb }, in_doubt) = (failure.command, failure.in_doubt);
    let hint = match (failure.error_number(), verb) {
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
