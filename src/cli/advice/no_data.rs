//! Why nothing comes from the bus.

use super::network_error;
use crate::cli::bus::{Bus, Health};
use crate::cli::options::ListenOptions;
use crate::gateway::reply::Status;
use crate::gateway::{Connection, Filter, Outcome};

/// Explains a silence. It starts from what the gateway or the network says, and guesses only where neither says anything.
/// It advises nothing that is among the `options` already.
pub(crate) fn no_data(options: &ListenOptions, connection: &Connection, bus: &Bus) -> String {
    let mut parts = controller_faults(options, bus);
    parts.push(match (bus.unknown_answer(), &bus.outcome, connection.network_error()) {
        (Some(text), ..) => format!(
            "the gateway answers STATUS with {text}, so it may not know STATUS; perhaps {}",
            guesses(options, bus, &[stopped(bus)])
        ),
        // It lists the faults itself.
        (_, Some(Outcome::Status(status)), _) => return describe(options, bus, *status),
        (_, Some(Outcome::Refused(text)), _) => format!(
            "the gateway answers STATUS with {text}: it has restarted and lost its settings (run again), or does not know \
             STATUS"
        ),
        (.., Some(error)) => network_error(connection.gateway, error, connection.has_answered),
        (_, Some(Outcome::NoReply(Some(text))), None) => {
            format!("no answer to STATUS, only {text}: does the gateway not know STATUS, or does the network lose packets?")
        }
        (_, Some(Outcome::NoReply(None)), None) => "no answer to STATUS: has the gateway lost power, is the network or \
                                                    the VPN down, or does it not know STATUS?"
            .to_owned(),
        _ => guesses(options, bus, &[stopped(bus), "the gateway has lost power, or the network is down"]),
    });
    parts.join("; ")
}

/// Says that `START` is sent again, and the flags of the status that are hidden by that.
pub(crate) fn start_again(options: &ListenOptions, bus: &Bus) -> String {
    let again = "START was not answered and the controller is stopped; sending START again".to_owned();
    [again].into_iter().chain(controller_faults(options, bus)).collect::<Vec<_>>().join("; ")
}

/// What may be the case, as far as nothing that came speaks against it, and `others`.
fn guesses(options: &ListenOptions, bus: &Bus, others: &[&str]) -> String {
    let mut guesses = vec!["the bus is silent".to_owned()];
    if !bus.has_frames() {
        guesses.push(format!("--bitrate {} is wrong", options.bitrate));
        guesses.extend(filter_hint(&options.filters));
    }
    guesses.extend(others.iter().chain(&["another listener has the stream"]).map(|guess| (*guess).to_owned()));
    guesses.join(", or ")
}

/// Why the controller may be stopped.
fn stopped(bus: &Bus) -> &'static str {
    if bus.has_run() {
        "another program stopped the bus, or the gateway has restarted"
    } else {
        "the bus is stopped (START was not answered; run again)"
    }
}

/// What the controller has met. A wrong bit rate lets no frame pass.
fn controller_faults(options: &ListenOptions, bus: &Bus) -> Vec<String> {
    let remedy = if bus.has_frames() {
        "check the wiring and the other nodes".to_owned()
    } else {
        format!("check --bitrate ({}) and the wiring", options.bitrate)
    };
    let health = match bus.health {
        Health::Good => None,
        Health::Warning => Some(format!("the controller is at its error warning level: {remedy}")),
        Health::BusOff => Some(format!("the controller is bus off: {remedy}")),
    };
    let has_overrun = bus.status().is_some_and(|status| status.overrun);
    let overrun = has_overrun.then(|| "the gateway itself lost frames (data overrun)".to_owned());
    health.into_iter().chain(overrun).collect()
}

fn describe(options: &ListenOptions, bus: &Bus, status: Status) -> String {
    let mut parts = controller_faults(options, bus);
    if bus.answers_differ() {
        let guesses = guesses(options, bus, &[]);
        let differ =
            "the answers to STATUS differ: another program stopped or started the bus, or the gateway has restarted";
        parts.insert(0, format!("{differ}; perhaps {guesses}"));
    } else if status.stopped {
        let why = if bus.has_run() { stopped(bus) } else { "START was sent several times and not answered" };
        parts.insert(0, format!("the controller is stopped: {why}; run can-listen again to start it"));
    }
    if parts.is_empty() {
        parts.push(format!("the controller is running: {}", guesses(options, bus, &[])));
    }
    parts.join("; ")
}

/// The guess that blames the filter, unless it passes everything.
fn filter_hint(filters: &[Filter]) -> Option<String> {
    let of_kind = |extended| filters.iter().filter(move |filter| filter.is_extended() == extended);
    let passes_all = |extended| of_kind(extended).any(Filter::passes_all);
    let hint = match (of_kind(false).count(), of_kind(true).count()) {
        _ if passes_all(false) && passes_all(true) => return None,
        (_, 0) if passes_all(false) => "its frames have 29-bit identifiers (--filter EXT:0:0)",
        (0, _) if passes_all(true) => "its frames have 11-bit identifiers (--filter STD:0:0)",
        (_, 0) => "none of its frames passes --filter (29-bit identifiers need --filter EXT:0:0)",
        (0, _) => "none of its frames passes --filter (11-bit identifiers need --filter STD:0:0)",
        _ => "none of its frames passes --filter",
    };
    Some(hint.to_owned())
}
