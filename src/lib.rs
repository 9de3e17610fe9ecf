//! A CAN bus behind a UDP gateway of HMS Ixxat's CAN@net family (ASCII protocol), on stdout.
//!
//! Two programs are made of this library. `can-listen` brings the gateway's CAN controller up with a handshake and then
//! prints every datagram that the gateway streams; `can-stop` halts the controller.
//!
//! # The way of a datagram
//!
//! ```text
//! gateway --UDP--> socket --> exchange --> session --> intake --> format --> spool --> writer thread --> stdout
//!                             \-> handshake (replies in, commands out) --UDP--> gateway
//! ```
//!
//! [`cli::listen`] gets all that can fail: the module `socket` opens the socket, `drops` counts what the kernel drops there.
//! Then `session` runs from beginning to end, on the main thread. Its loop takes turns of `exchange`: that reads, gives
//! replies to the state machine in [`gateway::handshake`], sends what that wants sent, and keeps the clock; `session` decides what
//! follows. Once `START` is out it hands each datagram to `intake`, which counts it, lets [`mod@format`] turn it into
//! bytes and puts these into the `spool`, never waiting for stdout; the thread in `writer` writes the spool out.
//!
//! Around that: `silence` explains why nothing comes, `ending` is what holds up the end, `report` the last line, `signal`
//! what a signal means, `stderr` the queue of words in front of stderr. [`cli::stop`] is the other program, [`cli::options`] what
//! the user can say to both.
//!
//! [`gateway`] and [`mod@format`] touch no socket, clock or thread, and can be used alone:
//!
//! ```
//! use can_udp::format::frame::{Frame, Id};
//! use can_udp::gateway::reply::{Line, lines};
//!
//! let datagram = b"M 1 CSD 100 55 AA\r\nM 1 FED 18FE0201 01 02\r\nE 1 BUSOFF\r\n";
//! let mut ids = Vec::new();
//! for line in lines(datagram) {
//!     if let Line::Frame(line) = Line::classify(line) {
//!         ids.push(Frame::parse(line)?.id());
//!     }
//! }
//! assert_eq!(ids, [Id::Standard(0x100), Id::Extended(0x18FE0201)]);
//! # Ok::<(), can_udp::format::frame::Malformed>(())
//! ```
//!
//! Linux is what is supported.

pub mod cli;
pub mod format;
pub mod gateway;
mod output;
mod text;

#[cfg(test)]
mod properties;
