//! Talks to the gateway.
//!
//! [`Connection`] is what a program uses. Under it, [`sequencer`] decides which command follows which answer; it has no
//! socket and no clock, so it serves other kinds of input and output as well. [`Command`] and [`reply`] are the protocol.
//!
//! The gateway speaks the ASCII protocol of HMS Ixxat's CAN@net family ("Generic Protocol for Gateway Mode", software
//! design guide 4.02.0332.20000). What this module relies on:
//!
//! * A command is one line that ends in `\n`. It is answered by `R ok` or by `R ERR <number> <text>`; an answer does
//!   not name its command. `STATUS` is answered by `R CAN …`.
//! * Lines from the gateway end in `\n`, `\r` or `\r\n`, or in the *characters* `\n`, `\r` or `\r\n`: its configuration files
//!   hold the line end as text. Case is insignificant, runs of spaces count as one, and a datagram can hold several lines
//!   of different kinds.

pub(crate) mod command;
mod connection;
mod drops;
mod error;
mod event;
mod moderation;
pub mod reply;
pub mod sequencer;
pub(crate) mod socket;
mod transaction;
pub(crate) mod transport;

pub use command::{
    BitRate, Channel, Command, DataBitRate, EXTENDED_ID_MAX, Filter, Init, STANDARD_ID_MAX, ValueError, Verb,
};
pub use connection::Connection;
pub use drops::Drops;
pub use error::{Busy, CommandError, Failure, Takeover};
pub use event::{Event, Outcome};
pub use sequencer::Setup;
pub use socket::NetworkError;
pub use transaction::{RetryConfig, SETTLE};
pub use transport::Waker;
