//! What is said on the wire: commands out, lines in. No socket, no clock, no thread.
//!
//! The gateway speaks the ASCII protocol of HMS Ixxat's CAN@net family ("Generic Protocol for Gateway Mode", software
//! design guide 4.02.0332.20000). What this module relies on:
//!
//! * A command is one line that ends in `\n`. It is answered by `R ok` or by `R ERR <number> <text>`; an answer does
//!   not say which command it belongs to.
//! * What comes back ends in `\n`, `\r` or `\r\n`, as the gateway was configured. Upper and lower case mean the same,
//!   runs of spaces count as one, and a datagram can hold several lines of different kinds.
//! * One gateway in the field ends its lines with a backslash and an `n`, as two characters. Both are taken for the
//!   line's end.
//!
//! The inside of a frame line (`M …`) is the business of [`frame`](crate::frame).

use std::fmt;
use std::str::FromStr;

/// The bit rates that the gateway knows, in kbit/s (vendor's software design guide, command `INIT`).
pub const BIT_RATES: [u16; 10] = [5, 10, 20, 50, 100, 125, 250, 500, 800, 1000];

/// The bit rates of the data phase of CAN FD that the gateway knows, in kbit/s (HMS-jost/pycan, `ascii_can.py`).
pub const DATA_BIT_RATES: [u16; 6] = [500, 1000, 2000, 4000, 5000, 8000];

/// The channels (CAN port numbers) that a gateway can have: the NT models have up to 4, CAN@net Basic has number 1.
pub const CHANNELS: std::ops::RangeInclusive<u8> = 1..=4;

/// The largest 11-bit identifier.
pub const STANDARD_ID_MAX: u32 = 0x7FF;

/// The largest 29-bit identifier.
pub const EXTENDED_ID_MAX: u32 = 0x1FFF_FFFF;

/// Bit rate of the bus in kbit/s, one of [`BIT_RATES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitRate(u16);

impl BitRate {
    /// 250 kbit/s, what the programs use unless told otherwise.
    pub const DEFAULT: BitRate = BitRate(250);
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for BitRate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = BIT_RATES.into_iter().find(|rate| rate.to_string() == text);
        known.map(BitRate).ok_or("the gateway knows these bit rates, in kbit/s: 5 10 20 50 100 125 250 500 800 1000")
    }
}

/// Bit rate of the data phase of CAN FD in kbit/s, one of [`DATA_BIT_RATES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataBitRate(u16);

impl fmt::Display for DataBitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for DataBitRate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = DATA_BIT_RATES.into_iter().find(|rate| rate.to_string() == text);
        known.map(DataBitRate).ok_or("the gateway knows these data bit rates, in kbit/s: 500 1000 2000 4000 5000 8000")
    }
}

/// How a controller is initialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    /// Bit rate of the bus; with CAN FD, that of the arbitration phase.
    pub bit_rate: BitRate,
    /// CAN FD (ISO 11898-1:2015), with this bit rate in the data phase.
    pub data_bit_rate: Option<DataBitRate>,
    /// Whether the controller only listens: it acknowledges nothing and sends no error frames, so it cannot disturb the
    /// bus.
    pub listen_only: bool,
}

impl Init {
    /// 250 kbit/s, classic CAN, a controller that takes part in the bus.
    pub const DEFAULT: Init = Init { bit_rate: BitRate::DEFAULT, data_bit_rate: None, listen_only: false };
}

/// As the command has it: in short (`STD 250`) where that is enough, or in the long form that the vendor's own driver
/// writes to CAN@net Basic (HMS-jost/pycan, `ascii_can.py`).
impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Init { bit_rate, data_bit_rate: None, listen_only: false } = self {
            return write!(f, "STD {bit_rate}");
        }
        let mode = if self.listen_only { "LISTEN" } else { "STD" };
        write!(f, "mode={mode} baudA={}", self.bit_rate)?;
        self.data_bit_rate.map_or(Ok(()), |rate| write!(f, " baudD={rate} iso=ISO"))
    }
}

