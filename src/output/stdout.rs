//! The thread that writes to stdout.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::output::record::Record;
use crate::output::spool::Spool;

/// The thread that writes to stdout.
pub(crate) struct StdoutThread;

impl StdoutThread {
    /// Starts the thread. It exits when the spool is closed and empty, or when writing fails; the receiver gets the
    /// result. `after_write` is called after each batch, `on_failure` once the result of a failure can be received.
    ///
    /// # Errors
    ///
    /// The system cannot start a thread.
    pub fn start(
        mut record: Record,
        spool: Arc<Spool>,
        after_write: impl FnMut() + Send + 'static,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> io::Result<Receiver<io::Result<()>>> {
        let (result, receiver) = mpsc::sync_channel(1);
        thread::Builder::new().name("stdout".to_owned()).spawn(move || {
            let written = spool.drain_to(&mut record, after_write).map_err(|failure| {
                let (written, error) = record.on_failure(failure);
                spool.add_written(written);
                error
            });
            let failed = written.is_err();
            let _ = result.send(written);
            if failed {
                on_failure();
            }
        })?;
        Ok(receiver)
    }
}
