//! Messages on stderr: a bounded queue, and a thread that writes it. No other thread waits for stderr, however slow it is.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};

use crate::output::stdout::write_when_possible;

/// How many lines can wait.
const CAPACITY: usize = 1000;

/// How long the program waits for stderr before it exits.
const FINAL_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// How much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

/// Takes whole lines for stderr.
pub(crate) trait Sink: fmt::Debug + Send + Sync {
    /// Never waits. A line that is not accepted is counted.
    fn put(&self, line: String);
    /// How many lines were not accepted, or could not be written.
    fn lost(&self) -> u64;
    /// Waits until everything that was accepted is written, at most for `timeout`.
    fn flush(&self, timeout: Duration);
    /// The clock of the messages.
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// Prints messages, each after the program's name.
#[derive(Clone, Debug)]
pub(crate) struct Messages {
    program: &'static str,
    pub verbosity: Verbosity,
    pub sink: Arc<dyn Sink>,
    began: Instant,
}

impl Messages {
    pub fn new(program: &'static str, verbosity: Verbosity, sink: Arc<dyn Sink>) -> Messages {
        Messages { program, verbosity, began: sink.now(), sink }
    }

    /// Messages on stderr.
    ///
    /// # Errors
    ///
    /// The system cannot start a thread.
    pub fn stderr(program: &'static str, verbosity: Verbosity) -> io::Result<Messages> {
        let (lines, receiver) = sync_channel::<(String, _)>(CAPACITY);
        let lost = Arc::new(AtomicU64::new(0));
        let unwritten = Arc::clone(&lost);
        thread::Builder::new().name("stderr".to_owned()).spawn(move || {
            for (line, _on_written) in receiver {
                if write_when_possible(&mut io::stderr(), line.as_bytes()).is_err() {
                    unwritten.fetch_add(1, Relaxed);
                }
            }
        })?;
        Ok(Messages::new(program, verbosity, Arc::new(Queue { lines, lost })))
    }

    /// Prints a step and its time, under `--verbose`.
    pub fn debug(&self, message: impl Display) {
        if self.verbosity == Verbosity::Verbose {
            let since_start = self.sink.now().saturating_duration_since(self.began);
            self.warn(format_args!("{:.3} s: {message}", since_start.as_secs_f64()));
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
        self.sink.put(format!("{}: {message}\n", self.program));
    }
}

/// How a program ends.
#[derive(Debug)]
pub(crate) enum Exit {
    Success,
    Failure(Error),
    /// At once, by a signal; with this message.
    Quit(String),
}

/// Prints how the program ends, waits for stderr, returns the exit code.
pub(crate) fn finish(messages: &Messages, exit: Exit) -> u8 {
    let (code, last) = match exit {
        Exit::Success => (0, None),
        Exit::Failure(error) => (1, Some(format!("{error:#}"))),
        Exit::Quit(message) => (130, Some(message)),
    };
    if let Some(last) = last {
        messages.warn(last);
    }
    messages.sink.flush(FINAL_FLUSH_TIMEOUT);
    code
}

/// Runs `work` and [finishes](finish).
pub(crate) fn run_and_finish(
    program: &'static str,
    verbosity: Verbosity,
    work: impl FnOnce(&Messages) -> Result<Exit>,
) -> ExitCode {
    match Messages::stderr(program, verbosity) {
        Ok(messages) => finish(&messages, work(&messages).unwrap_or_else(Exit::Failure)).into(),
        Err(error) => {
            let _ = writeln!(io::stderr(), "{program}: cannot start a thread: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The queue in front of stderr.
#[derive(Debug)]
struct Queue {
    /// Lines, each with what the thread drops once everything up to it is written.
    lines: SyncSender<(String, Option<Sender<()>>)>,
    lost: Arc<AtomicU64>,
}

impl Sink for Queue {
    fn put(&self, line: String) {
        if self.lines.try_send((line, None)).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    fn flush(&self, timeout: Duration) {
        let (on_written, written) = channel();
        match self.lines.try_send((String::new(), Some(on_written))) {
            Ok(()) => drop(written.recv_timeout(timeout)),
            // The queue is full.
            Err(_) => thread::sleep(timeout),
        }
    }
}
