//! The two programs.

pub mod address;
pub mod listen;
pub(crate) mod messages;
pub mod options;
pub(crate) mod report;
pub(crate) mod session;
pub(crate) mod shutdown;
pub(crate) mod signal;
pub(crate) mod silence;
pub mod stop;
