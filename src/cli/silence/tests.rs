//! Silences on the test's own clock.

use super::*;

const RUNNING: Status = Status { channel: 1, bus_off: false, error_warning: false, overrun: false, stopped: false };
const STOPPED: Status = Status { stopped: true, ..RUNNING };

const SECOND: Duration = Duration::from_secs(1);

fn silence(started: Instant) -> Silence {
    Silence::new(started, 5 * SECOND, None)
}

fn answered(status: Status) -> Outcome {
    Outcome::Answered(Answer::Status(status))
}

/// Asks when that is due, and answers at once.
fn ask(silence: &mut Silence, now: Instant, outcome: Outcome) -> Verdict {
    assert!(silence.ask_at().is_some_and(|at| at <= now), "{:?}", silence.ask_at());
    silence.mark_asked(now);
    silence.on_answer(now, outcome, None)
}

#[test]
fn silent_bus_is_asked_about_once() {
    let started = Instant::now();
    let mut silence = silence(started);
    assert_eq!(silence.ask_at(), Some(started + 5 * SECOND));
    silence.on_start_answered();
    assert_eq!(ask(&mut silence, started + 5 * SECOND, answered(RUNNING)), Verdict::Report(5 * SECOND));
    assert_eq!(silence.ask_at(), None);
}

#[test]
fn unanswered_or_refused_status_is_sent_again_every_minute() {
    let started = Instant::now();
    let mut silence = silence(started);
    ask(&mut silence, started + 5 * SECOND, Outcome::NoReply(None));
    assert_eq!(silence.ask_at(), Some(started + 65 * SECOND));
    let refused = Outcome::Answered(Answer::Refused("R ERR 10".to_owned()));
    assert_eq!(ask(&mut silence, started + 65 * SECOND, refused.clone()), Verdict::Report(65 * SECOND));
    assert_eq!(ask(&mut silence, started + 125 * SECOND, refused), Verdict::Nothing);
    assert_eq!(ask(&mut silence, started + 185 * SECOND, answered(RUNNING)), Verdict::Report(185 * SECOND));
    assert_eq!(silence.ask_at(), None);
}

#[test]
fn slow_bus_is_asked_about_once_a_minute() {
    let started = Instant::now();
    let mut silence = silence(started);
    let mut asked = Vec::new();
    for second in 1..=240 {
        let now = started + second * SECOND;
        if silence.ask_at().is_some_and(|at| at <= now) {
            ask(&mut silence, now, answered(RUNNING));
            asked.push(second);
        }
        if second % 7 == 0 {
            silence.on_data(now);
        }
    }
    // First after 5 s; then, when a minute is over, 5 s after the frame before (at 63, 126, 189).
    assert_eq!(asked, [5, 68, 131, 194]);
}

#[test]
fn data_postpones_the_question() {
    let started = Instant::now();
    let mut silence = silence(started);
    assert_eq!(silence.on_data(started + 4 * SECOND), None);
    assert_eq!(silence.ask_at(), Some(started + 9 * SECOND));
}

#[test]
fn short_idle_timeout_moves_the_question_to_its_middle() {
    let now = Instant::now();
    let ask_after = |status_after, idle| {
        let silence = Silence::new(now, status_after, Some(idle));
        silence.ask_at().map(|at| at - now)
    };
    assert_eq!(ask_after(5 * SECOND, 9 * SECOND), Some(9 * SECOND / 2));
    assert_eq!(ask_after(5 * SECOND, 10 * SECOND), Some(5 * SECOND));
    assert_eq!(ask_after(Duration::ZERO, 10 * SECOND), None);
}

#[test]
fn start_is_sent_again_only_if_it_was_never_answered() {
    let started = Instant::now();
    let first = |prepare: fn(&mut Silence, Instant)| {
        let mut silence = silence(started);
        prepare(&mut silence, started);
        ask(&mut silence, started + 10 * SECOND, answered(STOPPED))
    };
    assert_eq!(first(|_, _| ()), Verdict::StartAgain(STOPPED));
    assert_eq!(first(|silence, _| silence.on_start_answered()), Verdict::Report(10 * SECOND));
    let data = |silence: &mut Silence, now| {
        silence.on_data(now);
    };
    assert_eq!(first(data), Verdict::Report(10 * SECOND));
}

#[test]
fn bus_that_was_running_is_not_started_again() {
    let started = Instant::now();
    let mut silence = silence(started);
    ask(&mut silence, started + 5 * SECOND, answered(RUNNING));
    silence.on_data(started + 6 * SECOND);
    assert_eq!(ask(&mut silence, started + 70 * SECOND, answered(STOPPED)), Verdict::Report(64 * SECOND));
}

#[test]
fn status_that_was_true_before_start_is_forgotten() {
    let started = Instant::now();
    let mut silence = silence(started);
    assert_eq!(ask(&mut silence, started + 5 * SECOND, answered(STOPPED)), Verdict::StartAgain(STOPPED));
    assert_eq!((silence.cause(), silence.start()), (&Cause::Unknown, Start::Resent));
    // The second START may be lost as well, so it is asked again.
    assert_eq!(silence.ask_at(), Some(started + 65 * SECOND));
    // A second time it is not sent: another program may have stopped the bus.
    assert_eq!(ask(&mut silence, started + 65 * SECOND, answered(STOPPED)), Verdict::Report(65 * SECOND));
}

#[test]
fn every_silence_is_reported_though_its_cause_is_the_same() {
    let started = Instant::now();
    let mut silence = silence(started);
    assert_eq!(silence.on_data(started + SECOND), None);
    for minute in 1..4 {
        let now = started + minute * 100 * SECOND;
        assert!(matches!(ask(&mut silence, now, answered(STOPPED)), Verdict::Report(_)));
        assert_eq!(silence.on_data(now + SECOND).map(|gap| gap > 5 * SECOND), Some(true));
    }
}

#[test]
fn silence_too_soon_to_ask_is_reported_when_it_ends() {
    let started = Instant::now();
    let mut silence = silence(started);
    ask(&mut silence, started + 5 * SECOND, answered(RUNNING));
    silence.on_data(started + 6 * SECOND);
    assert_eq!(silence.on_data(started + 26 * SECOND), Some(20 * SECOND));
    assert_eq!(silence.on_data(started + 30 * SECOND), None);
}

#[test]
fn answer_that_came_before_data_counts_for_no_later_silence() {
    let started = Instant::now();
    let mut silence = silence(started);
    ask(&mut silence, started + 5 * SECOND, Outcome::NoReply(None));
    assert_eq!(silence.cause(), &Cause::NoReply(None));
    silence.on_data(started + 6 * SECOND);
    assert_eq!(silence.cause(), &Cause::Unknown);
}
