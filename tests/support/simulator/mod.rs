//! A simulated CAN@net gateway on a real UDP socket, behind a network that misbehaves as a test wants it, for tests.
//!
//! * `device.rs`: the gateway itself, a pure state machine that refuses what the vendor's refuses
//! * `network.rs`: what befalls each request and each reply, by a script or at random
//! * `builder.rs`: what kind of gateway to start; this file: the handle of one that runs
//! * `server.rs`, `stream.rs`: its threads, and the frames that it streams
//!
//! ```ignore
//! let gateway = Gateway::builder()
//!     .frames_per_second(1000.0)
//!     .script(|command, copy| match (command, copy) {
//!         ("CAN 1 FILTER CLEAR\n", 1) => Reaction::LoseReply,
//!         _ => Reaction::Answer,
//!     })
//!     .start();
//! // ... point a program at gateway.target() ...
//! gateway.wait_for_command("CAN 1 START\n");
//! gateway.wait_until_streamed(100);
//! ```
#![allow(dead_code, unused_imports)] // each test program uses a part of it

mod builder;
pub mod device;
mod network;
mod server;
mod stream;

use std::net::SocketAddr;
use std::panic;
use std::sync::{Arc, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use builder::GatewayBuilder;
pub use device::{ControllerState, Device, MAX_PORTS};
pub use network::{Reaction, RequestCopy, Rng, random_faults};
use server::{Server, State};

/// How long the waits without a timeout of their own last before they panic.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A datagram that reached the gateway's end of the network, whatever befell it there.
#[derive(Clone, Debug)]
pub struct Received {
    /// What was in it.
    pub bytes: Vec<u8>,
    /// Who sent it.
    pub from: SocketAddr,
    /// When it arrived.
    pub at: Instant,
}

impl Received {
    /// What was in it, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// What the gateway did with one copy of a request.
#[derive(Clone, Debug)]
pub struct Execution {
    /// The request.
    pub command: String,
    /// What it answered, whether or not that arrived.
    pub reply: String,
    /// Itself before.
    pub before: Device,
    /// Itself after.
    pub after: Device,
}

/// A running gateway. Dropping it ends its threads and closes the port.
pub struct Gateway {
    server: Arc<Server>,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// A gateway after power-on, behind a network without faults, on a quiet bus.
    pub fn start() -> Gateway {
        Gateway::builder().start()
    }

    /// What [`Gateway::start`] starts, to be changed before.
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder::new()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Where it listens, as `127.0.0.1:PORT`.
    pub fn target(&self) -> String {
        self.address().to_string()
    }

    /// The device as it is now.
    pub fn device(&self) -> Device {
        self.server.lock().device
    }

    /// Whether the controller of the first port is running.
    pub fn is_running(&self) -> bool {
        self.device().is_running(1)
    }

    /// The filters of the first port, as in `STD 123 7FF`, without leading zeros.
    pub fn filters(&self) -> Vec<String> {
        self.device().filters(1).iter().map(ToString::to_string).collect()
    }

    /// How many datagrams of the stream have been handed to the kernel: what the filters held back does not count.
    pub fn frames_sent(&self) -> u64 {
        self.server.lock().frames_sent
    }

    /// Every datagram received so far.
    pub fn received(&self) -> Vec<Received> {
        self.server.lock().received.clone()
    }

    /// Every datagram received so far, as text.
    pub fn commands(&self) -> Vec<String> {
        let state = self.server.lock();
        state.received.iter().map(Received::text).collect()
    }

    /// Everything that the device was given so far, in that order: what was lost is not among it, a copy is.
    pub fn executed(&self) -> Vec<Execution> {
        self.server.lock().executed.clone()
    }

    /// By how much the worst delivery of the simulated network was late, because this machine was busy.
    pub fn lateness(&self) -> Duration {
        self.server.lock().lateness
    }

    /// Waits until `condition` holds for the datagrams received and returns them. Panics if that takes longer than
    /// `timeout`. The condition must ask the gateway nothing itself: the gateway is locked while it is evaluated.
    #[track_caller]
    pub fn wait_for(&self, timeout: Duration, mut condition: impl FnMut(&[Received]) -> bool) -> Vec<Received> {
        let state = self.wait_until(timeout, "what the test waits for", |state| condition(&state.received));
        state.received.clone()
    }

    /// Waits until exactly this command, line ending included, has been received, and returns the first such datagram.
    #[track_caller]
    pub fn wait_for_command(&self, command: &str) -> Received {
        let is_it = |received: &Received| received.bytes == command.as_bytes();
        let state = self.wait_until(TEST_TIMEOUT, command, |state| state.received.iter().any(is_it));
        let found = state.received.iter().find(|received| is_it(received));
        found.expect("the wait is over").clone()
    }

    /// Waits until at least so many frames have been streamed.
    #[track_caller]
    pub fn wait_until_streamed(&self, frames: u64) {
        let what = format!("{frames} frames streamed");
        drop(self.wait_until(TEST_TIMEOUT, &what, |state| state.frames_sent >= frames));
    }

    /// Sends a datagram to the client that sent the latest command.
    #[track_caller]
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        let client = self.server.lock().latest_client;
        self.send_to(client.expect("no client has sent anything yet"), bytes);
    }

    /// Sends a datagram to anyone, from the gateway's own address.
    pub fn send_to(&self, address: SocketAddr, bytes: impl AsRef<[u8]>) {
        self.server.send(address, bytes.as_ref());
    }

    /// Which flags STATUS shows from now on.
    pub fn set_status(&self, flags: &str) {
        self.server.lock().device.flags = flags.as_bytes().try_into().expect("four flags");
    }

    /// Without power it ignores what it receives and loses its state.
    pub fn set_power(&self, on: bool) {
        let mut state = self.server.lock();
        state.options.silent = !on;
        state.lose_power();
    }

    /// A silent gateway ignores what it receives. It keeps its state and its stream.
    pub fn set_silent(&self, silent: bool) {
        self.server.lock().options.silent = silent;
    }

    /// Streams so many frames in all, from now on; u64::MAX for no limit.
    pub fn set_limit(&self, frames: u64) {
        self.server.lock().options.stop_after_frames = frames;
        self.server.changed.notify_all();
    }

    /// Halts the buses as another program would.
    pub fn halt(&self) {
        let mut state = self.server.lock();
        for port in 1..=MAX_PORTS {
            if state.device.is_running(port) {
                state.device.set_state(port, ControllerState::Stopped);
            }
        }
        state.stream = None;
    }

    /// Ends it. The port is free again when this returns.
    pub fn stop(self) {}

    #[track_caller]
    fn wait_until(
        &self,
        timeout: Duration,
        what: &str,
        mut condition: impl FnMut(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let deadline = Instant::now() + timeout;
        let mut state = self.server.lock();
        while !condition(&state) {
            assert!(!state.crashed, "a thread of the gateway panicked");
            if Instant::now() >= deadline {
                let list = state.received.iter().map(|r| format!("\n  {:?} from {}", r.text(), r.from));
                let (count, list) = (list.len(), list.collect::<String>());
                let frames = state.frames_sent;
                panic!("{what:?} not within {timeout:?}; {frames} frames streamed, received {count}:{list}");
            }
            state = self.server.wait(state, Some(deadline));
        }
        state
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.server.lock().ending = true;
        self.server.changed.notify_all();
        // A thread that is blocked in recv_from sees nothing but a datagram.
        self.server.send(self.server.address, b"");
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join() {
                // A test must not pass over this; one that fails already has said why.
                if !thread::panicking() {
                    panic::resume_unwind(panic);
                }
            }
        }
    }
}
