//! can-listen without a device: runs the simulated gateway on loopback and can-listen's own code against it; with
//! `--gateway`, the gateway alone, to try the installed programs on.

#[path = "mod.rs"]
mod simulator;

use std::process::ExitCode;
use std::thread;

use can_udp::cli::listen::{self, ListenOptions};
use clap::Parser;
use simulator::Gateway;

fn main() -> ExitCode {
    let gateway = Gateway::builder().frames_per_second(20.0).status("----").start();
    let target = gateway.target();
    match std::env::args().nth(1).as_deref() {
        None => {}
        Some("--gateway") => {
            eprintln!(
                "demo: a simulated gateway that streams 20 frames a second, until Ctrl-C; in another terminal, try:\n\
                 export CAN_TARGET={target}\ncan-listen"
            );
            loop {
                thread::park();
            }
        }
        Some(_) => {
            eprintln!("demo: run it with --gateway or with nothing");
            return ExitCode::from(2);
        }
    }
    eprintln!(
        "demo: can-listen on a simulated gateway that streams 20 frames a second; in another terminal, try:\n\
         cargo run --release --bin can-stop -- --target {target}"
    );
    let arguments = ["can-listen", "--bind", "127.0.0.1:0", "--stop-on-exit", "--target", &target];
    listen::run(&ListenOptions::parse_from(arguments))
}
