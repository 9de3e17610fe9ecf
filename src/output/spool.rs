//! The bounded queue between the loop and stdout, and what went through it.
//!
//! The loop must never wait for stdout: it appends to a buffer under a lock; the writer swaps that buffer for its own
//! empty one and writes it out whole. To wake the writer for every datagram would cost more than the datagram itself,
//! so after each write the writer rests for [`REST`], and only what comes after a quiet spell is written at once: the
//! way a network card moderates its interrupts.

use std::collections::TryReserveError;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How many bytes can wait, in whole datagrams. As many again can be in the writer's hands.
const CAPACITY: usize = 32 << 20;

/// How long the writer rests after each write.
const REST: Duration = Duration::from_millis(8);

/// A buffer that has held more than this is given back to the system once it is written out.
const KEEP_AT_MOST: usize = 1 << 20;

/// The queue. One thread pushes, another writes.
#[derive(Debug)]
pub(crate) struct Spool {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: Vec<u8>,
    /// The writer's buffer while the writer has not begun.
    spare: Vec<u8>,
    datagrams: u64,
    written: u64,
    closed: bool,
    /// The writer has nothing to do and must be woken.
    writer_waits: bool,
}

/// Why a datagram did not get into the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// [`CAPACITY`] is reached.
    Full,
    /// The writer has failed.
    Closed,
}

impl Spool {
    /// An empty one. Its buffers take up address space, but no memory until something waits in them.
    ///
    /// # Errors
    ///
    /// The process may not have so much address space.
    pub fn new() -> Result<Spool, TryReserveError> {
        let (waiting, spare) = (empty_buffer()?, empty_buffer()?);
        let state = State { waiting, spare, datagrams: 0, written: 0, closed: false, writer_waits: false };
        Ok(Spool { state: Mutex::new(state), wake: Condvar::new() })
    }

    /// Appends what so many datagrams come to (one, or none for a format's header), whole or not at all. Never waits for
    /// the writer.
    ///
    /// # Errors
    ///
    /// [`Rejected`], when there is no room or no writer any more.
    pub fn push(&self, bytes: &[u8], datagrams: u64) -> Result<(), Rejected> {
        let mut state = self.lock();
        if state.closed {
            return Err(Rejected::Closed);
        }
        if state.waiting.len() + bytes.len() > CAPACITY {
            return Err(Rejected::Full);
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

    /// Nothing more will come; what waits is still to be written, without any rest.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// How many datagrams were written out, in whole batches.
    pub fn written(&self) -> u64 {
        self.lock().written
    }

    /// Writes out what is pushed, until the spool is closed and empty; calls `after_write` after each write.
    ///
    /// # Errors
    ///
    /// That of `out`. The spool is then closed and what waited in it thrown away.
    pub fn write_out(&self, out: &mut impl Write, mut after_write: impl FnMut()) -> io::Result<()> {
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
            if let Err(error) = result {
                state.closed = true;
                state.waiting = Vec::new();
                return Err(error);
            }
            state.written += datagrams;
            drop(state);
            after_write();
            let is_large = batch.len() > KEEP_AT_MOST;
            batch.clear();
            if is_large {
                // A buffer that cannot be had anew is kept.
                batch = empty_buffer().unwrap_or(batch);
            }
            let rest = self.wake.wait_timeout_while(self.lock(), REST, |state| !state.closed);
            drop(rest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for all that may ever wait: a buffer that never grows is never copied, and allocators map one of this size
/// for itself, so that dropping it gives the memory back.
fn empty_buffer() -> Result<Vec<u8>, TryReserveError> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(CAPACITY)?;
    Ok(buffer)
}

/// Like [`Write::write_all`], but patient with an `out` that somebody else made non-blocking, as happens to pipes and
/// terminals that are shared.
fn write_all(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(REST),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
