//! Messages on stderr: a bounded queue, and a thread that writes it. No other thread waits for stderr, however slow it is.

mod limiter;

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::{self, ExitCode};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use limiter::Limiter;

/// How many messages can wait.
const CAPACITY: usize = 1200;

/// How many can wait when one with the gateway's text is added: the rest is room for our own.
const GATEWAY_CAPACITY: usize = 1000;

/// How long the program waits for stderr before it exits.
const FINAL_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// The same after a second Ctrl-C.
const QUIT_FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// Back-off before the next attempt to write to a stderr that another process has made non-blocking and that is full.
const WRITE_BACKOFF: Duration = Duration::from_millis(5);

/// How much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

/// Prints messages on stderr, each after the program's name.
#[derive(Clone, Debug)]
pub(crate) struct Messages {
    program: &'static str,
    verbosity: Verbosity,
    started: Instant,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<String>,
    /// A message has left the queue and is not completely written.
    is_writing: bool,
    limiter: Limiter,
    /// Messages that were not shown: suppressed by the limiter, dropped because the queue was full, or failed to be written.
    not_shown: u64,
    /// How many of them the user knows of.
    reported: u64,
}

impl Messages {
    /// Starts the thread that writes.
    ///
    /// # Errors
    ///
    /// The system's, if it grants no thread.
    fn new(program: &'static str, verbosity: Verbosity) -> io::Result<Messages> {
        let messages = Messages { program, verbosity, started: Instant::now(), queue: Arc::default() };
        let queue = Arc::clone(&messages.queue);
        thread::Builder::new()
            .name("stderr".to_owned())
            .spawn(move || queue.write_all_to(program, &mut io::stderr()))?;
        Ok(messages)
    }

    /// Prints a step and its time, under `--verbose`.
    pub fn debug(&self, message: impl Display) {
        if self.verbosity == Verbosity::Verbose {
            self.warn(self.with_time(message));
        }
    }

    /// Prints a message, except under `--quiet`.
    pub fn info(&self, message: impl Display) {
        if self.verbosity > Verbosity::Quiet {
            self.warn(message);
        }
    }

    /// Prints a message.
    pub fn warn(&self, message: impl Display) {
        self.enqueue(&mut self.queue.lock(), message, CAPACITY);
    }

    /// Like [`Messages::debug`], for a message that quotes `text` of the gateway; limited in rate.
    pub fn debug_from_gateway(&self, text: &str, message: impl Display) {
        if self.verbosity == Verbosity::Verbose {
            self.warn_from_gateway(text, self.with_time(message));
        }
    }

    /// Like [`Messages::warn`], for a message that quotes `text` of the gateway; limited in rate.
    pub fn warn_from_gateway(&self, text: &str, message: impl Display) {
        let mut state = self.queue.lock();
        let now = Instant::now();
        if let Some(summary) = state.limiter.take_summary(now) {
            self.enqueue(&mut state, summary, CAPACITY);
        }
        let summary_at = state.limiter.summary_at();
        if state.limiter.admits(now, text) {
            self.enqueue(&mut state, message, GATEWAY_CAPACITY);
            return;
        }
        state.not_shown += 1;
        if summary_at.is_none() {
            // The thread waits for messages, and not yet for the time of the summary.
            self.queue.changed.notify_all();
        }
    }

    /// How many messages of the session were not shown. The caller reports it to the user.
    pub fn not_shown(&self) -> u64 {
        let mut state = self.queue.lock();
        state.reported = state.not_shown;
        state.not_shown
    }

    /// Prints a message, if stderr accepts it soon, and exits the process.
    pub fn exit(&self, message: impl Display, code: i32) -> ! {
        self.warn(message);
        self.flush(QUIT_FLUSH_TIMEOUT);
        process::exit(code);
    }

    fn with_time(&self, message: impl Display) -> String {
        format!("{:.3} s: {message}", self.started.elapsed().as_secs_f64())
    }

    fn enqueue(&self, state: &mut State, message: impl Display, capacity: usize) {
        if state.waiting.len() < capacity {
            state.waiting.push_back(line(self.program, message));
            self.queue.changed.notify_all();
        } else {
            state.not_shown += 1;
        }
    }

    /// Reports what was not shown, unless the user knows.
    fn report_not_shown(&self) {
        let mut state = self.queue.lock();
        let count = state.not_shown - state.reported;
        if count > 0 {
            state.reported = state.not_shown;
            self.enqueue(&mut state, format_args!("messages not shown: {count}"), CAPACITY);
        }
    }

    /// Waits until everything is written, at most for `timeout`.
    fn flush(&self, timeout: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        let _ = self.queue.changed.wait_timeout_while(self.queue.lock(), timeout, is_busy);
    }
}

/// Runs `work`, prints its error, returns the exit code.
pub(crate) fn run_and_report(
    program: &'static str,
    verbosity: Verbosity,
    work: impl FnOnce(&Messages) -> anyhow::Result<()>,
) -> ExitCode {
    let messages = match Messages::new(program, verbosity) {
        Ok(messages) => messages,
        Err(error) => {
            let _ = io::stderr().write_all(line(program, format_args!("cannot start a thread: {error}")).as_bytes());
            return ExitCode::FAILURE;
        }
    };
    let result = work(&messages);
    messages.report_not_shown();
    if let Err(error) = &result {
        messages.warn(format_args!("{error:#}"));
    }
    messages.flush(FINAL_FLUSH_TIMEOUT);
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn line(program: &str, message: impl Display) -> String {
    format!("{program}: {message}\n")
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes messages to `out`, and the limiter's summaries when they are due.
    fn write_all_to(&self, program: &str, out: &mut impl Write) {
        let mut state = self.lock();
        loop {
            if let Some(summary) = state.limiter.take_summary(Instant::now()) {
                state.waiting.push_back(line(program, summary));
            }
            let Some(message) = state.waiting.pop_front() else {
                state = self.wait(state);
                continue;
            };
            state.is_writing = true;
            drop(state);
            let written = write_patiently(out, message.as_bytes());
            state = self.lock();
            state.is_writing = false;
            state.not_shown += u64::from(written.is_err());
            self.changed.notify_all();
        }
    }

    /// Waits for a message, or until a summary is due.
    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        match state.limiter.summary_at() {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(at) => {
                let timeout = at.saturating_duration_since(Instant::now());
                self.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }
}

/// Like [`Write::write_all`], but waits for an `out` that is non-blocking and full: terminal multiplexers and other
/// processes that share a terminal or pipe make it so.
fn write_patiently(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(WRITE_BACKOFF),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