/// One entry of the gateway's acceptance filter: a frame passes if its identifier equals `id` in every bit that is
/// set in `mask`. A mask of 0 lets every identifier of that length pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// For frames with an 11-bit identifier.
    Standard {
        /// 0 to [`STANDARD_ID_MAX`].
        id: u32,
        /// 0 to [`STANDARD_ID_MAX`].
        mask: u32,
    },
    /// For frames with a 29-bit identifier.
    Extended {
        /// 0 to [`EXTENDED_ID_MAX`].
        id: u32,
        /// 0 to [`EXTENDED_ID_MAX`].
        mask: u32,
    },
}

impl Filter {
    /// Lets every 11-bit identifier pass.
    pub const ALL_STANDARD: Filter = Filter::Standard { id: 0, mask: 0 };
}

/// As the gateway wants it: `STD 000 000`, `EXT 0 0`.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Filter::Standard { id, mask } => write!(f, "STD {id:03X} {mask:03X}"),
            Filter::Extended { id, mask } => write!(f, "EXT {id:X} {mask:X}"),
        }
    }
}

/// Reads `STD:ID:MASK` or `EXT:ID:MASK`, identifier and mask in hexadecimal, with or without `0x`.
impl FromStr for Filter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "write STD:ID:MASK or EXT:ID:MASK, both numbers hexadecimal, as in STD:100:7FF";
        let number = |text: &str| {
            let digits = text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text);
            hex(digits.as_bytes()).ok_or(SHAPE)
        };
        let parts: Vec<&str> = text.split(':').collect();
        let [kind, id, mask] = parts[..] else { return Err(SHAPE) };
        let (id, mask) = (number(id)?, number(mask)?);
        match kind.to_ascii_uppercase().as_str() {
            "STD" if id.max(mask) <= STANDARD_ID_MAX => Ok(Filter::Standard { id, mask }),
            "STD" => Err("identifier and mask of a STD filter have 11 bits: at most 7FF"),
            "EXT" if id.max(mask) <= EXTENDED_ID_MAX => Ok(Filter::Extended { id, mask }),
            "EXT" => Err("identifier and mask of an EXT filter have 29 bits: at most 1FFFFFFF"),
            _ => Err(SHAPE),
        }
    }
}

/// A command to the gateway. `channel` is the number of the gateway's CAN port, one of [`CHANNELS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants' documentation names their fields")]
pub enum Command {
    /// Initialise the channel's controller. A running controller may refuse it.
    Init { channel: u8, init: Init },
    /// Empty the acceptance filter.
    FilterClear { channel: u8 },
    /// Add one entry to the acceptance filter.
    FilterAdd { channel: u8, filter: Filter },
    /// Start the controller: the gateway streams to whom this came from.
    Start { channel: u8 },
    /// Stop the controller.
    Stop { channel: u8 },
    /// Ask for the controller's state; works while it is stopped and while it runs (guide, 1.5 and 4.3.5).
    Status { channel: u8 },
}

impl Command {
    /// The channel that the command is for.
    pub fn channel(&self) -> u8 {
        match *self {
            Command::Init { channel, .. }
            | Command::FilterClear { channel }
            | Command::FilterAdd { channel, .. }
            | Command::Start { channel }
            | Command::Stop { channel }
            | Command::Status { channel } => channel,
        }
    }

    /// The datagram that carries the command: its line and the `\n` that ends it.
    pub fn datagram(&self) -> Vec<u8> {
        format!("{self}\n").into_bytes()
    }
}

/// The command's line without its end.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Init { channel, init } => write!(f, "CAN {channel} INIT {init}"),
            Command::FilterClear { channel } => write!(f, "CAN {channel} FILTER CLEAR"),
            Command::FilterAdd { channel, filter } => write!(f, "CAN {channel} FILTER ADD {filter}"),
            Command::Start { channel } => write!(f, "CAN {channel} START"),
            Command::Stop { channel } => write!(f, "CAN {channel} STOP"),
            Command::Status { channel } => write!(f, "CAN {channel} STATUS"),
        }
    }
}

