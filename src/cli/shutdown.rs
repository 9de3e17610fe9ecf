//! What holds up the end of a session, and how the user can leave without it.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::cli::messages::Messages;
use crate::gateway::Waker;

/// How long the end may wait for the gateway, or for whoever reads stdout, before the user is told.
pub(crate) const SHUTDOWN_NOTICE_AFTER: Duration = Duration::from_secs(1);

/// What the handler of signals shares with the session.
#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    /// To be woken by a signal; without it, one leaves at once.
    pub waker: OnceLock<Waker>,
    /// The session is ending, for whatever reason.
    pub in_progress: AtomicBool,
    /// The gateway has confirmed that the bus is halted.
    pub bus_is_stopped: AtomicBool,
    /// A signal came; the next one leaves at once.
    pub signalled: AtomicBool,
}

impl Shutdown {
    /// How the user can leave at once.
    pub fn quit_hint(&self) -> &'static str {
        if self.signalled.load(Relaxed) { "press Ctrl-C to quit now" } else { "press Ctrl-C twice to quit now" }
    }

    /// Waits until the writer has ended; tells how its writing did.
    pub fn wait_for_stdout(&self, writer: &Receiver<io::Result<()>>, stderr: &Messages) -> io::Result<()> {
        match writer.recv_timeout(SHUTDOWN_NOTICE_AFTER) {
            Err(RecvTimeoutError::Timeout) => {
                stderr.warn(format_args!(
                    "waiting for the process reading stdout; {}, discarding unwritten output",
                    self.quit_hint()
                ));
                writer.recv().unwrap_or(Ok(()))
            }
            result => result.unwrap_or(Ok(())),
        }
    }
}
