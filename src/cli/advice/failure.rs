//! Why a handshake, a `START` or a `STOP` failed, and what to try.

use std::net::SocketAddr;

use super::{host, network_error, vendor_port};
use crate::gateway::handshake::error_number;
use crate::gateway::{Command, Failure, Filter, NetworkError, RetryConfig, Takeover};

/// Explains a failure: with whom, at which command, what came instead, and what to try.
pub(crate) fn failure(
    gateway: SocketAddr,
    retry: RetryConfig,
    failure: &Failure,
    network: Option<&NetworkError>,
) -> String {
    match failure {
        Failure::NoReply(_, instead) => {
            let attempts = match retry.attempts {
                1 => "1 attempt".to_owned(),
                many => format!("{many} attempts"),
            };
            let came = instead.as_ref().map(|text| format!("; only this came: {text}")).unwrap_or_default();
            let cause = no_reply(gateway, instead.is_some(), network);
            let effect = match failure.command() {
                Command::Start { .. } => "; the bus may be running",
                Command::Stop { .. } => "; the bus may still run",
                _ => "",
            };
            format!(
                "{failure} from {gateway} in {attempts} of {} s{effect}{came}; {cause}",
                retry.timeout.as_secs_f64()
            )
        }
        Failure::Refused(command, text) => format!("{failure} ({gateway}); {}", refusal(*command, text)),
        Failure::InDoubt(command, text) => format!("{failure} ({gateway}); {}", doubt(*command, text)),
    }
}

/// What a failed handshake did to a bus that was running.
pub(crate) fn takeover(takeover: Takeover) -> &'static str {
    match takeover {
        Takeover::None => "",
        Takeover::StopSent => "; the bus was running, and STOP was sent: it may be stopped now",
        Takeover::Stopped => "; the bus was running and is stopped now",
    }
}

fn no_reply(gateway: SocketAddr, something_came: bool, network: Option<&NetworkError>) -> String {
    match network {
        Some(error) => network_error(gateway, error),
        None if something_came => "is another program using this gateway?".to_owned(),
        None => format!(
            "is the gateway on, and reachable (ping {})? Only answers from exactly that address and port count.{}",
            host(gateway),
            vendor_port(gateway)
        ),
    }
}

fn refusal(command: Command, text: &str) -> String {
    match (error_number(text), command) {
        (Some(12), _) => format!("this gateway has no such CAN port; check --channel ({})", command.channel()),
        (Some(1), Command::Init { init, .. }) => match init.data_bit_rate {
            None => format!("this gateway does not know this bit rate; check --bitrate ({})", init.bit_rate),
            Some(data) => format!(
                "this gateway does not know these bit rates; check --bitrate ({}) and --data-bitrate ({data})",
                init.bit_rate
            ),
        },
        (_, Command::Init { init, .. }) if init.listen_only || init.data_bit_rate.is_some() => {
            "INIT failed again after STOP: perhaps this gateway does not know --listen-only or --data-bitrate; try without"
                .to_owned()
        }
        (_, Command::Init { .. }) => {
            "INIT failed again after STOP: is another program using this gateway, or can it not do this --bitrate?".to_owned()
        }
        (Some(4 | 6), Command::FilterAdd { .. }) => TOO_MANY_FILTERS.to_owned(),
        (Some(10), _) => WRONG_STATE.to_owned(),
        (_, Command::FilterClear { .. } | Command::FilterAdd { .. }) => "check --filter and --channel".to_owned(),
        (_, Command::Stop { .. }) => "the bus still runs, says STATUS; try again".to_owned(),
        _ => "the bus was not started; try again".to_owned(),
    }
}

fn doubt(command: Command, text: &str) -> String {
    match (error_number(text), command) {
        (Some(12), _) => format!("this gateway has no such CAN port; check --channel ({})", command.channel()),
        (_, Command::Start { .. }) => "the bus may be running".to_owned(),
        (_, Command::Stop { .. }) => "the bus may still run".to_owned(),
        (Some(4 | 6), _) => format!("{TOO_MANY_FILTERS}; the bus was not started"),
        (Some(10), _) => format!("{WRONG_STATE}; the bus was not started"),
        _ => "it is in doubt whether the filter is set; check --filter; the bus was not started".to_owned(),
    }
}

/// A warning about more filters of a kind than the smallest model holds. A larger one may hold more, so they are sent.
pub(crate) fn filter_limit(filters: &[Filter]) -> Option<&'static str> {
    let standard = filters.iter().filter(|filter| matches!(filter, Filter::Standard { .. })).count();
    let most = standard.max(filters.len() - standard);
    (most > 5)
        .then_some("more than 5 filters of a kind (--filter): CAN@net Basic has 5 entries of each and refuses the rest")
}

const TOO_MANY_FILTERS: &str = "too many filters: CAN@net Basic has 5 entries of each kind (--filter)";
const WRONG_STATE: &str = "the controller is not in the state for it: is another program using this gateway?";
