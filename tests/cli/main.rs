//! What both programs promise, tested with the real binaries on real sockets. One module for each promise:
//!
//! | module | promise |
//! | --- | --- |
//! | `handshake_wire` | the wire carries exactly the handshake; only the gateway's replies advance it |
//! | `faults`, `lossy_network` | lost, late and doubled commands and replies do no harm |
//! | `random_faults` | nothing false is said of the gateway under random faults |
//! | `gateway_refusals` | a refusal ends a session only where nothing better can be done, and names the remedy |
//! | `taking_over` | a running bus is taken over; later replies disturb nothing |
//! | `stream`, `formats`, `terminal` | every datagram is printed or counted as lost, as its reader expects it |
//! | `silence` | every silence of the bus is explained |
//! | `shutdown`, `unattended` | everything received is written, however a session ends; the bus is halted if asked |
//! | `stop`, `confirm` | `can-stop` halts the bus, and confirms it on request |
//! | `options`, `errors`, `default_port` | option values, failures and their remedies, the default port |
//! | `messages` | messages on stderr are bounded and complete |
//! | `record` | a file on stdout stays readable, and what it loses is reported |
//! | `addresses` | addresses are taken as they are meant; a wrong one names its option |
//! | `readme` | the README stays true |
//! | `simulated_gateway` | the gateway of these tests answers as the vendor's does |
//!
//! In `tests/support`: `programs.rs` runs the binaries, `simulator/` is the gateway. Tests that need other programs, network
//! namespaces or root are in `tests/interop` or `#[ignore]`d; the exhaustive model is in `tests/schedules`.

#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/simulator/mod.rs"]
mod simulator;

mod addresses;
mod confirm;
mod default_port;
mod errors;
mod faults;
mod formats;
mod gateway_refusals;
mod handshake_wire;
mod lossy_network;
mod messages;
mod options;
mod random_faults;
mod readme;
mod record;
mod shutdown;
mod silence;
mod simulated_gateway;
mod stop;
mod stream;
mod taking_over;
mod terminal;
mod unattended;
