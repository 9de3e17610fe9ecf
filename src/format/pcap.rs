//! Packet capture, for Wireshark and tshark: the classic pcap file (IETF draft-ietf-opsawg-pcap), little-endian, with
//! times in nanoseconds and link type 227, LINKTYPE_CAN_SOCKETCAN (tcpdump.org). Each record holds a frame the way
//! SocketCAN has it: identifier and flags as one big-endian number, the data's length, for CAN FD its flags, two reserved
//! bytes, the data.

use std::time::Duration;

use crate::format::event::{ControllerEvent, StateChange};
use crate::format::frame::{DATA_MAX, Frame, FrameKind, Id};

/// The file header.
#[rustfmt::skip]
pub const PCAP_HEADER: [u8; 24] = [
    0x4D, 0x3C, 0xB2, 0xA1, // times in nanoseconds, numbers little-endian
    2, 0, 4, 0, // version 2.4
    0, 0, 0, 0, 0, 0, 0, 0, // reserved
    72, 0, 0, 0, // the longest record: 8 bytes and the data of CAN FD
    227, 0, 0, 0, // LINKTYPE_CAN_SOCKETCAN
];

/// Identifier, length, flags, two reserved bytes.
const HEADER_LENGTH: usize = 8;

/// Flags beside the identifier: 29 bits, remote frame.
const EFF: u32 = 1 << 31;
const RTR: u32 = 1 << 30;

/// Flags of CAN FD: bit-rate switch, and that it is CAN FD at all.
const BRS: u8 = 0x01;
const FDF: u8 = 0x04;

/// Appends a frame as a record of pcap, to come after [`PCAP_HEADER`]. `received` is the time since 1970; its seconds
/// have 32 bits there, which last until 2106.
///
/// ```
/// use std::time::Duration;
/// use can_udp::format::{PCAP_HEADER, write_pcap_record};
/// use can_udp::format::frame::Frame;
///
/// let mut file = PCAP_HEADER.to_vec();
/// write_pcap_record(&Frame::parse(b"M 1 CSD 123 11 22")?, Duration::new(1_436_509_052, 249_713_000), &mut file);
/// assert_eq!(file[24 + 16..], [0, 0, 0x01, 0x23, 2, 0, 0, 0, 0x11, 0x22]);
/// # Ok::<(), can_udp::format::frame::ParseFrameError>(())
/// ```
pub fn write_pcap_record(frame: &Frame, received: Duration, out: &mut Vec<u8>) {
    let id = match frame.id() {
        Id::Standard(number) => number,
        Id::Extended(number) => number | EFF,
    };
    let (id, flags) = match frame.kind() {
        FrameKind::Classic => (id, 0),
        FrameKind::Remote => (id | RTR, 0),
        FrameKind::Fd { bit_rate_switch: false } => (id, FDF),
        FrameKind::Fd { bit_rate_switch: true } => (id, FDF | BRS),
    };
    write_record(id, frame.length(), flags, frame.data(), received, out);
}

/// Appends a controller event as an error frame of SocketCAN (linux/can/error.h). Nothing for events that SocketCAN
/// does not have.
pub(super) fn write_error_record(event: &ControllerEvent, received: Duration, out: &mut Vec<u8>) {
    /// An error frame; bus off; a controller's state, in the second byte of the data.
    const ERROR: u32 = 0x2000_0000;
    const BUS_OFF: u32 = 0x40;
    const CONTROLLER: u32 = 0x04;
    /// Receiving and sending have reached the warning level; the controller is error active.
    const WARNING: u8 = 0x0C;
    const ACTIVE: u8 = 0x40;
    let (class, state) = match event.change {
        StateChange::BusOff => (BUS_OFF, 0),
        StateChange::ErrorWarningSet => (CONTROLLER, WARNING),
        StateChange::ErrorWarningReset => (CONTROLLER, ACTIVE),
        StateChange::Other => return,
    };
    write_record(ERROR | class, 8, 0, &[0, state, 0, 0, 0, 0, 0, 0], received, out);
}

fn write_record(id: u32, frame_length: u8, flags: u8, data: &[u8], received: Duration, out: &mut Vec<u8>) {
    let length = (HEADER_LENGTH + data.len()) as u32;
    for number in [received.as_secs() as u32, received.subsec_nanos(), length, length] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[frame_length, flags, 0, 0]);
    out.extend_from_slice(data);
}

/// The longest record, in bytes.
pub(crate) const PCAP_RECORD_MAX: usize = RECORD_HEADER_LENGTH + HEADER_LENGTH + DATA_MAX;

/// Seconds, nanoseconds, captured length, length.
const RECORD_HEADER_LENGTH: usize = 16;

/// What is at a place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PcapRecord {
    /// A record of so many bytes.
    Whole(usize),
    /// Nothing, or the beginning of a record that the bytes end in.
    Cut,
    /// No record of ours.
    Invalid,
}

/// What the bytes begin with, if a record begins there.
pub(crate) fn pcap_record(bytes: &[u8]) -> PcapRecord {
    let number = |at: usize| {
        let field = bytes.get(at..at + 4)?;
        Some(field.iter().rev().fold(0u32, |number, &byte| number << 8 | u32::from(byte)))
    };
    let (nanos, captured, length) = (number(4), number(8), number(12));
    let is_length = |length: u32| (HEADER_LENGTH..=HEADER_LENGTH + DATA_MAX).contains(&(length as usize));
    if nanos.is_some_and(|nanos| nanos >= 1_000_000_000)
        || captured.is_some_and(|captured| !is_length(captured))
        || length.is_some_and(|length| Some(length) != captured)
    {
        return PcapRecord::Invalid;
    }
    match length.map(|length| RECORD_HEADER_LENGTH + length as usize) {
        Some(size) if size <= bytes.len() => PcapRecord::Whole(size),
        _ => PcapRecord::Cut,
    }
}
