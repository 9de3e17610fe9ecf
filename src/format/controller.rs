//! A controller event, parsed from an `E` line.

use std::fmt;

use crate::gateway::command::Channel;
use crate::text::tokens;

/// `E 1 BUSOFF`: a controller reports a change of its state.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControllerEvent<'a> {
    /// The CAN port.
    pub channel: Channel,
    /// What has changed.
    pub change: StateChange,
    /// What follows the channel in the line.
    pub text: &'a [u8],
}

/// What a [`ControllerEvent`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StateChange {
    /// `BUSOFF`: the controller has left the bus.
    BusOff,
    /// `ERRORWARNING SET`: its error counters have reached the warning level.
    ErrorWarningSet,
    /// `ERRORWARNING RESET`: they are below it again.
    ErrorWarningReset,
    /// Anything else.
    Other,
}

impl ControllerEvent<'_> {
    /// Parses a line that begins with `E`; `None` if no channel and text follow.
    pub fn parse(line: &[u8]) -> Option<ControllerEvent<'_>> {
        let mut tokens = tokens(line).skip(1);
        let channel = Channel::from_digit(tokens.next()?)?;
        let words = tokens.collect::<Vec<_>>().join(&b' ').to_ascii_uppercase();
        let change = match words.as_slice() {
            b"BUSOFF" => StateChange::BusOff,
            b"ERRORWARNING SET" => StateChange::ErrorWarningSet,
            b"ERRORWARNING RESET" => StateChange::ErrorWarningReset,
            _ => StateChange::Other,
        };
        let after_channel = line.iter().position(|&byte| byte == channel.digit())? + 1;
        let text = line[after_channel..].trim_ascii();
        (!text.is_empty()).then_some(ControllerEvent { channel, change, text })
    }
}

impl fmt::Debug for ControllerEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ControllerEvent(channel {}, \"{}\")", self.channel, self.text.escape_ascii())
    }
}

#[cfg(test)]
mod tests;
