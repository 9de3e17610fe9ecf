//! One datagram in, the bytes for stdout out: raw, candump, influx. No socket, no clock, no thread; nothing is
//! allocated per frame once the buffers have grown to their size.
//!
//! [`candump`] and [`Influx`] write one frame each and need nothing else of this crate's programs:
//!
//! ```
//! use std::time::Duration;
//! use can_udp::format::{Influx, candump};
//! use can_udp::frame::Frame;
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
//!     "can,device=10.8.0.109,channel=1,id=123 dlc=2i,data=\"1122\",b0=17i,b1=34i 1436509052249713000\n"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::time::Duration;

use crate::frame::{Frame, Id, Kind, Malformed};
use crate::protocol::{HEX_DIGITS, Line, Reply, escape_into, lines};

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
}

impl Format {
    /// Whether it prints frames, and not datagrams as they come.
    pub fn has_frames(self) -> bool {
        self != Format::Raw
    }
}

/// A line that a format has no place for on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside<'a> {
    /// `R ERR …`
    Refusal(&'a [u8]),
    /// `E …`
    Event(&'a [u8]),
    /// No frame, no reply, no event; or a frame that breaks the rules.
    Malformed(&'a [u8], Malformed),
}

/// Turns the datagrams of one session into what stdout gets.
#[derive(Debug)]
pub struct Formatter {
    writer: Writer,
}

#[derive(Debug)]
enum Writer {
    Raw { escape: bool },
    Candump,
    Influx(Influx),
}

impl Formatter {
    /// `device` is the gateway as InfluxDB shall know it. With `escape`, raw shows every byte outside 0x20 to 0x7E,
    /// except the newline, as `\xNN`: whoever can fake the gateway's address could otherwise write to the user's
    /// terminal. The other formats never contain such bytes.
    pub fn new(format: Format, device: &str, escape: bool) -> Formatter {
        let writer = match format {
            Format::Raw => Writer::Raw { escape },
            Format::Candump => Writer::Candump,
            Format::Influx => Writer::Influx(Influx::new(device)),
        };
        Formatter { writer }
    }

    /// What goes out before anything else.
    pub fn header(&self) -> &'static [u8] {
        b""
    }

    /// Appends to `out` what a datagram comes to. `received` tells when it was received (time since 1970); it is
    /// asked only if the format shows it. Lines with no place on stdout go to `aside`.
    pub fn write(
        &mut self,
        datagram: &[u8],
        received: impl FnOnce() -> Duration,
        most: u64,
        out: &mut Vec<u8>,
        mut aside: impl FnMut(Aside<'_>),
    ) -> u64 {
        if let Writer::Raw { escape } = self.writer {
            if escape {
                escape_into(out, datagram);
            } else {
                out.extend_from_slice(datagram);
            }
            if datagram.last().is_some_and(|&last| last != b'\n') {
                out.push(b'\n');
            }
            return 0;
        }
        let received = received();
        let mut frames = 0;
        for line in lines(datagram) {
            match Line::classify(line) {
                Line::Frame(_) => match Frame::parse(line) {
                    Ok(frame) => {
                        match &mut self.writer {
                            Writer::Influx(influx) => influx.write(&frame, received, out),
                            _ => candump(&frame, received, out),
                        }
                        frames += 1;
                        if frames == most {
                            return frames;
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
}

/// Appends a frame as `candump -L` of can-utils logs it: `(1436509052.249713) can1 123#1122` and a newline.
/// `received` is the time since 1970; the interface is named after the frame's channel.
pub fn candump(frame: &Frame, received: Duration, out: &mut Vec<u8>) {
    out.push(b'(');
    push_decimal(out, received.as_secs(), 10);
    out.push(b'.');
    push_decimal(out, u64::from(received.subsec_micros()), 6);
    out.extend_from_slice(b") can");
    out.push(b'0' + frame.channel());
    out.push(b' ');
    push_id(out, frame.id());
    out.push(b'#');
    match frame.kind() {
        Kind::Classic => push_hex(out, frame.data()),
        Kind::Remote => {
            out.push(b'R');
            // As candump does it: a remote frame that asks for nothing has no digit.
            if frame.length() > 0 {
                out.push(b'0' + frame.length());
            }
        }
        Kind::Fd { bit_rate_switch } => {
            out.extend_from_slice(if bit_rate_switch { b"#1" } else { b"#0" });
            push_hex(out, frame.data());
        }
    }
    out.push(b'\n');
}

/// Writes frames as points of InfluxDB's line protocol, and sees to it that their times strictly increase: InfluxDB
/// keeps only one of two points with the same tags and time.
///
/// Measurement `can`; tags `device`, `channel`, `id` (the digits of [`candump`]); fields `dlc` (data length in bytes),
/// `data` (hexadecimal) and `b0`, `b1`, … for the single bytes; a remote frame has `dlc` and `rtr=true` instead.
#[derive(Debug)]
pub struct Influx {
    series: Vec<u8>,
    /// The last point's time, in nanoseconds since 1970.
    last: u64,
}

impl Influx {
    /// `device` names the gateway, in the tag of that name. It must not be empty; control characters and backslashes,
    /// which a tag cannot have, become `_`.
    pub fn new(device: &str) -> Influx {
        let mut series = b"can,device=".to_vec();
        for byte in device.bytes() {
            match byte {
                // What would end a tag's value (InfluxDB, line protocol reference, special characters).
                b',' | b'=' | b' ' => series.extend([b'\\', byte]),
                b'\\' | 0..0x20 | 0x7F => series.push(b'_'),
                _ => series.push(byte),
            }
        }
        series.extend_from_slice(b",channel=");
        Influx { series, last: 0 }
    }

    /// Appends a frame received at a time since 1970. The point's time is that, or a nanosecond after the last
    /// point's if that is later; a clock that was set back by more than a second is followed.
    pub fn write(&mut self, frame: &Frame, received: Duration, out: &mut Vec<u8>) {
        const SET_BACK: u64 = 1_000_000_000;
        let now = u64::try_from(received.as_nanos()).unwrap_or(u64::MAX);
        let clock_was_set_back = self.last.saturating_sub(now) > SET_BACK;
        self.last = if now > self.last || clock_was_set_back { now } else { self.last.saturating_add(1) };

        out.extend_from_slice(&self.series);
        out.push(b'0' + frame.channel());
        out.extend_from_slice(b",id=");
        push_id(out, frame.id());
        out.extend_from_slice(b" dlc=");
        push_decimal(out, u64::from(frame.length()), 1);
        out.push(b'i');
        if frame.kind() == Kind::Remote {
            out.extend_from_slice(b",rtr=true");
        } else {
            out.extend_from_slice(b",data=\"");
            push_hex(out, frame.data());
            out.push(b'"');
            for (index, &byte) in (0..).zip(frame.data()) {
                out.extend_from_slice(b",b");
                push_decimal(out, index, 1);
                out.push(b'=');
                push_decimal(out, u64::from(byte), 1);
                out.push(b'i');
            }
        }
        out.push(b' ');
        push_decimal(out, self.last, 1);
        out.push(b'\n');
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
