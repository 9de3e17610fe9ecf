//! The loads: how many datagrams a second, and how many of them at once.

use std::thread;
use std::time::{Duration, Instant};

/// Maximum datagrams per system call. With one the sender would be slower than most listeners, so nothing would be lost at
/// full speed; with 64, the maximum on Linux, it would be faster than all of them.
const MAX_PER_SEND: usize = 8;

#[derive(Clone, Copy)]
pub struct Load {
    pub name: &'static str,
    /// What selects it on the command line.
    pub key: &'static str,
    /// `None`: as fast as the sender can.
    pub per_second: Option<u32>,
    /// How many are sent at once.
    pub burst: usize,
}

pub const SINGLE_250: Load = Load { name: "250/s", key: "250", per_second: Some(250), burst: 1 };
pub const SINGLE_500: Load = Load { name: "500/s", key: "500", per_second: Some(500), burst: 1 };
pub const SINGLE_1000: Load = Load { name: "1,000/s", key: "1000", per_second: Some(1_000), burst: 1 };
pub const SINGLE_2000: Load = Load { name: "2,000/s", key: "2000", per_second: Some(2_000), burst: 1 };
pub const SINGLE_3000: Load = Load { name: "3,000/s", key: "3000", per_second: Some(3_000), burst: 1 };
pub const CYCLE_20: Load = Load { name: "20 at once every 10 ms", key: "cycle", per_second: Some(2_000), burst: 20 };
pub const SINGLE_5000: Load = Load { name: "5,000/s", key: "5000", per_second: Some(5_000), burst: 1 };
pub const SINGLE_20000: Load = Load { name: "20,000/s", key: "20000", per_second: Some(20_000), burst: 1 };
pub const BURST_20: Load =
    Load { name: "20,000/s in bursts of 20", key: "20000x20", per_second: Some(20_000), burst: 20 };
pub const BURST_64: Load =
    Load { name: "20,000/s in bursts of 64", key: "20000x64", per_second: Some(20_000), burst: 64 };
pub const BURST_16: Load =
    Load { name: "100,000/s in bursts of 16", key: "100000x16", per_second: Some(100_000), burst: 16 };
pub const BURST_100: Load =
    Load { name: "100,000/s in bursts of 100", key: "100000x100", per_second: Some(100_000), burst: 100 };
pub const BURST_300: Load =
    Load { name: "300,000/s in bursts of 300", key: "300000", per_second: Some(300_000), burst: 300 };
/// How many gateways a fleet has.
pub const FLEET: u32 = 40;
pub const FLEET_250: Load = Load { name: "40 gateways of 250/s", key: "250", per_second: Some(FLEET * 250), burst: 1 };
pub const FLEET_500: Load = Load { name: "40 gateways of 500/s", key: "500", per_second: Some(FLEET * 500), burst: 1 };
pub const FLAT_OUT: Load = Load { name: "full speed", key: "full-speed", per_second: None, burst: MAX_PER_SEND };

impl Load {
    /// How long a program gets this load: longer than usual where few wake-ups come in a second.
    pub fn span(&self, usual: Duration) -> Duration {
        let bursts_per_second = self.per_second.map_or(u32::MAX, |rate| rate / self.burst as u32);
        usual * (1000 / bursts_per_second).clamp(1, 4)
    }
}

/// What was sent, and at what rate.
pub struct Sent {
    pub datagrams: u64,
    pub per_second: f64,
}

/// Calls `send` at the load's rate with the number of datagrams to send, at most [`MAX_PER_SEND`] per call.
pub fn pace(load: &Load, span: Duration, send: &mut dyn FnMut(usize)) -> Sent {
    let period = load.per_second.map_or(Duration::ZERO, |rate| Duration::from_secs(1) * load.burst as u32 / rate);
    let (begun, mut due, mut sent) = (Instant::now(), Duration::ZERO, 0);
    while due < span && begun.elapsed() < span {
        thread::sleep(due.saturating_sub(begun.elapsed()));
        for first in (0..load.burst).step_by(MAX_PER_SEND) {
            send(MAX_PER_SEND.min(load.burst - first));
        }
        sent += load.burst;
        due += period;
    }
    Sent { datagrams: sent as u64, per_second: sent as f64 / begun.elapsed().max(due).as_secs_f64() }
}
