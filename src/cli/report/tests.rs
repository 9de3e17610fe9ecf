//! Reports of sessions that did not take place.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::*;
use crate::cli::bus::Bus;
use crate::cli::messages::{Sink, Verbosity};
use crate::gateway::Waker;
use crate::output::spool::PushError;

fn report() -> Report {
    Report {
        stats: Stats { datagrams: 3, bytes: 47, enqueued: 3, ..Stats::default() },
        drops: Drops::default(),
        written: Written { datagrams: 3, error: None },
        messages_not_shown: 0,
        network_errors: 0,
        handshake_frames: 0,
        duration: Duration::from_millis(2100),
        bus: "the bus still runs".to_owned(),
    }
}

#[test]
fn report_has_one_fact_a_line() {
    assert_eq!(
        report().lines(),
        ["3 datagrams (47 bytes) in 2.1 s", "lost: 0 in the kernel, 0 in the output buffer", "the bus still runs"]
    );
    let frames = Report { stats: Stats { frames: Some(3), ..report().stats }, ..report() };
    assert_eq!(frames.lines()[0], "3 datagrams (3 frames, 47 bytes) in 2.1 s");
}

#[test]
fn lines_fit_80_columns() {
    let many = 99_999_999;
    let drops = Drops { count: many, is_lower_bound: true };
    let report = |error: ErrorKind| Report {
        stats: Stats {
            datagrams: many,
            bytes: 50 * many,
            frames: Some(many),
            enqueued: many,
            overflowed: many,
            malformed_lines: many,
        },
        drops,
        written: Written { datagrams: 0, error: Some(error.into()) },
        messages_not_shown: many,
        network_errors: many,
        handshake_frames: many,
        duration: Duration::from_secs(86400),
        bus: Bus::default()
            .conclusion(Instant::now(), "can-stop --confirm --bind 0.0.0.0:5001 --target 255.255.255.255:65535"),
    };
    for error in [ErrorKind::StorageFull, ErrorKind::BrokenPipe] {
        for line in report(error).lines() {
            assert!(format!("can-listen: {line}").lines().all(|line| line.len() <= 80), "{line}");
        }
    }
    let unknown = Report { drops: Drops { count: 0, is_lower_bound: true }, ..report(ErrorKind::Other) };
    assert_eq!(unknown.lines()[1], format!("lost: unknown in the kernel, {many} in the output buffer"));
}

#[test]
fn suppressed_messages_are_losses_that_quiet_users_see() {
    assert!(!report().has_losses());
    let report = Report { messages_not_shown: 2990, ..report() };
    assert!(report.has_losses());
    assert_eq!(report.lines()[2], "2990 messages not shown");
}

#[test]
fn reader_that_is_gone_is_no_loss() {
    for (kind, is_loss) in
        [(ErrorKind::BrokenPipe, false), (ErrorKind::ConnectionReset, false), (ErrorKind::StorageFull, true)]
    {
        let report = Report { written: Written { datagrams: 1, error: Some(kind.into()) }, ..report() };
        assert_eq!(report.has_losses(), is_loss, "{kind}");
        let fate = if is_loss { "not written to stdout" } else { "not read by the reader" };
        assert_eq!(report.lines()[2], format!("up to 2 datagrams {fate}"));
    }
}

/// An output that is never written before `None` is passed, and what was asked of it.
#[derive(Debug)]
struct Slow {
    written: fn() -> Written,
    synced: fn() -> io::Result<()>,
    is_deleted: bool,
    log: Log,
}

type Log = Arc<Mutex<Vec<String>>>;

fn log(log: &Log, entry: impl Into<String>) {
    log.lock().expect("no panic").push(entry.into());
}

impl Output for Slow {
    fn push(&self, _: &[u8], _: u64) -> Result<(), PushError> {
        Ok(())
    }

    fn close(&self) {
        log(&self.log, "close");
    }

    fn wait_written(&self, timeout: Option<Duration>) -> Option<Written> {
        timeout.is_none().then(self.written)
    }

