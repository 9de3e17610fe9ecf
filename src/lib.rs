//! A CAN bus behind a UDP gateway of HMS Ixxat's CAN@net family (ASCII protocol).
//!
//! Two programs are built on this library: `can-listen` starts the bus and prints every datagram that the gateway streams,
//! `can-stop` stops it. A listener of one's own:
//!
//! ```no_run
//! use can_udp::{Channel, Connection, Event, Setup};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut bus = Connection::open("0.0.0.0:5000".parse()?, "10.8.0.109:5000".parse()?, Channel::DEFAULT)?;
//!     bus.start(&Setup::default())?; // INIT, FILTER CLEAR, FILTER ADD, START
//!     for _ in 0..1000 {
//!         match bus.next_event(None) {
//!             Event::Datagram(bytes) => print!("{}", String::from_utf8_lossy(bytes)), // as in "M 1 CSD 100 55 AA"
//!             Event::Failed(failure) => return Err(failure.into()), // START can be refused after data has come
//!             _ => {}
//!         }
//!     }
//!     bus.stop()?; // Ok only if the gateway confirmed it
//!     Ok(())
//! }
//! ```
//!
//! * [`gateway`] talks to the gateway: [`Connection`] is its API and its loop, [`sequencer`](gateway::sequencer) serves
//!   programs with a loop of their own.
//! * [`mod@format`] reads frames and controller events, and writes candump lines, InfluxDB points and pcap records. It needs
//!   no gateway: a converter of recorded datagrams uses it alone.
//!
//! Only Linux is supported.
//!
//! # Features
//!
//! `cli` (default): the two programs. Without it (`default-features = false`) the crate needs socket2 alone.

// The path of a datagram:
//
// gateway --UDP--> transport -> connection -> session -> console -> printer -> spool -> stdout thread --> stdout
//                                  |                                   \-> format: into bytes
//                                  \-> sequencer, transaction: replies in, commands out --UDP--> gateway
//
// Of a command that is not answered: transaction (sends it again, gives up), sequencer (what follows), connection, session,
// advice::failure. Of a signal: shutdown, Waker (in transport), connection, session, and in the handshake advice::failure. Of a
// silence: session (its deadline), session::watch with silence and bus (when to ask), sequencer (STATUS), and when that has
// ended again watch, with bus and advice::no_data.
//
// * gateway: connection is the loop; it reads, feeds the state machines sequencer (which command follows which outcome) and
//   transaction (one command and its answer), and sends what they want sent. A connection's one door to the world is transport.
// * format: datagrams and frames into bytes.
// * output counts datagrams, has them encoded, and writes them to stdout on a thread of its own, so that the loop never waits
//   for a slow reader.
// * cli is the two programs. Its session decides what follows from each event; bus is what is known, and the sentences that
//   explain what the gateway and the network do are in advice.
//
// Imports point one way, from cli over output and format to gateway.

// Without the programs, what only they use is dead code; an attribute for each item would say no more.
#![cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]

#[cfg(not(target_os = "linux"))]
compile_error!("can-udp works on Linux only: it reads /proc and relies on how Linux delivers UDP datagrams");

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod format;
pub mod gateway;
#[cfg(feature = "cli")]
mod output;
mod proc;
mod text;

pub use format::frame::{Frame, Id};
pub use gateway::{BitRate, Channel, Connection, Event, Filter, Setup, Waker};

#[cfg(all(test, feature = "cli"))]
mod properties;
#[cfg(all(test, simulation, feature = "cli"))]
#[path = "../tests/simulation/mod.rs"]
mod simulation;
