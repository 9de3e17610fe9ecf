//! The frames that the simulated bus carries between START and STOP.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::device::Device;

/// The streamer rests at least this long between two bursts: a sleep cannot be much shorter, and the other threads get the
/// lock meanwhile.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Makes the n-th datagram of the stream.
pub(super) type FrameMaker = Box<dyn FnMut(u64) -> Vec<u8> + Send>;

/// A stream to one client, from START to STOP.
pub(super) struct Stream {
    pub to: SocketAddr,
    /// The CAN port whose START began it.
    pub port: u8,
    pub since: Instant,
    pub made: u64,
    pub sent: u64,
}

impl Stream {
    pub fn new(to: SocketAddr, port: u8, now: Instant) -> Stream {
        Stream { to, port, since: now, made: 0, sent: 0 }
    }

    /// How many frames must have been made by now. A streamer that was held up catches up, yet at no more than about twice
    /// the pace: a flood would overrun the receive buffer of the other side, and no bus does that.
    pub fn due(&self, rate: f64) -> u64 {
        // The first one is due at once.
        let due = (self.since.elapsed().as_secs_f64() * rate) as u64 + 1;
        due.min(self.made + (2.0 * rate * TICK.as_secs_f64()).ceil() as u64)
    }

    /// When to send the next ones.
    pub fn next(&self, rate: f64) -> Instant {
        let next = self.since + Duration::from_secs_f64(self.made as f64 / rate);
        next.max(Instant::now() + TICK)
    }
}

/// Makes standard frames whose first four data bytes are their number.
pub(super) fn numbered_frames(line_ending: &'static str) -> FrameMaker {
    Box::new(move |n| {
        let [.., a, b, c, d] = n.to_be_bytes();
        let data = format!("{a:02X} {b:02X} {c:02X} {d:02X} 55 AA 55 AA");
        format!("M 1 CSD 1{d:02X} {data}{line_ending}").into_bytes()
    })
}

/// Whether the filters pass a datagram: by its first line, and always if that is no frame.
pub(super) fn passes(device: &Device, port: u8, datagram: &[u8]) -> bool {
    identify(datagram).is_none_or(|(extended, identifier)| device.passes(port, extended, identifier))
}

/// Reads the kind and the identifier of `M 1 CSD 100 ...`.
fn identify(datagram: &[u8]) -> Option<(bool, u32)> {
    let mut tokens = std::str::from_utf8(datagram).ok()?.split_ascii_whitespace();
    if !tokens.next()?.eq_ignore_ascii_case("M") {
        return None;
    }
    let format = tokens.nth(1)?.as_bytes();
    let extended = format.get(1)?.eq_ignore_ascii_case(&b'E');
    Some((extended, u32::from_str_radix(tokens.next()?, 16).ok()?))
}
