//! One datagram in, the bytes for stdout out, in each [`Format`]. No socket, no clock, no thread; nothing is allocated
//! per frame once the buffers have grown to their size.
//!
//! [`candump`], [`Influx`] and [`pcap`] write one frame each and need nothing else of this crate's programs:
//!
//! ```
//! use std::time::Duration;
//! use can_udp::format::{Influx, candump};
//! use can_udp::format::frame::Frame;
//!
//! let frame = Frame::parse(b"M 1 CSD 123 11 22")?;
//! let received = Duration::from_micros(1_436_509_052_249_713); // since 1970
//!
//! let mut line = Vec::new();
//! candump(&frame, received, &mut line);
//! assert_eq!(line, b"(1436509052.249713) can1 123#1122\n");
//!
//! line.clear();
//! Influx::new("10.8.0.109").write(&frame, received, &mut line);
//! assert_eq!(
//!     String::from_utf8(line)?,
//!     "can,channel=1,device=10.8.0.109,id=123 dlc=2i,data=\"1122\",b0=17i,b1=34i 1436509052249713000\n"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod candump;
pub mod frame;
mod influx;
mod pcap;
mod raw;

use std::time::Duration;

pub use candump::candump;
pub use influx::Influx;
pub use pcap::{PCAP_HEADER, pcap};

use crate::format::frame::{Frame, Id, Malformed};
use crate::gateway::reply::{Line, Reply, lines};
use crate::text::HEX_DIGITS;

/// What a datagram becomes on stdout. The words are also those of `can-listen --help`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The datagram as it came; a newline is added if it ends in none
    #[default]
    Raw,
    /// The log format of `candump -L`, one line for each frame
    Candump,
    /// InfluxDB's line protocol, one point for each frame
    Influx,
    /// For Wireshark and tshark, one record for each frame
    Pcap,
}

impl Format {
    /// Whether it prints frames, and not datagrams as they come.
    pub fn has_frames(self) -> bool {
        self != Format::Raw
    }
}

/// A line that a format has no place for on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aside<'a> {
    /// `R ERR …`
    Refusal(&'a [u8]),
    /// `E …`
    Event(&'a [u8]),
    /// No frame, no reply, no event; or a frame that breaks the rules.
    Malformed(&'a [u8], Malformed),
}

/// Turns the datagrams of one session into what stdout gets.
#[derive(Debug)]
pub(crate) enum Formatter {
    Raw { escape: bool },
    Candump,
    Influx(Influx),
    Pcap,
}

impl Formatter {
    /// `device` is the gateway as InfluxDB shall know it. With `escape`, raw shows every byte outside 0x20 to 0x7E,
    /// except the newline, as `\xNN`: whoever can fake the gateway's address could otherwise write to the user's
    /// terminal. The other formats for terminals never contain such bytes.
    pub fn new(format: Format, device: &str, escape: bool) -> Formatter {
        match format {
            Format::Raw => Formatter::Raw { escape },
            Format::Candump => Formatter::Candump,
            Format::Influx => Formatter::Influx(Influx::new(device)),
            Format::Pcap => Formatter::Pcap,
        }
    }

    /// What goes out before anything else.
    pub fn header(&self) -> &'static [u8] {
        if let Formatter::Pcap = self { &PCAP_HEADER } else { b"" }
    }

    /// Appends to `out` what a datagram comes to; where frames are printed, at most so many of them, and the rest of the
    /// datagram is left out. Tells how many there were. `received` tells when the datagram was received (time since
    /// 1970); it is asked only if the format shows it. Lines with no place on stdout go to `aside`.
    pub fn write(
        &mut self,
        datagram: &[u8],
        received: impl FnOnce() -> Duration,
        most: u64,
        out: &mut Vec<u8>,
        mut aside: impl FnMut(Aside<'_>),
    ) -> u64 {
        if let Formatter::Raw { escape } = self {
            raw::raw(datagram, *escape, out);
            return 0;
        }
        let received = received();
        let mut frames = 0;
        for line in lines(datagram) {
            match Line::classify(line) {
                Line::Frame(_) => match Frame::parse(line) {
                    Ok(frame) => {
                        self.write_frame(&frame, received, out);
                        frames += 1;
                        if frames == most {
                            break;
                        }
                    }
                    Err(fault) => aside(Aside::Malformed(line, fault)),
                },
                Line::Event(line) => aside(Aside::Event(line)),
                Line::Reply(Reply::Ok | Reply::Status(_)) => {}
                Line::Reply(Reply::Refused(line)) => aside(Aside::Refusal(line)),
                Line::Unknown(line) => aside(Aside::Malformed(line, Malformed::NoFrame)),
            }
        }
        frames
    }

    fn write_frame(&mut self, frame: &Frame, received: Duration, out: &mut Vec<u8>) {
        match self {
            // It does not look for frames.
            Formatter::Raw { .. } => {}
            Formatter::Candump => candump(frame, received, out),
            Formatter::Influx(influx) => influx.write(frame, received, out),
            Formatter::Pcap => pcap(frame, received, out),
        }
    }
}

/// 3 digits for an 11-bit identifier, 8 for a 29-bit one.
fn push_id(out: &mut Vec<u8>, id: Id) {
    let (number, digits) = match id {
        Id::Standard(number) => (number, 3),
        Id::Extended(number) => (number, 8),
    };
    out.extend((0..digits).rev().map(|place| HEX_DIGITS[(number >> (4 * place) & 15) as usize]));
}

fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        out.extend_from_slice(&[HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 15)]]);
    }
}

/// A decimal number of at least `width` digits; `write!` would take several times as long.
fn push_decimal(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    while number > 0 {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[first.min(digits.len() - width)..]);
}
