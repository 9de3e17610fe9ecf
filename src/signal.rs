//! Ctrl-C, SIGTERM and SIGHUP, and the one SIGHUP that `nohup` wants ignored.

use std::fs;
use std::time::{Duration, Instant};

/// Calls `handler`, on a thread of its own, at every SIGINT, SIGTERM and SIGHUP; but not at the SIGHUP with which a
/// closing terminal takes leave of a program that was started with SIGHUP ignored. Works once per process.
///
/// # Errors
///
/// The system's, or that a handler is installed already.
pub fn handle(mut handler: impl FnMut() + Send + 'static) -> Result<(), ctrlc::Error> {
    let mut nohup = Nohup::at_birth();
    ctrlc::set_handler(move || {
        if !nohup.terminal_just_closed() {
            handler();
        }
    })
}

/// `ctrlc` takes SIGHUP over even where it was ignored, and cannot say which signal came. So a signal counts as that
/// SIGHUP if SIGHUP was ignored at birth and the controlling terminal has just gone.
struct Nohup {
    hangup_was_ignored: bool,
    had_terminal: bool,
    terminal_closed: Option<Instant>,
}

impl Nohup {
    fn at_birth() -> Nohup {
        Nohup {
            hangup_was_ignored: hangup_is_ignored().unwrap_or(false),
            had_terminal: has_terminal().unwrap_or(false),
            terminal_closed: None,
        }
    }

    fn terminal_just_closed(&mut self) -> bool {
        // The kernel and the shell may both send one.
        const BOTH: Duration = Duration::from_millis(200);
        if !self.hangup_was_ignored || !self.had_terminal {
            return false;
        }
        match self.terminal_closed {
            Some(closed) => closed.elapsed() < BOTH,
            None if has_terminal() == Some(false) => {
                self.terminal_closed = Some(Instant::now());
                true
            }
            None => false,
        }
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
