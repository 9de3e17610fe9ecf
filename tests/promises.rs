//! What both programs promise, tried with the real binaries on real sockets: one module for each promise, in one program,
//! which is quick to build and runs its tests side by side. The exhaustive schedules of the handshake are a program of
//! their own; what tests the library's inside is in `inside`, and a part of the library.

mod confirm;
mod default_port;
mod errors;
mod formats;
mod handshake_wire;
mod interop;
mod lossy_network;
mod namespaces;
mod options;
mod programs;
mod readme;
mod shutdown;
mod silence;
mod simulator;
mod socketcan;
mod status_schedules;
mod stop;
mod stream;
mod taking_over;
mod terminal;
mod unattended;
