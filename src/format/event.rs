//! A controller event, parsed from an `E` line.

use crate::gateway::command::CHANNELS;
use crate::text::tokens;

/// `E 1 BUSOFF`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ControllerEvent<'a> {
    pub channel: u8,
    pub change: StateChange,
    /// What follows the channel.
    pub text: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StateChange {
    BusOff,
    ErrorWarningSet,
    ErrorWarningReset,
    Other,
}

impl ControllerEvent<'_> {
    /// Parses a line that begins with `E`; `None` if no channel and text follow.
    pub fn parse(line: &[u8]) -> Option<ControllerEvent<'_>> {
        let mut tokens = tokens(line).skip(1);
        let &[digit] = tokens.next()? else { return None };
        let channel = digit.checked_sub(b'0').filter(|channel| CHANNELS.contains(channel))?;
        let is = |expected: &[&str]| {
            let mut tokens = tokens.clone();
            expected.iter().all(|text| tokens.next().is_some_and(|token| token.eq_ignore_ascii_case(text.as_bytes())))
                && tokens.next().is_none()
        };
        let change = if is(&["BUSOFF"]) {
            StateChange::BusOff
        } else if is(&["ERRORWARNING", "SET"]) {
            StateChange::ErrorWarningSet
        } else if is(&["ERRORWARNING", "RESET"]) {
            StateChange::ErrorWarningReset
        } else {
            StateChange::Other
        };
        let after_channel = line.iter().position(|&byte| byte == digit)? + 1;
        let text = line[after_channel..].trim_ascii();
        (!text.is_empty()).then_some(ControllerEvent { channel, change, text })
    }
}

#[cfg(test)]
mod tests;
