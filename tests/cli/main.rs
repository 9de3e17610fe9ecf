//! What both programs promise, tried with the real binaries on real sockets: one module for each promise.

#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/simulator/mod.rs"]
mod simulator;

mod confirm;
mod default_port;
mod errors;
mod faults;
mod formats;
mod gateway_refusals;
mod handshake_wire;
mod lossy_network;
mod options;
mod random_faults;
mod readme;
mod shutdown;
mod silence;
mod stop;
mod stream;
mod taking_over;
mod terminal;
mod unattended;
