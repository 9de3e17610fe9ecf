//! Commands to the gateway, and what they are made of. Every value here is one that the protocol has.

use std::fmt;
use std::str::FromStr;

use crate::text::parse_hex;

/// The largest 11-bit identifier, `0x7FF`.
pub const STANDARD_ID_MAX: u32 = 0x7FF;

/// The largest 29-bit identifier, `0x1FFFFFFF`.
pub const EXTENDED_ID_MAX: u32 = 0x1FFF_FFFF;

/// A value that the protocol does not have, or a line that is no frame. Its text says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueError(pub(crate) &'static str);

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for ValueError {}

/// A number of the protocol: made by `TryFrom` and `FromStr`, which check it, and read by `From` and `Display`.
macro_rules! checked_number {
    ($(#[$doc:meta])* $name:ident($number:ty), $usage:literal, [$($value:literal),+]) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($number);

        impl $name {
            #[doc = concat!("All of them:" $(, " ", $value)+, ".")]
            pub const ALL: &'static [$number] = &[$($value),+];
        }

        impl TryFrom<$number> for $name {
            type Error = ValueError;

            fn try_from(number: $number) -> Result<Self, ValueError> {
                let error = ValueError(concat!($usage $(, " ", $value)+));
                Self::ALL.contains(&number).then_some($name(number)).ok_or(error)
            }
        }

        impl FromStr for $name {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<Self, ValueError> {
                // The parser of numbers accepts a sign and leading zeros. 0 is none of them.
                let number = text.parse().ok().filter(|number: &$number| number.to_string() == text);
                $name::try_from(number.unwrap_or(0))
            }
        }

        impl From<$name> for $number {
            fn from(value: $name) -> $number {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

checked_number! {
    /// The number of a gateway's CAN port, 1 to 4: the NT models have up to 4, CAN@net Basic has number 1.
    Channel(u8), "the gateway knows these CAN ports:", [1, 2, 3, 4]
}

checked_number! {
    /// Bit rate of the bus in kbit/s (vendor's software design guide, command `INIT`).
    BitRate(u16), "the gateway knows these bit rates, in kbit/s:", [5, 10, 20, 50, 100, 125, 250, 500, 800, 1000]
}

checked_number! {
    /// Bit rate of the data phase of CAN FD in kbit/s (HMS-jost/pycan, `ascii_can.py`).
    DataBitRate(u16), "the gateway knows these data bit rates, in kbit/s:", [500, 1000, 2000, 4000, 5000, 8000]
}

impl Channel {
    /// Channel 1, which every gateway has.
    pub const DEFAULT: Channel = Channel(1);

    /// Reads the one digit of the protocol.
    pub(crate) fn from_digit(token: &[u8]) -> Option<Channel> {
        let &[digit] = token else { return None };
        Channel::try_from(digit.checked_sub(b'0')?).ok()
    }

    pub(crate) fn digit(self) -> u8 {
        b'0' + self.0
    }
}

impl BitRate {
    /// 250 kbit/s, the default of the programs.
    pub const DEFAULT: BitRate = BitRate(250);
}

/// How a controller is initialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Init {
    /// Bit rate of the bus; with CAN FD, that of the arbitration phase.
    pub bit_rate: BitRate,
    /// CAN FD (ISO 11898-1:2015), with this bit rate in the data phase.
    pub data_bit_rate: Option<DataBitRate>,
    /// Listen-only mode: the controller acknowledges nothing and sends no error frames, so it cannot disturb the bus.
    pub listen_only: bool,
}

impl Init {
    /// Classic CAN at this bit rate, with a controller that takes part in the bus.
    pub fn new(bit_rate: BitRate) -> Init {
        Init { bit_rate, data_bit_rate: None, listen_only: false }
    }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    extended: bool,
    id: u32,
    mask: u32,
}

impl Filter {
    /// Lets every 11-bit identifier pass: `STD 000 000`.
    pub const ALL_STANDARD: Filter = Filter { extended: false, id: 0, mask: 0 };
    /// Lets every 29-bit identifier pass: `EXT 0 0`.
    pub const ALL_EXTENDED: Filter = Filter { extended: true, id: 0, mask: 0 };

    /// For frames with an 11-bit identifier.
    ///
    /// # Errors
    ///
    /// `id` or `mask` exceeds [`STANDARD_ID_MAX`], `0x7FF`.
    pub fn standard(id: u32, mask: u32) -> Result<Filter, ValueError> {
        if id.max(mask) > STANDARD_ID_MAX {
            return Err(ValueError("identifier and mask of a STD filter have 11 bits: at most 7FF"));
        }
        Ok(Filter { extended: false, id, mask })
    }

    /// For frames with a 29-bit identifier.
    ///
    /// # Errors
    ///
    /// `id` or `mask` exceeds [`EXTENDED_ID_MAX`], `0x1FFFFFFF`.
    pub fn extended(id: u32, mask: u32) -> Result<Filter, ValueError> {
        if id.max(mask) > EXTENDED_ID_MAX {
            return Err(ValueError("identifier and mask of an EXT filter have 29 bits: at most 1FFFFFFF"));
        }
        Ok(Filter { extended: true, id, mask })
    }

    /// Whether it is for 29-bit identifiers.
    pub fn is_extended(&self) -> bool {
        self.extended
    }

    /// Whether every identifier of its length passes.
    pub fn passes_all(&self) -> bool {
        self.mask == 0
    }
}

/// As in the command: `STD 000 000`, `EXT 0 0`.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Filter { extended, id, mask } = self;
        if *extended { write!(f, "EXT {id:X} {mask:X}") } else { write!(f, "STD {id:03X} {mask:03X}") }
    }
}

/// Reads `STD:ID:MASK` or `EXT:ID:MASK`, or the same with spaces as in the command; identifier and mask in hexadecimal, with
/// or without `0x`.
impl FromStr for Filter {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let usage = ValueError("write STD:ID:MASK or EXT:ID:MASK, both numbers hexadecimal, as in STD:100:7FF");
        let number = |text: &str| {
            let digits = text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text);
            parse_hex(digits.as_bytes()).ok_or(usage)
        };
        let parts: Vec<&str> = text.split([':', ' ']).collect();
        let [kind, id, mask] = parts[..] else { return Err(usage) };
        let (id, mask) = (number(id)?, number(mask)?);
        match kind.to_ascii_uppercase().as_str() {
            "STD" => Filter::standard(id, mask),
            "EXT" => Filter::extended(id, mask),
            _ => Err(usage),
        }
    }
}