/// What a line from the gateway is, by its first words. Borrows the whole line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// `R ok`, `R ERR …` or `R CAN …`: the answer to a command.
    Reply(Reply<'a>),
    /// `M …`: a frame, well formed or not; [`Frame::parse`](crate::frame::Frame::parse) tells.
    Frame(&'a [u8]),
    /// `E …`: the controller's state changed.
    Event(&'a [u8]),
    /// Nothing that the protocol has.
    Unknown(&'a [u8]),
}

/// The gateway's answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The command was carried out.
    Ok,
    /// The command was refused: the gateway's own words, the whole line.
    Refused(&'a [u8]),
    /// The answer to `STATUS`.
    Status(Status),
}

/// What the gateway says of a controller: `R CAN 1 -E--I 100` (software design guide, 4.3.5). The free transmit buffers
/// at the end are read and not kept: who only listens sends no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The channel, one of [`CHANNELS`].
    pub channel: u8,
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
    /// Reads the words after `R`: `CAN`, the channel, the five flags in their places, a number.
    fn parse<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> Option<Status> {
        let is_can = words.next()?.eq_ignore_ascii_case(b"CAN");
        let &[digit @ b'1'..=b'4'] = words.next()? else { return None };
        let flags: &[u8; 5] = words.next()?.try_into().ok()?;
        let buffers = words.next()?;
        let flag = |place: usize, letter: u8| match flags[place].to_ascii_uppercase() {
            b'-' => Some(false),
            other => (other == letter).then_some(true),
        };
        let status = Status {
            channel: digit - b'0',
            bus_off: flag(0, b'B')?,
            error_warning: flag(1, b'E')?,
            overrun: flag(2, b'O')?,
            // T, transmission pending, is no business of a listener.
            stopped: flag(3, b'T').and(flag(4, b'I'))?,
        };
        let is_number = (1..=5).contains(&buffers.len()) && buffers.iter().all(u8::is_ascii_digit);
        (is_can && is_number && words.next().is_none()).then_some(status)
    }
}

impl<'a> Line<'a> {
    /// Tells what a line is. Takes one of what [`lines`] gives.
    pub fn classify(line: &'a [u8]) -> Line<'a> {
        let mut words = words(line);
        match words.next() {
            Some(first) if first.eq_ignore_ascii_case(b"M") => Line::Frame(line),
            Some(first) if first.eq_ignore_ascii_case(b"E") => Line::Event(line),
            Some(first) if first.eq_ignore_ascii_case(b"R") => match words.clone().next() {
                Some(second) if second.eq_ignore_ascii_case(b"ERR") => Line::Reply(Reply::Refused(line)),
                Some(second) if second.eq_ignore_ascii_case(b"ok") && words.clone().count() == 1 => {
                    Line::Reply(Reply::Ok)
                }
                _ => Status::parse(words).map_or(Line::Unknown(line), |status| Line::Reply(Reply::Status(status))),
            },
            _ => Line::Unknown(line),
        }
    }
}

/// The lines of a datagram, without their ends and without surrounding white space; empty ones are left out.
pub fn lines(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.iter().enumerate().position(|(at, &byte)| match byte {
            b'\n' | b'\r' => true,
            b'\\' => rest.get(at + 1) == Some(&b'n'),
            _ => false,
        });
        let (line, after) = match end {
            Some(at) if rest[at] == b'\\' => (&rest[..at], &rest[at + 2..]),
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        rest = after;
        Some(line.trim_ascii())
    })
    .filter(|line| !line.is_empty())
}

/// The replies in a datagram, in their order.
pub fn replies(datagram: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    lines(datagram).filter_map(|line| match Line::classify(line) {
        Line::Reply(reply) => Some(reply),
        _ => None,
    })
}

/// Whether all lines of a datagram begin with `R`, well formed or not: the gateway speaks of commands, and nothing comes
/// from the bus. Of a frame that is seen at its first byte, so a stream of frames is not looked into.
pub(crate) fn speaks_of_commands_only(datagram: &[u8]) -> bool {
    let mut lines = lines(datagram).peekable();
    !matches!(datagram.first(), Some(b'M' | b'm'))
        && lines.peek().is_some()
        && lines.all(|line| words(line).next().is_some_and(|first| first.eq_ignore_ascii_case(b"R")))
}

/// The words of a line; runs of white space between them count as one.
pub(crate) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

pub(crate) const HEX_DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// The value of a hexadecimal digit.
pub(crate) fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// A hexadecimal number of 1 to 8 digits and nothing else.
pub(crate) fn hex(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    digits.iter().try_fold(0, |value, &digit| Some(value << 4 | u32::from(nibble(digit)?)))
}

/// Appends `bytes` so that a terminal takes none of them for a control sequence: what is outside 0x20 to 0x7E
/// becomes `\xNN`, except the newline.
pub(crate) fn escape_into(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'\n' | 0x20..=0x7E => out.push(byte),
            _ => out.extend([b'\\', b'x', HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 15)]]),
        }
    }
}

