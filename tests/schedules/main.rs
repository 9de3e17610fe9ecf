//! Exhaustive schedules of the conversation with the gateway.

mod handshake;
mod status;
