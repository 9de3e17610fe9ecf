//! What holds up the end of a session, and how the user can leave without it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::cli::messages::Stderr;
use crate::gateway::driver::Connection;

/// How long the end may wait for the gateway, or for whoever reads stdout, before the user is told.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// What the handler of signals shares with the session.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// To be woken by a signal; without it, one leaves at once.
    pub connection: OnceLock<Arc<Connection>>,
    /// The session is ending, for whatever reason.
    pub begun: AtomicBool,
    /// The gateway has confirmed that the bus is halted.
    pub bus_is_halted: AtomicBool,
    /// A signal came; the next one leaves at once.
    pub signalled: AtomicBool,
}

impl Ending {
    /// How the user can leave at once.
    pub fn way_out(&self) -> &'static str {
        if self.signalled.load(Relaxed) { "Ctrl-C leaves at once" } else { "Ctrl-C twice leaves at once" }
    }

    /// Waits until the writer has ended; tells how its writing did.
    pub fn wait_for_writer(&self, writer: &Receiver<io::Result<()>>, stderr: &Stderr) -> io::Result<()> {
        match writer.recv_timeout(PATIENCE) {
            Err(RecvTimeoutError::Timeout) => {
                stderr.say(format_args!(
                    "waiting for the reader of stdout to take the rest; {}, without it",
                    self.way_out()
                ));
                writer.recv().unwrap_or(Ok(()))
            }
            result => result.unwrap_or(Ok(())),
        }
    }
}
