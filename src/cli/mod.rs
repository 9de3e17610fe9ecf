//! The two programs. For their binaries alone: nothing here is stable.

pub mod address;
pub(crate) mod advice;
pub(crate) mod bus;
pub(crate) mod console;
pub(crate) mod limiter;
pub mod listen;
pub(crate) mod losses;
pub(crate) mod messages;
pub mod options;
pub(crate) mod report;
pub(crate) mod session;
pub(crate) mod shutdown;
pub(crate) mod silence;
pub mod stop;
