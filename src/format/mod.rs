//! Reads frames and controller events, and writes them in the formats of candump, InfluxDB and pcap. Pure: no socket, no clock,
//! no thread, and no allocation per frame once the buffers have grown to their size.
//!
//! [`write_candump`], [`InfluxWriter`] and [`write_pcap_record`] write one frame each:
//!
//! ```
//! use std::time::Duration;
//! use can_udp::Frame;
//! use can_udp::format::{InfluxWriter, write_candump};
//!
//! let frame = Frame::parse(b"M 1 CSD 123 11 22")?;
//! let received = Duration::from_micros(1_436_509_052_249_713); // since 1970
//!
//! let mut line = Vec::new();
//! write_candump(&frame, received, &mut line);
//! assert_eq!(line, b"(1436509052.249713) can1 123#1122\n");
//!
//! line.clear();
//! InfluxWriter::new("10.8.0.109").write(&frame, received, &mut line);
//! assert_eq!(
//!     String::from_utf8(line)?,
//!     "can,channel=1,device=10.8.0.109,id=123 dlc=2i,data=\"1122\",b0=17i,b1=34i 1436509052249713000\n"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod candump;
pub mod controller;
pub mod frame;
mod influx;
mod pcap;
mod raw;

use std::time::Duration;

pub use candump::write_candump;
pub use influx::InfluxWriter;
pub use pcap::{PCAP_HEADER, write_pcap_record};
pub(crate) use pcap::{PCAP_RECORD_HEADER_LENGTH, pcap_record_length};

use crate::format::controller::ControllerEvent;
use crate::format::frame::{Frame, Id};
use crate::gateway::ValueError;
use crate::gateway::reply::{Line, lines};
use crate::text::HEX_DIGITS;

/// What a datagram becomes on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The datagram as it came; a newline is added if it does not end in one.
    Raw,
    /// The log format of `candump -L`, one line for each frame.
    Candump,
    /// InfluxDB's line protocol, one point for each frame and each controller event.
    Influx,
    /// For Wireshark and tshark, one record for each frame and each controller event.
    Pcap,
}

/// A line that is to be reported, because stdout has no place for it or because it concerns the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice<'a> {
    /// `R ERR …`
    Refusal(&'a [u8]),
    /// `E …`, received at that time since 1970.
    Event { line: &'a [u8], received: Duration },
    /// No frame, no reply, no event; or a frame that breaks the rules.
    Malformed(&'a [u8], ValueError),
}

/// Turns the datagrams of one session into the bytes for stdout.
#[derive(Debug)]
pub(crate) struct Encoder {
    format: Format,
    escape: bool,
    influx: InfluxWriter,
}

impl Encoder {
    /// `device` is the value of InfluxDB's tag of that name. With `escape`, raw shows every byte outside 0x20 to 0x7E as
    /// `\xNN`, line ends aside: a forged datagram could otherwise control the user's terminal. The other formats for
    /// terminals never contain such bytes.
    pub fn new(format: Format, device: &str, escape: bool) -> Encoder {
        Encoder { format, escape, influx: InfluxWriter::new(device) }
    }

    /// Whether it writes frames, not datagrams as they came.
    pub fn has_frames(&self) -> bool {
        self.format != Format::Raw
    }

    /// Appends a datagram to `out` and returns how many frames were written. After `max_frames` frames the rest of the
    /// datagram is left out; raw counts no frames. `received` returns the time of reception (since 1970); it is called
    /// only if the format has times.
    pub fn write(
        &mut self,
        datagram: &[u8],
        received: impl FnOnce() -> Duration,
        max_frames: u64,
        out: &mut Vec<u8>,
        mut on_notice: impl FnMut(Notice<'_>),
    ) -> u64 {
        if self.format == Format::Raw {
            raw::write_datagram(datagram, self.escape, out);
            return 0;
        }
        let received = received();
        let mut frames = 0;
        for line in lines(datagram) {
            match Line::classify(line) {
                Line::Frame | Line::Unknown => match Frame::parse(line) {
                    Ok(frame) => {
                        match self.format {
                            // Has returned above.
                            Format::Raw => {}
                            Format::Candump => write_candump(&frame, received, out),
                            Format::Influx => self.influx.write(&frame, received, out),
                            Format::Pcap => write_pcap_record(&frame, received, out),
                        }
                        frames += 1;
                        if frames == max_frames {
                            break;
                        }
                    }
                    Err(fault) => on_notice(Notice::Malformed(line, fault)),
                },
                Line::Event => {
                    match (self.format, ControllerEvent::parse(line)) {
                        (Format::Influx, Some(event)) => self.influx.write_event(&event, received, out),
                        (Format::Pcap, Some(event)) => pcap::write_error_record(&event, received, out),
                        // Candump's format has no place for them: python-can would read an error frame as frame 0x40.
                        _ => {}
                    }
                    on_notice(Notice::Event { line, received });
                }
                Line::Ok | Line::Status(_) => {}
                Line::Refused => on_notice(Notice::Refusal(line)),
            }
        }
        frames
    }
}

/// The well-formed frames of a datagram, of every CAN port.
///
/// ```
/// let mut frames = can_udp::format::frames(b"M 1 CSD 100 55 AA\nE 1 BUSOFF\nM 1 CSR 101 dlc=05\n");
/// assert_eq!(frames.next().map(|frame| frame.to_string()).as_deref(), Some("M 1 CSD 100 55 AA"));
/// assert_eq!(frames.count(), 1);
/// ```
pub fn frames(datagram: &[u8]) -> impl Iterator<Item = Frame> {
    lines(datagram).filter_map(|line| Frame::parse(line).ok())
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
