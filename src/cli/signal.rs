//! Ctrl-C, SIGTERM and SIGHUP, and the one SIGHUP that `nohup` wants ignored.

use std::fs;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// What comes so soon after a signal is the same wish: timeout(1) signals its child and then its group, and when a
/// terminal closes, both the shell and the kernel send SIGHUP.
const ONE_WISH: Duration = Duration::from_millis(100);

/// How long a terminal takes to go, at most.
const GOING: Duration = Duration::from_millis(300);

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Somebody wants the program to end.
    End,
    /// The terminal has closed, which a program that was started with SIGHUP ignored (by `nohup`) is to survive.
    TerminalClosed,
}

/// Calls `handler`, on a thread of its own, at every SIGINT, SIGTERM and SIGHUP, but once for those that come within a
/// tenth of a second (0.4 s under `nohup` at a terminal, where it takes a moment to tell what was meant). Works once per
/// process.
///
/// # Errors
///
/// The system's, or that a handler is installed already.
pub(crate) fn handle(mut handler: impl FnMut(Signal) + Send + 'static) -> Result<Terminal, ctrlc::Error> {
    let ignores_hangup = hangup_is_ignored().unwrap_or(false) && has_terminal().unwrap_or(false);
    let terminal = Terminal { gone: ignores_hangup.then(Arc::default) };
    let watched = terminal.clone();
    let mut last: Option<Instant> = None;
    ctrlc::set_handler(move || {
        if last.is_none_or(|last| last.elapsed() >= ONE_WISH) {
            let signal = if watched.is_just_going() { Signal::TerminalClosed } else { Signal::End };
            last = Some(Instant::now());
            handler(signal);
        }
    })?;
    Ok(terminal)
}

/// The controlling terminal, where it matters whether it has gone. `ctrlc` takes SIGHUP over even where it was ignored,
/// and cannot say which signal came; so a signal counts as [`Signal::TerminalClosed`] if SIGHUP was ignored at birth and
/// the terminal has just gone.
#[derive(Clone, Debug)]
pub(crate) struct Terminal {
    /// When it was first found gone; `None` if that does not matter.
    gone: Option<Arc<OnceLock<Instant>>>,
}

impl Terminal {
    /// Whether [`Terminal::check`] is to be called, about once a second.
    pub fn needs_polling(&self) -> bool {
        self.gone.as_ref().is_some_and(|gone| gone.get().is_none())
    }

    /// Notes whether it is gone: a shell that exits takes the terminal away from what it leaves in the background
    /// without any signal, and the next signal is then somebody's wish.
    pub fn check(&self) {
        if let Some(gone) = &self.gone {
            if gone.get().is_none() && has_terminal() == Some(false) {
                let _ = gone.set(Instant::now());
            }
        }
    }

    /// A shell may send SIGHUP before it leaves the terminal, so that is given a moment.
    fn is_just_going(&self) -> bool {
        const CHECKS: u32 = 30;
        let Some(gone) = &self.gone else { return false };
        for _ in 0..CHECKS {
            self.check();
            if let Some(gone) = gone.get() {
                return gone.elapsed() < GOING;
            }
            thread::sleep(GOING / CHECKS);
        }
        false
    }
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
