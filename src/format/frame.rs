//! A CAN frame, parsed from an `M` line, without allocation.
//!
//! The line (vendor's software design guide 4.02.0332.20000) is `M <channel> <format> <identifier> <data>`:
//!
//! * the format is three letters: `C` classic, `F` CAN FD with bit-rate switch, `N` CAN FD without; `S` 11-bit or `E`
//!   29-bit identifier; `D` data or `R` remote;
//! * the identifier is hexadecimal and not always zero-padded;
//! * the data is up to 8 bytes (CAN FD: 64) of two hexadecimal digits each; a remote frame has `dlc=05` in its place, or
//!   nothing if it requests 0 bytes (as the vendor's own driver reads it: HMS-jost/pycan, `ascii_can.py`).
//!
//! Anything else is malformed; nothing is guessed.

use std::fmt;
use std::str::FromStr;

use crate::gateway::command::{Channel, EXTENDED_ID_MAX, STANDARD_ID_MAX, ValueError};
use crate::text::{parse_hex, tokens};

const BAD_FORMAT: ValueError = ValueError("bad format");
const BAD_ID: ValueError = ValueError("bad identifier");
/// More data than the frame format allows, a length that CAN FD does not have, or a remote frame's DLC that is not
/// `dlc=0` to `dlc=8`.
const BAD_LENGTH: ValueError = ValueError("bad length");

/// The largest payload, that of CAN FD, in bytes.
pub(crate) const DATA_MAX: usize = 64;

/// One CAN frame, as it was on the bus.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Frame {
    channel: Channel,
    id: Id,
    kind: FrameKind,
    length: u8,
    data: [u8; DATA_MAX],
}

/// A frame's identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// 11 bits, 0 to 0x7FF.
    Standard(u32),
    /// 29 bits, 0 to 0x1FFFFFFF.
    Extended(u32),
}

/// 3 hexadecimal digits for 11 bits, 8 for 29.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Id::Standard(number) => write!(f, "{number:03X}"),
            Id::Extended(number) => write!(f, "{number:08X}"),
        }
    }
}

/// The frame format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FrameKind {
    /// A classic data frame, 0 to 8 bytes.
    Classic,
    /// A classic remote frame: it requests data and carries none.
    Remote,
    /// A CAN FD data frame, up to 64 bytes.
    Fd {
        /// Whether its data was sent at the higher bit rate.
        bit_rate_switch: bool,
    },
}

impl Frame {
    /// Parses a line, without its line end.
    ///
    /// # Errors
    ///
    /// The line is not exactly a frame of the protocol.
    ///
    /// ```
    /// use can_udp::format::frame::{Frame, Id};
    ///
    /// let frame = Frame::parse(b"M 1 CSD 100 55 AA")?;
    /// assert_eq!(frame.id(), Id::Standard(0x100));
    /// assert_eq!(frame.data(), [0x55, 0xAA]);
    /// # Ok::<(), can_udp::gateway::ValueError>(())
    /// ```
    pub fn parse(line: &[u8]) -> Result<Frame, ValueError> {
        let mut tokens = tokens(line);
        if !tokens.next().is_some_and(|token| token.eq_ignore_ascii_case(b"M")) {
            return Err(ValueError("not a line of the protocol"));
        }
        let channel = tokens.next().and_then(Channel::from_digit).ok_or(ValueError("bad channel"))?;
        let &[protocol, format, purpose] = tokens.next().unwrap_or_default() else {
            return Err(BAD_FORMAT);
        };
        let kind = match (protocol.to_ascii_uppercase(), purpose.to_ascii_uppercase()) {
            (b'C', b'D') => FrameKind::Classic,
            (b'C', b'R') => FrameKind::Remote,
            (b'F', b'D') => FrameKind::Fd { bit_rate_switch: true },
            (b'N', b'D') => FrameKind::Fd { bit_rate_switch: false },
            _ => return Err(BAD_FORMAT),
        };
        let number = tokens.next().and_then(parse_hex).ok_or(BAD_ID)?;
        let id = match format.to_ascii_uppercase() {
            b'S' if number <= STANDARD_ID_MAX => Id::Standard(number),
            b'E' if number <= EXTENDED_ID_MAX => Id::Extended(number),
            b'S' | b'E' => return Err(BAD_ID),
            _ => return Err(BAD_FORMAT),
        };
        let mut frame = Frame { channel, id, kind, length: 0, data: [0; DATA_MAX] };
        if kind == FrameKind::Remote {
            frame.length = tokens.next().map_or(Some(0), data_length_code).ok_or(BAD_LENGTH)?;
            return if tokens.next().is_none() { Ok(frame) } else { Err(BAD_LENGTH) };
        }
        for token in tokens {
            let byte = frame.data.get_mut(usize::from(frame.length)).ok_or(BAD_LENGTH)?;
            *byte = parse_hex(token).filter(|_| token.len() == 2).ok_or(ValueError("bad data byte"))? as u8;
            frame.length += 1;
        }
        match (kind, frame.length) {
            (_, 0..=8) | (FrameKind::Fd { .. }, 12 | 16 | 20 | 24 | 32 | 48 | 64) => Ok(frame),
            _ => Err(BAD_LENGTH),
        }
    }

    /// The gateway's CAN port that the frame was received on.
    pub fn channel(&self) -> Channel {
        self.channel
    }

    /// The identifier.
    pub fn id(&self) -> Id {
        self.id
    }

    /// The frame format.
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Length of the data in bytes; of a remote frame, the length that it requests (its DLC, 0 to 8).
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The data; empty in a remote frame.
    pub fn data(&self) -> &[u8] {
        if self.kind == FrameKind::Remote { &[] } else { &self.data[..usize::from(self.length)] }
    }
}

/// The line of the protocol, without its end.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (protocol, purpose) = match self.kind {
            FrameKind::Classic => ('C', 'D'),
            FrameKind::Remote => ('C', 'R'),
            FrameKind::Fd { bit_rate_switch: true } => ('F', 'D'),
            FrameKind::Fd { bit_rate_switch: false } => ('N', 'D'),
        };
        let format = if let Id::Standard(_) = self.id { 'S' } else { 'E' };
        write!(f, "M {} {protocol}{format}{purpose} {}", self.channel, self.id)?;
        if self.kind == FrameKind::Remote {
            return write!(f, " dlc={:02}", self.length);
        }
        self.data().iter().try_for_each(|byte| write!(f, " {byte:02X}"))
    }
}

impl FromStr for Frame {
    type Err = ValueError;

    fn from_str(line: &str) -> Result<Frame, ValueError> {
        Frame::parse(line.as_bytes())
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({self})")
    }
}

/// `dlc=05`: one or two digits, 0 to 8.
fn data_length_code(token: &[u8]) -> Option<u8> {
    let (name, digits) = token.split_at_checked(4)?;
    match *digits {
        [digit @ b'0'..=b'8'] | [b'0', digit @ b'0'..=b'8'] if name.eq_ignore_ascii_case(b"dlc=") => Some(digit - b'0'),
        _ => None,
    }
}
