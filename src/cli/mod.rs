//! The two programs.

pub mod address;
pub(crate) mod address_watch;
pub(crate) mod advice;
pub(crate) mod drop_notice;
pub(crate) mod handshake;
pub(crate) mod limiter;
pub mod listen;
pub(crate) mod messages;
pub(crate) mod notices;
pub mod options;
pub(crate) mod report;
pub(crate) mod session;
pub(crate) mod shutdown;
pub(crate) mod silence;
pub mod stop;
