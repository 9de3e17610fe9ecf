//! Talks to the gateway.

pub mod command;
pub(crate) mod driver;
pub(crate) mod drops;
pub mod handshake;
pub mod reply;
pub(crate) mod socket;
