//! From a datagram to stdout.

mod pcap_end;
mod pieces;
pub(crate) mod printer;
pub(crate) mod record;
pub(crate) mod spool;
pub(crate) mod stdout;
