//! A CAN bus behind a UDP gateway of HMS Ixxat's CAN@net family (ASCII protocol).
//!
//! Two programs are built on this library: `can-listen` starts the bus and prints every datagram that the gateway streams,
//! `can-stop` stops it. A listener of one's own takes a dozen lines:
//!
//! ```no_run
//! use std::net::SocketAddr;
//!
//! use can_udp::gateway::{Connection, Event, Setup};
//!
//! let local = SocketAddr::from(([0, 0, 0, 0], 5000));
//! let gateway = SocketAddr::from(([10, 8, 0, 109], 5000));
//! let mut bus = Connection::open(local, gateway)?; // bind, connect, discard what was queued
//! bus.start(&Setup::default())?; // INIT, FILTER CLEAR, FILTER ADD, START
//! for _ in 0..1000 {
//!     if let Event::Datagram(bytes) = bus.next_event(None) {
//!         print!("{}", String::from_utf8_lossy(bytes)); // as in "M 1 CSD 100 55 AA"
//!     }
//! }
//! bus.stop(1)?; // Ok only if the gateway confirmed it
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The way of a datagram
//!
//! ```text
//! gateway --UDP--> socket -> driver -> session -> printer -> format -> spool -> stdout thread --> stdout
//!                            \-> handshake, transaction: replies in, commands out --UDP--> gateway
//! ```
//!
//! * [`gateway`] talks to the gateway. Its driver reads the socket, feeds the state machines `handshake` (which command
//!   follows which answer) and `transaction` (one command and its answer), and sends what they want sent.
//!   [`gateway::Connection`] is all of that behind one call, [`next_event`](gateway::Connection::next_event).
//! * [`mod@format`] turns one frame into bytes: candump lines, InfluxDB points, pcap records.
//! * `output` counts and encodes datagrams and writes them to stdout on a thread of its own, so that the loop never waits
//!   for a slow reader.
//! * [`cli`] is the two programs. Its `session` decides what follows from each event; `advice` has every hint and remedy.
//!
//! Imports point one way, from `cli` over `output` and `format` to `gateway`. Only Linux is supported.

#[cfg(not(target_os = "linux"))]
compile_error!("can-udp works on Linux only: it reads /proc and relies on how Linux delivers UDP datagrams");

pub mod cli;
pub mod format;
pub mod gateway;
mod output;
mod text;

#[cfg(test)]
mod properties;
