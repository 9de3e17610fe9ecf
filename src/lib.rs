//! A CAN bus behind a UDP gateway of HMS Ixxat's CAN@net family (ASCII protocol), on stdout.
//!
//! Two programs are made of this library. `can-listen` brings the gateway's CAN controller up with a handshake and then
//! prints every datagram that the gateway streams; `can-stop` halts the controller.
//!
//! # The way of a datagram
//!
//! ```text
//! gateway --UDP--> socket --> receiver thread --> spool --> writer thread --> stdout
//!                             (format, frame)
//! ```
//!
//! [`listen`] is a session from beginning to end. [`socket`] opens the socket, [`exchange`] drives the [`handshake`]
//! over it. Then one thread receives each datagram, lets [`mod@format`] turn it into bytes and pushes these into the
//! [`spool`], never waiting for stdout; another thread writes the spool out. [`stop`] is the other program. What a
//! signal means, under `nohup` too, is told apart in a private module, `signal`.
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

pub mod exchange;
pub mod format;
pub mod frame;
pub mod handshake;
pub mod listen;
pub mod protocol;
mod signal;
pub mod socket;
pub mod spool;
pub mod stop;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// How much a program says on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors, warnings, and what the gateway reports.
    Quiet,
    /// Also what began, and how it ended.
    #[default]
    Normal,
    /// Also each step on the way.
    Verbose,
}

/// Writes a line to stderr, in one piece and under the program's name. A stderr that is gone is no reason to fail.
pub fn say(program: &str, words: &str) {
    let _ = std::io::stderr().write_all(format!("{program}: {words}\n").as_bytes());
}

/// What a program leaves with: 0, or 1 and the error on stderr.
pub fn exit_code(program: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(program, &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Reads a time span in seconds, fractions allowed.
///
/// # Errors
///
/// A text for the user if it is no number from 0.001 to 86400.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 0.001..=86_400.0) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give seconds, from 0.001 to 86400".to_owned()),
    }
}
