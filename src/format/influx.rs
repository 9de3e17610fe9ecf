//! InfluxDB's line protocol.

use std::time::Duration;

use super::{push_decimal, push_hex, push_id};
use crate::format::controller::ControllerEvent;
use crate::format::frame::{Frame, FrameKind};
use crate::text::escape_into;

/// Writes frames as points of InfluxDB's line protocol. Their times strictly increase, because InfluxDB keeps only one of two
/// points with the same tags and time.
///
/// Measurement `can`; tags `channel`, `device`, `id` (the digits of [`write_candump`](super::write_candump)), in the order that
/// InfluxDB wants for speed; fields `dlc` (data length in bytes), `data` (hexadecimal) and `b0`, `b1`, … for the single
/// bytes; a remote frame has `dlc` and `rtr=true` instead; a CAN FD frame also has `fd=true` and `brs`, whether its data
/// was sent at the higher bit rate.
#[derive(Debug)]
pub struct InfluxWriter {
    /// The tag `device`, with its comma and name.
    device: Vec<u8>,
    /// The last point's time, in nanoseconds since 1970.
    last: u64,
}

impl InfluxWriter {
    /// `device` names the gateway, in the tag of that name. It must not be empty; control characters and backslashes,
    /// which a tag cannot have, become `_`.
    pub fn new(device: &str) -> InfluxWriter {
        let device = device.replace(|c: char| c == '\\' || c.is_ascii_control(), "_");
        // What would end a tag's value (InfluxDB, line protocol reference, special characters).
        let device = device.replace(',', r"\,").replace('=', r"\=").replace(' ', r"\ ");
        InfluxWriter { device: format!(",device={device}").into_bytes(), last: 0 }
    }

    /// Appends a frame received at a time since 1970. The point's time is that, or a nanosecond after the last
    /// point's if that is later; a clock that was set back by more than a second is followed.
    pub fn write(&mut self, frame: &Frame, received: Duration, out: &mut Vec<u8>) {
        self.advance(received);
        out.extend_from_slice(b"can,channel=");
        out.push(frame.channel().digit());
        out.extend_from_slice(&self.device);
        out.extend_from_slice(b",id=");
        push_id(out, frame.id());
        out.extend_from_slice(b" dlc=");
        push_decimal(out, u64::from(frame.length()), 1);
        out.push(b'i');
        match frame.kind() {
            FrameKind::Classic => {}
            FrameKind::Remote => out.extend_from_slice(b",rtr=true"),
            FrameKind::Fd { bit_rate_switch: true } => out.extend_from_slice(b",fd=true,brs=true"),
            FrameKind::Fd { bit_rate_switch: false } => out.extend_from_slice(b",fd=true,brs=false"),
        }
        if frame.kind() != FrameKind::Remote {
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

    /// Appends a controller event as a point of the measurement `can_event`: tags `channel` and `device`, field `text`.
    pub(super) fn write_event(&mut self, event: &ControllerEvent, received: Duration, out: &mut Vec<u8>) {
        self.advance(received);
        out.extend_from_slice(b"can_event,channel=");
        out.push(event.channel.digit());
        out.extend_from_slice(&self.device);
        let mut text = Vec::new();
        escape_into(&mut text, event.text);
        // What would end a field's value.
        let text = String::from_utf8_lossy(&text).replace('\\', r"\\").replace('"', r#"\""#);
        out.extend_from_slice(format!(" text=\"{text}\" {}\n", self.last).as_bytes());
    }

    fn advance(&mut self, received: Duration) {
        const SET_BACK: u64 = 1_000_000_000;
        let now = u64::try_from(received.as_nanos()).unwrap_or(u64::MAX);
        let clock_was_set_back = self.last.saturating_sub(now) > SET_BACK;
        self.last = if now > self.last || clock_was_set_back { now } else { self.last.saturating_add(1) };
    }
}
