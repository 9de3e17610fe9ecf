//! The end of a session: the signals that ask for it, and what it waits for.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::messages::{Exit, Messages, finish};
use crate::gateway::Waker;

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
    /// The gateway has confirmed that the bus is halted.
    pub bus_is_stopped: AtomicBool,
    /// A signal came; the next one exits at once.
    pub signalled: AtomicBool,
}

impl Shutdown {
    /// Handles SIGINT, SIGTERM and SIGHUP from now on, on a thread of its own. The first one ends the session, a second one
    /// the process, with exit code 130 and `can_stop`, the command line that stops the bus. Works once per process.
    ///
    /// # Errors
    ///
    /// The system's, or that a handler is installed already.
    pub fn handle_signals(self: &Arc<Self>, messages: &Messages, can_stop: String) -> Result<Terminal, ctrlc::Error> {
        let ignores_hangup = hangup_is_ignored().unwrap_or(false) && has_terminal().unwrap_or(false);
        let terminal = Terminal { closed_at: ignores_hangup.then(Arc::default) };
        let (shutdown, messages, watched) = (Arc::clone(self), messages.clone(), terminal.clone());
        let mut last: Option<Instant> = None;
        ctrlc::set_handler(move || {
            if last.is_some_and(|last| last.elapsed() < SIGNAL_DEBOUNCE) {
                return;
            }
            let is_hangup = watched.has_just_closed();
            last = Some(Instant::now());
            if is_hangup {
                messages.warn(
                    "the terminal has closed; still running, since SIGHUP was ignored at the start (nohup). The next \
                     signal ends the session",
                );
            } else if let Some(message) = shutdown.on_signal(&messages, &can_stop) {
                process::exit(finish(&messages, Exit::Quit(message)).into());
            }
        })?;
        Ok(terminal)
    }

    /// The program exits at once if there is a message for that.
    pub fn on_signal(&self, messages: &Messages, can_stop: &str) -> Option<String> {
        let Some(waker) = self.waker.get() else { return Some("exited before anything was sent".to_owned()) };
        if !self.signalled.swap(true, Relaxed) {
            if self.in_progress.load(Relaxed) {
                messages.warn("shutting down; press Ctrl-C again to quit now");
            }
            waker.wake();
            None
        } else if self.bus_is_stopped.load(Relaxed) {
            Some("exited; unwritten output was discarded; the bus is halted".to_owned())
        } else {
            Some(format!("exited; unwritten output was discarded; the bus may still run, stop it with:\n{can_stop}"))
        }
    }

    /// How the user can exit at once.
    pub fn quit_hint(&self) -> &'static str {
        if self.signalled.load(Relaxed) { "press Ctrl-C to quit now" } else { "press Ctrl-C twice to quit now" }
    }
}

/// The controlling terminal, where its closing must not end the session: `ctrlc` handles SIGHUP even if it was ignored, and
/// cannot say which signal came. So a signal counts as SIGHUP if that was ignored at the start and the terminal has just
/// closed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terminal {
    /// When it was first found closed; `None` if that makes no difference.
    closed_at: Option<Arc<OnceLock<Instant>>>,
}

impl Terminal {
    /// Whether [`Terminal::check`] must be called, about once a second.
    pub fn needs_polling(&self) -> bool {
        self.closed_at.as_ref().is_some_and(|closed_at| closed_at.get().is_none())
    }

    /// Records whether it is closed. A shell that exits takes the terminal away from its background processes without a
    /// signal; the next signal is then a request to end.
    pub fn check(&self) {
        if let Some(closed_at) = &self.closed_at {
            if closed_at.get().is_none() && has_terminal() == Some(false) {
                let _ = closed_at.set(Instant::now());
            }
        }
    }

    /// Waits for a moment: a shell can send SIGHUP before it gives the terminal up.
    fn has_just_closed(&self) -> bool {
        const CHECKS: u32 = 30;
        let Some(closed_at) = &self.closed_at else { return false };
        for _ in 0..CHECKS {
            self.check();
            if let Some(closed_at) = closed_at.get() {
                return closed_at.elapsed() < HANGUP_GRACE;
            }
            thread::sleep(HANGUP_GRACE / CHECKS);
        }
        false
    }
}

/// Whether stdout was probably closed when the program was started: Rust then opens `/dev/null` for reading and writing in
/// its place, which a shell's `> /dev/null` does not. A parent process can have done the same on purpose.
pub(crate) fn stdout_was_closed() -> bool {
    const NULL_DEVICE: u64 = 1 << 8 | 3;
    const ACCESS_MODE: u32 = 3;
    const READ_WRITE: u32 = 2;
    let is_null_device = fs::metadata("/proc/self/fd/1").is_ok_and(|metadata| metadata.rdev() == NULL_DEVICE);
    let flags = fs::read_to_string("/proc/self/fdinfo/1").ok().and_then(|info| {
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        u32::from_str_radix(flags.trim(), 8).ok()
    });
    is_null_device && flags.is_some_and(|flags| flags & ACCESS_MODE == READ_WRITE)
}

/// The bit of SIGHUP, signal 1, in the mask of ignored signals (proc(5), `SigIgn`).
fn hangup_is_ignored() -> Option<bool> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    Some(u64::from_str_radix(mask.trim(), 16).ok()? & 1 == 1)
}

/// Whether there is a controlling terminal: `tty_nr`, the fifth field after the name in brackets (proc(5)).
fn has_terminal() -> Option<bool> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    Some(after_name.split_ascii_whitespace().nth(4)? != "0")
}
