//! Commands to the gateway, and what they are made of.

use std::fmt;
use std::str::FromStr;

use crate::text::parse_hex;

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
    /// 250 kbit/s, the default of the programs.
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
    /// Listen-only mode: the controller acknowledges nothing and sends no error frames, so it cannot disturb the bus.
    pub listen_only: bool,
}

impl Init {
    /// 250 kbit/s, classic CAN, a controller that takes part in the bus.
    pub const DEFAULT: Init = Init { bit_rate: BitRate::DEFAULT, data_bit_rate: None, listen_only: false };
}

/// As in the command: the short form (`STD 250`) where that is enough, or the long form that the vendor's own driver
/// sends to CAN@net Basic (HMS-jost/pycan, `ascii_can.py`).
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

/// As in the command: `STD 000 000`, `EXT 0 0`.
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
        const USAGE: &str = "write STD:ID:MASK or EXT:ID:MASK, both numbers hexadecimal, as in STD:100:7FF";
        let number = |text: &str| {
            let digits = text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text);
            parse_hex(digits.as_bytes()).ok_or(USAGE)
        };
        let parts: Vec<&str> = text.split(':').collect();
        let [kind, id, mask] = parts[..] else { return Err(USAGE) };
        let (id, mask) = (number(id)?, number(mask)?);
        match kind.to_ascii_uppercase().as_str() {
            "STD" if id.max(mask) <= STANDARD_ID_MAX => Ok(Filter::Standard { id, mask }),
            "STD" => Err("identifier and mask of a STD filter have 11 bits: at most 7FF"),
            "EXT" if id.max(mask) <= EXTENDED_ID_MAX => Ok(Filter::Extended { id, mask }),
            "EXT" => Err("identifier and mask of an EXT filter have 29 bits: at most 1FFFFFFF"),
            _ => Err(USAGE),
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
    /// Start the controller: the gateway streams to the sender of this command.
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
