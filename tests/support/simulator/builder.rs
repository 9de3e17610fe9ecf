//! What kind of gateway to start.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::Instant;

use super::device::{ControllerState, Device, MAX_PORTS};
use super::network::{Reaction, Script};
use super::server::{Server, State};
use super::stream::{FrameMaker, TICK, numbered_frames};
use super::{Gateway, TEST_TIMEOUT};

/// What kind of gateway to start; see [`Gateway::builder`].
pub struct GatewayBuilder {
    pub(super) address: SocketAddr,
    pub(super) device: Device,
    pub(super) options: Options,
}

/// What is not the device's own.
pub(super) struct Options {
    pub silent: bool,
    pub refusals: Vec<(String, String)>,
    pub frames_per_second: f64,
    pub stop_after_frames: u64,
    pub frame_maker: FrameMaker,
    pub script: Script,
    is_default_maker: bool,
}

impl GatewayBuilder {
    pub(super) fn new() -> GatewayBuilder {
        let device = Device::new();
        GatewayBuilder {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            device,
            options: Options {
                silent: false,
                refusals: Vec::new(),
                frames_per_second: 0.0,
                stop_after_frames: u64::MAX,
                frame_maker: numbered_frames(device.line_ending),
                is_default_maker: true,
                script: Box::new(|_, _| Reaction::Answer),
            },
        }
    }

    /// The address to listen on, 127.0.0.1 and a free port by default.
    pub fn bind(mut self, address: impl ToSocketAddrs) -> Self {
        let mut resolved = address.to_socket_addrs().expect("an address to bind to");
        self.address = resolved.next().expect("an address to bind to");
        // Behind a wildcard, std cannot tell which address was asked, and so not answer from it either.
        let one_address = !self.address.ip().is_unspecified();
        assert!(one_address, "bind to one address, not to all");
        self
    }

    /// Whether the controllers are running already, since an earlier session. No client is streamed to before a START.
    pub fn running(self, running: bool) -> Self {
        self.state(if running { ControllerState::Running } else { ControllerState::Uninitialised })
    }

    /// The state of all controllers; uninitialised by default.
    pub fn state(mut self, state: ControllerState) -> Self {
        (1..=MAX_PORTS).for_each(|port| self.device.set_state(port, state));
        self
    }

    /// A device with a past, as it is.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// The number of CAN ports, 4 by default. Commands for others are refused with error 12.
    pub fn ports(mut self, ports: u8) -> Self {
        assert!((1..=MAX_PORTS).contains(&ports), "{ports} ports");
        self.device.ports = ports;
        self
    }

    /// Carries out every well-formed command in any state, INIT while running aside.
    pub fn accepting(mut self) -> Self {
        self.device.accepting = true;
        self
    }

    /// Whether it plays dead: every command is recorded, none is carried out or answered.
    pub fn silent(mut self, silent: bool) -> Self {
        self.options.silent = silent;
        self
    }

    /// What ends a reply and a frame of the default stream: `"\n"` (the default), `"\r"`, `"\r\n"`, `"\\n"` and so on.
    pub fn line_ending(mut self, line_ending: &'static str) -> Self {
        self.device.line_ending = line_ending;
        if self.options.is_default_maker {
            self.options.frame_maker = numbered_frames(line_ending);
        }
        self
    }

    /// Refuses every command that begins with `prefix`, with a reply such as `R ERR 5 text`, and does not carry it out.
    /// Can be given repeatedly.
    pub fn refuse(mut self, prefix: &str, reply: &str) -> Self {
        self.options.refusals.push((prefix.to_owned(), reply.to_owned()));
        self
    }

    /// Which flags STATUS shows beside `I`: `"----"` (the default), `"B---"`.
    pub fn status(mut self, flags: &str) -> Self {
        self.device.flags = flags.as_bytes().try_into().expect("four flags");
        self
    }

    /// A gateway that does not know STATUS.
    pub fn without_status(mut self) -> Self {
        self.device.knows_status = false;
        self
    }

    /// How many frames a second appear on the simulated bus from START until STOP; 0, the default, for none.
    pub fn frames_per_second(mut self, rate: f64) -> Self {
        assert!(rate.is_finite() && rate >= 0.0, "{rate} is no rate");
        self.options.frames_per_second = rate;
        self
    }

    /// Falls silent once a START was followed by so many streamed frames.
    pub fn stop_after_frames(mut self, frames: u64) -> Self {
        self.options.stop_after_frames = frames;
        self
    }

    /// Makes the n-th datagram of the stream, with its line ending, from 0 and never starting over. If its first line
    /// is no frame, no filter holds it back. The default makes standard frames, whose first four data bytes are `n`.
    pub fn frame_maker(mut self, maker: impl FnMut(u64) -> Vec<u8> + Send + 'static) -> Self {
        self.options.frame_maker = Box::new(maker);
        self.options.is_default_maker = false;
        self
    }

    /// Decides what befalls each command: given its text as it came, and how many times that text has been received by
    /// now, this time included.
    pub fn script(mut self, script: impl FnMut(&str, u32) -> Reaction + Send + 'static) -> Self {
        self.options.script = Box::new(script);
        self
    }

    /// Starts the gateway.
    pub fn start(self) -> Gateway {
        let mut bound = UdpSocket::bind(self.address);
        // A port that was just closed is still held by a program that is being started at this moment.
        let deadline = Instant::now() + TEST_TIMEOUT;
        while bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) && Instant::now() < deadline {
            thread::sleep(TICK);
            bound = UdpSocket::bind(self.address);
        }
        let socket = bound.unwrap_or_else(|error| panic!("the gateway cannot bind {}: {error}", self.address));
        Server::start(socket, State::new(self.device, self.options))
    }
}
