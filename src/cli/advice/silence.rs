//! Why nothing comes from the bus.

use crate::cli::options::ListenOptions;
use crate::cli::silence::{Cause, Start};
use crate::gateway::reply::Status;
use crate::gateway::{BitRate, Filter};

/// Explains a silence. It starts from what the gateway or the network says, and guesses only where neither says anything.
/// It advises nothing that is among the `options` already.
pub(crate) fn silence(options: &ListenOptions, start: Start, cause: &Cause) -> String {
    match cause {
        Cause::NoReply(Some(network)) => network.clone(),
        Cause::NoReply(None) => {
            "no answer to STATUS: has the gateway lost power, is the network or the VPN down, or does it \
                                 not know STATUS?"
                .to_owned()
        }
        Cause::Refused(text) => format!(
            "the gateway answers STATUS with {text}: it has restarted and lost its settings (run again), or does not know \
             STATUS"
        ),
        Cause::Status(status) => describe(options, start, *status),
        Cause::Unknown if start == Start::Streaming => {
            "has the gateway lost power, or did another program stop the bus or take the stream over?".to_owned()
        }
        Cause::Unknown => {
            let lost = if start == Start::Answered { "" } else { ", START was lost (it was not answered; run again)" };
            let filter = filter_hint(&options.filters);
            format!("the bus is silent, --bitrate {} is wrong{lost}{filter}", options.bitrate)
        }
    }
}

/// What a lost `START` hides: the flags of the status that showed it.
pub(crate) fn controller_state(bit_rate: BitRate, start: Start, status: Status) -> Vec<String> {
    let mut parts = Vec::new();
    if status.bus_off || status.error_warning {
        let state = if status.bus_off { "bus off" } else { "at its error warning level" };
        parts.push(if start == Start::Streaming {
            format!("the controller is {state}: check the wiring and the other nodes")
        } else {
            format!("the controller is {state}: check --bitrate ({bit_rate}) and the wiring")
        });
    }
    if status.overrun {
        parts.push("the gateway itself lost frames (data overrun)".to_owned());
    }
    parts
}

fn describe(options: &ListenOptions, start: Start, status: Status) -> String {
    let mut parts = controller_state(options.bitrate, start, status);
    if status.stopped {
        let stopped = "the controller is stopped: another program stopped the bus, or the gateway has restarted; run \
                       can-listen again to start it";
        parts.insert(0, stopped.to_owned());
    }
    if parts.is_empty() {
        let filter = if start == Start::Streaming { String::new() } else { filter_hint(&options.filters) };
        parts.push(format!("the controller is running: the bus is silent{filter}, or another listener has the stream"));
    }
    parts.join("; ")
}

/// The part of a list of guesses that blames the filter, unless it passes everything.
fn filter_hint(filters: &[Filter]) -> String {
    let standard: Vec<u32> = masks(filters, true);
    let extended: Vec<u32> = masks(filters, false);
    if extended.is_empty() {
        ", or its frames have 29-bit identifiers (--filter EXT:0:0)".to_owned()
    } else if standard.is_empty() {
        ", or its frames have 11-bit identifiers (--filter STD:0:0)".to_owned()
    } else if standard.contains(&0) && extended.contains(&0) {
        String::new()
    } else {
        ", or none of its frames passes --filter".to_owned()
    }
}

/// The masks of the filters of one kind; a mask of 0 passes everything.
fn masks(filters: &[Filter], is_standard: bool) -> Vec<u32> {
    let mask = |filter: &Filter| match *filter {
        Filter::Standard { mask, .. } => is_standard.then_some(mask),
        Filter::Extended { mask, .. } => (!is_standard).then_some(mask),
    };
    filters.iter().filter_map(mask).collect()
}
