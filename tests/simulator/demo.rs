//! can-listen without a device: runs the simulated gateway on loopback and can-listen's own code against it.

#[path = "mod.rs"]
mod simulator;

use std::process::ExitCode;

use can_udp::format::Format;
use can_udp::handshake::Retry;
use can_udp::listen::{self, Options};
use can_udp::protocol::{BitRate, Filter};
use can_udp::{Verbosity, exit_code};
use simulator::Gateway;

fn main() -> ExitCode {
    let gateway = Gateway::builder().frames_per_second(20.0).start();
    eprintln!(
        "demo: can-listen on a simulated gateway that streams 20 frames a second; in another terminal, try: \
         can-stop --target {}",
        gateway.target()
    );
    let bind = "127.0.0.1:0".parse().expect("an address with any free port");
    let options = Options {
        target: gateway.target().parse().expect("the simulator's address"),
        bind,
        channel: 1,
        bit_rate: BitRate::DEFAULT,
        filters: vec![Filter::ALL_STANDARD],
        retry: Retry::default(),
        format: Format::Raw,
        count: None,
        idle_timeout: None,
        stop_on_exit: true,
        verbosity: Verbosity::Normal,
    };
    exit_code("can-listen", listen::run(&options))
}
