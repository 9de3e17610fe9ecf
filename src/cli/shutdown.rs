//! The end of a session: the signals that ask for it, and what it waits for.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::messages::{Exit, Messages, finish};
use crate::gateway::Waker;
use crate::proc;

/// How long the shutdown waits for the gateway, or for the process reading stdout, before the user is informed.
pub(crate) const SHUTDOWN_NOTICE_AFTER: Duration = Duration::from_secs(1);

/// Signals this close together count as one: timeout(1) signals its child and then its group, and when a terminal closes,
/// both the shell and the kernel send SIGHUP.
const SIGNAL_DEBOUNCE: Duration = Duration::from_millis(100);

/// How long a terminal takes to close, at most.
const HANGUP_GRACE: Duration = Duration::from_millis(300);

/// What the signal handler shares with the session.
#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    /// Woken by a signal. While it is not set, a signal exits at once.
    pub waker: OnceLock<Waker>,
    /// The session is shutting down, for whatever reason.
    pub in_progress: AtomicBool,
    /// What a second signal prints last.
    quit_message: Mutex<String>,
    /// A signal came; the next one exits at once.
    signalled: AtomicBool,
    /// The closing of the terminal must not end the session: SIGHUP was ignored at the start. `ctrlc` handles it even then,
    /// and cannot say which signal came. So a signal counts as SIGHUP if the terminal has just closed.
    survives_terminal: AtomicBool,
    terminal_closed_at: OnceLock<Instant>,
}

impl Shutdown {
    /// Handles SIGINT, SIGTERM and SIGHUP from now on, on a thread of its own. The first one ends the session, a second one
    /// the process, with exit code 130. Works once per process.
    ///
    /// # Errors
    ///
    /// The system's, or that a handler is installed already.
    pub fn handle_signals(self: &Arc<Self>, messages: &Messages) -> Result<(), ctrlc::Error> {
        // The bit of SIGHUP, signal 1, in the mask of ignored signals (proc(5)).
        let ignored = proc::number("/proc/self/status", "SigIgn:", 0, 16);
        let hangup_is_ignored = ignored.is_some_and(|signals| signals & 1 == 1);
        self.survives_terminal.store(hangup_is_ignored && has_terminal() == Some(true), Relaxed);
        let (shutdown, messages) = (Arc::clone(self), messages.clone());
        let mut last: Option<Instant> = None;
        ctrlc::set_handler(move || {
            if last.is_some_and(|last| last.elapsed() < SIGNAL_DEBOUNCE) {
                return;
            }
            let is_hangup = shutdown.terminal_has_just_closed();
            last = Some(Instant::now());
            if is_hangup {
                messages.warn(
                    "the terminal has closed; still running, since SIGHUP was ignored at the start (nohup). The next \
                     signal ends the session",
                );
            } else if let Some(message) = shutdown.on_signal(&messages) {
                process::exit(finish(&messages, Exit::Quit(message)).into());
            }
        })
    }

    /// A signal came. Returns the last message if the program is to exit at once.
    pub fn on_signal(&self, messages: &Messages) -> Option<String> {
        let Some(waker) = self.waker.get() else { return Some("exited before anything was sent".to_owned()) };
        if !self.signalled.swap(true, Relaxed) {
            if self.in_progress.load(Relaxed) {
                messages.warn("shutting down; press Ctrl-C again to quit now");
            }
            waker.wake();
            None
        } else {
            Some(self.quit_message.lock().unwrap_or_else(PoisonError::into_inner).clone())
        }
    }

    /// Sets what a second signal prints last from now on.
    pub fn set_quit_message(&self, message: String) {
        *self.quit_message.lock().unwrap_or_else(PoisonError::into_inner) = message;
    }

    /// How the user can exit at once.
    pub fn quit_hint(&self) -> &'static str {
        if self.signalled.load(Relaxed) { "press Ctrl-C to quit now" } else { "press Ctrl-C twice to quit now" }
    }

    /// Whether [`Shutdown::check_terminal`] must be called, about once a second.
    pub fn watches_terminal(&self) -> bool {
        self.survives_terminal.load(Relaxed) && self.terminal_closed_at.get().is_none()
    }

    /// Records whether the terminal is closed. A shell that exits takes it away from its background processes without a
    /// signal; the next signal is then a request to end.
    pub fn check_terminal(&self) {
        if self.watches_terminal() && has_terminal() == Some(false) {
            let _ = self.terminal_closed_at.set(Instant::now());
        }
    }

    /// Whether this signal is the SIGHUP of a terminal that closes and need not end the session (nohup). Only then it waits for
    /// a moment: a shell can send SIGHUP before it gives the terminal up.
    fn terminal_has_just_closed(&self) -> bool {
        const CHECKS: u32 = 30;
        for _ in 0..CHECKS {
            self.check_terminal();
            if !self.watches_terminal() {
                break;
            }
            thread::sleep(HANGUP_GRACE / CHECKS);
        }
        self.terminal_closed_at.get().is_some_and(|closed_at| closed_at.elapsed() < HANGUP_GRACE)
    }
}

/// Whether stdout was probably closed when the program was started: Rust then opens `/dev/null` for reading and writing in
/// its place, which a shell's `> /dev/null` does not. A parent process can have done the same on purpose.
pub(crate) fn stdout_was_closed() -> bool {
    const NULL_DEVICE: u64 = 1 << 8 | 3;
    const ACCESS_MODE: u64 = 3;
    const READ_WRITE: u64 = 2;
    let is_null_device = fs::metadata("/proc/self/fd/1").is_ok_and(|metadata| metadata.rdev() == NULL_DEVICE);
    let flags = proc::number("/proc/self/fdinfo/1", "flags:", 0, 8);
    is_null_device && flags.is_some_and(|flags| flags & ACCESS_MODE == READ_WRITE)
}

/// Whether there is a controlling terminal: `tty_nr`, the fifth field after the name in brackets (proc(5)).
fn has_terminal() -> Option<bool> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    Some(after_name.split_ascii_whitespace().nth(4)? != "0")
}