/// A command to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// The CAN port that it is for.
    pub channel: Channel,
    /// What is to be done.
    pub verb: Verb,
}

/// What a [`Command`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verb {
    /// Initialise the controller. A running one may refuse it.
    Init(Init),
    /// Empty the acceptance filter.
    FilterClear,
    /// Add one entry to the acceptance filter.
    FilterAdd(Filter),
    /// Start the controller: the gateway streams to the sender of this command.
    Start,
    /// Stop the controller.
    Stop,
    /// Ask for the controller's state; works while it is stopped and while it runs (guide, 1.5 and 4.3.5).
    Status,
}

impl Command {
    /// The datagram that carries the command: its line and the `\n` that ends it.
    pub fn datagram(&self) -> Vec<u8> {
        format!("{self}\n").into_bytes()
    }
}

/// The command's line without its end.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CAN {} {}", self.channel, self.verb)
    }
}

/// The command's line after the channel.
impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verb::Init(init) => write!(f, "INIT {init}"),
            Verb::FilterClear => f.write_str("FILTER CLEAR"),
            Verb::FilterAdd(filter) => write!(f, "FILTER ADD {filter}"),
            Verb::Start => f.write_str("START"),
            Verb::Stop => f.write_str("STOP"),
            Verb::Status => f.write_str("STATUS"),
        }
    }
}
