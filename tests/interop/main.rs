//! The programs together with other programs. All tests are `#[ignore]`d: they need what `.ci/run` installs, and root.
//!
//! * `namespaces`: the default target and port, and a missing route, between two hosts simulated by network namespaces
//! * `network`: a router that refuses, names with several addresses, a local address that is replaced
//! * `recipes`: each command of the README that involves another program
//! * `socketcan`: the output as a SocketCAN interface, where the kernel has `vcan`

#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/simulator/mod.rs"]
mod simulator;

mod namespaces;
mod network;
mod recipes;
mod record;
mod socketcan;
