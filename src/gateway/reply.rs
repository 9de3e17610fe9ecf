//! Lines from the gateway.

use super::command::Channel;
use crate::text::tokens;

/// What a line from the gateway is, by its first tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Line {
    /// `R ok`: the command was carried out.
    Ok,
    /// `R ERR …`: the command was refused.
    Refused,
    /// `R CAN …`: the answer to `STATUS`.
    Status(Status),
    /// `M …`: a frame, well formed or not; [`Frame::parse`](crate::format::frame::Frame::parse) tells.
    Frame,
    /// `E …`: the controller's state changed; [`ControllerEvent::parse`](crate::format::controller::ControllerEvent::parse) tells how.
    Event,
    /// Not a line of the protocol.
    Unknown,
}

/// What the gateway says of a controller: `R CAN 1 -E--I 100` (software design guide, 4.3.5). The free transmit buffers
/// at the end are read and not kept: who only listens sends no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The CAN port.
    pub channel: Channel,
    /// `B`: the controller is bus off.
    pub bus_off: bool,
    /// `E`: its error counters have reached the warning level.
    pub error_warning: bool,
    /// `O`: the gateway lost frames (data overrun).
    pub overrun: bool,
    /// `I`: it is stopped; otherwise it runs.
    pub stopped: bool,
}

impl Status {
    /// Reads `R`, `CAN`, the channel, the five flags in their places, a number.
    fn parse(line: &[u8]) -> Option<Status> {
        let &[_, can, channel, flags, buffers] = tokens(line).collect::<Vec<_>>().as_slice() else { return None };
        let flags: &[u8; 5] = flags.try_into().ok()?;
        let flag = |place: usize, letter: u8| match flags[place].to_ascii_uppercase() {
            b'-' => Some(false),
            other => (other == letter).then_some(true),
        };
        let is_number = buffers.len() <= 5 && buffers.iter().all(u8::is_ascii_digit);
        let status = Status {
            channel: Channel::from_digit(channel)?,
            bus_off: flag(0, b'B')?,
            error_warning: flag(1, b'E')?,
            overrun: flag(2, b'O')?,
            // T, transmission pending, is no business of a listener.
            stopped: flag(3, b'T').and(flag(4, b'I'))?,
        };
        (is_number && can.eq_ignore_ascii_case(b"CAN")).then_some(status)
    }
}

impl Line {
    /// Tells what a line is. Takes one of what [`lines`] gives.
    pub fn classify(line: &[u8]) -> Line {
        let mut tokens = tokens(line);
        match tokens.next() {
            Some(b"M" | b"m") => Line::Frame,
            Some(b"E" | b"e") => Line::Event,
            Some(b"R" | b"r") => match tokens.next() {
                Some(second) if second.eq_ignore_ascii_case(b"ERR") => Line::Refused,
                Some(second) if second.eq_ignore_ascii_case(b"ok") && tokens.next().is_none() => Line::Ok,
                _ => Status::parse(line).map_or(Line::Unknown, Line::Status),
            },
            _ => Line::Unknown,
        }
    }
}

/// The lines of a datagram, without their ends and without surrounding white space; empty ones are left out. Lines end in
/// `\n`, `\r` or `\r\n`, or in these characters spelled out with a backslash.
pub fn lines(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let is_end = |&at: &usize| matches!(rest[at..], [b'\n' | b'\r', ..] | [b'\\', b'n' | b'r', ..]);
        let (line, after) = rest.split_at((0..rest.len()).find(is_end).unwrap_or(rest.len()));
        let end_length = if after.starts_with(b"\\") { 2 } else { 1 };
        rest = after.get(end_length..).unwrap_or_default();
        Some(line.trim_ascii())
    })
    .filter(|line| !line.is_empty())
}

/// Whether a datagram holds an `M` line of this CAN port, well formed or not: data. The first bytes
/// tell for a stream of frames.
pub(crate) fn has_frame(datagram: &[u8], channel: Channel) -> bool {
    matches!(datagram, [b'M', b' ', digit, b' ', ..] if *digit == channel.digit())
        || lines(datagram).any(|line| Line::classify(line) == Line::Frame && is_of(line, channel))
}

/// Whether a line as text is a reply, of whatever form.
pub(crate) fn is_reply(text: &str) -> bool {
    text.split_ascii_whitespace().next().is_some_and(|token| token.eq_ignore_ascii_case("R"))
}

/// Whether a line's second token is this CAN port.
pub(crate) fn is_of(line: &[u8], channel: Channel) -> bool {
    tokens(line).nth(1) == Some(&[channel.digit()])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::text::escape_truncated;

    /// The replies in a datagram, in their order.
    pub(crate) fn replies(datagram: &[u8]) -> impl Iterator<Item = Line> {
        lines(datagram).map(Line::classify).filter(|line| matches!(line, Line::Ok | Line::Refused | Line::Status(_)))
    }

    fn kinds(datagram: &[u8]) -> Vec<Line> {
        lines(datagram).map(Line::classify).collect()
    }

    #[test]
    fn reply_is_recognised_in_any_case_spacing_and_line_end() {
        for ok in [
            "R ok",
            "R ok\n",
            "R ok\r",
            "R ok\r\n",
            "R ok\\n",
            "R ok\\r",
            "R ok\\r\\n",
            "r OK\n",
            "R   ok  \r\n",
            " R ok\n",
            "\r\nR Ok\r\n\r\n",
        ] {
            assert_eq!(kinds(ok.as_bytes()), [Line::Ok], "{ok:?}");
        }
        assert_eq!(kinds(b"r err 5 Busy\r"), [Line::Refused]);
    }

    #[test]
    fn near_replies_are_no_replies() {
        for other in ["Rok", "R", "R okay", "R ok ok", "ok", "OK R", "RR ok", "R o k", "", "\n", "XR ok"] {
            assert!(kinds(other.as_bytes()).iter().all(|&line| line == Line::Unknown), "{other:?}");
        }
    }

    #[test]
    fn lines_of_different_kinds_share_a_datagram() {
        let datagram = b"M 1 CSD 100 55\r\nR ok\nE 1 BUSOFF\rR ERR 7 no\\nwhat\n";
        let expected: [&[u8]; 5] = [b"M 1 CSD 100 55", b"R ok", b"E 1 BUSOFF", b"R ERR 7 no", b"what"];
        assert_eq!(lines(datagram).collect::<Vec<_>>(), expected);
        assert_eq!(kinds(datagram), [Line::Frame, Line::Ok, Line::Event, Line::Refused, Line::Unknown]);
    }

    #[test]
    fn gateway_text_is_escaped_and_cut_at_200_bytes() {
        assert_eq!(escape_truncated(b"R ERR 1 \x1b[2J\xff\t"), "R ERR 1 \\x1B[2J\\xFF\\x09");
        assert_eq!(escape_truncated(&[b'a'; 200]), "a".repeat(200));
        assert_eq!(escape_truncated(&[b'a'; 201]), "a".repeat(200) + "...");
    }
}
