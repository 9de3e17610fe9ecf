//! A CAN bus behind a UDP gateway of HMS Ixxat's CAN@net family (ASCII protocol), on stdout.
//!
//! Two programs are made of this library. `can-listen` brings the gateway's CAN controller up with a handshake and then
//! prints every datagram that the gateway streams; `can-stop` halts the controller.
//!
//! # The way of a datagram
//!
//! ```text
//! gateway --UDP--> socket --> exchange --> intake --> format --> spool --> writer thread --> stdout
//!                             \-> handshake (replies in, commands out) --UDP--> gateway
//! ```
//!
//! [`listen`] gets all that can fail and runs a `session` from beginning to end. The module `socket` opens the socket; `exchange` is one turn of the
//! loop, on the main thread: it reads, gives replies to the state machine in [`handshake`], sends what that wants sent,
//! and keeps the clock. Once `START` is out, `intake` counts each datagram, lets [`mod@format`] turn it into bytes and
//! puts these into the `spool`, never waiting for stdout; the thread in `writer` writes the spool out. `silence` explains
//! why nothing comes, `report` is the last line, `ending` what holds it up, `stderr` the queue of words in front of stderr, and `signal` tells what
//! a signal means. [`stop`] is the other program, [`options`] what the user can say to both.
//!
//! [`protocol`], [`frame`], [`handshake`] and [`mod@format`] touch no socket, clock or thread, and can be used alone:
//!
//! ```
//! use can_udp::frame::{Frame, Id};
//! use can_udp::protocol::{Line, lines};
//!
//! let datagram = b"M 1 CSD 100 55 AA\r\nM 1 FED 18FE0201 01 02\r\nE 1 BUSOFF\r\n";
//! let mut ids = Vec::new();
//! for line in lines(datagram) {
//!     if let Line::Frame(line) = Line::classify(line) {
//!         ids.push(Frame::parse(line)?.id());
//!     }
//! }
//! assert_eq!(ids, [Id::Standard(0x100), Id::Extended(0x18FE0201)]);
//! # Ok::<(), can_udp::frame::Malformed>(())
//! ```
//!
//! Linux is what is supported.

pub mod address;
mod ending;
mod exchange;
pub mod format;
pub mod frame;
pub mod handshake;
mod intake;
pub mod listen;
pub mod options;
pub mod protocol;
mod report;
mod session;
mod signal;
mod silence;
mod socket;
mod spool;
mod stderr;
pub mod stop;
mod writer;

#[cfg(test)]
#[path = "../tests/inside/properties.rs"]
mod properties;
