//! The bounded queue between the loop and stdout, and how much of it was written.
//!
//! The loop must never wait for stdout: it appends to a buffer under a lock; the writer swaps that buffer for its own
//! empty one and writes it out whole. To wake the writer for every datagram would cost more than the datagram itself,
//! so the writer waits for [`FLUSH_INTERVAL`] after each write, and only a datagram after a quiet spell is written at once:
//! as network cards moderate their interrupts.

use std::collections::TryReserveError;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How many bytes can wait, in whole datagrams. The writer can hold as many again.
const CAPACITY: usize = 32 << 20;

/// How long the writer waits after each write, and before it repeats one that would block.
const FLUSH_INTERVAL: Duration = Duration::from_millis(8);

/// A buffer that has held more than this is given back to the system once it is written out.
const RETAINED_CAPACITY: usize = 1 << 20;

/// The queue. One thread pushes, another writes.
#[derive(Debug)]
pub(crate) struct Spool {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: Vec<u8>,
    /// The writer's buffer until the writer begins.
    spare: Vec<u8>,
    datagrams: u64,
    written: u64,
    closed: bool,
    /// The writer has nothing to do and must be woken.
    writer_waits: bool,
}

/// Why a datagram was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    /// [`CAPACITY`] is reached.
    Full,
    /// The writer has failed.
    Closed,
}

/// A batch that was written in part.
#[derive(Debug)]
pub(crate) struct WriteFailure {
    pub error: io::Error,
    pub batch: Vec<u8>,
    /// How many bytes of the batch were written.
    pub written: usize,
    /// How many datagrams the batch holds.
    pub datagrams: u64,
}

impl Spool {
    /// An empty spool. Its buffers take up address space, but no memory until something waits in them.
    ///
    /// # Errors
    ///
    /// The process may not have that much address space.
    pub fn new() -> Result<Spool, TryReserveError> {
        let (waiting, spare) = (empty_buffer()?, empty_buffer()?);
        let state = State { waiting, spare, datagrams: 0, written: 0, closed: false, writer_waits: false };
        Ok(Spool { state: Mutex::new(state), wake: Condvar::new() })
    }

    /// Appends the bytes of `datagrams` datagrams (one, or none for a format's header), all or nothing. Never waits for
    /// the writer.
    ///
    /// # Errors
    ///
    /// [`PushError`], if there is no room or the writer has failed.
    pub fn push(&self, bytes: &[u8], datagrams: u64) -> Result<(), PushError> {
        let mut state = self.lock();
        if state.closed {
            return Err(PushError::Closed);
        }
        if state.waiting.len() + bytes.len() > CAPACITY {
            return Err(PushError::Full);
        }
        state.waiting.extend_from_slice(bytes);
        state.datagrams += datagrams;
        let wake = std::mem::take(&mut state.writer_waits);
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Accepts nothing more; what waits is still written, without further waits.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// How many datagrams were written out.
    pub fn written(&self) -> u64 {
        self.lock().written
    }

    /// Counts datagrams of a batch that failed, but whose bytes were written.
    pub fn add_written(&self, datagrams: u64) {
        self.lock().written += datagrams;
    }

    /// Writes out what is pushed, until the spool is closed and empty; calls `after_write` after each batch.
    ///
    /// # Errors
    ///
    /// That of `out`. The spool is then closed and what waited in it is discarded.
    pub fn drain_to(&self, out: &mut impl Write, mut after_write: impl FnMut()) -> Result<(), WriteFailure> {
        let mut batch = std::mem::take(&mut self.lock().spare);
        loop {
            let mut state = self.lock();
            while state.waiting.is_empty() && !state.closed {
                state.writer_waits = true;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.waiting.is_empty() {
                return Ok(());
            }
            std::mem::swap(&mut state.waiting, &mut batch);
            let datagrams = std::mem::take(&mut state.datagrams);
            drop(state);

            let result = write_all(out, &batch);
            let mut state = self.lock();
            if let Err((error, written)) = result {
                state.closed = true;
                state.waiting = Vec::new();
                return Err(WriteFailure { error, batch, written, datagrams });
            }
            state.written += datagrams;
            drop(state);
            after_write();
            let is_large = batch.len() > RETAINED_CAPACITY;
            batch.clear();
            if is_large {
                // If there is no memory for a new buffer, the old one is kept.
                batch = empty_buffer().unwrap_or(batch);
            }
            let rest = self.wake.wait_timeout_while(self.lock(), FLUSH_INTERVAL, |state| !state.closed);
            drop(rest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer for everything that may wait: it never grows, so it is never copied, and allocators map one of this size
/// separately, so that dropping it gives the memory back.
fn empty_buffer() -> Result<Vec<u8>, TryReserveError> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(CAPACITY)?;
    Ok(buffer)
}

/// Like [`Write::write_all`], but waits for an `out` that another process made non-blocking, as happens to pipes and
/// terminals that are shared. An error comes with the number of bytes that were written.
fn write_all(out: &mut impl Write, bytes: &[u8]) -> Result<(), (io::Error, usize)> {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return Err((io::ErrorKind::WriteZero.into(), written)),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(FLUSH_INTERVAL),
            Err(error) => return Err((error, written)),
        }
    }
    Ok(())
}
