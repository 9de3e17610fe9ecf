//! The log format of `candump -L` (can-utils), which its tools, python-can and Wireshark read.

use std::time::Duration;

use super::{push_decimal, push_hex, push_id};
use crate::format::frame::{Frame, FrameKind};

/// Appends a frame as `candump -L` of can-utils logs it: `(1436509052.249713) can1 123#1122` and a newline.
/// `received` is the time since 1970; the interface is named after the frame's channel.
pub fn write_candump(frame: &Frame, received: Duration, out: &mut Vec<u8>) {
    out.push(b'(');
    push_decimal(out, received.as_secs(), 10);
    out.push(b'.');
    push_decimal(out, u64::from(received.subsec_micros()), 6);
    out.extend_from_slice(b") can");
    out.push(frame.channel().digit());
    out.push(b' ');
    push_id(out, frame.id());
    out.push(b'#');
    match frame.kind() {
        FrameKind::Classic => push_hex(out, frame.data()),
        FrameKind::Remote => {
            out.push(b'R');
            // As candump does it: a remote frame that asks for nothing has no digit.
            if frame.length() > 0 {
                out.push(b'0' + frame.length());
            }
        }
        FrameKind::Fd { bit_rate_switch } => {
            out.extend_from_slice(if bit_rate_switch { b"#1" } else { b"#0" });
            push_hex(out, frame.data());
        }
    }
    out.push(b'\n');
}
