//! Reports of sessions that did not take place.

use super::*;

fn report() -> Report {
    Report {
        stats: Stats { datagrams: 3, bytes: 47, enqueued: 3, ..Stats::default() },
        drops: Drops::default(),
        written: 3,
        write_error: None,
        messages_not_shown: 0,
        network_errors: 0,
        handshake_frames: 0,
        duration: Duration::from_millis(2100),
        bus: BusState::Running,
        can_stop: "can-stop --confirm --target 10.8.0.109".to_owned(),
    }
}

#[test]
fn can_stop_line_stands_alone_on_the_last_line() {
    assert_eq!(
        report().to_string(),
        "3 datagrams (47 bytes) in 2.1 s; lost: 0 in the kernel, 0 in the output buffer; the bus still runs, stop it \
         with:\ncan-stop --confirm --target 10.8.0.109"
    );
}

#[test]
fn lines_fit_140_columns() {
    let many = 10_u64.pow(13);
    let report = Report {
        stats: Stats {
            datagrams: many,
            bytes: 50 * many,
            frames: Some(many),
            enqueued: many,
            overflowed: many,
            after_failure: many,
            malformed_lines: many,
        },
        drops: Drops { count: many, is_lower_bound: true },
        write_error: Some(ErrorKind::StorageFull.into()),
        messages_not_shown: many,
        network_errors: many,
        handshake_frames: many,
        duration: Duration::from_secs(many),
        bus: BusState::Unknown,
        ..report()
    };
    let text = format!("can-listen: {report}");
    assert!(text.lines().all(|line| line.len() <= MAX_COLUMNS), "{text}");
    for part in report.parts() {
        assert!(text.contains(&part), "no {part:?} in {text}");
    }
}

#[test]
fn suppressed_messages_are_losses_that_quiet_users_see() {
    assert!(!report().has_losses());
    let report = Report { messages_not_shown: 2990, ..report() };
    assert!(report.has_losses());
    assert!(report.to_string().contains("; 2990 messages not shown\n"), "{report}");
}

#[test]
fn reader_that_is_gone_is_no_failure() {
    for (kind, is_failure) in
        [(ErrorKind::BrokenPipe, false), (ErrorKind::ConnectionReset, false), (ErrorKind::StorageFull, true)]
    {
        let report = Report { write_error: Some(kind.into()), written: 1, ..report() };
        assert_eq!(report.stdout_failure().is_some(), is_failure, "{kind}");
        assert_eq!(report.has_losses(), is_failure, "{kind}");
    }
}
