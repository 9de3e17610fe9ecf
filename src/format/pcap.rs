//! Packet capture, for Wireshark and tshark: the classic pcap file (IETF draft-ietf-opsawg-pcap), little-endian, with
//! times in nanoseconds and link type 227, LINKTYPE_CAN_SOCKETCAN (tcpdump.org). Each record holds a frame the way
//! SocketCAN has it: identifier and flags as one big-endian number, the data's length, for CAN FD its flags, two reserved
//! bytes, the data.

use std::time::Duration;

use crate::format::controller::{ControllerEvent, StateChange};
use crate::format::frame::{DATA_MAX, Frame, FrameKind, Id};

/// The file header, 24 bytes: pcap 2.4, little-endian, times in nanoseconds, link type 227 (SocketCAN).
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
/// # Ok::<(), can_udp::gateway::ValueError>(())
/// ```
pub fn write_pcap_record(frame: &Frame, received: Duration, out: &mut Vec<u8>) {
    let id = match frame.id() {
        Id::Standard(number) => number,
        Id::Extended(number) => number | EFF,
    };
    let (id, flags) = match frame.kind() {
        FrameKind::Classic => (id, 0),
        FrameKind::Remote => (id | RTR, 0),
        FrameKind::Fd { bit_rate_switch } => (id, FDF | (BRS * u8::from(bit_rate_switch))),
    };
    write_record(id, frame.length(), flags, frame.data(), received, out);
}

/// Appends a controller event as an error frame of SocketCAN (linux/can/error.h). Nothing for events that SocketCAN
/// does not have.
pub(super) fn write_error_record(event: &ControllerEvent, received: Duration, out: &mut Vec<u8>) {
    // An error frame: bus off, or a controller's state in the second byte of the data.
    let (id, state) = match event.change {
        StateChange::BusOff => (0x2000_0040, 0),
        // Receiving and sending have reached the warning level.
        StateChange::ErrorWarningSet => (0x2000_0004, 0x0C),
        // The controller is error active.
        StateChange::ErrorWarningReset => (0x2000_0004, 0x40),
        StateChange::Other => return,
    };
    write_record(id, 8, 0, &[0, state, 0, 0, 0, 0, 0, 0], received, out);
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

/// Seconds, nanoseconds, captured length, length.
pub(crate) const PCAP_RECORD_HEADER_LENGTH: usize = 16;

/// The length of the record that begins with these bytes, `None` if none of ours does. What is missing at their end counts as
/// right: a record that is cut within its lengths is as long as the shortest.
pub(crate) fn pcap_record_length(bytes: &[u8]) -> Option<usize> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let length = number(8).map_or(HEADER_LENGTH, |captured| captured as usize);
    let is_ours = (HEADER_LENGTH..=HEADER_LENGTH + DATA_MAX).contains(&length)
        && number(4).is_none_or(|nanos| nanos < 1_000_000_000)
        && number(12).is_none_or(|original| original as usize == length);
    is_ours.then_some(PCAP_RECORD_HEADER_LENGTH + length)
}
