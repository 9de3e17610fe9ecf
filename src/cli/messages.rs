//! The bounded queue in front of stderr. Nobody waits for stderr: whoever has something to say puts it here, and a
//! thread of its own writes it out, however long that takes.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::{self, ExitCode};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How many lines may wait.
const LINES_MAX: usize = 1200;

/// How many may wait when the gateway's words are added to them, so that ours still fit.
const GATEWAY_LINES_MAX: usize = 1000;

/// How long the end of the program waits for stderr.
const FINAL_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

/// Says things on stderr, each line under the program's name.
#[derive(Clone, Debug)]
pub(crate) struct Messages {
    program: &'static str,
    verbosity: Verbosity,
    begun: Instant,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    /// A line has left the queue and is not yet written.
    writing: bool,
    skipped: u64,
}

impl Messages {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system's, if it gives no thread.
    fn new(program: &'static str, verbosity: Verbosity) -> io::Result<Messages> {
        let shared = Arc::<Shared>::default();
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("stderr".to_owned()).spawn(move || writer.write_for_ever())?;
        Ok(Messages { program, verbosity, begun: Instant::now(), shared })
    }

    /// Says something, unless the user wants quiet.
    pub fn info(&self, words: impl Display) {
        if self.verbosity > Verbosity::Quiet {
            self.warn(words);
        }
    }

    /// Says what happens now, and when that is, to a user who wants each step.
    pub fn debug(&self, words: impl Display) {
        if self.verbosity == Verbosity::Verbose {
            self.warn(format_args!("{:.3} s: {words}", self.begun.elapsed().as_secs_f64()));
        }
    }

    /// Tells what came from the gateway, of which there may be more than can be shown, to a user who wants each step.
    pub fn debug_from_gateway(&self, words: impl Display) {
        if self.verbosity == Verbosity::Verbose {
            self.warn_from_gateway(format_args!("{:.3} s: {words}", self.begun.elapsed().as_secs_f64()));
        }
    }

    /// Says something to every user.
    pub fn warn(&self, words: impl Display) {
        self.put(words, LINES_MAX);
    }

    /// Says what the gateway wants said, of which there may be more than can be shown.
    pub fn warn_from_gateway(&self, words: impl Display) {
        self.put(words, GATEWAY_LINES_MAX);
    }

    /// How many lines did not fit.
    pub fn not_shown(&self) -> u64 {
        self.shared.lock().skipped
    }

    /// Says why, if stderr takes it in a moment, and leaves the process.
    pub fn exit(&self, words: impl Display, code: i32) -> ! {
        self.warn(words);
        self.flush(Duration::from_millis(100));
        process::exit(code);
    }

    /// Waits until all is said, for so long at most.
    fn flush(&self, patience: Duration) {
        let is_busy = |state: &mut State| state.writing || !state.lines.is_empty();
        let _ = self.shared.changed.wait_timeout_while(self.shared.lock(), patience, is_busy);
    }

    fn put(&self, words: impl Display, most: usize) {
        let mut state = self.shared.lock();
        if state.lines.len() < most {
            state.lines.push_back(format!("{}: {words}\n", self.program));
            self.shared.changed.notify_all();
        } else {
            state.skipped += 1;
        }
    }
}

/// Does a program's work; tells what to leave with, after an error was said.
pub(crate) fn run_and_report(
    program: &'static str,
    verbosity: Verbosity,
    work: impl FnOnce(&Messages) -> anyhow::Result<()>,
) -> ExitCode {
    let stderr = match Messages::new(program, verbosity) {
        Ok(stderr) => stderr,
        Err(error) => {
            let _ = io::stderr().write_all(format!("{program}: cannot start a thread: {error}\n").as_bytes());
            return ExitCode::FAILURE;
        }
    };
    let result = work(&stderr);
    if let Err(error) = &result {
        stderr.warn(format_args!("{error:#}"));
    }
    stderr.flush(FINAL_FLUSH_TIMEOUT);
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_for_ever(&self) {
        let mut state = self.lock();
        loop {
            while state.lines.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let line = state.lines.pop_front().unwrap_or_default();
            state.writing = true;
            drop(state);
            // A stderr that is gone is no reason to fail.
            let _ = io::stderr().write_all(line.as_bytes());
            state = self.lock();
            state.writing = false;
            self.changed.notify_all();
        }
    }
}
