//! From a datagram to stdout.

pub(crate) mod printer;
pub(crate) mod spool;
pub(crate) mod stdout;