    fn wait_synced(&self, timeout: Option<Duration>) -> Option<io::Result<()>> {
        log(&self.log, "sync");
        timeout.is_none().then(self.synced)
    }

    fn take_deletion(&self) -> bool {
        self.is_deleted
    }

    fn is_file(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Lines(Log);

impl Sink for Lines {
    fn put(&self, line: String) {
        log(&self.0, line.trim_end());
    }

    fn lost(&self) -> u64 {
        0
    }

    fn flush(&self, _: Duration) {}
}

/// What [`end`] does, without the time, and how it exits.
fn ended(output: Slow, failures: Vec<Error>) -> (Vec<String>, Exit) {
    let messages = Messages::new("can-listen", Verbosity::Quiet, Arc::new(Lines(Arc::clone(&output.log))));
    let exit = end(&output, &messages, &Shutdown::default(), failures, |written| Report {
        written,
        messages_not_shown: 1,
        ..report()
    });
    let log = output.log.lock().expect("no panic").clone();
    (log, exit)
}

const REPORT: [&str; 4] = [
    "can-listen: 3 datagrams (47 bytes) in 2.1 s",
    "can-listen: lost: 0 in the kernel, 0 in the output buffer",
    "can-listen: 1 message not shown",
    "can-listen: the bus still runs",
];

const WAITING: &str =
    "can-listen: waiting for the process reading stdout; press Ctrl-C twice to quit now, discarding unwritten output";

#[test]
fn late_error_and_deletion_follow_the_report() {
    let output = Slow {
        written: || Written { datagrams: 3, error: None },
        synced: || Err(io::Error::from_raw_os_error(5)),
        is_deleted: true,
        log: Log::default(),
    };
    let (log, exit) = ended(output, vec![anyhow!("first"), anyhow!("second")]);
    let mut expected = vec!["close", WAITING];
    expected.extend(REPORT);
    expected.extend([
        "sync",
        "can-listen: waiting for the disk to store the file; press Ctrl-C twice to quit now",
        "sync",
        "can-listen: the output file was deleted; what is written there will be gone",
        "can-listen: first",
        "can-listen: second",
    ]);
    assert_eq!(log, expected);
    let Exit::Failure(last) = exit else { panic!("{exit:?}") };
    assert!(last.to_string().starts_with("cannot write to stdout: Input/output error"), "{last}");
}

#[test]
fn signal_while_the_disk_stores_the_file_contradicts_nothing() {
    let output = Slow { written: Written::default, synced: || Ok(()), is_deleted: false, log: Log::default() };
    let messages = Messages::new("can-listen", Verbosity::Quiet, Arc::new(Lines(Log::default())));
    let shutdown = Shutdown::default();
    let _ = shutdown.waker.set(Waker::default());
    shutdown.set_quit_message("exited; the bus may still run".to_owned());
    let _ = end(&output, &messages, &shutdown, vec![anyhow!("START was refused")], |_| report());
    assert_eq!(shutdown.on_signal(&messages), None);
    let last = "exited; the disk may not have stored all of the file; START was refused";
    assert_eq!(shutdown.on_signal(&messages).as_deref(), Some(last));
}

#[test]
fn failed_write_is_not_followed_by_a_sync() {
    for (error, is_failure) in [(ErrorKind::StorageFull, true), (ErrorKind::BrokenPipe, false)] {
        let written = match error {
            ErrorKind::StorageFull => || Written { datagrams: 1, error: Some(ErrorKind::StorageFull.into()) },
            _ => || Written { datagrams: 1, error: Some(ErrorKind::BrokenPipe.into()) },
        };
        let synced = || panic!("it is not written");
        let (log, exit) = ended(Slow { written, synced, is_deleted: false, log: Log::default() }, vec![]);
        assert!(!log.contains(&"sync".to_owned()), "{log:?}");
        assert_eq!(matches!(exit, Exit::Failure(_)), is_failure, "{exit:?}");
    }
}
