//! The bounded queue between the loop and stdout, and the thread that writes it out.
//!
//! The loop must never wait for stdout: it appends to a buffer under a lock; the writer swaps that buffer for its own
//! empty one and writes it out whole. To wake the writer for every datagram would cost more than the datagram itself,
//! so the writer waits after each write, and only a datagram after a quiet spell is written at once: as network cards
//! moderate their interrupts.

use std::collections::TryReserveError;
use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::gateway::Waker;
use crate::output::stdout::Stdout;

/// How many bytes can wait, in whole datagrams. The writer can hold as many again.
const CAPACITY: usize = 32 << 20;

/// How long the writer waits after each write.
const WRITE_INTERVAL: Duration = Duration::from_millis(8);

/// The same for a regular file: people and programs read it later.
const FILE_WRITE_INTERVAL: Duration = Duration::from_millis(100);

/// So many waiting bytes end the wait.
const ENOUGH_WAITING: usize = 1 << 20;

/// A buffer that has held more than this is given back to the system once it is written out.
const RETAINED_CAPACITY: usize = 2 * ENOUGH_WAITING;

/// What a session sees of stdout.
pub(crate) trait Output: fmt::Debug + Send + Sync {
    /// Appends the bytes of `datagrams` datagrams (one, or none for a format's header), all or nothing. Never waits.
    ///
    /// # Errors
    ///
    /// [`PushError`], if there is no room or the output is closed.
    fn push(&self, bytes: &[u8], datagrams: u64) -> Result<(), PushError>;
    /// Accepts nothing more; what waits is still written, at once.
    fn close(&self);
    /// Once it is closed: waits until everything is written or writing has failed, at most for `timeout` (`None`:
    /// indefinitely). `None` if that takes longer; it can then be called again.
    fn wait_written(&self, timeout: Option<Duration>) -> Option<Written>;
    /// Once everything is written without an error: waits like [`Output::wait_written`] until a regular file is stored.
    fn wait_synced(&self, timeout: Option<Duration>) -> Option<io::Result<()>>;
    /// Whether the file was found to be deleted: looked at after each write, and after the last.
    /// Says so once.
    fn take_deletion(&self) -> bool;
    /// Whether it is a regular file.
    fn is_file(&self) -> bool;
}

/// Why a datagram was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    /// [`CAPACITY`] is reached.
    Full,
    /// The output is closed, or writing has failed.
    Closed,
}

/// How writing ended.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Datagrams in the batches that were written whole.
    pub datagrams: u64,
    pub error: Option<io::Error>,
}

/// The queue. One thread pushes, another writes.
#[derive(Debug)]
pub(crate) struct Spool {
    is_file: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    datagrams: u64,
    /// So many waiting bytes wake the writer; none do while it writes, or is woken already.
    wake_at: usize,
    closed: bool,
    is_deleted: bool,
    written: Option<Written>,
    synced: Option<io::Result<()>>,
}

impl Spool {
    /// Starts the thread that writes to stdout; `waker` is woken if writing fails. The buffers take up address space, but no
    /// memory until something waits in them.
    ///
    /// # Errors
    ///
    /// The process may have too little address space, or may not start a thread.
    pub fn start(stdout: Stdout, waker: Waker) -> io::Result<Arc<Spool>> {
        let state = State { waiting: empty_buffer()?, ..State::default() };
        let spool = Arc::new(Spool { is_file: stdout.is_regular, state: Mutex::new(state), changed: Condvar::new() });
        let (writer, spare) = (Arc::clone(&spool), empty_buffer()?);
        thread::Builder::new().name("stdout".to_owned()).spawn(move || writer.run(stdout, spare, &waker))?;
        Ok(spool)
    }

    fn run(&self, mut stdout: Stdout, spare: Vec<u8>, waker: &Waker) {
        let written = self.write_to(&mut stdout, spare);
        let has_failed = written.error.is_some();
        self.lock().is_deleted |= stdout.has_lost_name();
        self.change(|state| (state.closed, state.written) = (true, Some(written)));
        if has_failed {
            return waker.wake();
        }
        let synced = stdout.sync();
        self.change(|state| state.synced = Some(synced));
    }

    /// Writes out what is pushed, until the spool is closed and empty or writing fails.
    fn write_to(&self, stdout: &mut Stdout, mut batch: Vec<u8>) -> Written {
        let interval = if self.is_file { FILE_WRITE_INTERVAL } else { WRITE_INTERVAL };
        let mut written = Written::default();
        loop {
            let mut state = self.wait_for_bytes(1, Duration::MAX);
            if state.waiting.is_empty() {
                return written;
            }
            state.wake_at = usize::MAX;
            mem::swap(&mut state.waiting, &mut batch);
            let datagrams = mem::take(&mut state.datagrams);
            drop(state);
            if let Err(error) = stdout.write(&batch) {
                return Written { error: Some(error), ..written };
            }
            written.datagrams += datagrams;
            if batch.len() > RETAINED_CAPACITY {
                // If there is no memory for a new buffer, the old one is kept.
                batch = empty_buffer().unwrap_or(batch);
            }
            batch.clear();
            self.lock().is_deleted |= stdout.has_lost_name();
            drop(self.wait_for_bytes(ENOUGH_WAITING, interval));
        }
    }

    /// Waits until so many bytes wait or the spool is closed, at most for `timeout`.
    fn wait_for_bytes(&self, bytes: usize, timeout: Duration) -> MutexGuard<'_, State> {
        self.wait_while(timeout, |state| {
            state.wake_at = bytes;
            state.waiting.len() < bytes && !state.closed
        })
    }

    /// Waits while the condition holds, at most for `timeout`.
    fn wait_while(&self, timeout: Duration, condition: impl FnMut(&mut State) -> bool) -> MutexGuard<'_, State> {
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, condition);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output for Spool {
    fn push(&self, bytes: &[u8], datagrams: u64) -> Result<(), PushError> {
        let mut state = self.lock();
        if state.closed {
            return Err(PushError::Closed);
        }
        if state.waiting.len() + bytes.len() > CAPACITY {
            return Err(PushError::Full);
        }
        state.waiting.extend_from_slice(bytes);
        state.datagrams += datagrams;
        if state.waiting.len() >= state.wake_at {
            state.wake_at = usize::MAX;
            drop(state);
            self.changed.notify_all();
        }
        Ok(())
    }

    fn close(&self) {
        self.change(|state| state.closed = true);
    }

    fn wait_written(&self, timeout: Option<Duration>) -> Option<Written> {
        self.wait_while(timeout.unwrap_or(Duration::MAX), |state| state.written.is_none()).written.take()
    }

    fn wait_synced(&self, timeout: Option<Duration>) -> Option<io::Result<()>> {
        self.wait_while(timeout.unwrap_or(Duration::MAX), |state| state.synced.is_none()).synced.take()
    }

    fn take_deletion(&self) -> bool {
        mem::take(&mut self.lock().is_deleted)
    }

    fn is_file(&self) -> bool {
        self.is_file
    }
}

/// A buffer for everything that may wait: it never grows, so it is never copied, and allocators map one of this size
/// separately, so that dropping it gives the memory back.
fn empty_buffer() -> Result<Vec<u8>, TryReserveError> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(CAPACITY)?;
    Ok(buffer)
}

#[cfg(test)]
mod tests;