/// A line of the gateway's in a form that is safe to show: escaped, and cut at 200 bytes.
pub(crate) fn printable(line: &[u8]) -> String {
    const SHOWN_MAX: usize = 200;
    let mut shown = Vec::new();
    escape_into(&mut shown, &line[..line.len().min(SHOWN_MAX)]);
    if line.len() > SHOWN_MAX {
        shown.extend(b"...");
    }
    String::from_utf8_lossy(&shown).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(datagram: &[u8]) -> Vec<Line<'_>> {
        lines(datagram).map(Line::classify).collect()
    }

    #[test]
    fn a_reply_is_recognised_whatever_its_line_end_case_and_spacing() {
        for ok in
            ["R ok", "R ok\n", "R ok\r", "R ok\r\n", "R ok\\n", "r OK\n", "R   ok  \r\n", " R ok\n", "\r\nR Ok\r\n\r\n"]
        {
            assert_eq!(kinds(ok.as_bytes()), [Line::Reply(Reply::Ok)], "{ok:?}");
        }
        assert_eq!(kinds(b"r err 5 Busy\r"), [Line::Reply(Reply::Refused(b"r err 5 Busy"))]);
    }

    #[test]
    fn what_only_looks_like_a_reply_is_none() {
        for other in ["Rok", "R", "R okay", "R ok ok", "ok", "OK R", "RR ok", "R o k", "", "\n", "XR ok"] {
            assert_eq!(replies(other.as_bytes()).count(), 0, "{other:?}");
        }
    }

    #[test]
    fn lines_of_different_kinds_share_a_datagram() {
        assert_eq!(
            kinds(b"M 1 CSD 100 55\r\nR ok\nE 1 BUSOFF\rR ERR 7 no\\nwhat\n"),
            [
                Line::Frame(b"M 1 CSD 100 55"),
                Line::Reply(Reply::Ok),
                Line::Event(b"E 1 BUSOFF"),
                Line::Reply(Reply::Refused(b"R ERR 7 no")),
                Line::Unknown(b"what"),
            ]
        );
    }

    #[test]
    fn the_gateways_words_are_shown_escaped_and_cut_at_200_bytes() {
        assert_eq!(printable(b"R ERR 1 \x1b[2J\xff\t"), "R ERR 1 \\x1B[2J\\xFF\\x09");
        assert_eq!(printable(&[b'a'; 200]), "a".repeat(200));
        assert_eq!(printable(&[b'a'; 201]), "a".repeat(200) + "...");
    }
}
